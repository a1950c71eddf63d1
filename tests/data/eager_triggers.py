"""A trigger that wants to act on every pose, for the tests; ``eager_triggers:Fires``."""

from typing import ClassVar

from rtpose.interfaces import Decision, Settings, Trigger
from rtpose.messages import Pose
from rtpose.skeleton import Skeleton


class _Settings(Settings):
    pass


class Fires(Trigger):
    """Decides to fire, always."""

    Config: ClassVar[type[Settings]] = _Settings

    def __init__(self, config: Settings) -> None:
        pass

    def prepare(self, skeleton: Skeleton) -> None:
        pass

    def update(self, pose: Pose) -> Decision:
        return Decision.FIRE
