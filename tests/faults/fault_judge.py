"""Judges what a fault run left behind: lines low in time, nothing unaccounted for, the record true.

Every rule can fail: ``test_fault_judge.py`` doctors the evidence of a good run.
"""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, Final

from chip_log import CYCLES_PER_MS, CYCLES_PER_US, HANG_CYCLES, Edge, Frame
from fault_kinds import TRIPPED, UNHARMED, Outcome
from fault_plan import LEVELS, PINS, TRACKED
from fault_rig import KILLED, Evidence, events

from rtpose.messages import Ack, Pose, TriggerEvent
from rtpose_hardware.protocol import Request

#: What the promise adds to the watchdog.
_GRACE_CYCLES: Final = CYCLES_PER_MS
#: A pulse may be so much too long when many lines end at once: hardware/README.md, "Figures".
_JITTER_CYCLES: Final = 256
#: From the stop input to all lines low.
_STOP_CYCLES: Final = 50 * CYCLES_PER_US
#: The shortest span in which the dose of the line that has one may be reached.
_DOSED_LINE, _DOSE_WINDOW_CYCLES = PINS["shutter"], 500 * CYCLES_PER_MS
#: A host that is alive may be held up by so much beyond the watchdog's period before it lets go of
#: a level: the machine's doing, not the rig's. No promise is made with it.
_HOST_MS: Final = 250
#: Messages that control had not yet handed to the file when it was killed. They were sent, and a
#: subscriber has them.
MOST_CUT_OFF: Final = 8
_MAKES_SAFE: Final = ("disarmed", "estop", "trigger-failed")
#: What may stand beside the expected words, because one fault brings others about.
_CUT: Final = re.compile("control (was killed|hung|did not end)")


@dataclass
class Verdict:
    """What came out.

    Attributes
    ----------
    violations : list of str
        Empty for a good run.
    watchdog_cycles : int or None
        How long after the last frame and the watchdog's period a line fell, at most; negative if
        the host was quicker. None without a fall.
    width_cycles : int or None
        The same beyond the longest on-time.
    events, commands, cut_off, unaccounted : int
        Events in the log; commands on the wire; messages that a kill cut off the log; and what
        nobody can account for.
    void : bool
        There was nothing to judge: the rig did not come up, or the subscriber did not reach it.
    attempts : int
        How often the run was carried out until there was.
    stalled : bool
        A fault that must change nothing coincided with the machine holding control up for longer
        than the watchdog's period: the board did what it must, and the record says so.
    """

    name: str
    kinds: tuple[str, ...]
    seed: int
    violations: list[str] = field(default_factory=list)
    watchdog_cycles: int | None = None
    width_cycles: int | None = None
    events: int = 0
    commands: int = 0
    cut_off: int = 0
    unaccounted: int = 0
    wrong_record: bool = False
    void: bool = False
    attempts: int = 1
    stalled: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def judge(evidence: Evidence) -> Verdict:
    """Return the verdict on a run."""
    plan = evidence.plan
    verdict = Verdict(plan.name, tuple(kind.name for kind in plan.kinds), plan.seed)
    if not evidence.armed:
        verdict.void = True
        verdict.violations.append("the rig was never armed with a line high, so nothing was tested")
    _judge_lines(evidence, verdict)
    _judge_stops(evidence, verdict)
    _judge_dose(evidence, verdict)
    _judge_freshness(evidence, verdict)
    _judge_order(evidence, verdict)
    _judge_account(evidence, verdict)
    verdict.stalled = _was_stalled(evidence)
    wrong = [] if verdict.stalled else list(_wrong_record(evidence))
    verdict.wrong_record = bool(wrong)
    verdict.violations += wrong
    verdict.violations += [f"left behind: {what}" for what in evidence.left]
    verdict.violations += evidence.complaints
    return verdict


# ----------------------------------------------------------------------------------------- lines


@dataclass(frozen=True)
class _High:
    """A time for which a line was high; `fall` is None if it still was at the end."""

    rise: Edge
    fall: Edge | None


def _highs(edges: Sequence[Edge]) -> Iterator[_High]:
    rises: dict[int, Edge] = {}
    for edge in edges:
        if edge.level:
            rises[edge.line] = edge
        elif edge.line in rises:
            yield _High(rises.pop(edge.line), edge)
    for rise in rises.values():
        yield _High(rise, None)


def _at_most(known: int | None, value: int) -> int:
    return value if known is None else max(known, value)


