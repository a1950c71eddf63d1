"""``posture``: how long, how straight or how bent a chain of keypoints is."""

import math
from itertools import pairwise
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from rtpose.interfaces import Settings
from rtpose.skeleton import Skeleton
from rtpose.triggers.angle import turn_deg
from rtpose.triggers.condition import (
    Condition,
    ConditionSettings,
    Keypoints,
    Quantity,
    QuantitySettings,
    indices,
)
from rtpose.triggers.geometry import Point
from rtpose.triggers.sample import Sample
from rtpose.triggers.thresholds import Positive, QuantityBoundSettings, QuantityCondition
from rtpose.triggers.trigger import ConditionTrigger, EventTriggerSettings

Measure = Literal["length", "straightness", "bend"]

_UNITS: Final[dict[Measure, tuple[str, ...]]] = {
    "length": ("px", "mm"),
    "straightness": ("ratio",),
    "bend": ("deg",),
}


class ChainSettings(QuantitySettings):
    """A chain of keypoints, and what is measured along it.

    Attributes
    ----------
    keypoints : list of str
        In order along the body: 2 at least for the length, else 3, all different.
    measure : {'length', 'straightness', 'bend'}
        ``length``: the sum of the links, in px or mm. ``straightness``: the distance between the
        two ends over the length, 1 where the chain is straight. ``bend``: the sum of the turns at
        the inner keypoints, in deg, whichever way they go; 0 where the chain is straight.
    """

    UNITS: ClassVar[tuple[str, ...]] = ("px", "mm", "ratio", "deg")
    keypoints: Annotated[Keypoints, Field(min_length=2)]
    measure: Measure

    @model_validator(mode="after")
    def _is_a_chain(self) -> Self:
        needed = 2 if self.measure == "length" else 3
        if len(self.keypoints) < needed:
            raise ValueError(f"{self.measure} needs at least {needed} keypoints")
        if len(set(self.keypoints)) != len(self.keypoints):
            raise ValueError("the keypoints of a chain must differ")
        return self

    @property
    def units(self) -> tuple[str, ...]:
        """The units of the measure."""
        return _UNITS[self.measure]

    @property
    def span(self) -> tuple[float, float]:
        """At least 0; a straightness is at most 1."""
        return 0.0, (1.0 if self.measure == "straightness" else math.inf)

    def build(self) -> "Posture":
        """Return what measures the chain."""
        return Posture(tuple(self.keypoints), self.measure)

    def words(self) -> str:
        """Say what is measured between which ends."""
        return f"{self.keypoints[0]} to {self.keypoints[-1]}: {self.measure}"


class PostureSettings(ChainSettings, QuantityBoundSettings):
    """A chain and what is measured along it (`ChainSettings`), and thresholds.

    Attributes
    ----------
    above_px, below_px, above_mm, below_mm : float, optional
        For the length. At least one threshold is given; both mean between them. The thresholds
        themselves do not meet it.
    above_ratio, below_ratio : float, optional
        For the straightness.
    above_deg, below_deg : float, optional
        For the bend.
    hysteresis_px, hysteresis_mm, hysteresis_ratio, hysteresis_deg : float, optional
        Once met, it stays met until the value is back by more than this.
    """

    above_px: Positive | None = None
    below_px: Positive | None = None
    hysteresis_px: Positive | None = None
    above_mm: Positive | None = None
    below_mm: Positive | None = None
    hysteresis_mm: Positive | None = None
    above_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    below_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    hysteresis_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    above_deg: Positive | None = None
    below_deg: Positive | None = None
    hysteresis_deg: Positive | None = None

    @model_validator(mode="after")
    def _fits_the_measure(self) -> Self:
        if self.unit not in self.units:
            units = " or ".join(self.units)
            raise ValueError(f"{self.measure} has thresholds in {units}, not in {self.unit}")
        return self


class Posture(Quantity):
    """A measure along a chain of keypoints, see `PostureSettings`; length in px.

    There is none where a keypoint is missing, and no straightness or bend where two neighbours are
    at the same place.
    """

    def __init__(self, keypoints: tuple[str, ...], measure: Measure) -> None:
        self.keypoints = keypoints
        self._measure = {"length": _length, "straightness": _straightness, "bend": _bend}[measure]
        self._indices: tuple[int, ...] = ()

    def prepare(self, skeleton: Skeleton) -> None:
        """Look up the keypoints."""
        self._indices = indices(skeleton, self.keypoints)

    def update(self, sample: Sample) -> float | None:
        """Take the next sample."""
        links: list[Point] = []
        before = sample.points[self._indices[0]]
        for index in self._indices[1:]:
            point = sample.points[index]
            if before is None or point is None:
                return None
            links.append((point[0] - before[0], point[1] - before[1]))
            before = point
        return self._measure(links)


def _length(links: list[Point]) -> float:
    return sum(math.hypot(x, y) for x, y in links)


def _straightness(links: list[Point]) -> float | None:
    if (0.0, 0.0) in links:
        return None
    ends = math.hypot(sum(x for x, _ in links), sum(y for _, y in links))
    return min(1.0, ends / _length(links))


def _bend(links: list[Point]) -> float | None:
    bend = 0.0
    for first, second in pairwise(links):
        turn = turn_deg(first, second)
        if turn is None:
            return None
        bend += abs(turn)
    return bend


class PostureCondition(QuantityCondition):
    """A measure along a chain of keypoints against thresholds."""

    Config: ClassVar[type[ConditionSettings]] = PostureSettings


class PostureTriggerSettings(EventTriggerSettings, PostureSettings):
    """``type = "posture"``: `PostureSettings` and `EventTriggerSettings`."""


class PostureTrigger(ConditionTrigger):
    """A posture as a trigger."""

    Config: ClassVar[type[Settings]] = PostureTriggerSettings
    condition_type: ClassVar[type[Condition]] = PostureCondition
