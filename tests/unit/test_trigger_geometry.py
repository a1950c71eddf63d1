"""Regions against slow rational references, on grids (full of special cases) and on floats."""

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from rtpose.triggers.geometry import Circle, Point, Polygon, Rectangle, Shape, side

grid = st.integers(0, 6).map(float)
grid_corners = st.lists(st.tuples(grid, grid), min_size=3, max_size=7, unique=True)
pixels = st.floats(-2000, 2000)

DIAMOND: list[Point] = [(0, 3), (3, 0), (6, 3), (3, 6)]
#: Two edges on one line, apart from each other.
FORK: list[Point] = [(0, 0), (2, 0), (3, 2), (4, 0), (6, 0), (3, 5)]
COMB: list[Point] = [(0, 0), (6, 0), (6, 4), (4, 4), (4, 2), (2, 2), (2, 4), (0, 4)]


def edges_of(corners: list[Point]) -> list[tuple[Point, Point]]:
    return list(pairwise([*corners, corners[0]]))


def cross(a: Point, b: Point, p: Point) -> Fraction:
    ax, ay, bx, by, px, py = map(Fraction, (*a, *b, *p))
    return (bx - ax) * (py - ay) - (by - ay) * (px - ax)


def on_segment(a: Point, b: Point, p: Point) -> bool:
    between = all(min(a[k], b[k]) <= p[k] <= max(a[k], b[k]) for k in (0, 1))
    return between and cross(a, b, p) == 0


def reference_contains(corners: list[Point], p: Point) -> bool:
    """On an edge, or an odd number of crossings of a ray that meets no corner."""
    if any(on_segment(a, b, p) for a, b in edges_of(corners)):
        return True
    px, py = Fraction(p[0]), Fraction(p[1])
    for slope in (Fraction(n, 1009) for n in range(1, 1000)):
        heights = [Fraction(y) - py - slope * (Fraction(x) - px) for x, y in corners]
        if 0 not in heights:
            break
    crossings = 0
    for i, (a, b) in enumerate(edges_of(corners)):
        ha, hb = heights[i], heights[(i + 1) % len(corners)]
        if (ha > 0) != (hb > 0):
            t = ha / (ha - hb)
            crossings += Fraction(a[0]) + t * (Fraction(b[0]) - Fraction(a[0])) > px
    return crossings % 2 == 1


def reference_simple(corners: list[Point]) -> bool:
    """Edges meet in shared corners only."""
    edges = edges_of(corners)
    for i, (a, b) in enumerate(edges):
        for j in range(i + 1, len(edges)):
            c, d = edges[j]
            shared = {a, b} & {c, d}
            if any(on_segment(a, b, p) for p in {c, d} - shared):
                return False
            if any(on_segment(c, d, p) for p in {a, b} - shared):
                return False
            if cross(a, b, c) * cross(a, b, d) < 0 and cross(c, d, a) * cross(c, d, b) < 0:
                return False
    return True


def simple_polygon(corners: list[Point]) -> Polygon:
    try:
        return Polygon(corners)
    except ValueError:
        assume(False)
        raise


@given(grid_corners)
@example(FORK)
@example(COMB)
@example([(0, 0), (6, 0), (6, 4), (3, 0), (0, 4)])
def test_exactly_the_polygons_without_self_contact_are_accepted(corners: list[Point]) -> None:
    try:
        Polygon(corners)
    except ValueError:
        assert not reference_simple(corners)
    else:
        assert reference_simple(corners)


@given(grid_corners)
@example(DIAMOND)
@example(FORK)
@example(COMB)
@settings(max_examples=50)
def test_grid_points_against_ray_casting(corners: list[Point]) -> None:
    polygon = simple_polygon(corners)
    points = [(x2 / 2, y2 / 2) for x2 in range(-1, 14) for y2 in range(-1, 14)]
    wrong = [p for p in points if polygon.contains(*p) != reference_contains(corners, p)]
    assert not wrong


@given(
    st.lists(st.tuples(pixels, pixels), min_size=3, max_size=5, unique=True),
    st.integers(0, 4),
    st.floats(0, 1),
    st.integers(-1, 1),
)
def test_points_within_rounding_of_the_border(
    corners: list[Point], edge: int, along: float, nudge: int
) -> None:
    polygon = simple_polygon(corners)
    (ax, ay), (bx, by) = edges_of(corners)[edge % len(corners)]
    x, y = ax + along * (bx - ax), ay + along * (by - ay)
    point = (float(np.nextafter(x, nudge * np.inf)) if nudge else x, y)
    assert polygon.contains(*point) == reference_contains(corners, point)


@given(grid_corners)
def test_corners_and_midpoints_of_edges_are_inside(corners: list[Point]) -> None:
    polygon = simple_polygon(corners)
    for (ax, ay), (bx, by) in edges_of(corners):
        assert polygon.contains(ax, ay)
        assert polygon.contains((ax + bx) / 2, (ay + by) / 2)


@given(grid_corners, st.integers(0, 6), st.booleans(), grid, grid)
def test_which_corner_is_first_and_which_way_round_do_not_matter(
    corners: list[Point], start: int, reverse: bool, x: float, y: float
) -> None:
    polygon = simple_polygon(corners)
    start %= len(corners)
    other = corners[start:] + corners[:start]
    assert Polygon(other[::-1] if reverse else other).contains(x, y) == polygon.contains(x, y)


