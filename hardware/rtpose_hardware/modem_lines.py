"""``modem-lines``: DTR and RTS of any serial adapter as two output lines.

The cheapest output there is. A line is on when it is *asserted*, and there is no setting to turn
that round: the operating system deasserts both when the port is closed, also by a crash, and an
unplugged adapter asserts nothing. On an RS-232 adapter asserted is +5 to +12 V. On an adapter with
logic levels (5 V, 3.3 V) an asserted line is at 0 V and a line at rest is high: it needs an
inverter or an optocoupler in front of anything that must be off at rest.

Linux asserts both lines whenever a port is opened, until this driver can lower them again: switch
on what is wired to them after `open`, and wire nothing to them that a short pulse can harm.
"""

import os
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Self

from pydantic import Field, model_validator

from rtpose.errors import OutputError
from rtpose.interfaces import OutputInfo, OutputSettings
from rtpose_hardware import guard
from rtpose_hardware.guard import Guard
from rtpose_hardware.host_timed import HostTimedOutput
from rtpose_hardware.plain_serial import open_serial

if TYPE_CHECKING:
    import serial

DTR: Final = 0
RTS: Final = 1
_NAMES: Final = {DTR: "DTR", RTS: "RTS"}


class ModemLinesSettings(OutputSettings):
    """``[outputs.<name>]`` with ``type = "modem-lines"``; ``pin`` of a line is 0 DTR, 1 RTS.

    Attributes
    ----------
    port : str
        Name of the serial port, e.g. ``/dev/ttyUSB0`` or ``COM3``.
    watchdog_ms : int
        After how long without a beat of control both lines fall.
    """

    port: Annotated[str, Field(min_length=1)]
    watchdog_ms: Annotated[int, Field(ge=100, le=10_000)] = 500

    @model_validator(mode="after")
    def _two_lines(self) -> Self:
        for name, line in self.lines.items():
            if line.pin not in _NAMES:
                raise ValueError(f"lines.{name}.pin is {line.pin}: give 0 for DTR or 1 for RTS")
        self.require_own_pins()
        return self


class ModemLinesOutput(HostTimedOutput):
    """Drive DTR and RTS of a serial port.

    Nothing answers: a finished system call says that the system's driver took the level, so acks
    have ``confirmed=False``. The host times the pulses. On Linux and macOS a `Guard` drops the
    lines when control is killed or stopped.

    Examples
    --------
    In rig.toml::

        [outputs.adapter]
        type = "modem-lines"
        port = "/dev/ttyUSB0"
        lines.led = { pin = 0, max_on_ms = 100 }
    """

    Config: ClassVar[type[OutputSettings]] = ModemLinesSettings

    def __init__(self, config: ModemLinesSettings) -> None:
        self.watchdog_ms = config.watchdog_ms
        super().__init__(config)
        self._name = config.port
        self._port: serial.Serial | None = None

    def _connect(self) -> OutputInfo:
        port = self._port = open_serial(self._name, 9600, "the output 'modem-lines'", lines=False)
        try:
            port.dtr = False
            port.rts = False
        except OSError as error:
            raise OutputError(f"{self._name} has no modem lines: {error}") from error
        guarded = guard.AVAILABLE
        if guarded:
            _drop_on_close(port.fileno())
            guard_ms = self.watchdog_ms * 5 // 4  # the driver trips first, if it runs at all
            self._guard = Guard(port.fileno(), guard_ms, "modem")
        return OutputInfo(
            device=f"DTR and RTS of {self._name}, timed by the host, unconfirmed",
            watchdog_ms=float(self.watchdog_ms) if guarded else None,
            facts={"port": self._name, "guard": guarded},
        )

    def _set(self, pin: int, high: bool, line: str, width_us: int) -> None:
        port = self._opened()
        try:
            if pin == DTR:
                port.dtr = high
            else:
                port.rts = high
        except OSError as error:
            raise OutputError(f"{self._name} is gone: {error}") from error

    def _check_device(self) -> None:
        try:
            _ = self._opened().in_waiting  # what cannot be asked is unplugged
        except OSError as error:
            raise OutputError(f"{self._name} is gone: {error}") from error

    def _disconnect(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            port.close()

    def _opened(self) -> "serial.Serial":
        if self._port is None:
            raise OutputError("the output is not open")
        return self._port


def _drop_on_close(fd: int) -> None:
    """Have the system deassert DTR and RTS when the port is closed, by a crash too (HUPCL)."""
    if os.name == "posix":
        import termios

        settings = termios.tcgetattr(fd)
        settings[2] |= termios.HUPCL
        termios.tcsetattr(fd, termios.TCSANOW, settings)