def _judge_lines(evidence: Evidence, verdict: Verdict) -> None:
    """Hold every fall against the watchdog and the line's limit, in cycles of the chip."""
    plan = evidence.plan
    heard = [frame.cycle for frame in evidence.frames if not frame.deaf]
    hangs = [note.cycle for note in evidence.board if note.what == "hang"]
    for high in _highs(evidence.edges):
        line, fall = high.rise.line, high.fall
        if fall is None:
            verdict.violations.append(f"line {line} is high at the end")
            continue
        if any(0 <= fall.cycle - hang <= HANG_CYCLES + _GRACE_CYCLES for hang in hangs):
            continue  # nothing but the chip's hardware watchdog keeps a limit then
        before = bisect_right(heard, fall.cycle)
        last = heard[before - 1] if before else 0
        late = fall.cycle - last - plan.watchdog_ms * CYCLES_PER_MS
        verdict.watchdog_cycles = _at_most(verdict.watchdog_cycles, late)
        if late > _GRACE_CYCLES:
            verdict.violations.append(
                f"line {line} fell {late} cycles after the last frame and watchdog_ms = "
                f"{plan.watchdog_ms}"
            )
        beyond = fall.cycle - high.rise.cycle - round(plan.longest_ms[line] * CYCLES_PER_MS)
        verdict.width_cycles = _at_most(verdict.width_cycles, beyond)
        if beyond > _JITTER_CYCLES:
            verdict.violations.append(f"line {line} was high {beyond} cycles beyond max_on_ms")


def _judge_stops(evidence: Evidence, verdict: Verdict) -> None:
    """Hold every line against the stop input, which nobody closes again."""
    for note in evidence.board:
        late = [
            edge
            for edge in evidence.edges
            if note.what == "stop" and (edge.level or edge.cycle > note.cycle + _STOP_CYCLES)
            if edge.cycle > note.cycle
        ]
        verdict.violations += [f"line {edge.line} moved after the stop input" for edge in late]


def _judge_dose(evidence: Evidence, verdict: Verdict) -> None:
    """Look at every window that ends with a fall: in no other is a line high for longer."""
    highs = [
        (high.rise.cycle, high.fall.cycle)
        for high in _highs(evidence.edges)
        if high.rise.line == _DOSED_LINE and high.fall is not None
    ]
    allowed = round(evidence.plan.dose_ms * CYCLES_PER_MS)
    for _, end in highs:
        start = end - _DOSE_WINDOW_CYCLES
        spans = [min(fall, end) - max(rise, start) for rise, fall in highs]
        beyond = sum(span for span in spans if span > 0) - allowed
        if beyond > _JITTER_CYCLES:
            verdict.violations.append(f"line {_DOSED_LINE} had {beyond} cycles beyond its dose")


def _judge_freshness(evidence: Evidence, verdict: Verdict) -> None:
    """Hold every level against the last new picture's pose in time, on the host's clock."""
    plan = evidence.plan
    fresh_ns = [
        pose.publish_ns
        for pose in evidence.heard
        if isinstance(pose, Pose)
        and not pose.repeated_ns
        and pose.publish_ns - pose.start_ns <= plan.budget_ms * 1_000_000
    ]
    allowed_ms = plan.gap_ms + plan.watchdog_ms + _HOST_MS
    for high in _highs(evidence.edges):
        if high.rise.line not in LEVELS or high.fall is None:
            continue
        before = bisect_right(fresh_ns, high.fall.host_ns)
        last_ns = fresh_ns[before - 1] if before else high.rise.host_ns
        old_ms = (high.fall.host_ns - last_ns) / 1e6
        if old_ms > allowed_ms:
            verdict.violations.append(
                f"line {high.rise.line} was held {old_ms:.0f} ms after the last good pose, with "
                f"max_pose_gap_ms = {plan.gap_ms}"
            )


def _judge_order(evidence: Evidence, verdict: Verdict) -> None:
    """Nothing that switches a line on leaves the host while the board is not armed."""
    armed = False
    for frame in evidence.frames:
        if frame.kind in (Request.ARM, Request.SAFE):
            armed = frame.kind is Request.ARM
        if frame.action not in ("", "off") and not armed:
            verdict.violations.append(f"an order to line {frame.line} came while disarmed")
    safe = True
    for event in events(evidence.log):
        safe = (safe or event.kind in _MAKES_SAFE) and event.kind != "armed"
        if safe and event.kind == "fire" and _order(event) is not None:
            verdict.violations.append(
                f"event {event.seq} fires, and the board was made safe before"
            )


# --------------------------------------------------------------------------------------- account


