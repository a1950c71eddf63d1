"""What a rig decides and does: poses, time, answers and requests in; commands and events out.

It reads no clock and no socket, so that the same inputs in the same order give the same events
again: `rtpose.control` runs it live, `rtpose.replay` over a record.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from rtpose.actuators import Actuator, Line
from rtpose.decider import Decider
from rtpose.errors import InputError, NotReadyError, OutputError
from rtpose.events import EventRecord
from rtpose.experiment import Experiment, Happening
from rtpose.messages import Ack, Command, InputEvent, Pose, Request
from rtpose.readiness import Readiness
from rtpose.rig import Rig
from rtpose.skeleton import Skeleton
from rtpose.switchboard import Switchboard
from rtpose.trigger_runner import TriggerRunner
from rtpose.yoke import YokedAct, YokedActs, read_all_yoked_acts

_LATCHED: Final = "the emergency stop was used: release it first (rtpose release)"
_NEVER_REFUSED: Final = frozenset({"disarm", "estop", "release", "stop"})
_COUNTERS: Final = (
    "poses",
    "fires",
    "withheld",
    "acks",
    "unconfirmed",
    "refused_by_output",
    "refusals",
    "overruns",
    "inputs",
    "emergency_stops",
)


class Engine:
    """Triggers, experiment, limits and outputs of one rig.

    Parameters
    ----------
    rig : Rig
    skeleton : Skeleton
        Of the model.
    actuators : mapping of str to Actuator
        The outputs, opened.
    readiness : Readiness
        Follows the stream of poses.
    record : EventRecord
        Is told everything that happens.
    counters : dict of str to int
        Counts it.
    decided_ns : callable
        Gets the name of a trigger that has just decided something, and returns the time.
    doing : callable
        Gets the name of the trigger that is at work, and nothing when none is.

    Attributes
    ----------
    armed : bool
    latched : bool
        An emergency stop was not released yet.
    seed : int
        Of every random draw.
    """

    def __init__(
        self,
        rig: Rig,
        skeleton: Skeleton,
        actuators: Mapping[str, Actuator],
        readiness: Readiness,
        record: EventRecord,
        counters: dict[str, int],
        decided_ns: Callable[[str], int],
        doing: Callable[[bytes], None],
    ) -> None:
        self._rig = rig
        self._readiness = readiness
        self._record = record
        self._counters = counters
        counters.update(dict.fromkeys(_COUNTERS, 0))
        self._switchboard = Switchboard(actuators, record)
        self._experiment = Experiment(rig.experiment)
        self._decider = Decider(
            rig,
            skeleton,
            actuators,
            self._switchboard,
            self._experiment,
            record,
            counters,
            decided_ns,
            doing,
        )
        self._yoked = YokedActs(read_all_yoked_acts(rig))
        self.armed = False
        self.latched = False
        self.seed = self._experiment.seed

    # -------------------------------------------------------------------------- what comes in

    def on_pose(self, pose: Pose, receive_ns: int) -> None:
        """Let every trigger decide on a pose, and do what they want where it is allowed."""
        # What was due by then comes first, however long ago the loop last looked at its clock.
        self.tick(receive_ns)
        self._decider.on_pose(pose, receive_ns)
        self._readiness.take_pose(pose, receive_ns)
        latency, overruns = self._rig.latency, self._decider.overruns_in_a_row
        if self.armed and latency.policy == "disarm" and overruns >= latency.disarm_after:
            self.disarm(f"{overruns} overruns of the budget in a row", receive_ns)

    def tick(self, now: int) -> None:
        """Keep time limits, trials and yoked times; called whether or not poses come."""
        if self.armed:
            for happening in self._experiment.tick(now):
                self._take_step(happening, now)
            for name, act in self._yoked.due(now):
                self._repeat(self._decider.runners[name], act, now)
        fresh = self._readiness.poses_are_fresh(now)
        self._switchboard.keep_limits(now, poses_are_fresh=fresh)

    @property
    def next_ns(self) -> int | None:
        """When `tick` has something to do at a time that is known, beside keeping limits."""
        times = [at for at in (self._experiment.next_ns, self._yoked.next_ns) if at is not None]
        return min(times, default=None)

    def on_ack(self, ack: Ack, now: int) -> None:
        """Take the answer of an output."""
        self._switchboard.take_ack(ack, now)
        # A refusal moved nothing; silence is a fault, which the driver raises by itself.
        answered = "acks" if ack.confirmed else "unconfirmed"
        self._counters[answered if ack.ok else "refused_by_output"] += 1
        self._decider.on_ack(ack)
        if not ack.ok and self._switchboard.was_switched_off_by(ack):
            line = f"{ack.output}.{ack.line}"
            self.disarm(f"{line} may still be high: {ack.detail}", ack.ack_ns)

    def on_input(self, event: InputEvent, now: int) -> None:
        """Take what happened at an input of an output."""
        self._counters["inputs"] += 1
        if event.stop:
            self.stop_at_once(f"input {event.input} of output {event.output}", now)

    def facts(self) -> dict[str, Any]:
        """Return what the status says of it."""
        return {
            "seed": self.seed,
            "trial": self._experiment.trial,
            "forecast": self._decider.forecast_report(),
        }

    def obey(self, request: Request, now: int) -> list[str]:
        """Do what a client asks; return every reason why not, if not.

        Whoever calls it with ``arm`` has looked first whether anything hinders it.
        """
        if request.action in _NEVER_REFUSED:
            self._obey_at_once(request.action, now)
            return []
        self.tick(now)  # what was due by then comes first, as with a pose
        match request.action:
            case "arm":
                return self._arm_or_say(now)
            case "trial":
                return self.start_trial(now)
            case "end-trial":
                return self.end_trial(now)
            case "fire":
                return self.fire_test(request.line or "", request.width_ms or 0, now)
            case "set":
                trigger, key = request.trigger or "", request.key or ""
                return self.set_parameter(trigger, key, request.value, now)
        return []

    def _obey_at_once(self, action: str, now: int) -> None:
        """Do what is never refused."""
        match action:
            case "disarm":
                self.disarm("asked for", now, asked=True)
            case "estop":
                self.stop_at_once("asked for", now, asked=True)
            case "release":
                self.release(now)
            case "stop":
                self.disarm("stop asked for", now, asked=True)

    def _arm_or_say(self, now: int) -> list[str]:
        try:
            self.arm(now)
        except NotReadyError as error:
            return list(error.reasons)
        return []

    # ------------------------------------------------------------------------ arming and stopping

    @property
    def hindrances(self) -> list[str]:
        """Every reason of its own why it must not be armed now."""
        reasons = [_LATCHED] if self.latched else []
        return reasons + [
            f"trigger {runner.name!r} failed: {runner.failure}"
            for runner in self._decider.runners.values()
            if runner.failure
        ]

    def arm(self, now: int) -> None:
        """Let triggers reach the lines, and begin a session; whoever calls it has looked first.

        Raises
        ------
        NotReadyError
            If an output does not arm; every output is safe then.
        """
        try:
            self._switchboard.arm(now)
        except OutputError as error:
            self.disarm(str(error), now)
            raise NotReadyError([str(error)]) from error
        self.armed = True
        self._decider.overruns_in_a_row = 0
        self._record.tell("armed", now, asked=True, detail=f"seed {self.seed}")
        self._decider.tell_all(TriggerRunner.start_session, now)
        self._take_step(self._experiment.start_session(now), now)
        self._yoked.start(now)

    def disarm(self, why: str, now: int, *, asked: bool = False) -> None:
        """Make every output safe, and end the session."""
        self._make_safe(now)
        self._record.tell("disarmed", now, asked=asked, detail=why)

    def stop_at_once(self, why: str, now: int, *, asked: bool = False) -> None:
        """Emergency stop: make every output safe, and refuse to arm until it is released."""
        self._make_safe(now)
        self.latched = True
        self._counters["emergency_stops"] += 1
        self._record.tell("estop", now, asked=asked, detail=why)

    def release(self, now: int) -> None:
        """Allow arming again after an emergency stop."""
        self.latched = False
        self._record.tell("released", now, asked=True)

    def _make_safe(self, now: int) -> None:
        self._switchboard.make_safe(now)
        self.armed = False
        self._experiment.end_session()
        self._yoked.stop()
        self._record.trial = None

    # ------------------------------------------------------------------------------ the experiment

    def start_trial(self, now: int) -> list[str]:
        """Begin the next trial for a client; return why not, if not."""
        if not self.armed:
            return ["trials begin with arming: the rig is not armed"]
        if self._experiment.is_last:
            return [f"max_trials = {self._experiment.trial} are begun"]
        self._take_step(self._experiment.start_trial(now), now, asked=True)
        return []

    def end_trial(self, now: int) -> list[str]:
        """End the trial for a client; return why not, if not."""
        if not self._experiment.in_trial:
            return ["there is no trial to end"]
        for happening in self._experiment.end_trial(now):
            self._take_step(happening, now, asked=True)
        return []

    def _take_step(self, happening: Happening, now: int, *, asked: bool = False) -> None:
        if happening.step == "session-over":
            self.disarm(happening.words, now, asked=asked)
            return
        # What is held belongs to the trial before: the next pose asks for it anew.
        self._switchboard.let_go(happening.words, now)
        self._record.trial = self._experiment.trial
        self._record.tell(
            happening.step, now, draw=happening.draw, asked=asked, detail=happening.words
        )
        if happening.step == "trial-started":
            self._decider.tell_all(TriggerRunner.start_trial, now)

    def _repeat(self, runner: TriggerRunner, act: YokedAct, now: int) -> None:
        """Do again what was done in the run that a trigger is yoked to."""
        line = runner.actuator.lines[runner.line.name]
        line.settle(now)
        command, words = act.command, f"yoked: {act.offset_ns / 1e9:.4f} s after arming"
        if act.changes:
            left_us = line.time_left_us(now) if line.is_high_by(runner.name) else 0
            if left_us > 0:
                again = self._again(runner, command, left_us)
                self._switchboard.change_level(line, again, now, trigger=runner.name, detail=words)
            return
        if line.holder == runner.name:
            line.used_up = ""  # the other run says when it is let go
        if command.action != "off":
            self._switch_on_again(runner, line, command, words, now)
        elif line.is_high_by(runner.name):
            self._switchboard.switch_off(line, words, now, trigger=runner.name)

    def _switch_on_again(
        self, runner: TriggerRunner, line: Line, command: Command, words: str, now: int
    ) -> None:
        held = command.action == "on"
        reason = line.level_refusal(now) if held else line.refusal(now, command.on_time_us * 1000)
        if not runner.actuator.armed:
            reason = "not armed"
        if reason is not None:
            self._counters["refusals"] += 1
            self._record.tell("refused", now, trigger=runner.name, detail=f"{words}: {reason}")
            return
        withheld = self._experiment.repeats_withheld
        self._counters["fires" if withheld is None else "withheld"] += 1
        self._switchboard.switch_on(
            line,
            self._again(runner, command, line.longest_level_us(now) if held else command.width_us),
            now,
            trigger=runner.name,
            held=held,
            withheld=withheld,
            detail=words,
        )

    def _again(self, runner: TriggerRunner, command: Command, longest_us: int) -> Command:
        again = runner.addressed(command, self._switchboard.next_command_id())
        return again.model_copy(update={"width_us": min(command.width_us, longest_us)})

    # ---------------------------------------------------------------------------- other requests

    def fire_test(self, name: str, width_ms: float, now: int) -> list[str]:
        """Give one pulse on a line for a client; return why not, if not."""
        found = self._switchboard.find(name)
        if found is None:
            return [f"no line {name!r} (lines: {', '.join(self._switchboard.names)})"]
        actuator, line = found
        width_us = round(width_ms * 1000)
        reason: str | None
        if not actuator.armed:
            reason = "not armed"
        elif width_us == 0:
            reason = f"width_ms = {width_ms:g} is less than a microsecond"
        elif width_ms > line.limits.max_on_ms:
            reason = f"width_ms = {width_ms:g} is above max_on_ms = {line.limits.max_on_ms:g}"
        else:
            reason = line.refusal(now, width_us * 1000)
        if reason is not None:
            self._counters["refusals"] += 1
            self._record.tell("refused", now, asked=True, detail=f"{name}: {reason}")
            return [reason]
        command = Command(
            command_id=self._switchboard.next_command_id(),
            output=actuator.name,
            line=line.name,
            action="pulse",
            width_us=width_us,
        )
        self._counters["fires"] += 1
        self._switchboard.switch_on(
            line, command, now, trigger=None, held=False, asked=True, detail="a test"
        )
        return []

    def set_parameter(self, trigger: str, key: str, value: object, now: int) -> list[str]:
        """Change a setting of a trigger for a client; return why not, if not."""
        runner = self._decider.runners.get(trigger)
        if runner is None:
            return [f"no trigger {trigger!r} (triggers: {', '.join(self._decider.runners)})"]
        try:
            before = runner.change(key, value)
        except InputError as error:
            return [str(error)]
        words = f"triggers.{trigger}.{key}: {before!r} -> {value!r}"
        self._switchboard.let_go(words, now, held_by=trigger)
        self._record.tell("parameter-set", now, trigger=trigger, asked=True, detail=words)
        return []
