"""The engine: armed or not, stopped or not, what fails, what a client changes, every event."""

from pathlib import Path
from typing import Any

import pytest
from engine_rig import FIRE, HIGH, LOW, MS, NOTHING, Bench
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from rtpose.errors import NotReadyError
from rtpose.messages import InputEvent, TriggerEvent, decode, encode, encode_json

TABLES = """
[latency]
budget_ms = 20.0
max_pose_gap_ms = 60000.0
[outputs.out]
type = "virtual"
[outputs.out.lines.laser]
pin = 0
max_on_ms = 50.0
[outputs.out.lines.lamp]
pin = 1
max_on_ms = 50.0
levels = true
[triggers.zone]
type = "engine_rig:Scripted"
output = "out.laser"
{zone}
"""
PULSES = "pulse_ms = 10.0\n"
OTHER = """
[outputs.spare]
type = "virtual"
[outputs.spare.lines.tone]
pin = 0
max_on_ms = 50.0
[triggers.other]
type = "engine_rig:Scripted"
keypoint = "tail"
output = "spare.tone"
"""


def bench(folder: Path, zone: str = PULSES, more: str = "") -> Bench:
    return Bench(folder, TABLES.format(zone=zone) + more)


# -------------------------------------------------------------------------- arming and stopping


def test_nothing_is_sent_before_arming_and_after_disarming(tmp_path: Path) -> None:
    it = bench(tmp_path, "")
    it.pose(HIGH)
    it.arm()
    it.pose(HIGH)
    it.engine.disarm("asked for", it.now, asked=True)
    it.pose(HIGH)
    assert it.kinds("refused", "armed", "fire", "disarmed") == [
        "refused",
        "armed",
        "fire",
        "disarmed",
        "refused",
    ]
    assert it.out.commands() == ["on"]
    assert it.out.safes == [it.now]
    it.check()


def test_a_picture_that_repeats_for_too_long_neither_holds_a_line_nor_fires(tmp_path: Path) -> None:
    tables = TABLES.replace("max_pose_gap_ms = 60000.0", "max_pose_gap_ms = 30.0")
    it = Bench(tmp_path, tables.format(zone="") + OTHER + PULSES)
    it.pose(NOTHING)
    it.arm()
    it.pose(HIGH)
    risen_ns = it.now
    for repeated_ms in (10, 20, 30, 40, 50):
        it.wait(10)
        it.pose(HIGH, FIRE if repeated_ms in (20, 40) else NOTHING, repeated_ms=repeated_ms)
    it.wait(10)
    it.pose(HIGH)
    told = [(event.kind, event.trigger) for event in it.events][2:]
    assert told == [
        ("fire", "zone"),
        ("fire", "other"),  # the picture may come again for a while
        ("stale", None),
        ("line-off", None),
        ("refused", "zone"),  # once, though it asks with every pose
        ("refused", "other"),
        ("fire", "zone"),  # a new picture
    ]
    assert it.told("line-off")[0].decide_ns - risen_ns == 31 * MS
    why = "the camera has repeated one picture for more than max_pose_gap_ms"
    assert {event.detail for event in it.told("refused")} == {why}
    it.check()


def test_arming_begins_a_session_for_every_trigger(tmp_path: Path) -> None:
    it = bench(tmp_path, more=OTHER)
    it.arm()
    for name in ("zone", "other"):
        assert it.trigger(name).told == ["start_session", "start_trial"]
    assert it.kinds() == ["armed", "trial-started"]
    assert it.engine.facts()["trial"] == 1


def test_an_output_that_does_not_arm_leaves_every_other_safe(tmp_path: Path) -> None:
    it = bench(tmp_path, more=OTHER)
    it.outputs["spare"].does_not_arm = "a line reads high"
    with pytest.raises(NotReadyError, match="output 'spare': a line reads high"):
        it.arm()
    assert not it.engine.armed
    assert not it.outputs["out"].armed
    assert it.told("disarmed")[0].detail == "output 'spare': a line reads high"
    it.pose(FIRE)
    assert it.outputs["out"].sent == []


@pytest.mark.parametrize("by", ["client", "input"])
def test_an_emergency_stop_is_safe_first_latched_and_released_by_a_client(
    tmp_path: Path, by: str
) -> None:
    it = bench(tmp_path, "", OTHER)
    it.arm()
    it.pose(HIGH, HIGH)
    armed = [it.outputs["out"].armed, it.outputs["spare"].armed]
    before: list[TriggerEvent] = []
    it.outputs["out"].safe = lambda: before.extend(it.events)  # type: ignore[method-assign]
    if by == "client":
        it.engine.stop_at_once("asked for", it.now, asked=True)
    else:
        it.stop_input()
    assert armed == [True, True]
    assert "estop" not in [event.kind for event in before], "told before the lines were low"
    assert not it.outputs["spare"].armed
    (stop,) = it.told("estop")
    assert stop.asked is (by == "client")
    assert stop.detail == ("asked for" if by == "client" else "input stop of output out")
    assert it.engine.hindrances == [
        "the emergency stop was used: release it first (rtpose release)"
    ]
    it.wait(100)
    it.pose(HIGH, HIGH)
    assert len(it.outputs["spare"].sent) == 1
    it.engine.release(it.now)
    assert it.engine.hindrances == []
    assert not it.engine.armed, "releasing does not arm"
    assert it.counters["emergency_stops"] == 1
    assert it.kinds("estop", "released") == ["estop", "released"]


