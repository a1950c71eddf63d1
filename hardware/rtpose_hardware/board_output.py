"""What every TTL board has in common: arming, orders, answers, faults.

`ttl` and `emulated_ttl` only say where the board's serial port is.
"""

import secrets
from abc import abstractmethod
from collections.abc import Mapping, Sequence

from rtpose.clock import now_ns
from rtpose.errors import BoardVersionError, OutputError, RtposeError
from rtpose.interfaces import Output, OutputInfo
from rtpose.messages import Ack, Command
from rtpose_hardware import protocol
from rtpose_hardware.answers import BoardStatus, Done, Hello, Received, Trip, lines_of
from rtpose_hardware.board_link import BoardLink
from rtpose_hardware.board_settings import BoardSettings
from rtpose_hardware.pending import PendingRequests
from rtpose_hardware.protocol import Request

_NS_PER_S = 1_000_000_000
_NS_PER_MS = 1_000_000

#: Requests that may be unanswered at a time: their frames fit into the board's receive buffer, so
#: that none is lost however fast they are sent.
_WINDOW = 16

#: `Output`: no call blocks for longer than 100 ms.
_ANSWER_TIMEOUT_NS = 90 * _NS_PER_MS
_SAFE_REPEAT_NS = 30 * _NS_PER_MS

#: For the speed that is configured and for the other one. The first leaves time for the boot
#: loader, up to 1.6 s after the reset that opening the port causes.
_HELLO_TIMEOUTS_NS = (2500 * _NS_PER_MS, 1000 * _NS_PER_MS)
_HELLO_REPEAT_NS = 150 * _NS_PER_MS

_ORDERS = {"on": Request.ON, "off": Request.OFF, "pulse": Request.PULSE}

#: In front of a frame it closes what noise may have begun.
_END = b"\xc0"


