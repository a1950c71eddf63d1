"""The judge of the fault runs must be able to fail: good evidence, doctored in one place each."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from chip_log import CYCLES_PER_MS, CYCLES_PER_US, HANG_CYCLES, Edge, Frame, Note
from fault_judge import MOST_CUT_OFF, Verdict, judge
from fault_plan import Plan, make_plan
from fault_rig import KILLED, Evidence

from rtpose.messages import Ack, AnyMessage, Command, EventKind, Pose, TriggerEvent
from rtpose_hardware.protocol import Request

Doctor = Callable[[Evidence], None]

WATCHDOG_MS = 100
LASER_MS = 400
GAP_MS = 200
LASER, VALVE = 0, 6


def plan(kind: str) -> Plan:
    return replace(
        make_plan(1, kind),
        watchdog_ms=WATCHDOG_MS,
        laser_ms=LASER_MS,
        valve_ms=LASER_MS,
        gap_ms=GAP_MS,
        budget_ms=500,
    )


def edge(at_ms: float, line: int, level: int) -> Edge:
    return Edge(round(at_ms * 1e6), round(at_ms * CYCLES_PER_MS), line, level)


def frame(at_ms: float, kind: Request, line: int = 0, width_us: int = 0) -> Frame:
    return Frame(round(at_ms * CYCLES_PER_MS), kind, line, width_us)


def event(
    seq: int,
    kind: EventKind,
    at_ms: float,
    command: Command | None = None,
    frame_id: int | None = None,
    detail: str = "",
) -> TriggerEvent:
    return TriggerEvent(
        run="r",
        seq=seq,
        kind=kind,
        decide_ns=round(at_ms * 1e6),
        command=command,
        frame_id=frame_id,
        trigger=None if command is None else "everywhere",
        detail=detail,
    )


def command(number: int, action: str, width_us: int, line: str = "laser") -> Command:
    return Command.model_validate(
        {
            "command_id": number,
            "output": "board",
            "line": line,
            "action": action,
            "width_us": width_us,
        }
    )


def ack(number: int, line: str = "laser") -> Ack:
    return Ack(command_id=number, output="board", line=line, ok=True, command_ns=1, ack_ns=2)


def pose(at_ms: float, frame_id: int, *, valid: bool = True) -> Pose:
    at_ns = round(at_ms * 1e6)
    return Pose(
        run="r",
        camera="arena",
        seq=frame_id,
        frame_id=frame_id,
        dropped=0,
        exposure_ns=None,
        arrival_ns=at_ns,
        ready_ns=at_ns,
        infer_start_ns=at_ns,
        infer_end_ns=at_ns,
        publish_ns=at_ns,
        keypoints=np.zeros((1, 6, 3), np.float32),
        valid=np.full((1, 6), valid, np.uint8),
    )


def evidence(kind: str = "capture-term") -> Evidence:
    """Return what a good run leaves: two fires and two ends of the laser, and a pulse."""
    width_us = LASER_MS * 1000
    log: list[AnyMessage] = [
        event(0, "started", 0),
        event(1, "armed", 10),
        event(2, "fire", 20, command(1, "on", width_us), 2),
        ack(1),
        event(3, "line-off", 60, command(2, "off", 0), 6),
        ack(2),
        event(4, "fire", 70, command(3, "pulse", 5000, "valve"), 7),
        ack(3, "valve"),
        event(5, "fire", 90, command(4, "on", width_us), 9),
        ack(4),
        event(6, "line-off", 120, command(5, "off", 0), 12),
        ack(5),
        event(7, "stopped", 200, detail="outputs safe"),
    ]
    return Evidence(
        plan(kind),
        exit_code=0,
        manifest={"ended": True, "problems": [], "counters": {"control": {"malformed": 0}}},
        log=log,
        heard=[*log[1:-1], *(pose(at_ms, at_ms // 10) for at_ms in range(0, 210, 10))],
        frames=[
            frame(10, Request.ARM),
            frame(20, Request.ON, LASER, width_us),
            frame(45, Request.BEAT),
            frame(60, Request.OFF, LASER),
            frame(70, Request.PULSE, VALVE, 5000),
            frame(90, Request.ON, LASER, width_us),
            frame(120, Request.OFF, LASER),
            frame(200, Request.SAFE),
        ],
        edges=[
            edge(20, LASER, 1),
            edge(60, LASER, 0),
            edge(70, VALVE, 1),
            edge(75, VALVE, 0),
            edge(90, LASER, 1),
            edge(120, LASER, 0),
        ],
        board=[Note(0, "opened"), Note(1, "reset")],
        armed=True,
    )


def fall_at(found: Evidence, at_ms: float) -> None:
    """Let the laser fall later than it did, with nobody having asked for it."""
    found.edges[-1] = edge(at_ms, LASER, 0)
    found.frames[-2:] = []
    found.log = [m for m in found.log if not (isinstance(m, TriggerEvent) and m.seq >= 6)]
    found.log = [m for m in found.log if not (isinstance(m, Ack) and m.command_id == 5)]
    found.heard = [m for m in found.heard if not (isinstance(m, TriggerEvent) and m.seq >= 6)]
    found.log.append(event(6, "stopped", 200, detail="outputs safe"))


def test_a_good_run_is_good() -> None:
    verdict = judge(evidence())
    assert verdict == Verdict(
        verdict.name,
        ("capture-term",),
        1,
        [],
        watchdog_cycles=verdict.watchdog_cycles,
        width_cycles=-(LASER_MS - 40) * CYCLES_PER_MS,
        events=8,
        commands=5,
    )


@pytest.mark.parametrize("late_cycles", [1, 16_000])
def test_the_watchdog_and_a_millisecond_are_granted(late_cycles: int) -> None:
    found = evidence()
    fall_at(found, 90 + WATCHDOG_MS + late_cycles / CYCLES_PER_MS)
    verdict = judge(found)
    assert verdict.violations == []
    assert verdict.watchdog_cycles == late_cycles


def late(found: Evidence) -> None:
    fall_at(found, 90 + WATCHDOG_MS + 16_001 / CYCLES_PER_MS)


def still_high(found: Evidence) -> None:
    del found.edges[-1]


def too_long(found: Evidence) -> None:
    found.plan = replace(found.plan, laser_ms=29, watchdog_ms=50)


def held_without_poses(found: Evidence) -> None:
    found.plan = replace(found.plan, watchdog_ms=1000, laser_ms=60_000)
    fall_at(found, 90 + 900 + GAP_MS)
    found.frames.append(frame(1000, Request.BEAT))
    found.plan = replace(found.plan, watchdog_ms=500)


def held_by_one_picture(found: Evidence) -> None:
    held_without_poses(found)
    found.heard += [
        replace(pose(at_ms, at_ms // 10), repeated_ns=1) for at_ms in range(210, 1300, 10)
    ]


def order_before_arming(found: Evidence) -> None:
    found.frames[0], found.frames[1] = found.frames[1], found.frames[0]


def order_after_safe(found: Evidence) -> None:
    found.frames.append(frame(201, Request.PULSE, VALVE, 5000))


def fire_after_a_failure(found: Evidence) -> None:
    found.log[5:5] = [event(4, "trigger-failed", 65)]
    found.log[6:] = [
        m.model_copy(update={"seq": m.seq + 1}) if isinstance(m, TriggerEvent) else m
        for m in found.log[6:]
    ]


def command_without_event(found: Evidence) -> None:
    found.frames.insert(-1, frame(125, Request.PULSE, VALVE, 5000))


def command_of_another_width(found: Evidence) -> None:
    found.frames[4] = frame(70, Request.PULSE, VALVE, 5001)


def command_that_never_left(found: Evidence) -> None:
    del found.frames[-2]


def event_that_is_only_published(found: Evidence) -> None:
    found.heard.append(event(8, "disarmed", 210))


def event_published_otherwise(found: Evidence) -> None:
    found.heard[0] = event(1, "armed", 11)


def events_lost_on_the_way(found: Evidence) -> None:
    found.heard = [m for m in found.heard if not (isinstance(m, TriggerEvent) and m.seq == 4)]


def nothing_heard(found: Evidence) -> None:
    found.heard = []


def gap_in_the_log(found: Evidence) -> None:
    found.log = [m for m in found.log if not (isinstance(m, TriggerEvent) and m.seq == 1)]


def silent_board(found: Evidence) -> None:
    found.log = [m for m in found.log if not (isinstance(m, Ack) and m.command_id == 5)]


def silence_in_the_middle(found: Evidence) -> None:
    found.log = [m for m in found.log if not (isinstance(m, Ack) and m.command_id == 3)]
    found.log.insert(-1, event(7, "output-failed", 200, detail="the board is gone"))
    found.log[-1] = event(8, "stopped", 200, detail="outputs safe")


def answer_to_nothing(found: Evidence) -> None:
    found.log.append(ack(17))


def harm(found: Evidence) -> None:
    found.exit_code = 1


def complaint(found: Evidence) -> None:
    found.stderr = "rtpose: capture was killed by SIGKILL"


def no_end(found: Evidence) -> None:
    found.manifest = {**found.manifest, "ended": False}


def no_last_word(found: Evidence) -> None:
    found.log[-1] = event(7, "stopped", 200, detail="NOT CONFIRMED low: board")


def disarmed(found: Evidence) -> None:
    found.log.insert(-1, event(7, "disarmed", 200))
    found.log[-1] = event(8, "stopped", 200, detail="outputs safe")


def process_left(found: Evidence) -> None:
    found.left.append("process 7 rtpose-control")


def complained(found: Evidence) -> None:
    found.complaints.append("estop: the rig answered armed")


def never_armed(found: Evidence) -> None:
    found.armed = False


@pytest.mark.parametrize(
    ("doctor", "words"),
    [
        (late, "line 0 fell 16001 cycles after the last frame"),
        (still_high, "line 0 is high at the end"),
        (too_long, "line 0 was high 16000 cycles beyond max_on_ms"),
        (held_without_poses, "line 0 was held"),
        (held_by_one_picture, "line 0 was held"),
        (order_before_arming, "an order to line 0 came while disarmed"),
        (order_after_safe, "an order to line 6 came while disarmed"),
        (fire_after_a_failure, "event 5 fires, and the board was made safe before"),
        (command_without_event, "1 commands on the wire"),
        (command_of_another_width, "1 of 5 commands on the wire differ"),
        (command_that_never_left, "1 commands of the log never were on the wire"),
        (event_that_is_only_published, "1 published events are not in the log"),
        (event_published_otherwise, "1 events were published otherwise than logged"),
        (events_lost_on_the_way, "1 events are missing between those that were published"),
        (nothing_heard, "the subscriber heard nothing"),
        (gap_in_the_log, "the log's seq has gaps"),
        (silent_board, "1 commands got no answer and no word about it"),
        (silence_in_the_middle, "1 commands got no answer and no word about it"),
        (answer_to_nothing, "1 answers to nothing"),
        (harm, "the record should say: exit code 0"),
        (complaint, "the record should say: exit code 0"),
        (no_end, "the record should say: exit code 0"),
        (no_last_word, "the record should say: exit code 0"),
        (disarmed, "something that must change nothing has disarmed the rig"),
        (process_left, "left behind: process 7"),
        (complained, "estop: the rig answered armed"),
        (never_armed, "the rig was never armed"),
    ],
)
def test_what_is_wrong_is_seen(doctor: Doctor, words: str) -> None:
    found = evidence()
    doctor(found)
    assert any(violation.startswith(words) for violation in judge(found).violations), words


def killed_control(cut_off: int) -> Evidence:
    """Return a run whose control was killed with so many messages in its hand."""
    found = evidence("control-kill")
    found.exit_code, found.stderr = 1, "rtpose: control was killed by SIGKILL"
    found.log.pop()
    found.heard += [event(7 + n, "refused", 200) for n in range(cut_off)]
    return found


def test_what_a_kill_cuts_off_the_log_is_bounded_and_reported() -> None:
    verdict = judge(killed_control(MOST_CUT_OFF))
    assert (verdict.violations, verdict.cut_off) == ([], MOST_CUT_OFF)
    assert judge(killed_control(MOST_CUT_OFF + 1)).unaccounted == MOST_CUT_OFF + 1


@pytest.mark.parametrize("told", [True, False])
def test_a_record_that_cannot_be_written_must_disarm(told: bool) -> None:
    found = evidence("disk-limit")
    found.exit_code = 1
    found.stderr = "x/events.jsonl: 3 records lost: cannot write x/events.jsonl: File too large"
    del found.log[-3:]
    if told:
        detail = "the run's record cannot be written: File too large"
        found.heard.append(event(7, "disarmed", 210, detail=detail))
    assert judge(found).wrong_record is not told


@pytest.mark.parametrize("stderr", ["", "rtpose: inference was killed by SIGKILL"])
def test_a_record_that_does_not_name_the_dead_process_is_wrong(stderr: str) -> None:
    found = killed_control(0)
    found.stderr = stderr
    assert judge(found).wrong_record


def test_a_supervisor_that_was_killed_leaves_a_manifest_without_an_end() -> None:
    found = evidence("supervisor-kill")
    found.exit_code, found.manifest = KILLED, {**found.manifest, "ended": False}
    assert judge(found).violations == []
    # Unless it was killed when all was done: then the manifest says how it ended.
    found.manifest = {**found.manifest, "ended": True, "problems": ["capture hung"]}
    assert judge(found).wrong_record
    found.manifest = {**found.manifest, "problems": []}
    assert judge(found).violations == []


@pytest.mark.parametrize(("late_cycles", "good"), [(HANG_CYCLES, True), (HANG_CYCLES * 2, False)])
def test_a_hung_chip_has_until_its_hardware_watchdog(late_cycles: int, good: bool) -> None:
    found = evidence("board-hang")
    found.plan = replace(found.plan, watchdog_ms=50)
    hang_ms = 135.0
    fall_at(found, hang_ms + late_cycles / CYCLES_PER_MS)
    found.frames += [replace(frame(140 + n, Request.BEAT), deaf=True) for n in range(0, 100, 5)]
    found.board.append(Note(round(hang_ms * CYCLES_PER_MS), "hang"))
    late_words = [v for v in judge(found).violations if "fell" in v]
    assert bool(late_words) is not good


@pytest.mark.parametrize(("late_us", "good"), [(50, True), (51, False)])
def test_the_stop_input_drops_what_is_high_at_once(late_us: int, good: bool) -> None:
    found = evidence("stop-input")
    found.log.insert(-1, event(7, "estop", 119, detail="input stop of output board"))
    found.log[-1] = event(8, "stopped", 200, detail="outputs safe")
    stop = Note(found.edges[-1].cycle - late_us * CYCLES_PER_US, "stop")
    found.board.append(stop)
    assert (judge(found).violations == []) is good


def test_after_the_stop_input_nothing_rises() -> None:
    found = evidence("stop-input")
    found.board.append(Note(80 * CYCLES_PER_MS, "stop"))
    assert "line 0 moved after the stop input" in judge(found).violations


@pytest.mark.parametrize(("dose_ms", "good"), [(60.0, True), (59.9, False)])
def test_a_dose_is_kept_in_every_window(dose_ms: float, good: bool) -> None:
    found = evidence()
    found.plan = replace(found.plan, dose_ms=dose_ms)
    # 60 ms within 500 ms, and more before.
    times_ms = [(100, 130), (300, 330), (640, 670)]
    found.edges = [e for rise, fall in times_ms for e in (edge(rise, 5, 1), edge(fall, 5, 0))]
    found.frames += [frame(at_ms, Request.BEAT) for at_ms in range(250, 700, 50)]
    assert (judge(found).violations == []) is good


@pytest.mark.parametrize(("silent_ms", "stalled"), [(WATCHDOG_MS, True), (WATCHDOG_MS - 1, False)])
def test_a_stall_of_the_machine_is_told_from_a_record_that_is_wrong(
    silent_ms: int, stalled: bool
) -> None:
    found = evidence()
    found.exit_code = 1
    found.stderr = "rtpose: control: the board dropped its lines and disarmed: it had no heartbeat"
    found.frames[-1] = frame(120 + silent_ms, Request.SAFE)
    verdict = judge(found)
    assert (verdict.stalled, verdict.wrong_record) == (stalled, not stalled)


def test_commands_into_an_unplugged_cable_need_no_place_on_the_wire() -> None:
    found = evidence("board-unplug")
    del found.frames[-2]
    found.edges[-1] = edge(130, LASER, 0)
    found.board.append(Note(100 * CYCLES_PER_MS, "unplugged"))
    found.exit_code, found.stderr = 1, "rtpose: control: the board on x is gone: unplugged"
    found.log[-1] = event(7, "output-failed", 200, detail="the board on x is gone")
    assert judge(found).wrong_record, "it must also say that nobody knows whether the lines are low"
    found.log.append(event(8, "stopped", 200, detail="NOT CONFIRMED low: board"))
    assert judge(found).violations == []


@pytest.mark.parametrize(("lost_from", "good"), [(6, True), (5, False), (99, False)])
def test_a_lost_animal_lets_go_of_the_laser_at_once(lost_from: int, good: bool) -> None:
    found = evidence("camera-black")
    found.heard = [m for m in found.heard if not isinstance(m, Pose)]
    # It is let go at frame 6, and fired again at frame 9, when it is back.
    found.heard += [pose(n * 10, n, valid=not lost_from <= n < 9) for n in range(20)]
    assert judge(found).wrong_record is not good
