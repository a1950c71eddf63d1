"""One trigger at work: a user's code, of which every call may fail."""

from collections.abc import Callable
from typing import TypeVar

from rtpose.actuators import Actuator, Line
from rtpose.errors import TriggerError
from rtpose.interfaces import Decision, Scale
from rtpose.messages import Pose
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
        The output that it drives, of which `line` is one.

    Attributes
    ----------
    complaint : str
        The last reason why a level was not given, so that it is said once and not with every pose.
    failure : str
        Why the trigger is disabled; empty while it works.
    """

    def __init__(
        self, entry: TriggerEntry, actuator: Actuator, skeleton: Skeleton, scale: Scale | None
    ) -> None:
        self.name = entry.name
        self.pulse_ms = entry.common.pulse_ms
        self.actuator = actuator
        self.line: Line = actuator.lines[entry.target[1]]
        self.complaint = ""
        self.failure = ""
        self._trigger = entry.build(skeleton, scale)

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

    def start_session(self) -> None:
        """Tell it that the rig was armed; raises as `update` does."""
        self._guarded(self._trigger.start_session)

    def start_trial(self) -> None:
        """Tell it that a trial starts; raises as `update` does."""
        self._guarded(self._trigger.start_trial)

    def describe(self) -> str:
        """Return its words for the last decision."""
        try:
            return self._guarded(lambda: str(self._trigger.describe()))
        except TriggerError as error:  # after the command: only its words are lost
            return f"describe() failed: {error}"

    def _guarded(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except Exception as error:
            raise TriggerError(f"{type(error).__name__}: {error}") from error
