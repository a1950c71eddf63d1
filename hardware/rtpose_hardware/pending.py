"""Requests on their way to the TTL board, paired with its answers. Touches no port."""

from collections import deque
from dataclasses import dataclass

from rtpose.messages import Ack, Command
from rtpose_hardware import protocol
from rtpose_hardware.answers import BoardClock, Done
from rtpose_hardware.board_settings import BoardSettings
from rtpose_hardware.protocol import Reason

_NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class _Request:
    command: Command | None  #: None for a heartbeat
    sent_ns: int


class PendingRequests:
    """What was sent and not answered, and the acknowledgements that are to be handed over.

    The board answers in order. So an answer shows that everything sent before it and not answered
    was lost.

    Parameters
    ----------
    settings : BoardSettings
        For the time-out and for the words of a refusal.
    """

    def __init__(self, settings: BoardSettings) -> None:
        self._settings = settings
        self._requests: dict[int, _Request] = {}  # by sequence number, oldest first
        self._acks: deque[Ack] = deque()
        self._clock = BoardClock()

    def __len__(self) -> int:
        """Return how many requests are not answered."""
        return len(self._requests)

    def add(self, sequence: int, command: Command | None, sent_ns: int) -> None:
        """Note that a command, or with None a heartbeat, was sent."""
        self._requests[sequence] = _Request(command, sent_ns)

    def restart_clock(self) -> None:
        """Note that the board was reset, and its clock with it."""
        self._clock = BoardClock()

    def settle(self, done: Done, arrival_ns: int) -> None:
        """Take an answer of the board; one to something else than these requests is ignored."""
        device_us = self._clock.extend(done.time_us, arrival_ns)
        while done.sequence in self._requests:
            sequence, request = self._oldest()
            if sequence == done.sequence:
                self._acknowledge(request, arrival_ns, done, device_us)
            else:
                lost = "no ack: lost on the wire, a later request was answered"
                self._give_up(request, arrival_ns, lost)
            del self._requests[sequence]

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
        while self._requests:
            sequence, request = self._oldest()
            if now_ns - request.sent_ns < self._settings.ack_timeout_ms * _NS_PER_MS:
                break
            del self._requests[sequence]
            late = f"no ack within {self._settings.ack_timeout_ms} ms"
            self._give_up(request, now_ns, late)
            silent |= heard_ns < request.sent_ns
        return silent

    def give_up(self, now_ns: int, why: str) -> None:
        """Report everything as not acknowledged: no answer can come any more."""
        for request in self._requests.values():
            self._give_up(request, now_ns, f"no ack: {why}")
        self._requests.clear()

    def take_acks(self) -> tuple[Ack, ...]:
        """Return the acknowledgements since the last call, oldest first."""
        acks = tuple(self._acks)
        self._acks.clear()
        return acks

    def _oldest(self) -> tuple[int, _Request]:
        return next(iter(self._requests.items()))

    def _acknowledge(self, request: _Request, arrival_ns: int, done: Done, device_us: int) -> None:
        if request.command is not None:
            self._acks.append(
                Ack(
                    command_id=request.command.command_id,
                    output=request.command.output,
                    line=request.command.line,
                    ok=done.reason is None,
                    command_ns=request.sent_ns,
                    ack_ns=arrival_ns,
                    device_us=device_us,
                    detail=self._detail(done, request.command),
                )
            )

    def _give_up(self, request: _Request, now_ns: int, why: str) -> None:
        if request.command is not None:
            self._acks.append(
                Ack(
                    command_id=request.command.command_id,
                    output=request.command.output,
                    line=request.command.line,
                    ok=False,
                    command_ns=request.sent_ns,
                    ack_ns=now_ns,
                    detail=why,
                )
            )

    def _detail(self, done: Done, command: Command) -> str:
        if done.reason == Reason.WIDTH:
            longest_ms = self._settings.lines[command.line].max_on_ms
            return (
                f"{command.width_us} us is not between {protocol.MIN_WIDTH_US} us and the line's "
                f"longest on-time, {longest_ms:g} ms"
            )
        if done.reason is not None:
            return protocol.REFUSALS.get(done.reason, f"the board refused, reason {done.reason}")
        if not done.moved:
            return f"no edge: the line was {'low' if command.action == 'off' else 'high'} already"
        return ""
