"""Filters of a keypoint's path; each says by how much it delays what it smooths.

All take uneven and dropped frames as they are, by the poses' stamps. The delay is what a filter
lags behind a keypoint that moves at a constant velocity.
"""

import math
from abc import ABC, abstractmethod
from collections import deque
from statistics import median
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, PlainSerializer, PlainValidator, ValidationInfo

from rtpose.interfaces import Settings
from rtpose.triggers.geometry import Point
from rtpose.triggers.tables import read_table


class Filter(ABC):
    """Smooths the path of one keypoint, using earlier poses only."""

    @abstractmethod
    def update(self, start_ns: int, point: Point) -> Point:
        """Take the next position, in px, later than those before, and return the smoothed one."""

    @abstractmethod
    def reset(self) -> None:
        """Begin afresh: the next position is taken as it is."""


class FilterSettings(Settings):
    """Base of a filter's settings, under ``filter`` in a trigger's table.

    Attributes
    ----------
    max_gap_ms : float
        After a keypoint was not found for longer than this, its filter begins afresh.
    """

    max_gap_ms: Annotated[float, Field(gt=0, le=60_000, allow_inf_nan=False)] = 250.0


class OneEuroSettings(FilterSettings):
    """``filter = { type = "one-euro", ... }``: smooth at rest, quick in motion.

    The 1 euro filter (Casiez, Roussel & Vogel, 1 euro filter: a simple speed-based low-pass filter
    for noisy input in interactive systems, CHI 2012, algorithm 1): exponential smoothing whose
    cutoff frequency rises with the speed. The speed here is that of the point, so that smoothing
    does not depend on the direction.

    Attributes
    ----------
    min_cutoff_hz : float
        Cutoff at rest: lower is smoother and later.
    beta_per_px : float
        Rise of the cutoff in Hz per px/s of speed: higher is quicker in motion.
    speed_cutoff_hz : float
        Cutoff of the speed's own smoothing.
    """

    type: Literal["one-euro"]
    min_cutoff_hz: Annotated[float, Field(gt=0, le=1e4, allow_inf_nan=False)] = 1.0
    beta_per_px: Annotated[float, Field(ge=0, le=1e4, allow_inf_nan=False)] = 0.01
    speed_cutoff_hz: Annotated[float, Field(gt=0, le=1e4, allow_inf_nan=False)] = 1.0

    def build(self) -> Filter:
        """Return a filter for one keypoint."""
        return OneEuro(self)

    def delay_ms(self, rate_hz: float) -> float:
        """Return the delay at rest, the longest; it is 1 / (2 pi cutoff) at every frame rate."""
        return self.delay_ms_at(0.0)

    def delay_ms_at(self, speed_px_s: float) -> float:
        """Return the delay at a constant speed."""
        return 1e3 / (2 * math.pi * (self.min_cutoff_hz + self.beta_per_px * speed_px_s))


class OneEuro(Filter):
    """See `OneEuroSettings`."""

    def __init__(self, settings: OneEuroSettings) -> None:
        self._min_cutoff_hz = settings.min_cutoff_hz
        self._beta_per_px = settings.beta_per_px
        self._speed_tau_s = 1 / (2 * math.pi * settings.speed_cutoff_hz)
        self.reset()

    def reset(self) -> None:
        """Begin afresh."""
        self._last: tuple[int, Point, Point] | None = None
        self._velocity_px_s: Point = (0.0, 0.0)

    def update(self, start_ns: int, point: Point) -> Point:
        """Take the next position."""
        if self._last is None:
            self._last = (start_ns, point, point)
            return point
        then_ns, (raw_x, raw_y), (smooth_x, smooth_y) = self._last
        x, y = point
        elapsed_s = (start_ns - then_ns) * 1e-9
        share = elapsed_s / (elapsed_s + self._speed_tau_s)
        velocity_x, velocity_y = self._velocity_px_s
        velocity_x += share * ((x - raw_x) / elapsed_s - velocity_x)
        velocity_y += share * ((y - raw_y) / elapsed_s - velocity_y)
        self._velocity_px_s = (velocity_x, velocity_y)
        cutoff_hz = self._min_cutoff_hz + self._beta_per_px * math.hypot(velocity_x, velocity_y)
        share = elapsed_s / (elapsed_s + 1 / (2 * math.pi * cutoff_hz))
        smooth = (smooth_x + share * (x - smooth_x), smooth_y + share * (y - smooth_y))
        self._last = (start_ns, point, smooth)
        return smooth


