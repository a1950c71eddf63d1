"""Yoked runs: what another animal's trigger did is done again, whatever this animal does."""

from pathlib import Path

import pytest
from engine_rig import FIRE, HIGH, LOW, MS, NOTHING, Bench

from rtpose.errors import InputError
from rtpose.messages import Command, TriggerEvent, encode_json
from rtpose.yoke import read_yoked_acts

TABLES = """
[latency]
max_pose_gap_ms = 60000.0
[experiment]
{experiment}
[outputs.out]
type = "virtual"
[outputs.out.lines.laser]
pin = 0
max_on_ms = {max_on_ms}
{line}
[outputs.out.lines.lamp]
pin = 1
max_on_ms = {lamp_ms}
levels = {levels}
[triggers.zone]
type = "engine_rig:Scripted"
output = "out.laser"
pulse_ms = 10.0
{zone}
[triggers.dimmer]
type = "engine_rig:Scripted"
keypoint = "tail"
output = "out.lamp"
levels = {levels}
{dimmer}
"""


def bench(
    folder: Path,
    zone: str = "",
    dimmer: str = "",
    *,
    experiment: str = "",
    line: str = "",
    max_on_ms: float = 50.0,
    levels: str = "true",
    lamp_ms: float = 100.0,
) -> Bench:
    folder.mkdir()
    tables = TABLES.format(
        zone=zone,
        dimmer=dimmer,
        experiment=experiment,
        line=line,
        max_on_ms=max_on_ms,
        levels=levels,
        lamp_ms=lamp_ms,
    )
    return Bench(folder, tables)


def write(path: Path, events: list[TriggerEvent]) -> str:
    path.write_bytes(b"".join(encode_json(event) + b"\n" for event in events))
    return f'yoked_to = "{path}"\n'


def sent(it: Bench, line: str) -> list[tuple[float, str, int, float]]:
    """Return what reached a line: ms after arming, action, count, level."""
    armed = it.told("armed")[0].decide_ns
    return [
        ((at - armed) / MS, c.action, c.count, round(c.level, 3))
        for at, c in it.out.sent
        if c.line == line
    ]


def master(folder: Path, zone: str = "") -> Bench:
    """Run the other animal: pulses, trains that are cut, levels that change and time out."""
    it = bench(folder, zone)
    it.pose(FIRE)
    it.now += 77 * MS  # some time before arming
    it.turn()
    it.arm()
    script: list[tuple[int, int, int | tuple[float, float]]] = [
        (10, FIRE, (HIGH, 0.25)),
        (7, NOTHING, (HIGH, 0.5)),
        (2, LOW, NOTHING),  # cuts the pulse or the train
        (20, NOTHING, (LOW, 0.0)),
        (25, FIRE, (HIGH, 1.0)),
        (150, FIRE, (HIGH, 0.75)),  # its time was up long ago, unseen by its trigger
        (1, NOTHING, (LOW, 0.0)),
        (1, NOTHING, (HIGH, 0.75)),
        (5, NOTHING, (LOW, 0.0)),
    ]
    for wait_ms, laser, lamp in script:
        it.wait(wait_ms)
        it.pose(laser, lamp)
    it.wait(50)
    it.engine.disarm("asked for", it.now)
    it.arm()
    it.pose(FIRE)  # another session
    return it


