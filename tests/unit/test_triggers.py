"""What stands around a condition: when, missing poses, dwell, limits; against a slow reference."""

import math
from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from trigger_poses import MS, Place, decide, decide_on, letter, make_pose, make_trigger

from rtpose.errors import InputError, SkeletonError, TriggerError
from rtpose.interfaces import Decision, Trigger
from rtpose.skeleton import Skeleton
from rtpose.triggers.logic import CombinedTriggerSettings
from rtpose.triggers.nested import Nested
from rtpose.triggers.region import RegionSettings, RegionTrigger, RegionTriggerSettings
from rtpose.triggers.sample import Unpacker

SQUARE = [[10, 10], [20, 10], [20, 20], [10, 20]]
IN, OUT = (15.0, 15.0), (50.0, 15.0)


def region(when: str, **settings: Any) -> Trigger:
    return make_trigger("region", keypoint="snout", polygon=SQUARE, when=when, **settings)


# ------------------------------------------------------------------------------- edges and levels


def test_enter_fires_once_where_the_keypoint_comes_in() -> None:
    assert decide_on(region("enter"), [OUT, OUT, IN, IN, OUT, IN]) == "..F..F"


def test_leave_fires_once_where_the_keypoint_goes_out() -> None:
    assert decide_on(region("leave"), [OUT, IN, IN, OUT, OUT, IN, OUT]) == "...F..F"


def test_an_animal_that_starts_inside_has_not_entered() -> None:
    assert decide_on(region("enter"), [IN, IN, OUT, IN]) == "...F"
    assert decide_on(region("leave"), [OUT, IN]) == ".."


@pytest.mark.parametrize("missing", ["false", "safe"])
def test_an_animal_that_is_inside_when_first_found_has_not_entered(missing: str) -> None:
    decisions = decide_on(region("enter", missing=missing), [None, IN, OUT, IN])
    assert decisions[1:] == "..F"


def test_levels_last_as_long_as_they_should() -> None:
    assert decide_on(region("inside"), [OUT, IN, IN, OUT]) == "LHHL"
    assert decide_on(region("outside"), [OUT, IN, IN, OUT]) == "HLLH"


def test_the_general_words_mean_the_same() -> None:
    square: dict[str, Any] = {"type": "region", "keypoint": "snout", "polygon": SQUARE}
    walk = [OUT, IN, None, IN, OUT, None, OUT, IN]
    pairs = {"enter": "starts", "leave": "ends", "inside": "while", "outside": "unless"}
    for own, general in pairs.items():
        combined = make_trigger("all", of=[square], when=general)
        assert decide_on(combined, walk) == decide_on(region(own), walk)
        assert combined.momentary is region(own).momentary


# ---------------------------------------------------------------------------------- missing poses


def test_skip_passes_over_a_pose_and_keeps_the_state() -> None:
    assert decide_on(region("enter"), [None, OUT, None, IN, None, IN]) == "...F.."
    assert decide_on(region("leave"), [IN, None, None, OUT]) == "...F"


def test_a_level_is_low_in_doubt() -> None:
    assert decide_on(region("inside"), [None, OUT, IN, None, IN, OUT]) == "LLHLHL"
    assert decide_on(region("outside"), [None, OUT, None, IN, None]) == "LHLLL"


def test_hold_leaves_a_high_line_for_so_long_and_raises_none() -> None:
    trigger = region("inside", missing="hold", hold_ms=20)
    assert decide_on(trigger, [OUT, IN, None, None, None, IN]) == "LH..LH"
    late = region("inside", missing="hold", hold_ms=100, dwell_ms=20)
    # The dwell time is over while the keypoint is lost: it rises when it is seen again.
    assert decide_on(late, [IN, IN, None, None, IN]) == "LLLLH"


def test_hold_bridges_a_gap_for_edges_too() -> None:
    walk = [OUT, IN, None, None, IN]
    assert decide_on(region("enter", missing="hold", hold_ms=20), walk) == ".F..."
    assert decide_on(region("enter", missing="hold", hold_ms=10), walk) == ".F..F"


