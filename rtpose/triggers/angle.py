"""``angle``: at a joint, between the lines to two other keypoints."""

import math
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from rtpose.interfaces import Settings
from rtpose.skeleton import Skeleton
from rtpose.triggers.condition import (
    Condition,
    ConditionSettings,
    Keypoint,
    Quantity,
    QuantitySettings,
    indices,
)
from rtpose.triggers.geometry import Point
from rtpose.triggers.sample import Sample
from rtpose.triggers.thresholds import Degrees, QuantityBoundSettings, QuantityCondition
from rtpose.triggers.trigger import ConditionTrigger, EventTriggerSettings


class JointSettings(QuantitySettings):
    """Three keypoints.

    Attributes
    ----------
    joint : str
        The keypoint at which the angle is: 0 deg folded, 180 deg straight.
    ends : list of str
        The two keypoints that the lines from the joint go to.
    """

    UNITS: ClassVar[tuple[str, ...]] = ("deg",)
    joint: Keypoint
    ends: Annotated[tuple[Keypoint, Keypoint], Field(strict=False)]  # TOML has arrays only

    @model_validator(mode="after")
    def _has_three_keypoints(self) -> Self:
        if len({self.joint, *self.ends}) != 3:
            raise ValueError("joint and ends must be three different keypoints")
        return self

    @property
    def span(self) -> tuple[float, float]:
        """Half a turn."""
        return 0.0, 180.0

    def build(self) -> "JointAngle":
        """Return what takes the angle."""
        return JointAngle(self.joint, self.ends)

    def words(self) -> str:
        """Say where the angle is."""
        return f"{self.joint}: angle"


class AngleSettings(JointSettings, QuantityBoundSettings):
    """An angle (`JointSettings`) and thresholds.

    Attributes
    ----------
    above_deg, below_deg : float, optional
        At least one; both mean between them. The thresholds themselves do not meet it.
    hysteresis_deg : float, optional
        Once met, it stays met until the angle is back by more than this.
    """

    above_deg: Degrees | None = None
    below_deg: Degrees | None = None
    hysteresis_deg: Degrees | None = None


def turn_deg(first: Point, second: Point) -> float | None:
    """Return the turn from one vector to another, -180 to 180 deg, clockwise in the picture.

    None if one of them has no length.
    """
    if first == (0.0, 0.0) or second == (0.0, 0.0):
        return None
    across = first[0] * second[1] - first[1] * second[0]
    along = first[0] * second[0] + first[1] * second[1]
    return math.degrees(math.atan2(across, along))


class JointAngle(Quantity):
    """The angle at a joint, 0 to 180 deg; none where a line has no length."""

    def __init__(self, joint: str, ends: tuple[str, str]) -> None:
        self.keypoints = (ends[0], joint, ends[1])
        self._indices: tuple[int, ...] = ()

    def prepare(self, skeleton: Skeleton) -> None:
        """Look up the keypoints."""
        self._indices = indices(skeleton, self.keypoints)

    def update(self, sample: Sample) -> float | None:
        """Take the next sample."""
        first, joint, second = (sample.points[index] for index in self._indices)
        if first is None or joint is None or second is None:
            return None
        turn = turn_deg(
            (first[0] - joint[0], first[1] - joint[1]),
            (second[0] - joint[0], second[1] - joint[1]),
        )
        return None if turn is None else abs(turn)


class Deviation(Quantity):
    """How far an angle is from a direction, whichever way: 0 to 180 deg.

    Parameters
    ----------
    angle : Quantity
        In degrees, counted from wherever it likes.
    towards_deg : float
        The direction, counted from there too.
    """

    def __init__(self, angle: Quantity, towards_deg: float) -> None:
        self.keypoints = angle.keypoints
        self._angle = angle
        self._towards_deg = towards_deg

    def prepare(self, skeleton: Skeleton) -> None:
        """Look up the keypoints."""
        self._angle.prepare(skeleton)

    def update(self, sample: Sample) -> float | None:
        """Take the next sample."""
        angle_deg = self._angle.update(sample)
        if angle_deg is None:
            return None
        return abs((angle_deg - self._towards_deg + 180) % 360 - 180)


class AngleCondition(QuantityCondition):
    """An angle at a joint against thresholds."""

    Config: ClassVar[type[ConditionSettings]] = AngleSettings


class AngleTriggerSettings(EventTriggerSettings, AngleSettings):
    """``type = "angle"``: `AngleSettings` and `EventTriggerSettings`."""


class AngleTrigger(ConditionTrigger):
    """An angle as a trigger."""

    Config: ClassVar[type[Settings]] = AngleTriggerSettings
    condition_type: ClassVar[type[Condition]] = AngleCondition
