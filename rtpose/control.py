"""The control process: feeds the engine with poses, time, answers and requests, and records it all.

It has its own clock: time limits, watchdog beats and requests are served whether or not poses come.
Whatever ends it, the outputs are made safe first.
"""

import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from rtpose.actuators import Actuator, make_all_safe
from rtpose.bus import DirectReceiver, Poller, Publisher, RequestServer
from rtpose.clock import now_ns
from rtpose.engine import Engine
from rtpose.errors import OutputError
from rtpose.events import AT_THE_TERMINAL, CANNOT_WRITE, EventRecord
from rtpose.loop import Loop, go_realtime
from rtpose.messages import Pose, Reply, Request, Status, TriggerEvent
from rtpose.pose_log import PoseLog
from rtpose.readiness import Readiness
from rtpose.rig import Rig
from rtpose.run_log import RunLog
from rtpose.skeleton import Skeleton

_PRIORITY: Final = 55
_WAIT_MS: Final = 5
_STATUS_INTERVAL_NS: Final = 1_000_000_000
#: Poses that are taken before the loop looks at its clock again.
_POSES_PER_TURN: Final = 16
#: Some quote what was asked for.
_LONGEST_REASON: Final = 1000


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
    poses = PoseLog(run_folder / "poses.bin") if rig.recording.poses else None
    readiness = Readiness(rig.latency, rate_hz)
    body = Control(loop, rig, skeleton, log, poses, readiness, DirectReceiver(from_inference))
    try:
        # First, because threads inherit it: those of the sockets and of the serial port are on the
        # way from pose to command too. The logs' threads, which started before, are not.
        if rig.latency.realtime:
            loop.info["notes"] = list(go_realtime(_PRIORITY).notes)
        body.open()
        body.run()
    finally:
        body.close()
        try:
            log.close()
        finally:
            if poses is not None:
                poses.close()


