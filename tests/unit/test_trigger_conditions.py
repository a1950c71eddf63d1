"""Every kind of condition: what an experimenter expects, and walks against slow references."""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import product
from typing import Any, ClassVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from trigger_poses import MS, SKELETON, Place, decide, decide_on, letter, make_pose, make_trigger

from rtpose.interfaces import Scale, Settings
from rtpose.plugins import load
from rtpose.skeleton import Skeleton
from rtpose.triggers.condition import Condition, ConditionSettings, indices
from rtpose.triggers.heading import Heading
from rtpose.triggers.looking import EgocentricAngle
from rtpose.triggers.sample import Sample
from rtpose.triggers.thresholds import Arc, Threshold
from rtpose.triggers.trigger import ConditionTrigger, EventTriggerSettings

coordinate = st.integers(0, 400).map(lambda n: n / 4)
point = st.tuples(coordinate, coordinate)
place = st.none() | point
steps = st.lists(st.tuples(st.integers(1, 60), place), max_size=40)


def condition(kind: str, **settings: Any) -> Condition:
    """Return a prepared condition, as it is inside of others."""
    plugin: Any = load("triggers", kind)
    made: Condition = plugin.condition_type(plugin.condition_type.Config.model_validate(settings))
    made.prepare(SKELETON, None)
    return made


def answers(
    made: Condition, poses: Sequence[Sequence[Place]], step_ms: int = 10
) -> list[bool | None]:
    missing: list[Place] = [None] * len(SKELETON.names)
    return [
        made.update(Sample(i * step_ms * MS, [*places, *missing[len(places) :]]))
        for i, places in enumerate(poses)
    ]


def words(given: Sequence[bool | None]) -> str:
    """Y(es), n(o), or ? where a sample does not tell."""
    return "".join("?" if answer is None else "Y" if answer else "n" for answer in given)


def on_snout(made: Condition, places: Sequence[Place], step_ms: int = 10) -> str:
    return words(answers(made, [[place] for place in places], step_ms))


# ------------------------------------------------------------------------- thresholds, hysteresis


def hysteresis_reference(
    values: Sequence[float | None], meets: Callable[[float, bool], bool]
) -> list[bool | None]:
    """Look back, at every value, to the last one that says so without hysteresis either way."""
    found: list[bool | None] = []
    for i, value in enumerate(values):
        if value is None:
            found.append(None)
            continue
        state = False
        for earlier in values[: i + 1]:
            if earlier is not None:
                state = meets(earlier, state)
        found.append(state)
    return found


numbers = st.lists(st.none() | st.integers(-20, 20).map(float), max_size=30)


@given(numbers, st.integers(-10, 5), st.integers(0, 10), st.integers(0, 6), st.sampled_from("abc"))
def test_thresholds_with_hysteresis(
    values: list[float | None], low: int, width: int, margin: int, kind: str
) -> None:
    above, below = float(low), float(low + width + 1)
    above = above if kind != "b" else -math.inf
    below = below if kind != "a" else math.inf
    threshold = Threshold(above, below, margin)

    def meets(value: float, before: bool) -> bool:
        far_in = above < value < below
        return far_in or (before and above - margin < value < below + margin)

    expected = hysteresis_reference(values, meets)
    assert [threshold.update(value) for value in values] == expected


@given(
    st.lists(st.none() | st.integers(-180, 180).map(float), max_size=30),
    st.integers(0, 180),
    st.integers(0, 60),
)
def test_arcs_with_hysteresis(angles: list[float | None], within: int, margin: int) -> None:
    arc = Arc(-within, within, margin)

    def meets(angle: float, before: bool) -> bool:
        return abs(angle) <= within + (margin if before else 0)

    assert [arc.update(angle) for angle in angles] == hysteresis_reference(angles, meets)


@pytest.mark.parametrize("side", [1, -1])
def test_an_arc_goes_round_behind(side: int) -> None:
    low, high = sorted([0.0, side * 170.0])
    arc = Arc(low, high, 20.0)
    angles = [175.0, 170.0, -175.0, -165.0, -175.0, -20.0]
    assert [arc.update(side * angle) for angle in angles] == [False, True, True, *[False] * 3]


BOUNDS = [
    ("distance", {"keypoint": "snout", "to_keypoint": "neck"}, "px", "mm"),
    ("speed", {"keypoint": "snout", "window_ms": 10}, "px_s", "mm_s"),
    ("acceleration", {"keypoint": "snout", "window_ms": 10}, "px_s2", "mm_s2"),
    ("posture", {"keypoints": ["snout", "neck"], "measure": "length"}, "px", "mm"),
]


