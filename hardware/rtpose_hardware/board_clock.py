"""The TTL board's clock on the host's: when was that which the board stamped, in `now_ns`.

Every request and its answer are one comparison: the board took its stamp after the request was
handed over and before the answer was read (Cristian, "Probabilistic clock synchronization",
Distributed Computing 3, 1989). Of each half second the comparison with the shortest round trip is
kept, because delays of a host have a long tail (the clock filter of NTP, RFC 5905, section 10), and
a line is fitted through the middles of those. What is certain is kept apart from what is likely:
every comparison bounds the line from both sides, and all of them together bound offset and rate
(Zhang, Liu and Xia, "Clock synchronization algorithms for network measurements", INFOCOM 2002).
The uncertainty that is stated comes from those bounds, not from the scatter.

It holds as long as neither clock jumps and the ratio of their rates changes by no more than 1 ppm
per second. A comparison that contradicts what was known shows that it did not: all older ones are
forgotten. A board that jumps between two comparisons can not be told before the second.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rtpose_hardware.answers import BoardClock

_BUCKET_NS: Final = 500_000_000
_BUCKETS: Final = 32

_NS_PER_US: Final = 1000

#: An Uno's clock is a ceramic resonator: 0.5 % when new, and as much again by temperature and age.
_MOST_DRIFT: Final = 0.01

#: How fast the ratio of the rates may change, per second: a resonator has about 30 ppm per degree.
_WANDER_PER_S: Final = 1e-6

#: The board's stamps are whole microseconds.
_RESOLUTION_NS: Final = 1000


class HostTime(NamedTuple):
    """A time of the board on the host's clock.

    Attributes
    ----------
    time_ns : int
        On `clock.now_ns`.
    uncertainty_ns : int
        The true time is no further away than this.
    """

    time_ns: int
    uncertainty_ns: int


class _Comparison(NamedTuple):
    """The host's clock before and after the board took a stamp."""

    before_ns: int
    time_us: int
    after_ns: int

    @property
    def round_trip_ns(self) -> int:
        return self.after_ns - self.before_ns


class _Line(NamedTuple):
    """A line through comparisons.

    Attributes
    ----------
    time_us, time_ns : int
        A point of it, on both clocks.
    rate, rate_error : float
        Nanoseconds of the host per microsecond of the board, and how wrong that may be.
    error_ns : float
        How wrong ``time_ns`` may be.
    residual_ns : float
        Root of the mean squared distance between the line and the middles of the comparisons.
    """

    time_us: int
    time_ns: int
    rate: float
    rate_error: float
    error_ns: float
    residual_ns: float


class ClockMapping:
    """Map the board's microseconds to the host's nanoseconds.

    Attributes
    ----------
    restarts : int
        How often a comparison contradicted the older ones, or the board was reset.
    """

    def __init__(self) -> None:
        self.restarts = 0
        self._forget()

    def _forget(self) -> None:
        self._count = BoardClock()
        self._kept: deque[_Comparison] = deque(maxlen=_BUCKETS)
        self._line: _Line | None = None

    def restart(self) -> None:
        """Forget everything: the board was reset, and its clock with it."""
        if self._line is not None:
            self.restarts += 1
        self._forget()

    def extend(self, time_us: int, arrival_ns: int) -> int:
        """Return a stamp of 32 bits, received at ``arrival_ns`` of the host, without wraps."""
        return self._count.extend(time_us, arrival_ns)

    def compare(self, before_ns: int, time_us: int, after_ns: int) -> None:
        """Take a stamp of the board, without wraps, that it took between two times of the host."""
        new = _Comparison(before_ns, time_us, after_ns)
        if self._contradicts(new):
            self._kept.clear()
            self.restarts += 1
        elif self._kept and self._kept[-1].after_ns // _BUCKET_NS == after_ns // _BUCKET_NS:
            if new.round_trip_ns >= self._kept[-1].round_trip_ns:
                return
            self._kept.pop()
        self._kept.append(new)
        self._line = _fit(self._kept)
        if self._line is None:  # together they contradict each other, though no two of them do
            self._kept.clear()
            self._kept.append(new)
            self._line = _fit(self._kept)
            self.restarts += 1

    def host_time(self, time_us: int) -> HostTime | None:
        """Return when a stamp without wraps was taken; None if nothing was compared yet."""
        line = self._line
        if line is None:
            return None
        since_us = time_us - line.time_us
        uncertainty_ns = line.error_ns + line.rate_error * abs(since_us) + _wander_ns(since_us)
        return HostTime(
            max(line.time_ns + round(line.rate * since_us), 0),
            round(uncertainty_ns) + _RESOLUTION_NS,
        )

    def facts(self) -> Mapping[str, int | float]:
        """Return what it knows, for the status; nothing before the first comparison.

        ``clock_offset_ns`` is the host's clock less the board's at the newest comparison, and
        ``clock_drift_ppm`` how much faster the board's runs. ``clock_residual_us`` is the scatter
        around the line, ``clock_uncertainty_us`` what a stamp may be wrong by at most.
        """
        line = self._line
        if line is None:
            return {}
        return {
            "clock_offset_ns": line.time_ns - line.time_us * _NS_PER_US,
            "clock_drift_ppm": round((_NS_PER_US / line.rate - 1) * 1e6, 3),
            "clock_drift_error_ppm": round(line.rate_error / _NS_PER_US * 1e6, 3),
            "clock_residual_us": round(line.residual_ns / _NS_PER_US, 3),
            "clock_uncertainty_us": round((line.error_ns + _RESOLUTION_NS) / _NS_PER_US, 3),
            "clock_restarts": self.restarts,
        }

    def _contradicts(self, new: _Comparison) -> bool:
        expected = self.host_time(new.time_us)
        if expected is None:
            return False
        early_ns = new.before_ns - expected.time_ns
        late_ns = expected.time_ns - new.after_ns
        return max(early_ns, late_ns) > expected.uncertainty_ns