def test_an_edge_of_another_input_is_counted_and_stops_nothing(tmp_path: Path) -> None:
    it = bench(tmp_path)
    it.arm()
    lick = InputEvent(output="out", input="lick", level=True, arrival_ns=it.now)
    it.engine.on_input(lick, it.now)
    assert it.engine.armed
    assert it.counters["inputs"] == 1


# ------------------------------------------------------------------------------------ the budget


@pytest.mark.parametrize(
    ("age_ms", "words"),
    [
        (20.0, None),
        (20.001, "the pose is older than budget_ms = 20"),
        (-20.0, None),
        (-20.001, "the pose's stamp is ahead of the clock by more than budget_ms = 20"),
    ],
)
@pytest.mark.parametrize("policy", ["skip", "fire"])
def test_a_pose_whose_age_is_not_within_the_budget_may_not_act(
    tmp_path: Path, policy: str, age_ms: float, words: str | None
) -> None:
    tables = TABLES.replace("[latency]", f'[latency]\npolicy = "{policy}"').format(zone=PULSES)
    it = Bench(tmp_path, tables)
    it.arm()
    it.pose(FIRE, age_ms=age_ms)
    (event,) = [e for e in it.events if e.kind in ("fire", "overrun")]
    assert event.kind == ("fire" if policy == "fire" or words is None else "overrun")
    assert words is None or words in event.detail
    assert it.counters["overruns"] == (words is not None)


def test_poses_from_the_future_do_not_keep_a_line_high(tmp_path: Path) -> None:
    it = Bench(tmp_path, TABLES.replace("60000.0", "30.0").format(zone=""))
    it.arm()
    it.pose(HIGH)
    for _ in range(4):
        it.wait(10)
        it.pose(HIGH, age_ms=-1000.0)
    assert it.out.commands() == ["on", "off"]
    assert "stale" in it.kinds()


# ---------------------------------------------------------------------------------- what fails

HOOKS = ["start_session", "start_trial", "update", "refused"]


@pytest.mark.parametrize("hook", HOOKS)
def test_a_trigger_that_raises_is_disabled_and_its_output_safe(tmp_path: Path, hook: str) -> None:
    it = bench(tmp_path, f'bad = "{hook}"', OTHER)
    it.arm()
    if hook == "refused":
        it.engine.fire_test("out.laser", 20.0, it.now)
    it.pose(HIGH, HIGH)
    (failed,) = it.told("trigger-failed")
    assert failed.trigger == "zone"
    assert failed.detail == (f"ZeroDivisionError: in {hook}; disabled, output out made safe")
    assert (failed.frame_id is None) == hook.startswith("start_")
    assert not it.outputs["out"].armed
    assert it.outputs["out"].commands() == ["pulse"] * (hook == "refused")
    assert it.outputs["spare"].commands() == ["on"], "the others go on"
    told = len(it.trigger().told)
    it.pose(HIGH, LOW)
    assert len(it.trigger().told) == told, "it is asked no more"
    assert it.engine.hindrances == [f"trigger 'zone' failed: ZeroDivisionError: in {hook}"]
    it.check()


def test_a_trigger_that_cannot_tell_its_level_is_disabled(tmp_path: Path) -> None:
    dimmer = OTHER.replace("max_on_ms = 50.0", "max_on_ms = 50.0\nlevels = true") + 'bad = "level"'
    it = bench(tmp_path, "", dimmer)
    it.arm()
    it.pose(HIGH, HIGH)
    assert it.told("trigger-failed")[0].trigger == "other"
    assert it.outputs["spare"].sent == []
    assert not it.outputs["spare"].armed
    assert it.outputs["out"].commands() == ["on"]


def test_a_trigger_that_fails_lets_go_of_what_it_held(tmp_path: Path) -> None:
    it = bench(tmp_path, "")
    it.arm()
    start = it.now
    it.pose(HIGH)
    it.wait(10)
    it.trigger()._config = it.trigger().Config(bad="update")
    it.pose(HIGH)
    it.wait(10)
    assert it.out.highs("laser") == [(start, start + 10 * MS)]


