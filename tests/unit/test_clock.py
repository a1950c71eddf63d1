"""The clock: monotonic, the same in every process, and a rate without drift."""

import datetime
import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtpose import clock
from rtpose.clock import RateKeeper, now_ns, utc_now


def test_it_never_goes_back() -> None:
    readings = [now_ns() for _ in range(10_000)]
    assert readings == sorted(readings)


def test_another_process_reads_the_same_clock() -> None:
    before_ns = now_ns()
    code = "from rtpose.clock import now_ns; print(now_ns())"
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert before_ns < int(shown.stdout) < now_ns()


def test_wall_clock_time_is_utc_and_says_so() -> None:
    moment = datetime.datetime.fromisoformat(utc_now())
    assert moment.utcoffset() == datetime.timedelta(0)
    assert abs(moment - datetime.datetime.now(datetime.UTC)) < datetime.timedelta(minutes=5)


class Simulated:
    """A clock and a sleep that take no time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ns = 10_000
        monkeypatch.setattr(clock, "now_ns", lambda: self.ns)
        monkeypatch.setattr("rtpose.clock.time.sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.ns += round(seconds * 1e9)


def test_the_first_wait_returns_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    simulated = Simulated(monkeypatch)
    assert RateKeeper(100).wait() == simulated.ns == 10_000


@given(st.lists(st.integers(0, 35_000_000), min_size=1, max_size=50))
def test_deadlines_are_multiples_of_the_period_and_none_is_caught_up(work_ns: list[int]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        simulated = Simulated(monkeypatch)
        keeper = RateKeeper(100)
        start_ns = keeper.wait()
        deadlines = [start_ns]
        for busy_ns in work_ns:
            simulated.ns += busy_ns
            asked_ns = simulated.ns
            deadlines.append(keeper.wait())
            assert simulated.ns == max(asked_ns, deadlines[-1]), "it waits for the deadline only"
            assert simulated.ns - deadlines[-1] <= keeper.period_ns, "at most one period late"
        steps = [b - a for a, b in pairwise(deadlines)]
        assert all(step > 0 and step % keeper.period_ns == 0 for step in steps)
        assert keeper.missed == sum(step // keeper.period_ns - 1 for step in steps)


def test_a_loop_that_keeps_up_misses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    simulated = Simulated(monkeypatch)
    keeper = RateKeeper(30)
    for _ in range(100):
        keeper.wait()
        simulated.ns += 5_000_000
    assert keeper.missed == 0
    assert abs(simulated.ns - 10_000 - 5_000_000 - 99 * keeper.period_ns) < 100
