"""The decoder compiled: one pass over each map, filtering only where the peak can be.

Why it need not filter every cell: the filter is a product ``g(row) g(column)`` of weights that are
not negative and have sum 1. With ``m[r]`` the largest value in row r, at least 0, no response in
row p exceeds ``sum_r g(r - p) m[r]``; columns likewise. The largest response, on the other hand, is
at least the response at the map's largest value. So only rows and columns whose bound reaches that
can hold it, and only they are filtered: a few cells where there is a peak, all where there is only
noise. What is found is the same in every case, up to the rounding of float32.

Scratch memory: `response` is the filter's answer as far as it was needed, made three rows at a time
in `block`; `lines` are what the constants below name, the first two with a margin of zeros as wide
as the filter's reach at both ends. `taps` are the weights at distance 0, 1, ... and a zero. Inner
loops run from 0 over slices: only so does numba leave out the test for negative indices and the
compiler use vector instructions. "contract" allows fused multiply-add and nothing else.
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

ROW_MAX, COLUMN_MAX, ROW_BOUND, COLUMN_BOUND, FILLED = range(5)
LINES = 5

_INFINITY_BITS = np.int32(0x7F800000)
_MAGNITUDE_BITS = np.int32(0x7FFFFFFF)

#: Bounds are compared with this much less than a response, because both are rounded to float32.
_ROUNDING = np.float32(1 - 1e-5)


def compiled(function: _Function, **options: bool) -> _Function:
    """Compile a function that Python calls."""
    dispatcher: _Function = njit(
        cache=True, nogil=True, fastmath={"contract"}, error_model="numpy", **options
    )(function)
    return dispatcher


def _called(function: _Function) -> _Function:
    return compiled(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def inlined(function: _Function) -> _Function:
    """Compile a function into those that call it.

    Handing an array to a function costs more than most of these functions do.
    """
    return compiled(function, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)


@inlined
def scan(plane: F32, row_max: F32, column_max: F32) -> int:
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
        top = row if largest > highest else top
        highest = max(highest, largest)
    return top if magnitude < _INFINITY_BITS else -1


@inlined
def _along(line: F32, taps: F32, reach: int, count: int, out: F32) -> None:
    """Filter the first `count` places of a line that has a margin before its first one."""
    middle = line[reach:]
    for i in range(count):
        out[i] = taps[0] * middle[i]
    for distance in range(1, reach + 1):
        weight = taps[distance]
        before, after = line[reach - distance :], line[reach + distance :]
        for i in range(count):
            out[i] += weight * (before[i] + after[i])


@inlined
def _fill(
    plane: F32, taps: F32, row: int, low: int, high: int, block: F32, lines: F32, response: F32
) -> None:
    """Fill columns low..high of the response in three rows (as far as there are) from `row` on."""
    height, width = plane.shape
    reach, count = taps.size - 2, high + 1 - low
    left, right = max(0, low - reach), min(width, high + 1 + reach)
    length = count + 2 * reach
    lanes = block[0, : 3 * length]
    for i in range(3 * length):
        lanes[i] = 0.0
    start = left + reach - low
    first, second, third = lanes[start:], lanes[length + start :], lanes[2 * length + start :]
    for source in range(max(0, row - reach), min(height, row + 3 + reach)):
        values = plane[source, left:right]
        a, b, c = (
            taps[min(abs(source - row), reach + 1)],
            taps[min(abs(source - row - 1), reach + 1)],
            taps[min(abs(source - row - 2), reach + 1)],
        )
        for i in range(right - left):
            first[i] += a * values[i]
            second[i] += b * values[i]
            third[i] += c * values[i]
    _along(lanes, taps, reach, 3 * length - 2 * reach, block[1])
    for k in range(min(3, height - row)):
        lines[FILLED, row + k] = 1.0
        source_lane, target = block[1, k * length :], response[row + k, low : high + 1]
        for i in range(count):
            target[i] = source_lane[i]


@_called
def _ensure(
    plane: F32,
    taps: F32,
    first: int,
    last: int,
    columns: tuple[int, int],
    block: F32,
    lines: F32,
    response: F32,
) -> None:
    """Fill the response in rows first..last (as far as there are) where it is not there yet."""
    for row in range(max(0, first), min(plane.shape[0] - 1, last) + 1):
        if lines[FILLED, row] == 0.0:
            _fill(plane, taps, row, columns[0], columns[1], block, lines, response)


@inlined
def _bound(plane: F32, taps: F32, lines: F32) -> None:
    """Bound the responses of every row and column by those to their largest values."""
    height, width = plane.shape
    reach = taps.size - 2
    _along(lines[ROW_MAX], taps, reach, height, lines[ROW_BOUND])
    _along(lines[COLUMN_MAX], taps, reach, width, lines[COLUMN_BOUND])


@inlined
def _elsewhere(bound: F32, count: int, first: int, last: int, limit: np.float32) -> bool:
    """Return whether a bound reaches a limit at a place before `first` or after `last`."""
    reaching = 0
    for i in range(count):
        reaching += bound[i] >= limit
    for i in range(first, last + 1):
        reaching -= bound[i] >= limit
    return reaching > 0


@inlined
def _highest(
    response: F32, rows: tuple[int, int], columns: tuple[int, int]
) -> tuple[int, int, np.float32]:
    """Return row, column and value of the largest positive response in a rectangle, or 0."""
    best = np.float32(0.0)
    best_row = best_column = 0
    for row in range(rows[0], rows[1] + 1):
        for column in range(columns[0], columns[1] + 1):
            if response[row, column] > best:
                best, best_row, best_column = response[row, column], row, column
    return best_row, best_column, best


@_called
def _search(
    plane: F32, taps: F32, limit: np.float32, block: F32, lines: F32, response: F32
) -> tuple[int, int, np.float32]:
    """Return the largest response of all: filter every row and column that may hold it."""
    height, width = plane.shape
    low, high = 0, width - 1
    while low < high and lines[COLUMN_BOUND, low] < limit:
        low += 1
    while low < high and lines[COLUMN_BOUND, high] < limit:
        high -= 1
    around = max(0, low - 1), min(width - 1, high + 1)
    lines[FILLED, :height] = 0.0
    best = np.float32(0.0)
    row = column = 0
    for candidate in range(height):
        if lines[ROW_BOUND, candidate] >= limit:
            _ensure(plane, taps, candidate, candidate, around, block, lines, response)
            _, place, value = _highest(response, (candidate, candidate), (low, high))
            if value > best:
                best, row, column = value, candidate, place
            limit = max(limit, best * _ROUNDING)
    _ensure(plane, taps, row - 1, row + 1, around, block, lines, response)
    return row, column, best


@inlined
def _locate(
    plane: F32, taps: F32, top: int, block: F32, lines: F32, response: F32
) -> tuple[int, int, np.float32]:
    """Return row, column and value of the largest response; the value is 0 if none is positive.

    It is mostly at or beside the map's largest value, which is in row `top`, and the bounds mostly
    exclude all the rest; else `_search`. The 3x3 responses around it are there afterwards.
    """
    height, width = plane.shape
    value, column = lines[ROW_MAX, taps.size - 2 + top], 0
    while column < width - 1 and plane[top, column] < value:
        column += 1
    rows = max(0, top - 1), min(height - 1, top + 1)
    columns = max(0, column - 1), min(width - 1, column + 1)
    around = max(0, column - 2), min(width - 1, column + 2)
    lines[FILLED, :height] = 0.0
    _fill(plane, taps, rows[0], around[0], around[1], block, lines, response)
    row, column, best = _highest(response, rows, columns)
    limit = best * _ROUNDING
    if _elsewhere(lines[ROW_BOUND], height, rows[0], rows[1], limit) or _elsewhere(
        lines[COLUMN_BOUND], width, columns[0], columns[1], limit
    ):
        return _search(plane, taps, limit, block, lines, response)
    if row != top:
        _ensure(plane, taps, row - 1, row + 1, around, block, lines, response)
    return row, column, best


@inlined
def _triple(line: F32, place: int) -> tuple[float, float, float]:
    """Return a value between its two neighbours, in double precision."""
    return float(line[place - 1]), float(line[place]), float(line[place + 1])


@inlined
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


@inlined
def _parabola(triple: tuple[float, float, float], otherwise: float) -> float:
    """Return where the parabola through three logarithms has its top, from their middle."""
    if min(triple) <= 0.0:
        return otherwise
    before, middle, after = math.log(triple[0]), math.log(triple[1]), math.log(triple[2])
    bend = before - 2.0 * middle + after
    return 0.5 * (before - after) / bend if bend < 0.0 else otherwise


@_called
def _beside_border(
    plane: F32, taps: F32, row: int, column: int, margin: float, profile: F32
) -> float:
    """Return the peak's column from the map itself, filtered across the rows only."""
    reach, last = taps.size - 2, plane.shape[1] - 1
    low = 0 if column < margin else column - 1
    high = last if last - column < margin else column + 1
    for place in range(max(0, low - 1), min(last, high + 1) + 1):
        profile[place] = 0.0
        for source in range(max(0, row - reach), min(plane.shape[0], row + reach + 1)):
            profile[place] += taps[abs(source - row)] * plane[source, place]
    top = low + int(np.argmax(profile[low : high + 1]))
    if last < 2:
        return float(top)
    middle = min(max(top, 1), last - 1)
    offset = _parabola(_triple(profile, middle), float(top - middle))
    peak: float = min(max(middle + offset, top - 1.0), top + 1.0)
    return peak