def _odd(poses: int) -> int:
    if poses % 2 == 0:
        raise ValueError(f"must be odd: {poses - 1} or {poses + 1}")
    return poses


class MedianSettings(FilterSettings):
    """``filter = { type = "median", poses = 5 }``: takes out single jumps and keeps edges sharp.

    The median of x and that of y over the last poses that show the keypoint (Tukey, Exploratory
    Data Analysis, 1977, chapter 7: running medians).

    Attributes
    ----------
    poses : int
        Odd.
    """

    type: Literal["median"]
    poses: Annotated[int, Field(ge=3, le=99), AfterValidator(_odd)]

    def build(self) -> Filter:
        """Return a filter for one keypoint."""
        return Median(self.poses)

    def delay_ms(self, rate_hz: float) -> float:
        """Return the delay at a frame rate: half of the window."""
        return (self.poses - 1) / 2 * 1e3 / rate_hz


class Median(Filter):
    """The median of each coordinate over the last `poses` positions, fewer at the start."""

    def __init__(self, poses: int) -> None:
        self._points: deque[Point] = deque(maxlen=poses)

    def reset(self) -> None:
        """Begin afresh."""
        self._points.clear()

    def update(self, start_ns: int, point: Point) -> Point:
        """Take the next position."""
        self._points.append(point)
        return median(x for x, _ in self._points), median(y for _, y in self._points)


class ExponentialSettings(FilterSettings):
    """``filter = { type = "exponential", time_constant_ms = 20 }``.

    First-order low-pass: a step is followed to 63 % within the time constant, at every frame rate.

    Attributes
    ----------
    time_constant_ms : float
    """

    type: Literal["exponential"]
    time_constant_ms: Annotated[float, Field(gt=0, le=60_000, allow_inf_nan=False)]

    def build(self) -> Filter:
        """Return a filter for one keypoint."""
        return Exponential(self.time_constant_ms)

    def delay_ms(self, rate_hz: float) -> float:
        """Return the delay at a frame rate: a little under the time constant."""
        between_ms = 1e3 / rate_hz
        steps = between_ms / self.time_constant_ms
        return between_ms / math.expm1(steps) if steps < 700 else 0.0


class Exponential(Filter):
    """See `ExponentialSettings`."""

    def __init__(self, time_constant_ms: float) -> None:
        self._time_constant_ns = time_constant_ms * 1e6
        self.reset()

    def reset(self) -> None:
        """Begin afresh."""
        self._last: tuple[int, Point] | None = None

    def update(self, start_ns: int, point: Point) -> Point:
        """Take the next position."""
        if self._last is not None:
            then_ns, (x, y) = self._last
            share = -math.expm1((then_ns - start_ns) / self._time_constant_ns)
            point = (x + share * (point[0] - x), y + share * (point[1] - y))
        self._last = (start_ns, point)
        return point


_FILTERS: Final[dict[str, type[OneEuroSettings | MedianSettings | ExponentialSettings]]] = {
    "one-euro": OneEuroSettings,
    "median": MedianSettings,
    "exponential": ExponentialSettings,
}


def _parse(value: object, info: ValidationInfo) -> FilterSettings:
    if isinstance(value, FilterSettings):
        return value
    chosen = value.get("type") if isinstance(value, dict) else None
    if not isinstance(value, dict) or chosen not in _FILTERS:
        raise ValueError(f"must be a table whose type is one of: {', '.join(_FILTERS)}")
    return read_table(_FILTERS[chosen], value, info.context)


def _dump(chosen: FilterSettings) -> dict[str, Any]:
    return chosen.model_dump()


AnyFilter = Annotated[
    OneEuroSettings | MedianSettings | ExponentialSettings,
    PlainValidator(_parse),
    PlainSerializer(_dump),
]