@pytest.mark.parametrize("train", ["", "train = { count = 3, period_ms = 30.0 }"])
@pytest.mark.parametrize("busy", [False, True])
def test_what_was_sent_there_is_sent_here_at_the_same_times(
    tmp_path: Path, train: str, busy: bool
) -> None:
    other = master(tmp_path / "other", zone=train)
    yoked = write(tmp_path / "events.jsonl", other.events)
    it = bench(tmp_path / "here", train + "\n" + yoked, yoked)
    it.now += 1234 * MS
    it.arm()
    for _ in range(300):
        # Its own animal does what it likes, all the time or never.
        it.pose(FIRE if busy else NOTHING, (HIGH, 0.3) if busy else NOTHING)
        it.wait(1)
    first_session = [act for act in sent(other, "laser") if act[0] < 270]
    if train:  # disarming cut the last one
        first_session.append((271, "off", 1, 1.0))
    assert sent(it, "laser") == first_session
    assert sent(it, "lamp") == sent(other, "lamp")
    assert {c for _, c, _, _ in first_session} == {"train" if train else "pulse", "off"}
    assert [level for _, action, _, level in sent(it, "lamp") if action == "on"] == [
        0.25,
        0.5,
        1.0,
        0.75,
    ]
    for name in ("laser", "lamp"):
        assert lengths(it, name) == lengths(other, name)[: len(lengths(it, name))]
    own = it.told("withheld")
    assert bool(own) is busy
    assert {event.withheld for event in own} <= {"yoked"}
    it.check()


def lengths(it: Bench, line: str) -> list[int]:
    return [end - start for start, end in it.out.highs(line)]


def test_own_decisions_keep_the_limits_of_a_line_of_their_own(tmp_path: Path) -> None:
    other = master(tmp_path / "other")
    it = bench(
        tmp_path / "here", write(tmp_path / "e.jsonl", other.events), line="refractory_ms = 30.0"
    )
    it.arm()
    for _ in range(5):
        it.pose(FIRE)
        it.wait(1)
    assert it.kinds("withheld", "refused") == ["withheld"] + ["refused"] * 4
    it.wait(10)
    assert sent(it, "laser") == [(10, "pulse", 1, 1.0)], "nothing of that hinders what is repeated"


def test_limits_of_this_rig_hold_and_a_refusal_is_said(tmp_path: Path) -> None:
    other = master(tmp_path / "other")
    yoked = write(tmp_path / "events.jsonl", other.events)
    it = bench(tmp_path / "here", yoked, line="dose_ms = 25.0")
    it.arm()
    it.wait(300)
    # 10 ms cut after 9, and 10 again.
    assert [action for _, action, _, _ in sent(it, "laser")] == ["pulse", "off", "pulse"]
    (refused,) = it.told("refused")
    assert refused.trigger == "zone"
    assert "after arming: dose_ms = 25 since arming has 6 ms left, 10 are needed" in refused.detail
    assert it.counters["refusals"] == 1
    it.check()


def test_a_baseline_withholds_it_too(tmp_path: Path) -> None:
    other = master(tmp_path / "other")
    yoked = write(tmp_path / "events.jsonl", other.events)
    it = bench(tmp_path / "here", yoked, yoked, experiment="baseline = true")
    it.arm()
    for _ in range(300):
        it.pose(NOTHING)
        it.wait(1)
    assert it.out.sent == []
    assert {event.withheld for event in it.told("withheld")} == {"baseline"}
    kinds = {"fire": "withheld"}
    assert it.kinds("withheld", "level-set", "line-off") == [
        kinds.get(kind, kind) for kind in other.kinds("fire", "level-set", "line-off")[:-1]
    ]
    it.check()


@pytest.mark.parametrize("way_out", ["disarm", "estop"])
def test_what_is_left_is_not_sent_after_the_end_and_begins_anew_with_arming(
    tmp_path: Path, way_out: str
) -> None:
    other = master(tmp_path / "other")
    it = bench(tmp_path / "here", write(tmp_path / "events.jsonl", other.events))
    it.arm()
    it.wait(50)
    if way_out == "disarm":
        it.engine.disarm("asked for", it.now)
    else:
        it.engine.stop_at_once("asked for", it.now)
        it.engine.release(it.now)
    it.wait(500)
    assert it.out.commands() == ["pulse", "off"]
    armed = it.now
    it.arm()
    it.wait(50)
    assert [(at - armed) / MS for at, _ in it.out.sent[2:]] == [10, 19]