def test_a_trigger_that_cannot_describe_its_decision_loses_only_the_words(tmp_path: Path) -> None:
    it = bench(tmp_path, PULSES + 'bad = "describe"')
    it.arm()
    it.pose(FIRE)
    assert it.told("fire")[0].detail == "describe() failed: ZeroDivisionError: in describe"
    assert it.out.commands() == ["pulse"]


# ------------------------------------------------------------------------------- what is changed


def test_a_new_threshold_acts_from_the_next_pose_on_and_is_recorded(tmp_path: Path) -> None:
    it = bench(tmp_path)
    it.arm()
    it.pose(FIRE)
    it.wait(20)
    assert it.engine.set_parameter("zone", "threshold", 1.5, it.now) == []
    it.pose(FIRE)
    assert it.out.commands() == ["pulse"]
    assert it.engine.set_parameter("zone", "threshold", 0, it.now) == [], "a whole number will do"
    it.pose(FIRE)
    assert it.out.commands() == ["pulse", "pulse"]
    words = [(e.detail, e.asked, e.trigger) for e in it.told("parameter-set")]
    assert words == [
        ("triggers.zone.threshold: 0.0 -> 1.5", True, "zone"),
        ("triggers.zone.threshold: 1.5 -> 0", True, "zone"),
    ]


@pytest.mark.parametrize(
    ("trigger", "key", "value", "words"),
    [
        ("zon", "threshold", 1.0, "no trigger 'zon' (triggers: zone)"),
        (
            "zone",
            "treshold",
            1.0,
            "triggers.zone.treshold: unknown key; allowed: keypoint, bad, threshold, levels",
        ),
        (
            "zone",
            "threshold",
            "high",
            "triggers.zone.threshold: Input should be a valid number, got 'high'",
        ),
        ("zone", "keypoint", "ear", "ear"),
        ("zone", "levels", True, "triggers.zone.output: out.laser only knows on and off"),
        ("zone", "output", "out.lamp", "triggers.zone.output: unknown key"),
    ],
)
def test_a_wrong_change_is_refused_in_words_and_changes_nothing(
    tmp_path: Path, trigger: str, key: str, value: object, words: str
) -> None:
    it = bench(tmp_path, "")
    it.arm()
    it.pose(HIGH)
    (reason,) = it.engine.set_parameter(trigger, key, value, it.now)
    assert words in reason
    assert it.kinds("parameter-set", "line-off") == []
    it.pose(LOW)
    assert it.out.commands() == ["on", "off"], "it works as before"


def test_a_change_lets_go_of_what_its_trigger_holds_and_of_nothing_else(tmp_path: Path) -> None:
    it = bench(tmp_path, "", OTHER)
    it.arm()
    it.pose(HIGH, HIGH)
    assert it.engine.set_parameter("zone", "threshold", 2.5, it.now) == []
    assert it.outputs["out"].commands() == ["on", "off"]
    assert it.outputs["spare"].commands() == ["on"]
    (off,) = it.told("line-off")
    assert off.detail == "triggers.zone.threshold: 0.0 -> 2.5"
    it.pose(HIGH)
    assert it.outputs["out"].commands() == ["on", "off"], "2 is below it"


def test_a_change_repairs_what_had_failed_once_the_rig_is_armed_again(tmp_path: Path) -> None:
    it = bench(tmp_path, PULSES + 'bad = "update"')
    it.arm()
    it.pose(FIRE)
    assert it.engine.set_parameter("zone", "bad", "", it.now) == []
    assert it.engine.hindrances == []
    it.pose(FIRE)
    assert it.told("refused")[0].detail == "not armed"
    it.engine.disarm("asked for", it.now)
    it.arm()
    it.pose(FIRE)
    assert it.out.commands() == ["pulse"]


# -------------------------------------------------------------------------------- all at random

LINES = ("laser", "lamp")
RANDOM = """
[latency]
budget_ms = 20.0
max_pose_gap_ms = 40.0
{latency}
[experiment]
seed = 1
catch_probability = 0.2
{experiment}
[outputs.out]
type = "virtual"
[outputs.out.lines.laser]
pin = 0
max_on_ms = 15.0
refractory_ms = 4.0
dose_ms = 40.0
dose_window_s = 0.2
[outputs.out.lines.lamp]
pin = 1
max_on_ms = 15.0
levels = true
[triggers.pulses]
type = "engine_rig:Scripted"
output = "out.laser"
pulse_ms = 3.0
train = {{ count = 2, period_ms = 8.0 }}
probability = 0.8
[triggers.level]
type = "engine_rig:Scripted"
keypoint = "tail"
output = "out.lamp"
levels = true
[triggers.rival]
type = "engine_rig:Scripted"
keypoint = "paw"
output = "out.laser"
"""
said = st.sampled_from([NOTHING, FIRE, HIGH, LOW])
leveled = st.tuples(st.sampled_from([NOTHING, HIGH, LOW]), st.sampled_from([0.25, 0.5, 1.0]))


