"""Levels that follow a quantity: at every pose the level that it must be."""

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scripted import EngineBench
from trigger_poses import SKELETON, Place, make_pose, make_trigger

from rtpose.errors import InputError
from rtpose.interfaces import Decision, Trigger
from rtpose.triggers.proportional import QUANTITIES, ProportionalSettings
from rtpose.triggers.thresholds import px_per_unit

LEAST = 1 / 255
#: The distance to this point is the x of a snout on the line y = 0.
ORIGIN = {"type": "distance", "keypoint": "snout", "point": {"x_px": 0, "y_px": 0}}


def proportional(**settings: Any) -> Trigger:
    return make_trigger("proportional", **{"quantity": ORIGIN, "from_px": [0, 100], **settings})


def levels(
    trigger: Trigger, xs: list[float | None], step_ms: float = 10, start_ms: float = 0
) -> list[float | str]:
    """Return the level asked for with every pose, ``low``, or ``as it is``."""
    found: list[float | str] = []
    for i, x in enumerate(xs):
        place = None if x is None else (x, 0)
        decision = trigger.update(make_pose(place, at_ms=start_ms + i * step_ms))
        match decision:
            case Decision.HIGH:
                found.append(round(trigger.level, 6))
            case Decision.LOW:
                found.append("low")
            case _:
                assert decision is Decision.NOTHING
                found.append("as it is")
    return found


# ------------------------------------------------------------------------------------- the mapping


def test_between_the_ends_it_is_in_proportion_and_beyond_them_it_stays() -> None:
    trigger = proportional(from_px=[20, 60], to=[0.25, 0.75])
    assert levels(trigger, [0, 20, 30, 40, 60, 90]) == [0.25, 0.25, 0.375, 0.5, 0.75, 0.75]


def test_it_may_fall() -> None:
    trigger = proportional(from_px=[20, 60], to=[1, 0])
    assert levels(trigger, [0, 20, 30, 50, 60, 90]) == [1.0, 1.0, 0.75, 0.25, "low", "low"]


def test_what_is_below_the_least_level_is_off_and_never_a_level_of_nothing() -> None:
    assert levels(proportional(), [0, 0.39, 0.4]) == ["low", "low", 0.004]
    assert levels(proportional(min_level=0.2), [19.9, 20, 19.9]) == ["low", 0.2, "low"]


@given(
    st.floats(-1e4, 1e4),
    st.floats(1e-3, 1e4),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(-3e4, 3e4),
)
def test_no_number_gives_a_level_beyond_the_two(
    low: float, width: float, first: float, second: float, value: float
) -> None:
    if first == second or max(first, second) < LEAST:
        return
    quantity = {"type": "distance", "keypoint": "snout", "circle": CIRCLE}
    trigger = proportional(quantity=quantity, from_px=[low, low + width], to=[first, second])
    decision = trigger.update(make_pose((value, 0)))
    assert decision in (Decision.HIGH, Decision.LOW)
    if decision is Decision.HIGH:
        assert min(first, second) <= trigger.level <= max(first, second)
        assert trigger.level >= LEAST


CIRCLE = {"x_px": 0, "y_px": 0, "radius_px": 100}


# ------------------------------------------------------------------------------------ how fast


def test_a_level_changes_no_faster_than_it_may_and_begins_at_the_least() -> None:
    trigger = proportional(slew_per_s=10, min_level=0.05)
    walk: list[float | None] = [0, 100, 100, 100, 20, 20, 0, 0]
    assert levels(trigger, walk) == ["low", 0.05, 0.15, 0.25, 0.2, 0.2, 0.1, "low"]


def test_its_speed_goes_by_the_stamps_of_the_poses() -> None:
    trigger = proportional(slew_per_s=10, min_level=0.05)
    assert levels(trigger, [100]) == [0.05]
    assert levels(trigger, [100], start_ms=5) == [0.1]
    assert levels(trigger, [100], start_ms=45) == [0.5]
    assert levels(trigger, [100], start_ms=1000) == [1.0]


