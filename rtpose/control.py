"""The control process: poses to decisions, decisions to commands, within the budget and limits.

It has its own clock: time limits, watchdog beats and requests are served whether or not poses come.
Whatever ends it, the outputs are made safe first.
"""

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rtpose.actuators import Actuator, Line
from rtpose.bus import DirectReceiver, Poller, Publisher, RequestServer
from rtpose.clock import now_ns
from rtpose.errors import NotReadyError, OutputError, TriggerError
from rtpose.interfaces import Decision
from rtpose.loop import Loop, go_realtime
from rtpose.messages import (
    Command,
    EventKind,
    Pose,
    Reply,
    Request,
    Status,
    TriggerEvent,
)
from rtpose.readiness import Readiness
from rtpose.rig import Rig
from rtpose.run_log import RunLog
from rtpose.skeleton import Skeleton
from rtpose.trigger_runner import TriggerRunner

_PRIORITY: Final = 55
_WAIT_MS: Final = 5
_STATUS_INTERVAL_NS: Final = 1_000_000_000
#: Poses that are taken before the loop looks at its clock again.
_POSES_PER_TURN: Final = 16


def control(
    loop: Loop,
    rig: Rig,
    skeleton: Skeleton,
    run_folder: Path,
    rate_hz: float,
    from_inference: socket.socket,
) -> None:
    """Decide and act until told to stop; then leave every output safe."""
    log = RunLog(run_folder / "events.jsonl")
    readiness = Readiness(rig.latency, rate_hz)
    body = Control(loop, rig, skeleton, log, readiness, DirectReceiver(from_inference))
    try:
        # First, because threads inherit it: those of the sockets and of the serial port are on the
        # way from pose to command too. The log's thread, which started before, is not.
        if rig.latency.realtime:
            loop.info["notes"] = list(go_realtime(_PRIORITY).notes)
        body.open()
        body.run()
    finally:
        body.close()
        log.close()


