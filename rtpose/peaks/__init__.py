"""From keypoint maps to keypoints.

A map shows one keypoint as a Gaussian of known width. It is found with the *matched filter*: the
map is correlated with a Gaussian of that width (outside the map there are zeros), and the cell with
the largest response is taken. The logarithm of a Gaussian is a paraboloid, so the top of the
least-squares paraboloid through the logarithms of the 3x3 responses around that cell is the place
between the cells: exact without noise, and under noise as good as the sub-pixel maximum of Graving
et al. 2019 (eLife 8:e47994), which evaluates the same correlation on a grid of 1/100 cell. Besides:

* Within 2.25 sigma of a border the filter sees only a part of the peak and would pull it inwards.
  There a parabola goes through the logarithms of the map itself along that axis (it is still
  filtered along the other one, which leaves this axis' shape alone), one-sided if the peak is the
  border cell. The top may so lie outside the map, by at most one cell: the image reaches that far
  beyond the last cell.
* A paraboloid whose corners are mostly noise (less than a fifth of the peak, as with sigma below
  0.8 cells), or which has no top within a cell, gives way to one parabola per axis.
* Confidence is the map's own value, unfiltered, at the cell nearest to the place that was found.
* There is no peak in a map that holds NaN or infinity, answers the filter nowhere with a positive
  number, or is flat: x and y are NaN and confidence is 0. Flat means that confidence stands above
  the quietest row, or above the quietest column, by less than half of what a Gaussian in the middle
  of the map would.
* A keypoint is valid if there is a peak and its confidence reaches the threshold. Below it x and y
  are still where the peak is, for offline use.

Models with *location refinement* (Insafutdinov et al. 2016, section 3.1; DeepLabCut) draw two more
maps per keypoint: how far the keypoint lies from each cell, x and y. For them the place is the cell
of the map's largest value, the first in reading order, as in DeepLabCut, plus what the offsets hold
there; confidence is the map's value there. Nothing is filtered, and the other rules above hold. An
offset that is not finite makes no peak.

`PeakDecoder` is the compiled version, `decode_reference` the same in plain NumPy. Where a graph
holds the decoder itself, `PeakPlacer` only brings its answers into the frame.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtpose.errors import InputError
from rtpose.peaks.geometry import (
    BORDER_SIGMA,
    TRUSTED,
    Affine,
    MapGeometry,
    cells_to_frame,
    check,
    check_request,
    contrast,
    filter_matrix,
    half_gaussian,
)
from rtpose.peaks.kernel import LINES, decode_maps
from rtpose.peaks.reference import decode_reference
from rtpose.peaks.refined import decode_refined, place_peaks

__all__ = [
    "BORDER_SIGMA",
    "TRUSTED",
    "Affine",
    "MapGeometry",
    "PeakDecoder",
    "PeakPlacer",
    "contrast",
    "decode_reference",
    "filter_matrix",
]

_F32 = NDArray[np.float32]


class PeakDecoder:
    """Decode keypoint maps into full-frame pixels, without allocating anything per frame.

    Parameters
    ----------
    maps : MapGeometry
        Size, stride, offset and sigma of the maps; with `location_refinement`, offsets come too.
    keypoints : int
        Number of maps.
    to_frame : (ax, bx, ay, by)
        ``x_frame = ax * x_input + bx``, the same for y; see `model_card.Placement.to_frame`.
    min_confidence : float
        Confidence that a valid keypoint has at least.

    Raises
    ------
    InputError
        If a number makes no sense (threshold outside 0..1, sigma not positive, ...).

    Examples
    --------
    >>> from rtpose.model_card import MapsSpec
    >>> decoder = PeakDecoder(MapsSpec(width=16, height=12, stride=8, sigma=1.5), keypoints=1)
    >>> rows, columns = np.mgrid[:12, :16]
    >>> maps = np.exp(-((columns - 7.25) ** 2 + (rows - 4.5) ** 2) / (2 * 1.5**2))
    >>> keypoints, valid = np.empty((1, 3), np.float32), np.empty(1, np.uint8)
    >>> decoder.decode(maps[None].astype(np.float32), keypoints, valid)
    >>> keypoints[0, :2].round(2).tolist(), valid.tolist()
    ([58.0, 36.0], [1])
    """

    def __init__(
        self,
        maps: MapGeometry,
        keypoints: int,
        *,
        to_frame: Affine = (1.0, 0.0, 1.0, 0.0),
        min_confidence: float = 0.0,
    ) -> None:
        check(maps, keypoints, to_frame, min_confidence)
        self.shape = (keypoints, maps.height, maps.width)
        half = half_gaussian(maps.sigma)
        margins = 2 * (half.size - 1)
        self._taps = np.append(half, 0.0).astype(np.float32)
        self._lines = np.zeros((LINES, max(maps.height, maps.width) + margins), np.float32)
        self._block = np.zeros((2, 3 * (maps.width + margins)), np.float32)
        self._response = np.zeros((maps.height, maps.width), np.float32)
        self._accepted: tuple[Any, ...] = (None, None, None, None, None, None)
        self._scale = maps.location_refinement
        self._offsets_shape = (2 * keypoints, maps.height, maps.width)
        self._numbers = np.array(
            [
                *cells_to_frame(maps, to_frame),
                BORDER_SIGMA * maps.sigma,
                contrast(maps.height, maps.sigma),
                contrast(maps.width, maps.sigma),
                min_confidence,
            ]
        )

    def decode(
        self,
        maps: NDArray[np.float32],
        keypoints_out: NDArray[np.float32],
        valid_out: NDArray[np.uint8],
        offsets: NDArray[np.float32] | None = None,
    ) -> None:
        """Find the keypoints in a set of maps.

        Parameters
        ----------
        maps : ndarray of float32, shape (keypoints, height, width) or (1, keypoints, height, width)
            C-contiguous; left as they are. Handing over the same arrays every time saves checking
            them again.
        keypoints_out : ndarray of float32, shape (keypoints, 3)
            Receives x, y in px of the full frame and confidence.
        valid_out : ndarray of uint8, shape (keypoints,)
            Receives 1 where a keypoint may be used.
        offsets : ndarray of float32, shape (2 * keypoints, height, width), optional
            Or with a 1 before it. Needed where the maps have a `location_refinement`: x and y of
            keypoint 0, x and y of keypoint 1, ...

        Raises
        ------
        InputError
            If an array has another shape or type, or offsets are missing or not looked for.
        """
        # Arrays that were accepted are not looked at again: right after an inference, with nothing
        # of ours in the CPU's caches, that would take longer than decoding.
        known = self._accepted
        if (
            maps is not known[0]
            or keypoints_out is not known[2]
            or valid_out is not known[3]
            or offsets is not known[4]
        ):
            known = self._accept(maps, keypoints_out, valid_out, offsets)
        if self._scale is not None:
            decode_refined(
                known[1],
                known[5],
                self._scale,
                self._numbers,
                self._lines,
                keypoints_out,
                valid_out,
            )
            return
        decode_maps(
            known[1],
            self._taps,
            self._numbers,
            self._response,
            self._block,
            self._lines,
            keypoints_out,
            valid_out,
        )

    def _accept(
        self,
        maps: _F32,
        keypoints_out: _F32,
        valid_out: NDArray[np.uint8],
        offsets: _F32 | None,
    ) -> tuple[Any, ...]:
        if (offsets is None) != (self._scale is None):
            raise InputError(
                f"offsets are {'missing' if offsets is None else 'given'}, "
                f"and the maps' location_refinement is {self._scale}"
            )
        planes = _planes(maps, "maps", self.shape)
        pairs = None if offsets is None else _planes(offsets, "offsets", self._offsets_shape)
        _require_answers(keypoints_out, valid_out, self.shape[0])
        self._accepted = (maps, planes, keypoints_out, valid_out, offsets, pairs)
        return self._accepted

    def warm_up(self) -> None:
        """Compile the kernel (or load it from the cache), so that the first frame is not late."""
        keypoints = self.shape[0]
        self.decode(
            np.zeros(self.shape, np.float32),
            np.empty((keypoints, 3), np.float32),
            np.empty(keypoints, np.uint8),
            None if self._scale is None else np.zeros(self._offsets_shape, np.float32),
        )


class PeakPlacer:
    """Bring peaks that a graph has found itself into full-frame pixels, like `PeakDecoder`.

    Parameters
    ----------
    keypoints, to_frame, min_confidence
        As for `PeakDecoder`.

    Raises
    ------
    InputError
        If a number makes no sense.
    """

    def __init__(
        self,
        keypoints: int,
        *,
        to_frame: Affine = (1.0, 0.0, 1.0, 0.0),
        min_confidence: float = 0.0,
    ) -> None:
        check_request(keypoints, to_frame, min_confidence)
        self._keypoints = keypoints
        self._numbers = np.array([*to_frame, min_confidence])
        self._accepted: tuple[Any, ...] = (None, None, None, None)

    def place(
        self,
        peaks: NDArray[np.float32],
        values: NDArray[np.float32],
        keypoints_out: NDArray[np.float32],
        valid_out: NDArray[np.uint8],
    ) -> None:
        """Place the peaks.

        Parameters
        ----------
        peaks : ndarray of float32, shape (1, keypoints, 2)
            x, y in px of the model's input; NaN where there is none.
        values : ndarray of float32, shape (1, keypoints)
            Confidence.
        keypoints_out, valid_out
            As for `PeakDecoder.decode`.

        Raises
        ------
        InputError
            If an array has another shape or type.
        """
        known = self._accepted
        if (
            peaks is not known[0]
            or values is not known[1]
            or keypoints_out is not known[2]
            or valid_out is not known[3]
        ):
            _require(peaks, "peaks", np.float32, (1, self._keypoints, 2))
            _require(values, "values", np.float32, (1, self._keypoints))
            _require_answers(keypoints_out, valid_out, self._keypoints)
            self._accepted = (peaks, values, keypoints_out, valid_out)
        place_peaks(peaks, values, self._numbers, keypoints_out, valid_out)


def _planes(array: _F32, name: str, shape: tuple[int, ...]) -> _F32:
    planes = array[0] if array.shape == (1, *shape) else array
    _require(planes, name, np.float32, shape)
    return planes


def _require_answers(keypoints_out: _F32, valid_out: NDArray[np.uint8], keypoints: int) -> None:
    _require(keypoints_out, "keypoints_out", np.float32, (keypoints, 3))
    _require(valid_out, "valid_out", np.uint8, (keypoints,))


def _require(
    array: NDArray[np.generic], name: str, dtype: type[np.generic], shape: tuple[int, ...]
) -> None:
    if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
        raise InputError(
            f"{name}: {array.dtype} {array.shape}, expected contiguous {dtype.__name__} {shape}"
        )