class BoardOutput(Output):
    """Drive a TTL board over a serial port.

    Any way in which the board stops being armed without `safe` (its watchdog, a reset, silence, an
    unplugged cable) makes the next `acks`, `beat` and `send` raise `OutputError` until `arm`
    succeeds again; answers that came before are returned first.
    """

    def __init__(self, config: BoardSettings) -> None:
        self._settings = config
        self._link: BoardLink | None = None
        self._next_sequence = 0
        self._session = 0
        self._is_safe = False
        self._start_anew()

    def _start_anew(self) -> None:
        self._fault: str | None = None
        self._pending = PendingRequests(self._settings)

    @abstractmethod
    def _find_port(self) -> str:
        """Return the name of the serial port to open; raise `OutputError` if there is none."""

    def _more_facts(self) -> Mapping[str, str]:
        """Return what else belongs into the run's record."""
        return {}

    # ------------------------------------------------------------------------------ Output

    def open(self) -> OutputInfo:
        """Open the port, check the firmware, set the limits, leave all lines low."""
        if self._link is not None:
            raise OutputError(f"the board on {self._link.name} is open already")
        self._start_anew()
        try:
            link = self._link = BoardLink(self._find_port(), self._settings.baud)
            hello, baud = self._meet(link)
            _check_version(hello, link.name)
            self._make_safe(link)
            self._configure(link)
        except RtposeError:
            self.close()
            raise
        return OutputInfo(
            device=f"TTL board, {hello.firmware}, on {link.name}",
            watchdog_ms=float(self._settings.watchdog_ms),
            facts={
                "port": link.name,
                "baud": baud,
                "firmware": hello.firmware,
                "protocol_version": hello.version,
                "last_reset": protocol.RESETS.get(hello.reset_cause, "unknown"),
                "low_latency": link.low_latency,
                **self._more_facts(),
            },
        )

    def arm(self) -> None:
        """Set the limits again and arm; raise `OutputError` if the board does not confirm."""
        link = self._opened()
        self._drain(link)
        self._fault = None
        if not self._session:
            self._configure(link)
        session = self._session or 1 + secrets.randbelow(0xFFFF)
        self._is_safe = False
        self._confirm(link, [(Request.ARM, protocol.arm_data(session))])
        self._session = session

    def send(self, command: Command) -> int:
        """Hand a command to the operating system; return `now_ns` just after that."""
        link = self._opened()
        self._drain(link)
        self._raise_fault()
        line = self._settings.lines.get(command.line)
        if line is None:
            known = ", ".join(self._settings.lines)
            raise OutputError(f"the output has no line {command.line!r} (lines: {known})")
        if not self._session:
            raise OutputError(f"line {command.line!r}: the output is not armed")
        if len(self._pending) >= _WINDOW:
            self._make_room(link)
        sequence = self._sequence()
        frame = protocol.order(_ORDERS[command.action], sequence, line.pin, command.width_us)
        before_ns = now_ns()
        sent_ns = link.write(frame)
        if link.heard_ns > before_ns:
            # This thread was held up after the bytes had gone, perhaps until they were answered.
            sent_ns = before_ns
        self._pending.add(sequence, command, sent_ns)
        return sent_ns

    def acks(self) -> Sequence[Ack]:
        """Return the answers that came since the last call, oldest first."""
        link = self._opened()
        self._drain(link)
        self._expire(link)
        failure = link.failure
        if failure is not None:
            self._pending.give_up(now_ns(), failure)
        acks = self._pending.take_acks()
        if not acks:
            self._raise_fault()
            if failure is not None:
                link.check()
        return acks

    def beat(self) -> None:
        """Restart the board's watchdog."""
        link = self._opened()
        self._drain(link)
        self._expire(link)
        self._raise_fault()
        if len(self._pending) >= _WINDOW:
            return  # it has enough to answer, and all of that restarts its watchdog
        sequence = self._sequence()
        sent_ns = link.write(_END + protocol.request(Request.BEAT, sequence))
        self._pending.add(sequence, None, sent_ns)

    def safe(self) -> None:
        """Drop every line and disarm."""
        self._session = 0
        self._is_safe = False
        if self._link is None:
            return
        try:
            self._make_safe(self._link)
        except OutputError as error:
            self._fault = self._fault or str(error)

    @property
    def is_safe(self) -> bool:
        """Whether the board said, since the last `safe`, that all its pins read low."""
        return self._is_safe

    def close(self) -> None:
        """Make safe and close the port."""
        if self._link is not None:
            self.safe()
            self._link.close()
            self._link = None

    # ------------------------------------------------------------------------------ opening

    def _meet(self, link: BoardLink) -> tuple[Hello, int]:
        """Wait until the board says what it is, at either speed."""
        first = self._settings.baud
        other = 115_200 if first == 1_000_000 else 1_000_000
        for baud, timeout_ns in zip((first, other), _HELLO_TIMEOUTS_NS, strict=True):
            link.set_baud(baud)
            deadline_ns = now_ns() + timeout_ns
            while now_ns() < deadline_ns:
                hello = self._ask_hello(link)
                if hello is not None:
                    return hello, baud
        raise OutputError(
            f"nothing on {link.name} answers like a TTL board (tried {first} and {other} baud): is "
            "it the right port, and is the firmware flashed? See hardware/README.md"
        )

    def _ask_hello(self, link: BoardLink) -> Hello | None:
        link.write(_END + protocol.request(Request.HELLO, self._sequence()))
        deadline_ns = now_ns() + _HELLO_REPEAT_NS
        while (item := link.receive((deadline_ns - now_ns()) / _NS_PER_S)) is not None:
            if isinstance(item[0], Hello):
                # What it says at boot is no answer: it may have missed this request. Ask again.
                return None if item[0].booted else item[0]
        link.check()
        return None

    def _configure(self, link: BoardLink) -> None:
        limits_us = [0] * protocol.LINES
        for line in self._settings.lines.values():
            limits_us[line.pin] = int(line.max_on_ms * 1000)
        watchdog = protocol.watchdog_data(self._settings.watchdog_ms)
        limits = [(Request.LIMIT, protocol.limit_data(*item)) for item in enumerate(limits_us)]
        self._confirm(link, [(Request.WATCHDOG, watchdog), *limits])

    # -------------------------------------------------------------------------- asking

    def _opened(self) -> BoardLink:
        if self._link is None:
            raise OutputError("the output is not open")
        return self._link

    def _sequence(self) -> int:
        self._next_sequence = (self._next_sequence + 1) % 256
        return self._next_sequence

    def _confirm(self, link: BoardLink, requests: Sequence[tuple[Request, bytes]]) -> None:
        """Send requests together; raise `OutputError` unless every one is obeyed in time."""
        deadline_ns = now_ns() + _ANSWER_TIMEOUT_NS
        waiting: dict[int, Request] = {}
        for kind, data in requests:
            sequence = self._sequence()
            waiting[sequence] = kind
            link.write(protocol.request(kind, sequence, data))
        while waiting:
            item = link.receive((deadline_ns - now_ns()) / _NS_PER_S)
            if item is None:
                link.check()
                names = ", ".join(sorted({kind.name for kind in waiting.values()}))
                raise OutputError(f"the board on {link.name} did not answer {names} in time")
            answer = item[0]
            if isinstance(answer, Done) and answer.sequence in waiting:
                kind = waiting.pop(answer.sequence)
                if answer.reason is not None:
                    why = protocol.REFUSALS.get(answer.reason, f"reason {answer.reason}")
                    raise OutputError(f"the board on {link.name} refused {kind.name}: {why}")
            self._handle(link, *item)
        self._raise_fault()

    def _make_safe(self, link: BoardLink) -> None:
        """Drop all lines; raise `OutputError` unless the board confirms it in time."""
        deadline_ns = now_ns() + _ANSWER_TIMEOUT_NS
        asked = set()
        while now_ns() < deadline_ns:
            sequence = self._sequence()
            asked.add(sequence)
            link.write(_END + protocol.request(Request.SAFE, sequence))
            repeat_ns = min(deadline_ns, now_ns() + _SAFE_REPEAT_NS)
            while (item := link.receive((repeat_ns - now_ns()) / _NS_PER_S)) is not None:
                status = item[0]
                self._handle(link, *item)
                if isinstance(status, BoardStatus) and status.sequence in asked:
                    self._judge(link, status)
                    return
        link.check()
        raise OutputError(f"the board on {link.name} did not confirm that its lines are low")

    def _judge(self, link: BoardLink, status: BoardStatus) -> None:
        self._is_safe = status.levels == 0 and status.session == 0
        if not self._is_safe:
            high = ", ".join(map(str, lines_of(status.levels)))
            raise OutputError(
                f"the board on {link.name} drives its lines low, but reads {high or 'none'} high: "
                "look for a short circuit to another supply"
            )

    def _make_room(self, link: BoardLink) -> None:
        """Wait for answers, so that the board's receive buffer cannot overflow."""
        deadline_ns = now_ns() + _ANSWER_TIMEOUT_NS
        while len(self._pending) >= _WINDOW:
            item = link.receive((deadline_ns - now_ns()) / _NS_PER_S)
            if item is not None:
                self._handle(link, *item)
            elif now_ns() >= deadline_ns:
                link.check()
                raise OutputError(
                    f"the board on {link.name} has left {_WINDOW} commands unanswered"
                )
        self._raise_fault()

    # ------------------------------------------------------------------------- listening

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise OutputError(self._fault)

    def _set_fault(self, what: str) -> None:
        self._session = 0
        self._fault = self._fault or what

    def _drain(self, link: BoardLink) -> None:
        while (item := link.receive()) is not None:
            self._handle(link, *item)

    def _handle(self, link: BoardLink, frame: Received, arrival_ns: int) -> None:
        if isinstance(frame, Done):
            self._pending.settle(frame, arrival_ns)
        elif isinstance(frame, Trip):
            self._set_fault(
                f"the board on {link.name} dropped its lines and disarmed: it had no heartbeat for "
                f"{self._settings.watchdog_ms} ms"
            )
        elif isinstance(frame, Hello) and frame.booted:
            cause = protocol.RESETS.get(frame.reset_cause, "unknown")
            self._pending.restart_clock()
            self._set_fault(f"the board on {link.name} was reset ({cause}) and is disarmed")
            self._pending.give_up(arrival_ns, "the board was reset")

    def _expire(self, link: BoardLink) -> None:
        if self._pending.expire(now_ns(), link.heard_ns):
            silent = f"silent for {self._settings.ack_timeout_ms} ms"
            self._set_fault(f"the board on {link.name} has been {silent}")
            self._pending.give_up(now_ns(), f"the board has been {silent}")


def _check_version(hello: Hello, port: str) -> None:
    if hello.version == protocol.PROTOCOL_VERSION and hello.hash == protocol.PROTOCOL_HASH:
        return
    raise BoardVersionError(
        f"the board on {port} has firmware {hello.firmware!r} with protocol version "
        f"{hello.version} ({hello.hash:08x}); this rtpose has protocol version "
        f"{protocol.PROTOCOL_VERSION} ({protocol.PROTOCOL_HASH:08x}): flash the firmware of this "
        "rtpose version, see hardware/README.md"
    )