def test_false_counts_a_lost_animal_as_gone() -> None:
    assert decide_on(region("enter", missing="false"), [OUT, IN, None, IN]) == ".F.F"
    # What `when` waits for has ended: lost outside and found outside, it has left again.
    assert decide_on(region("leave", missing="false"), [IN, OUT, None, OUT]) == ".F.F"
    assert decide_on(region("leave", missing="false"), [IN, None, IN]) == "..."
    assert decide_on(region("outside", missing="false"), [OUT, None, OUT]) == "HLH"


def test_safe_asks_for_a_low_line_where_there_are_pulses_too() -> None:
    assert decide_on(region("enter", missing="safe"), [None, OUT, IN, None, IN, IN]) == "L.FLF."
    assert decide_on(region("inside", missing="safe"), [None, OUT, IN, None, IN]) == "LLHLH"


def test_what_ended_must_be_entered_anew() -> None:
    near: dict[str, Any] = {
        "keypoint": "snout",
        "point": {"x_px": 0, "y_px": 0},
        "below_px": 10,
        "hysteresis_px": 5,
    }
    walk: list[Place] = [(20, 0), (9, 0), (12, 0), None, (12, 0), (9, 0)]
    kept = make_trigger("distance", **near, when="while")
    assert decide_on(kept, walk) == "LHHLHH"
    ended = make_trigger("distance", **near, when="while", missing="false")
    assert decide_on(ended, walk) == "LHHLLH"
    held = make_trigger("distance", **near, when="unless", missing="hold", hold_ms=50)
    assert decide_on(held, walk) == "HLLLLL"


# ------------------------------------------------------------------------------------------ dwell


def test_dwell_counts_to_the_pose_at_which_it_is_over() -> None:
    assert decide_on(region("enter", dwell_ms=30), [OUT, IN, IN, IN, IN, IN]) == "....F."
    assert decide_on(region("enter", dwell_ms=30), [OUT, IN, IN, IN, OUT, IN, IN]) == "......."
    assert decide_on(region("inside", dwell_ms=30), [IN, IN, IN, IN, OUT]) == "LLLHL"
    assert decide_on(region("enter", dwell_ms=30), [IN] * 9) == "." * 9


def test_dwell_is_of_what_when_waits_for() -> None:
    assert decide_on(region("leave", dwell_ms=20), [IN, OUT, OUT, OUT]) == "...F"
    inside: dict[str, Any] = {"type": "region", "keypoint": "snout", "polygon": SQUARE}
    stayed = make_trigger("all", of=[{**inside, "dwell_ms": 20}], when="ends")
    assert decide_on(stayed, [OUT, IN, IN, OUT, IN, IN, IN, OUT]) == ".......F"


def test_dwell_goes_by_the_stamps_of_uneven_poses() -> None:
    trigger = region("enter", dwell_ms=30)
    stamps = {0: OUT, 5: IN, 6: IN, 7: IN, 34.999: IN, 35: IN}
    assert "".join(letter(trigger.update(make_pose(p, at_ms=t))) for t, p in stamps.items()) == (
        ".....F"
    )


def test_time_in_which_nothing_is_known_does_not_count() -> None:
    walk = [OUT, IN, IN, None, IN, IN, IN]
    assert decide_on(region("enter", dwell_ms=30), walk) == "......F"
    assert decide_on(region("enter", dwell_ms=30, missing="false"), walk) == "......."
    assert decide_on(region("enter", dwell_ms=30, missing="hold", hold_ms=50), walk) == "....F.."


# ----------------------------------------------------------------------------------------- limits


def test_refractory_passes_over_edges_and_delays_levels() -> None:
    walk = [OUT, IN, OUT, IN, OUT, IN]
    assert decide_on(region("enter", refractory_ms=40), walk) == ".F...F"
    assert decide_on(region("enter", refractory_ms=40.001), walk) == ".F...."
    assert decide_on(region("inside", refractory_ms=30), [IN, OUT, IN, IN, IN, IN]) == "HLLLHH"