def test_another_trigger_of_the_other_run_can_be_named(tmp_path: Path) -> None:
    other = master(tmp_path / "other")
    yoked = write(tmp_path / "events.jsonl", other.events)
    it = bench(tmp_path / "here", dimmer=yoked + 'yoked_trigger = "zone"')
    it.arm()
    it.wait(300)
    ours = [(at, action) for at, action, _, _ in sent(it, "lamp")]
    assert ours == [(at, action) for at, action, _, _ in sent(other, "laser") if at < 270]


@pytest.mark.parametrize(
    ("zone", "options", "words"),
    [
        (
            "",
            {"max_on_ms": 5.0},
            r"triggers.zone.yoked_to: .*a pulse of 10 ms \(the line's max_on_ms is 5\)",
        ),
        ('yoked_trigger = "dimmer"', {}, r"a level of 0.25 \(set the line's levels = true"),
        ('yoked_trigger = "nobody"', {}, "trigger 'nobody' sent nothing in that run; dimmer, zone"),
    ],
)
def test_what_a_line_could_never_repeat_is_said_at_the_start(
    tmp_path: Path, zone: str, options: dict[str, float], words: str
) -> None:
    other = master(tmp_path / "other")
    yoked = write(tmp_path / "events.jsonl", other.events)
    pulse = "pulse_ms = 10.0"
    text = TABLES.replace(pulse, "pulse_ms = 1.0").format(
        zone=yoked + zone,
        dimmer="",
        experiment="",
        line="",
        levels="true",
        lamp_ms=100.0,
        **{"max_on_ms": 50.0, **options},
    )
    folder = tmp_path / "here"
    folder.mkdir()
    with pytest.raises(InputError, match=words):
        Bench(folder, text)


def test_a_level_that_this_rig_let_fall_is_not_raised_by_a_change(tmp_path: Path) -> None:
    other = master(tmp_path / "other")
    yoked = write(tmp_path / "events.jsonl", other.events)
    it = bench(tmp_path / "here", dimmer=yoked, lamp_ms=5.0)
    it.arm()
    for _ in range(40):
        it.pose(NOTHING)
        it.wait(1)
    assert sent(it, "lamp") == [(10, "on", 1, 0.25), (15, "off", 1, 1.0)]
    assert it.told("line-off")[0].detail == "max_on_ms = 5 reached"


def event(kind: str, at: int, command: Command | None = None, **more: object) -> TriggerEvent:
    return TriggerEvent.model_validate(
        {
            "run": "r",
            "seq": at,
            "kind": kind,
            "decide_ns": at,
            "command": None if command is None else command.model_dump(),
            **more,
        }
    )


PULSE = Command(command_id=1, output="out", line="laser", action="pulse", width_us=1000)
OFF = Command(command_id=2, output="out", line="laser", action="off")


def test_a_level_that_was_to_be_shorter_than_this_line_may_is_over_by_itself(
    tmp_path: Path,
) -> None:
    on = Command(command_id=1, output="out", line="lamp", action="on", width_us=5000)
    off = Command(command_id=2, output="out", line="lamp", action="off")
    events = [
        event("armed", 1),
        event("fire", 2, on, trigger="dimmer", command_ns=10 * MS),
        event("line-off", 3, off, trigger="dimmer", command_ns=30 * MS),
        event("fire", 4, on, trigger="dimmer", command_ns=32 * MS),
    ]
    it = bench(tmp_path / "here", dimmer=write(tmp_path / "events.jsonl", events))
    it.arm()
    for _ in range(50):
        it.pose(NOTHING)
        it.wait(1)
    assert [action for _, action, _, _ in sent(it, "lamp")] == ["on", "off"] * 2
    assert {e.detail for e in it.told("line-off")} == {"its time is over"}
    it.check()


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([], "that run was never armed"),
        ([event("fire", 5, PULSE, trigger="zone", command_ns=6)], "that run was never armed"),
        ([event("armed", 1), event("disarmed", 2)], "trigger 'zone' sent nothing in that run$"),
        (
            [event("armed", 1), event("withheld", 5, PULSE, trigger="zone", withheld="sham")],
            "trigger 'zone' sent nothing in that run",
        ),
        (
            [
                event("armed", 1),
                event("estop", 2),
                event("fire", 5, PULSE, trigger="zone", command_ns=6),
            ],
            "trigger 'zone' sent nothing in that run",
        ),
        (
            [event("armed", 1), event("fire", 5, PULSE, trigger="other", command_ns=6)],
            "trigger 'zone' sent nothing in that run; other did",
        ),
    ],
)
def test_a_log_without_what_is_needed_is_an_error(
    tmp_path: Path, events: list[TriggerEvent], words: str
) -> None:
    write(tmp_path / "events.jsonl", events)
    with pytest.raises(InputError, match=words):
        read_yoked_acts(tmp_path / "events.jsonl", "zone")