@pytest.mark.parametrize(("kind", "base", "px", "mm"), BOUNDS)
def test_wrong_thresholds_are_said(kind: str, base: dict[str, Any], px: str, mm: str) -> None:
    wrong: list[tuple[dict[str, float], str]] = [
        ({}, f"a threshold is needed: above_{px} or below_{px} or above_{mm}"),
        ({f"hysteresis_{mm}": 1}, f"a threshold is needed: above_{mm} or below_{mm} \\["),
        ({f"above_{px}": 1, f"hysteresis_{mm}": 1}, f"in {px} or in {mm}, not in both"),
        ({f"above_{px}": 2, f"below_{px}": 2}, "nothing is above 2 and below 2"),
        ({f"above_{px}": math.inf}, "finite|less"),
        ({f"above_{px}": 1, f"hysteresis_{px}": -1}, "greater"),
    ]
    for thresholds, message in wrong:
        with pytest.raises(ValidationError, match=message):
            condition(kind, **base, **thresholds)


# ----------------------------------------------------------------------------------------- region

SQUARE: dict[str, Any] = {"polygon": [[10, 10], [20, 10], [20, 20], [10, 20]]}


def test_the_border_is_inside() -> None:
    square = condition("region", keypoint="snout", **SQUARE)
    assert on_snout(square, [(10, 10), (20, 15), (15, 20), (9.999, 15)]) == "YYYn"
    circle = {"x_px": 10, "y_px": 20, "radius_px": 5}
    disc = condition("region", keypoint="snout", circle=circle)
    assert on_snout(disc, [(13, 24), (15, 20), (13.1, 24)]) == "YYn"
    box = condition(
        "region",
        keypoint="snout",
        rectangle={"x_px": 10, "y_px": 20, "width_px": 5, "height_px": 1},
    )
    assert on_snout(box, [(10, 20), (15, 21), (15.001, 21), (12, 19.999)]) == "YYnn"


@settings(max_examples=60)
@given(st.sampled_from(["all", "any"]), st.lists(st.tuples(place, place, place), max_size=10))
def test_several_keypoints(need: str, poses: list[tuple[Place, Place, Place]]) -> None:
    made = condition("region", keypoints=list(SKELETON.names), need=need, **SQUARE)
    expected: list[bool | None] = []
    for places in poses:
        # Every way in which what is not known could turn out must give the same answer.
        inside = [
            [True, False] if p is None else [10 <= p[0] <= 20 and 10 <= p[1] <= 20] for p in places
        ]
        could = {(all if need == "all" else any)(case) for case in product(*inside)}
        expected.append(could.pop() if len(could) == 1 else None)
    assert answers(made, poses) == expected


def test_exactly_as_far_as_the_hysteresis_is_still_inside() -> None:
    made = condition("region", keypoint="snout", **SQUARE, hysteresis_px=5)
    walk: list[Place] = [(25, 15), (15, 15), (25, 15), (25.001, 15), (25, 15)]
    assert on_snout(made, walk) == "nYYnn"


@given(steps)
def test_region_hysteresis(walk: list[tuple[int, Place]]) -> None:
    made = condition("region", keypoint="snout", **SQUARE, hysteresis_px=5)

    def outside_px(p: tuple[float, float]) -> float:
        return math.hypot(max(10 - p[0], 0, p[0] - 20), max(10 - p[1], 0, p[1] - 20))

    values = [None if p is None else outside_px(p) for _, p in walk]
    expected = hysteresis_reference(values, lambda v, before: v <= (5 if before else 0))
    assert answers(made, [[p] for _, p in walk]) == expected


# ---------------------------------------------------------------------- distance, posture, angles


@given(st.lists(st.tuples(place, place), max_size=20), st.integers(1, 80))
@example([((0.0, 0.0), (3.0, 4.0)), ((0.0, 0.0), (3.0, 4.25))], 5)
def test_distance_of_two_keypoints(poses: list[tuple[Place, Place]], limit: int) -> None:
    near = condition("distance", keypoint="snout", to_keypoint="neck", below_px=limit)
    far = condition("distance", keypoint="snout", to_keypoint="neck", above_px=limit)
    for made, sign in ((near, 1), (far, -1)):
        expected: list[bool | None] = []
        for a, b in poses:
            if a is None or b is None:
                expected.append(None)
                continue
            squared = Fraction(a[0] - b[0]) ** 2 + Fraction(a[1] - b[1]) ** 2
            expected.append((limit**2 - squared) * sign > 0)
        assert answers(made, poses) == expected


def test_distance_to_a_point_and_to_a_border() -> None:
    to_point = condition("distance", keypoint="neck", point={"x_px": 3, "y_px": 4}, below_px=5)
    assert words(answers(to_point, [[None, (0, 0)], [None, (1, 1)], [(1, 1), None]])) == "nY?"
    rim = condition("distance", keypoint="snout", **SQUARE, above_px=-2, below_px=2)
    assert on_snout(rim, [(15, 15), (12, 15), (11.9, 15), (10, 15), (8.1, 15), (8, 15)]) == "nnYYYn"
    deep = condition("distance", keypoint="snout", **SQUARE, below_px=-3, hysteresis_px=1)
    assert on_snout(deep, [(15, 15), (12.5, 15), (12, 15), (12.5, 15)]) == "YYnn"
    assert deep.describe() == "snout to polygon: distance -2.5 px"


