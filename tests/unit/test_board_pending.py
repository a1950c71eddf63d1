"""Requests to the TTL board are paired with its answers, and none is forgotten."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtpose.messages import Command
from rtpose_hardware.answers import BoardStatus, Counters, Done
from rtpose_hardware.board_clock import ClockMapping
from rtpose_hardware.board_settings import BoardLine, BoardSettings
from rtpose_hardware.pending import PendingRequests
from rtpose_hardware.protocol import Reason

MS = 1_000_000

SETTINGS = BoardSettings(
    lines={
        "laser": BoardLine(
            pin=0, max_on_ms=5, refractory_ms=2.5, dose_ms=20, dose_window_s=1.5, levels=False
        ),
        "valve": BoardLine(pin=3, max_on_ms=5, dose_ms=20),
    },
    ack_timeout_ms=100,
)


def make() -> PendingRequests:
    return PendingRequests(SETTINGS, ClockMapping())


def note(
    pending: PendingRequests, sequence: int, command: Command | None, sent_ns: int, size: int = 7
) -> None:
    pending.add(sequence, command, size, sent_ns, sent_ns)


def pulse(command_id: int, line: str = "laser") -> Command:
    return Command(command_id=command_id, output="board", line=line, action="pulse", width_us=1000)


@given(
    st.integers(0, 255),
    st.lists(st.sampled_from(["answered", "refused", "lost", "heartbeat"]), max_size=50),
)
def test_every_command_is_acknowledged_once_in_order(first: int, fates: list[str]) -> None:
    pending = make()
    commands = {}
    for number, fate in enumerate(fates):
        is_command = fate != "heartbeat"
        note(pending, (first + number) % 256, pulse(number) if is_command else None, number * MS)
        if is_command:
            commands[number] = fate
    for number, fate in enumerate(fates):
        if fate != "lost":
            reason = Reason.BUSY if fate == "refused" else None
            done = Done((first + number) % 256, number * 1000, reason is None, reason)
            pending.settle(done, (1000 + number) * MS)
    pending.expire(10_000 * MS, heard_ns=9_000 * MS)
    assert len(pending) == 0
    acks = pending.take_acks()
    assert [ack.command_id for ack in acks] == list(commands)
    for ack in acks:
        assert ack.ok == (commands[ack.command_id] == "answered")
        assert ack.command_ns == ack.command_id * MS
        assert bool(ack.detail) != ack.ok
        assert (ack.device_us is None) == (commands[ack.command_id] == "lost")
    assert pending.take_acks() == ()


def test_an_answer_shows_that_what_was_asked_before_is_lost() -> None:
    pending = make()
    for number in (1, 2, 3):
        note(pending, number, pulse(number), 0)
    pending.settle(Done(2, 50, True), 1 * MS)
    lost, answered = pending.take_acks()
    assert (lost.command_id, lost.ok) == (1, False)
    assert "lost on the wire" in lost.detail
    assert (answered.command_id, answered.ok, answered.device_us) == (2, True, 50)
    assert len(pending) == 1


def test_an_answer_to_nothing_that_is_open_is_ignored() -> None:
    pending = make()
    note(pending, 1, pulse(1), 0)
    pending.settle(Done(77, 50, True), 1 * MS)
    assert len(pending) == 1
    assert pending.take_acks() == ()


def test_what_waits_too_long_is_given_up_and_silence_is_told_from_loss() -> None:
    pending = make()
    note(pending, 1, pulse(1), 0)
    note(pending, 2, pulse(2), 50 * MS)
    assert not pending.expire(99 * MS, heard_ns=0)
    assert not pending.expire(101 * MS, heard_ns=60 * MS)  # heard since: only that one was lost
    assert [ack.command_id for ack in pending.take_acks()] == [1]
    note(pending, 3, None, 60 * MS)
    assert pending.expire(160 * MS, heard_ns=55 * MS)  # not even the heartbeat
    (ack,) = pending.take_acks()
    assert (ack.command_id, ack.ok) == (2, False)
    assert ack.detail == "no ack within 100 ms"


def test_giving_up_reports_all_that_was_open() -> None:
    pending = make()
    note(pending, 1, pulse(1), 0)
    note(pending, 2, None, 0)
    note(pending, 3, pulse(3), 0)
    pending.give_up(5 * MS, "unplugged")
    assert [(a.command_id, a.detail) for a in pending.take_acks()] == [
        (1, "no ack: unplugged"),
        (3, "no ack: unplugged"),
    ]
    assert len(pending) == 0


@pytest.mark.parametrize(
    ("line", "reason", "said"),
    [
        (
            "laser",
            Reason.WIDTH,
            "1000 us is not between 20 us and the line's longest on-time, 5 ms",
        ),
        ("laser", Reason.REFRACTORY, "low for less than refractory_ms = 2.5 before it"),
        ("laser", Reason.DOSE, "it would be on for more than dose_ms = 20 in 1.5 s"),
        ("valve", Reason.DOSE, "it would be on for more than dose_ms = 20"),
        ("laser", Reason.STOPPED, "the board's stop input says stop"),
        ("laser", 99, "the board refused, reason 99"),
    ],
)
def test_refusals_are_explained(line: str, reason: int, said: str) -> None:
    pending = make()
    note(pending, 1, pulse(1, line), 0)
    pending.settle(Done(1, 0, False, reason), MS)
    (ack,) = pending.take_acks()
    assert (ack.ok, ack.detail) == (False, said)


@given(st.lists(st.tuples(st.integers(5, 37), st.booleans()), max_size=60))
def test_it_knows_how_many_bytes_the_board_may_hold(requests: list[tuple[int, bool]]) -> None:
    pending = make()
    for sequence, (size, _) in enumerate(requests):
        note(pending, sequence, pulse(sequence), 0, size)
    left = [size for size, _ in requests]
    for sequence, (_, answered) in enumerate(requests):
        assert pending.bytes == sum(left)
        if answered:
            pending.settle(Done(sequence, 0, True), MS)
            left = [size for size, _ in requests[sequence + 1 :]]
    pending.give_up(MS, "unplugged")
    assert pending.bytes == 0


def test_answers_compare_the_clocks_and_date_what_the_board_stamped() -> None:
    clock = ClockMapping()
    pending = PendingRequests(SETTINGS, clock)
    pending.add(1, pulse(1), 7, before_ns=10 * MS, sent_ns=11 * MS)
    pending.settle(Done(1, 500, True), 12 * MS)
    (first,) = pending.take_acks()
    assert first.device_ns == 11 * MS  # the middle of before and arrival
    pending.add(2, None, 7, before_ns=20 * MS, sent_ns=20 * MS)
    pending.settle(BoardStatus(2, 10_500, 0, 0, 100), 21 * MS)
    mapped = clock.host_time(10_500)
    assert mapped is not None
    assert abs(mapped.time_ns - 20.5 * MS) <= mapped.uncertainty_ns < MS
    pending.add(3, None, 7, before_ns=30 * MS, sent_ns=30 * MS)
    pending.settle(Counters(3, *range(7)), 31 * MS)  # it has no time
    assert len(pending) == 0
    assert clock.restarts == 0


def test_an_edge_that_is_still_to_come_does_not_compare_the_clocks() -> None:
    clock = ClockMapping()
    pending = PendingRequests(SETTINGS, clock)
    train = Command(
        command_id=1,
        output="board",
        line="laser",
        action="train",
        width_us=100,
        delay_us=50_000_000,
    )
    pending.add(1, None, 7, before_ns=0, sent_ns=0)
    pending.settle(Done(1, 1000, True), MS)
    pending.add(2, train, 23, before_ns=2 * MS, sent_ns=2 * MS)
    pending.settle(Done(2, 50_003_000, True), 3 * MS)
    (ack,) = pending.take_acks()
    assert ack.device_us == 50_003_000
    assert ack.device_ns is not None
    assert abs(ack.device_ns - 50_002 * MS) < 510 * MS  # 50 s on, by a clock that is not known yet
    assert clock.restarts == 0
