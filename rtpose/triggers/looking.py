"""``looking``: where a place is, as seen along an axis of the body (egocentric angle)."""

import math
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from rtpose.interfaces import Scale, Settings
from rtpose.skeleton import Skeleton
from rtpose.triggers.angle import Deviation, turn_deg
from rtpose.triggers.condition import (
    Condition,
    ConditionSettings,
    Quantity,
    QuantitySettings,
    indices,
)
from rtpose.triggers.geometry import Point
from rtpose.triggers.heading import AxisSettings
from rtpose.triggers.places import Length, PlaceSettings
from rtpose.triggers.sample import Sample
from rtpose.triggers.thresholds import Arc, Degrees, px_per_unit
from rtpose.triggers.trigger import ConditionTrigger, EventTriggerSettings


class SightSettings(AxisSettings, PlaceSettings, QuantitySettings):
    """An axis (`AxisSettings`), and what it may point at (`PlaceSettings`).

    Of a region the centre is meant, of a polygon the centre of its area. The number is how far the
    axis points past it, to either side, 0 to 180 deg.
    """

    UNITS: ClassVar[tuple[str, ...]] = ("deg",)

    @model_validator(mode="after")
    def _is_beside_the_axis(self) -> Self:
        if self.to_keypoint in (self.back, self.front):
            raise ValueError(f"to_keypoint = {self.to_keypoint!r} is an end of the axis itself")
        return self

    @property
    def span(self) -> tuple[float, float]:
        """Half a turn."""
        return 0.0, 180.0

    def angle(self) -> "EgocentricAngle":
        """Return what takes the angle, with its side."""
        to: str | Point | None = self.to_keypoint or self.centre()
        if to is None:
            raise ValueError("the settings have no place")
        return EgocentricAngle(self.back, self.front, to)

    def build(self) -> Deviation:
        """Return what takes the angle, whichever the side."""
        return Deviation(self.angle(), 0.0)

    def words(self) -> str:
        """Say what points past what."""
        return f"{self.back} to {self.front}: off {self.place_words()} by"


class LookingSettings(SightSettings, ConditionSettings):
    """An axis, what it may point at (`SightSettings`), and how well.

    Attributes
    ----------
    within_deg : float
        How far the axis may point past the place and still count; exactly so far does.
    side : {'left', 'right'}, optional
        The animal's side on which the place must be, seen from above; straight ahead is on both.
    max_distance_px, max_distance_mm : float, optional
        From `front` to the place; exactly so far counts.
    hysteresis_deg : float
        Once it looks there, it does so until it is off by more than this on top. The distance has
        none.
    """

    within_deg: Annotated[Degrees, Field(gt=0)]
    side: Literal["left", "right"] | None = None
    max_distance_px: Length | None = None
    max_distance_mm: Length | None = None
    hysteresis_deg: Degrees = 0.0

    @model_validator(mode="after")
    def _one_unit(self) -> Self:
        if self.max_distance_px is not None and self.max_distance_mm is not None:
            raise ValueError("give max_distance_px or max_distance_mm, not both")
        return self


class EgocentricAngle(Quantity):
    """The turn from a body axis to the line from its back to a place, -180 to 180 deg.

    Positive on the animal's right, seen from above; exactly behind is 180. There is none where one
    of the two lines has no length.

    Parameters
    ----------
    back, front : str
        The axis.
    to : str or (x, y)
        A keypoint or a point.
    """

    def __init__(self, back: str, front: str, to: str | Point) -> None:
        self.keypoints = (back, front, to) if isinstance(to, str) else (back, front)
        self._to = to
        self._indices: tuple[int, ...] = ()

    def prepare(self, skeleton: Skeleton) -> None:
        """Look up the keypoints."""
        self._indices = indices(skeleton, self.keypoints)

    def place(self, sample: Sample) -> Point | None:
        """Return where the place is."""
        return sample.points[self._indices[2]] if isinstance(self._to, str) else self._to

    def front(self, sample: Sample) -> Point | None:
        """Return where the front of the axis is."""
        return sample.points[self._indices[1]]

    def update(self, sample: Sample) -> float | None:
        """Take the next sample."""
        back, front, to = sample.points[self._indices[0]], self.front(sample), self.place(sample)
        if back is None or front is None or to is None:
            return None
        turn = turn_deg(
            (front[0] - back[0], front[1] - back[1]), (to[0] - back[0], to[1] - back[1])
        )
        return 180.0 if turn == -180.0 else turn


class Looking(Condition):
    """An axis of the body points at a place."""

    Config: ClassVar[type[ConditionSettings]] = LookingSettings

    def __init__(self, config: LookingSettings) -> None:
        self._config = config
        self._angle = config.angle()
        self._arc = Arc(
            0.0 if config.side == "right" else -config.within_deg,
            0.0 if config.side == "left" else config.within_deg,
            config.hysteresis_deg,
        )
        self._max_px = math.inf
        self._angle_deg: float | None = None

    @property
    def keypoints(self) -> tuple[str, ...]:
        """Names of the keypoints it looks at."""
        return self._angle.keypoints

    def prepare(self, skeleton: Skeleton, scale: Scale | None) -> None:
        """Look up the keypoints, and turn mm into px."""
        self._angle.prepare(skeleton)
        config = self._config
        if config.max_distance_px is not None:
            self._max_px = config.max_distance_px
        if config.max_distance_mm is not None:
            self._max_px = config.max_distance_mm * px_per_unit("mm", scale)

    def update(self, sample: Sample) -> bool | None:
        """Take the next sample."""
        angle_deg = self._angle_deg = self._angle.update(sample)
        met = self._arc.update(angle_deg)
        if self._max_px == math.inf:
            return met
        front, to = self._angle.front(sample), self._angle.place(sample)
        if front is None or to is None:
            return False if met is False else None
        near = math.hypot(to[0] - front[0], to[1] - front[1]) <= self._max_px
        return met if near else False

    def reset(self) -> None:
        """Forget every sample."""
        self._arc.let_go()

    def let_go(self) -> None:
        """Count as ended."""
        self._arc.let_go()

    def describe(self) -> str:
        """Say on which side the place was, and by how much."""
        config = self._config
        words = f"{config.back} to {config.front}: {config.place_words()}"
        if self._angle_deg is None:
            return f"{words} at an angle not known"
        side = "right" if self._angle_deg > 0 else "left"
        return f"{words} at {abs(self._angle_deg):.1f} deg {side}"


class LookingTriggerSettings(EventTriggerSettings, LookingSettings):
    """``type = "looking"``: `LookingSettings` and `EventTriggerSettings`."""


class LookingTrigger(ConditionTrigger):
    """Looking at a place as a trigger."""

    Config: ClassVar[type[Settings]] = LookingTriggerSettings
    condition_type: ClassVar[type[Condition]] = Looking
