"""Lines by decision: pulses, trains, levels, and the limits that hold whatever is decided."""

from pathlib import Path
from typing import Any

import pytest
from engine_rig import FIRE, HIGH, LOW, MS, NOTHING, Bench

from rtpose.actuators import make_all_safe

TABLES = """
[latency]
budget_ms = 20.0
max_pose_gap_ms = {gap_ms}
{latency}
[outputs.out]
type = "virtual"
[outputs.out.lines.laser]
pin = 0
max_on_ms = {max_on_ms}
{line}
[outputs.out.lines.lamp]
pin = 1
max_on_ms = 100.0
levels = true
[triggers.zone]
type = "engine_rig:Scripted"
output = "out.laser"
{trigger}
"""
DIMMER = """
[triggers.dimmer]
type = "engine_rig:Scripted"
keypoint = "tail"
levels = true
output = "out.lamp"
"""
TRAIN = "pulse_ms = 5.0\ntrain = { count = 4, period_ms = 20.0, delay_ms = 10.0 }"


def bench(
    folder: Path,
    trigger: str = "pulse_ms = 10.0",
    *,
    line: str = "",
    latency: str = "",
    gap_ms: float = 60_000.0,
    max_on_ms: float = 50.0,
    more: str = "",
) -> Bench:
    tables = TABLES.format(
        trigger=trigger, line=line, latency=latency, gap_ms=gap_ms, max_on_ms=max_on_ms
    )
    made = Bench(folder, tables + more)
    made.arm()
    return made


# ------------------------------------------------------------------------- pulses and levels


def test_a_pulse_is_one_command_and_one_event(tmp_path: Path) -> None:
    it = bench(tmp_path)
    it.pose(FIRE)
    ((at, command),) = it.out.sent
    (fire,) = it.told("fire")
    assert (command.action, command.width_us, command.line) == ("pulse", 10_000, "laser")
    assert (fire.command, fire.command_ns, fire.trigger) == (command, at, "zone")
    it.wait(100)
    assert it.kinds("line-off") == [], "the device timed it itself"
    it.check()


def test_refractory_time_counts_from_the_end_of_a_pulse(tmp_path: Path) -> None:
    it = bench(tmp_path, line="refractory_ms = 30.0")
    start = it.now
    for at_ms in (0, 5, 10, 39.9, 40.0):
        it.wait((start - it.now) / MS + at_ms, step_ms=0.1)
        it.pose(FIRE)
    assert [(at - start) / MS for at, _ in it.out.sent] == [0, 40]
    assert [e.detail for e in it.told("refused")] == [
        "out.laser is high already (zone)",
        "within refractory_ms = 30",
        "within refractory_ms = 30",
    ]


def test_until_the_answer_is_here_a_pulse_may_have_begun_late(tmp_path: Path) -> None:
    it = bench(tmp_path)
    it.out.answers = False
    it.pose(FIRE)
    sent_ns, command = it.out.sent[0]
    it.wait(10.5)
    it.pose(FIRE)
    assert it.kinds("refused") == ["refused"], "10 ms after the order it may still be high"
    it.out.answers = True
    it.out.answer(command, sent_ns)
    it.turn()
    it.wait(9)
    it.pose(FIRE)
    assert it.kinds("refused") == ["refused", "refused"], "the answer came at 10.5 ms"
    it.wait(1)
    it.pose(FIRE)
    assert it.out.commands() == ["pulse", "pulse"]


def test_a_level_falls_with_its_condition(tmp_path: Path) -> None:
    it = bench(tmp_path, "")
    start = it.now
    it.pose(HIGH)
    it.wait(20)
    it.pose(HIGH)
    it.pose(LOW)
    it.pose(LOW)
    assert it.out.highs("laser") == [(start, start + 20 * MS)]
    assert it.kinds("fire", "line-off") == ["fire", "line-off"]
    assert it.told("line-off")[0].trigger == "zone"
    it.check()


def test_a_level_falls_after_its_longest_on_time_and_must_be_let_go(tmp_path: Path) -> None:
    it = bench(tmp_path, "")
    start = it.now
    for _ in range(10):
        it.pose(HIGH)
        it.wait(10)
    assert it.out.highs("laser") == [(start, start + 50 * MS)]
    assert it.told("line-off")[0].detail == "max_on_ms = 50 reached"
    assert [e.detail for e in it.told("refused")] == [
        "max_on_ms = 50 is used up until it is let go"
    ]
    it.pose(LOW)
    it.pose(HIGH)
    assert it.kinds("fire") == ["fire", "fire"]


