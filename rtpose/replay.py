"""Runs a recorded run through the engine again: the same events, or where they part.

What came in is in the run's folder: ``poses.bin`` has every pose with the times at which control
took it and at which triggers had decided on it, ``events.jsonl`` has requests, answers and inputs
with the time at which control took them, between the events that came of it all. The engine reads
no clock, so that this, in its order, gives the very events again; outputs are replaced by one that
answers as the record says. What the clock brought about is asked for at the time that its event
has.

With another rig there is no such event to go by: the clock then turns as it does in control.

What no replay knows: triggers that look at a clock or draw random numbers by themselves, and what
the animal would have done if something else had been sent.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from rtpose.actuators import Actuator
from rtpose.comparison import identity
from rtpose.engine import Engine
from rtpose.errors import MessageError, OutputError
from rtpose.events import AT_THE_TERMINAL, CANNOT_WRITE, EventRecord
from rtpose.messages import Ack, AnyMessage, InputEvent, Request, TriggerEvent
from rtpose.pose_log import TakenPose
from rtpose.readiness import Readiness
from rtpose.recorded_output import RecordedAnswers, RecordedOutput, usual_ns
from rtpose.rig import Rig
from rtpose.run_folder import RunRecord

#: How long control waits at most before it looks at its clock again.
_TURN_NS: Final = 5_000_000
#: What control tells of itself, which no engine can find out.
_OF_CONTROL: Final = frozenset({"started", "stopped", "output-failed"})


@dataclass(frozen=True)
class Replayed:
    """What came of a replay.

    Attributes
    ----------
    recorded, replayed : sequence of TriggerEvent
        The events of the record, as far as they can be compared, and those of the replay.
    poses : int
        How many were run through.
    notes : sequence of str
        What the replay could not know, in words.
    """

    recorded: Sequence[TriggerEvent]
    replayed: Sequence[TriggerEvent]
    poses: int
    notes: Sequence[str]


def replay(record: RunRecord, changed: Rig | None = None) -> Replayed:
    """Run a record through the engine again.

    Parameters
    ----------
    record : RunRecord
    changed : Rig, optional
        Another rig to run it through; the one that was recorded if absent.

    Raises
    ------
    ConfigError
        If the rig asks for keypoints that the recorded model does not find.
    MessageError
        If the record is damaged.
    """
    rig = record.rig if changed is None else changed
    rig.check_triggers(record.skeleton)
    if rig.experiment.seed is None:
        experiment = rig.experiment.model_copy(update={"seed": record.seed})
        rig = replace(rig, experiment=experiment)
    return _Replay(record, rig, exact=changed is None).run()


class _Replay:
    """One way through a record."""

    def __init__(self, record: RunRecord, rig: Rig, *, exact: bool) -> None:
        self._record = record
        self._exact = exact
        events = record.events
        self._fails = exact and any(event.kind == "output-failed" for event in events)
        self._answers = RecordedAnswers(record.messages, breaks=self._fails)
        self._replayed: list[TriggerEvent] = []
        self._unmatched: Counter[tuple[object, ...]] = Counter()
        self._told = EventRecord(record.run, round(rig.latency.budget_ms * 1e6), self._take_note)
        self._engine = Engine(
            rig,
            record.skeleton,
            {
                name: Actuator(entry, RecordedOutput(name, self._answers))
                for name, entry in rig.outputs.items()
            },
            Readiness(rig.latency, rate_hz=0.0),
            self._told,
            {},
            self._decided_ns,
            lambda _trigger: None,
        )
        self._decided: dict[str, int] = {}
        self._usual_decision_ns = usual_ns(
            event.decide_ns - event.receive_ns for event in events if event.receive_ns is not None
        )
        self._taken = 0
        self._last_seq: int | None = None
        self._lost_poses = 0
        self._receive_ns = self._done_ns = 0
        self._ticked_ns = 0
        self._failed = False
        self._notes: list[str] = []

    def run(self) -> Replayed:
        """Do it."""
        messages, poses = self._record.messages, 0
        for taken in self._record.poses():
            if taken.records > len(messages):
                break  # the log lost what came before it
            self._take_messages(taken.receive_ns)
            self._take_pose(taken)
            poses += 1
        is_whole = self._record.is_whole(poses)
        self._take_messages(None if is_whole else self._done_ns + 1)
        left = sum(isinstance(message, TriggerEvent) for message in messages[self._taken :])
        if not is_whole:
            self._notes.append(
                f"the record breaks off after {poses} poses: {left} later events are not compared"
            )
        recorded = [m for m in messages[: self._taken] if isinstance(m, TriggerEvent)]
        replayed = self._replayed
        if self._exact and not is_whole:
            replayed = replayed[: len(recorded)]  # the log lost the others
        return Replayed(recorded, replayed, poses, [*self._notes, *self._limits_of(recorded)])

    def _limits_of(self, recorded: Sequence[TriggerEvent]) -> Iterable[str]:
        """Yield what this replay could not know."""
        if self._lost_poses:
            yield f"{self._lost_poses} poses never reached control, and are in no record"
        for event in recorded:
            if event.kind == "output-failed":
                yield f"an output failed, which is as in the record: {event.detail}"
            elif event.kind == "trigger-failed":
                yield (
                    f"trigger {event.trigger!r} raised in the record: if something beside the "
                    "poses made it, that is not here"
                )
        if self._answers.invented and not self._exact:
            yield (
                f"{self._answers.invented} commands are not in the record: they are answered after "
                f"its median of {self._answers.usual_ack_ns / 1e6:.3f} ms"
            )

    # ------------------------------------------------------------------------- what comes in

    def _take_pose(self, taken: TakenPose) -> None:
        self._advance(taken.receive_ns)
        seq = taken.pose.seq
        self._lost_poses += 0 if self._last_seq is None else max(0, seq - self._last_seq - 1)
        self._last_seq = seq
        self._done_ns = max([taken.receive_ns, *(at_ns for _, at_ns in taken.decided)])
        self._receive_ns, self._decided = taken.receive_ns, dict(taken.decided)
        self._guarded(lambda: self._engine.on_pose(taken.pose, taken.receive_ns))

    def _decided_ns(self, trigger: str) -> int:
        """Return when a trigger had decided on the pose, or would have."""
        usual_ns = self._receive_ns + self._usual_decision_ns
        self._answers.now_ns = self._decided.get(trigger, usual_ns)
        return self._answers.now_ns

    def _take_messages(self, end_ns: int | None) -> None:
        """Take what the log has next, up to a time or to its end."""
        messages = self._record.messages
        while self._taken < len(messages):
            message = messages[self._taken]
            at_ns = _time_ns(message)
            if end_ns is not None and at_ns >= end_ns:
                return
            self._taken += 1
            if isinstance(message, TriggerEvent):
                self._take_event(message)
            else:
                self._take_message(message, at_ns)

    def _take_message(self, message: AnyMessage, at_ns: int) -> None:
        self._advance(at_ns)
        if isinstance(message, Ack):
            ack = self._answers.known(message)
            if ack is not None:
                self._engine.on_ack(ack, at_ns)
        elif isinstance(message, InputEvent):
            self._engine.on_input(message, at_ns)
        elif isinstance(message, Request):
            self._take_request(message, at_ns)

    def _take_request(self, request: Request, at_ns: int) -> None:
        if request.action == "arm":
            self._answers.arm_failure = self._failure_to_arm()
        reasons: list[str] = []
        self._guarded(lambda: reasons.extend(self._engine.obey(request, at_ns)))
        if reasons and not self._exact:
            self._notes.append(f"request {request.action!r} was refused: {'; '.join(reasons)}")

    def _failure_to_arm(self) -> str:
        """Return why an output did not arm, from what follows the request; empty if all did."""
        following = islice(self._record.messages, self._taken, None)
        event = next((m for m in following if isinstance(m, TriggerEvent)), None)
        return event.detail if event is not None and event.kind == "disarmed" else ""

    def _take_event(self, event: TriggerEvent) -> None:
        """Let happen what no pose and no message brought about."""
        if event.kind in _OF_CONTROL:
            self._advance(event.decide_ns)
            self._told.tell(event.kind, event.decide_ns, detail=event.detail)
        elif event.kind == "estop" and event.detail == AT_THE_TERMINAL:
            self._advance(event.decide_ns)
            self._engine.stop_at_once(event.detail, event.decide_ns, asked=True)
        elif event.kind == "disarmed" and event.detail.startswith(CANNOT_WRITE):
            self._advance(event.decide_ns)
            self._engine.disarm(event.detail, event.decide_ns)
        elif self._exact and not self._is_known(event):
            of_the_clock = event.frame_id is None and not event.asked
            if of_the_clock and not self._failed:
                self._tick(event.decide_ns)
            self._is_known(event)

    # ------------------------------------------------------------------------------ the clock

    def _advance(self, at_ns: int) -> None:
        """Let happen what control's own clock would have, up to a time."""
        self._answers.now_ns = at_ns
        if not self._exact:
            while self._engine.armed and self._ticked_ns + _TURN_NS < at_ns:
                self._tick(self._ticked_ns + _TURN_NS)
            self._ticked_ns = at_ns
        self._deliver(at_ns)
        self._answers.now_ns = at_ns

    def _tick(self, at_ns: int) -> None:
        self._ticked_ns = self._answers.now_ns = at_ns
        self._deliver(at_ns)
        self._guarded(lambda: self._engine.tick(at_ns))

    def _deliver(self, at_ns: int) -> None:
        """Hand over the answers that the record does not have and that would be here by now."""
        pending = self._answers.pending
        while pending and pending[0].ack_ns <= at_ns:
            ack = pending.popleft()
            self._engine.on_ack(ack, ack.ack_ns)

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except OutputError:  # as in the record, where the run ended by it
            self._failed = True

    # --------------------------------------------------------------------------- what comes out

    def _take_note(self, event: TriggerEvent) -> None:
        self._replayed.append(event)
        if self._exact and event.kind not in _OF_CONTROL:
            self._unmatched[identity(event)] += 1

    def _is_known(self, event: TriggerEvent) -> bool:
        """Return whether the replay gave this event, and count it out."""
        key = identity(event)
        left = self._unmatched.pop(key, 0)
        if left > 1:
            self._unmatched[key] = left - 1
        return left > 0


def _time_ns(message: AnyMessage) -> int:
    """Return when control took a message of the log, or made it."""
    if isinstance(message, TriggerEvent):
        return message.decide_ns
    if isinstance(message, Ack | InputEvent | Request) and message.receive_ns is not None:
        return message.receive_ns
    raise MessageError(f"a {message.type_name} without receive_ns in the run's log")
