"""The sub-pixel decoder of `rtpose.peaks` as an ONNX graph, so that only keypoints leave a GPU.

The rules and their source are those of `rtpose.peaks`; here they are written for all maps at once,
in operators that every execution provider has (MatMul, ArgMax, GatherElements, elementwise ones).
What the compiled decoder leaves out by bounds is computed in full here: two products with constant
banded matrices.
"""

import math
from typing import cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rtpose.model_card import MAPS_NAME, OFFSETS_NAME, PEAKS_NAME, VALUES_NAME, MapsSpec
from rtpose.peaks import BORDER_SIGMA, TRUSTED, contrast, filter_matrix
from rtpose_train.exporting.onnx_graph import to_graph

#: Below any response; unlike infinity it stays a number when it is multiplied.
_LEAST = -3.0e38
#: Stands for logarithms of what is not positive, where the answer is thrown away anyway.
_TINY = 1e-37


class GraphDecoder(nn.Module):
    """Decode keypoint maps into places in px of the model's input, and their confidence.

    Parameters
    ----------
    spec : MapsSpec
        Size, stride, offset and sigma of the maps; with `location_refinement` the second argument
        of `forward` are offsets, else there is none.
    """

    def __init__(self, spec: MapsSpec) -> None:
        super().__init__()
        self.spec = spec
        self.margin = BORDER_SIGMA * spec.sigma
        self.down = nn.Buffer(_constant(filter_matrix(spec.height, spec.sigma)))
        self.right = nn.Buffer(_constant(filter_matrix(spec.width, spec.sigma)))
        self.fit = nn.Buffer(_constant(_paraboloid_fit()))

    def forward(self, maps: Tensor, offsets: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the peaks.

        Parameters
        ----------
        maps : Tensor of float, shape (1, keypoints, height, width)
        offsets : Tensor of float, shape (1, 2 * keypoints, height, width), optional
            x and y of keypoint 0, x and y of keypoint 1, ...

        Returns
        -------
        peaks : Tensor of float, shape (1, keypoints, 2)
            x, y in px of the model's input; NaN where a map has no peak.
        peak_vals : Tensor of float, shape (1, keypoints)
            Confidence; 0 where a map has no peak.
        """
        planes = _spoiled_to_zero(maps[0])
        if offsets is None:
            x, y, confidence = self._filtered(planes)
        else:
            x, y, confidence = self._refined(planes, offsets[0])
        is_peak = (confidence > 0) & self._stands_out(planes, confidence)
        at = torch.stack([x, y], dim=1) * self.spec.stride + self.spec.offset_px
        peaks = torch.where(is_peak[:, None], at, math.nan)
        return peaks[None], torch.where(is_peak, confidence, 0.0)[None]

    def _highest(self, planes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return row, column and value of the largest cell of each plane, shape (keypoints,)."""
        flat = planes.flatten(1)
        at = flat.argmax(dim=1)
        row = torch.div(at, self.spec.width, rounding_mode="floor")
        return row, at - row * self.spec.width, flat.gather(1, at[:, None])[:, 0]

    def _filtered(self, planes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return x, y in cells by the matched filter, and the maps' values there."""
        response = torch.matmul(torch.matmul(self.down, planes), self.right)
        row, column, value = self._highest(response)
        block = self._around(response, row, column)
        x_inside = self._is_inside(column, self.spec.width)
        y_inside = self._is_inside(row, self.spec.height)
        dx, dy, is_top = self._paraboloid(block)
        is_top &= x_inside & y_inside
        along_x = column + _parabola(block[:, 3:6], 0.0)
        along_y = row + _parabola(block[:, 1::3], 0.0)
        # Beside a border: the map filtered along the other axis only.
        across_rows = torch.matmul(self.down.index_select(0, row)[:, None], planes)[:, 0]
        across_columns = torch.matmul(planes, self.right.index_select(0, column)[..., None])[..., 0]
        border_x = self._beside_border(across_rows, column)
        border_y = self._beside_border(across_columns, row)
        x = torch.where(is_top, column + dx, torch.where(x_inside, along_x, border_x))
        y = torch.where(is_top, row + dy, torch.where(y_inside, along_y, border_y))
        confidence = self._nearest(planes, x, y)
        return x, y, torch.where(value > 0, confidence, 0.0)

    def _refined(self, planes: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return x, y in cells by location refinement, and the maps' largest values."""
        row, column, value = self._highest(planes)
        cell = (row * self.spec.width + column)[:, None, None].expand(-1, 2, 1)
        pairs = offsets.reshape(len(planes), 2, -1).gather(2, cell)[..., 0]
        moved = pairs * cast("float", self.spec.location_refinement)
        is_finite = (moved - moved).sum(dim=1) == 0
        confidence = torch.where(is_finite, value, 0.0)
        return column + moved[:, 0], row + moved[:, 1], confidence

    def _is_inside(self, place: Tensor, cells: int) -> Tensor:
        # Whole numbers: comparing them with the margin rounded up is comparing with the margin.
        margin = math.ceil(self.margin)
        return (place >= margin) & (place <= cells - 1 - margin)

    def _around(self, response: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Return the 3x3 responses around a cell, row by row, shape (keypoints, 9)."""
        rows = torch.stack([row - 1, row, row + 1], dim=1).clamp(0, self.spec.height - 1)
        columns = torch.stack([column - 1, column, column + 1], dim=1)
        columns = columns.clamp(0, self.spec.width - 1)
        cells = (rows[:, :, None] * self.spec.width + columns[:, None, :]).flatten(1)
        return response.flatten(1).gather(1, cells)

    def _paraboloid(self, block: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the top of the paraboloid through the logarithms, and whether it has one."""
        peak = block[:, 4:5]
        logarithms = (block / peak.clamp(min=_TINY)).clamp(min=_TINY).log()
        fx, fy, fxx, fyy, fxy = torch.matmul(logarithms, self.fit).unbind(dim=1)
        determinant = fxx * fyy - fxy * fxy
        dx, dy = (fxy * fy - fyy * fx) / determinant, (fxy * fx - fxx * fy) / determinant
        is_top = (block.amin(dim=1) >= TRUSTED * peak[:, 0]) & (fxx < 0) & (determinant > 0)
        return dx, dy, is_top & (torch.maximum(dx.abs(), dy.abs()) <= 1)

    def _beside_border(self, profile: Tensor, place: Tensor) -> Tensor:
        """Return where profiles (keypoints, cells) have their peak, at or beside a place."""
        last = profile.shape[1] - 1
        cells = torch.arange(last + 1, device=profile.device)
        margin = math.ceil(self.margin)
        low = torch.where(place < margin, 0, place - 1)
        high = torch.where(last - place < margin, last, place + 1)
        allowed = (cells >= low[:, None]) & (cells <= high[:, None])
        top = torch.where(allowed, profile, _LEAST).argmax(dim=1)
        if last < 2:
            return top.to(profile.dtype)
        middle = top.clamp(1, last - 1)
        triple = profile.gather(1, torch.stack([middle - 1, middle, middle + 1], dim=1))
        at = middle + _parabola(triple, (top - middle).to(profile.dtype))
        return torch.minimum(torch.maximum(at, (top - 1).to(at.dtype)), (top + 1).to(at.dtype))

    def _nearest(self, planes: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Return the maps' values at the cells nearest to places."""
        row = y.round().clamp(0, self.spec.height - 1)
        column = x.round().clamp(0, self.spec.width - 1)
        cell = row.long() * self.spec.width + column.long()
        return planes.flatten(1).gather(1, cell[:, None])[:, 0]

    def _stands_out(self, planes: Tensor, confidence: Tensor) -> Tensor:
        """Return whether confidences are above the quietest row and column by enough."""
        height, width, sigma = self.spec.height, self.spec.width, self.spec.sigma
        row, column = (
            torch.minimum(planes.amax(dim=dim).amin(dim=1).clamp(min=0), confidence)
            for dim in (2, 1)
        )
        return (confidence - row >= contrast(height, sigma) * confidence) & (
            confidence - column >= contrast(width, sigma) * confidence
        )


def _constant(values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))


def _spoiled_to_zero(planes: Tensor) -> Tensor:
    """Return the maps, empty where they hold a number that is not finite."""
    # Only what is not finite, less itself, is not zero.
    is_finite = (planes - planes).sum(dim=(1, 2)) == 0
    return torch.where(is_finite[:, None, None], planes, 0.0)


def _paraboloid_fit() -> NDArray[np.float64]:
    """Return what turns 3x3 values into fx, fy, fxx, fyy, fxy by least squares, shape (9, 5)."""
    y, x = (axis.ravel() for axis in np.mgrid[-1:2, -1:2])
    terms = np.stack([np.ones(9), x, y, x * x / 2, y * y / 2, x * y], axis=1)
    solved: NDArray[np.float64] = np.linalg.pinv(terms)[1:].T
    return solved


def _parabola(triple: Tensor, otherwise: Tensor | float) -> Tensor:
    """Return where parabolas through three logarithms (keypoints, 3) have their top."""
    middle = triple[:, 1:2]
    logarithms = (triple / middle.clamp(min=_TINY)).clamp(min=_TINY).log()
    before, after = logarithms[:, 0], logarithms[:, 2]
    bend = before + after
    has_top = (triple.amin(dim=1) > 0) & (bend < 0)
    return torch.where(has_top, (before - after) / bend / 2, otherwise)


def append_decoder(model: onnx.ModelProto, spec: MapsSpec, keypoints: int) -> onnx.ModelProto:
    """Return a graph that ends in maps (and offsets) with the decoder behind it.

    Its outputs are ``peaks`` and ``peak_vals``.
    """
    inputs = {MAPS_NAME: torch.zeros(1, keypoints, spec.height, spec.width)}
    if spec.location_refinement is not None:
        inputs[OFFSETS_NAME] = torch.zeros(1, 2 * keypoints, spec.height, spec.width)
    decoder = to_graph(GraphDecoder(spec), inputs, (PEAKS_NAME, VALUES_NAME))
    merged: onnx.ModelProto = onnx.compose.merge_models(
        model,
        onnx.compose.add_prefix(decoder, "decoder/", rename_inputs=False, rename_outputs=False),
        io_map=[(name, name) for name in inputs],
    )
    return merged
