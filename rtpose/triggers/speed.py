"""``speed``: a keypoint moves faster, or slower, than a threshold."""

import math
from collections import deque
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from rtpose.interfaces import Decision, Settings, Trigger
from rtpose.messages import Pose
from rtpose.skeleton import Skeleton
from rtpose.triggers.keypoint import KeypointReader

Threshold = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


class SpeedSettings(Settings):
    """``[triggers.<name>]`` with ``type = "speed"``.

    Attributes
    ----------
    keypoint : str
        A keypoint of the model.
    above_px_s, below_px_s : float, optional
        The condition, in px of the full frame per second. Exactly one is given; the threshold
        itself does not meet it.
    window_ms : float
        The speed is the distance between where the keypoint is and where it was this long ago,
        over the time between: longer is less noisy and later.
    max_gap_ms : float
        How much longer than `window_ms` that time may be, where frames were dropped or the keypoint
        was not found. Beyond it there is no speed.
    when : {'cross', 'while'}
        ``cross`` asks for one pulse at the pose where the condition becomes true; ``while`` asks
        for a high line as long as it is true.
    """

    keypoint: Annotated[str, Field(min_length=1)]
    above_px_s: Threshold | None = None
    below_px_s: Annotated[Threshold, Field(gt=0)] | None = None
    window_ms: Annotated[float, Field(ge=1, le=60_000, allow_inf_nan=False)]
    max_gap_ms: Annotated[float, Field(ge=0, le=60_000, allow_inf_nan=False)] = 100.0
    when: Literal["cross", "while"]

    @model_validator(mode="after")
    def _one_threshold(self) -> Self:
        if (self.above_px_s is None) == (self.below_px_s is None):
            given = "neither" if self.above_px_s is None else "both"
            raise ValueError(
                f"exactly one of above_px_s and below_px_s is needed, {given} is given"
            )
        return self


class SpeedTrigger(Trigger):
    """A keypoint and a threshold on its speed.

    The speed compares the newest pose with the latest one that is at least `window_ms` older, by
    the poses' own start stamps, so that uneven and dropped frames do not bend it. There is no speed
    until the window is filled, in a pose that does not show the keypoint, and where the pose to
    compare with is older than `window_ms` + `max_gap_ms`. Without a speed ``while`` asks for a
    low line and ``cross`` for nothing; the first speed that is known only tells the state: an
    animal that already runs when the rig starts has not crossed.

    Parameters
    ----------
    config : SpeedSettings
        The checked settings.
    """

    Config: ClassVar[type[Settings]] = SpeedSettings

    def __init__(self, config: SpeedSettings) -> None:
        self._keypoint = KeypointReader(config.keypoint)
        self._above_px_s, self._below_px_s = config.above_px_s, config.below_px_s
        self._window_ns = round(config.window_ms * 1e6)
        self._longest_ns = self._window_ns + round(config.max_gap_ms * 1e6)
        self._cross = config.when == "cross"
        self._samples: deque[tuple[int, float, float]] = deque()  # start_ns, x, y; oldest first
        self._speed_px_s: float | None = None
        self._met: bool | None = None

    def prepare(self, skeleton: Skeleton) -> None:
        """Look up the keypoint."""
        self._keypoint.prepare(skeleton)

    def update(self, pose: Pose) -> Decision:
        """Take one pose and say what should happen."""
        position = self._keypoint.position(pose)
        speed = None if position is None else self._take(pose.start_ns, *position)
        self._speed_px_s = speed
        if speed is None:
            return Decision.NOTHING if self._cross else Decision.LOW
        was_met = self._met
        if self._above_px_s is not None:
            self._met = speed > self._above_px_s
        elif self._below_px_s is not None:
            self._met = speed < self._below_px_s
        if not self._cross:
            return Decision.HIGH if self._met else Decision.LOW
        return Decision.FIRE if self._met and was_met is False else Decision.NOTHING

    def _take(self, start_ns: int, x: float, y: float) -> float | None:
        """Add a sample and return the speed in px/s, if there is one to compare with."""
        samples = self._samples
        if samples and start_ns <= samples[-1][0]:
            samples.clear()  # time went back: what was seen before cannot be compared with
        while len(samples) > 1 and start_ns - samples[1][0] >= self._window_ns:
            samples.popleft()
        samples.append((start_ns, x, y))
        then_ns, then_x, then_y = samples[0]
        elapsed_ns = start_ns - then_ns
        if not self._window_ns <= elapsed_ns <= self._longest_ns:
            return None
        return math.hypot(x - then_x, y - then_y) * 1e9 / elapsed_ns

    @property
    def momentary(self) -> bool:
        """Whether it gives pulses: with ``when = "cross"``."""
        return self._cross

    def describe(self) -> str:
        """Say how fast the keypoint was in the last pose."""
        if self._speed_px_s is None:
            return f"{self._keypoint.name}: speed not known"
        return f"{self._keypoint.name} at {self._speed_px_s:.1f} px/s"