def _wander_ns(since_us: float) -> float:
    """Return how far a clock strays from a straight line within a time, in ns."""
    return 0.5 * _WANDER_PER_S * 1e-3 * since_us**2


def _fit(kept: Sequence[_Comparison]) -> _Line | None:
    """Fit a line through comparisons, oldest first; None if no line is within all their bounds.

    Its point is at the newest one. Every other one bounds it, by as much less as it is older.
    """
    newest = kept[-1]
    origin_ns = newest.before_ns
    # Differences are exact in floating point; the times themselves would not be.
    since_us = np.array([float(item.time_us - newest.time_us) for item in kept])
    slack_ns = _wander_ns(1.0) * since_us**2 + _RESOLUTION_NS
    low_ns = np.array([float(item.before_ns - origin_ns) for item in kept]) - slack_ns
    high_ns = np.array([float(item.after_ns - origin_ns) for item in kept]) + slack_ns
    least, most = _rates(since_us, low_ns, high_ns)
    earliest_ns = float(np.max(low_ns - least * since_us))
    latest_ns = float(np.min(high_ns - most * since_us))
    if least > most or earliest_ns > latest_ns:
        return None
    middle_ns = (low_ns + high_ns) / 2
    weights = 1 / (high_ns - low_ns) ** 2
    weights /= weights.sum()
    mean_us, mean_ns = float(weights @ since_us), float(weights @ middle_ns)
    spread = float(weights @ (since_us - mean_us) ** 2)
    rate = (
        float(weights @ ((since_us - mean_us) * (middle_ns - mean_ns))) / spread
        if spread
        else float(_NS_PER_US)
    )
    rate = min(max(rate, least), most)
    at_ns = min(max(mean_ns - rate * mean_us, earliest_ns), latest_ns)
    residuals_ns = middle_ns - (at_ns + rate * since_us)
    return _Line(
        time_us=newest.time_us,
        time_ns=origin_ns + round(at_ns),
        rate=rate,
        rate_error=max(most - rate, rate - least),
        error_ns=max(latest_ns - at_ns, at_ns - earliest_ns),
        residual_ns=float(np.sqrt(np.mean(residuals_ns**2))),
    )


def _rates(
    since_us: NDArray[np.float64], low_ns: NDArray[np.float64], high_ns: NDArray[np.float64]
) -> tuple[float, float]:
    """Return the least and the greatest rate, in ns per us, of a line within all bounds.

    There is a line of some rate if there is one for every two of the bounds.
    """
    older, newer = np.triu_indices(len(since_us), 1)
    between_us = since_us[newer] - since_us[older]
    apart = between_us > 0
    older, newer, between_us = older[apart], newer[apart], between_us[apart]
    least = (low_ns[newer] - high_ns[older]) / between_us
    most = (high_ns[newer] - low_ns[older]) / between_us
    return (
        float(np.max(least, initial=_NS_PER_US * (1 - _MOST_DRIFT))),
        float(np.min(most, initial=_NS_PER_US * (1 + _MOST_DRIFT))),
    )