class Control:
    """Triggers, limits and outputs of one rig."""

    def __init__(
        self,
        loop: Loop,
        rig: Rig,
        skeleton: Skeleton,
        log: RunLog,
        readiness: Readiness,
        poses: DirectReceiver,
    ) -> None:
        self._loop = loop
        self._rig = rig
        self._skeleton = skeleton
        self._log = log
        self._readiness = readiness
        self._poses = poses
        self._budget_ns = round(rig.latency.budget_ms * 1e6)
        self._actuators: dict[str, Actuator] = {}
        self._triggers: list[TriggerRunner] = []
        self._overruns_in_a_row = 0
        self._seq = 0
        self._command_id = 0
        self._armed = False
        self._next_status_ns = 0
        loop.counters.update(
            poses=0,
            events=0,
            fires=0,
            acks=0,
            unconfirmed=0,
            refused_by_output=0,
            refusals=0,
            overruns=0,
            malformed=0,
        )

    # ------------------------------------------------------------------------------ start and end

    def open(self) -> None:
        """Open every output, prepare every trigger, bind the sockets."""
        stream = self._rig.stream
        for name, entry in self._rig.outputs.items():
            self._loop.doing(f"opening output {name}".encode())
            self._actuators[name] = Actuator(entry)
            self._actuators[name].open()
        for trigger_entry in self._rig.triggers.values():
            actuator = self._actuators[trigger_entry.target[0]]
            self._triggers.append(
                TriggerRunner(trigger_entry, actuator, self._skeleton, self._rig.arena.scale)
            )
        key = stream.curve_secret_key_file
        self._events = Publisher(
            stream.endpoint(stream.event_port), key, lambda: ("status.control", self._status())
        )
        self._requests = RequestServer(stream.endpoint(stream.command_port), key)
        self._poller = Poller(self._poses, self._requests)
        self._loop.doing(b"")

    def run(self) -> None:
        """Serve poses, requests, beats and time limits until told to stop."""
        self._loop.ready(
            {
                "outputs": {
                    name: {"device": actuator.info.device, **actuator.info.facts}
                    for name, actuator in self._actuators.items()
                }
            }
        )
        self._tell("started", now_ns())
        try:
            while self._loop.turn():
                self._poller.wait(_WAIT_MS)
                self.turn()
        except OutputError as error:
            self._tell("output-failed", now_ns(), detail=str(error))
            raise

    def turn(self) -> None:
        """Work off what came, keep limits and beats, answer requests; never waits."""
        for _ in range(_POSES_PER_TURN):
            message = self._poses.receive()
            if message is None:
                break
            if isinstance(message, Pose):
                self._on_pose(message)
            elif isinstance(message, Status):
                self._readiness.take_status(message)
        self._keep_limits()
        self._collect_acks()
        self._beat()
        self._requests.serve(self.answer)
        self._keep_house()

    def close(self) -> None:
        """Make every output safe, then let go of everything."""
        for actuator in self._actuators.values():
            actuator.make_safe()
        unconfirmed = [name for name, a in self._actuators.items() if not a.is_safe]
        if hasattr(self, "_events"):
            self._collect_last_acks()
            self._tell(
                "stopped",
                now_ns(),
                detail=f"NOT CONFIRMED low: {', '.join(unconfirmed)}"
                if unconfirmed
                else "outputs safe",
            )
        for actuator in self._actuators.values():
            actuator.close()
        self._poses.close()
        for name in ("_events", "_requests"):
            if hasattr(self, name):
                getattr(self, name).close()

    # ------------------------------------------------------------------------------------- poses

    def _on_pose(self, pose: Pose) -> None:
        receive_ns = now_ns()
        self._loop.counters["poses"] += 1
        for runner in self._triggers:
            if runner.failure:
                continue
            self._loop.doing(runner.name.encode())
            try:
                decision = runner.update(pose)
                if decision is Decision.NOTHING:
                    continue
                if not self._act(runner, decision, _Moment(pose, receive_ns, now_ns())):
                    runner.refused()
            except TriggerError as error:
                self._disable(runner, error, _Moment(pose, receive_ns, now_ns()))
        self._loop.doing(b"")
        self._readiness.take_pose(pose, now_ns())

    def _disable(
        self, runner: TriggerRunner, error: TriggerError, moment: "_Moment | None" = None
    ) -> None:
        runner.failure = str(error)
        runner.actuator.make_safe()
        self._tell(
            "trigger-failed",
            now_ns(),
            runner,
            moment,
            detail=f"{runner.failure}; disabled, output {runner.actuator.name} made safe",
        )

    def _tell_triggers(self, call: Callable[[TriggerRunner], None]) -> None:
        """Call every trigger that works; one that raises is disabled."""
        for runner in self._triggers:
            if runner.failure:
                continue
            try:
                call(runner)
            except TriggerError as error:
                self._disable(runner, error)

    def _act(self, runner: TriggerRunner, decision: Decision, moment: "_Moment") -> bool:
        """Do what a trigger wants; return False if that is refused."""
        line = runner.line
        holds = line.holder == runner.name
        if decision is Decision.LOW:
            runner.complaint = ""
            line.used_up = line.used_up and not holds
            if line.high_until_ns and holds:
                self._switch_off(line, "the condition ended", runner, moment)
            return True
        if decision is Decision.HIGH and line.high_until_ns and holds:
            return True  # it is high already
        late = moment.decide_ns - moment.pose.start_ns > self._budget_ns
        reason = self._refusal(runner, moment, late)
        if reason is not None:
            kind: EventKind
            kind, detail = reason
            # A level is asked for with every pose: say once why it is not given.
            if decision is Decision.FIRE or runner.complaint != detail:
                self._loop.counters["overruns" if kind == "overrun" else "refusals"] += 1
                self._tell(kind, moment.decide_ns, runner, moment, detail=detail)
            runner.complaint = detail if decision is Decision.HIGH else ""
            if kind == "overrun":
                self._count_overrun()
            return False
        self._overruns_in_a_row = 0
        runner.complaint = ""
        self._switch_on(runner, decision, moment, late)
        return True

    def _count_overrun(self) -> None:
        """Disarm, where the policy says so, after too many overruns in a row."""
        latency = self._rig.latency
        self._overruns_in_a_row += 1
        if latency.policy == "disarm" and self._overruns_in_a_row >= latency.disarm_after:
            self._disarm(f"{self._overruns_in_a_row} overruns of the budget in a row")

    def _refusal(
        self, runner: TriggerRunner, moment: "_Moment", late: bool
    ) -> tuple[EventKind, str] | None:
        if not self._armed or not runner.actuator.armed:
            return "refused", "not armed"
        if late and self._rig.latency.policy != "fire":
            return "overrun", self._lateness
        limit = runner.line.refusal(moment.decide_ns)
        return None if limit is None else ("refused", limit)

    @property
    def _lateness(self) -> str:
        return f"the pose is older than budget_ms = {self._rig.latency.budget_ms:g}"

    def _switch_on(
        self, runner: TriggerRunner, decision: Decision, moment: "_Moment", late: bool
    ) -> None:
        line, pulse_ms = runner.line, runner.pulse_ms
        level = decision is Decision.HIGH
        width_us = line.max_on_us if level or pulse_ms is None else round(pulse_ms * 1000)
        command, command_ns = runner.actuator.switch_on(
            self._next_command(), line, width_us, runner.name, level=level
        )
        self._loop.counters["fires"] += 1
        words = runner.describe()
        if late:
            self._loop.counters["overruns"] += 1
        self._tell(
            "fire",
            moment.decide_ns,
            runner,
            moment,
            command=command,
            command_ns=command_ns,
            detail=f"OVERRUN: {self._lateness}; {words}" if late else words,
        )

    def _switch_off(
        self,
        line: Line,
        why: str,
        runner: TriggerRunner | None = None,
        moment: "_Moment | None" = None,
    ) -> None:
        decide_ns = now_ns() if moment is None else moment.decide_ns
        command, command_ns = self._actuators[line.output].switch_off(self._next_command(), line)
        self._tell(
            "line-off",
            decide_ns,
            runner,
            moment,
            command=command,
            command_ns=command_ns,
            detail=why,
        )

    def _next_command(self) -> int:
        self._command_id += 1
        return self._command_id

    # ------------------------------------------------------------------- limits on the own clock

    def _keep_limits(self) -> None:
        now = now_ns()
        for actuator in self._actuators.values():
            for line in actuator.lines.values():
                if not line.high_until_ns:
                    continue
                if now >= line.high_until_ns:
                    self._time_is_up(line)
                elif line.level and not self._readiness.poses_are_fresh(now):
                    self._tell("stale", now, detail="no pose within the budget for max_pose_gap_ms")
                    self._switch_off(line, "no pose to hold it on")

    def _time_is_up(self, line: Line) -> None:
        if line.level:
            line.used_up = True
            self._switch_off(line, f"max_on_ms = {line.limits.max_on_ms:g} reached")
        else:
            line.note_low(line.high_until_ns)  # the board timed the pulse itself

    def _collect_acks(self) -> None:
        for actuator in self._actuators.values():
            for ack in actuator.acks():
                # A refusal moved nothing; silence is a fault, which the driver raises by itself.
                answered = "acks" if ack.confirmed else "unconfirmed"
                self._loop.counters[answered if ack.ok else "refused_by_output"] += 1
                full = ack.model_copy(update={"run": self._loop.run})
                self._events.publish("ack", full)
                self._log.append(full)

    def _collect_last_acks(self) -> None:
        """Record the answers to what was sent just before the end."""
        try:
            self._collect_acks()
        except OutputError as error:
            self._tell("output-failed", now_ns(), detail=str(error))

    def _beat(self) -> None:
        now = now_ns()
        for actuator in self._actuators.values():
            actuator.beat_if_due(now)

    # ---------------------------------------------------------------------------------- requests

    def answer(self, request: Request) -> Reply:
        """Do what a client asks, and say how it went."""
        reasons: list[str] = []
        if request.action == "arm":
            try:
                self._arm()
            except NotReadyError as error:
                reasons = list(error.reasons)
        elif request.action == "disarm":
            self._disarm("asked for")
        elif request.action == "trial":
            self._tell("trial-started", now_ns())
            self._tell_triggers(TriggerRunner.start_trial)
        elif request.action == "stop":
            self._disarm("stop asked for")
            self._loop.stop_requested = True
        else:
            reasons = self._hindrances()
        return Reply(
            ok=not reasons or request.action == "status",
            state=self.state,
            reasons=reasons,
            status=self._status().model_dump(),
        )

    @property
    def state(self) -> str:
        """Return ``armed`` or ``disarmed``."""
        return "armed" if self._armed else "disarmed"

    def _hindrances(self) -> list[str]:
        """Return every reason why the rig must not be armed now."""
        reasons = [
            f"trigger {runner.name!r} failed: {runner.failure}"
            for runner in self._triggers
            if runner.failure
        ]
        reasons += self._readiness.hindrances(now_ns())
        if self._log.failure:
            reasons.append(f"the run's log cannot be written: {self._log.failure}")
        return reasons

    def _arm(self) -> None:
        reasons = self._hindrances()
        if reasons:
            raise NotReadyError(reasons)
        for actuator in self._actuators.values():
            try:
                actuator.arm()
            except OutputError as error:
                self._disarm(f"output {actuator.name} did not arm")
                raise NotReadyError([f"output {actuator.name!r}: {error}"]) from error
        self._armed = True
        self._overruns_in_a_row = 0
        self._tell("armed", now_ns())
        self._tell_triggers(TriggerRunner.start_session)

    def _disarm(self, why: str) -> None:
        for actuator in self._actuators.values():
            actuator.make_safe()
        self._armed = False
        self._tell("disarmed", now_ns(), detail=why)

    # --------------------------------------------------------------------------------- reporting

    def _tell(
        self,
        kind: EventKind,
        decide_ns: int,
        runner: TriggerRunner | None = None,
        moment: "_Moment | None" = None,
        *,
        command: Command | None = None,
        command_ns: int | None = None,
        detail: str = "",
    ) -> None:
        event = TriggerEvent(
            run=self._loop.run,
            seq=self._seq,
            kind=kind,
            trigger=None if runner is None else runner.name,
            decide_ns=decide_ns,
            command=command,
            command_ns=command_ns,
            budget_ns=self._budget_ns,
            detail=detail[:4000],
            **({} if moment is None else moment.stamps()),
        )
        self._seq += 1
        self._loop.counters["events"] += 1
        self._events.publish("event", event)
        self._log.append(event)

    def _keep_house(self) -> None:
        self._events.serve_subscriptions()
        now = now_ns()
        if now >= self._next_status_ns:
            self._next_status_ns = now + _STATUS_INTERVAL_NS
            self._events.publish("status.control", self._status())
        self._loop.counters["malformed"] = self._poses.malformed + self._requests.malformed
        if self._log.failure and self._armed:
            self._disarm(f"the run's log cannot be written: {self._log.failure}")

    def _status(self) -> Status:
        return Status(
            run=self._loop.run,
            process="control",
            state=self.state,
            sent_ns=now_ns(),
            counters=self._loop.counters,
            info=self._loop.info,
        )


@dataclass(frozen=True, slots=True)
class _Moment:
    """A pose, when control took it, and when a trigger had decided on it."""

    pose: Pose
    receive_ns: int
    decide_ns: int

    def stamps(self) -> Mapping[str, Any]:
        pose = self.pose
        return {
            "camera": pose.camera,
            "frame_id": pose.frame_id,
            "exposure_ns": pose.exposure_ns,
            "arrival_ns": pose.arrival_ns,
            "ready_ns": pose.ready_ns,
            "infer_start_ns": pose.infer_start_ns,
            "infer_end_ns": pose.infer_end_ns,
            "publish_ns": pose.publish_ns,
            "receive_ns": self.receive_ns,
        }
