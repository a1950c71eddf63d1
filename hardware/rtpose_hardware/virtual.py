"""``virtual``: lines without hardware, under the same rules as the TTL board.

It is what the demo drives, and what a rig is tried out with before anything is wired.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from rtpose.clock import now_ns
from rtpose.errors import OutputError
from rtpose.interfaces import Output, OutputInfo, OutputSettings
from rtpose.messages import Ack, Command
from rtpose_hardware import board_orders
from rtpose_hardware.protocol import DEFAULT_WATCHDOG_MS, MAX_WATCHDOG_MS, MIN_WATCHDOG_MS
from rtpose_hardware.virtual_board import Edge, VirtualBoard


class VirtualSettings(OutputSettings):
    """``[outputs.<name>]`` with ``type = "virtual"``.

    Attributes
    ----------
    watchdog_ms : int
        After how long without a beat or a command from control every line falls.
    """

    level_pins: ClassVar[frozenset[int]] = frozenset(range(64))
    watchdog_ms: Annotated[int, Field(ge=MIN_WATCHDOG_MS, le=MAX_WATCHDOG_MS)] = DEFAULT_WATCHDOG_MS


class VirtualOutput(Output):
    """Lines in memory.

    What is against a limit of the line (longest on-time, refractory time, dose), or does not fit
    what it does now, is refused in the acknowledgement, as by a board; what the driver itself can
    see (not open, not armed, no such line) raises. When the watchdog has disarmed it, `acks`,
    `beat` and `send` raise until it is armed again; answers that came before are returned first.

    Parameters
    ----------
    config : VirtualSettings
        The checked settings.
    """

    Config: ClassVar[type[OutputSettings]] = VirtualSettings
    takes_trains: ClassVar[bool] = True

    @classmethod
    def misfit(cls, command: Command) -> str:
        """Say why no board ever takes a command: this one behaves like them."""
        return board_orders.misfit(command)

    def __init__(self, config: VirtualSettings) -> None:
        self._config = config
        self._board = VirtualBoard(config.lines, config.watchdog_ms * 1_000_000)
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
                device_us=None if refusal else (command_ns - opened_ns) // 1000 + command.delay_us,
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
        """Return what the lines did up to now, oldest first, at most `virtual_board.MAX_EDGES`."""
        self._board.settle(now_ns())
        return list(self._board.edges)

    def levels(self) -> dict[str, float]:
        """Return how high each line is now, 0 to 1."""
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
