"""A record runs through the engine again to the very same events, whatever happened in it."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import event as note
from hypothesis import given, settings
from hypothesis import strategies as st
from ports import free_ports
from scripted_rig import Script, ScriptedClock, ScriptedOutput
from test_trigger_contract import BUILT_IN

from rtpose.bus import DirectReceiver, Inbox, direct_pair
from rtpose.comparison import by_trigger, differences
from rtpose.config import load_rig, load_settings
from rtpose.control import Control
from rtpose.errors import ConfigError, InputError
from rtpose.loop import SPAWN, Link, Loop, new_activity
from rtpose.messages import (
    Command,
    InputEvent,
    Pose,
    Request,
    Status,
    TriggerEvent,
    encode_direct,
    encode_json,
)
from rtpose.plugins import load
from rtpose.pose_log import PoseLog
from rtpose.readiness import Readiness
from rtpose.replay import Replayed, replay
from rtpose.run_folder import RunRecord, read_run
from rtpose.run_log import RunLog, read_log
from rtpose.skeleton import Skeleton

MS = 1_000_000
SKELETON = Skeleton(("snout", "tail"))
#: The region of all triggers that have one: left of 20 px.
LEFT = "rectangle = { x_px = -10.0, y_px = -10.0, width_px = 30.0, height_px = 99.0 }"

RIG = """
[cameras.top]
type = "synthetic"
rate_hz = 100.0
[model]
path = "demo"
[latency]
budget_ms = 20.0
max_pose_gap_ms = 60.0
{latency}
[experiment]
{experiment}
[stream]
pose_port = {ports[0]}
event_port = {ports[1]}
command_port = {ports[2]}
[outputs.out]
type = "scripted_rig:ScriptedOutput"
[outputs.out.lines.laser]
pin = 0
max_on_ms = 30.0
levels = true
[outputs.out.lines.valve]
pin = 1
max_on_ms = 20.0
refractory_ms = 15.0
[outputs.out.lines.lamp]
pin = 2
max_on_ms = 40.0
dose_ms = 60.0
dose_window_s = 0.5
[outputs.out.lines.tone]
pin = 3
max_on_ms = 25.0
dose_ms = 90.0
{triggers}
"""

TRIGGERS = {
    "pulse": f'type = "region"\nkeypoint = "snout"\n{LEFT}\nwhen = "enter"\npulse_ms = 4.0\n'
    'output = "out.valve"',
    "level": f'type = "region"\nkeypoint = "snout"\n{LEFT}\nwhen = "inside"\noutput = "out.tone"',
    "chance": f'type = "region"\nkeypoint = "snout"\n{LEFT}\nwhen = "inside"\nprobability = 0.5\n'
    'output = "out.lamp"',
    "sham": f'type = "region"\nkeypoint = "snout"\n{LEFT}\nwhen = "leave"\npulse_ms = 3.0\n'
    'sham = true\noutput = "out.valve"',
    "train": f'type = "region"\nkeypoint = "snout"\n{LEFT}\nwhen = "leave"\npulse_ms = 2.0\n'
    'train = { count = 3, period_ms = 5.0, delay_ms = 1.0 }\noutput = "out.lamp"',
    "ahead": f'type = "region"\nkeypoint = "snout"\n{LEFT}\nwhen = "inside"\nforecast = true\n'
    'output = "out.tone"',
    "fast": 'type = "speed"\nkeypoint = "snout"\nabove_px_s = 500.0\nwindow_ms = 30.0\n'
    'when = "starts"\npulse_ms = 5.0\nonce_per_trial = true\nprobability = 0.7\n'
    'output = "out.tone"',
    "nested": 'type = "all"\nwhen = "while"\ndwell_ms = 12.0\nrefractory_ms = 20.0\n'
    'filter = { type = "one-euro" }\nmissing = "hold"\nhold_ms = 20.0\noutput = "out.valve"\n'
    f'of = [{{ type = "region", keypoint = "snout", {LEFT} }}, '
    '{ type = "not", of = { type = "speed", keypoint = "snout", above_px_s = 900.0, '
    "window_ms = 40.0 } }]",
    "cut": f'type = "region"\nkeypoint = "snout"\n{LEFT}\nwhen = "enter"\npulse_ms = 18.0\n'
    'missing = "safe"\nmax_fires = 4\noutput = "out.valve"',
    "guarded": f'type = "region"\nkeypoint = "snout"\n{LEFT}\nwhen = "inside"\nmax_fires = 3\n'
    'once_per_trial = true\nrefractory_ms = 10.0\nhysteresis_px = 2.0\noutput = "out.tone"',
    "dimmer": 'type = "proportional"\nfrom_px = [0.0, 60.0]\nslew_per_s = 5.0\n'
    'missing = "hold"\nhold_ms = 20.0\noutput = "out.laser"\n'
    'quantity = { type = "distance", keypoint = "snout", point = { x_px = 0.0, y_px = 0.0 } }',
    "steps": 'type = "scripted_rig:Steps"\nabove_px = 10.0\noutput = "out.laser"',
    "moody": 'type = "scripted_rig:Moody"\npulse_ms = 3.0\noutput = "out.laser"',
    "yoked": f'type = "region"\nkeypoint = "snout"\n{LEFT}\nwhen = "inside"\n'
    'yoked_to = "other.jsonl"\nyoked_trigger = "levels"\noutput = "out.laser"',
    "yoked_pulses": f'type = "region"\nkeypoint = "snout"\n{LEFT}\nwhen = "enter"\npulse_ms = 2.0\n'
    'yoked_to = "other.jsonl"\nyoked_trigger = "pulses"\noutput = "out.valve"',
}
EXPERIMENTS = (
    "seed = 1",
    "seed = 2\nbaseline = true",
    "seed = 3\ntrial_s = 0.05\ninter_trial_s = [0.01, 0.06]\ncatch_probability = 0.4",
    "seed = 4\ntrial_s = 0.08\ninter_trial_s = [0.02, 0.02]\nmax_trials = 3",
    "seed = 5\nsession_s = 0.2\ncatch_probability = 0.5",
)
LATENCIES = ('policy = "skip"', 'policy = "fire"', 'policy = "disarm"\ndisarm_after = 2')


def other_run(path: Path) -> None:
    """Write what the yoked triggers repeat: levels, a change of one, pulses, one of them cut."""

    def sent(at_ms: int, line: str, action: str, width_us: int = 0, level: float = 1.0) -> None:
        fields = {"command_id": len(events), "output": "out", "line": line, "action": action}
        command = Command.model_validate({**fields, "width_us": width_us, "level": level})
        at_ns = 10**9 + at_ms * MS
        kind: Any = "line-off" if action == "off" else "fire"
        event = TriggerEvent(
            run="other",
            seq=len(events),
            kind=kind,
            trigger="levels" if line == "laser" else "pulses",
            decide_ns=at_ns,
            command_ns=at_ns,
            command=command,
        )
        events.append(event)

    events = [TriggerEvent(run="other", seq=0, kind="armed", decide_ns=10**9)]
    sent(20, "laser", "on", 20_000)
    sent(25, "valve", "pulse", 4_000)
    sent(33, "laser", "off")
    sent(36, "valve", "off")  # after the pulse has ended: its trigger let go all the same
    sent(50, "laser", "on", 25_000)
    sent(60, "laser", "on", 15_000, 0.5)
    sent(70, "valve", "pulse", 12_000)
    sent(75, "valve", "off")
    sent(110, "laser", "off")
    sent(160, "laser", "on", 30_000)
    sent(230, "laser", "off")
    sent(240, "valve", "pulse", 2_000)
    path.write_bytes(b"".join(encode_json(event) + b"\n" for event in events))


class Rehearsal:
    """Control itself, with a device and a clock that follow a script; leaves a run's folder."""

    def __init__(
        self,
        folder: Path,
        triggers: Sequence[str] = ("pulse",),
        experiment: str = EXPERIMENTS[0],
        latency: str = LATENCIES[0],
        **script: Any,
    ) -> None:
        self.folder = folder
        self.clock = ScriptedClock()
        other_run(folder / "other.jsonl")
        ScriptedOutput.script = self.script = Script(self.clock, **script)
        path = folder / "rig.toml"
        path.write_text(
            RIG.format(
                ports=free_ports(3),
                latency=latency,
                experiment=experiment,
                triggers="".join(f"\n[triggers.{name}]\n{TRIGGERS[name]}" for name in triggers),
            )
        )
        self.rig = load_rig(path)
        self._frame_id = self._seq = -1

    @contextmanager
    def control(self) -> Iterator[Control]:
        """Open control as its process does, and end it as its process does."""
        inbox = Inbox()
        _, orders = pipe = SPAWN.Pipe()
        self.loop = Loop(Link("control", "run", inbox.endpoint, orders, new_activity()))
        self._line, ours = direct_pair()
        log, poses = RunLog(self.folder / "events.jsonl"), PoseLog(self.folder / "poses.bin")
        readiness = Readiness(self.rig.latency, rate_hz=100.0)
        body = Control(self.loop, self.rig, SKELETON, log, poses, readiness, DirectReceiver(ours))
        with (
            mock.patch("rtpose.control.now_ns", self.clock),
            mock.patch("rtpose.control.Poller.wait", lambda *_: None),
        ):
            try:
                body.open()
                yield body
            finally:
                body.close()
                log.close()
                poses.close()
                self._line.close()
                self.loop.finish()
                inbox.close()
                pipe[0].close()

    def perform(self, actions: Sequence[tuple[Any, ...]]) -> RunRecord:
        """Let control run through actions, and return its record."""
        with self.control() as body:
            left = iter(actions)

            def act() -> bool:
                action = next(left, None)
                if action is not None:
                    getattr(self, action[0])(body, *action[1:])
                return action is not None and not self.loop.stop_requested

            self.loop.turn = act  # type: ignore[method-assign]
            try:
                body.run()
            except Exception as error:
                if "gone" not in str(error):
                    raise
        return self.record()

    def record(self) -> RunRecord:
        return RunRecord(
            "run",
            self.rig,
            SKELETON,
            0,
            read_log(self.folder / "events.jsonl"),
            self.folder / "poses.bin",
            self.loop.counters["poses"],
        )

    # --------------------------------------------------------------------------------- actions

    def ready(self, body: Control) -> None:
        """Give control all that arming asks for, and arm."""
        info = {"verified": True}
        status = Status(run="run", process="inference", state="running", sent_ns=1, info=info)
        self._line.send(encode_direct(status))
        for _ in range(25):
            self.pose(body, 10_000, 50.0)
            body.turn()
        self.ask(body, "arm")

    def pose(
        self, body: Control, wait_us: int, x_px: float, age_us: int = 500, valid: bool = True
    ) -> None:
        self.wait(body, wait_us)
        self._frame_id += 1 + (age_us % 3 == 0)  # some are passed over
        self._seq += 1 + (age_us % 7 == 0)  # some are lost
        start_ns = self.clock.at_ns - age_us * 1000
        exposure_ns = start_ns if age_us % 2 else None
        points = np.array([[[x_px, 5.0, 0.9], [x_px - 5.0, np.nan, 0.1]]], np.float32)
        flags = np.array([[valid, 0]], np.uint8)
        stamps = (start_ns, start_ns, start_ns, start_ns, start_ns + age_us * 500)
        self._line.send(
            encode_direct(
                Pose(
                    "run", "top", self._seq, self._frame_id, 0, exposure_ns, *stamps, points, flags
                )
            )
        )

    def wait(self, _body: Control, wait_us: int) -> None:
        self.clock.at_ns += wait_us * 1000

    def ask(self, body: Control, action: str, **fields: Any) -> list[str]:
        return body.answer(Request.model_validate({"action": action, **fields})).reasons

    def fire(self, body: Control, line: str, width_ms: float) -> None:
        self.ask(body, "fire", line=line, width_ms=width_ms)

    def change(self, body: Control, trigger: str, key: str, value: Any) -> None:
        self.ask(body, "set", trigger=trigger, key=key, value=value)

    def edge(self, _body: Control, stop: bool) -> None:
        now = self.clock()
        self.script.inputs.append(
            InputEvent(output="out", input="button", level=True, arrival_ns=now, stop=stop)
        )

    def stop_at_terminal(self, _body: Control) -> None:
        self.loop.estop_ordered = True

    def refuse_to_arm(self, body: Control) -> None:
        self.script.arms = False
        self.ask(body, "arm")
        self.script.arms = True


