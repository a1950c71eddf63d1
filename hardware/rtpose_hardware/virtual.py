"""``virtual``: lines without hardware, under the same rules as the TTL board.

It is what the demo drives, and what a rig is tried out with before anything is wired.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, NamedTuple

from pydantic import Field

from rtpose.clock import now_ns
from rtpose.errors import OutputError
from rtpose.interfaces import Output, OutputInfo, OutputSettings
from rtpose.messages import Ack, Command
from rtpose_hardware.protocol import (
    DEFAULT_WATCHDOG_MS,
    MAX_WATCHDOG_MS,
    MIN_WATCHDOG_MS,
    MIN_WIDTH_US,
)

#: Older edges are forgotten: enough for hours of an experiment.
MAX_EDGES = 100_000


class Edge(NamedTuple):
    """A line changed.

    Attributes
    ----------
    at_ns : int
        When, on `clock.now_ns`.
    line : str
    high : bool
        The level from then on.
    """

    at_ns: int
    line: str
    high: bool


class VirtualBoard:
    """The lines, their deadlines and the watchdog: a pure function of commands and times.

    A line falls at its deadline and all lines fall when the heartbeat is overdue, at that very
    nanosecond, whenever somebody looks: every method first lets happen what was due by then.

    Parameters
    ----------
    max_on_ns : mapping of str to int
        The lines, and how long after its rising edge each may be high.
    watchdog_ns : int
        After how long without a beat or a command every line falls and the board disarms.

    Attributes
    ----------
    edges : deque of Edge
        What the lines did, oldest first, at most `MAX_EDGES`.
    """

    def __init__(self, max_on_ns: Mapping[str, int], watchdog_ns: int) -> None:
        self._max_on_ns = dict(max_on_ns)
        self._watchdog_ns = watchdog_ns
        self._high: dict[str, tuple[int, int]] = {}  # when it rose, when it falls
        self._beat_ns: int | None = None  # the last sign of life; None while disarmed
        self.edges: deque[Edge] = deque(maxlen=MAX_EDGES)

    def settle(self, at_ns: int) -> None:
        """Let everything happen that is due by `at_ns`."""
        silent_ns = None if self._beat_ns is None else self._beat_ns + self._watchdog_ns
        due = sorted(
            (until_ns if silent_ns is None else min(until_ns, silent_ns), line)
            for line, (_, until_ns) in self._high.items()
        )
        for fall_ns, line in due:
            if fall_ns <= at_ns:
                self._fall(line, fall_ns)
        if silent_ns is not None and silent_ns <= at_ns:
            self._beat_ns = None

    def next_fall_ns(self) -> int | None:
        """Return when the next line will fall if nobody says anything; None if all are low."""
        if not self._high:
            return None
        fall_ns = min(until_ns for _, until_ns in self._high.values())
        return fall_ns if self._beat_ns is None else min(fall_ns, self._beat_ns + self._watchdog_ns)

    def is_armed(self, at_ns: int) -> bool:
        """Return whether commands are accepted."""
        self.settle(at_ns)
        return self._beat_ns is not None

    def arm(self, at_ns: int) -> None:
        """Accept commands from now on; counts as a heartbeat."""
        self.settle(at_ns)
        self._beat_ns = at_ns

    def beat(self, at_ns: int) -> None:
        """Take a sign of life of the host. It does not arm again what the watchdog disarmed."""
        self.settle(at_ns)
        if self._beat_ns is not None:
            self._beat_ns = at_ns

    def execute(self, command: Command, at_ns: int) -> str:
        """Carry out one command; return why it was refused, or an empty string."""
        self.settle(at_ns)
        if self._beat_ns is None:
            return "not armed"
        self._beat_ns = at_ns  # whoever commands is alive
        if command.action == "off":
            self._fall(command.line, at_ns)
            return ""
        if command.action == "train" or command.level < 1:
            return "its lines know no trains and no levels"
        return self._raise(command, at_ns)

    def _raise(self, command: Command, at_ns: int) -> str:
        width_ns, max_on_ns = command.width_us * 1000, self._max_on_ns[command.line]
        if not MIN_WIDTH_US * 1000 <= width_ns <= max_on_ns:
            return f"{command.width_us} us, allowed: {MIN_WIDTH_US} to {max_on_ns // 1000} us"
        rose_ns, _ = self._high.get(command.line, (at_ns, 0))
        if command.line not in self._high:
            self.edges.append(Edge(at_ns, command.line, True))
        elif command.action == "pulse":
            return "the line is high: a pulse would not be one"
        self._high[command.line] = rose_ns, min(at_ns + width_ns, rose_ns + max_on_ns)
        return ""

    def safe(self, at_ns: int) -> None:
        """Drop every line and disarm."""
        self.settle(at_ns)
        for line in sorted(self._high):
            self._fall(line, at_ns)
        self._beat_ns = None

    def levels(self, at_ns: int) -> dict[str, bool]:
        """Return whether each line is high."""
        self.settle(at_ns)
        return {line: line in self._high for line in self._max_on_ns}

    def _fall(self, line: str, at_ns: int) -> None:
        if self._high.pop(line, None) is not None:
            self.edges.append(Edge(at_ns, line, False))


class VirtualSettings(OutputSettings):
    """``[outputs.<name>]`` with ``type = "virtual"``.

    Attributes
    ----------
    watchdog_ms : int
        After how long without a beat or a command from control every line falls.
    """

    watchdog_ms: Annotated[int, Field(ge=MIN_WATCHDOG_MS, le=MAX_WATCHDOG_MS)] = DEFAULT_WATCHDOG_MS


class VirtualOutput(Output):
    """Lines in memory.

    A width outside the limits and a pulse on a high line are refused in the acknowledgement, as by
    a board; what the driver itself can see (not open, not armed, no such line) raises. When the
    watchdog has disarmed it, `acks`, `beat` and `send` raise until it is armed again; answers that
    came before are returned first.

    Parameters
    ----------
    config : VirtualSettings
        The checked settings.
    """

    Config: ClassVar[type[OutputSettings]] = VirtualSettings

    def __init__(self, config: VirtualSettings) -> None:
        self._config = config
        self._board = VirtualBoard(
            {name: round(line.max_on_ms * 1e6) for name, line in config.lines.items()},
            round(config.watchdog_ms * 1e6),
        )
        self._opened_ns: int | None = None
        self._armed = False
        self._safe = False
        self._acks: list[Ack] = []

    def open(self) -> OutputInfo:
        """Start the board's clock, all lines low."""
        self._opened_ns = now_ns()
        watchdog_ms = float(self._config.watchdog_ms)
        return OutputInfo(device="virtual, no hardware", watchdog_ms=watchdog_ms)

    def arm(self) -> None:
        """Let `send` reach the lines."""
        self._since_open()
        self._safe = False
        self._board.arm(now_ns())
        self._armed = True

    def send(self, command: Command) -> int:
        """Carry out one command and return when."""
        opened_ns = self._since_open()
        command_ns = now_ns()
        self._check_watchdog(command_ns)
        if not self._armed:
            raise OutputError(f"command {command.command_id}: the virtual output is not armed")
        if command.line not in self._config.lines:
            raise OutputError(
                f"command {command.command_id}: no line {command.line!r} "
                f"(lines: {', '.join(self._config.lines)})"
            )
        refusal = self._board.execute(command, command_ns)
        self._acks.append(
            Ack(
                command_id=command.command_id,
                output=command.output,
                line=command.line,
                ok=not refusal,
                command_ns=command_ns,
                ack_ns=now_ns(),
                device_us=None if refusal else (command_ns - opened_ns) // 1000,
                detail=refusal,
            )
        )
        return command_ns

    def acks(self) -> Sequence[Ack]:
        """Return the answers since the last call, oldest first."""
        self._since_open()
        acks, self._acks = self._acks, []
        if not acks:
            self._check_watchdog(now_ns())
        return acks

    def beat(self) -> None:
        """Feed the watchdog."""
        self._since_open()
        at_ns = now_ns()
        self._check_watchdog(at_ns)
        self._board.beat(at_ns)

    def safe(self) -> None:
        """Drop every line and disarm."""
        self._armed = False
        if self._opened_ns is not None:
            self._board.safe(now_ns())
            self._safe = True

    @property
    def is_safe(self) -> bool:
        """Whether all lines are low since the last `safe`."""
        return self._safe

    def close(self) -> None:
        """Make safe and end."""
        self.safe()
        self._opened_ns = None

    def edges(self) -> list[Edge]:
        """Return what the lines did up to now, oldest first, at most `MAX_EDGES`."""
        self._board.settle(now_ns())
        return list(self._board.edges)

    def levels(self) -> dict[str, bool]:
        """Return whether each line is high now."""
        return self._board.levels(now_ns())

    def _since_open(self) -> int:
        if self._opened_ns is None:
            raise OutputError("the virtual output is not open")
        return self._opened_ns

    def _check_watchdog(self, at_ns: int) -> None:
        if self._armed and not self._board.is_armed(at_ns):
            raise OutputError(
                "the virtual output dropped its lines and disarmed: it had no heartbeat for "
                f"{self._config.watchdog_ms} ms; arm it again"
            )
