"""Requests on their way to the TTL board, paired with its answers. Touches no port."""

from collections import deque
from dataclasses import dataclass

from rtpose.messages import Ack, Command
from rtpose_hardware.answers import BoardStatus, Counters, Done, SelfTest
from rtpose_hardware.board_clock import ClockMapping
from rtpose_hardware.board_orders import detail_of
from rtpose_hardware.board_settings import BoardSettings

_NS_PER_MS = 1_000_000

#: What carries the number of the request that it answers.
Answer = Done | BoardStatus | Counters | SelfTest


@dataclass(frozen=True, slots=True)
class _Request:
    command: Command | None  #: None if nobody is to be told of the answer: a heartbeat, a setting
    size: int  #: bytes on the wire
    before_ns: int
    sent_ns: int


class PendingRequests:
    """What was sent and not answered, and the acknowledgements that are to be handed over.

    The board answers in order. So an answer shows that everything sent before it and not answered
    was lost. Each answer also compares the two clocks.

    Parameters
    ----------
    settings : BoardSettings
        For the time-out and for the words of a refusal.
    clock : ClockMapping
        Takes the comparisons, and dates the acknowledgements.

    Attributes
    ----------
    bytes : int
        How many bytes on the wire are not answered: the board may have to hold them.
    """

    def __init__(self, settings: BoardSettings, clock: ClockMapping) -> None:
        self._settings = settings
        self._clock = clock
        self._requests: dict[int, _Request] = {}  # by sequence number, oldest first
        self._acks: deque[Ack] = deque()
        self.bytes = 0

    def __len__(self) -> int:
        """Return how many requests are not answered."""
        return len(self._requests)

    def __contains__(self, sequence: int) -> bool:
        """Return whether the request of this number is not answered."""
        return sequence in self._requests

    def add(
        self, sequence: int, command: Command | None, size: int, before_ns: int, sent_ns: int
    ) -> None:
        """Note that a request was sent.

        Parameters
        ----------
        sequence : int
        command : Command or None
            What it orders; None if nobody is to be told of the answer.
        size : int
            Its bytes on the wire.
        before_ns, sent_ns : int
            A time before the operating system had them, and the time that is told of.
        """
        self._requests[sequence] = _Request(command, size, before_ns, sent_ns)
        self.bytes += size

    def settle(self, answer: Answer, arrival_ns: int) -> None:
        """Take an answer of the board; one to something else than these requests is ignored."""
        while answer.sequence in self._requests:
            sequence, request = self._take_oldest()
            if sequence == answer.sequence:
                self._answered(request, answer, arrival_ns)
            else:
                lost = "no ack: lost on the wire, a later request was answered"
                self._give_up(request, arrival_ns, lost)

    def is_overdue(self, now_ns: int) -> bool:
        """Return whether a request has waited for too long."""
        oldest = next(iter(self._requests.values()), None)
        patience_ns = self._settings.ack_timeout_ms * _NS_PER_MS
        return oldest is not None and now_ns - oldest.sent_ns >= patience_ns

    def expire(self, now_ns: int, heard_ns: int) -> bool:
        """Give up on requests that have waited for too long.

        Parameters
        ----------
        now_ns, heard_ns : int
            The time, and when the board was heard last.

        Returns
        -------
        bool
            Whether nothing at all was heard since one of them was sent: the board is silent.
        """
        silent = False
        while self.is_overdue(now_ns):
            _, oldest = self._take_oldest()
            late = f"no ack within {self._settings.ack_timeout_ms} ms"
            self._give_up(oldest, now_ns, late)
            silent |= heard_ns < oldest.sent_ns
        return silent

    def give_up(self, now_ns: int, why: str) -> None:
        """Report everything as not acknowledged: no answer can come any more."""
        while self._requests:
            self._give_up(self._take_oldest()[1], now_ns, f"no ack: {why}")

    def take_acks(self) -> tuple[Ack, ...]:
        """Return the acknowledgements since the last call, oldest first."""
        acks = tuple(self._acks)
        self._acks.clear()
        return acks

    def _take_oldest(self) -> tuple[int, _Request]:
        sequence = next(iter(self._requests))
        request = self._requests.pop(sequence)
        self.bytes -= request.size
        return sequence, request

    def _answered(self, request: _Request, answer: Answer, arrival_ns: int) -> None:
        if not isinstance(answer, Done | BoardStatus):
            return  # it has no time
        device_us = self._clock.extend(answer.time_us, arrival_ns)
        command = request.command
        if command is None or command.action != "train":  # its time is that of an edge to come
            self._clock.compare(request.before_ns, device_us, arrival_ns)
        if command is not None and isinstance(answer, Done):
            self._acknowledge(request, command, answer, device_us, arrival_ns)

    def _acknowledge(
        self, request: _Request, command: Command, done: Done, device_us: int, arrival_ns: int
    ) -> None:
        mapped = self._clock.host_time(device_us)
        self._acks.append(
            Ack(
                command_id=command.command_id,
                output=command.output,
                line=command.line,
                ok=done.reason is None,
                command_ns=request.sent_ns,
                ack_ns=arrival_ns,
                device_us=device_us,
                device_ns=None if mapped is None else mapped.time_ns,
                detail=detail_of(done, command, self._settings.lines[command.line]),
            )
        )

    def _give_up(self, request: _Request, now_ns: int, why: str) -> None:
        command = request.command
        if command is not None:
            self._acks.append(
                Ack(
                    command_id=command.command_id,
                    output=command.output,
                    line=command.line,
                    ok=False,
                    command_ns=request.sent_ns,
                    ack_ns=now_ns,
                    detail=why,
                )
            )