def assert_identical(record: RunRecord) -> Replayed:
    result = replay(record)
    assert differences(result.recorded, result.replayed) == []
    assert list(result.recorded) == list(result.replayed)
    return result


#: Where the snout goes: at home, beside the border of the region, away, too far for the moody one.
places_px = st.one_of(st.sampled_from([5.0, 19.0, 21.0, 45.0, 59.5]), st.floats(0, 60, width=32))
poses = st.tuples(
    st.just("pose"),
    st.sampled_from([100, 2_000, 5_000, 10_000, 10_000, 21_000]),
    places_px,
    st.sampled_from([500, 500, 501, 1_001, 2_100, 19_990, 22_001]),
    st.sampled_from([True, True, True, True, False]),
)
happenings = st.one_of(
    st.tuples(st.just("wait"), st.integers(0, 300_000)),
    st.tuples(st.just("ask"), st.sampled_from(["trial", "end-trial", "arm", "status"])),
    st.tuples(st.just("ask"), st.sampled_from(["disarm", "estop", "release"])),
    st.tuples(
        st.just("fire"),
        st.sampled_from(["out.valve", "out.lamp", "out.tone", "out.nothing"]),
        st.sampled_from([1.0, 3.0, 15.0, 39.0]),
    ),
    st.tuples(
        st.just("change"),
        st.sampled_from([*TRIGGERS, "nobody"]),
        st.sampled_from(["dwell_ms", "refractory_ms", "above_px", "when"]),
        st.sampled_from([0.0, 7.5, 55.0, "enter", "inside", None, [1]]),
    ),
    st.tuples(st.just("edge"), st.sampled_from([False, False, True])),
    st.tuples(st.sampled_from(["refuse_to_arm", "stop_at_terminal"])),
    st.tuples(st.just("ready")),
)
#: A few poses, then something else, over and over.
scripts = st.lists(
    st.tuples(st.lists(poses, min_size=4, max_size=12), happenings), min_size=1, max_size=10
).map(lambda parts: [action for some, last in parts for action in (*some, last)])


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(sorted(TRIGGERS)), min_size=1, max_size=6, unique=True),
    st.sampled_from(EXPERIMENTS),
    st.sampled_from(LATENCIES),
    st.lists(
        st.sampled_from([20, 300, 1_500, 9_000, 60_000, 150_000, -300, -40_000]),
        min_size=1,
        max_size=5,
    ),
    st.one_of(st.none(), st.none(), st.integers(0, 12)),
    scripts,
)
def test_whatever_happened_the_replay_of_its_record_is_identical(
    triggers: list[str],
    experiment: str,
    latency: str,
    answer_after_us: list[int],
    fails_at: int | None,
    script: list[tuple[Any, ...]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rehearsal = Rehearsal(
            Path(folder),
            triggers,
            experiment,
            latency,
            answer_after_us=answer_after_us,
            fails_at=fails_at,
        )
        record = rehearsal.perform([("ready",), *script])
        result = assert_identical(record)
        assert len(result.recorded) == len(record.events)
        for kind in {event.kind for event in result.recorded}:
            note(kind)


def fire(line: str, width_ms: float) -> tuple[Any, ...]:
    return ("fire", f"out.{line}", width_ms)


def wait(ms: float) -> tuple[Any, ...]:
    return ("wait", round(ms * 1000))


#: What the clock does without an event of its own; the trigger; and what shows it afterwards,
#: because a line would not be free, or a pulse not be over.
SILENT: dict[str, tuple[str, list[tuple[Any, ...]]]] = {
    "a pulse ends before the next one is asked for": (
        "cut",
        [fire("valve", 3), wait(50), fire("valve", 3)],
    ),
    "a pulse ends before a pose would cut it": (
        "cut",
        [("pose", 10_000, 5.0), wait(50), ("pose", 0, 5.0, 500, False)],
    ),
    "a pulse counts as ended before its late answer comes": (
        "cut",
        [fire("valve", 3), wait(120), wait(32), fire("valve", 3)],
    ),
    "the refractory time counts from the end of a pulse, not from disarming": (
        "cut",
        [fire("valve", 3), wait(10), ("ask", "disarm"), ("ask", "arm"), wait(9), fire("valve", 3)],
    ),
    "a repeated pulse ends before its trigger lets go in the other run": (
        "yoked_pulses",
        [wait(26), wait(6), wait(6)],
    ),
    "a line that was used up is let go in the other run before a pulse is asked for": (
        "yoked",
        [("pose", 10_000, 45.0)] * 22 + [wait(15), fire("laser", 3)],
    ),
}


@pytest.mark.parametrize("name", SILENT)
def test_what_the_clock_did_without_an_event_is_done_again(tmp_path: Path, name: str) -> None:
    trigger, script = SILENT[name]
    answer_after_us = [150_000] if "late answer" in name else [300]
    rehearsal = Rehearsal(tmp_path, [trigger], answer_after_us=answer_after_us)
    record = rehearsal.perform([("ready",), *script])
    assert_identical(record)
    told = [e.kind for e in record.events if e.kind in ("fire", "refused", "line-off")]
    assert told[-1] == "fire"


def a_run(folder: Path, triggers: Sequence[str] = ("pulse", "level")) -> RunRecord:
    """Return the record of a run in which the snout comes and goes."""
    visits = [("pose", 10_000, x_px) for x_px in [5.0] * 4 + [45.0] * 4] * 6
    return Rehearsal(folder, triggers).perform([("ready",), *visits])


def without(record: RunRecord, kind: str) -> RunRecord:
    """Return a record from which the first event of a kind was taken out."""
    found = next(event for event in record.events if event.kind == kind)
    return replace(record, messages=[m for m in record.messages if m is not found])


def test_a_fire_that_was_taken_out_of_the_record_is_found(tmp_path: Path) -> None:
    record = a_run(tmp_path)
    result = replay(without(record, "fire"))
    (missing,) = differences(result.recorded, result.replayed)
    assert missing.recorded is None
    assert missing.replayed == next(event for event in record.events if event.kind == "fire")


def test_a_fire_that_was_put_into_the_record_is_found(tmp_path: Path) -> None:
    record = a_run(tmp_path)
    fires = [event for event in record.events if event.kind == "fire"]
    forged = fires[2].model_copy(update={"frame_id": 1, "trigger": "level"})
    where = record.messages.index(fires[2])
    messages = [*record.messages[:where], forged, *record.messages[where:]]
    result = replay(replace(record, messages=messages))
    (extra,) = differences(result.recorded, result.replayed)
    assert (extra.recorded, extra.replayed) == (forged, None)


def test_where_the_lists_part_comes_before_what_follows_from_it(tmp_path: Path) -> None:
    events = list(a_run(tmp_path).events)
    where = next(index for index, event in enumerate(events) if event.kind == "fire")
    fire, consequence = events[where : where + 2]
    later = consequence.model_copy(update={"decide_ns": consequence.decide_ns + 1})
    found = differences(
        [*events[:where], consequence, *events[where + 2 :]],
        [*events[:where], fire, later, *events[where + 2 :]],
    )
    pairs = [(one.recorded, one.replayed) for one in found]
    assert pairs == [(None, fire), (consequence, None), (None, later)]


def test_a_pose_that_was_changed_is_found(tmp_path: Path) -> None:
    record = a_run(tmp_path)
    forged = tmp_path / "forged.bin"
    log = PoseLog(forged)
    first_fire = next(event for event in record.events if event.kind == "fire")
    for taken in record.poses():
        pose = taken.pose
        if pose.frame_id == first_fire.frame_id:
            pose = replace(pose, keypoints=pose.keypoints + np.float32(40.0))
        log.append(pose, taken.receive_ns, taken.records, taken.decided)
    log.close()
    result = replay(replace(record, pose_file=forged))
    found = differences(result.recorded, result.replayed)
    assert found
    assert found[0].recorded == first_fire


def test_a_field_that_was_changed_is_found(tmp_path: Path) -> None:
    record = a_run(tmp_path)
    first = next(event for event in record.events if event.kind == "line-off")
    forged = first.model_copy(update={"detail": "nothing of that kind"})
    messages = [forged if message is first else message for message in record.messages]
    result = replay(replace(record, messages=messages))
    (found,) = differences(result.recorded, result.replayed)
    assert (found.recorded, found.replayed) == (forged, first)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_a_record_that_breaks_off_anywhere_is_identical_as_far_as_it_goes(
    lost_of_log: int, lost_of_poses: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        record = a_run(folder, ("pulse", "level", "ahead", "chance"))
        for path, lost in (("events.jsonl", lost_of_log), ("poses.bin", lost_of_poses)):
            data = (folder / path).read_bytes()
            (folder / path).write_bytes(data[: max(0, len(data) - lost)])
        messages = read_log(folder / "events.jsonl")
        result = assert_identical(replace(record, messages=messages))
        everything = len(result.recorded) == len(record.events)
        assert everything or "breaks off" in result.notes[0]


def changed(record: RunRecord, name: str, **values: Any) -> Replayed:
    """Replay with other settings of one trigger."""
    entry = record.rig.triggers[name]
    for key, value in values.items():
        entry = entry.changed(key, value)
    return replay(record, replace(record.rig, triggers={**record.rig.triggers, name: entry}))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_rig_that_is_the_same_does_the_same(tmp_path: Path, experiment: str) -> None:
    places_px = ([5.0] * 4 + [45.0] * 4) * 6
    visits = [do for x_px in places_px for do in (wait(3), wait(3), ("pose", 3_000, x_px))]
    pauses = [wait(4), wait(4), wait(3), ("pose", 500, 5.0), wait(3), ("ask", "trial")]
    rehearsal = Rehearsal(tmp_path, ("pulse", "level", "chance", "yoked"), experiment)
    record = rehearsal.perform([("ready",), *visits, *pauses * 10])
    result = replay(record, record.rig)
    assert list(result.replayed) == list(result.recorded)
    for row in by_trigger(*_both(result)):
        assert row.recorded == row.replayed == row.common > 0


def test_a_changed_trigger_is_set_beside_the_record(tmp_path: Path) -> None:
    record = a_run(tmp_path)
    rows = {
        (row.trigger, row.kind): row
        for row in by_trigger(*_both(changed(record, "pulse", when="leave")))
    }
    enters = [e.frame_id for e in record.events if e.trigger == "pulse" and e.kind == "fire"]
    pulses, levels = rows["pulse", "fire"], rows["level", "fire"]
    assert list(pulses.only_recorded) == enters
    assert len(pulses.only_replayed) == 6
    assert (pulses.common, set(pulses.only_replayed) & set(enters)) == (0, set())
    assert levels.common == levels.recorded == levels.replayed > 0, "which nobody changed"


def test_time_limits_hold_in_a_changed_rig_too(tmp_path: Path) -> None:
    visits = [("pose", 10_000, 5.0)] * 6 + [("pose", 10_000, 45.0), ("wait", 100_000)]
    record = Rehearsal(tmp_path, ["level"]).perform([("ready",), *visits])
    line = record.rig.outputs["out"].settings.lines["tone"].model_copy(update={"max_on_ms": 12.0})
    output = record.rig.outputs["out"]
    lines = {**output.settings.lines, "tone": line}
    shorter = replace(output, settings=output.settings.model_copy(update={"lines": lines}))
    result = replay(record, replace(record.rig, outputs={"out": shorter}))
    offs = [event for event in result.replayed if event.kind == "line-off"]
    fires = [event for event in result.replayed if event.kind == "fire"]
    assert offs[0].detail == "max_on_ms = 12 reached"
    assert 12 * MS <= offs[0].decide_ns - fires[0].decide_ns < 18 * MS


def _both(result: Replayed) -> tuple[Sequence[TriggerEvent], Sequence[TriggerEvent]]:
    return result.recorded, result.replayed


def test_a_keypoint_that_the_record_lacks_is_said(tmp_path: Path) -> None:
    record = a_run(tmp_path)
    with pytest.raises(ConfigError, match=r"triggers\.pulse: no keypoint 'nose'"):
        changed(record, "pulse", keypoint="nose")


def test_poses_that_never_came_are_said(tmp_path: Path) -> None:
    visits = [("pose", 10_000, x_px, age_us) for x_px, age_us in ((5.0, 500), (45.0, 700))]
    record = Rehearsal(tmp_path).perform([("ready",), *visits])
    assert any("1 poses never reached control" in words for words in replay(record).notes)


# ------------------------------------------------------------------------------- the run's folder


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_settings_of_every_trigger_come_back_from_a_runs_folder(name: str) -> None:
    table = BUILT_IN[name]
    config_type = load("triggers", table["type"]).Config
    config = config_type.model_validate({k: v for k, v in table.items() if k != "type"})
    assert config_type.model_validate(json.loads(json.dumps(config.model_dump()))) == config


def test_a_rig_comes_back_from_a_runs_folder_wherever_that_is(tmp_path: Path) -> None:
    rig = Rehearsal(tmp_path, sorted(TRIGGERS), EXPERIMENTS[2], LATENCIES[2]).rig
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "settings.json").write_text(json.dumps(rig.to_dict()))
    again = load_settings(elsewhere / "settings.json")
    assert again.triggers == rig.triggers
    assert again.outputs == rig.outputs
    assert (again.latency, again.experiment) == (rig.latency, rig.experiment)


#: As the supervisor leaves it.
MANIFEST = {
    "run": "run",
    "ended": True,
    "info": {"inference": {"skeleton": SKELETON.to_dict()}, "control": {"seed": 0}},
    "counters": {},
}


def left_by(record: RunRecord, folder: Path) -> Path:
    (folder / "settings.json").write_text(json.dumps(record.rig.to_dict()))
    (folder / "manifest.json").write_text(json.dumps(MANIFEST))
    return folder


def test_a_runs_folder_is_read(tmp_path: Path) -> None:
    record = a_run(tmp_path)
    again = read_run(left_by(record, tmp_path))
    assert (again.run, again.seed, again.skeleton) == ("run", 0, SKELETON)
    assert again.messages == record.messages
    assert_identical(again)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("manifest.json", None, "give the folder of one run"),
        ("manifest.json", "{", "is not JSON"),
        ("manifest.json", '{"run": "r", "info": {}}', "lacks"),
        ("manifest.json", "[]", "lacks"),
        ("settings.json", None, "cannot be read"),
        ("settings.json", "[]", "is not the settings of a run"),
        ("settings.json", "{", "is not JSON"),
        ("poses.bin", None, "has no poses.bin"),
        ("events.jsonl", None, "events.jsonl: No such file"),
        ("events.jsonl", "{}\n", "log is damaged: .*line 1"),
    ],
)
def test_what_is_not_the_folder_of_a_run_is_refused_in_words(
    tmp_path: Path, name: str, text: str | None, words: str
) -> None:
    left_by(a_run(tmp_path), tmp_path)
    (tmp_path / name).unlink()
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=words):
        read_run(tmp_path)


def test_a_run_without_poses_says_so(tmp_path: Path) -> None:
    rig = Rehearsal(tmp_path).rig
    settings_of = rig.to_dict()
    settings_of["recording"]["poses"] = False
    (tmp_path / "manifest.json").write_text(json.dumps(MANIFEST))
    (tmp_path / "settings.json").write_text(json.dumps(settings_of))
    with pytest.raises(InputError, match=r"ran with \[recording\] poses = false"):
        read_run(tmp_path)