@given(st.tuples(pixels, pixels), st.tuples(pixels, pixels), st.floats(-1, 2))
def test_side_has_the_sign_of_the_exact_product(a: Point, b: Point, along: float) -> None:
    p = (a[0] + along * (b[0] - a[0]), a[1] + along * (b[1] - a[1]))
    exact = cross(a, b, p)
    assert np.sign(side(a, b, p)) == (exact > 0) - (exact < 0)


def test_side_survives_underflow() -> None:
    tiny = 5e-324
    assert side((0.0, 0.0), (tiny, tiny), (3 * tiny, 2 * tiny)) < 0
    assert side((0.0, 0.0), (tiny, tiny), (2 * tiny, 2 * tiny)) == 0


@given(pixels, pixels, st.floats(0.5, 500), st.floats(0, 6.3), st.integers(-1, 1))
def test_circle_against_rational_distance(
    x: float, y: float, radius: float, angle: float, nudge: int
) -> None:
    px, py = x + radius * math.cos(angle), y + radius * math.sin(angle)
    px = float(np.nextafter(px, nudge * np.inf)) if nudge else px
    distance2 = (Fraction(px) - Fraction(x)) ** 2 + (Fraction(py) - Fraction(y)) ** 2
    assert Circle(x, y, radius).contains(px, py) == (distance2 <= Fraction(radius) ** 2)


def test_a_point_exactly_on_the_circle_is_inside() -> None:
    assert Circle(10, 20, 5).contains(13, 24)
    assert not Circle(10, 20, 5).contains(13, float(np.nextafter(24, 25)))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_place_is_not_inside(bad: float) -> None:
    square = Polygon([(-9, -9), (9, -9), (9, 9), (-9, 9)])
    shapes = (Circle(0, 0, 10), square, Rectangle(-9, -9, 18, 18))
    assert not any(shape.contains(bad, 0) or shape.contains(0, bad) for shape in shapes)


@pytest.mark.parametrize(
    ("corners", "message"),
    [
        ([(0, 0), (1, 1)], "at least 3 corners, got 2"),
        ([(0, 0), (4, 0), (4, 4), (0, 0)], r"\(0, 0\) appears twice"),
        ([(0, 0), (4, 4), (4, 0), (0, 4)], r"\(0, 0\)-\(4, 4\) and \(4, 0\)-\(0, 4\) cross"),
        ([(0, 0), (2, 2), (5, 5)], "runs back on itself"),
        ([(0, 0), (6, 0), (6, 4), (3, 0), (0, 4)], "cross or touch"),
    ],
)
def test_wrong_polygons_are_refused_in_words(corners: list[Point], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Polygon(corners)


@given(pixels, pixels, st.floats(0.5, 500), st.floats(0.5, 500), grid, grid)
def test_rectangle_against_its_four_borders(
    x: float, y: float, width: float, height: float, right: float, down: float
) -> None:
    box = Rectangle(x, y, width, height)
    # On a grid of 3 by 3 cells of which the middle one is the box; its lines are on the border.
    px = [x - 1, x, x + width / 2, x + width, float(np.nextafter(x + width, np.inf))][
        int(right) % 5
    ]
    py = [y - 1, y, y + height / 2, y + height, y + height + 1][int(down) % 5]
    assert box.contains(px, py) == (x <= px <= x + width and y <= py <= y + height)


def nearest_of_many(shape: Shape, p: Point) -> float:
    """The distance to the nearest of many points of the border."""
    if isinstance(shape, Circle):
        (x, y), turns = shape.centre, np.linspace(0, 2 * np.pi, 4001)
        border = np.stack([x + 3 * np.cos(turns), y + 3 * np.sin(turns)], axis=1)
    else:
        corners = COMB if isinstance(shape, Polygon) else [(1, 2), (4, 2), (4, 7), (1, 7)]
        share = np.linspace(0, 1, 501)[:, None]
        ends = np.array(edges_of(list(corners)))
        border = np.concatenate([a + share * (b - a) for a, b in ends])
    return float(np.hypot(*(border - np.array(p)).T).min())


@given(
    st.sampled_from([Circle(2, 3, 3), Rectangle(1, 2, 3, 5), Polygon(COMB)]),
    st.tuples(st.floats(-20, 20), st.floats(-20, 20)),
)
def test_distance_to_the_border(shape: Shape, p: Point) -> None:
    assert shape.distance(*p) == pytest.approx(nearest_of_many(shape, p), abs=0.01)


@given(grid_corners, st.integers(0, 6))
def test_corners_are_on_the_border(corners: list[Point], number: int) -> None:
    polygon = simple_polygon(corners)
    assert polygon.distance(*corners[number % len(corners)]) == 0


def test_distance_to_an_edge_whose_square_underflows() -> None:
    tiny = 1e-200
    assert Polygon([(0, 0), (tiny, 0), (0, 1)]).distance(0, -3) == 3


@pytest.mark.parametrize(
    ("shape", "centre"),
    [
        (Circle(2, 3, 3), (2, 3)),
        (Rectangle(1, 2, 3, 5), (2.5, 4.5)),
        (Polygon([(0, 0), (6, 0), (6, 3), (0, 3)]), (3, 1.5)),
        (Polygon([(1000, 1000), (1000, 1003), (1006, 1000)]), (1002, 1001)),
        # An L of a 6 x 2 and a 2 x 4 rectangle.
        (Polygon([(0, 0), (6, 0), (6, 2), (2, 2), (2, 6), (0, 6)]), (2.2, 2.2)),
    ],
)
def test_centres(shape: Shape, centre: Point) -> None:
    assert shape.centre == pytest.approx(centre)
