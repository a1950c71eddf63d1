"""``distance``: from a keypoint to another one, to a point, or to the border of a region."""

import math
from typing import ClassVar, Self

from pydantic import model_validator

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
from rtpose.triggers.geometry import Point, Shape
from rtpose.triggers.places import PlaceSettings
from rtpose.triggers.sample import Sample
from rtpose.triggers.thresholds import Positive, QuantityBoundSettings, QuantityCondition, Signed
from rtpose.triggers.trigger import ConditionTrigger, EventTriggerSettings


class DistanceOfSettings(PlaceSettings, QuantitySettings):
    """A keypoint, and the place that it is far from (`PlaceSettings`).

    To a region the distance is that to its border, negative inside.

    Attributes
    ----------
    keypoint : str
        A keypoint of the model.
    """

    UNITS: ClassVar[tuple[str, ...]] = ("px", "mm")
    keypoint: Keypoint

    @model_validator(mode="after")
    def _is_elsewhere(self) -> Self:
        if self.keypoint == self.to_keypoint:
            raise ValueError(f"keypoint and to_keypoint are both {self.keypoint!r}")
        return self

    @property
    def span(self) -> tuple[float, float]:
        """At least 0, but for the distance to a region."""
        return (0.0 if self.shape() is None else -math.inf), math.inf

    def build(self) -> "Distance":
        """Return what takes the distance."""
        to: str | Point | Shape | None = self.to_keypoint or self.shape() or self.centre()
        if to is None:
            raise ValueError("the settings have no place")
        return Distance(self.keypoint, to)

    def words(self) -> str:
        """Say from where to where."""
        return f"{self.keypoint} to {self.place_words()}: distance"


class DistanceSettings(DistanceOfSettings, QuantityBoundSettings):
    """A distance (`DistanceOfSettings`) and thresholds.

    Attributes
    ----------
    above_px, below_px, above_mm, below_mm : float, optional
        At least one; both in one unit mean between them. The thresholds themselves do not meet it.
    hysteresis_px, hysteresis_mm : float, optional
        Once met, it stays met until the distance is back by more than this.
    """

    above_px: Signed | None = None
    below_px: Signed | None = None
    hysteresis_px: Positive | None = None
    above_mm: Signed | None = None
    below_mm: Signed | None = None
    hysteresis_mm: Positive | None = None


class Distance(Quantity):
    """The distance in px from a keypoint to another one, to a point, or to a border.

    Parameters
    ----------
    keypoint : str
    to : str, (x, y) or shape
        To the border of a shape the distance is negative inside of it.
    """

    def __init__(self, keypoint: str, to: str | Point | Shape) -> None:
        self.keypoints = (keypoint, to) if isinstance(to, str) else (keypoint,)
        self._to = to
        self._indices: tuple[int, ...] = ()

    def prepare(self, skeleton: Skeleton) -> None:
        """Look up the keypoints."""
        self._indices = indices(skeleton, self.keypoints)

    def update(self, sample: Sample) -> float | None:
        """Take the next sample."""
        point = sample.points[self._indices[0]]
        to = sample.points[self._indices[1]] if isinstance(self._to, str) else self._to
        if point is None or to is None:
            return None
        if isinstance(to, tuple):
            return math.hypot(point[0] - to[0], point[1] - to[1])
        distance = to.distance(*point)
        return -distance if to.contains(*point) else distance


class DistanceCondition(QuantityCondition):
    """A distance against thresholds."""

    Config: ClassVar[type[ConditionSettings]] = DistanceSettings


class DistanceTriggerSettings(EventTriggerSettings, DistanceSettings):
    """``type = "distance"``: `DistanceSettings` and `EventTriggerSettings`."""


class DistanceTrigger(ConditionTrigger):
    """A distance as a trigger."""

    Config: ClassVar[type[Settings]] = DistanceTriggerSettings
    condition_type: ClassVar[type[Condition]] = DistanceCondition
