"""The decoder compiled: one pass over each map, filtering only where the peak can be.

Why it need not filter every cell: the filter is a product ``g(row) g(column)`` of weights that are
not negative and have sum 1. With ``m[r]`` the largest value in row r, at least 0, no response in
row p exceeds ``sum_r g(r - p) m[r]``; columns likewise. The largest response, on the other hand, is
at least the response at the map's largest value. So only rows and columns whose bound reaches that
can hold it, and only they are filtered: a few cells where there is a peak, all where there is only
noise. What is found is the same in every case, up to the rounding of float32.

Scratch memory: `response` is the filter's answer as far as it was needed; `lines` are what the
constants below name, the first three with a margin of zeros as wide as the filter's reach at both
ends; the row bounds serve again as scratch at a border. Inner loops run from 0 over slices: only so
does numba leave out the test for negative indices and the compiler use vector instructions.
"contract" allows fused multiply-add and nothing else.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

from rtpose.peaks.geometry import TRUSTED

F32 = NDArray[np.float32]
_Function = TypeVar("_Function", bound=Callable[..., Any])

ROW_MAX, COLUMN_MAX, ACROSS, ROW_BOUND, COLUMN_BOUND, FILLED = range(6)
LINES = 6

_INFINITY_BITS = np.int32(0x7F800000)
_MAGNITUDE_BITS = np.int32(0x7FFFFFFF)

#: Bounds are compared with this much less than a response, because both are rounded to float32.
_ROUNDING = np.float32(1 - 1e-5)


def _called(function: _Function) -> _Function:
    compiled: _Function = njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")(
        function
    )
    return compiled


def _inlined(function: _Function) -> _Function:
    # Handing an array to a function costs more than most of these functions do.
    compiled: _Function = njit(
        cache=True, nogil=True, fastmath={"contract"}, error_model="numpy", forceinline=True
    )(function)
    return compiled


@_inlined
def _scan(plane: F32, row_max: F32, column_max: F32) -> int:
    """Write the largest value of every row and column, at least 0; return the row of the largest.

    Compares bit patterns: those of numbers that are not negative are integers in the same order,
    those of negative numbers are negative. Unlike float comparison this becomes vector
    instructions, and NaN cannot hide. Returns -1 if a value is not finite.
    """
    bits = plane.view(np.int32)
    row_bits, column_bits = row_max.view(np.int32), column_max.view(np.int32)
    height, width = bits.shape
    for column in range(width):
        column_bits[column] = 0
    magnitude = highest = np.int32(0)
    top = 0
    for row in range(height):
        largest = widest = np.int32(0)
        for column in range(width):
            value = bits[row, column]
            largest = max(largest, value)
            widest = max(widest, np.int32(value & _MAGNITUDE_BITS))
            column_bits[column] = max(column_bits[column], value)
        row_bits[row] = largest
        magnitude = max(magnitude, widest)
        if largest > highest:
            highest, top = largest, row
    return top if magnitude < _INFINITY_BITS else -1


@_inlined
def _along(line: F32, taps: F32, low: int, high: int, out: F32) -> None:
    """Filter places low..high of a line with margins."""
    reach, count = taps.size - 1, high + 1 - low
    result, middle = out[low : high + 1], line[low + reach :]
    for i in range(count):
        result[i] = taps[0] * middle[i]
    for distance in range(1, reach + 1):
        weight = taps[distance]
        before, after = line[low + reach - distance :], line[low + reach + distance :]
        for i in range(count):
            result[i] += weight * (before[i] + after[i])


@_inlined
def _across(plane: F32, taps: F32, row: int, low: int, high: int, line: F32) -> None:
    """Filter columns low..high across the rows, at one row, into a line with margins."""
    reach, count = taps.size - 1, high + 1 - low
    result = line[reach + low : reach + high + 1]
    for i in range(count):
        result[i] = 0.0
    for source in range(max(0, row - reach), min(plane.shape[0], row + reach + 1)):
        weight, values = taps[abs(source - row)], plane[source, low : high + 1]
        for i in range(count):
            result[i] += weight * values[i]


@_inlined
def _respond(plane: F32, taps: F32, row: int, low: int, high: int, line: F32, out: F32) -> None:
    """Write the matched filter's response at columns low..high of one row."""
    reach, last = taps.size - 1, plane.shape[1] - 1
    _across(plane, taps, row, max(0, low - reach), min(last, high + reach), line)
    _along(line, taps, low, high, out)


