"""Conditions, and the quantities that many of them compare with thresholds."""

import math
from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar

from pydantic import Field

from rtpose.interfaces import Scale, Settings
from rtpose.skeleton import Skeleton
from rtpose.triggers.sample import Sample

Keypoint = Annotated[str, Field(min_length=1)]
Keypoints = Annotated[list[Keypoint], Field(min_length=1, max_length=100)]
#: No camera frame reaches as far.
Coordinate = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Milliseconds = Annotated[float, Field(ge=0, le=3_600_000, allow_inf_nan=False)]


class ConditionSettings(Settings):
    """Base of every condition's settings.

    Attributes
    ----------
    dwell_ms : float
        The condition must be met for this long, by the poses' stamps, before it counts. Time
        between two poses counts if it is met in both; time in which it is not known does not count,
        and does not start it afresh.
    """

    dwell_ms: Milliseconds = 0.0


class Condition(ABC):
    """Something that a pose meets, does not meet, or does not tell.

    A pure function of the samples it has seen: it reads no clock and shares nothing. What is
    usable as a condition is usable as a trigger too, through `ConditionTrigger`, and inside
    ``all``, ``any``, ``not``, ``count`` and ``time-since``. ``tests/contract`` holds the suite that
    every one must pass.
    """

    Config: ClassVar[type[ConditionSettings]]

    @abstractmethod
    def __init__(self, config: Any) -> None:
        """Keep the settings, an instance of ``Config``."""

    @property
    @abstractmethod
    def keypoints(self) -> tuple[str, ...]:
        """Names of the keypoints it looks at."""

    @abstractmethod
    def prepare(self, skeleton: Skeleton, scale: Scale | None) -> None:
        """Look up keypoints by name, and turn mm into px.

        Raises
        ------
        SkeletonError
            If the model does not have a keypoint.
        InputError
            If a length is in mm and the rig has no scale.
        """

    @abstractmethod
    def update(self, sample: Sample) -> bool | None:
        """Take the next sample, later than those before; None if it does not tell.

        A sample may not tell because a keypoint is missing, or because there is not enough history.
        """

    @abstractmethod
    def reset(self) -> None:
        """Forget every sample: time went back."""

    def let_go(self) -> None:  # noqa: B027 - most conditions without hysteresis have nothing to do
        """Count as ended: what hysteresis made easier to stay in must be entered anew."""

    def describe(self) -> str:
        """Say in a few words what the last answer was made on."""
        return ""


class Quantity(ABC):
    """A number taken from poses: a pure function of the samples it has seen.

    Attributes
    ----------
    keypoints : tuple of str
        Names of the keypoints it looks at.
    """

    keypoints: tuple[str, ...]

    @abstractmethod
    def prepare(self, skeleton: Skeleton) -> None:
        """Look up keypoints by name; raise `SkeletonError` if the model does not have them."""

    @abstractmethod
    def update(self, sample: Sample) -> float | None:
        """Take the next sample and return the number; None if it is not known."""

    def reset(self) -> None:  # noqa: B027 - most quantities have no memory
        """Forget every sample: time went back."""


class QuantitySettings(Settings):
    """Base of the settings that say which number is taken from poses, and of what.

    Attributes
    ----------
    UNITS : tuple of str
        Endings of the fields that hold such numbers: one unit, or the same in px and in mm.
    """

    UNITS: ClassVar[tuple[str, ...]]

    @property
    def units(self) -> tuple[str, ...]:
        """The units that the number may be given in, of those in `UNITS`."""
        return self.UNITS

    @property
    def span(self) -> tuple[float, float]:
        """The least and the largest value that the number can have."""
        return 0.0, math.inf

    @abstractmethod
    def build(self) -> Quantity:
        """Return what takes the number; in px where there is a unit with px."""

    @abstractmethod
    def words(self) -> str:
        """Say what the number is: ``"snout: speed"``."""


def indices(skeleton: Skeleton, names: tuple[str, ...]) -> tuple[int, ...]:
    """Return where keypoints stand in a sample; raise `SkeletonError` if one is not there."""
    return tuple(skeleton.index(name) for name in names)
