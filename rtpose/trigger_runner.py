"""One trigger at work: a user's code, of which every call may fail."""

from collections.abc import Callable
from typing import TypeVar

from rtpose.actuators import Actuator, Line
from rtpose.errors import ConfigError, InputError, Problem, TriggerError
from rtpose.interfaces import Decision, Scale
from rtpose.messages import Command, Pose
from rtpose.rig import TriggerEntry
from rtpose.skeleton import Skeleton

T = TypeVar("T")


class TriggerRunner:
    """A trigger of the rig, with the line that it drives.

    Parameters
    ----------
    entry : TriggerEntry
        The trigger in the rig file.
    actuator : Actuator
        The output that it drives.

    Attributes
    ----------
    line : Line
        The line that it decides on; a shadow of it if the trigger is yoked.
    complaint : str
        The last reason why a level was not given, so that it is said once and not with every pose.
    failure : str
        Why the trigger is disabled; empty while it works.
    holds : bool
        Its last decision that reached the line holds that high, as far as the trigger knows.
    """

    def __init__(
        self, entry: TriggerEntry, actuator: Actuator, skeleton: Skeleton, scale: Scale | None
    ) -> None:
        self.name = entry.name
        self.entry = entry
        self.actuator = actuator
        name, yoked = entry.target[1], entry.common.yoked_to is not None
        # Nothing that a yoked trigger decides may hinder what is repeated on the line itself.
        self.line: Line = actuator.shadow(name) if yoked else actuator.lines[name]
        self.complaint = ""
        self.failure = ""
        self.holds = False
        self._skeleton = skeleton
        self._scale = scale
        self._trigger = entry.build(skeleton, scale)
        self._pulses = entry.pulses(self.line.limits)

    def change(self, key: str, value: object) -> object:
        """Set one of its settings and return what it was; it begins anew, but for what it counted.

        Raises
        ------
        InputError
            If it has no such setting, or that must not have this value; nothing is changed then.
        """
        try:
            entry = self.entry.changed(key, value)
            trigger = entry.build(self._skeleton, self._scale)
            trigger.take_over(self._trigger)
        except InputError:
            raise
        except Exception as error:
            words = f"cannot be {value!r}: {type(error).__name__}: {error}"
            raise ConfigError([Problem(f"triggers.{self.name}.{key}", words)]) from error
        problem = entry.misfit(trigger, self.line.limits)
        if problem is not None:
            raise ConfigError([problem])
        before: object = getattr(self.entry.settings, key)
        self.entry, self._trigger = entry, trigger
        self.complaint = self.failure = ""
        self.holds = False
        return before

    def update(self, pose: Pose) -> Decision:
        """Take one pose; raise `TriggerError` if the trigger does not do what it must."""
        try:
            decision = self._trigger.update(pose)
        except Exception as error:
            raise TriggerError(f"{type(error).__name__}: {error}") from error
        if not isinstance(decision, Decision):
            raise TriggerError(f"update() returned {decision!r}, which is not a Decision")
        return decision

    def refused(self) -> None:
        """Tell it that its decision did not reach the line; raises as `update` does."""
        self._guarded(self._trigger.refused)

    def look_after_line(self) -> None:
        """Tell it if control let go of the line that it holds; raises as `update` does."""
        # What is used up stays asked for until the condition ends.
        if self.holds and not self.line.used_up and not self.line.is_high_by(self.name):
            self.holds = False
            self._guarded(self._trigger.let_go)

    def start_session(self) -> None:
        """Tell it that the rig was armed; raises as `update` does."""
        self._guarded(self._trigger.start_session)

    def start_trial(self) -> None:
        """Tell it that a trial starts; raises as `update` does."""
        self._guarded(self._trigger.start_trial)

    def level(self, command_id: int, longest_us: int) -> Command:
        """Return the command for the level that it decided, held for at most so long."""
        return Command(
            command_id=command_id,
            output=self.actuator.name,
            line=self.line.name,
            action="on",
            width_us=longest_us,
            level=self.strength() if self.line.limits.levels else 1.0,
        )

    def pulses(self, command_id: int) -> Command:
        """Return the command for the pulse, or the train, that it decided."""
        return self.addressed(self._pulses, command_id)

    @property
    def pulses_ns(self) -> int:
        """For how long a line is high by `pulses`, in all."""
        return self._pulses.on_time_us * 1000

    def addressed(self, command: Command, command_id: int) -> Command:
        """Return a command with another number, for its own line."""
        here = {"command_id": command_id, "output": self.actuator.name, "line": self.line.name}
        return command.model_copy(update=here)

    def strength(self) -> float:
        """Return how high the line should be, above 0 to 1; raises as `update` does."""
        level = self._guarded(lambda: self._trigger.level)
        if not isinstance(level, float) or not 0 < level <= 1:
            raise TriggerError(f"its level is {level!r}, which is not above 0 to 1")
        return level

    def describe(self) -> str:
        """Return its words for the last decision."""
        try:
            return self._guarded(lambda: str(self._trigger.describe()))
        except TriggerError as error:  # only its words are lost
            return f"describe() failed: {error}"

    def _guarded(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except Exception as error:
            raise TriggerError(f"{type(error).__name__}: {error}") from error
