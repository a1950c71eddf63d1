"""The decoder in plain NumPy: the text that the kernel must equal."""

import math

import numpy as np
from numpy.typing import NDArray

from rtpose.peaks.geometry import (
    BORDER_SIGMA,
    TRUSTED,
    Affine,
    MapGeometry,
    cells_to_frame,
    check,
    contrast,
    filter_matrix,
)

Array = NDArray[np.float64]


def decode_reference(
    maps: NDArray[np.float32],
    geometry: MapGeometry,
    offsets: NDArray[np.float32] | None = None,
    *,
    to_frame: Affine = (1.0, 0.0, 1.0, 0.0),
    min_confidence: float = 0.0,
) -> tuple[Array, NDArray[np.uint8]]:
    """Decode maps in float64, every cell filtered, one map after the other.

    Parameters
    ----------
    maps : ndarray, shape (keypoints, height, width)
    geometry, to_frame, min_confidence
        As for `PeakDecoder`.
    offsets : ndarray, shape (2 * keypoints, height, width)
        Where the geometry has a `location_refinement`.

    Returns
    -------
    keypoints : ndarray of float64, shape (keypoints, 3)
        x, y in px of the full frame and confidence.
    valid : ndarray of uint8, shape (keypoints,)
    """
    check(geometry, len(maps), to_frame, min_confidence)
    ax, bx, ay, by = cells_to_frame(geometry, to_frame)
    planes, sigma = maps.astype(np.float64), geometry.sigma
    if offsets is None or geometry.location_refinement is None:
        keypoints = np.array([_peak(plane, sigma) for plane in planes])
    else:
        moves = offsets.astype(np.float64) * geometry.location_refinement
        pairs = zip(planes, moves[0::2], moves[1::2], strict=True)
        keypoints = np.array([_refined(*triple, sigma) for triple in pairs])
    found = np.isfinite(keypoints[:, 0])
    keypoints[:, :2] = keypoints[:, :2] * (ax, ay) + (bx, by)
    return keypoints, (found & (keypoints[:, 2] >= min_confidence)).astype(np.uint8)


def _peak(plane: Array, sigma: float) -> tuple[float, float, float]:
    """Return x, y (in cells) and confidence of one map's peak."""
    if not np.isfinite(plane).all():
        return math.nan, math.nan, 0.0
    down, right = (filter_matrix(cells, sigma) for cells in plane.shape)
    response = down @ plane @ right
    row, column = (int(i) for i in np.unravel_index(response.argmax(), response.shape))
    if response[row, column] <= 0:
        return math.nan, math.nan, 0.0
    top = None
    margin = BORDER_SIGMA * sigma
    x_inside, y_inside = (
        margin <= place <= cells - 1 - margin
        for place, cells in zip((column, row), plane.shape[::-1], strict=True)
    )
    if x_inside and y_inside:
        top = _top_of_paraboloid(response[row - 1 : row + 2, column - 1 : column + 2])
    if top is not None:
        x, y = column + top[0], row + top[1]
    else:
        x = (
            column + _top_of_parabola(response[row, column - 1 : column + 2], otherwise=0.0)
            if x_inside
            else _beside_border(down[row] @ plane, column, margin)
        )
        y = (
            row + _top_of_parabola(response[row - 1 : row + 2, column], otherwise=0.0)
            if y_inside
            else _beside_border(plane @ right[column], row, margin)
        )
    nearest = tuple(
        min(max(round(place), 0), cells - 1)
        for place, cells in zip((y, x), plane.shape, strict=True)
    )
    confidence = float(plane[nearest])
    if confidence <= 0 or not _stands_out(confidence, plane, sigma):
        return math.nan, math.nan, 0.0
    return x, y, confidence


def _refined(
    plane: Array, move_x: Array, move_y: Array, sigma: float
) -> tuple[float, float, float]:
    """Return x, y (in cells) and confidence of one map's largest cell, moved by its offsets."""
    nothing = math.nan, math.nan, 0.0
    if not np.isfinite(plane).all():
        return nothing
    cell = np.unravel_index(plane.argmax(), plane.shape)
    x, y = float(cell[1] + move_x[cell]), float(cell[0] + move_y[cell])
    confidence = float(plane[cell])
    if confidence <= 0 or not math.isfinite(x + y) or not _stands_out(confidence, plane, sigma):
        return nothing
    return x, y, confidence


def _stands_out(confidence: float, plane: Array, sigma: float) -> bool:
    """Return whether a confidence is above the quietest row and the quietest column by enough."""
    quietest = (np.clip(plane.max(axis=axis).min(), 0, confidence) for axis in (1, 0))
    return all(
        confidence - quiet >= contrast(cells, sigma) * confidence
        for quiet, cells in zip(quietest, plane.shape, strict=True)
    )


def _top_of_paraboloid(block: Array) -> tuple[float, float] | None:
    """Return the top of the least-squares paraboloid through 3x3 logarithms, from their middle."""
    if block.min() < TRUSTED * block[1, 1]:
        return None
    y, x = (axis.ravel() for axis in np.mgrid[-1:2, -1:2])
    terms = np.stack([np.ones(9), x, y, x * x / 2, y * y / 2, x * y], axis=1)
    _, fx, fy, fxx, fyy, fxy = np.linalg.lstsq(terms, np.log(block.ravel()), rcond=None)[0]
    if fxx >= 0 or fxx * fyy - fxy * fxy <= 0:
        return None
    dx, dy = np.linalg.solve([[fxx, fxy], [fxy, fyy]], [-fx, -fy])
    return (float(dx), float(dy)) if max(abs(dx), abs(dy)) <= 1 else None


def _top_of_parabola(triple: Array, *, otherwise: float) -> float:
    """Return where the parabola through three logarithms has its top, from their middle."""
    if triple.min() <= 0:
        return otherwise
    before, middle, after = np.log(triple)
    bend = before - 2 * middle + after
    return float((before - after) / bend / 2) if bend < 0 else otherwise


def _beside_border(profile: Array, place: int, margin: float) -> float:
    """Return the place of a peak that the filter may have pulled away from a border."""
    last = profile.size - 1
    low = 0 if place < margin else place - 1
    high = last if last - place < margin else place + 1
    top = low + int(profile[low : high + 1].argmax())
    if last < 2:
        return top
    middle = min(max(top, 1), last - 1)
    offset = _top_of_parabola(profile[middle - 1 : middle + 2], otherwise=top - middle)
    return min(max(middle + offset, top - 1), top + 1)
