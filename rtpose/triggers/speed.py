"""``speed``: a keypoint moves faster, or slower, than a threshold."""

import math
from collections import deque
from typing import Annotated, ClassVar

from pydantic import Field

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
from rtpose.triggers.thresholds import Positive, QuantityBoundSettings, QuantityCondition
from rtpose.triggers.trigger import ConditionTrigger, EventTriggerSettings

#: When a keypoint was where: start_ns, x, y in px.
Fix = tuple[int, float, float]


class WindowSettings(Settings):
    """How a speed is taken.

    Attributes
    ----------
    window_ms : float
        The speed is the distance between where the keypoint is and where it was this long ago,
        over the time between: longer is less noisy, and later by half of it.
    max_gap_ms : float
        How much longer than `window_ms` that time may be, where frames were dropped or the keypoint
        was not found. Beyond it there is no speed.
    """

    window_ms: Annotated[float, Field(ge=1, le=60_000, allow_inf_nan=False)]
    max_gap_ms: Annotated[float, Field(ge=0, le=60_000, allow_inf_nan=False)] = 100.0


class SpeedOfSettings(WindowSettings, QuantitySettings):
    """A keypoint and a window (`WindowSettings`).

    Attributes
    ----------
    keypoint : str
        A keypoint of the model.
    """

    UNITS: ClassVar[tuple[str, ...]] = ("px_s", "mm_s")
    keypoint: Keypoint

    def build(self) -> "Speed":
        """Return what takes the speed."""
        return Speed(self.keypoint, self)

    def words(self) -> str:
        """Say whose speed."""
        return f"{self.keypoint}: speed"


class SpeedSettings(SpeedOfSettings, QuantityBoundSettings):
    """A speed (`SpeedOfSettings`) and thresholds.

    Attributes
    ----------
    above_px_s, below_px_s, above_mm_s, below_mm_s : float, optional
        At least one; both in one unit mean between them. The thresholds themselves do not meet it.
    hysteresis_px_s, hysteresis_mm_s : float, optional
        Once met, it stays met until the speed is back by more than this.
    """

    above_px_s: Positive | None = None
    below_px_s: Annotated[Positive, Field(gt=0)] | None = None
    hysteresis_px_s: Positive | None = None
    above_mm_s: Positive | None = None
    below_mm_s: Annotated[Positive, Field(gt=0)] | None = None
    hysteresis_mm_s: Positive | None = None


class Lag:
    """Where a keypoint was: the latest fix that is at least a window older than the newest.

    By the poses' own stamps, so that uneven and dropped frames do not bend it.

    Parameters
    ----------
    window_ns, longest_ns : int
        Shortest and longest time between the two; none is given where it would be longer.
    """

    def __init__(self, window_ns: int, longest_ns: int) -> None:
        self._window_ns, self._longest_ns = window_ns, longest_ns
        self._fixes: deque[Fix] = deque()  # oldest first; at most one is older than the window

    def update(self, fix: Fix) -> tuple[Fix | None, list[Fix]]:
        """Take the next fix; return the one before it by the window, and those now passed over."""
        fixes, window_ns = self._fixes, self._window_ns
        start_ns = fix[0]
        fixes.append(fix)
        passed = []
        while len(fixes) > 2 and start_ns - fixes[1][0] >= window_ns:
            passed.append(fixes.popleft())
        oldest = fixes[0]
        between_ns = start_ns - oldest[0]
        return (oldest if window_ns <= between_ns <= self._longest_ns else None), passed

    def reset(self) -> None:
        """Forget every fix."""
        self._fixes.clear()


class Speed(Quantity):
    """The speed of a keypoint in px/s, see `WindowSettings`.

    There is none until the window is filled, in a pose that does not show the keypoint, and where
    the pose to compare with is older than ``window_ms + max_gap_ms``.

    Parameters
    ----------
    keypoint : str
    window : WindowSettings
    """

    def __init__(self, keypoint: str, window: WindowSettings) -> None:
        self.keypoints = (keypoint,)
        window_ns, gap_ns = round(window.window_ms * 1e6), round(window.max_gap_ms * 1e6)
        self._lag = Lag(window_ns, window_ns + gap_ns)
        self._index = -1

    def prepare(self, skeleton: Skeleton) -> None:
        """Look up the keypoint."""
        self._index = skeleton.index(self.keypoints[0])

    def reset(self) -> None:
        """Forget every sample."""
        self._lag.reset()

    def update(self, sample: Sample) -> float | None:
        """Take the next sample."""
        point = sample.points[self._index]
        if point is None:
            return None
        now = (sample.start_ns, *point)
        then, _ = self._lag.update(now)
        return None if then is None else speed_px_s(then, now)


def speed_px_s(then: Fix, now: Fix) -> float:
    """Return the mean speed between two fixes of which the first is the earlier one."""
    return math.hypot(now[1] - then[1], now[2] - then[2]) * 1e9 / (now[0] - then[0])


class SpeedCondition(QuantityCondition):
    """A speed against thresholds."""

    Config: ClassVar[type[ConditionSettings]] = SpeedSettings


class SpeedTriggerSettings(EventTriggerSettings, SpeedSettings):
    """``type = "speed"``: `SpeedSettings` and `EventTriggerSettings`."""


class SpeedTrigger(ConditionTrigger):
    """A speed as a trigger."""

    Config: ClassVar[type[Settings]] = SpeedTriggerSettings
    condition_type: ClassVar[type[Condition]] = SpeedCondition
