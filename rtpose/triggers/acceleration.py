"""``acceleration``: a keypoint speeds up, or brakes, harder than a threshold."""

import math
from typing import ClassVar

from rtpose.interfaces import Settings
from rtpose.skeleton import Skeleton
from rtpose.triggers.condition import (
    Condition,
    ConditionSettings,
    Keypoint,
    Quantity,
    QuantitySettings,
)
from rtpose.triggers.sample import Sample
from rtpose.triggers.speed import Fix, Lag, WindowSettings, speed_px_s
from rtpose.triggers.thresholds import Positive, QuantityBoundSettings, QuantityCondition, Signed
from rtpose.triggers.trigger import ConditionTrigger, EventTriggerSettings


class AccelerationOfSettings(WindowSettings, QuantitySettings):
    """A keypoint and a window (`WindowSettings`).

    Attributes
    ----------
    keypoint : str
        A keypoint of the model.
    """

    UNITS: ClassVar[tuple[str, ...]] = ("px_s2", "mm_s2")
    keypoint: Keypoint

    @property
    def span(self) -> tuple[float, float]:
        """Any number: braking is negative."""
        return -math.inf, math.inf

    def build(self) -> "Acceleration":
        """Return what takes the acceleration."""
        return Acceleration(self.keypoint, self)

    def words(self) -> str:
        """Say whose acceleration."""
        return f"{self.keypoint}: acceleration"


class AccelerationSettings(AccelerationOfSettings, QuantityBoundSettings):
    """A change of speed (`AccelerationOfSettings`) and thresholds.

    Attributes
    ----------
    above_px_s2, below_px_s2, above_mm_s2, below_mm_s2 : float, optional
        At least one; negative is braking. The thresholds themselves do not meet it.
    hysteresis_px_s2, hysteresis_mm_s2 : float, optional
        Once met, it stays met until the acceleration is back by more than this.
    """

    above_px_s2: Signed | None = None
    below_px_s2: Signed | None = None
    hysteresis_px_s2: Positive | None = None
    above_mm_s2: Signed | None = None
    below_mm_s2: Signed | None = None
    hysteresis_mm_s2: Positive | None = None


class Acceleration(Quantity):
    """The change of a keypoint's speed, in px/s2.

    The difference between the speed over the last window and that over the window before it, over
    the time between the middles of the two; so it is late by one window.

    Parameters
    ----------
    keypoint : str
    window : WindowSettings
    """

    def __init__(self, keypoint: str, window: WindowSettings) -> None:
        self.keypoints = (keypoint,)
        window_ns, gap_ns = round(window.window_ms * 1e6), round(window.max_gap_ms * 1e6)
        self._window_ns, self._longest_ns = window_ns, window_ns + gap_ns
        self._near = Lag(window_ns, window_ns + gap_ns)
        self._far: list[Fix] = []  # what is older than the near window, oldest first
        self._index = -1

    def prepare(self, skeleton: Skeleton) -> None:
        """Look up the keypoint."""
        self._index = skeleton.index(self.keypoints[0])

    def reset(self) -> None:
        """Forget every sample."""
        self._near.reset()
        self._far.clear()

    def update(self, sample: Sample) -> float | None:
        """Take the next sample."""
        point = sample.points[self._index]
        if point is None:
            return None
        now = (sample.start_ns, *point)
        middle, passed = self._near.update(now)
        self._far += passed
        if middle is None:
            return None
        far = self._far
        while len(far) > 1 and middle[0] - far[1][0] >= self._window_ns:
            del far[0]
        if not far or not self._window_ns <= middle[0] - far[0][0] <= self._longest_ns:
            return None
        change_px_s = speed_px_s(middle, now) - speed_px_s(far[0], middle)
        return change_px_s * 2e9 / (now[0] - far[0][0])


class AccelerationCondition(QuantityCondition):
    """An acceleration against thresholds."""

    Config: ClassVar[type[ConditionSettings]] = AccelerationSettings


class AccelerationTriggerSettings(EventTriggerSettings, AccelerationSettings):
    """``type = "acceleration"``: `AccelerationSettings` and `EventTriggerSettings`."""


class AccelerationTrigger(ConditionTrigger):
    """An acceleration as a trigger."""

    Config: ClassVar[type[Settings]] = AccelerationTriggerSettings
    condition_type: ClassVar[type[Condition]] = AccelerationCondition
