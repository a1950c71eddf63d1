"""Compiled ways to keypoints for models that say themselves where between the cells they are."""

import math

import numpy as np
from numpy.typing import NDArray

from rtpose.peaks.kernel import COLUMN_MAX, F32, ROW_MAX, compiled, scan, stands_out


@compiled
def decode_refined(
    maps: F32,
    offsets: F32,
    scale: float,
    numbers: NDArray[np.float64],
    lines: F32,
    keypoints: F32,
    valid: NDArray[np.uint8],
) -> None:
    """Decode maps that come with offsets; the arguments are laid out by `PeakDecoder`."""
    height, width = maps.shape[1:]
    row_max, column_max = lines[ROW_MAX, :height], lines[COLUMN_MAX, :width]
    ax, bx, ay, by, _, row_contrast, column_contrast, min_confidence = numbers
    for k in range(maps.shape[0]):
        keypoints[k, 0] = keypoints[k, 1] = np.nan
        keypoints[k, 2] = 0.0
        valid[k] = 0
        plane = maps[k]
        row = scan(plane, row_max, column_max)
        if row < 0:
            continue
        confidence, column = row_max[row], 0
        while column < width - 1 and plane[row, column] < confidence:
            column += 1
        x = column + scale * offsets[2 * k, row, column]
        y = row + scale * offsets[2 * k + 1, row, column]
        if (
            confidence > 0.0
            and math.isfinite(x + y)
            and stands_out(confidence, row_max, row_contrast)
            and stands_out(confidence, column_max, column_contrast)
        ):
            keypoints[k, 0] = ax * x + bx
            keypoints[k, 1] = ay * y + by
            keypoints[k, 2] = confidence
            valid[k] = confidence >= min_confidence


@compiled
def place_peaks(
    peaks: F32,
    values: F32,
    numbers: NDArray[np.float64],
    keypoints: F32,
    valid: NDArray[np.uint8],
) -> None:
    """Bring peaks that a graph has found into the frame; laid out by `PeakPlacer`."""
    ax, bx, ay, by, min_confidence = numbers
    for k in range(peaks.shape[1]):
        x, y, confidence = ax * peaks[0, k, 0] + bx, ay * peaks[0, k, 1] + by, values[0, k]
        is_peak = math.isfinite(x + y) and math.isfinite(confidence) and confidence > 0.0
        keypoints[k, 0] = x if is_peak else np.nan
        keypoints[k, 1] = y if is_peak else np.nan
        keypoints[k, 2] = confidence if is_peak else 0.0
        valid[k] = is_peak and confidence >= min_confidence