def _judge_account(evidence: Evidence, verdict: Verdict) -> None:
    """Every command and every event is in the log, or the record says where it went."""
    logged = events(evidence.log)
    verdict.events = len(logged)
    gone = 0
    numbers = [event.seq for event in logged]
    if numbers != list(range(len(numbers))):
        verdict.violations.append("the log's seq has gaps")
        gone += 1
    gone += _compare_with_wire(evidence, logged, verdict)
    gone += _compare_with_heard(evidence, logged, verdict)
    gone += _look_for_acks(evidence, logged, verdict)
    verdict.unaccounted = gone


def _was_cut_off(evidence: Evidence) -> bool:
    """Whether control died with messages in its hand, and the record says that it did."""
    return bool(_CUT.search(_record(evidence)))


def _lost_by_disk(evidence: Evidence) -> int:
    found = re.search(r"events.jsonl: (\d+) records lost", evidence.stderr)
    return int(found[1]) if found else 0


def _order(event: TriggerEvent) -> tuple[str, int, int] | None:
    command = event.command
    if command is None or event.withheld is not None or command.output != "board":
        return None
    return command.action, PINS[command.line], command.width_us


def _wire_order(frame: Frame) -> tuple[str, int, int]:
    return frame.action, frame.line, frame.width_us


def _compare_with_wire(evidence: Evidence, logged: Sequence[TriggerEvent], verdict: Verdict) -> int:
    """Return how many commands on the wire are in no event, or the other way round."""
    sent = [_wire_order(frame) for frame in evidence.frames if frame.action]
    told = [order for event in logged if (order := _order(event)) is not None]
    verdict.commands = len(sent)
    common = min(len(sent), len(told))
    wrong = sum(a != b for a, b in zip(sent, told, strict=False))
    if wrong:
        verdict.violations.append(f"{wrong} of {common} commands on the wire differ from the log's")
    silent, lost = len(sent) - common, len(told) - common
    if silent and (_was_cut_off(evidence) and silent <= MOST_CUT_OFF):
        verdict.cut_off = max(verdict.cut_off, silent)
        silent = 0
    elif silent and silent <= _lost_by_disk(evidence):
        silent = 0
    if silent:
        verdict.violations.append(f"{silent} commands on the wire are in no event of the log")
    # What was written into a cable that is not there any more reached nobody.
    if lost and not any(note.what == "unplugged" for note in evidence.board):
        verdict.violations.append(f"{lost} commands of the log never were on the wire")
        return wrong + silent + lost
    return wrong + silent


def _compare_with_heard(
    evidence: Evidence, logged: Sequence[TriggerEvent], verdict: Verdict
) -> int:
    """Return how many events were published and are not in the log."""
    heard = events(evidence.heard)
    if not heard:
        verdict.void = True
        verdict.violations.append("the subscriber heard nothing, so the log was not checked")
    numbers = [event.seq for event in heard]
    gaps = sum(after - before - 1 for before, after in pairwise(numbers))
    if gaps:
        verdict.violations.append(f"{gaps} events are missing between those that were published")
    known = {event.seq: event for event in logged}
    differ = sum(event.seq in known and known[event.seq] != event for event in heard)
    if differ:
        verdict.violations.append(f"{differ} events were published otherwise than logged")
    absent = sum(event.seq not in known for event in heard)
    if absent and _was_cut_off(evidence) and absent <= MOST_CUT_OFF:
        verdict.cut_off = max(verdict.cut_off, absent)
        absent = 0
    elif absent and absent <= _lost_by_disk(evidence):
        absent = 0
    if absent:
        verdict.violations.append(f"{absent} published events are not in the log")
    return gaps + differ + absent


def _look_for_acks(evidence: Evidence, logged: Sequence[TriggerEvent], verdict: Verdict) -> int:
    """Return how many commands got no answer without the record saying why."""
    excused = (
        _was_cut_off(evidence)
        or bool(_lost_by_disk(evidence))
        or re.search("NOT CONFIRMED low|output-failed: ", _details(logged)) is not None
        or "the driver came apart" in _record(evidence)  # which may end control in mid-turn
    )
    answers = Counter(m.command_id for m in evidence.log if isinstance(m, Ack))
    asked: dict[str, list[int]] = {}
    for event in logged:
        if event.command is not None and event.withheld is None:
            asked.setdefault(event.command.output, []).append(event.command.command_id)
    silent = 0
    for commands in asked.values():
        open_ends = [number for number in commands if not answers[number]]
        # An output answers in order, so those that are missing belong to its last commands.
        if not excused or open_ends != commands[len(commands) - len(open_ends) :]:
            silent += len(open_ends)
    if silent:
        verdict.violations.append(f"{silent} commands got no answer and no word about it")
    known = {number for commands in asked.values() for number in commands}
    wrong = sum(count - (number in known) for number, count in answers.items())
    if wrong and (_was_cut_off(evidence) or _lost_by_disk(evidence)):
        wrong = 0  # the event that asked is what was cut off
    if wrong:
        verdict.violations.append(f"{wrong} answers to nothing, or to the same command")
    return silent + wrong


