"""Triggers as they must not be, for the tests; loaded by rig files as ``bad_triggers:Name``."""

from typing import ClassVar

from rtpose.interfaces import Decision, Settings, Trigger
from rtpose.messages import Pose
from rtpose.skeleton import Skeleton

#: Poses until they turn bad.
PATIENCE = 60


class _Settings(Settings):
    pass


class _Bad(Trigger):
    """Asks for a high line, then turns bad."""

    Config: ClassVar[type[Settings]] = _Settings

    def __init__(self, config: Settings) -> None:
        self._seen = 0

    def prepare(self, skeleton: Skeleton) -> None:
        pass

    def update(self, pose: Pose) -> Decision:
        self._seen += 1
        if self._seen > PATIENCE:
            self.turn_bad()
        return Decision.HIGH

    def turn_bad(self) -> None:
        raise NotImplementedError


class Raises(_Bad):
    def turn_bad(self) -> None:
        raise ZeroDivisionError("the animal was divided by zero")


class ReturnsTrue(_Bad):
    def update(self, pose: Pose) -> Decision:
        super().update(pose)
        return True  # type: ignore[return-value]

    def turn_bad(self) -> None:
        pass


class DescribesBadly(_Bad):
    def turn_bad(self) -> None:
        pass

    def describe(self) -> str:
        raise KeyError("words")


class Hangs(_Bad):
    def turn_bad(self) -> None:
        while True:
            pass