def test_once_per_trial_until_the_next_one_starts() -> None:
    trigger = region("enter", once_per_trial=True)
    assert decide(trigger, [[OUT], [IN], [OUT], [IN]]) == ".F.."
    trigger.start_trial()
    assert decide(trigger, [[OUT], [IN], [OUT], [IN]], start_ms=100) == ".F.."


def test_max_fires_until_the_next_session() -> None:
    trigger = region("enter", max_fires=2)
    assert decide(trigger, [[OUT], [IN]] * 4) == ".F.F...."
    trigger.start_trial()
    assert decide(trigger, [[OUT], [IN]] * 2, start_ms=100) == "...."
    trigger.start_session()
    assert decide(trigger, [[OUT], [IN]] * 4, start_ms=200) == ".F.F...."


def test_what_was_refused_does_not_count() -> None:
    trigger = region("enter", max_fires=1, refractory_ms=1000, once_per_trial=True)
    assert decide(trigger, [[OUT], [IN]]) == ".F"
    trigger.refused()
    assert decide(trigger, [[OUT], [IN]], start_ms=100) == ".F"
    assert decide(trigger, [[OUT], [IN]], start_ms=200) == ".."
    trigger.refused()  # there is nothing left to take back
    assert decide(trigger, [[OUT], [IN]], start_ms=300) == ".."


def test_a_refused_level_is_asked_for_again_and_counts_once_it_is_given() -> None:
    trigger = region("inside", max_fires=1)
    for at_ms in (0, 10):
        assert trigger.update(make_pose(IN, at_ms=at_ms)) is Decision.HIGH
        trigger.refused()
    assert decide(trigger, [[IN], [IN], [None], [IN], [OUT], [IN]], start_ms=20) == "HHLLLL"


def test_a_line_that_went_low_in_doubt_rises_within_its_limits() -> None:
    walk = [IN, None, IN, IN, None, IN, IN]
    assert decide_on(region("inside", refractory_ms=20), walk) == "HLLHLLH"
    assert decide_on(region("inside", max_fires=2), walk) == "HLHHLLL"
    held = region("inside", refractory_ms=20, max_fires=1, missing="hold", hold_ms=10)
    assert decide_on(held, walk) == "H.HH.HH"


def test_a_level_that_goes_on_is_not_taken_back() -> None:
    trigger = region("inside", once_per_trial=True)
    assert decide(trigger, [[IN], [IN]]) == "HH"
    trigger.refused()  # the line had used up its max_on_ms, say
    assert decide(trigger, [[IN], [OUT], [IN]], start_ms=20) == "HLL"


# ------------------------------------------------------------------------------------- time, poses


@pytest.mark.parametrize("back_to_ms", [20, 5])
def test_where_time_goes_back_or_stands_still_what_was_timed_begins_afresh(
    back_to_ms: float,
) -> None:
    trigger = region("enter", dwell_ms=20)
    assert decide(trigger, [[OUT], [IN], [IN]]) == "..."
    assert decide(trigger, [[IN], [IN], [IN], [IN]], start_ms=back_to_ms) == "..F."
    level = region("inside", dwell_ms=20)
    assert decide(level, [[IN], [IN], [IN]]) == "LLH"
    assert decide(level, [[IN], [IN], [IN]], start_ms=back_to_ms) == "LLH"


def test_where_time_goes_back_nothing_is_fired_twice() -> None:
    trigger = region("enter")
    assert decide(trigger, [[OUT], [IN]], start_ms=100) == ".F"
    assert decide(trigger, [[IN], [IN]]) == ".."
    assert decide(region("enter"), [[IN]]) + decide(trigger, [[OUT], [IN]]) == "..F"


def test_the_refractory_time_starts_again_where_time_goes_back() -> None:
    trigger = region("enter", refractory_ms=30)
    assert decide(trigger, [[OUT], [IN]], start_ms=1000) == ".F"
    assert decide(trigger, [[OUT], [IN], [OUT], [IN]]) == "...F"