@_inlined
def _bound(plane: F32, taps: F32, top: int, lines: F32, out: F32) -> tuple[np.float32, int, int]:
    """Bound all responses; return a lower limit of the largest and the columns that may hold it."""
    height, width = plane.shape
    column_bound = lines[COLUMN_BOUND]
    _along(lines[ROW_MAX], taps, 0, height - 1, lines[ROW_BOUND])
    _along(lines[COLUMN_MAX], taps, 0, width - 1, column_bound)
    highest, column = lines[ROW_MAX, taps.size - 1 + top], 0
    while column < width - 1 and plane[top, column] < highest:
        column += 1
    _respond(plane, taps, top, column, column, lines[ACROSS], out)
    limit = max(out[column] * _ROUNDING, np.float32(0.0))
    low, high = 0, width - 1
    while low < high and column_bound[low] < limit:
        low += 1
    while low < high and column_bound[high] < limit:
        high -= 1
    return limit, low, high


@_inlined
def _fill(plane: F32, taps: F32, row: int, low: int, high: int, lines: F32, response: F32) -> None:
    """Fill columns low..high of one row of the response, and a neighbour at each end, once."""
    if lines[FILLED, row] == 0.0:
        lines[FILLED, row] = 1.0
        low, high = max(0, low - 1), min(plane.shape[1] - 1, high + 1)
        _respond(plane, taps, row, low, high, lines[ACROSS], response[row])


@_inlined
def _locate(
    plane: F32, taps: F32, top: int, lines: F32, response: F32
) -> tuple[int, int, np.float32]:
    """Return row, column and value of the largest response; the value is 0 if none is positive."""
    height = plane.shape[0]
    limit, low, high = _bound(plane, taps, top, lines, response[top])
    best = np.float32(0.0)
    row = column = 0
    lines[FILLED, :height] = 0.0
    for candidate in range(height):
        if lines[ROW_BOUND, candidate] >= limit:
            _fill(plane, taps, candidate, low, high, lines, response)
            for place in range(low, high + 1):
                if response[candidate, place] > best:
                    best, row, column = response[candidate, place], candidate, place
            limit = max(limit, best * _ROUNDING)
    for neighbour in range(max(0, row - 1), min(height, row + 2)):
        _fill(plane, taps, neighbour, low, high, lines, response)
    return row, column, best


@_inlined
def _triple(line: F32, place: int) -> tuple[float, float, float]:
    """Return a value between its two neighbours, in double precision."""
    return float(line[place - 1]), float(line[place]), float(line[place + 1])


@_inlined
def _paraboloid(response: F32, row: int, column: int) -> tuple[float, float]:
    """Return the top (x, y) of the least-squares paraboloid through 3x3 log responses, or NaN.

    Sums of logarithms are taken as logarithms of products: five instead of nine.
    """
    a, b, c = _triple(response[row - 1], column)
    d, e, f = _triple(response[row], column)
    g, h, i = _triple(response[row + 1], column)
    if min(a, b, c, d, f, g, h, i) < TRUSTED * e:
        return np.nan, np.nan
    left, centre, right = a * d * g, b * e * h, c * f * i
    above, level, below = a * b * c, d * e * f, g * h * i
    fx, fxx = math.log(right / left) / 6, math.log(left / centre * right / centre) / 3
    fy, fyy = math.log(below / above) / 6, math.log(above / level * below / level) / 3
    fxy = math.log(a / c * i / g) / 4
    determinant = fxx * fyy - fxy * fxy
    if fxx >= 0.0 or determinant <= 0.0:
        return np.nan, np.nan
    dx, dy = (fxy * fy - fyy * fx) / determinant, (fxy * fx - fxx * fy) / determinant
    if max(abs(dx), abs(dy)) > 1.0:
        return np.nan, np.nan
    return column + dx, row + dy


