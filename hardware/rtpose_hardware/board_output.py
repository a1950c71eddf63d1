"""What every TTL board has in common: arming, orders, answers, inputs, faults.

`ttl` and `emulated_ttl` only say where the board's serial port is.
"""

import itertools
import secrets
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from rtpose.clock import now_ns
from rtpose.errors import OutputError, RtposeError
from rtpose.interfaces import Output, OutputInfo
from rtpose.messages import Ack, Command, InputEvent
from rtpose_hardware import board_orders, protocol
from rtpose_hardware.answers import SelfTest
from rtpose_hardware.board_link import BoardLink
from rtpose_hardware.board_opening import check_self_test, limits_of, meet, settings_of
from rtpose_hardware.board_settings import BoardSettings
from rtpose_hardware.board_talk import BoardTalk
from rtpose_hardware.protocol import Request

#: `Output`: `open` takes 5 s at most, of which `meet` may have taken 3.5, and `arm` 500 ms, of
#: which the self-test takes 50.
_OPEN_TIMEOUT_NS = 1_000_000_000
_ARM_TIMEOUT_NS = 450_000_000

#: How often a heartbeat asks for something that `facts` tells; there are two such questions.
_QUESTION_NS = 500_000_000


class BoardOutput(Output):
    """Drive a TTL board over a serial port.

    Any way in which the board stops being armed without `safe` (its watchdog, a reset, silence, an
    unplugged cable) makes the next `acks`, `beat` and `send` raise `OutputError` until `arm`
    succeeds again; answers that came before are returned first. The stop input is no fault: it is
    told by `inputs`, and until `safe` the board itself refuses what is sent.
    """

    takes_trains: ClassVar[bool] = True

    @classmethod
    def misfit(cls, command: Command) -> str:
        """Say why no board ever takes a command."""
        return board_orders.misfit(command)

    def __init__(self, config: BoardSettings) -> None:
        self._settings = config
        self._talk: BoardTalk | None = None
        self._is_safe = False
        self._questions = itertools.cycle((Request.STATUS, Request.COUNTERS))
        self._questioned_ns = 0

    @abstractmethod
    def _find_port(self) -> str:
        """Return the name of the serial port to open; raise `OutputError` if there is none."""

    def _more_facts(self) -> Mapping[str, str]:
        """Return what else belongs into the run's record."""
        return {}

    # ------------------------------------------------------------------- opening and closing

    def open(self) -> OutputInfo:
        """Open the port, check firmware and board, set the limits, leave all lines low."""
        if self._talk is not None:
            raise OutputError(f"the board on {self._talk.link.name} is open already")
        try:
            link = BoardLink(self._find_port())
            talk = self._talk = BoardTalk(link, self._settings)
            hello, baud = meet(link, self._settings.baud)
            self._make_safe(talk)
            talk.events.take()  # of an earlier host, where opening the port resets no board
            found = self._prepare(talk, now_ns() + _OPEN_TIMEOUT_NS)
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
                "firmware_checksum": f"{found.flash_checksum:04x}",
                "protocol_version": hello.version,
                "last_reset": protocol.RESETS.get(hello.reset_cause, "unknown"),
                "free_stack_bytes": found.free_stack_bytes,
                "low_latency": link.low_latency,
                **self._more_facts(),
            },
        )

    def close(self) -> None:
        """Make safe and close the port."""
        if self._talk is not None:
            self.safe()
            self._talk.link.close()
            self._talk = None

    def _opened(self) -> BoardTalk:
        if self._talk is None:
            raise OutputError("the output is not open")
        return self._talk

    def _prepare(self, talk: BoardTalk, deadline_ns: int) -> SelfTest:
        """Let a disarmed board test itself, and tell it its settings and limits."""
        (found,) = talk.ask([(Request.SELF_TEST, b"")], deadline_ns)
        if not isinstance(found, SelfTest):
            raise OutputError(f"the board on {talk.link.name} did not test itself")
        check_self_test(found, talk.link.name)
        settings = [*settings_of(self._settings), *limits_of(self._settings)]
        talk.ask([*settings, (Request.STATUS, b"")], deadline_ns)
        return found

    # ------------------------------------------------------------------------ armed and safe

    def arm(self) -> None:
        """Test the board, set everything again and arm; raise `OutputError` unless all is well."""
        talk = self._opened()
        talk.drain()
        if talk.fault is not None or talk.stopped:
            talk.session = 0
        talk.fault = None
        talk.stopped = False
        deadline_ns = now_ns() + _ARM_TIMEOUT_NS
        if not talk.session:
            self._prepare(talk, deadline_ns)
        session = talk.session or 1 + secrets.randbelow(0xFFFF)
        self._is_safe = False
        talk.ask([(Request.ARM, protocol.arm_data(session))], deadline_ns)
        talk.session = session

    def beat(self) -> None:
        """Restart the board's watchdog."""
        talk = self._opened()
        talk.drain()
        talk.expire()
        talk.raise_fault()
        now = now_ns()
        if now - self._questioned_ns >= _QUESTION_NS:
            self._questioned_ns = now
            talk.beat(next(self._questions))
        else:
            talk.beat(Request.BEAT)

    def safe(self) -> None:
        """Drop every line and disarm."""
        self._is_safe = False
        if self._talk is None:
            return
        self._talk.session = 0
        self._talk.stopped = False
        try:
            self._make_safe(self._talk)
        except OutputError as error:
            self._talk.fault = self._talk.fault or str(error)

    def _make_safe(self, talk: BoardTalk) -> None:
        talk.make_safe()
        self._is_safe = True

    @property
    def is_safe(self) -> bool:
        """Whether the board said, since the last `safe`, that all its pins read low."""
        return self._is_safe

    # ------------------------------------------------------------------- orders and reports

    def send(self, command: Command) -> int:
        """Hand a command to the operating system; return `now_ns` just after that."""
        talk = self._opened()
        talk.drain()
        talk.raise_fault()
        if command.line not in self._settings.lines:
            known = ", ".join(self._settings.lines)
            raise OutputError(f"the output has no line {command.line!r} (lines: {known})")
        if not talk.session:
            raise OutputError(f"line {command.line!r}: the output is not armed")
        return talk.order(command)

    def acks(self) -> Sequence[Ack]:
        """Return the answers that came since the last call, oldest first."""
        talk = self._opened()
        talk.drain()
        talk.expire()
        failure = talk.link.failure
        if failure is not None:
            talk.pending.give_up(now_ns(), failure)
        acks = talk.pending.take_acks()
        if not acks:
            talk.raise_fault()
            if failure is not None:
                talk.link.check()
        return acks

    def inputs(self) -> Sequence[InputEvent]:
        """Return the edges and stops that came since the last call, oldest first."""
        talk = self._opened()
        talk.drain()
        return talk.events.take()

    def facts(self) -> Mapping[str, str | int | float | bool]:
        """Return how the two clocks agree, what the stop input says, and what was counted."""
        talk = self._talk
        if talk is None:
            return {}
        facts: dict[str, str | int | float | bool] = {
            **talk.clock.facts(),
            "stop_input": talk.stop_state.name.lower(),
            "damaged_answers": talk.link.damaged,
        }
        counters = talk.counters
        if counters is not None:
            facts |= {
                "board_bad_frames": counters.bad,
                "board_wire_errors": counters.wire_errors,
                "board_refused": counters.refused,
                "board_watchdog_trips": counters.trips,
                "board_stops": counters.stops,
                "board_edges_lost": counters.edges_lost,
            }
        return facts
