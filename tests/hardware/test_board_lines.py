"""Limits in time, levels and trains on an emulated chip. Times are CPU cycles, never wall time."""

import random
import signal
from collections.abc import Callable, Sequence

import pytest
from board_rig import CYCLES_PER_MS, CYCLES_PER_US, SESSION, Edge, EmulatedBoard, pulses

from rtpose_hardware import protocol
from rtpose_hardware.answers import BoardStatus, Counters, Done, Hello, SelfTest, Trip
from rtpose_hardware.protocol import Fault, Reason, Request, Reset

pytestmark = pytest.mark.hardware

LIMIT_US = 2_000_000


def arm(board: EmulatedBoard, watchdog_ms: int = 1000) -> None:
    board.ask(Request.WATCHDOG, protocol.watchdog_data(watchdog_ms))
    assert board.ask(Request.ARM, protocol.arm_data(SESSION)).moved


def offsets(
    edges: Sequence[Edge], line: int, width_us: int, period_us: int, count: int
) -> list[int]:
    """Return how many cycles after its place in the train each edge is, from the first one on."""
    cycles = [edge.cycle for edge in edges if edge.line == line]
    assert len(cycles) == 2 * count
    places = [number * period_us + part for number in range(count) for part in (0, width_us)]
    return [
        cycle - cycles[0] - place * CYCLES_PER_US
        for cycle, place in zip(cycles, places, strict=True)
    ]


# ------------------------------------------------------------------------- refractory time, dose


def test_a_line_stays_low_for_its_refractory_time(board: EmulatedBoard) -> None:
    board.set_limit(0, LIMIT_US, 30_000)
    arm(board)
    first = board.order(Request.PULSE, 0, 1000)
    assert first.moved
    board.wait_until_low()
    refused, done = [], board.order(Request.PULSE, 0, 1000)
    while not done.moved:
        refused.append(done)
        done = board.order(Request.PULSE, 0, 1000)
    assert refused
    assert {done.reason for done in refused} == {Reason.REFRACTORY}
    fall, rise = board.edges[1:3]
    assert rise.cycle - fall.cycle >= 30_000 * CYCLES_PER_US
    assert refused[-1].time_us < first.time_us + 31_000 + 200  # of the answer, a little later


def test_a_dose_is_never_exceeded_and_comes_back(board: EmulatedBoard) -> None:
    """Order as much as the wire takes, and look at the worst window that the edges contain."""
    dose_us, window_us = 20_000, 100_000
    board.set_limit(3, LIMIT_US, 0, dose_us, window_us)
    arm(board)
    chance = random.Random(3)
    reasons = set()
    beat: Done = board.ask(Request.BEAT)
    start_us = beat.time_us
    done = board.order(Request.PULSE, 3, 1000)
    while done.time_us - start_us < 5 * window_us:
        kind = chance.choice([Request.ON, Request.PULSE, Request.OFF])
        done = board.order(kind, 3, 0 if kind == Request.OFF else chance.randrange(20, 5000))
        reasons.add(done.reason)
    board.wait_until_low()
    assert Reason.DOSE in reasons
    edges = [edge.cycle for edge in board.edges if edge.line == 3]
    spans = list(zip(edges[::2], edges[1::2], strict=True))
    window = window_us * CYCLES_PER_US
    most = max(
        sum(max(0, min(fall, start + window) - max(rise, start)) for rise, fall in spans)
        for start in [rise for rise, _ in spans] + [fall - window for _, fall in spans]
    )
    assert 0.9 * dose_us * CYCLES_PER_US < most <= dose_us * CYCLES_PER_US
    assert sum(fall - rise for rise, fall in spans) > 3 * dose_us * CYCLES_PER_US


def test_what_was_spent_stays_spent_when_the_host_falls_silent(board: EmulatedBoard) -> None:
    board.set_limit(0, LIMIT_US, 500_000, 300_000, 0)
    arm(board, watchdog_ms=20)
    assert board.order(Request.ON, 0, 300_000).moved
    assert board.expect(Trip).session == SESSION
    # The host starts anew, and sets the same limit again.
    board.set_limit(0, LIMIT_US, 500_000, 300_000, 0)
    arm(board)
    assert board.order(Request.PULSE, 0, 1000).reason == Reason.REFRACTORY
    board.pass_time(500_000)
    assert board.order(Request.PULSE, 0, 299_000).reason == Reason.DOSE
    assert board.order(Request.PULSE, 0, 250_000).moved, "the unused part was given back"


# --------------------------------------------------------------------------------------- levels


def test_a_line_switches_at_its_level_until_its_end(board: EmulatedBoard) -> None:
    board.arm(LIMIT_US)
    for line in (1, 2):
        assert board.level(line, 64, 200_000).moved
        assert board.status().levels == 1 << line
        board.wait_until_low()
    for line in (1, 2):
        assert pulses(board.edges, line) == [200_000 * CYCLES_PER_US]
        begin, end = [level for level in board.levels if level.line == line]
        assert (begin.duty, end.duty) == (64, 0)
        rise, fall = [edge for edge in board.edges if edge.line == line]
        assert (begin.cycle, end.cycle) == (rise.cycle, fall.cycle)