def test_time_counts_from_the_exposure_where_there_is_one() -> None:
    trigger = region("enter", dwell_ms=100)
    poses = [
        make_pose(OUT, at_ms=0),
        make_pose(IN, at_ms=100, arrival_ns=900 * MS),
        make_pose(IN, exposure_ns=None, arrival_ns=199 * MS),
        make_pose(IN, exposure_ns=None, arrival_ns=200 * MS),
    ]
    assert [letter(trigger.update(pose)) for pose in poses] == [".", ".", ".", "F"]


@pytest.mark.parametrize("place", [(math.nan, 15), (15, math.inf), (15, math.nan)])
def test_a_coordinate_that_is_no_number_is_no_place(place: Place) -> None:
    assert decide_on(region("inside"), [IN, place, IN]) == "HLH"


def test_poses_of_another_shape_are_refused() -> None:
    trigger = region("inside")
    with pytest.raises(TriggerError, match="2 individuals"):
        trigger.update(make_pose(IN, individuals=2))
    assert trigger.update(make_pose(IN, individuals=0)) is Decision.LOW
    trigger.prepare(Skeleton(("snout",)))
    with pytest.raises(TriggerError, match="has 3 keypoints, the skeleton 1"):
        trigger.update(make_pose(IN, at_ms=1))


def test_update_before_prepare_is_refused() -> None:
    settings = RegionTriggerSettings.model_validate(
        {"keypoint": "snout", "when": "enter", "polygon": SQUARE}
    )
    with pytest.raises(TriggerError, match="before prepare"):
        RegionTrigger(settings).update(make_pose(IN))


def test_an_unknown_keypoint_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(SkeletonError, match="did you mean 'snouts'"):
        region("enter", min_confidence=0.5).prepare(Skeleton(("snouts", "tail")))


def test_triggers_that_share_a_pose_see_the_same() -> None:
    first, second, other = region("inside"), region("outside"), region("inside")
    for at_ms, place in enumerate([IN, OUT, None, IN]):
        pose, another = make_pose(place, at_ms=at_ms), make_pose(IN, at_ms=at_ms)
        decisions = [first.update(pose), other.update(another), second.update(pose)]
        expected = {IN: "HHL", OUT: "LHH", None: "LHL"}[place]
        assert "".join(map(letter, decisions)) == expected


def test_triggers_that_ask_in_turn_for_a_pose_and_its_forecasts_unpack_each_once() -> None:
    poses = [make_pose((x, 0)) for x in range(4)]
    unpack = Unpacker()
    first = [unpack(pose, 3) for pose in poses]
    again = [unpack(pose, 3) for pose in reversed(poses)]
    assert all(one is other for one, other in zip(first, reversed(again), strict=True))
    assert [seen.sample.points[0] for seen in first] == [(x, 0) for x in range(4)]


def test_describe_says_what_the_decision_was_made_on_and_how_late() -> None:
    trigger = region("enter")
    trigger.update(make_pose((12.34, 45.6)))
    assert trigger.describe() == "snout at (12.3, 45.6) px"
    trigger.update(make_pose(None, at_ms=10))
    assert trigger.describe() == "snout not found"
    filtered = region("enter", filter={"type": "median", "poses": 5})
    decide_on(filtered, [IN] * 6)
    assert filtered.describe() == "snout at (15.0, 15.0) px; median filter: 20.0 ms late"
    assert filtered.delay_ms(50) == 40.0
    assert trigger.delay_ms(50) == 0.0


# ------------------------------------------------------------------------------ the slow reference

EDGES = {"enter": True, "leave": False}
LEVELS = {"inside": True, "outside": False}


