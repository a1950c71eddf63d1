"""The built-in triggers: what an experimenter expects, and random walks against references."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rtpose.errors import SkeletonError, TriggerError
from rtpose.interfaces import Decision, Trigger
from rtpose.messages import Pose
from rtpose.skeleton import Skeleton
from rtpose.triggers.region import RegionSettings, RegionTrigger
from rtpose.triggers.speed import SpeedSettings, SpeedTrigger

SKELETON = Skeleton(("snout", "tailbase"))
SQUARE = [[10, 10], [20, 10], [20, 20], [10, 20]]
MS = 1_000_000

Place = tuple[float, float] | None


def make_pose(place: Place, at_ns: int = 0, individuals: int = 1, **stamps: int | None) -> Pose:
    keypoints = np.full((individuals, 2, 3), np.nan, np.float32)
    valid = np.zeros((individuals, 2), np.uint8)
    if place is not None:
        keypoints[:, 0] = (*place, 0.9)
        valid[:, 0] = 1
    times: dict[str, Any] = {"exposure_ns": at_ns, "arrival_ns": at_ns, **stamps}
    return Pose(
        run="r",
        camera="top",
        seq=0,
        frame_id=0,
        dropped=0,
        ready_ns=at_ns,
        infer_start_ns=at_ns,
        infer_end_ns=at_ns,
        publish_ns=at_ns,
        keypoints=keypoints,
        valid=valid,
        **times,
    )


def region(when: str, **shape: Any) -> RegionTrigger:
    settings = {"keypoint": "snout", "when": when, **(shape or {"polygon": SQUARE})}
    trigger = RegionTrigger(RegionSettings.model_validate(settings))
    trigger.prepare(SKELETON)
    return trigger


def speed(when: str, **settings: Any) -> SpeedTrigger:
    values = {"keypoint": "snout", "when": when, "window_ms": 100, "max_gap_ms": 50, **settings}
    trigger = SpeedTrigger(SpeedSettings.model_validate(values))
    trigger.prepare(SKELETON)
    return trigger


def run(trigger: Trigger, places: Sequence[Place], step_ms: int = 10) -> str:
    """Decisions over poses at a steady rate, one letter each: F(ire), H(igh), L(ow), or ``.``."""
    decisions = (trigger.update(make_pose(p, i * step_ms * MS)) for i, p in enumerate(places))
    return "".join("." if d is Decision.NOTHING else d.name[0] for d in decisions)


IN, OUT = (15.0, 15.0), (50.0, 15.0)


def test_enter_fires_once_where_the_keypoint_comes_in() -> None:
    assert run(region("enter"), [OUT, OUT, IN, IN, OUT, IN]) == "..F..F"


def test_leave_fires_once_where_the_keypoint_goes_out() -> None:
    assert run(region("leave"), [OUT, IN, IN, OUT, OUT, IN, OUT]) == "...F..F"


def test_an_animal_that_starts_inside_has_not_entered() -> None:
    assert run(region("enter"), [IN, IN, OUT, IN]) == "...F"
    assert run(region("leave"), [OUT, IN]) == ".."


def test_a_pose_without_the_keypoint_keeps_the_state_and_fires_nothing() -> None:
    assert run(region("enter"), [None, OUT, None, IN, None, IN]) == "...F.."
    assert run(region("leave"), [IN, None, None, OUT]) == "...F"


def test_inside_is_a_level_and_doubt_is_low() -> None:
    assert run(region("inside"), [None, OUT, IN, None, IN, OUT]) == "LLHLHL"


def test_the_border_is_inside() -> None:
    assert run(region("inside"), [(10, 10), (20, 15), (15, 20), (9.999, 15)]) == "HHHL"
    circle = {"x_px": 10, "y_px": 20, "radius_px": 5}
    assert run(region("inside", circle=circle), [(13, 24), (15, 20), (13.1, 24)]) == "HHL"


@given(
    st.sampled_from(["enter", "leave", "inside"]),
    st.lists(
        st.none() | st.tuples(st.integers(5, 25).map(float), st.integers(5, 25).map(float)),
        max_size=40,
    ),
)
def test_region_walks_against_a_plain_reference(when: str, places: list[Place]) -> None:
    states = [None if p is None else 10 <= p[0] <= 20 and 10 <= p[1] <= 20 for p in places]
    expected = ""
    for i, state in enumerate(states):
        known = [s for s in states[:i] if s is not None]
        if when == "inside":
            expected += "H" if state else "L"
        else:
            wanted = when == "enter"
            expected += "F" if state is wanted and known and known[-1] is not wanted else "."
    assert run(region(when), places) == expected


@pytest.mark.parametrize(
    ("settings", "where", "message"),
    [
        ({"polygon": SQUARE, "circle": {"x_px": 1, "y_px": 1, "radius_px": 1}}, (), "both is"),
        ({}, (), "neither is given"),
        ({"polygon": SQUARE[:2]}, ("polygon",), "at least 3 corners"),
        ({"polygon": [[0, 0], [1, 1], [1, 0], [0, 1]]}, ("polygon",), "cross or touch"),
        ({"polygon": [[0, 0], [1, 1], [2, 2]]}, ("polygon",), "back on itself"),
        ({"polygon": [[0, 0], [1, 1, 1], [2, 0]]}, ("polygon", 1), "at most 2"),
        ({"polygon": [[0, 0], [1, "1"], [2, 0]]}, ("polygon", 1, 1), "valid number"),
        ({"polygon": [[0, 0], [1, math.nan], [2, 0]]}, ("polygon", 1, 1), "finite"),
        ({"circle": {"x_px": 1, "y_px": 1, "radius_px": 0}}, ("circle", "radius_px"), "greater"),
        ({"circle": {"x_px": 1, "y_px": 1}}, ("circle", "radius_px"), "required"),
        ({"polygon": SQUARE, "when": "near"}, ("when",), "'enter', 'leave' or 'inside'"),
        ({"polygon": SQUARE, "keypoint": ""}, ("keypoint",), "at least 1"),
        ({"polygon": SQUARE, "radius": 3}, ("radius",), "not permitted"),
    ],
)
def test_wrong_region_settings_name_the_field(
    settings: dict[str, Any], where: tuple[str | int, ...], message: str
) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        RegionSettings.model_validate({"keypoint": "snout", "when": "enter", **settings})
    assert [error["loc"] for error in caught.value.errors()] == [where]


def test_speed_cross_fires_where_the_condition_becomes_true() -> None:
    rest: list[Place] = [(0, 0)] * 15
    run_away: list[Place] = [(5.0 * i, 0) for i in range(1, 15)]  # 5 px per 10 ms: 500 px/s
    assert run(speed("cross", above_px_s=220), rest + run_away) == "." * 19 + "F" + "." * 9


def test_speed_while_is_a_level_below_or_above() -> None:
    rest: list[Place] = [(0, 0)] * 12
    assert run(speed("while", above_px_s=1), rest) == "L" * 12
    assert run(speed("while", below_px_s=1), rest) == "L" * 10 + "HH"  # not before a full window


def test_an_animal_that_already_runs_has_not_crossed() -> None:
    places: list[Place] = [(5.0 * i, 0) for i in range(20)]
    assert run(speed("cross", above_px_s=220), places) == "." * 20


def test_the_threshold_itself_does_not_count() -> None:
    places: list[Place] = [(float(i), 0) for i in range(12)]  # 100 px/s exactly
    assert run(speed("while", above_px_s=100), places) == "L" * 12
    assert run(speed("while", below_px_s=100), places) == "L" * 12


def test_dropped_frames_do_not_bend_the_speed() -> None:
    trigger = speed("while", above_px_s=99, window_ms=100)
    for at_ms in (0, 10, 20, 70, 80, 110, 130, 180, 190, 220):
        trigger.update(make_pose((at_ms * 0.1, 0), at_ms * MS))
    assert trigger.describe() == "snout at 100.0 px/s"


def test_no_speed_is_taken_across_a_longer_gap() -> None:
    shown: list[Place] = [(0, 0)] * 12
    lost: list[Place] = [None]
    after: list[Place] = [(400, 0)] * 12
    # 4 poses lost: 140 ms between what is compared, and the jump counts as movement.
    assert "H" in run(speed("while", above_px_s=100), shown + lost * 4 + after)
    # 15 poses lost: more than window_ms + max_gap_ms = 150 ms, nothing to compare with.
    assert "H" not in run(speed("while", above_px_s=100), shown + lost * 15 + after)
    assert "F" not in run(speed("cross", above_px_s=100), shown + lost * 15 + after)


def test_without_the_keypoint_the_level_is_low_and_the_state_is_kept() -> None:
    places: list[Place] = [(0, 0)] * 11
    assert run(speed("while", below_px_s=1), [*places, None, (0, 0)])[-3:] == "HLH"
    lost_and_found: list[Place] = [*places, None, (0, 0)]
    assert "F" not in run(speed("cross", below_px_s=1), lost_and_found)


def test_time_that_goes_back_starts_the_window_again() -> None:
    trigger = speed("while", below_px_s=1)
    stamps = [i * 10 * MS for i in range(12)]
    assert [trigger.update(make_pose((0, 0), t)) for t in stamps][-1] is Decision.HIGH
    for at_ns in (stamps[-1], 5 * MS):  # the same frame again; a restarted time base
        assert trigger.update(make_pose((0, 0), at_ns)) is Decision.LOW


def test_speed_counts_from_the_exposure_where_there_is_one() -> None:
    trigger = speed("while", above_px_s=1)
    for i in range(2):
        trigger.update(make_pose((10.0 * i, 0), i * 100 * MS, arrival_ns=i * 120 * MS))
    assert trigger.describe() == "snout at 100.0 px/s"
    trigger = speed("while", above_px_s=1)
    for i in range(2):
        trigger.update(make_pose((12.0 * i, 0), exposure_ns=None, arrival_ns=i * 120 * MS))
    assert trigger.describe() == "snout at 100.0 px/s"


coordinate = st.integers(0, 400).map(lambda n: n / 4)
steps = st.lists(
    st.tuples(st.integers(1, 60), st.none() | st.tuples(coordinate, coordinate)), max_size=40
)


@given(
    steps,
    st.integers(1, 150),
    st.integers(0, 100),
    st.booleans(),
    st.sampled_from(["cross", "while"]),
)
def test_speed_walks_against_a_slow_reference(
    walk: list[tuple[int, Place]], window_ms: int, max_gap_ms: int, above: bool, when: str
) -> None:
    limit = 123.456789  # no speed of this walk is as near to it as rounding reaches
    trigger = speed(
        when,
        window_ms=window_ms,
        max_gap_ms=max_gap_ms,
        **{"above_px_s" if above else "below_px_s": limit},
    )
    at_ms = 0
    seen: list[tuple[int, tuple[float, float]]] = []
    met: list[bool] = []
    decisions, expected = [], []
    for step_ms, place in walk:
        at_ms += step_ms
        decisions.append(trigger.update(make_pose(place, at_ms * MS)))
        state = None
        if place is not None:
            older = [(t, p) for t, p in seen if at_ms - t >= window_ms]
            if older and at_ms - older[-1][0] <= window_ms + max_gap_ms:
                then_ms, (x, y) = older[-1]
                distance2 = Fraction(place[0] - x) ** 2 + Fraction(place[1] - y) ** 2
                fast = distance2 * 1_000_000 > Fraction(limit) ** 2 * (at_ms - then_ms) ** 2
                state = fast == above
            seen.append((at_ms, place))
        if when == "while":
            expected.append(Decision.HIGH if state else Decision.LOW)
        else:
            expected.append(Decision.FIRE if state and met[-1:] == [False] else Decision.NOTHING)
        met += [state] if state is not None else []
    assert decisions == expected


@pytest.mark.parametrize(
    ("settings", "where", "message"),
    [
        ({}, (), "neither is given"),
        ({"above_px_s": 1, "below_px_s": 1}, (), "both is given"),
        ({"above_px_s": -1}, ("above_px_s",), "greater"),
        ({"above_px_s": math.inf}, ("above_px_s",), "finite|less"),
        ({"below_px_s": 0}, ("below_px_s",), "greater"),
        ({"above_px_s": 1, "window_ms": 0}, ("window_ms",), "greater"),
        ({"above_px_s": 1, "max_gap_ms": -1}, ("max_gap_ms",), "greater"),
        ({"above_px_s": 1, "when": "enter"}, ("when",), "'cross' or 'while'"),
        ({"above_px_s": "1"}, ("above_px_s",), "valid number"),
    ],
)
def test_wrong_speed_settings_name_the_field(
    settings: dict[str, Any], where: tuple[str | int, ...], message: str
) -> None:
    base = {"keypoint": "snout", "when": "cross", "window_ms": 100}
    with pytest.raises(ValidationError, match=message) as caught:
        SpeedSettings.model_validate({**base, **settings})
    assert [error["loc"] for error in caught.value.errors()] == [where]


@pytest.mark.parametrize("trigger", [region("enter"), speed("cross", above_px_s=1)])
def test_an_unknown_keypoint_is_refused_with_the_nearest_name(trigger: Trigger) -> None:
    with pytest.raises(SkeletonError, match="did you mean 'snouts'"):
        trigger.prepare(Skeleton(("snouts", "tail")))


@pytest.mark.parametrize("trigger", [region("inside"), speed("while", above_px_s=1)])
def test_poses_of_another_shape_are_refused(trigger: Trigger) -> None:
    with pytest.raises(TriggerError, match="2 individuals"):
        trigger.update(make_pose(IN, individuals=2))
    assert trigger.update(make_pose(IN, individuals=0)) is Decision.LOW
    trigger.prepare(Skeleton(("snout",)))
    with pytest.raises(TriggerError, match="has 2 keypoints, the skeleton 1"):
        trigger.update(make_pose(IN))


@pytest.mark.parametrize("place", [(math.nan, 15), (15, math.inf), (15, math.nan)])
@pytest.mark.parametrize("trigger", [region("inside"), speed("while", below_px_s=1)])
def test_a_coordinate_that_is_no_number_is_no_place(trigger: Trigger, place: Place) -> None:
    for i in range(20):
        trigger.update(make_pose(IN, i * 10 * MS))
    assert trigger.update(make_pose(IN, 200 * MS)) is Decision.HIGH
    assert trigger.update(make_pose(place, 210 * MS)) is Decision.LOW


def test_update_before_prepare_is_refused() -> None:
    settings = RegionSettings.model_validate(
        {"keypoint": "snout", "when": "enter", "polygon": SQUARE}
    )
    with pytest.raises(TriggerError, match="before prepare"):
        RegionTrigger(settings).update(make_pose(IN))


def test_describe_says_what_the_decision_was_made_on() -> None:
    trigger = region("enter")
    trigger.update(make_pose((12.34, 45.6)))
    assert trigger.describe() == "snout at (12.3, 45.6) px"
    trigger.update(make_pose(None))
    assert trigger.describe() == "snout not found"
    assert speed("cross", above_px_s=1).describe() == "snout: speed not known"