# ---------------------------------------------------------------------------------------- record


def _record(evidence: Evidence) -> str:
    """Return what the run says of itself: standard error, and the manifest's problems."""
    return "\n".join([evidence.stderr, *evidence.manifest.get("problems", [])])


def _details(logged: Sequence[TriggerEvent]) -> str:
    return "\n".join(f"{event.kind}: {event.detail}" for event in logged)


def _wrong_record(evidence: Evidence) -> Iterator[str]:
    """Yield what the record should say and does not."""
    plan = evidence.plan
    outcomes = [outcome for kind in plan.kinds for outcome in kind.outcomes]
    if not any(_fits(evidence, outcome) for outcome in outcomes):
        expected = "; or ".join(f"exit code {o.code}, {o.says!r}, {o.logged}" for o in outcomes)
        yield (
            f"the record should say: {expected}. Exit code {evidence.exit_code}, standard error "
            f"{evidence.stderr!r}, problems {evidence.manifest.get('problems')}, last event "
            f"{_details(events(evidence.log)[-1:])!r}"
        )
    names = {kind.name for kind in plan.kinds}
    if names == {"camera-black"}:
        yield from _tracking_not_followed(evidence)
    harmless = all(kind.outcomes == (UNHARMED,) for kind in plan.kinds)
    if harmless and any(event.kind == "disarmed" for event in events(evidence.log)):
        yield "something that must change nothing has disarmed the rig"
    if _lost_by_disk(evidence) and not any(
        event.kind == "disarmed" and "cannot be written" in event.detail
        for event in events(evidence.heard)
    ):
        yield "the rig was not disarmed though its record could not be written"
    if names == {"flood-requests"} and not evidence.manifest["counters"]["control"]["malformed"]:
        yield "malformed requests were not counted"


def _fits(evidence: Evidence, outcome: Outcome) -> bool:
    killed_late = evidence.exit_code == KILLED and evidence.manifest.get("ended") is True
    said = _record(evidence)
    # Its supervisor was killed when all was done and on record.
    if evidence.exit_code != outcome.code and not killed_late:
        return False
    if outcome.code == 0 and said.strip():
        return False
    if not re.search(outcome.says, said):
        return False
    # A supervisor that was killed, or had no room on the disk, has left the manifest of the start.
    if killed_late and not outcome.says and evidence.manifest["problems"]:
        return False
    ended = killed_late or (
        outcome.code >= 0 and not re.search("cannot write .*manifest.json", said)
    )
    if evidence.manifest.get("ended") is not ended:
        return False
    details = _details(events(evidence.log))
    return all(re.search(pattern, details) for pattern in outcome.logged)


def _was_stalled(evidence: Evidence) -> bool:
    """Return whether the board tripped as the record says, though the fault was harmless."""
    if not all(kind.outcomes == (UNHARMED,) for kind in evidence.plan.kinds):
        return False
    watchdog = evidence.plan.watchdog_ms * CYCLES_PER_MS
    cycles = [frame.cycle for frame in evidence.frames]
    silent = any(after - before >= watchdog for before, after in pairwise(cycles))
    return silent and _fits(evidence, TRIPPED)


def _tracking_not_followed(evidence: Evidence) -> Iterator[str]:
    """Yield a word for every time that a lost keypoint did not let go of the laser at once."""
    poses = [pose for pose in evidence.heard if isinstance(pose, Pose)]
    lost = [pose for pose in poses if not pose.valid[0, TRACKED]]
    if not lost:
        yield "the camera went black, and no pose says so"
    laser = [
        event
        for event in events(evidence.log)
        if event.command is not None and event.command.line == "laser"
    ]
    lost_frames = {pose.frame_id for pose in lost}
    for fire, after in pairwise(laser):
        if fire.kind != "fire" or fire.frame_id is None:
            continue
        if fire.frame_id in lost_frames:
            yield f"the laser was fired at frame {fire.frame_id}, which does not show the animal"
        first = next((pose for pose in lost if pose.frame_id > fire.frame_id), None)
        # What ended it before had another reason, such as max_on_ms.
        if first and after.decide_ns > first.publish_ns and after.frame_id != first.frame_id:
            yield (
                f"the laser was let go at frame {after.frame_id}, the animal was lost at frame "
                f"{first.frame_id}"
            )