poses = st.tuples(
    st.sampled_from([0.5, 1, 3, 10]), said, leveled, said, st.sampled_from([False] * 9 + [True])
)


class AnyRun(RuleBasedStateMachine):
    """Poses, time, requests, stops and bad answers in any order."""

    folder: Path

    @initialize(
        policy=st.sampled_from(["skip", "fire", "disarm"]),
        trials=st.sampled_from(["", "trial_s = 0.05\ninter_trial_s = [0.01, 0.03]"]),
    )
    def begin(self, policy: str, trials: str) -> None:
        path = self.folder / str(len(list(self.folder.iterdir())))
        path.mkdir()
        latency = f'policy = "{policy}"' + "\ndisarm_after = 2" * (policy == "disarm")
        self.it = Bench(path, RANDOM.format(latency=latency, experiment=trials))
        self.it.arm()

    @rule(poses=st.lists(poses, min_size=5, max_size=12))
    def watch(self, poses: list[tuple[float, int, tuple[int, float], int, bool]]) -> None:
        for wait_ms, one, two, three, late in poses:
            self.it.wait(wait_ms)
            before, armed = len(self.it.out.sent), self.it.engine.armed
            self.it.pose(one, two, three, age_ms=25.0 if late else 0.0)
            assert armed or len(self.it.out.sent) == before
            self.no_line_is_on_for_too_long()

    @rule(ms=st.sampled_from([0.5, 60]))
    def wait(self, ms: float) -> None:
        self.it.wait(ms)

    @precondition(lambda self: not self.it.engine.armed)
    @rule(twice=st.booleans())
    def arm(self, twice: bool) -> None:
        if self.it.engine.latched:
            assert self.it.engine.hindrances
            self.it.engine.release(self.it.now)
        for _ in range(1 + twice):
            self.it.arm()

    @rule(how=st.sampled_from(["disarm", "client", "input"]))
    def stop(self, how: str) -> None:
        if how == "disarm":
            self.it.engine.disarm("asked for", self.it.now)
        elif how == "client":
            self.it.engine.stop_at_once("asked for", self.it.now, asked=True)
        else:
            self.it.stop_input()

    @rule(start=st.sampled_from([True, True, False]))
    def trial(self, start: bool) -> None:
        (self.it.engine.start_trial if start else self.it.engine.end_trial)(self.it.now)

    @rule(line=st.sampled_from([*LINES, "none"]), ms=st.sampled_from([0.0001, 1.0, 15.0, 16.0]))
    def test(self, line: str, ms: float) -> None:
        self.it.engine.fire_test(f"out.{line}", ms, self.it.now)

    @rule(trigger=st.sampled_from(["pulses", "level", "rival"]), value=st.sampled_from([0.0, 1.5]))
    def change(self, trigger: str, value: float) -> None:
        self.it.engine.set_parameter(trigger, "threshold", value, self.it.now)

    @rule(refuses=st.booleans(), answers=st.booleans())
    def answers(self, refuses: bool, answers: bool) -> None:
        self.it.out.refuses = "no" if refuses else ""
        self.it.out.answers = answers

    @invariant()
    def no_line_is_on_for_too_long(self) -> None:
        # It looks every ms; until an answer is here it may have risen 100 ms later than ordered.
        late_ms = 1.0 if all_answered(self.it) else 101.0
        for line in LINES:
            for rise, fall in self.it.out.highs(line):
                assert fall - rise <= (15.0 + late_ms) * MS

    @invariant()
    def a_rig_that_is_not_armed_is_low(self) -> None:
        if not self.it.engine.armed:
            assert not self.it.out.armed
            last_safe = max(self.it.out.safes, default=0)
            for line in LINES:
                assert all(fall <= last_safe for _, fall in self.it.out.highs(line))
        assert not (self.it.engine.armed and self.it.engine.latched)

    @invariant()
    def every_command_has_its_event(self) -> None:
        self.it.check()

    def teardown(self) -> None:
        if hasattr(self, "it"):
            for event in self.it.events[-20:]:
                assert decode(encode(event)) == decode(encode_json(event)) == event


def all_answered(it: Bench) -> bool:
    return it.counters["acks"] + it.counters["refused_by_output"] == len(it.out.sent)


@pytest.fixture
def machine(tmp_path: Path) -> Any:
    return type("AnyRunHere", (AnyRun,), {"folder": tmp_path})


def test_any_run_keeps_its_promises(machine: Any) -> None:
    run_state_machine_as_test(
        machine, settings=settings(max_examples=60, stateful_step_count=40, deadline=None)
    )