def test_a_level_changes_without_a_gap(board: EmulatedBoard) -> None:
    board.arm(LIMIT_US)
    assert board.level(2, 10, LIMIT_US).moved
    for duty in (200, 255, 1):
        assert not board.level(2, duty, LIMIT_US).moved
    assert not board.order(Request.ON, 2, LIMIT_US).moved
    assert not board.level(2, 77, LIMIT_US).moved
    assert board.order(Request.OFF, 2).moved
    assert [level.duty for level in board.levels] == [10, 200, 255, 1, 0, 77, 0]
    assert [edge.level for edge in board.edges] == [1, 0]


@pytest.mark.parametrize("short_us", [20, 90, 120])
def test_a_short_level_ends_in_time(board: EmulatedBoard, short_us: int) -> None:
    board.arm(LIMIT_US)
    assert board.level(1, 128, short_us).moved
    board.wait_until_low()
    assert pulses(board.edges, 1) == [short_us * CYCLES_PER_US]


def test_only_lines_with_levels_take_them(board: EmulatedBoard) -> None:
    board.arm(LIMIT_US)
    for line in range(protocol.LINES):
        done = board.level(line, 128, 1000)
        if protocol.LINES_WITH_LEVELS >> line & 1:
            assert done.moved
        else:
            assert done.reason == Reason.LEVEL
    assert board.level(1, 0, 1000).reason == Reason.VALUE


def test_a_level_falls_with_safe_limit_watchdog_and_reset(board: EmulatedBoard) -> None:
    board.arm(LIMIT_US, watchdog_ms=20)
    board.level(1, 100, LIMIT_US)
    trip = board.expect(Trip)
    assert trip.session == SESSION
    board.arm(LIMIT_US)
    board.level(1, 100, LIMIT_US)
    status = board.ask(Request.SAFE, answer=BoardStatus)
    assert status.levels == 0
    board.arm(limit_us=3000)
    board.level(1, 100, 3000)
    while not board.level(1, 100, 3000).moved:
        pass
    board.process.send_signal(signal.SIGUSR1)
    assert board.expect(Hello).reset_cause == Reset.WATCHDOG
    widths = pulses(board.edges, 1)
    assert 20 * CYCLES_PER_MS <= widths[0] <= 21 * CYCLES_PER_MS
    assert widths[2] == 3000 * CYCLES_PER_US
    assert [level.duty for level in board.levels][-1] == 0


# --------------------------------------------------------------------------------------- trains


@pytest.mark.parametrize(
    ("width_us", "period_us", "count", "delay_us"),
    [
        (20, 500, 200, 0),
        (20, 1000, 50, 100),
        (101, 1003, 100, 0),
        (980, 1000, 50, 137),
        (5000, 25_000, 20, 5000),
        (70_000, 140_000, 3, 0),  # more than one turn of the 16-bit timer
        (20, 0, 1, 0),
        (20, 0, 1, 20_000),
    ],
)
def test_every_edge_of_a_train_is_exact(
    board: EmulatedBoard, width_us: int, period_us: int, count: int, delay_us: int
) -> None:
    board.arm(LIMIT_US)
    beat: Done = board.ask(Request.BEAT)
    done = board.train(3, width_us, period_us, count, delay_us)
    assert done.moved
    board.pass_time(delay_us + period_us * count + width_us)
    assert offsets(board.edges, 3, width_us, period_us, count) == [0] * (2 * count)
    assert done.time_us - beat.time_us >= delay_us
    # The answer's time is that of the first edge: as far from it as another answer from its edge.
    board.order(Request.ON, 4, LIMIT_US)
    other = board.order(Request.OFF, 4)
    edges = board.edges
    apart = edges[-1].cycle - edges[0].cycle
    assert abs(apart - (other.time_us - done.time_us) * CYCLES_PER_US) <= CYCLES_PER_US


def test_trains_on_all_lines_stay_in_their_places(board: EmulatedBoard) -> None:
    board.arm(LIMIT_US)
    chance = random.Random(5)
    figures = []
    for line in range(protocol.LINES):
        width_us, period_us = chance.randrange(20, 2000), chance.randrange(4200, 7000)
        assert board.train(line, width_us, period_us, 50, chance.randrange(100, 3000)).moved
        figures.append((width_us, period_us))
    board.pass_time(50 * 7000 + 5000)
    edges = board.edges
    shifts = []
    for line, (width_us, period_us) in enumerate(figures):
        own = offsets(edges, line, width_us, period_us, 50)
        exact = max(own, key=own.count)
        shifts += [offset - exact for offset in own]
    assert min(shifts) >= 0, "no edge is early"
    assert max(shifts) <= 2000, "and none is later than other edges can make it"
    assert shifts.count(0) > 0.85 * len(shifts)
    counters = board.ask(Request.COUNTERS, answer=Counters)
    assert (counters.bad, counters.wire_errors) == (0, 0)


