"""Stamps of the board on the host's clock, against simulated clocks whose true times are known."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtpose_hardware.board_clock import ClockMapping

S = 1_000_000_000
WRAP = 1 << 32

#: True time in seconds since the start, to the board's time in seconds.
Clock = Callable[[float], float]


class Exchange(NamedTuple):
    """A simulated request and its answer, and when the board really took its stamp."""

    before_ns: int
    true_ns: int
    stamp_us: int  # 32 bits
    after_ns: int


class Simulation:
    """A board and a host that asks it, with delays that have a heavy tail in both directions."""

    def __init__(
        self,
        seed: int,
        clock: Clock,
        board_start_us: int,
        there_us: float = 150,
        *,
        back_us: float = 150,
        tail_us: float = 20,
    ) -> None:
        self.random = np.random.default_rng(seed)
        self.host_start_ns = int(self.random.integers(S, 10**18))
        self._clock = clock
        self._board_start_us = board_start_us
        self._there_us = there_us
        self._back_us = back_us
        self._tail_us = tail_us
        self.now_s = 0.0

    def host_ns(self, at_s: float) -> int:
        return self.host_start_ns + round(at_s * 1e9)

    def stamp_us(self, at_s: float) -> int:
        """Return the board's microseconds, without wraps, at a true time."""
        return self._board_start_us + int(self._clock(at_s) * 1e6)

    def _delay_s(self, least_us: float) -> float:
        return (least_us + self._tail_us * float(self.random.pareto(1.2))) * 1e-6

    def exchange(self, pause_s: float) -> Exchange:
        self.now_s += pause_s
        before_s = self.now_s
        true_s = before_s + min(self._delay_s(self._there_us), 0.2)
        after_s = true_s + min(self._delay_s(self._back_us), 0.2)
        self.now_s = after_s
        stamp = self.stamp_us(true_s) % WRAP
        return Exchange(self.host_ns(before_s), self.host_ns(true_s), stamp, self.host_ns(after_s))


def steady(drift_ppm: float) -> Clock:
    """Return a clock that runs faster by so much."""
    return lambda at_s: at_s * (1 + drift_ppm * 1e-6)


def wandering(drift_ppm: float, period_s: float) -> Clock:
    """Return a clock whose drift goes up and down as fast as is allowed, 1 ppm per second."""
    # The second derivative of a sine of this size is at most 0.99e-6 per second.
    size = 0.99e-6 * (period_s / (2 * np.pi)) ** 2
    return lambda at_s: float(
        at_s * (1 + drift_ppm * 1e-6) + size * np.sin(2 * np.pi * at_s / period_s)
    )


def compare(mapping: ClockMapping, exchange: Exchange) -> int:
    """Let the mapping take an exchange, and return its stamp without wraps."""
    time_us = mapping.extend(exchange.stamp_us, exchange.after_ns)
    mapping.compare(exchange.before_ns, time_us, exchange.after_ns)
    return time_us


drifts_ppm = st.floats(-200, 200) | st.floats(-5000, 5000)
clocks = st.builds(steady, drifts_ppm) | st.builds(wandering, drifts_ppm, st.floats(5, 500))


@given(
    seed=st.integers(0, 2**32 - 1),
    clock=clocks,
    board_start_us=st.integers(0, WRAP - 1) | st.integers(WRAP - 20_000_000, WRAP - 1),
    there_us=st.floats(0, 2000),
    pauses_s=st.lists(st.floats(0.001, 0.3), min_size=1, max_size=150),
    ahead_s=st.floats(0, 20),
)
def test_the_true_time_is_within_the_stated_uncertainty(
    seed: int,
    clock: Clock,
    board_start_us: int,
    there_us: float,
    pauses_s: list[float],
    ahead_s: float,
) -> None:
    simulation = Simulation(seed, clock, board_start_us, there_us)
    mapping = ClockMapping()
    wraps = None
    for pause_s in pauses_s:
        exchange = simulation.exchange(pause_s)
        time_us = compare(mapping, exchange)
        mapped = mapping.host_time(time_us)
        assert mapped is not None
        assert abs(mapped.time_ns - exchange.true_ns) <= mapped.uncertainty_ns
        # Both count from the same stamp, so they stay whole wraps apart, always as many.
        offset_us = simulation.stamp_us((exchange.true_ns - simulation.host_start_ns) / S) - time_us
        wraps = round(offset_us / WRAP) if wraps is None else wraps
        assert abs(offset_us - wraps * WRAP) <= 1
    assert wraps is not None
    for at_s in (*simulation.random.uniform(0, simulation.now_s, 10), simulation.now_s + ahead_s):
        mapped = mapping.host_time(simulation.stamp_us(at_s) - wraps * WRAP)
        assert mapped is not None
        assert abs(mapped.time_ns - simulation.host_ns(at_s)) <= mapped.uncertainty_ns
    assert mapping.restarts == 0