@inlined
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


@inlined
def stands_out(confidence: float, maxima: F32, contrast: float) -> bool:
    """Return whether a confidence is above the smallest maximum by a part of itself."""
    quietest = confidence
    for maximum in maxima:
        quietest = min(quietest, maximum)
    return confidence - quietest >= contrast * confidence


@compiled
def decode_maps(
    maps: F32,
    taps: F32,
    numbers: NDArray[np.float64],
    response: F32,
    block: F32,
    lines: F32,
    keypoints: F32,
    valid: NDArray[np.uint8],
) -> None:
    """Decode all maps; the arguments are laid out by `PeakDecoder`."""
    height, width = maps.shape[1:]
    reach = taps.size - 2
    row_max = lines[ROW_MAX, reach : reach + height]
    column_max = lines[COLUMN_MAX, reach : reach + width]
    ax, bx, ay, by, margin, row_contrast, column_contrast, min_confidence = numbers
    for k in range(maps.shape[0]):
        keypoints[k, 0] = keypoints[k, 1] = np.nan
        keypoints[k, 2] = 0.0
        valid[k] = 0
        plane = maps[k]
        top = scan(plane, row_max, column_max)
        if top < 0:
            continue
        _bound(plane, taps, lines)
        row, column, peak = _locate(plane, taps, top, block, lines, response)
        if peak <= 0.0:
            continue
        x, y = _refine(plane, taps, row, column, margin, lines[ROW_BOUND], response)
        nearest_row = min(max(round(y), 0), height - 1)
        nearest_column = min(max(round(x), 0), width - 1)
        confidence = plane[nearest_row, nearest_column]
        if (
            confidence > 0.0
            and stands_out(confidence, row_max, row_contrast)
            and stands_out(confidence, column_max, column_contrast)
        ):
            keypoints[k, 0] = ax * x + bx
            keypoints[k, 1] = ay * y + by
            keypoints[k, 2] = confidence
            valid[k] = confidence >= min_confidence
