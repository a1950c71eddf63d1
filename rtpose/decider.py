"""Every pose to every trigger, and what they decide to the lines, where it is allowed."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from rtpose.actuators import Actuator
from rtpose.compensation import LatencyCompensation
from rtpose.errors import TriggerError
from rtpose.events import EventRecord, Moment
from rtpose.experiment import Experiment
from rtpose.interfaces import Decision
from rtpose.messages import Ack, EventKind, Pose
from rtpose.rig import Rig
from rtpose.skeleton import Skeleton
from rtpose.switchboard import LEVEL_STEP, Switchboard
from rtpose.trigger_runner import TriggerRunner

# Looked up once: members of an enumeration cost a call each time.
_NOTHING, _LOW = Decision.NOTHING, Decision.LOW
#: The counter of each kind of event that says why nothing was done.
_COUNTED_AS: Final = {"refused": "refusals", "overrun": "overruns", "withheld": "withheld"}


class Decider:
    """The triggers of a rig at work.

    Parameters
    ----------
    rig : Rig
    skeleton : Skeleton
        Of the model.
    actuators : mapping of str to Actuator
        The outputs.
    switchboard : Switchboard
        Their lines.
    experiment : Experiment
        Says what must not act by design.
    record : EventRecord
        Is told what is decided.
    counters : dict of str to int
        Counts it.
    decided_ns : callable
        Gets the name of a trigger that has just decided something, and returns the time.
    doing : callable
        Gets the name of the trigger that is at work, and nothing when none is.

    Attributes
    ----------
    runners : mapping of str to TriggerRunner
    overruns_in_a_row : int
        Decisions on poses older than the budget since the last one in time.
    """

    def __init__(
        self,
        rig: Rig,
        skeleton: Skeleton,
        actuators: Mapping[str, Actuator],
        switchboard: Switchboard,
        experiment: Experiment,
        record: EventRecord,
        counters: dict[str, int],
        decided_ns: Callable[[str], int],
        doing: Callable[[bytes], None],
    ) -> None:
        self._latency = rig.latency
        self._budget_ns = round(rig.latency.budget_ms * 1e6)
        self._max_gap_ns = round(rig.latency.max_pose_gap_ms * 1e6)
        self._switchboard = switchboard
        self._experiment = experiment
        self._record = record
        self._counters = counters
        self._decided_ns = decided_ns
        self._doing = doing
        self.runners: Mapping[str, TriggerRunner] = {
            name: TriggerRunner(entry, actuators[entry.target[0]], skeleton, rig.arena.scale)
            for name, entry in rig.triggers.items()
        }
        ahead = {r.actuator.name for r in self.runners.values() if r.entry.common.forecast}
        self._compensation = (
            LatencyCompensation(rig.forecast, len(skeleton.names), ahead) if ahead else None
        )
        self._labelled = [(name.encode(), runner) for name, runner in self.runners.items()]
        self.overruns_in_a_row = 0

    def on_pose(self, pose: Pose, receive_ns: int) -> None:
        """Let every trigger decide on a pose, and do what they want where it is allowed."""
        self._counters["poses"] += 1
        if self._compensation is not None:
            self._compensation.update(pose)
        for label, runner in self._labelled:
            if runner.failure:
                continue
            self._doing(label)
            moment = None
            try:
                if self._experiment.in_trial:  # what is let go before or after acts on nothing
                    runner.look_after_line()
                seen, forecast_ns = self._seen(runner, pose)
                decision = runner.update(seen)
                if decision is _NOTHING or (decision is _LOW and not self._lets_go(runner)):
                    continue
                moment = Moment(pose, receive_ns, self._decided_ns(runner.name), forecast_ns)
                if not self._act(runner, decision, moment):
                    runner.refused()
            except TriggerError as error:
                moment = moment or Moment(pose, receive_ns, receive_ns)
                self._disable(runner, error, moment.decide_ns, moment)
        self._doing(b"")

    def _seen(self, runner: TriggerRunner, pose: Pose) -> tuple[Pose, int | None]:
        """Return the pose that a trigger is to see, and the time that it was forecast for."""
        if self._compensation is None or not runner.entry.common.forecast:
            return pose, None
        return self._compensation.pose_for(runner.actuator.name, pose)

    def _disable(
        self, runner: TriggerRunner, error: TriggerError, now: int, moment: Moment | None = None
    ) -> None:
        runner.failure = str(error)
        runner.actuator.make_safe(now)
        self._record.tell(
            "trigger-failed",
            now,
            moment,
            trigger=runner.name,
            detail=f"{runner.failure}; disabled, output {runner.actuator.name} made safe",
        )

    def _lets_go(self, runner: TriggerRunner) -> bool:
        """Take note that a trigger wants its line low; return whether it holds it high."""
        line = runner.line
        runner.complaint, runner.holds = "", False
        if line.holder != runner.name:
            return False
        line.used_up = ""
        return line.high_until_ns > 0

    def _act(self, runner: TriggerRunner, decision: Decision, moment: Moment) -> bool:
        """Do what a trigger wants; return False if the line does not rise, being refused."""
        line = runner.line
        if decision is _LOW:
            self._switchboard.switch_off(
                line, "the condition ended", moment.decide_ns, moment, trigger=runner.name
            )
            return True
        rises = decision is Decision.FIRE or not line.is_high_by(runner.name)
        if not rises and not self._needs_another_level(runner):
            return True  # it is high already
        late = self._lateness(moment)
        reason = self._refusal(runner, decision, moment, late=late, rises=rises)
        if reason is not None:
            self._refuse(runner, decision, moment, *reason)
            return not rises  # a line that is high stays so, at the level that it has
        self.overruns_in_a_row = 0
        runner.complaint = ""
        if rises:
            self._switch_on(runner, decision, moment, late=late)
        else:
            self._change_level(runner, moment)
        return True

    def _needs_another_level(self, runner: TriggerRunner) -> bool:
        line = runner.line
        return line.limits.levels and abs(runner.strength() - line.strength) >= LEVEL_STEP

    def _refusal(
        self,
        runner: TriggerRunner,
        decision: Decision,
        moment: Moment,
        *,
        late: str | None,
        rises: bool,
    ) -> tuple[EventKind, str] | None:
        if not runner.actuator.armed:
            return "refused", "not armed"
        if moment.pose.repeated_ns > self._max_gap_ns:
            return "refused", "the camera has repeated one picture for more than max_pose_gap_ms"
        if late is not None and self._latency.policy != "fire":
            return "overrun", late
        if not rises:
            return None
        if not self._experiment.in_trial and runner.entry.common.yoked_to is None:
            return "withheld", "between trials"
        if decision is Decision.HIGH:
            limit = runner.line.level_refusal(moment.decide_ns)
        else:
            limit = runner.line.refusal(moment.decide_ns, runner.pulses_ns)
        return None if limit is None else ("refused", limit)

    def _refuse(
        self,
        runner: TriggerRunner,
        decision: Decision,
        moment: Moment,
        kind: EventKind,
        detail: str,
    ) -> None:
        # A level is asked for with every pose: say once why it is not given.
        if decision is Decision.FIRE or runner.complaint != detail:
            self._counters[_COUNTED_AS[kind]] += 1
            self._record.tell(
                kind,
                moment.decide_ns,
                moment,
                trigger=runner.name,
                withheld="between-trials" if kind == "withheld" else None,
                detail=detail,
            )
        runner.complaint = detail if decision is Decision.HIGH else ""
        self.overruns_in_a_row += kind == "overrun"

    def _lateness(self, moment: Moment) -> str | None:
        """Say why nothing may be done on a pose of this age, or return None."""
        age_ns, budget = moment.decide_ns - moment.pose.start_ns, self._latency.budget_ms
        if age_ns > self._budget_ns:
            return f"the pose is older than budget_ms = {budget:g}"
        if age_ns < -self._budget_ns:  # a camera's clock gone wrong: how old it is, nobody knows
            return f"the pose's stamp is ahead of the clock by more than budget_ms = {budget:g}"
        return None

    def _switch_on(
        self, runner: TriggerRunner, decision: Decision, moment: Moment, *, late: str | None
    ) -> None:
        held = runner.holds = decision is Decision.HIGH
        withheld, draw = self._experiment.withheld(runner.entry)
        longest_us = runner.line.longest_level_us(moment.decide_ns)
        command_id = self._switchboard.next_command_id()
        command = runner.level(command_id, longest_us) if held else runner.pulses(command_id)
        if self._compensation is not None and withheld is None:
            self._compensation.take_command(command, moment.pose.publish_ns)
        words = runner.describe()
        if late is not None:
            self._counters["overruns"] += 1
            words = f"OVERRUN: {late}; {words}"
        self._counters["fires" if withheld is None else "withheld"] += 1
        self._switchboard.switch_on(
            runner.line,
            command,
            moment.decide_ns,
            moment,
            trigger=runner.name,
            held=held,
            withheld=withheld,
            draw=draw,
            detail=words,
        )

    def _change_level(self, runner: TriggerRunner, moment: Moment) -> None:
        left_us = runner.line.time_left_us(moment.decide_ns)
        if left_us > 0:  # otherwise its time is up, as the clock will find at once
            self._switchboard.change_level(
                runner.line,
                runner.level(self._switchboard.next_command_id(), left_us),
                moment.decide_ns,
                moment,
                trigger=runner.name,
                detail=runner.describe(),
            )

    # ---------------------------------------------------------------------------------------- else

    def on_ack(self, ack: Ack) -> None:
        """Learn from an answer how long the output takes."""
        if self._compensation is not None:
            self._compensation.take_ack(ack)

    def forecast_report(self) -> dict[str, Any]:
        """Return what the forecasts were worth, for every output that acts on them."""
        return {} if self._compensation is None else self._compensation.report()

    def tell_all(self, call: Callable[[TriggerRunner], None], now: int) -> None:
        """Call every trigger that works; one that raises is disabled."""
        for runner in self.runners.values():
            if runner.failure:
                continue
            try:
                call(runner)
            except TriggerError as error:
                self._disable(runner, error, now)