def test_only_who_holds_a_line_may_let_go_of_it(tmp_path: Path) -> None:
    other = '\n[triggers.other]\ntype = "engine_rig:Scripted"\nkeypoint = "tail"\n'
    it = bench(tmp_path, "", more=other + 'output = "out.laser"\n')
    it.pose(HIGH, LOW)
    it.pose(NOTHING, HIGH)
    it.pose(NOTHING, LOW)
    assert it.out.commands() == ["on"]
    assert [e.detail for e in it.told("refused")] == ["out.laser is high already (zone)"]
    it.pose(LOW, HIGH)
    assert it.out.commands() == ["on", "off", "on"]
    it.check()


def test_a_level_is_let_go_when_no_pose_in_time_comes(tmp_path: Path) -> None:
    it = bench(tmp_path, "", gap_ms=30.0)
    start = it.now
    it.pose(HIGH)
    for _ in range(6):
        it.wait(9)
        it.pose(HIGH, age_ms=21.0)
    ((rise, fall),) = it.out.highs("laser")
    assert rise == start
    assert 30 * MS < fall - rise <= 31 * MS
    assert it.kinds("stale", "line-off") == ["stale", "line-off"]


# -------------------------------------------------------------------------------------- trains


def test_a_train_is_one_command_and_its_line_is_high_until_its_end(tmp_path: Path) -> None:
    it = bench(tmp_path, TRAIN, line="refractory_ms = 10.0")
    start = it.now
    it.pose(FIRE)
    for _ in range(17):
        it.wait(5)
        it.pose(FIRE)
    ((_, first), (again, _)) = it.out.sent
    assert (first.action, first.width_us, first.count) == ("train", 5_000, 4)
    assert (first.period_us, first.delay_us) == (20_000, 10_000)
    refused = [((e.decide_ns - start) // MS, e.detail) for e in it.told("refused")]
    # It ends at 10 + 3 * 20 + 5 = 75 ms.
    high, rests = "out.laser is high already (zone)", "within refractory_ms = 10"
    assert refused == [(at, high if at < 75 else rests) for at in range(5, 85, 5)]
    assert again == start + 85 * MS
    it.check()


@pytest.mark.parametrize("way_out", ["low", "disarm", "estop", "input"])
def test_a_train_is_cut(tmp_path: Path, way_out: str) -> None:
    it = bench(tmp_path, TRAIN)
    start = it.now
    it.pose(FIRE)
    it.wait(32)
    if way_out == "low":  # as ``missing = "safe"`` asks for
        it.pose(LOW)
    elif way_out == "disarm":
        it.engine.disarm("asked for", it.now)
    elif way_out == "estop":
        it.engine.stop_at_once("asked for", it.now, asked=True)
    else:
        it.stop_input()
    it.wait(200)
    edges = [((a - start) / MS, (b - start) / MS) for a, b in it.out.highs("laser")]
    assert edges == [(10, 15), (30, 32)]
    assert it.out.armed is (way_out == "low")
    it.check()


# -------------------------------------------------------------------------------------- levels


def levels(it: Bench) -> list[tuple[float, int]]:
    return [(round(c.level, 4), c.width_us) for _, c in it.out.sent if c.action == "on"]


def test_a_level_follows_the_pose_for_the_time_that_is_left(tmp_path: Path) -> None:
    it = bench(tmp_path, more=DIMMER)
    start = it.now
    it.pose(NOTHING, (HIGH, 0.25))
    it.wait(30)
    it.pose(NOTHING, (HIGH, 0.75))
    it.wait(30)
    it.pose(NOTHING, (HIGH, 0.5))
    assert levels(it) == [(0.25, 100_000), (0.75, 70_000), (0.5, 40_000)]
    it.wait(100)
    assert it.out.highs("lamp") == [(start, start + 100 * MS)], "never longer than from its rise"
    assert it.kinds("fire", "level-set", "line-off") == [
        "fire",
        "level-set",
        "level-set",
        "line-off",
    ]
    assert it.told("level-set")[0].command_ns == start + 30 * MS
    it.check()


@pytest.mark.parametrize(("by", "changes"), [(0.0, False), (0.9 / 255, False), (1.1 / 255, True)])
def test_a_change_that_no_output_would_show_is_not_sent(
    tmp_path: Path, by: float, changes: bool
) -> None:
    it = bench(tmp_path, more=DIMMER)
    it.pose(NOTHING, (HIGH, 0.5))
    it.pose(NOTHING, (HIGH, 0.5 - by))
    it.pose(NOTHING, (HIGH, 0.5))
    assert it.kinds("level-set") == ["level-set"] * 2 * changes


def test_many_small_changes_add_up(tmp_path: Path) -> None:
    it = bench(tmp_path, more=DIMMER)
    for step in range(10):
        it.pose(NOTHING, (HIGH, 0.5 + step * 0.4 / 255))
    assert len(it.told("level-set")) == 3


def test_a_late_pose_changes_no_level_and_counts(tmp_path: Path) -> None:
    it = bench(tmp_path, more=DIMMER)
    it.pose(NOTHING, (HIGH, 0.25))
    for level in (0.5, 0.75):
        it.pose(NOTHING, (HIGH, level), age_ms=21.0)
    it.pose(NOTHING, (HIGH, 0.25), age_ms=21.0)  # wants nothing
    assert levels(it) == [(0.25, 100_000)]
    assert it.kinds("overrun") == ["overrun"], "said once, not with every pose"
    assert it.counters["overruns"] == 1
    it.pose(NOTHING, (HIGH, 0.75))
    assert levels(it)[-1][0] == 0.75


def test_late_changes_of_a_level_disarm_too(tmp_path: Path) -> None:
    it = bench(tmp_path, latency='policy = "disarm"\ndisarm_after = 3', more=DIMMER)
    it.pose(NOTHING, (HIGH, 0.25))
    for level in (0.5, 0.75, 1.0):
        it.pose(NOTHING, (HIGH, level), age_ms=21.0)
    assert it.kinds("overrun", "disarmed") == ["overrun", "disarmed"]
    assert not it.out.armed


@pytest.mark.parametrize("level", [0.0, -0.5, 1.5])
def test_a_level_that_does_not_exist_disables_its_trigger(tmp_path: Path, level: float) -> None:
    it = bench(tmp_path, more=DIMMER)
    it.pose(NOTHING, (HIGH, level))
    assert it.out.sent == []
    assert "which is not above 0 to 1" in it.told("trigger-failed")[0].detail
    assert not it.out.armed


# ------------------------------------------------------------------------------- a client's test


def test_a_test_pulse_keeps_the_limits_of_its_line(tmp_path: Path) -> None:
    it = bench(tmp_path, line="refractory_ms = 20.0")
    assert it.engine.fire_test("out.laser", 8.0, it.now) == []
    assert it.engine.fire_test("out.laser", 8.0, it.now) == ["out.laser is high already (a client)"]
    it.wait(10)
    assert it.engine.fire_test("out.laser", 8.0, it.now) == ["within refractory_ms = 20"]
    assert it.engine.fire_test("out.lamp", 100.5, it.now) == [
        "width_ms = 100.5 is above max_on_ms = 100"
    ]
    assert it.engine.fire_test("out.lamp", 0.0004, it.now) == [
        "width_ms = 0.0004 is less than a microsecond"
    ]
    assert it.engine.fire_test("out.led", 1.0, it.now) == [
        "no line 'out.led' (lines: out.laser, out.lamp)"
    ]
    ((_, command),) = it.out.sent
    assert (command.action, command.width_us) == ("pulse", 8_000)
    (fire,) = it.told("fire")
    assert (fire.asked, fire.trigger, fire.command) == (True, None, command)
    assert all(event.asked for event in it.told("refused"))
    it.check()


def test_no_test_pulse_leaves_a_rig_that_is_not_armed(tmp_path: Path) -> None:
    it = bench(tmp_path)
    it.engine.disarm("asked for", it.now)
    assert it.engine.fire_test("out.laser", 1.0, it.now) == ["not armed"]
    assert it.out.sent == []


def test_a_trigger_does_not_cut_a_test_pulse_nor_raise_its_line(tmp_path: Path) -> None:
    it = bench(tmp_path, "")
    it.engine.fire_test("out.laser", 20.0, it.now)
    it.pose(HIGH)
    it.pose(LOW)
    assert it.out.commands() == ["pulse"]
    assert it.told("refused")[0].detail == "out.laser is high already (a client)"


# ------------------------------------------------------------------------------------- answers


def test_a_command_that_the_device_refuses_leaves_the_line_low(tmp_path: Path) -> None:
    it = bench(tmp_path, "")
    it.out.refuses = "the board says no"
    it.pose(HIGH)
    it.out.refuses = ""
    it.wait(1)
    it.pose(HIGH)
    assert it.out.commands() == ["on", "on"], "it may be asked for again at once"
    assert (it.counters["refused_by_output"], it.counters["acks"]) == (1, 1)


def test_a_line_that_does_not_go_low_makes_everything_safe(tmp_path: Path) -> None:
    it = bench(tmp_path, "")
    it.pose(HIGH)
    it.out.refuses, it.out.stuck = "pin 0 reads high", True
    it.pose(LOW)
    assert it.told("disarmed")[0].detail == "out.laser may still be high: pin 0 reads high"
    assert not it.engine.armed
    assert it.out.safes


def test_an_output_that_cannot_make_safe_keeps_no_other_from_it() -> None:
    class Output:
        def __init__(self, error: Exception | None = None) -> None:
            self.error, self.safe = error, False

        def make_safe(self, _now: int) -> None:
            if self.error is not None:
                raise self.error
            self.safe = True

    first, last = Output(), Output()
    outputs: Any = [first, Output(ZeroDivisionError("a driver's own mistake")), last]
    with pytest.raises(ZeroDivisionError):
        make_all_safe(outputs, 0)
    assert first.safe
    assert last.safe