def test_a_line_with_a_train_obeys_only_off(board: EmulatedBoard) -> None:
    board.arm(LIMIT_US)
    assert board.train(1, 1000, 20_000, 100).moved
    for done in (
        board.order(Request.ON, 1, 1000),
        board.order(Request.PULSE, 1, 1000),
        board.level(1, 100, 1000),
        board.train(1, 1000, 20_000, 100),
    ):
        assert done.reason == Reason.BUSY
    board.pass_time(50_000)
    assert board.order(Request.OFF, 1).moved
    assert not board.order(Request.OFF, 1).moved
    before = len(board.edges)
    board.pass_time(50_000)
    assert len(board.edges) == before
    assert board.train(1, 1000, 20_000, 1).moved


def test_off_ends_a_train_that_has_not_begun(board: EmulatedBoard) -> None:
    board.arm(LIMIT_US)
    assert board.train(0, 1000, 2000, 5, 20_000).moved
    assert board.order(Request.OFF, 0).moved
    board.pass_time(30_000)
    assert board.edges == []


def test_a_train_respects_refractory_time_and_dose(board: EmulatedBoard) -> None:
    board.set_limit(0, LIMIT_US, 5000, 20_000, 0)
    arm(board)
    assert board.train(0, 1000, 5999, 2).reason == Reason.REFRACTORY
    assert board.train(0, 1000, 6000, 21).reason == Reason.DOSE
    assert board.train(0, 1000, 6000, 20).moved
    board.pass_time(17_500)
    assert board.order(Request.OFF, 0).moved
    made = len([edge for edge in board.edges if edge.level])
    board.pass_time(6000)  # the pulses that were not made are given back
    assert board.train(0, 1000, 6000, 21 - made).reason == Reason.DOSE
    assert board.train(0, 1000, 6000, 19 - made).moved


def test_the_watchdog_ends_trains(board: EmulatedBoard) -> None:
    board.set_up(LIMIT_US, watchdog_ms=20)
    board.write(
        protocol.request(Request.ARM, 1, protocol.arm_data(SESSION))
        + protocol.train_order(2, 0, delay_us=0, width_us=3000, period_us=4000, count=1000)
        + protocol.train_order(3, 7, delay_us=30_000, width_us=3000, period_us=4000, count=1000)
    )
    for _ in range(3):
        assert board.expect(Done).moved
    trip = board.expect(Trip)
    board.ask(Request.BEAT)
    start = board.edges[0]
    for edge in board.edges:
        assert edge.line == 0
        assert edge.cycle - start.cycle <= 21 * CYCLES_PER_MS
    assert board.edges[-1].level == 0
    board.arm(LIMIT_US)
    board.pass_time(50_000)
    assert board.edges[-1].cycle - start.cycle <= 21 * CYCLES_PER_MS, "nothing comes back"
    assert trip.session == SESSION


def test_a_reset_ends_trains(board: EmulatedBoard) -> None:
    board.arm(LIMIT_US)
    assert board.train(0, 1000, 2000, 10_000).moved
    board.process.send_signal(signal.SIGUSR1)
    assert board.expect(Hello).booted
    before = len(board.edges)
    assert board.edges[-1].level == 0
    board.pass_time(20_000)
    assert len(board.edges) == before


def test_the_board_answers_beside_the_fastest_trains(board: EmulatedBoard) -> None:
    """At the highest rate of edges nothing is lost on the wire, and the watchdog is fed."""
    board.arm(LIMIT_US)
    for line in range(protocol.LINES):
        assert board.train(line, 100, 4000, 200, 100 + 37 * line).moved
    assert board.train(0, 100, 4000, 200).reason == Reason.BUSY
    board.pass_time(800_000)
    counters = board.ask(Request.COUNTERS, answer=Counters)
    assert (counters.bad, counters.wire_errors, counters.trips) == (0, 0, 0)
    assert [len(pulses(board.edges, line)) for line in range(protocol.LINES)] == [200] * 8
    board.ask(Request.SAFE, answer=BoardStatus)
    test = board.ask(Request.SELF_TEST, answer=SelfTest)
    assert test.faults == Fault(0)
    assert test.free_stack_bytes > 100


def test_a_train_faster_than_the_board_is_refused(
    start_board: Callable[..., EmulatedBoard],
) -> None:
    board = start_board()
    board.connect()
    board.arm(LIMIT_US)
    assert board.train(0, 100, 499, 2).reason == Reason.RATE
    assert board.train(0, 100, 1000, 1000).moved
    assert board.train(1, 100, 1000, 1000).moved
    assert board.train(2, 100, 10_000, 1000).reason == Reason.RATE
