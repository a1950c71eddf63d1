"""Requests to a TTL board, and all that it says: answers, events, faults."""

from collections.abc import Sequence

from rtpose.clock import now_ns
from rtpose.errors import OutputError
from rtpose.messages import Command
from rtpose_hardware import protocol
from rtpose_hardware.answers import (
    BoardStatus,
    Counters,
    Done,
    Hello,
    InputEdge,
    Received,
    Stopped,
    Trip,
    lines_of,
)
from rtpose_hardware.board_clock import ClockMapping
from rtpose_hardware.board_events import InputEvents
from rtpose_hardware.board_link import FRESH_START, BoardLink
from rtpose_hardware.board_opening import Setting
from rtpose_hardware.board_orders import frame_of
from rtpose_hardware.board_settings import BoardSettings
from rtpose_hardware.pending import Answer, PendingRequests
from rtpose_hardware.protocol import Request, StopState

_NS_PER_S = 1_000_000_000
_NS_PER_MS = 1_000_000

#: `Output`: hardly a call blocks for longer than 100 ms.
_ANSWER_TIMEOUT_NS = 90 * _NS_PER_MS
_SAFE_TIMES = 3
_SAFE_REPEAT_NS = _ANSWER_TIMEOUT_NS // _SAFE_TIMES
_READERS_TURN_S = 0.02

#: Of what the board can hold, so much is left free for SAFE, which waits for no answers.
_FREE_FOR_SAFE_BYTES = 16