class Reference:
    """The rules as they are written down, worked out from the whole history at every pose."""

    def __init__(self, when: str, settings: dict[str, Any]) -> None:
        self.dwell_ms: int = settings.get("dwell_ms", 0)
        self.level = when in LEVELS
        self.sense = {**EDGES, **LEVELS}[when]
        self.missing = settings.get("missing", "skip")
        self.hold_ms = settings.get("hold_ms", 0)
        self.refractory_ms = settings.get("refractory_ms", 0)
        self.once = settings.get("once_per_trial", False)
        self.max_fires = settings.get("max_fires")
        self.history: list[tuple[int, bool | None]] = []  # what `when` waits for, where known
        self.done: list[tuple[int, int]] = []  # time and trial of every action's beginning
        self.free_from_ms = -math.inf
        self.on = False

    def effective(self, i: int) -> bool | None:
        """What counts in pose i: True, False, or None where it is passed over."""
        at_ms, state = self.history[i]
        known = [(t, s) for t, s in self.history[: i + 1] if s is not None]
        if state is not None or not known or self.missing == "skip":
            return state
        if self.missing == "hold" and at_ms - known[-1][0] <= self.hold_ms:
            return known[-1][1]
        return False

    def has_held(self, i: int) -> bool:
        """Whether pose i tells that it holds, and that it has for the dwell time."""
        if not self.history[i][1]:
            return False
        total_ms = 0
        for k in range(i, 0, -1):
            now, before = self.effective(k), self.effective(k - 1)
            if before is False:
                break
            if now and before:
                total_ms += self.history[k][0] - self.history[k - 1][0]
        return total_ms >= self.dwell_ms

    def begins(self, i: int) -> bool:
        """Whether it holds in pose i and did not since it last ended, which was seen."""
        if not self.has_held(i):
            return False
        for k in range(i - 1, -1, -1):
            if self.effective(k) is False:
                return True
            if self.has_held(k):
                return False
        return False

    def may(self, at_ms: int, trial: int) -> bool:
        return (
            at_ms >= self.free_from_ms
            and (self.max_fires is None or len(self.done) < self.max_fires)
            and not (self.once and any(t == trial for _, t in self.done))
        )

    def decide(self, at_ms: int, inside: bool | None, trial: int, *, let_go: bool) -> str:
        if let_go and self.on:
            self.on, self.free_from_ms = False, at_ms + self.refractory_ms
        self.history.append((at_ms, None if inside is None else inside == self.sense))
        i = len(self.history) - 1
        low = "L" if self.level or (inside is None and self.missing == "safe") else "."
        if self.level:
            if self.on and not self.effective(i):
                self.on, self.free_from_ms = False, at_ms + self.refractory_ms
            if inside is None:
                return "." if self.on and self.effective(i) else low
            if self.has_held(i) and not self.on and self.may(at_ms, trial):
                self.on = True
                self.done.append((at_ms, trial))
            return "H" if self.on else "L"
        if self.begins(i) and self.may(at_ms, trial):
            self.done.append((at_ms, trial))
            self.free_from_ms = at_ms + self.refractory_ms
            return "F"
        return low


policies = st.one_of(
    st.sampled_from([{}, {"missing": "skip"}, {"missing": "false"}, {"missing": "safe"}]),
    st.integers(1, 60).map(lambda ms: {"missing": "hold", "hold_ms": ms}),
)
limits = st.fixed_dictionaries(
    {},
    optional={
        "dwell_ms": st.integers(0, 80),
        "refractory_ms": st.integers(0, 120),
        "once_per_trial": st.booleans(),
        "max_fires": st.integers(1, 4),
    },
)
story = st.lists(
    st.tuples(
        st.integers(1, 30),  # ms since the pose before
        st.sampled_from([IN, IN, OUT, None]),
        st.sampled_from(["trial", "let go", *[""] * 8]),  # what happens before it
    ),
    max_size=40,
)


@given(st.sampled_from([*EDGES, *LEVELS]), policies, limits, story)
def test_every_trigger_fires_at_the_pose_it_must(
    when: str, policy: dict[str, Any], limit: dict[str, Any], walk: list[tuple[int, Place, str]]
) -> None:
    trigger, reference = region(when, **policy, **limit), Reference(when, {**policy, **limit})
    at_ms, trial = 0, 0
    decisions, expected = "", ""
    for step_ms, place, before in walk:
        at_ms += step_ms
        if before == "trial":
            trial += 1
            trigger.start_trial()
        elif before == "let go":
            trigger.let_go()
        decisions += letter(trigger.update(make_pose(place, at_ms=at_ms)))
        inside = None if place is None else place == IN
        expected += reference.decide(at_ms, inside, trial, let_go=before == "let go")
    assert decisions == expected


