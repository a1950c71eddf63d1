"""``freezing``: all of several keypoints have been slower than a threshold for some time."""

from typing import Annotated, ClassVar

from pydantic import Field

from rtpose.interfaces import Scale, Settings
from rtpose.skeleton import Skeleton
from rtpose.triggers.condition import Condition, ConditionSettings, Keypoints
from rtpose.triggers.sample import Sample
from rtpose.triggers.speed import Speed, WindowSettings
from rtpose.triggers.thresholds import BoundSettings, Positive, Threshold, px_per_unit
from rtpose.triggers.timing import Dwell
from rtpose.triggers.trigger import ConditionTrigger, EventTriggerSettings


class FreezingSettings(WindowSettings, BoundSettings):
    """Keypoints, how their speeds are taken (`WindowSettings`), a threshold, and a time.

    Attributes
    ----------
    keypoints : list of str
        Keypoints of the model, all of which must be slow.
    below_px_s, below_mm_s : float, optional
        Exactly one; the threshold itself is too fast.
    hysteresis_px_s, hysteresis_mm_s : float, optional
        Once all are slow, they stay so until one is faster than the threshold by this or more.
    for_ms : float
        All must have been slow for this long, see `Dwell`; `window_ms` passes before a speed is
        known at all.
    """

    UNITS: ClassVar[tuple[str, ...]] = ("px_s", "mm_s")
    keypoints: Keypoints
    below_px_s: Annotated[Positive, Field(gt=0)] | None = None
    hysteresis_px_s: Positive | None = None
    below_mm_s: Annotated[Positive, Field(gt=0)] | None = None
    hysteresis_mm_s: Positive | None = None
    for_ms: Annotated[float, Field(gt=0, le=3_600_000, allow_inf_nan=False)]

    def _ways(self) -> tuple[str, ...]:
        return ("below",)


class Freezing(Condition):
    """All keypoints are slow, and have been for a while.

    One that is known to be fast is enough not to be freezing; otherwise a speed that is not known
    leaves the answer open, and the time around it does not count.
    """

    Config: ClassVar[type[ConditionSettings]] = FreezingSettings

    def __init__(self, config: FreezingSettings) -> None:
        self._config = config
        self._names = tuple(config.keypoints)
        self._speeds = [Speed(name, config) for name in self._names]
        self._dwell = Dwell(round(config.for_ms * 1e6))
        self._threshold = Threshold()
        self._px_per_unit = 1.0
        self._fastest_px_s: float | None = None

    @property
    def keypoints(self) -> tuple[str, ...]:
        """Names of the keypoints it looks at."""
        return self._names

    def prepare(self, skeleton: Skeleton, scale: Scale | None) -> None:
        """Look up the keypoints, and turn mm into px."""
        for speed in self._speeds:
            speed.prepare(skeleton)
        self._threshold = self._config.threshold(scale)
        self._px_per_unit = px_per_unit(self._config.unit, scale)

    def reset(self) -> None:
        """Forget every sample."""
        for speed in self._speeds:
            speed.reset()
        self.let_go()

    def let_go(self) -> None:
        """Count as ended."""
        self._threshold.let_go()
        self._dwell.reset()

    def update(self, sample: Sample) -> bool | None:
        """Take the next sample."""
        fastest, missing = None, False
        for speed in self._speeds:
            value = speed.update(sample)
            if value is None:
                missing = True
            elif fastest is None or value > fastest:
                fastest = value
        self._fastest_px_s = None if missing else fastest
        if missing and (fastest is None or self._threshold.would_meet(fastest)):
            return self._dwell.update(sample.start_ns, None)
        return self._dwell.update(sample.start_ns, self._threshold.update(fastest))

    def describe(self) -> str:
        """Say how fast the fastest keypoint was in the last pose."""
        if self._fastest_px_s is None:
            return f"{', '.join(self._names)}: speed not known"
        speed = self._fastest_px_s / self._px_per_unit
        unit = self._config.unit.replace("_", "/")
        return f"{', '.join(self._names)}: at most {speed:.1f} {unit}"


class FreezingTriggerSettings(EventTriggerSettings, FreezingSettings):
    """``type = "freezing"``: `FreezingSettings` and `EventTriggerSettings`."""


class FreezingTrigger(ConditionTrigger):
    """Freezing as a trigger."""

    Config: ClassVar[type[Settings]] = FreezingTriggerSettings
    condition_type: ClassVar[type[Condition]] = Freezing
