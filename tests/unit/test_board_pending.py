"""Requests to the TTL board are paired with its answers, and none is forgotten."""

from hypothesis import given
from hypothesis import strategies as st

from rtpose.interfaces import LineConfig
from rtpose.messages import Command
from rtpose_hardware.answers import Done
from rtpose_hardware.board_settings import BoardSettings
from rtpose_hardware.pending import PendingRequests
from rtpose_hardware.protocol import Reason

MS = 1_000_000

SETTINGS = BoardSettings(lines={"laser": LineConfig(pin=0, max_on_ms=5)}, ack_timeout_ms=100)


def pulse(command_id: int) -> Command:
    return Command(
        command_id=command_id, output="board", line="laser", action="pulse", width_us=1000
    )


@given(
    st.integers(0, 255),
    st.lists(st.sampled_from(["answered", "refused", "lost", "heartbeat"]), max_size=50),
)
def test_every_command_is_acknowledged_once_in_order(first: int, fates: list[str]) -> None:
    pending = PendingRequests(SETTINGS)
    commands = {}
    for number, fate in enumerate(fates):
        is_command = fate != "heartbeat"
        pending.add((first + number) % 256, pulse(number) if is_command else None, number * MS)
        if is_command:
            commands[number] = fate
    for number, fate in enumerate(fates):
        if fate != "lost":
            reason = Reason.BUSY if fate == "refused" else None
            done = Done((first + number) % 256, number, reason is None, reason)
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
    pending = PendingRequests(SETTINGS)
    for number in (1, 2, 3):
        pending.add(number, pulse(number), 0)
    pending.settle(Done(2, 50, True), 1 * MS)
    lost, answered = pending.take_acks()
    assert (lost.command_id, lost.ok) == (1, False)
    assert "lost on the wire" in lost.detail
    assert (answered.command_id, answered.ok, answered.device_us) == (2, True, 50)
    assert len(pending) == 1


def test_an_answer_to_nothing_that_is_open_is_ignored() -> None:
    pending = PendingRequests(SETTINGS)
    pending.add(1, pulse(1), 0)
    pending.settle(Done(77, 50, True), 1 * MS)
    assert len(pending) == 1
    assert pending.take_acks() == ()


def test_what_waits_too_long_is_given_up_and_silence_is_told_from_loss() -> None:
    pending = PendingRequests(SETTINGS)
    pending.add(1, pulse(1), 0)
    pending.add(2, pulse(2), 50 * MS)
    assert not pending.expire(99 * MS, heard_ns=0)
    assert not pending.expire(101 * MS, heard_ns=60 * MS)  # heard since: only that one was lost
    assert [ack.command_id for ack in pending.take_acks()] == [1]
    pending.add(3, None, 60 * MS)
    assert pending.expire(160 * MS, heard_ns=55 * MS)  # not even the heartbeat
    (ack,) = pending.take_acks()
    assert (ack.command_id, ack.ok) == (2, False)
    assert ack.detail == "no ack within 100 ms"


def test_giving_up_reports_all_that_was_open() -> None:
    pending = PendingRequests(SETTINGS)
    pending.add(1, pulse(1), 0)
    pending.add(2, None, 0)
    pending.add(3, pulse(3), 0)
    pending.give_up(5 * MS, "unplugged")
    assert [(a.command_id, a.detail) for a in pending.take_acks()] == [
        (1, "no ack: unplugged"),
        (3, "no ack: unplugged"),
    ]
    assert len(pending) == 0


def test_refusals_are_explained() -> None:
    pending = PendingRequests(SETTINGS)
    pending.add(1, pulse(1), 0)
    pending.settle(Done(1, 0, False, Reason.WIDTH), MS)
    pending.add(2, pulse(2), 0)
    pending.settle(Done(2, 0, False, 99), MS)
    width, unknown = pending.take_acks()
    assert width.detail == "1000 us is not between 20 us and the line's longest on-time, 5 ms"
    assert "99" in unknown.detail