class Control:
    """The engine of one rig, with its sockets, its record and its clock."""

    def __init__(
        self,
        loop: Loop,
        rig: Rig,
        skeleton: Skeleton,
        log: RunLog,
        pose_log: PoseLog | None,
        readiness: Readiness,
        poses: DirectReceiver,
    ) -> None:
        self._loop = loop
        self._rig = rig
        self._skeleton = skeleton
        self._log = log
        self._pose_log = pose_log
        self._readiness = readiness
        self._poses = poses
        self._actuators: dict[str, Actuator] = {}
        self._record = EventRecord(loop.run, round(rig.latency.budget_ms * 1e6), self._pass_on)
        self._decided: list[tuple[str, int]] = []
        self._next_status_ns = 0
        loop.counters.update(events=0, malformed=0)

    # ------------------------------------------------------------------------------ start and end

    def open(self) -> None:
        """Open every output, prepare every trigger, bind the sockets."""
        stream = self._rig.stream
        for name, entry in self._rig.outputs.items():
            self._actuators[name] = Actuator(entry, doing=self._loop.doing)
            self._actuators[name].open()
        self._engine = Engine(
            self._rig,
            self._skeleton,
            self._actuators,
            self._readiness,
            self._record,
            self._loop.counters,
            self._decided_ns,
            self._loop.doing,
        )
        key = stream.curve_secret_key_file
        self._events = Publisher(
            stream.endpoint(stream.event_port), key, lambda: ("status.control", self._status())
        )
        self._requests = RequestServer(stream.endpoint(stream.command_port), key)
        # Requests wake nobody: they wait for the next turn, at most _WAIT_MS away. Under a flood of
        # them the loop would never rest, and a system that does not let a real-time process take
        # all of a processor (Linux: 95 % of each second) would hold it up for tens of milliseconds.
        self._poller = Poller(self._poses)

    def run(self) -> None:
        """Serve poses, requests, beats and time limits until told to stop."""
        self._loop.ready(
            {
                "outputs": {
                    name: {"device": actuator.info.device, **actuator.info.facts}
                    for name, actuator in self._actuators.items()
                },
                "seed": self._engine.seed,
            }
        )
        self._record.tell("started", now_ns(), detail=f"seed {self._engine.seed}")
        try:
            while self._loop.turn():
                self._poller.wait(self._wait_ms())
                self.turn()
        except OutputError as error:
            self._record.tell("output-failed", now_ns(), detail=str(error))
            raise

    def _wait_ms(self) -> int:
        """Return how long to wait for something to come: no longer than until the next due time."""
        next_ns = self._engine.next_ns
        if next_ns is None:
            return _WAIT_MS
        return max(0, min(_WAIT_MS, (next_ns - now_ns()) // 1_000_000))

    def turn(self) -> None:
        """Work off what came, keep limits and beats, answer requests; never waits."""
        if self._loop.estop_ordered:
            self._loop.estop_ordered = False
            self._engine.stop_at_once(AT_THE_TERMINAL, now_ns(), asked=True)
        for _ in range(_POSES_PER_TURN):
            message = self._poses.receive()
            if message is None:
                break
            if isinstance(message, Pose):
                self._on_pose(message)
            elif isinstance(message, Status):
                self._readiness.take_status(message)
        self._engine.tick(now_ns())
        self._collect()
        self._beat()
        self._requests.serve(self.answer)
        self._keep_house()

    def _on_pose(self, pose: Pose) -> None:
        receive_ns = now_ns()
        records, self._decided = self._log.appended, []
        try:
            self._engine.on_pose(pose, receive_ns)
        finally:  # the pose on which an output fails is the one to look at
            if self._pose_log is not None:
                self._pose_log.append(pose, receive_ns, records, self._decided)

    def _decided_ns(self, trigger: str) -> int:
        now = now_ns()
        self._decided.append((trigger, now))
        return now

    def close(self) -> None:
        """Make every output safe, then let go of everything, whatever a driver raises."""
        with ExitStack() as stack:  # the last one first
            for name in ("_events", "_requests"):
                if hasattr(self, name):
                    stack.callback(getattr(self, name).close)
            stack.callback(self._poses.close)
            for actuator in self._actuators.values():
                stack.callback(actuator.close)
            stack.callback(self._tell_the_end)
            stack.callback(make_all_safe, self._actuators.values(), now_ns())

    def _tell_the_end(self) -> None:
        if not hasattr(self, "_events"):
            return
        self._collect_the_last()
        unconfirmed = [name for name, actuator in self._actuators.items() if not actuator.is_safe]
        words = f"NOT CONFIRMED low: {', '.join(unconfirmed)}" if unconfirmed else "outputs safe"
        self._record.tell("stopped", now_ns(), detail=words)

    # ------------------------------------------------------------------------------------ outputs

    def _collect(self) -> None:
        """Take what outputs answered, and what happened at their inputs."""
        for actuator in self._actuators.values():
            for ack in actuator.acks():
                now = now_ns()
                full = ack.model_copy(update={"run": self._loop.run, "receive_ns": now})
                self._events.publish("ack", full)
                self._log.append(full)
                self._engine.on_ack(full, now)
            for event in actuator.inputs():
                now = now_ns()
                known = event.model_copy(
                    update={"run": self._loop.run, "output": actuator.name, "receive_ns": now}
                )
                self._events.publish("input", known)
                self._log.append(known)
                self._engine.on_input(known, now)

    def _collect_the_last(self) -> None:
        """Record the answers to what was sent just before the end."""
        try:
            self._collect()
        except OutputError as error:
            self._record.tell("output-failed", now_ns(), detail=str(error))

    def _beat(self) -> None:
        now = now_ns()
        for actuator in self._actuators.values():
            actuator.beat_if_due(now)

    # ---------------------------------------------------------------------------------- requests

    def answer(self, request: Request) -> Reply:
        """Do what a client asks, and say how it went."""
        reasons = [reason[:_LONGEST_REASON] for reason in self._do(request)]
        return Reply(
            ok=not reasons or request.action == "status",
            state=self.state,
            reasons=reasons,
            status=self._status().model_dump(),
        )

    def _do(self, request: Request) -> list[str]:
        """Do what a client asks; return every reason why not, if not."""
        if request.action in ("status", "arm"):
            hindrances = self._hindrances()
            if hindrances or request.action == "status":
                return hindrances
        now = now_ns()
        self._log.append(request.model_copy(update={"receive_ns": now}))
        reasons = self._engine.obey(request, now)
        if request.action == "stop":
            self._loop.stop_requested = True
        return reasons

    def _hindrances(self) -> list[str]:
        """Return every reason why the rig must not be armed now."""
        reasons = self._engine.hindrances + self._readiness.hindrances(now_ns())
        failure = self._log_failure
        return [*reasons, f"{CANNOT_WRITE}: {failure}"] if failure else reasons

    @property
    def state(self) -> str:
        """Return ``armed``, ``disarmed``, or ``stopped`` after an emergency stop."""
        if self._engine.latched:
            return "stopped"
        return "armed" if self._engine.armed else "disarmed"

    # --------------------------------------------------------------------------------- reporting

    def _pass_on(self, event: TriggerEvent) -> None:
        self._loop.counters["events"] += 1
        self._events.publish("event", event)
        self._log.append(event)

    @property
    def _log_failure(self) -> str:
        return self._log.failure or ("" if self._pose_log is None else self._pose_log.failure)

    def _keep_house(self) -> None:
        self._events.serve_subscriptions()
        now = now_ns()
        if now >= self._next_status_ns:
            self._next_status_ns = now + _STATUS_INTERVAL_NS
            self._events.publish("status.control", self._status())
        counters, requests = self._loop.counters, self._requests
        counters["malformed"] = self._poses.malformed + requests.malformed
        counters["unanswered"] = requests.unanswered
        counters["failed_handshakes"] = requests.failed_handshakes
        self._loop.info["state"] = self.state
        if self._log_failure and self._engine.armed:
            self._engine.disarm(f"{CANNOT_WRITE}: {self._log_failure}", now)

    def _status(self) -> Status:
        outputs = {name: dict(actuator.facts()) for name, actuator in self._actuators.items()}
        return Status(
            run=self._loop.run,
            process="control",
            state=self.state,
            sent_ns=now_ns(),
            counters=self._loop.counters,
            info={**self._loop.info, **self._engine.facts(), "facts": outputs},
        )
