"""From a model's outputs to keypoints, with the decoder of the live service, and how far off."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rtpose.model_card import MAPS_NAME, OFFSETS_NAME, PEAKS_NAME, VALUES_NAME, MapsSpec, Placement
from rtpose.peaks import Affine, PeakDecoder

_F32 = NDArray[np.float32]

_INPUT: Affine = (1.0, 0.0, 1.0, 0.0)


def decode(maps: _F32, spec: MapsSpec, placement: Placement, offsets: _F32 | None = None) -> _F32:
    """Return the keypoints of one frame.

    Parameters
    ----------
    maps : ndarray of float32, shape (keypoints, height, width)
    spec : MapsSpec
        The maps' geometry.
    placement : Placement
        Where the frame lies in the input.
    offsets : ndarray of float32, shape (2 * keypoints, height, width), optional
        Needed where the maps have a `location_refinement`.

    Returns
    -------
    ndarray of float32, shape (keypoints, 3)
        x, y in px of the frame (NaN where a map has no peak), confidence.
    """
    return _decode(maps, spec, placement.to_frame, offsets)


def _decode(maps: _F32, spec: MapsSpec, to_frame: Affine, offsets: _F32 | None) -> _F32:
    count = maps.shape[0]
    keypoints, valid = np.empty((count, 3), np.float32), np.empty(count, np.uint8)
    decoder = PeakDecoder(spec, count, to_frame=to_frame)
    whole = None if offsets is None else np.ascontiguousarray(offsets, np.float32)
    decoder.decode(np.ascontiguousarray(maps, np.float32), keypoints, valid, whole)
    return keypoints


def decode_outputs(outputs: Mapping[str, _F32], spec: MapsSpec) -> _F32:
    """Return keypoints in px of the model's input out of a graph's outputs.

    Parameters
    ----------
    outputs : mapping of str to ndarray of float32
        Either ``maps`` (and ``offsets``) or ``peaks`` and ``peak_vals``, frames first.
    spec : MapsSpec
        The maps' geometry.

    Returns
    -------
    ndarray of float32, shape (frames, keypoints, 3)
        x, y (NaN where there is no peak), confidence.
    """
    if PEAKS_NAME in outputs:
        return np.concatenate([outputs[PEAKS_NAME], outputs[VALUES_NAME][..., None]], axis=2)
    offsets = outputs.get(OFFSETS_NAME)
    return np.stack(
        [
            _decode(maps, spec, _INPUT, None if offsets is None else offsets[frame])
            for frame, maps in enumerate(outputs[MAPS_NAME])
        ]
    )


def errors_px(
    found: Sequence[NDArray[np.floating]], labelled: Sequence[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Return the distances from found to labelled keypoints, shape (frames, keypoints), in px.

    NaN where a keypoint is not labelled; infinite where it is and no peak was found.
    """
    offsets = np.stack(found)[..., :2].astype(np.float64) - np.stack(labelled)
    distances: NDArray[np.float64] = np.hypot(offsets[..., 0], offsets[..., 1])
    is_labelled = ~np.isnan(np.stack(labelled)[..., 0])
    distances[is_labelled & np.isnan(distances)] = np.inf
    return distances