# --------------------------------------------------------------------------- poses without a number


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ({"missing": "skip"}, [0.5, "low", "low", 0.6, 0.6]),
        ({"missing": "false"}, [0.5, "low", "low", 0.01, 0.11]),
        ({"missing": "safe"}, [0.5, "low", "low", 0.01, 0.11]),
        ({"missing": "hold", "hold_ms": 20}, [0.5, "as it is", "as it is", 0.6, 0.6]),
        ({"missing": "hold", "hold_ms": 19}, [0.5, "as it is", "low", 0.01, 0.11]),
    ],
)
def test_what_becomes_of_the_level_without_the_keypoint(
    missing: dict[str, Any], expected: list[float | str]
) -> None:
    trigger = proportional(slew_per_s=10, min_level=0.01, **missing)
    levels(trigger, [50], start_ms=-1000)
    assert levels(trigger, [50, None, None, 60, 60]) == expected


def test_what_is_held_is_not_raised() -> None:
    trigger = proportional(missing="hold", hold_ms=100)
    assert levels(trigger, [None, 0, None, None]) == ["low"] * 4


@pytest.mark.parametrize("start_ms", [-50, 0])
def test_where_time_goes_back_or_stands_still_it_begins_anew(start_ms: float) -> None:
    trigger = proportional(slew_per_s=10, missing="hold", hold_ms=1000, min_level=0.05)
    levels(trigger, [100, 100], step_ms=1000, start_ms=-1000)
    assert levels(trigger, [100, 100], start_ms=start_ms) == [0.05, 0.15]
    assert levels(trigger, [None], start_ms=start_ms - 100) == ["low"]


def test_what_was_refused_or_let_go_begins_anew() -> None:
    trigger = proportional(slew_per_s=10, min_level=0.05)
    assert levels(trigger, [100, 100]) == [0.05, 0.15]
    trigger.refused()
    assert levels(trigger, [100, 100], start_ms=20) == [0.05, 0.15]
    trigger.let_go()
    assert levels(trigger, [100], start_ms=40) == [0.05]


def test_gates_and_filters_come_before_the_quantity() -> None:
    path: list[float | None] = [10, 90, 30]
    gated = proportional(max_jump_px_s=5000)
    assert levels(gated, path) == [0.1, "low", 0.3]
    smooth = proportional(filter={"type": "median", "poses": 3})
    assert levels(smooth, path) == [0.1, 0.5, 0.3]
    assert smooth.delay_ms(100) == 10
    assert smooth.describe().endswith("median filter: 10.0 ms late")


# ------------------------------------------------------------------------------ the slow reference