@given(st.sampled_from([*EDGES, *LEVELS]), policies, limits, story)
def test_a_pose_that_does_not_tell_never_fires_or_raises_a_line(
    when: str, policy: dict[str, Any], limit: dict[str, Any], walk: list[tuple[int, Place, str]]
) -> None:
    trigger, high, at_ms = region(when, **policy, **limit), False, 0
    for step_ms, place, _ in walk:
        at_ms += step_ms
        decision = trigger.update(make_pose(place, at_ms=at_ms))
        if place is None:
            assert decision in (Decision.LOW, Decision.NOTHING)
            assert decision is Decision.LOW or not high or policy.get("missing") == "hold"
        if trigger.momentary is False:
            high = high if decision is Decision.NOTHING else decision is Decision.HIGH


# ---------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("settings", "where", "message"),
    [
        ({"missing": "hold"}, (), "needs hold_ms"),
        ({"hold_ms": 5}, (), 'with missing = "hold" only'),
        ({"missing": "drop"}, ("missing",), "'skip', 'hold', 'false' or 'safe'"),
        ({"when": "starts"}, ("when",), "'enter', 'leave', 'inside' or 'outside'"),
        ({"dwell_ms": -1}, ("dwell_ms",), "greater"),
        ({"refractory_ms": math.inf}, ("refractory_ms",), "finite|less"),
        ({"max_fires": 0}, ("max_fires",), "greater"),
        ({"max_fires": 1.5}, ("max_fires",), "integer"),
        ({"once_per_trial": 1}, ("once_per_trial",), "boolean"),
        ({"min_confidence": 1.1}, ("min_confidence",), "less"),
        ({"max_jump_px_s": 0}, ("max_jump_px_s",), "greater"),
        ({"filter": "median"}, ("filter",), "one of: one-euro, median, exponential"),
        ({"filter": {"type": "mean"}}, ("filter",), "one of: one-euro"),
        ({"filter": {"type": "median", "poses": 4}}, ("filter", "poses"), "3 or 5"),
        ({"filter": {"type": "median", "pose": 5, "poses": 5}}, ("filter", "pose"), "mean poses?"),
        ({"filter": {"type": "exponential"}}, ("filter", "time_constant_ms"), "required"),
        ({"keypoint": ""}, ("keypoint",), "at least 1"),
        ({"keypoints": ["snout"]}, (), "both is given"),
        ({"need": "all"}, (), "given together"),
        ({"radius": 3}, ("radius",), "not permitted"),
    ],
)
def test_wrong_settings_name_the_field(
    settings: dict[str, Any], where: tuple[str | int, ...], message: str
) -> None:
    base = {"keypoint": "snout", "when": "enter", "polygon": SQUARE}
    with pytest.raises(ValidationError, match=message) as caught:
        RegionTriggerSettings.model_validate({**base, **settings})
    assert [error["loc"] for error in caught.value.errors()] == [where]


@pytest.mark.parametrize(
    ("settings", "where", "message"),
    [
        ({"polygon": SQUARE, "circle": {"x_px": 1, "y_px": 1, "radius_px": 1}}, (), "polygon, cir"),
        ({}, (), "given: none"),
        ({"polygon": SQUARE[:2]}, ("polygon",), "at least 3 corners"),
        ({"polygon": [[0, 0], [1, 1], [1, 0], [0, 1]]}, ("polygon",), "cross or touch"),
        ({"polygon": [[0, 0], [1, 1], [2, 2]]}, ("polygon",), "back on itself"),
        ({"polygon": [[0, 0], [1, 1, 1], [2, 0]]}, ("polygon", 1), "at most 2"),
        ({"polygon": [[0, 0], [1, "1"], [2, 0]]}, ("polygon", 1, 1), "valid number"),
        ({"polygon": [[0, 0], [1, math.nan], [2, 0]]}, ("polygon", 1, 1), "finite"),
        ({"circle": {"x_px": 1, "y_px": 1, "radius_px": 0}}, ("circle", "radius_px"), "greater"),
        ({"circle": {"x_px": 1, "y_px": 1}}, ("circle", "radius_px"), "required"),
        (
            {"rectangle": {"x_px": 1, "y_px": 1, "width_px": 0, "height_px": 1}},
            ("rectangle", "width_px"),
            "greater",
        ),
    ],
)
def test_wrong_shapes_name_the_field(
    settings: dict[str, Any], where: tuple[str | int, ...], message: str
) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        RegionSettings.model_validate({"keypoint": "snout", **settings})
    assert [error["loc"] for error in caught.value.errors()] == [where]


