"""Polygon, circle and rectangle: a point on the border is inside, whatever the rounding.

The sign of a float64 expression is trusted where it is larger than its own rounding error; only
the few points nearer to a border are decided in rational arithmetic. (The idea of the filter:
J. R. Shewchuk, Adaptive Precision Floating-Point Arithmetic and Fast Robust Geometric Predicates,
Discrete & Computational Geometry 18, 1997.)
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

Point = tuple[float, float]

#: Bound on the relative rounding error of the expressions below: a few float64 roundings of 2**-53
#: each, with room to spare.
_RELATIVE_ERROR = 2.0**-49
#: Bound on what underflow can add to that.
_UNDERFLOW = 1e-290


def side(a: Point, b: Point, p: Point) -> float:
    """Return on which side of the line from `a` to `b` the point `p` lies.

    Returns
    -------
    float
        Positive, negative, or exactly 0 on the line. Only the sign means something.
    """
    left = (b[0] - a[0]) * (p[1] - a[1])
    right = (b[1] - a[1]) * (p[0] - a[0])
    difference = left - right
    if abs(difference) > _RELATIVE_ERROR * (abs(left) + abs(right)) + _UNDERFLOW:
        return difference
    ax, ay = Fraction(a[0]), Fraction(a[1])
    exact = (Fraction(b[0]) - ax) * (Fraction(p[1]) - ay) - (Fraction(b[1]) - ay) * (
        Fraction(p[0]) - ax
    )
    return (exact > 0) - (exact < 0)


class Polygon:
    """A polygon without self-intersections.

    Parameters
    ----------
    vertices : sequence of (x, y)
        Corners in order, either way round, finite, in px; the last is joined to the first.

    Raises
    ------
    ValueError
        If it has less than 3 corners, a doubled corner, edges that cross or touch, or no area.
    """

    def __init__(self, vertices: Sequence[Point]) -> None:
        corners = [(float(x), float(y)) for x, y in vertices]
        _check_simple(corners)
        self._edges = [
            (a, b) if (a[1], a[0]) <= (b[1], b[0]) else (b, a)
            for a, b in zip(corners, corners[1:] + corners[:1], strict=True)
        ]
        self._corners = corners
        self._min_x, self._max_x = min(x for x, _ in corners), max(x for x, _ in corners)
        self._min_y, self._max_y = min(y for _, y in corners), max(y for _, y in corners)

    def contains(self, x: float, y: float) -> bool:
        """Return whether a point lies inside or exactly on the border."""
        if not (self._min_x <= x <= self._max_x and self._min_y <= y <= self._max_y):
            return False
        inside = False
        for a, b in self._edges:  # each goes downwards, or to the right: a.y <= b.y
            if not a[1] <= y <= b[1]:
                continue
            if a[1] == b[1]:
                if a[0] <= x <= b[0]:
                    return True
                continue
            turn = side(a, b, (x, y))
            if turn == 0:
                return True
            # A ray to the right crosses edges that have the point on their left. Each edge owns
            # its upper end and not its lower one, so that a corner counts once.
            if turn > 0 and y < b[1]:
                inside = not inside
        return inside

    def distance(self, x: float, y: float) -> float:
        """Return how far a finite point is from the border, in px, rounded; 0 or more."""
        return min(_distance_to_segment(a, b, x, y) for a, b in self._edges)

    @property
    def centre(self) -> Point:
        """The centre of area; outside of the polygon if that is bent far enough."""
        x0, y0 = self._corners[0]
        doubled_area = sum_x = sum_y = 0.0
        shifted = [(x - x0, y - y0) for x, y in self._corners]  # keeps the products small
        for (ax, ay), (bx, by) in pairwise([*shifted, shifted[0]]):
            cross = ax * by - bx * ay
            doubled_area += cross
            sum_x += (ax + bx) * cross
            sum_y += (ay + by) * cross
        return x0 + sum_x / (3 * doubled_area), y0 + sum_y / (3 * doubled_area)


def _distance_to_segment(a: Point, b: Point, x: float, y: float) -> float:
    along_x, along_y = b[0] - a[0], b[1] - a[1]
    from_x, from_y = x - a[0], y - a[1]
    squared = along_x * along_x + along_y * along_y
    if squared == 0.0:  # so short that its square underflows
        return math.hypot(from_x, from_y)
    share = min(1.0, max(0.0, (from_x * along_x + from_y * along_y) / squared))
    return math.hypot(from_x - share * along_x, from_y - share * along_y)


def _check_simple(corners: Sequence[Point]) -> None:
    count = len(corners)
    if count < 3:
        raise ValueError(f"a polygon needs at least 3 corners, got {count}")
    if len(set(corners)) != count:
        doubled = next(corner for corner in corners if corners.count(corner) > 1)
        raise ValueError(
            f"corner {_text(doubled)} appears twice; the last corner is joined to the first "
            "by itself"
        )
    for i in range(count):
        if side(corners[i - 2], corners[i - 1], corners[i]) == 0 and _turns_back(
            corners[i - 2], corners[i - 1], corners[i]
        ):
            raise ValueError(f"the border runs back on itself at {_text(corners[i - 1])}")
    for i in range(count):
        for j in range(i + 2, count):
            if i == 0 and j == count - 1:
                continue  # neighbours: they share a corner
            first, second = (corners[i], corners[i + 1]), (corners[j], corners[(j + 1) % count])
            if _meet(*first, *second):
                raise ValueError(
                    f"the edges {_text(first[0])}-{_text(first[1])} and "
                    f"{_text(second[0])}-{_text(second[1])} cross or touch; "
                    "give the corners in order around the border"
                )


def _turns_back(a: Point, b: Point, c: Point) -> bool:
    """Return whether, of three points on one line, `a` and `c` lie on the same side of `b`."""
    axis = 0 if a[0] != b[0] else 1
    return (a[axis] > b[axis]) == (c[axis] > b[axis])


def _meet(a: Point, b: Point, c: Point, d: Point) -> bool:
    """Return whether the segments a-b and c-d have a point in common."""
    overlap = all(
        max(min(a[k], b[k]), min(c[k], d[k])) <= min(max(a[k], b[k]), max(c[k], d[k]))
        for k in (0, 1)
    )
    if not overlap:
        return False
    return not _same_side(side(a, b, c), side(a, b, d)) and not _same_side(
        side(c, d, a), side(c, d, b)
    )


def _same_side(first: float, second: float) -> bool:
    return (first > 0 and second > 0) or (first < 0 and second < 0)


def _text(point: Point) -> str:
    return f"({point[0]:g}, {point[1]:g})"


class Circle:
    """A disc: the border belongs to it.

    Parameters
    ----------
    x, y, radius : float
        Centre and radius in px.
    """

    def __init__(self, x: float, y: float, radius: float) -> None:
        self._x, self._y, self._radius = x, y, radius

    def contains(self, x: float, y: float) -> bool:
        """Return whether a point lies inside or exactly on the border."""
        if not (math.isfinite(x) and math.isfinite(y)):
            return False
        dx, dy = x - self._x, y - self._y
        squared, limit = dx * dx + dy * dy, self._radius * self._radius
        if abs(squared - limit) > _RELATIVE_ERROR * (squared + limit) + _UNDERFLOW:
            return squared < limit
        exact_dx, exact_dy = Fraction(x) - Fraction(self._x), Fraction(y) - Fraction(self._y)
        return exact_dx**2 + exact_dy**2 <= Fraction(self._radius) ** 2

    def distance(self, x: float, y: float) -> float:
        """Return how far a finite point is from the border, in px, rounded; 0 or more."""
        return abs(math.hypot(x - self._x, y - self._y) - self._radius)

    @property
    def centre(self) -> Point:
        """The centre."""
        return self._x, self._y


class Rectangle:
    """A rectangle along the picture's axes: the border belongs to it.

    Parameters
    ----------
    x, y, width, height : float
        Upper left corner and size in px. The right and lower borders are at the float64 sums.
    """

    def __init__(self, x: float, y: float, width: float, height: float) -> None:
        self._left, self._right = x, x + width
        self._top, self._bottom = y, y + height

    def contains(self, x: float, y: float) -> bool:
        """Return whether a point lies inside or exactly on the border."""
        return self._left <= x <= self._right and self._top <= y <= self._bottom

    def distance(self, x: float, y: float) -> float:
        """Return how far a finite point is from the border, in px, rounded; 0 or more."""
        right, down = max(self._left - x, x - self._right), max(self._top - y, y - self._bottom)
        if right <= 0 and down <= 0:
            return -max(right, down)
        return math.hypot(max(right, 0.0), max(down, 0.0))

    @property
    def centre(self) -> Point:
        """The centre."""
        return (self._left + self._right) / 2, (self._top + self._bottom) / 2


Shape = Polygon | Circle | Rectangle