class Reference:
    """The rules as they are written down, in exact numbers, from the whole history at every pose.

    Where a level is at `min_level` but for rounding, either answer is right, and the one that was
    given holds from then on.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.ends = [Fraction(v) for v in (*settings["from_px"], *settings["to"])]
        self.least = Fraction(settings["min_level"])
        self.slew = settings.get("slew_per_s")
        self.missing = settings["missing"]
        self.hold_ms = settings.get("hold_ms", 0)
        self.told: list[tuple[int, Fraction | None]] = []  # level at the poses that told

    def decide(self, at_ms: int, x: float | None, given: str) -> tuple[str, Fraction]:
        """Return H(igh), L(ow) or ``.``, and the level."""
        if x is None:
            return self._missing(at_ms), Fraction(0)
        low, high, first, second = self.ends
        share = min(Fraction(1), max(Fraction(0), (Fraction(x) - low) / (high - low)))
        wanted = first + (second - first) * share
        before = self.told[-1][1] if self.told else None
        level: Fraction | None = wanted if self._is_on(wanted, given) else Fraction(0)
        assert level is not None
        if self.slew is not None:
            if before is None:
                level = min(level, self.least)
            else:
                reach = Fraction(self.slew) * (at_ms - self.told[-1][0]) / 1000
                if abs(level - before) > reach:
                    level = before + (reach if level > before else -reach)
        self.told.append((at_ms, level if self._is_on(level, given) else None))
        return ("L", Fraction(0)) if self.told[-1][1] is None else ("H", level)

    def _is_on(self, level: Fraction, given: str) -> bool:
        return given == "H" if abs(level - self.least) < 1e-9 else level >= self.least

    def _missing(self, at_ms: int) -> str:
        if not self.told:
            return "L"
        last_ms, level = self.told[-1]
        if self.missing == "skip":
            return "L"
        if self.missing == "hold" and at_ms - last_ms <= self.hold_ms:
            return "L" if level is None else "."
        self.told[-1] = (last_ms, None)
        return "L"

    def begin_anew(self) -> None:
        self.told = self.told and [(self.told[-1][0], None)]

    def forget(self) -> None:
        self.told = []


_UNIT = st.integers(0, 20).map(lambda n: n / 20)
mappings = st.tuples(
    st.integers(-50, 100), st.integers(1, 100), st.tuples(_UNIT, _UNIT), st.integers(1, 10)
).filter(lambda m: m[2][0] != m[2][1] and max(m[2]) >= m[3] / 20)
policies = st.one_of(
    st.sampled_from([{"missing": "skip"}, {"missing": "false"}, {"missing": "safe"}]),
    st.integers(1, 60).map(lambda ms: {"missing": "hold", "hold_ms": ms}),
)
story = st.lists(
    st.tuples(
        # Milliseconds since the pose before; now and then time goes back.
        st.one_of(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(-30, 0)),
        st.one_of(st.none(), st.integers(0, 200), st.integers(0, 200)),
        st.sampled_from(["", "", "", "", "refused", "let go"]),
    ),
    max_size=40,
)


@given(mappings, st.none() | st.sampled_from([0.5, 3.0, 12.5]), policies, story)
def test_every_level_is_the_one_that_it_must_be(
    mapping: tuple[int, int, tuple[float, float], int],
    slew_per_s: float | None,
    policy: dict[str, Any],
    walk: list[tuple[int, int | None, str]],
) -> None:
    low, width, to, least = mapping
    low = max(low, 0)
    settings = {"from_px": [low, low + width], "to": list(to), "min_level": least / 20, **policy}
    if slew_per_s is not None:
        settings["slew_per_s"] = slew_per_s
    trigger, reference, at_ms = proportional(**settings), Reference(settings), 0
    for step_ms, x, then in walk:
        at_ms += step_ms
        if step_ms <= 0:
            reference.forget()
        decision = trigger.update(make_pose(None if x is None else (x, 0), at_ms=at_ms))
        given_letter = "." if decision is Decision.NOTHING else decision.name[0]
        letter, level = reference.decide(at_ms, x, given_letter)
        assert given_letter == letter
        if letter == "H":
            assert math.isclose(trigger.level, level, abs_tol=1e-9)
        if then == "refused" and letter == "H":
            trigger.refused()
            reference.begin_anew()
        elif then == "let go":
            trigger.let_go()
            reference.begin_anew()


# ----------------------------------------------------------------------------------- the quantities

AXIS = {"back": "tailbase", "front": "snout"}
POINT = {"point": {"x_px": 300, "y_px": 200}}
#: Of every quantity: its table, its range and the threshold of its trigger that says the same.
SAME: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "speed": (
        {"keypoint": "snout", "window_ms": 20},
        {"from_mm_s": [100, 300]},
        {"above_mm_s": 200},
    ),
    "acceleration": (
        {"keypoint": "snout", "window_ms": 20},
        {"from_mm_s2": [-4000, 8000]},
        {"above_mm_s2": 2000},
    ),
    "distance": (
        {"keypoint": "snout", "circle": {"x_px": 300, "y_px": 200, "radius_px": 80}},
        {"from_mm": [-20, 30]},
        {"above_mm": 5},
    ),
    "heading": (
        {**AXIS, "towards_deg": 200},
        {"from_deg": [0, 180], "to": [1, 0]},
        {"within_deg": 90},
    ),
    "angle": (
        {"joint": "neck", "ends": ["snout", "tailbase"]},
        {"from_deg": [60, 120]},
        {"above_deg": 90},
    ),
    "looking": (
        {**AXIS, **POINT},
        {"from_deg": [10, 90], "to": [1, 0]},
        {"within_deg": 50},
    ),
    "posture": (
        {"keypoints": ["snout", "neck", "tailbase"], "measure": "straightness"},
        {"from_ratio": [0.4, 1]},
        {"above_ratio": 0.7},
    ),
}


def test_the_quantities_are_those_of_the_triggers_with_thresholds() -> None:
    assert set(SAME) == set(QUANTITIES)


@pytest.mark.parametrize("kind", SAME)
@given(
    walk=st.lists(
        st.tuples(*[st.tuples(st.integers(0, 640), st.integers(0, 480))] * 3), max_size=30
    )
)
def test_half_way_is_where_a_trigger_with_that_threshold_begins(
    kind: str, walk: list[tuple[Place, Place, Place]]
) -> None:
    table, mapping, threshold = SAME[kind]
    quantity = {"type": kind, **table}
    level = make_trigger("proportional", px_per_mm=2.0, quantity=quantity, **mapping)
    switch = make_trigger(kind, px_per_mm=2.0, **table, **threshold, when="while")
    for i, places in enumerate(walk):
        pose = make_pose(*places, at_ms=10 * i)
        asked, high = level.update(pose), switch.update(pose) is Decision.HIGH
        strength = level.level if asked is Decision.HIGH else 0.0
        if not math.isclose(strength, 0.5, abs_tol=1e-9):
            assert (strength > 0.5) == high


def test_mm_need_the_scale_of_the_arena_and_are_what_it_says() -> None:
    with pytest.raises(InputError, match=r"from_mm|in mm.*\[arena\] px_per_mm"):
        make_trigger("proportional", quantity=ORIGIN, from_mm=[0, 100])
    trigger = make_trigger("proportional", px_per_mm=2.0, quantity=ORIGIN, from_mm=[0, 100])
    assert levels(trigger, [50, 400]) == [0.25, 1.0]
    assert trigger.describe() == "snout to (0, 0): distance 200.0 mm: level 1.000"
    levels(trigger, [None], start_ms=20)
    assert trigger.describe() == "snout to (0, 0): distance not known"
    assert px_per_unit("px", None) == 1.0


# ---------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"from_px": None}, "distance needs exactly one of from_px and from_mm, given: none"),
        ({"from_mm": [0, 1]}, "exactly one of from_px and from_mm, given: from_px, from_mm"),
        ({"from_px": None, "from_deg": [0, 1]}, "from_px and from_mm, given: from_deg"),
        ({"from_px": [50, 50]}, r"from_px = \[50, 50\] must be low, high"),
        ({"from_px": [100, 0]}, "let `to` fall"),
        ({"from_px": [-1, 100]}, "beyond what distance can be: 0 to inf"),
        ({"from_px": [0, math.nan]}, "from_px"),
        ({"from_px": [0, 1, 2]}, "from_px"),
        ({"to": [0.5, 0.5]}, "one level whatever the pose"),
        ({"to": [0, 1.5]}, "to"),
        ({"to": [0, 0.1], "min_level": 0.2}, "never reaches min_level = 0.2"),
        ({"min_level": 0}, "min_level"),
        ({"slew_per_s": 0}, "slew_per_s"),
        ({"hold_ms": 10}, "hold_ms has a meaning with"),
        ({"when": "while"}, "when"),
        ({"quantity": {"type": "region"}}, "one of: speed, acceleration, distance"),
        ({"quantity": "speed"}, "one of: speed, acceleration, distance"),
        ({"quantity": {**ORIGIN, "above_px": 3}}, r"quantity.above_px[\s\S]*unknown key"),
        ({"quantity": {**ORIGIN, "dwell_ms": 3}}, r"quantity.dwell_ms[\s\S]*unknown key"),
        ({"quantity": {"type": "distance", "keypoint": "snout"}}, "exactly one of to_keypoint"),
    ],
)
def test_wrong_settings_say_what_is_wrong(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ProportionalSettings.model_validate({"quantity": ORIGIN, "from_px": [0, 100], **changes})


def test_an_angle_has_its_ends() -> None:
    quantity = {"type": "angle", "joint": "neck", "ends": ["snout", "tailbase"]}
    with pytest.raises(ValidationError, match="beyond what angle can be: 0 to 180"):
        ProportionalSettings.model_validate({"quantity": quantity, "from_deg": [0, 181]})


def test_settings_come_back_from_their_dump() -> None:
    table = {"quantity": ORIGIN, "from_px": [0, 100], "filter": {"type": "one-euro"}}
    settings = ProportionalSettings.model_validate(table)
    assert ProportionalSettings.model_validate(settings.model_dump()) == settings
    assert settings.model_dump()["quantity"]["type"] == "distance"


def test_the_model_must_have_the_keypoint() -> None:
    with pytest.raises(InputError, match="nose"):
        proportional(quantity={**ORIGIN, "keypoint": "nose"})
    assert "nose" not in SKELETON.names


# --------------------------------------------------------------------------------- at work in a rig

LIGHT = """
[triggers.light]
type = "proportional"
quantity = { type = "distance", keypoint = "snout", point = { x_px = 0.0, y_px = 0.0 } }
from_px = [0.0, 100.0]
output = "out.light"
"""


def strengths(bench: EngineBench) -> list[float]:
    """Return what the line was given, in order; 0 for off."""
    return [0.0 if c.action == "off" else round(c.level, 3) for c in bench.output.commands]


def test_the_line_gets_every_level_that_an_output_of_8_bits_could_show(tmp_path: Path) -> None:
    bench = EngineBench(tmp_path, LIGHT)
    bench.engine.arm(bench.now_ns)
    for i, x in enumerate([50, 50, 50.1, 50.3, 50.5, 0, 0, 20]):
        bench.pose((x, 0), at_ms=10 * i)
    assert strengths(bench) == [0.5, 0.505, 0.0, 0.2]
    assert bench.kinds == ["fire", "level-set", "line-off", "fire"]
    assert {c.action for c in bench.output.commands} == {"on", "off"}
    assert "level 0.505" in bench.events[-3].detail
    # Another level never prolongs the time that the line may be high.
    rise, change = bench.output.commands[:2]
    assert change.width_us <= rise.width_us - 40_000


def test_a_late_pose_does_not_change_the_level_and_the_next_goes_on_from_there(
    tmp_path: Path,
) -> None:
    bench = EngineBench(tmp_path, f"{LIGHT}slew_per_s = 10.0\nmin_level = 0.05\n")
    bench.engine.arm(bench.now_ns)
    for i in range(4):
        bench.pose((100, 0), at_ms=10 * i, late_ms=100.0 if i == 2 else 0.0)
    assert bench.kinds == ["fire", "level-set", "overrun", "level-set"]
    assert strengths(bench) == [0.05, 0.15, 0.35]


def test_a_line_without_levels_is_no_line_for_it(tmp_path: Path) -> None:
    bench = EngineBench(tmp_path, LIGHT)
    entry = bench.rig.triggers["light"]
    lines = bench.rig.outputs["out"].settings.lines
    trigger = entry.build(SKELETON, None)
    assert entry.misfit(trigger, lines["light"]) is None
    problem = entry.misfit(trigger, lines["laser"])
    assert problem is not None
    assert "levels = true" in problem.fix


def test_its_settings_can_be_changed_while_it_runs(tmp_path: Path) -> None:
    bench = EngineBench(tmp_path, LIGHT)
    bench.engine.arm(bench.now_ns)
    bench.pose((50, 0), at_ms=0)
    assert bench.engine.set_parameter("light", "to", [0.0, 0.5], bench.now_ns) == []
    bench.pose((50, 0), at_ms=10)
    assert strengths(bench) == [0.5, 0.0, 0.25]
    (why,) = bench.engine.set_parameter("light", "to", [0.5, 0.5], bench.now_ns)
    assert "one level whatever the pose" in why
