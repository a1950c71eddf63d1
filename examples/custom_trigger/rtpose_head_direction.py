"""``head-direction``: the line is high while the animal's head points at a place."""

import math
from typing import Annotated, ClassVar

from pydantic import Field

from rtpose.interfaces import Decision, Settings, Trigger
from rtpose.messages import Pose
from rtpose.skeleton import Skeleton


class HeadDirectionSettings(Settings):
    """``[triggers.<name>]`` with ``type = "head-direction"``.

    Attributes
    ----------
    back, front : str
        The head points from one keypoint to the other, e.g. from the neck to the snout.
    x_px, y_px : float
        The place, in px of the full camera frame.
    within_deg : float
        How far off the head may point and still count.
    """

    back: str
    front: str
    x_px: Annotated[float, Field(allow_inf_nan=False)]
    y_px: Annotated[float, Field(allow_inf_nan=False)]
    within_deg: Annotated[float, Field(gt=0, lt=180)]


class HeadDirectionTrigger(Trigger):
    """The angle between the head and the way from its back to the place."""

    Config: ClassVar[type[Settings]] = HeadDirectionSettings

    def __init__(self, config: HeadDirectionSettings) -> None:
        self._config = config
        self._back = self._front = -1
        self._off_deg: float | None = None

    def prepare(self, skeleton: Skeleton) -> None:
        """Look up both keypoints."""
        self._back = skeleton.index(self._config.back)
        self._front = skeleton.index(self._config.front)

    def update(self, pose: Pose) -> Decision:
        """High while the head points at the place; in doubt low."""
        self._off_deg = self._measure(pose)
        facing = self._off_deg is not None and self._off_deg <= self._config.within_deg
        return Decision.HIGH if facing else Decision.LOW

    def describe(self) -> str:
        """Say how far off the head pointed."""
        return "head not found" if self._off_deg is None else f"head {self._off_deg:.0f} deg off"

    def _measure(self, pose: Pose) -> float | None:
        if len(pose.valid) != 1 or not (pose.valid[0, self._back] and pose.valid[0, self._front]):
            return None  # nobody there, or nobody knows which animal is meant
        back_x, back_y, _ = pose.keypoints[0, self._back].tolist()
        front_x, front_y, _ = pose.keypoints[0, self._front].tolist()
        head = complex(front_x - back_x, front_y - back_y)
        way = complex(self._config.x_px - back_x, self._config.y_px - back_y)
        if head == 0 or way == 0:
            return None  # no direction
        turn = head * way.conjugate()
        return abs(math.degrees(math.atan2(turn.imag, turn.real)))