class BoardTalk:
    """A conversation with one board, over a link that is open.

    Attributes
    ----------
    link : BoardLink
    clock : ClockMapping
        The board's clock on the host's.
    pending : PendingRequests
        What is not answered, and the acknowledgements.
    events : InputEvents
        What happened at the inputs.
    fault : str or None
        Why the board is not armed any more although nobody made it safe.
    stopped : bool
        The stop input has disarmed it; the board itself refuses what is sent.
    session : int
        Under which number this host has armed it; 0 if it has not.
    stop_state : StopState
        What the stop input said last.
    counters : Counters or None
        What the board has counted, as it said last.
    """

    def __init__(self, link: BoardLink, settings: BoardSettings) -> None:
        self.link = link
        self.clock = ClockMapping()
        self.pending = PendingRequests(settings, self.clock)
        self.events = InputEvents(settings, self.clock)
        self.fault: str | None = None
        self.stopped = False
        self.session = 0
        self.stop_state = StopState.UNUSED
        self.counters: Counters | None = None
        self._settings = settings
        self._next_sequence = 0
        self._asked: dict[int, Answer | None] = {}

    # ------------------------------------------------------------------------------ saying

    def order(self, command: Command) -> int:
        """Send a command; return when it was handed over, on `now_ns`."""
        sequence = self._sequence()
        frame = frame_of(command, self._settings.lines[command.line], sequence)
        return self._post(sequence, frame, command)

    def beat(self, kind: Request) -> None:
        """Send a request without waiting for its answer."""
        sequence = self._sequence()
        frame = FRESH_START + protocol.request(kind, sequence)
        if self._has_room(frame):  # else it has enough to answer: that restarts its watchdog too
            self._post(sequence, frame, None)

    def ask(self, requests: Sequence[Setting], deadline_ns: int) -> Sequence[Answer]:
        """Send requests together and return the answers, in the same order.

        Raises
        ------
        OutputError
            If one of them is refused, or not answered in time.
        """
        kinds: dict[int, Request] = {}
        self._asked = {}
        for kind, data in requests:
            sequence = self._sequence()
            kinds[sequence], self._asked[sequence] = kind, None
            self._post(sequence, protocol.request(kind, sequence, data), None)
        while None in self._asked.values():
            item = self.link.receive((deadline_ns - now_ns()) / _NS_PER_S)
            if item is None:
                self.link.check()
                self.raise_fault()
                missing = {kinds[n].name for n, answer in self._asked.items() if answer is None}
                names = ", ".join(sorted(missing))
                raise OutputError(f"the board on {self.link.name} did not answer {names} in time")
            self._handle(*item)
        answers = [answer for answer in self._asked.values() if answer is not None]
        self._asked = {}
        for answer in answers:
            if isinstance(answer, Done) and answer.reason is not None:
                why = protocol.REFUSALS.get(answer.reason, f"reason {answer.reason}")
                kind = kinds[answer.sequence]
                raise OutputError(f"the board on {self.link.name} refused {kind.name}: {why}")
        self.raise_fault()
        return answers

    def make_safe(self) -> None:
        """Drop all lines; raise `OutputError` unless the board confirms in time that they are."""
        asked = set()
        for _ in range(_SAFE_TIMES):
            sequence = self._sequence()
            asked.add(sequence)
            self.link.write(FRESH_START + protocol.request(Request.SAFE, sequence))
            repeat_ns = now_ns() + _SAFE_REPEAT_NS
            while (item := self.link.receive((repeat_ns - now_ns()) / _NS_PER_S)) is not None:
                status = item[0]
                self._handle(*item)
                if isinstance(status, BoardStatus) and status.sequence in asked:
                    self._judge(status)
                    return
        self.link.check()
        raise OutputError(f"the board on {self.link.name} did not confirm that its lines are low")

    def _judge(self, status: BoardStatus) -> None:
        if status.levels or status.session:
            high = ", ".join(map(str, lines_of(status.levels)))
            raise OutputError(
                f"the board on {self.link.name} drives its lines low, but reads {high or 'none'} "
                "high: look for a short circuit to another supply"
            )

    def _sequence(self) -> int:
        self._next_sequence = (self._next_sequence + 1) % 256
        return self._next_sequence

    def _post(self, sequence: int, frame: bytes, command: Command | None) -> int:
        """Send a request as soon as the board can hold it; return when that was done."""
        if not self._has_room(frame):
            self._make_room(frame)
        before_ns = now_ns()
        sent_ns = self.link.write(frame)
        if self.link.heard_ns > before_ns:
            # This thread was held up after the bytes had gone, perhaps until they were answered.
            sent_ns = before_ns
        self.pending.add(sequence, command, len(frame), before_ns, sent_ns)
        return sent_ns

    def _has_room(self, frame: bytes) -> bool:
        """Whether the board can hold a frame more, with all that it has not answered."""
        held = self.pending.bytes + len(frame)
        return held <= protocol.RECEIVE_BYTES - _FREE_FOR_SAFE_BYTES

    def _make_room(self, frame: bytes) -> None:
        """Wait for answers, so that the board's receive buffer cannot overflow."""
        deadline_ns = now_ns() + _ANSWER_TIMEOUT_NS
        while not self._has_room(frame):
            item = self.link.receive((deadline_ns - now_ns()) / _NS_PER_S)
            if item is not None:
                self._handle(*item)
            elif now_ns() >= deadline_ns:
                self.link.check()
                raise OutputError(
                    f"the board on {self.link.name} has left {len(self.pending)} requests "
                    "unanswered"
                )
        self.raise_fault()

    # --------------------------------------------------------------------------- listening

    def raise_fault(self) -> None:
        """Raise `OutputError` if the board is not armed any more although nobody made it safe."""
        if self.fault is not None:
            raise OutputError(self.fault)

    def drain(self) -> None:
        """Take in what the board has said, without waiting."""
        while (item := self.link.receive()) is not None:
            self._handle(*item)

    def expire(self) -> None:
        """Give up on what is not answered for too long; a board that says nothing has failed."""
        if not self.pending.is_overdue(now_ns()):
            return
        # Perhaps this process was held up, and the thread that reads has not had its turn yet.
        item = self.link.receive(_READERS_TURN_S)
        if item is not None:
            self._handle(*item)
            self.drain()
        if self.pending.expire(now_ns(), self.link.heard_ns):
            silent = f"silent for {self._settings.ack_timeout_ms} ms"
            self._set_fault(f"the board on {self.link.name} has been {silent}")
            self.pending.give_up(now_ns(), f"the board has been {silent}")

    def _set_fault(self, what: str) -> None:
        self.fault = self.fault or what

    def _handle(self, frame: Received, arrival_ns: int) -> None:
        if isinstance(frame, Answer):
            self._take_answer(frame, arrival_ns)
        elif isinstance(frame, InputEdge):
            self.events.edge(frame, arrival_ns)
        elif isinstance(frame, Stopped):
            self._take_stop(frame, arrival_ns)
        elif isinstance(frame, Trip):
            self._set_fault(
                f"the board on {self.link.name} dropped its lines and disarmed: it had no "
                f"heartbeat for {self._settings.watchdog_ms} ms"
            )
        elif frame.booted:
            self._take_boot(frame, arrival_ns)

    def _take_answer(self, answer: Answer, arrival_ns: int) -> None:
        self.pending.settle(answer, arrival_ns)
        if answer.sequence in self._asked:
            self._asked[answer.sequence] = answer
        if isinstance(answer, BoardStatus):
            self._take_status(answer, arrival_ns)
        elif isinstance(answer, Counters):
            self.counters = answer

    def _take_status(self, status: BoardStatus, arrival_ns: int) -> None:
        """Notice that it has disarmed, even if what it said of that was lost on the wire."""
        self.stop_state = status.stop
        if self.stopped or self.fault is not None or self.session in (0, status.session):
            return
        if status.stop == StopState.STOP:
            self._take_stop(None, arrival_ns)
        else:
            self._set_fault(
                f"the board on {self.link.name} has disarmed; what it said of that was lost on the "
                "wire"
            )

    def _take_stop(self, stopped: Stopped | None, arrival_ns: int) -> None:
        self.stopped = True
        self.stop_state = StopState.STOP
        self.events.stopped(stopped, arrival_ns)

    def _take_boot(self, hello: Hello, arrival_ns: int) -> None:
        cause = protocol.RESETS.get(hello.reset_cause, "unknown")
        self.clock.restart()
        self._set_fault(f"the board on {self.link.name} was reset ({cause}) and is disarmed")
        self.pending.give_up(arrival_ns, "the board was reset")
