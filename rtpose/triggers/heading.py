"""``heading``: the line from one keypoint to another points in a direction of the picture."""

import math
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from rtpose.interfaces import Scale, Settings
from rtpose.skeleton import Skeleton
from rtpose.triggers.angle import Deviation
from rtpose.triggers.condition import (
    Condition,
    ConditionSettings,
    Keypoint,
    Quantity,
    QuantitySettings,
    indices,
)
from rtpose.triggers.sample import Sample
from rtpose.triggers.thresholds import Arc, Degrees
from rtpose.triggers.trigger import ConditionTrigger, EventTriggerSettings


class AxisSettings(Settings):
    """An axis of the body.

    Attributes
    ----------
    back, front : str
        The axis points from one keypoint to the other, e.g. from the neck to the snout.
    """

    back: Keypoint
    front: Keypoint

    @model_validator(mode="after")
    def _has_a_length(self) -> Self:
        if self.back == self.front:
            raise ValueError(f"back and front are both {self.back!r}: that is no axis")
        return self


class DirectionSettings(AxisSettings, QuantitySettings):
    """An axis (`AxisSettings`) and a direction; how far the one is off the other, 0 to 180 deg.

    Attributes
    ----------
    towards_deg : float
        As on a compass laid on the picture: 0 up, 90 right, 180 down, 270 left.
    """

    UNITS: ClassVar[tuple[str, ...]] = ("deg",)
    towards_deg: Annotated[float, Field(ge=0, lt=360, allow_inf_nan=False)]

    @property
    def span(self) -> tuple[float, float]:
        """Half a turn."""
        return 0.0, 180.0

    def build(self) -> Deviation:
        """Return what takes the angle between them."""
        return Deviation(Heading(self.back, self.front), self.towards_deg)

    def words(self) -> str:
        """Say what is off what."""
        return f"{self.back} to {self.front}: off {self.towards_deg:g} deg by"


class HeadingSettings(DirectionSettings, ConditionSettings):
    """An axis and a direction (`DirectionSettings`), and how well they must agree.

    Attributes
    ----------
    within_deg : float
        How far off to either side still counts; exactly so far does.
    hysteresis_deg : float
        Once it points there, it does so until it is off by more than `within_deg` and this.
    """

    within_deg: Degrees
    hysteresis_deg: Degrees = 0.0


class Heading(Quantity):
    """The direction of an axis in degrees, 0 to 360, as on a compass laid on the picture.

    There is none where both keypoints are at the same place.
    """

    def __init__(self, back: str, front: str) -> None:
        self.keypoints = (back, front)
        self._indices = (-1, -1)

    def prepare(self, skeleton: Skeleton) -> None:
        """Look up the keypoints."""
        back, front = indices(skeleton, self.keypoints)
        self._indices = (back, front)

    def update(self, sample: Sample) -> float | None:
        """Take the next sample."""
        back, front = (sample.points[index] for index in self._indices)
        if back is None or front is None or back == front:
            return None
        # Down is positive in the picture, and a compass counts from north towards east.
        return math.degrees(math.atan2(front[0] - back[0], back[1] - front[1])) % 360


class HeadingCondition(Condition):
    """An axis points in a direction."""

    Config: ClassVar[type[ConditionSettings]] = HeadingSettings

    def __init__(self, config: HeadingSettings) -> None:
        self._heading = Heading(config.back, config.front)
        self._towards_deg = config.towards_deg
        self._arc = Arc(-config.within_deg, config.within_deg, config.hysteresis_deg)
        self._heading_deg: float | None = None

    @property
    def keypoints(self) -> tuple[str, ...]:
        """Names of the keypoints it looks at."""
        return self._heading.keypoints

    def prepare(self, skeleton: Skeleton, scale: Scale | None) -> None:
        """Look up the keypoints."""
        self._heading.prepare(skeleton)

    def update(self, sample: Sample) -> bool | None:
        """Take the next sample."""
        heading_deg = self._heading_deg = self._heading.update(sample)
        if heading_deg is None:
            return None
        return self._arc.update((heading_deg - self._towards_deg + 180) % 360 - 180)

    def reset(self) -> None:
        """Forget every sample."""
        self._arc.let_go()

    def let_go(self) -> None:
        """Count as ended."""
        self._arc.let_go()

    def describe(self) -> str:
        """Say where the axis pointed."""
        axis = f"{self.keypoints[0]} to {self.keypoints[1]}: heading"
        known = self._heading_deg
        return f"{axis} not known" if known is None else f"{axis} {known:.1f} deg"


class HeadingTriggerSettings(EventTriggerSettings, HeadingSettings):
    """``type = "heading"``: `HeadingSettings` and `EventTriggerSettings`."""


class HeadingTrigger(ConditionTrigger):
    """A heading as a trigger."""

    Config: ClassVar[type[Settings]] = HeadingTriggerSettings
    condition_type: ClassVar[type[Condition]] = HeadingCondition