@pytest.mark.parametrize("end", ["disarmed", "estop", "stopped", "output-failed"])
def test_a_line_that_was_high_at_the_end_of_the_other_session_falls_then(
    tmp_path: Path, end: str
) -> None:
    on = Command(command_id=1, output="out", line="lamp", action="on", width_us=100_000)
    events = [
        event("armed", MS),
        event("fire", 11 * MS, on, trigger="dimmer", command_ns=11 * MS),
        event(end, 31 * MS),
        event("fire", 41 * MS, on, trigger="dimmer", command_ns=41 * MS),
    ]
    it = bench(tmp_path / "here", dimmer=write(tmp_path / "events.jsonl", events))
    it.arm()
    for _ in range(200):
        it.pose(NOTHING)
        it.wait(1)
    assert lengths(it, "lamp") == [20 * MS]
    it.check()


def test_what_a_failing_trigger_held_fell_with_it(tmp_path: Path) -> None:
    events = [
        event("armed", 10),
        event("fire", 15, PULSE, trigger="zone", command_ns=16),
        event("trigger-failed", 20, trigger="other"),
        event("trigger-failed", 25, trigger="zone"),
    ]
    write(tmp_path / "events.jsonl", events)
    acts = read_yoked_acts(tmp_path / "events.jsonl", "zone")
    assert [(act.offset_ns, act.command.action) for act in acts] == [(6, "pulse"), (15, "off")]


def test_arming_an_armed_rig_again_is_in_the_same_session(tmp_path: Path) -> None:
    events = [
        event("armed", 10),
        event("fire", 15, PULSE, trigger="zone", command_ns=16),
        event("armed", 30),
        event("fire", 35, PULSE, trigger="zone", command_ns=36),
    ]
    write(tmp_path / "events.jsonl", events)
    acts = read_yoked_acts(tmp_path / "events.jsonl", "zone")
    assert [act.offset_ns for act in acts] == [6, 26]


def test_nothing_is_repeated_in_a_catch_trial(tmp_path: Path) -> None:
    other = master(tmp_path / "other")
    yoked = write(tmp_path / "events.jsonl", other.events)
    it = bench(tmp_path / "here", yoked, experiment="catch_probability = 1.0")
    it.arm()
    for _ in range(300):
        it.pose(NOTHING)
        it.wait(1)
    assert it.out.sent == []
    assert {e.withheld for e in it.told("withheld")} == {"catch"}
    it.check()


def test_an_absent_log_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_yoked_acts(tmp_path / "absent.jsonl", "zone")


def test_a_line_that_control_let_fall_belongs_to_who_held_it(tmp_path: Path) -> None:
    events = [
        event("armed", 10),
        event("fire", 15, PULSE, trigger="zone", command_ns=16),
        event("line-off", 20, OFF, command_ns=21),
        event("line-off", 22, OFF.model_copy(update={"line": "lamp"}), command_ns=23),
    ]
    write(tmp_path / "events.jsonl", events)
    acts = read_yoked_acts(tmp_path / "events.jsonl", "zone")
    assert [(act.offset_ns, act.command.action) for act in acts] == [(6, "pulse"), (11, "off")]