@_inlined
def _parabola(triple: tuple[float, float, float], otherwise: float) -> float:
    """Return where the parabola through three logarithms has its top, from their middle."""
    if min(triple) <= 0.0:
        return otherwise
    before, middle, after = math.log(triple[0]), math.log(triple[1]), math.log(triple[2])
    bend = before - 2.0 * middle + after
    return 0.5 * (before - after) / bend if bend < 0.0 else otherwise


@_called
def _beside_border(plane: F32, taps: F32, row: int, column: int, margin: float, line: F32) -> float:
    """Return the peak's column from the map itself, filtered across the rows only."""
    reach, last = taps.size - 1, plane.shape[1] - 1
    low = 0 if column < margin else column - 1
    high = last if last - column < margin else column + 1
    _across(plane, taps, row, max(0, low - 1), min(last, high + 1), line)
    profile = line[reach : reach + last + 1]
    top = low + int(np.argmax(profile[low : high + 1]))
    if last < 2:
        return float(top)
    middle = min(max(top, 1), last - 1)
    offset = _parabola(_triple(profile, middle), float(top - middle))
    place: float = min(max(middle + offset, top - 1.0), top + 1.0)
    return place


@_inlined
def _refine(
    plane: F32, taps: F32, row: int, column: int, margin: float, line: F32, response: F32
) -> tuple[float, float]:
    """Return the peak's place (x, y) between cells."""
    height, width = plane.shape
    x_inside = min(column, width - 1 - column) >= margin
    y_inside = min(row, height - 1 - row) >= margin
    if x_inside and y_inside:
        x, y = _paraboloid(response, row, column)
        if not math.isnan(x):
            return x, y
    if x_inside:
        x = column + _parabola(_triple(response[row], column), 0.0)
    else:
        x = _beside_border(plane, taps, row, column, margin, line)
    if y_inside:
        y = row + _parabola(_triple(response[:, column], row), 0.0)
    else:
        y = _beside_border(plane.T, taps, column, row, margin, line)
    return x, y


@_inlined
def _stands_out(confidence: float, maxima: F32, contrast: float) -> bool:
    """Return whether a confidence is above the smallest maximum by a part of itself."""
    quietest = confidence
    for maximum in maxima:
        quietest = min(quietest, maximum)
    return confidence - quietest >= contrast * confidence


@_called
def decode_maps(
    maps: F32,
    taps: F32,
    numbers: NDArray[np.float64],
    response: F32,
    lines: F32,
    keypoints: F32,
    valid: NDArray[np.uint8],
) -> None:
    """Decode all maps; the arguments are laid out by `PeakDecoder`."""
    height, width = maps.shape[1:]
    reach = taps.size - 1
    row_max = lines[ROW_MAX, reach : reach + height]
    column_max = lines[COLUMN_MAX, reach : reach + width]
    ax, bx, ay, by, margin, row_contrast, column_contrast, min_confidence = numbers
    for k in range(maps.shape[0]):
        keypoints[k, 0] = keypoints[k, 1] = np.nan
        keypoints[k, 2] = 0.0
        valid[k] = 0
        plane = maps[k]
        top = _scan(plane, row_max, column_max)
        if top < 0:
            continue
        row, column, peak = _locate(plane, taps, top, lines, response)
        if peak <= 0.0:
            continue
        x, y = _refine(plane, taps, row, column, margin, lines[ROW_BOUND], response)
        nearest_row = min(max(round(y), 0), height - 1)
        nearest_column = min(max(round(x), 0), width - 1)
        confidence = plane[nearest_row, nearest_column]
        if (
            confidence > 0.0
            and _stands_out(confidence, row_max, row_contrast)
            and _stands_out(confidence, column_max, column_contrast)
        ):
            keypoints[k, 0] = ax * x + bx
            keypoints[k, 1] = ay * y + by
            keypoints[k, 2] = confidence
            valid[k] = confidence >= min_confidence
