"""The conversation with a TTL board, with a link whose other end is written out here."""

from collections import deque
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtpose.clock import now_ns
from rtpose.errors import OutputError
from rtpose.messages import Command
from rtpose_hardware import protocol
from rtpose_hardware.answers import BoardStatus, Done, Hello, InputEdge, Received, Stopped, Trip
from rtpose_hardware.board_link import BoardLink
from rtpose_hardware.board_opening import limits_of, settings_of
from rtpose_hardware.board_settings import BoardInput, BoardLine, BoardSettings
from rtpose_hardware.board_talk import BoardTalk
from rtpose_hardware.protocol import Reason, Request, StopState

SETTINGS = BoardSettings(
    lines={"laser": BoardLine(pin=0, max_on_ms=100, dose_ms=300)},
    inputs={"lick": BoardInput(pin="A0")},
    stop_input="closed-is-well",
)
BOOT = Hello(0, True, protocol.PROTOCOL_VERSION, protocol.PROTOCOL_HASH, 8, 6, 5, 4, "test")

#: Gets type and sequence number of a request; returns what the board says to it.
Board = Callable[[int, int], list[Received]]


def obedient(_kind: int, sequence: int) -> list[Received]:
    return [Done(sequence, now_ns() // 1000 % 2**32, True)]


class Wire:
    """Stands in for `BoardLink`; the board answers as soon as somebody receives.

    Attributes
    ----------
    most_bytes : int
        The most that was written and not answered.
    """

    name = "a wire"
    failure: str | None = None
    heard_ns = 0

    def __init__(self, board: Board) -> None:
        self._board = board
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._said: deque[Received] = deque()
        self.most_bytes = 0

    def check(self) -> None:
        if self.failure is not None:
            raise OutputError(self.failure)

    def say(self, *frames: Received) -> None:
        self._said.extend(frames)

    def write(self, frame: bytes) -> int:
        (payload,) = protocol.FrameReader().feed(frame)
        self._waiting.append((len(frame), payload))
        self.most_bytes = max(self.most_bytes, sum(size for size, _ in self._waiting))
        return now_ns()

    def receive(self, timeout_s: float = 0.0) -> tuple[Received, int] | None:
        while not self._said and self._waiting:
            _, payload = self._waiting.popleft()
            self.say(*self._board(payload[0], payload[1]))
        if not self._said:
            return None
        self.heard_ns = now_ns()
        return self._said.popleft(), self.heard_ns


class HeldUp(Wire):
    """A wire whose other end has answered, while the thread that reads is held up with its host."""

    def receive(self, timeout_s: float = 0.0) -> tuple[Received, int] | None:
        return super().receive() if timeout_s > 0 else None


def talk_over(wire: Wire, settings: BoardSettings = SETTINGS) -> BoardTalk:
    return BoardTalk(cast("BoardLink", wire), settings)


def soon() -> int:
    return now_ns() + 10_000_000_000


orders: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.builds(dict, action=st.just("off")),
    st.builds(dict, action=st.just("pulse"), width_us=st.integers(20, 60_000_000)),
    st.builds(
        dict,
        action=st.just("train"),
        width_us=st.integers(20, 1000),
        period_us=st.integers(2000, 5000),
        count=st.integers(1, 1000),
    ),
)


@given(st.lists(orders, max_size=120))
def test_the_board_never_gets_more_than_it_can_hold(ordered: list[dict[str, Any]]) -> None:
    wire = Wire(obedient)
    talk = talk_over(wire)
    for number, order in enumerate(ordered):
        command = {"command_id": number, "output": "board", "line": "laser", **order}
        talk.order(Command.model_validate(command))
        if number % 10 == 9:
            talk.beat(Request.BEAT)
    assert wire.most_bytes <= protocol.RECEIVE_BYTES - len(protocol.request(Request.SAFE, 0xC0))
    talk.ask([*settings_of(SETTINGS), *limits_of(SETTINGS)], soon())
    acks = talk.pending.take_acks()
    assert [ack.command_id for ack in acks] == list(range(len(ordered)))
    assert all(ack.ok for ack in acks)
    assert talk.pending.bytes == 0
    assert wire.most_bytes <= protocol.RECEIVE_BYTES - len(protocol.request(Request.SAFE, 0xC0))


def test_a_refused_setting_is_an_error_with_its_reason() -> None:
    def board(kind: int, sequence: int) -> list[Received]:
        refused = kind == Request.STOP_INPUT
        return [Done(sequence, 0, not refused, Reason.ARMED if refused else None)]

    with pytest.raises(OutputError, match="refused STOP_INPUT: not while the board is armed"):
        talk_over(Wire(board)).ask(settings_of(SETTINGS), soon())


def test_what_is_not_answered_in_time_is_named() -> None:
    def board(kind: int, sequence: int) -> list[Received]:
        return [] if kind in (Request.INPUT, Request.WATCHDOG) else obedient(kind, sequence)

    with pytest.raises(OutputError, match="did not answer INPUT, WATCHDOG in time"):
        talk_over(Wire(board)).ask(settings_of(SETTINGS), now_ns() + 20_000_000)


def test_a_board_that_is_reset_while_it_is_asked_is_said_to_be() -> None:
    def board(kind: int, sequence: int) -> list[Received]:
        return [BOOT] if kind == Request.STOP_INPUT else obedient(kind, sequence)

    talk = talk_over(Wire(board))
    with pytest.raises(OutputError, match=r"was reset \(its firmware hung\)"):
        talk.ask(settings_of(SETTINGS), now_ns() + 20_000_000)
    assert len(talk.pending) == 0
    assert talk.clock.facts() == {}


def test_a_trip_is_a_fault_and_a_stop_is_none() -> None:
    wire = Wire(obedient)
    talk = talk_over(wire)
    talk.ask([(Request.BEAT, b"")], soon())
    wire.say(Stopped(0, now_ns() // 1000 % 2**32, 7), InputEdge(1, 5, 1, 1, 3))
    talk.drain()
    talk.raise_fault()
    assert talk.stopped
    assert talk.stop_state == StopState.STOP
    (stop, lick) = talk.events.take()
    assert (stop.input, stop.stop, stop.level) == ("stop", True, True)
    assert (lick.input, lick.stop, lick.level, lick.missed) == ("lick", False, True, 3)
    assert talk.events.take() == ()
    wire.say(Trip(2, 5, 7))
    talk.drain()
    with pytest.raises(OutputError, match="no heartbeat for 100 ms"):
        talk.raise_fault()


@pytest.mark.parametrize("stop", StopState)
def test_a_board_that_has_disarmed_is_noticed_though_nobody_heard_it(stop: StopState) -> None:
    def board(_kind: int, sequence: int) -> list[Received]:
        return [BoardStatus(sequence, now_ns() // 1000 % 2**32, session, 0, 100, stop)]

    session = 7
    talk = talk_over(Wire(board))
    talk.ask([(Request.STATUS, b"")], soon())  # before it is armed
    talk.session = 7
    talk.ask([(Request.STATUS, b"")], soon())
    session = 0
    if stop != StopState.STOP:
        with pytest.raises(OutputError, match="has disarmed; what it said of that was lost"):
            talk.ask([(Request.STATUS, b"")], soon())
        return
    for _ in range(2):
        talk.ask([(Request.STATUS, b"")], soon())
    assert talk.stopped
    (event,) = talk.events.take()
    assert (event.input, event.stop) == ("stop", True)
    assert (event.time_ns, event.device_us) == (None, None), "nobody knows when it was"


def test_an_edge_is_dated_once_the_clocks_were_compared() -> None:
    wire = Wire(obedient)
    talk = talk_over(wire)
    wire.say(InputEdge(0, 5, 1, 1, 0))
    talk.drain()
    (undated,) = talk.events.take()
    assert (undated.time_ns, undated.uncertainty_ns, undated.device_us) == (None, None, 5)
    talk = talk_over(wire)
    talk.ask([(Request.BEAT, b"")], soon())
    true_ns = now_ns()
    wire.say(InputEdge(1, true_ns // 1000 % 2**32, 1, 0, 0), InputEdge(2, 0, 3, 0, 0))
    talk.drain()
    (dated,) = talk.events.take()  # nobody asked for the other input
    assert dated.time_ns is not None
    assert dated.uncertainty_ns is not None
    assert abs(dated.time_ns - true_ns) <= dated.uncertainty_ns


def test_a_host_that_was_held_up_does_not_call_the_board_silent() -> None:
    settings = SETTINGS.model_copy(update={"ack_timeout_ms": 10})
    talk = talk_over(HeldUp(obedient), settings)
    sent_ns = talk.order(Command(command_id=1, output="board", line="laser", action="off"))
    while now_ns() - sent_ns < 10_000_000:
        talk.drain()
    talk.expire()
    talk.raise_fault()
    (ack,) = talk.pending.take_acks()
    assert ack.ok


def test_a_board_that_leaves_everything_unanswered_ends_the_sending() -> None:
    talk = talk_over(Wire(lambda _kind, _sequence: []))
    with pytest.raises(OutputError, match=r"has left \d+ requests unanswered"):
        for number in range(100):
            talk.order(Command(command_id=number, output="board", line="laser", action="off"))
