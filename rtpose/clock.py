"""The one clock of rtpose, and a rate keeper on it."""

import datetime
import time

_NS_PER_S = 1_000_000_000

#: Monotonic nanoseconds, comparable between all processes of one machine and of no meaning outside
#: it. ``perf_counter`` is CLOCK_MONOTONIC on Linux, mach time on macOS and the performance counter
#: on Windows (where ``monotonic`` would step by 15 ms).
now_ns = time.perf_counter_ns


def utc_now() -> str:
    """Return the wall-clock time in ISO 8601, UTC. It appears once per run, in the manifest."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


class RateKeeper:
    """Keep a loop at a rate without drift: deadlines are multiples of the period.

    Parameters
    ----------
    rate_hz : float
        Wanted rate, > 0.

    Notes
    -----
    A loop that falls more than one period behind is not made to catch up with a burst: the
    missed deadlines are skipped and counted in `missed`.
    """

    def __init__(self, rate_hz: float) -> None:
        self.period_ns = round(_NS_PER_S / rate_hz)
        self.missed = 0
        self._next_ns: int | None = None

    def wait(self) -> int:
        """Sleep until the next deadline and return it in ns; the first call returns at once."""
        now = now_ns()
        if self._next_ns is None:
            self._next_ns = now
        late_ns = now - self._next_ns
        if late_ns < 0:
            time.sleep(-late_ns / _NS_PER_S)
        elif late_ns > self.period_ns:
            skipped = late_ns // self.period_ns
            self.missed += skipped
            self._next_ns += skipped * self.period_ns
        deadline_ns = self._next_ns
        self._next_ns += self.period_ns
        return deadline_ns