@pytest.mark.parametrize("bound", [{"below_px": 0}, {"above_px": -1}, {"below_mm": -1}])
def test_a_distance_to_a_point_is_never_negative(bound: dict[str, float]) -> None:
    with pytest.raises(
        ValidationError, match="can make no difference: the number is always 0 to inf"
    ):
        condition("distance", keypoint="snout", point={"x_px": 0, "y_px": 0}, **bound)
    with pytest.raises(ValidationError, match="exactly one of to_keypoint, point"):
        condition("distance", keypoint="snout", below_px=3)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("angle", {"joint": "neck", "ends": ["snout", "tailbase"], "above_deg": 180}, "0 to 180"),
        ("angle", {"joint": "neck", "ends": ["snout", "tailbase"], "below_deg": 0}, "0 to 180"),
        (
            "posture",
            {
                "keypoints": ["snout", "neck", "tailbase"],
                "measure": "straightness",
                "above_ratio": 1,
            },
            "above_ratio = 1 can make no difference: the number is always 0 to 1",
        ),
        (
            "posture",
            {"keypoints": ["snout", "neck"], "measure": "length", "above_ratio": 1},
            "length has thresholds in px or mm, not in ratio",
        ),
        ("distance", {"keypoint": "neck", "to_keypoint": "neck", "below_px": 3}, "both 'neck'"),
        (
            "heading",
            {"back": "neck", "front": "neck", "towards_deg": 0, "within_deg": 9},
            "no axis",
        ),
        (
            "looking",
            {"back": "neck", "front": "snout", "to_keypoint": "neck", "within_deg": 9},
            "to_keypoint = 'neck' is an end of the axis itself",
        ),
    ],
)
def test_what_could_never_be_met_is_refused(
    kind: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        condition(kind, **settings)


def test_posture() -> None:
    chain: dict[str, Any] = {"keypoints": ["snout", "neck", "tailbase"]}
    long = condition("posture", **chain, measure="length", above_px=20)
    straight = condition("posture", **chain, measure="straightness", above_ratio=0.99)
    bent = condition("posture", **chain, measure="bend", above_deg=89.0, below_deg=91.0)
    poses: list[list[Place]] = [
        [(0, 0), (10, 0), (20, 0)],
        [(0, 0), (10, 0), (21, 0)],
        [(0, 0), (10, 0), (10, 11)],
        [(0, 0), (10, 0), (10, -11)],
        [(0, 0), (10, 0), None],
        [(0, 0), (10, 0), (10, 0)],
    ]
    assert words(answers(long, poses)) == "nYYY?n"
    assert words(answers(straight, poses)) == "YYnn??"
    assert words(answers(bent, poses)) == "nnYY??"
    assert bent.describe() == "snout to tailbase: bend not known"
    assert straight.describe() == "snout to tailbase: straightness not known"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"measure": "bend", "above_px": 3}, "bend has thresholds in deg, not in px"),
        ({"measure": "length", "above_ratio": 0.5}, "length has thresholds in px or mm"),
        ({"measure": "bend", "above_deg": 3, "keypoints": ["snout", "neck"]}, "at least 3 keyp"),
        ({"measure": "length", "above_px": 3, "keypoints": ["snout", "snout"]}, "must differ"),
        ({"measure": "length", "above_px": 3, "keypoints": ["snout"]}, "at least 2"),
        ({"measure": "width", "above_px": 3}, "'length', 'straightness' or 'bend'"),
    ],
)
def test_wrong_postures_are_said(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        condition("posture", **{"keypoints": list(SKELETON.names), **settings})


def between_deg(first: tuple[float, float], second: tuple[float, float]) -> float:
    """Return the angle between two vectors by their scalar product."""
    cosine = (first[0] * second[0] + first[1] * second[1]) / (
        math.hypot(*first) * math.hypot(*second)
    )
    return math.degrees(math.acos(max(-1.0, min(1.0, cosine))))


@given(st.lists(st.tuples(place, place, place), max_size=10), st.integers(1, 179))
def test_angle_at_a_joint(poses: list[tuple[Place, Place, Place]], limit: int) -> None:
    folded = condition("angle", joint="neck", ends=["snout", "tailbase"], below_deg=limit)
    expected: list[bool | None] = []
    for snout, neck, tailbase in poses:
        if snout is None or neck is None or tailbase is None or neck in (snout, tailbase):
            expected.append(None)
            continue
        arms = [(p[0] - neck[0], p[1] - neck[1]) for p in (snout, tailbase)]
        angle = between_deg(arms[0], arms[1])
        if abs(angle - limit) < 1e-4:
            return  # which side of it rounding leaves it on is not the point here
        expected.append(angle < limit)
    assert answers(folded, poses) == expected


def test_an_angle_needs_three_keypoints() -> None:
    with pytest.raises(ValidationError, match="three different keypoints"):
        condition("angle", joint="neck", ends=["snout", "neck"], below_deg=90)


@pytest.mark.parametrize(
    ("front", "heading_deg"),
    [
        ((0, -9), 0),
        ((9, -9), 45),
        ((9, 0), 90),
        ((9, 9), 135),
        ((0, 9), 180),
        ((-9, 9), 225),
        ((-9, 0), 270),
        ((-9, -9), 315),
    ],
)
def test_headings_are_those_of_a_compass_on_the_picture(
    front: tuple[float, float], heading_deg: float
) -> None:
    heading = Heading("snout", "neck")
    heading.prepare(SKELETON)
    found = heading.update(Sample(0, [(100, 50), (100 + front[0], 50 + front[1]), None]))
    assert found == heading_deg
    axis: dict[str, Any] = {"back": "neck", "front": "snout"}
    exactly = condition("heading", **axis, towards_deg=heading_deg, within_deg=0)
    off = (heading_deg + 44) % 360
    nearly = condition("heading", **axis, towards_deg=off, within_deg=43)
    pose: list[Place] = [front, (0, 0)]
    assert words(answers(exactly, [pose])) == "Y"
    assert words(answers(nearly, [pose])) == "n"


@given(st.lists(st.tuples(place, place), max_size=10), st.integers(0, 359), st.integers(0, 180))
def test_heading_towards(poses: list[tuple[Place, Place]], towards: int, within: int) -> None:
    made = condition("heading", back="snout", front="neck", towards_deg=towards, within_deg=within)
    way = (math.sin(math.radians(towards)), -math.cos(math.radians(towards)))
    expected: list[bool | None] = []
    for back, front in poses:
        if back is None or front is None or back == front:
            expected.append(None)
            continue
        off = between_deg((front[0] - back[0], front[1] - back[1]), way)
        if abs(off - within) < 1e-4:
            return  # which side of it rounding leaves it on is not the point here
        expected.append(off < within)
    assert answers(made, poses) == expected


AXIS: dict[str, Any] = {"back": "neck", "front": "snout"}


@pytest.mark.parametrize(
    ("to", "angle_deg"),
    [
        ((20, 0), 0),
        ((5, 5), 45),  # y is down: seen from above, that is the right of who looks along x
        ((0, 5), 90),
        ((-5, 0), 180),
        ((0, -5), -90),
        ((0, 0), None),
    ],
)
def test_egocentric_angles(to: tuple[float, float], angle_deg: float | None) -> None:
    angle = EgocentricAngle("neck", "snout", to)
    angle.prepare(SKELETON)
    assert angle.update(Sample(0, [(10, 0), (0, 0), None])) == angle_deg
    assert angle.update(Sample(1, [(0, 0), (0, 0), None])) is None
    behind = EgocentricAngle("neck", "snout", (5.0, 0.0))
    behind.prepare(SKELETON)
    assert behind.update(Sample(0, [(-10.0, 0.0), (0.0, 0.0), None])) == 180  # not -180
    assert angle.update(Sample(2, [(10, 0), None, None])) is None


def test_looking_at_a_point_on_a_side_and_near() -> None:
    at = {"point": {"x_px": 0, "y_px": 0}}
    poses: list[list[Place]] = [
        [(-10, 0), (-20, 0), None],  # straight at it, 10 px before it
        [(-11, 0), (-21, 0), None],
        [(-10, 5), (-20, 5), None],  # it lies to the left
        [(-10, -5), (-20, -5), None],
        [(-30, 0), (-20, 0), None],  # straight away from it
        [None, (-20, 0), None],
        [(-10, 0), None, None],
        [(-100, 0), None, None],
    ]
    assert words(answers(condition("looking", **AXIS, **at, within_deg=20), poses)) == "YYYYn???"
    left = condition("looking", **AXIS, **at, within_deg=20, side="left")
    assert words(answers(left, poses)) == "YYYnn???"
    right = condition("looking", **AXIS, **at, within_deg=20, side="right")
    assert words(answers(right, poses)) == "YYnYn???"
    near = condition("looking", **AXIS, **at, within_deg=20, max_distance_px=10)
    # Too far away is enough to know that it does not, wherever it looks.
    assert words(answers(near, poses)) == "Ynnnn??n"
    assert near.describe() == "neck to snout: (0, 0) at an angle not known"


@pytest.mark.parametrize(
    "region",
    [
        {"circle": {"x_px": 30, "y_px": 10, "radius_px": 2}},
        {"rectangle": {"x_px": 20, "y_px": 0, "width_px": 20, "height_px": 20}},
        {"polygon": [[20, 0], [40, 0], [40, 20], [20, 20]]},
        {"to_keypoint": "tailbase"},
    ],
)
def test_looking_at_a_region_is_looking_at_its_centre(region: dict[str, Any]) -> None:
    made = condition("looking", **AXIS, **region, within_deg=0.01)
    assert words(answers(made, [[(10, 10), (0, 10), (30, 10)], [(10, 9), (0, 10), (30, 10)]])) == (
        "Yn"
    )


def test_looking_takes_one_unit() -> None:
    with pytest.raises(ValidationError, match="not both"):
        condition(
            "looking",
            **AXIS,
            to_keypoint="tailbase",
            within_deg=3,
            max_distance_px=3,
            max_distance_mm=3,
        )


# ------------------------------------------------------------------ speed, acceleration, freezing


def speed(when: str, **settings: Any) -> Any:
    values = {"window_ms": 100, "max_gap_ms": 50, **settings}
    return make_trigger("speed", keypoint="snout", when=when, **values)


REST: list[Place] = [(0, 0)] * 12


def test_speed_starts_fires_where_the_condition_becomes_true() -> None:
    rest: list[Place] = [(0, 0)] * 15
    run_away: list[Place] = [(5.0 * i, 0) for i in range(1, 15)]  # 5 px per 10 ms: 500 px/s
    assert decide_on(speed("starts", above_px_s=220), rest + run_away) == "." * 19 + "F" + "." * 9


def test_speed_while_is_a_level_below_or_above() -> None:
    assert decide_on(speed("while", above_px_s=1), REST) == "L" * 12
    assert decide_on(speed("while", below_px_s=1), REST) == "L" * 10 + "HH"  # a full window first


def test_an_animal_that_already_runs_has_not_started() -> None:
    places: list[Place] = [(5.0 * i, 0) for i in range(20)]
    assert decide_on(speed("starts", above_px_s=220), places) == "." * 20


def test_the_threshold_itself_does_not_count() -> None:
    places: list[Place] = [(float(i), 0) for i in range(12)]  # 100 px/s exactly
    assert decide_on(speed("while", above_px_s=100), places) == "L" * 12
    assert decide_on(speed("while", below_px_s=100), places) == "L" * 12


def test_dropped_frames_do_not_bend_the_speed() -> None:
    trigger = speed("while", above_px_s=99)
    for at_ms in (0, 10, 20, 70, 80, 110, 130, 180, 190, 220):
        trigger.update(make_pose((at_ms * 0.1, 0), at_ms=at_ms))
    assert trigger.describe() == "snout: speed 100.0 px/s"


def test_the_longest_time_between_two_positions_is_known_exactly() -> None:
    for quantity, threshold in (("speed", {"above_px_s": 1}), ("acceleration", {"above_px_s2": 1})):
        for last_ms, told in ((150, True), (150.001, False)):
            made = condition(quantity, keypoint="snout", window_ms=100, max_gap_ms=50, **threshold)
            stamps = [0, last_ms] if quantity == "speed" else [0, last_ms, last_ms + 100]
            found = [made.update(Sample(round(t * MS), [(t, 0.0), None, None])) for t in stamps]
            assert (found[-1] is not None) is told


def test_no_speed_is_taken_across_a_longer_gap() -> None:
    lost: list[Place] = [None]
    after: list[Place] = [(400, 0)] * 12
    # 4 poses lost: 140 ms between what is compared, and the jump counts as movement.
    assert "H" in decide_on(speed("while", above_px_s=100), REST + lost * 4 + after)
    # 15 poses lost: more than window_ms + max_gap_ms = 150 ms, nothing to compare with.
    assert "H" not in decide_on(speed("while", above_px_s=100), REST + lost * 15 + after)
    assert "F" not in decide_on(speed("starts", above_px_s=100), REST + lost * 15 + after)


def test_time_that_goes_back_starts_the_window_again() -> None:
    trigger = speed("while", below_px_s=1)
    assert decide_on(trigger, REST)[-1] == "H"
    for at_ms in (110, 5):  # the same frame again; a restarted time base
        assert letter(trigger.update(make_pose((0, 0), at_ms=at_ms))) == "L"


def older_ms(seen: Sequence[tuple[int, Any]], at_ms: int, window_ms: int) -> Any:
    """Return the latest fix that is at least a window older."""
    found = [fix for fix in seen if at_ms - fix[0] >= window_ms]
    return found[-1] if found else None


@given(steps, st.integers(1, 150), st.integers(0, 100), st.booleans())
def test_speed_walks_against_a_slow_reference(
    walk: list[tuple[int, Place]], window_ms: int, max_gap_ms: int, above: bool
) -> None:
    limit = 123.456789  # no speed of this walk is as near to it as rounding reaches
    made = condition(
        "speed",
        keypoint="snout",
        window_ms=window_ms,
        max_gap_ms=max_gap_ms,
        **{"above_px_s" if above else "below_px_s": limit},
    )
    at_ms = 0
    seen: list[tuple[int, tuple[float, float]]] = []
    found, expected = [], []
    for step_ms, where in walk:
        at_ms += step_ms
        found.append(made.update(Sample(at_ms * MS, [where, None, None])))
        state = None
        if where is not None:
            then = older_ms(seen, at_ms, window_ms)
            if then is not None and at_ms - then[0] <= window_ms + max_gap_ms:
                distance2 = (
                    Fraction(where[0] - then[1][0]) ** 2 + Fraction(where[1] - then[1][1]) ** 2
                )
                fast = distance2 * 1_000_000 > Fraction(limit) ** 2 * (at_ms - then[0]) ** 2
                state = fast == above
            seen.append((at_ms, where))
        expected.append(state)
    assert found == expected


@given(steps, st.integers(1, 100), st.integers(0, 100))
def test_acceleration_walks_against_a_slow_reference(
    walk: list[tuple[int, Place]], window_ms: int, max_gap_ms: int
) -> None:
    limit, longest_ms = 1234.56789, window_ms + max_gap_ms
    settings = {"keypoint": "snout", "window_ms": window_ms, "max_gap_ms": max_gap_ms}
    made = condition("acceleration", **settings, above_px_s2=limit)
    at_ms = 0
    seen: list[tuple[int, tuple[float, float]]] = []
    found, expected = [], []
    for step_ms, where in walk:
        at_ms += step_ms
        found.append(made.update(Sample(at_ms * MS, [where, None, None])))
        state = None
        if where is not None:
            seen.append((at_ms, where))
            middle = older_ms(seen, at_ms, window_ms)
            first = None if middle is None else older_ms(seen, middle[0], window_ms)
            if first and at_ms - middle[0] <= longest_ms and middle[0] - first[0] <= longest_ms:
                late = math.dist(where, middle[1]) / (at_ms - middle[0])
                early = math.dist(middle[1], first[1]) / (middle[0] - first[0])
                state = (late - early) * 1e6 / ((at_ms - first[0]) / 2) > limit
        expected.append(state)
    assert found == expected


def test_acceleration_tells_speeding_up_from_braking() -> None:
    path = [0, 1, 2, 3, 5, 8, 12, 16, 20, 23, 25, 26, 26]  # px per 10 ms: 1 1 1 2 3 4 4 4 3 2 1 0
    places: list[Place] = [(float(x), 0) for x in path]
    up = condition("acceleration", keypoint="snout", window_ms=10, above_px_s2=9_999)
    down = condition("acceleration", keypoint="snout", window_ms=10, below_px_s2=-9_999)
    assert on_snout(up, places) == "??nnYYYnnnnnn"
    assert on_snout(down, places) == "??nnnnnnnYYYY"


def test_freezing_needs_all_keypoints_slow_for_long_enough() -> None:
    settings: dict[str, Any] = {
        "keypoints": ["snout", "tailbase"],
        "below_px_s": 50,
        "window_ms": 10,
        "for_ms": 30,
    }
    still: list[Place] = [(0, 0), None, (50, 0)]
    moves: list[Place] = [(1, 0), None, (50, 0)]
    unseen: list[Place] = [(1, 0), None, None]
    poses = [still, still, still, still, still, moves, moves, moves, moves, moves]
    assert words(answers(condition("freezing", **settings), poses)) == "?nnnYnnnnY"
    # One that is not seen leaves it open, and the time does not count; one that is fast does not.
    poses = [still, still, still, [(0, 0), None, None], still, still, still, still, unseen]
    assert words(answers(condition("freezing", **settings), poses)) == "?nn?nnYYn"
    in_mm = make_trigger(
        "freezing",
        px_per_mm=2.0,
        **{**settings, "below_px_s": None},
        below_mm_s=25,
        when="starts",
    )
    assert decide(in_mm, [moves, still, still, still, still, still]) == ".....F"
    assert in_mm.describe() == "snout, tailbase: at most 0.0 mm/s"


@given(
    st.lists(st.tuples(st.integers(1, 40), place, place), max_size=30),
    st.integers(1, 60),
    st.integers(1, 100),
    st.integers(0, 500),
)
def test_freezing_walks_against_a_slow_reference(
    walk: list[tuple[int, Place, Place]], window_ms: int, for_ms: int, hysteresis: int
) -> None:
    limit = 523.456789
    made = condition(
        "freezing",
        keypoints=["snout", "neck"],
        below_px_s=limit,
        hysteresis_px_s=hysteresis,
        window_ms=window_ms,
        for_ms=for_ms,
    )
    at_ms, slow = 0, False
    seen: list[list[tuple[int, tuple[float, float]]]] = [[], []]
    states: list[tuple[int, bool | None]] = []
    found, expected = [], []
    for step_ms, *places in walk:
        at_ms += step_ms
        found.append(made.update(Sample(at_ms * MS, [*places, None])))
        speeds: list[float | None] = []
        for fixes, where in zip(seen, places, strict=True):
            then = older_ms(fixes, at_ms, window_ms)
            known = where and then and at_ms - then[0] <= window_ms + 100
            speeds.append(
                math.dist(where, then[1]) * 1000 / (at_ms - then[0]) if where and known else None
            )
            if where:
                fixes.append((at_ms, where))
        top = limit + hysteresis if slow else limit
        fast = any(s is not None and s >= top for s in speeds)
        state = False if fast else None if None in speeds else True
        slow = slow if state is None else state
        states.append((at_ms, state))
        expected.append(None if state is None else bool(state) and _held_ms(states) >= for_ms)
    assert found == expected


def _held_ms(states: list[tuple[int, bool | None]]) -> int:
    """Return for how long the last state was seen to hold, pose by pose."""
    total_ms = 0
    for (then_ms, before), (now_ms, now) in zip(states[-2::-1], states[:0:-1], strict=True):
        if before is False:
            break
        total_ms += now_ms - then_ms if before and now else 0
    return total_ms


# --------------------------------------------------------------------------- logic, past of others

IN_OUT: dict[str, Place] = {"Y": (15.0, 15.0), "n": (50.0, 15.0), "?": None}


def inside(keypoint: str, **more: Any) -> dict[str, Any]:
    return {"type": "region", "keypoint": keypoint, **SQUARE, **more}


@pytest.mark.parametrize(
    ("kind", "table"),
    [
        ("all", {"YY": "Y", "Yn": "n", "Y?": "?", "nn": "n", "n?": "n", "??": "?"}),
        ("any", {"YY": "Y", "Yn": "Y", "Y?": "Y", "nn": "n", "n?": "?", "??": "?"}),
    ],
)
def test_kleene_tables(kind: str, table: dict[str, str]) -> None:
    for case, expected in table.items():
        for pose in (case, case[::-1]):
            made = condition(kind, of=[inside("snout"), inside("neck")])
            assert words(answers(made, [[IN_OUT[part] for part in pose]])) == expected


def test_not() -> None:
    made = condition("not", of=inside("snout"))
    assert on_snout(made, [IN_OUT[c] for c in "Yn?"]) == "nY?"
    assert made.describe() == "not (snout not found)"


letters = st.sampled_from("YYnn?")
trees = st.recursive(
    st.sampled_from(SKELETON.names),
    lambda inner: (
        st.tuples(st.sampled_from(["all", "any"]), st.lists(inner, min_size=1, max_size=3))
        | st.tuples(st.just("not"), inner)
    ),
    max_leaves=6,
)


@settings(max_examples=60)
@given(trees, st.lists(st.tuples(letters, letters, letters), min_size=1, max_size=8))
def test_combinations_against_trying_every_case(
    tree: Any, poses: list[tuple[str, str, str]]
) -> None:
    def settings(node: Any) -> dict[str, Any]:
        if isinstance(node, str):
            return inside(node)
        kind, of = node
        return {"type": kind, "of": settings(of) if kind == "not" else [*map(settings, of)]}

    def kleene(node: Any, known: dict[str, str]) -> float:
        """Truth as 1, 0, and 0.5 where it is not known."""
        if isinstance(node, str):
            return {"Y": 1.0, "n": 0.0, "?": 0.5}[known[node]]
        kind, of = node
        if kind == "not":
            return 1 - kleene(of, known)
        return (min if kind == "all" else max)(kleene(part, known) for part in of)

    made = condition("any", of=[settings(tree)])
    found = words(answers(made, [[IN_OUT[c] for c in pose] for pose in poses]))
    expected = [kleene(tree, dict(zip(SKELETON.names, pose, strict=True))) for pose in poses]
    assert found == "".join({1.0: "Y", 0.0: "n", 0.5: "?"}[value] for value in expected)


def test_parts_see_every_sample_and_have_their_own_dwell() -> None:
    both = condition("all", of=[inside("snout", dwell_ms=20), inside("neck")])
    snout, neck = "nYYYYnY", "nnnnYYY"
    poses = [[IN_OUT[a], IN_OUT[b]] for a, b in zip(snout, neck, strict=True)]
    assert words(answers(both, poses)) == "nnnnYnn"


def test_time_since() -> None:
    settings: dict[str, Any] = {"of": inside("snout"), "event": "ended"}
    walk = [IN_OUT[c] for c in "?nYYnnnnYn?n"]
    below = condition("time-since", **settings, below_ms=20)
    assert on_snout(below, walk) == "???nYYnnnY?n"
    above = condition("time-since", **settings, above_ms=20)
    # It was watched for more than 20 ms before the first event: that it is longer ago is known.
    assert on_snout(above, walk) == "????nnnYYn?n"
    assert on_snout(condition("time-since", **settings, above_ms=20), [IN_OUT["Y"]] * 5) == "???YY"
    assert on_snout(condition("time-since", **settings, below_ms=20), [IN_OUT["Y"]] * 4) == "??nn"
    assert above.describe() == "20 ms since region ended"


def test_count() -> None:
    settings: dict[str, Any] = {"of": inside("snout"), "event": "began"}
    walk = [IN_OUT[c] for c in "?YnYn?YYnY"]
    twice = condition("count", **settings, at_least=2)
    assert on_snout(twice, walk) == "?nnnn?YYYY"
    lately = condition("count", **settings, at_least=2, window_ms=30)
    assert on_snout(lately, walk) == "?nnnn?YnnY"
    assert twice.describe() == "2 times region began"


@given(
    st.lists(st.tuples(st.integers(1, 40), letters), max_size=40),
    st.sampled_from(["began", "ended"]),
    st.integers(1, 4),
    st.none() | st.integers(1, 200),
    st.integers(0, 150),
    st.booleans(),
)
def test_events_of_the_past_against_a_slow_reference(
    walk: list[tuple[int, str]],
    event: str,
    at_least: int,
    window_ms: int | None,
    limit_ms: int,
    above: bool,
) -> None:
    count = condition(
        "count", of=inside("snout"), event=event, at_least=at_least, window_ms=window_ms
    )
    bound = {"above_ms": limit_ms} if above else {"below_ms": limit_ms + 1}
    since = condition("time-since", of=inside("snout"), event=event, **bound)
    at_ms = 0
    told: list[tuple[int, str]] = []
    for step_ms, state in walk:
        at_ms += step_ms
        sample = Sample(at_ms * MS, [IN_OUT[state], None, None])
        if state != "?":
            told.append((at_ms, state))
        change = "nY" if event == "began" else "Yn"
        events = [told[i][0] for i in range(1, len(told)) if told[i - 1][1] + told[i][1] == change]
        recent = [t for t in events if window_ms is None or at_ms - t <= window_ms]
        assert count.update(sample) is (None if state == "?" else len(recent) >= at_least)
        expected: bool | None = None
        if state != "?":
            least_ms = at_ms - (events[-1] if events else told[0][0])
            expected = least_ms > limit_ms if above else least_ms < limit_ms + 1
            if not events and expected is not above:
                expected = None  # it may be longer ago
        assert since.update(sample) is expected


def test_a_task_of_many_parts() -> None:
    """Rear end in the zone, and the third visit of the snout within a second: once."""
    visits = {"type": "count", "of": inside("snout"), "event": "began", "at_least": 3}
    task = make_trigger(
        "all", of=[inside("tailbase"), {**visits, "window_ms": 1000}], when="starts"
    )
    poses = [[IN_OUT[a], None, IN_OUT[b]] for a, b in zip("nYnYnYnY", "nnnnnnYY", strict=True)]
    assert decide(task, poses) == "......F."


# ----------------------------------------------------------------------------- conditions of others


class MidpointSettings(ConditionSettings):
    right_of_px: float


class MidpointTriggerSettings(EventTriggerSettings, MidpointSettings):
    pass


class Midpoint(Condition):
    """The middle between snout and neck is right of a line."""

    Config: ClassVar[type[ConditionSettings]] = MidpointSettings

    def __init__(self, config: MidpointSettings) -> None:
        self._right_of_px = config.right_of_px

    @property
    def keypoints(self) -> tuple[str, ...]:
        return ("snout", "neck")

    def prepare(self, skeleton: Skeleton, scale: Scale | None) -> None:
        self._places = indices(skeleton, self.keypoints)

    def update(self, sample: Sample) -> bool | None:
        first, second = (sample.points[index] for index in self._places)
        if first is None or second is None:
            return None
        return (first[0] + second[0]) / 2 > self._right_of_px

    def reset(self) -> None:
        """Nothing to forget."""


class MidpointTrigger(ConditionTrigger):
    Config: ClassVar[type[Settings]] = MidpointTriggerSettings
    condition_type: ClassVar[type[Condition]] = Midpoint


def test_a_condition_in_another_module_is_a_trigger_and_a_part_of_others() -> None:
    name = f"{__name__}:MidpointTrigger"
    poses: list[list[Place]] = [[(0, 0), (10, 0)], [(0, 0), (20, 0)], [(0, 0), None], [(9, 9)] * 2]
    alone = make_trigger(name, right_of_px=9.5, when="while", dwell_ms=0)
    assert decide(alone, poses) == "LHLL"
    fires = make_trigger("not", of={"type": name, "right_of_px": 9.5}, when="starts")
    assert decide(fires, poses) == "...F"