INSIDE: dict[str, Any] = {"type": "region", "keypoint": "snout", "polygon": SQUARE}


@pytest.mark.parametrize(
    ("inner", "where", "message"),
    [
        ({"type": "regoin"}, ("of", 0), "did you mean 'region'"),
        ({"keypoint": "snout"}, ("of", 0), "must be a table with a type"),
        ("region", ("of", 0), "must be a table with a type"),
        ({**INSIDE, "polygn": 1}, ("of", 0, "polygn"), "did you mean polygon"),
        ({**INSIDE, "keypoint": 3}, ("of", 0, "keypoint"), "string"),
        ({**INSIDE, "when": "enter"}, ("of", 0), "when: said once, by the trigger itself"),
        ({**INSIDE, "max_fires": 3}, ("of", 0), "max_fires: said once"),
        ({"type": "not", "of": {"type": "no"}}, ("of", 0, "of"), "no trigger named 'no'"),
        ({"type": "rtpose.interfaces:Trigger"}, ("of", 0), "not made of a condition"),
    ],
)
def test_wrong_inner_conditions_name_the_field(
    inner: object, where: tuple[str | int, ...], message: str
) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        make_trigger("all", of=[inner, INSIDE], when="while")
    assert [error["loc"] for error in caught.value.errors()] == [where]


def test_every_problem_of_an_inner_condition_is_said_at_once() -> None:
    bad = {"type": "not", "of": {**INSIDE, "keypont": "snout", "hysteresis_px": -1}}
    with pytest.raises(ValidationError) as caught:
        make_trigger("any", of=[bad, {"type": "x"}], when="while", hold=1)
    assert sorted(map(str, (error["loc"] for error in caught.value.errors()))) == [
        "('hold',)",
        "('of', 0, 'of', 'hysteresis_px')",
        "('of', 0, 'of', 'keypont')",
        "('of', 1)",
    ]


def test_settings_go_to_another_process_and_come_back_from_their_dump() -> None:
    nested = {"type": "not", "of": {**INSIDE, "dwell_ms": 20.0}}
    settings = CombinedTriggerSettings.model_validate(
        {"of": [nested, INSIDE], "when": "while", "filter": {"type": "one-euro"}}
    )
    assert ForkingPickler.loads(ForkingPickler.dumps(settings)) == settings
    assert CombinedTriggerSettings.model_validate(settings.model_dump()) == settings
    inner = settings.of[0]
    assert isinstance(inner, Nested)
    assert settings.model_dump()["of"][0]["of"]["type"] == "region"


def test_mm_need_the_scale_of_the_arena() -> None:
    fast: dict[str, Any] = {"keypoint": "snout", "above_mm_s": 100, "window_ms": 10}
    with pytest.raises(InputError, match=r"\[arena\] px_per_mm"):
        make_trigger("speed", **fast, when="while")
    walk: list[Place] = [(0, 0), (2, 0), (4.001, 0)]  # 200.1 px/s at last
    assert decide_on(make_trigger("speed", px_per_mm=2.0, **fast, when="while"), walk) == "LLH"
    inner = {"type": "speed", **fast}
    nested = make_trigger("any", px_per_mm=2.0, of=[inner], when="while")
    assert decide_on(nested, walk) == "LLH"
    assert nested.describe() == "snout: speed 100.0 mm/s"