@pytest.mark.parametrize("drift_ppm", [-5000, -200, 0, 50, 200])
def test_drift_and_offset_are_found_in_spite_of_a_long_tail(drift_ppm: float) -> None:
    simulation = Simulation(1, steady(drift_ppm), WRAP - 5_000_000)
    mapping = ClockMapping()
    for _ in range(800):  # 20 s of heartbeats
        last = simulation.exchange(0.025)
        time_us = compare(mapping, last)
    facts = mapping.facts()
    assert facts["clock_drift_ppm"] == pytest.approx(drift_ppm, abs=3)
    assert abs(facts["clock_drift_ppm"] - drift_ppm) <= facts["clock_drift_error_ppm"]
    assert facts["clock_residual_us"] < 20
    assert facts["clock_uncertainty_us"] < 200  # the shortest way there and back takes 300
    mapped = mapping.host_time(time_us)
    assert mapped is not None
    assert abs(mapped.time_ns - last.true_ns) < 30_000
    assert facts["clock_restarts"] == 0


def test_unequal_ways_are_within_the_uncertainty_though_no_scatter_shows_them() -> None:
    simulation = Simulation(1, steady(0), 0, there_us=2000)
    mapping = ClockMapping()
    for _ in range(400):
        last = simulation.exchange(0.025)
        time_us = compare(mapping, last)
    mapped = mapping.host_time(time_us)
    assert mapped is not None
    wrong_ns = abs(mapped.time_ns - last.true_ns)
    assert wrong_ns > 800_000  # nobody can know better: half the difference of the two ways
    assert mapping.facts()["clock_residual_us"] < 50
    assert wrong_ns <= mapped.uncertainty_ns < 1_200_000


@pytest.mark.parametrize("jump_s", [-0.03, 0.03, 3.0])
def test_a_clock_that_jumped_is_believed_anew(jump_s: float) -> None:
    simulation = Simulation(2, lambda at_s: at_s + (jump_s if at_s > 10.3 else 0), 0)
    mapping = ClockMapping()
    while simulation.now_s < 10.3:
        compare(mapping, simulation.exchange(0.025))
    last = simulation.exchange(0.025)
    mapped = mapping.host_time(compare(mapping, last))
    assert mapped is not None
    assert abs(mapped.time_ns - last.true_ns) <= mapped.uncertainty_ns
    assert mapping.restarts == 1


@pytest.mark.parametrize("period_s", [20, 60, 200])
def test_a_clock_that_wanders_as_fast_as_is_allowed_is_never_lost(period_s: float) -> None:
    # On so short ways nothing else hides that the line is not straight.
    simulation = Simulation(7, wandering(50, period_s), 0, there_us=2, back_us=2, tail_us=0.1)
    mapping = ClockMapping()
    while simulation.now_s < 60:
        exchange = simulation.exchange(0.1)
        compare(mapping, exchange)
        for back_s in (0, 1, 5, 15):
            at_s = max(simulation.now_s - back_s, 0)
            mapped = mapping.host_time(simulation.stamp_us(at_s))
            assert mapped is not None
            assert abs(mapped.time_ns - simulation.host_ns(at_s)) <= mapped.uncertainty_ns
    assert mapping.restarts == 0
    assert mapping.facts()["clock_uncertainty_us"] < 10


def test_a_change_of_rate_that_is_too_fast_is_noticed_and_got_over() -> None:
    simulation = Simulation(3, lambda at_s: at_s + 0.002 * max(at_s - 10, 0), 0)
    mapping = ClockMapping()
    while simulation.now_s < 10:
        compare(mapping, simulation.exchange(0.025))
    while simulation.now_s < 40:
        last = simulation.exchange(0.025)
        mapped = mapping.host_time(compare(mapping, last))
    assert mapping.restarts >= 1
    assert mapped is not None
    assert abs(mapped.time_ns - last.true_ns) <= mapped.uncertainty_ns
    assert mapping.facts()["clock_drift_ppm"] == pytest.approx(2000, abs=5)


def test_a_reset_board_is_compared_anew() -> None:
    mapping = ClockMapping()
    mapping.restart()
    assert mapping.restarts == 0, "there was nothing to forget"
    before = Simulation(4, steady(100), 0)
    for _ in range(100):
        compare(mapping, before.exchange(0.025))
    mapping.restart()
    assert mapping.restarts == 1
    assert mapping.host_time(0) is None
    assert mapping.facts() == {}
    after = Simulation(5, steady(100), 0)
    last = after.exchange(0.025)
    mapped = mapping.host_time(compare(mapping, last))
    assert mapped is not None
    assert abs(mapped.time_ns - last.true_ns) <= mapped.uncertainty_ns
