"""``firmata``: digital outputs of a board that runs StandardFirmata or another Firmata firmware.

Most Arduino-like boards can run it, straight from the Arduino IDE's examples. Firmata has no clock
for pulses and no watchdog, so the host times the pulses, and a board that loses its host keeps its
pins as they are: where a line must not stay on, use the TTL board.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Self

from pydantic import Field, model_validator

from rtpose.clock import now_ns
from rtpose.errors import BoardVersionError, OutputError
from rtpose.interfaces import OutputInfo, OutputSettings
from rtpose_hardware import firmata_protocol as protocol
from rtpose_hardware import guard
from rtpose_hardware.firmata_protocol import Firmware, PinState, Version
from rtpose_hardware.guard import Guard
from rtpose_hardware.host_timed import Answer, HostTimedOutput
from rtpose_hardware.plain_serial import open_serial, write_now

if TYPE_CHECKING:
    import serial

_NS_PER_S: Final = 1_000_000_000
_PROTOCOL_MAJOR: Final = 2

#: Opening the port resets an Uno; then come its boot loader (1 s), the sketch's start and, in
#: older versions, 2 s of blinking. `Output.open` may take 5 s in all.
_HELLO_TIMEOUT_S: Final = 4.4
_HELLO_REPEAT_S: Final = 0.5


class FirmataSettings(OutputSettings):
    """``[outputs.<name>]`` with ``type = "firmata"``; ``pin`` of a line is the board's pin number.

    Attributes
    ----------
    port : str
        Name of the serial port, e.g. ``/dev/ttyACM0`` or ``COM3``.
    baud : int
        As in the sketch; StandardFirmata has 57600.
    watchdog_ms : int
        After how long without a beat of control every line falls.
    ack_timeout_ms : int
        A board that does not answer for that long is reported as failed.
    """

    port: Annotated[str, Field(min_length=1)]
    baud: Annotated[int, Field(ge=9600, le=2_000_000)] = 57_600
    watchdog_ms: Annotated[int, Field(ge=100, le=10_000)] = 500
    ack_timeout_ms: Annotated[int, Field(ge=10, le=10_000)] = 500

    @model_validator(mode="after")
    def _pins_are_free(self) -> Self:
        for name, line in self.lines.items():
            if line.pin < 2:
                raise ValueError(
                    f"lines.{name}.pin is {line.pin}: pins 0 and 1 are the serial port"
                )
        self.require_own_pins()
        return self


class FirmataOutput(HostTimedOutput):
    """Drive digital pins of a Firmata board.

    Every order is followed by a pin state query, so an acknowledgement says that the board has
    carried it out: it holds that pin as an output at that level. The host times the pulses; on
    Linux and macOS a `Guard` resets the board when control is killed or stopped.

    Examples
    --------
    In rig.toml::

        [outputs.arduino]
        type = "firmata"
        port = "/dev/ttyACM0"
        lines.led = { pin = 13, max_on_ms = 100 }
    """

    Config: ClassVar[type[OutputSettings]] = FirmataSettings
    answers = True

    def __init__(self, config: FirmataSettings) -> None:
        self.watchdog_ms = config.watchdog_ms
        self.ack_timeout_ms = config.ack_timeout_ms
        super().__init__(config)
        self._settings = config
        self._port: serial.Serial | None = None
        self._parser = protocol.Parser()
        self._levels: dict[int, int] = {}  # of each port of eight pins

    def _connect(self) -> OutputInfo:
        self._parser = protocol.Parser()
        self._levels = {line.pin // protocol.PINS_PER_PORT: 0 for line in self._lines.values()}
        port = self._port = open_serial(
            self._settings.port, self._settings.baud, "the output 'firmata'", lines=True
        )
        firmware = self._meet()
        for line in self._lines.values():
            self._write(protocol.make_output(line.pin))
        guarded = guard.AVAILABLE
        if guarded:
            guard_ms = self.watchdog_ms * 5 // 4  # the driver trips first, if it runs at all
            self._guard = Guard(port.fileno(), guard_ms, protocol.drop_all(self._levels).hex())
        version = f"{firmware.name} {firmware.major}.{firmware.minor}"
        return OutputInfo(
            device=f"Firmata board ({version}) on {self._settings.port}, timed by the host",
            watchdog_ms=float(self.watchdog_ms) if guarded else None,
            facts={"port": self._settings.port, "firmware": version, "guard": guarded},
        )

    def _meet(self) -> Firmware:
        """Wait until the board has said what it runs, and everything else it had to say."""
        deadline_ns = now_ns() + round(_HELLO_TIMEOUT_S * _NS_PER_S)
        some_pin = next(iter(self._lines.values())).pin
        version: Version | None = None
        firmware: Firmware | None = None
        while now_ns() < deadline_ns:
            if firmware is None:
                self._write(protocol.ask_who())
            for message in self._read(_HELLO_REPEAT_S):
                if isinstance(message, Version):
                    version = message
                elif isinstance(message, Firmware) and firmware is None and version is not None:
                    self._check_version(version)
                    firmware = message
                    # It answers in order: after this, nothing of before can come any more.
                    self._write(protocol.ask_pin(some_pin))
                elif isinstance(message, PinState) and firmware is not None:
                    return firmware
        raise OutputError(
            f"nothing on {self._settings.port} answers like a Firmata board at "
            f"{self._settings.baud} baud: is StandardFirmata flashed, is it the right port?"
        )

    def _check_version(self, version: Version) -> None:
        if version.major != _PROTOCOL_MAJOR:
            raise BoardVersionError(
                f"the board on {self._settings.port} speaks Firmata {version.major}."
                f"{version.minor}, not {_PROTOCOL_MAJOR}: flash a current StandardFirmata"
            )

    def _set(self, pin: int, high: bool, line: str, width_us: int) -> None:
        port, bit = divmod(pin, protocol.PINS_PER_PORT)
        levels = self._levels[port] & ~(1 << bit) | high << bit
        self._write(protocol.set_port(port, levels) + protocol.ask_pin(pin))
        self._levels[port] = levels

    def _receive(self, timeout_s: float) -> Sequence[Answer]:
        return [
            Answer(
                message.pin,
                bool(message.value) if message.mode == protocol.OUTPUT_MODE else None,
                f"pin {message.pin} has mode {message.mode} and level {message.value}",
            )
            for message in self._read(timeout_s)
            if isinstance(message, PinState)
        ]

    def _check_device(self) -> None:
        try:
            _ = self._opened().in_waiting  # what cannot be asked is unplugged
        except OSError as error:
            raise self._gone(error) from error

    def _disconnect(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            port.close()

    def _opened(self) -> "serial.Serial":
        if self._port is None:
            raise OutputError("the output is not open")
        return self._port

    def _gone(self, error: OSError) -> OutputError:
        return OutputError(f"the Firmata board on {self._settings.port} is gone: {error}")

    def _write(self, data: bytes) -> None:
        try:
            write_now(self._opened(), data)
        except OSError as error:
            raise self._gone(error) from error

    def _read(self, timeout_s: float) -> list[protocol.Received]:
        port = self._opened()
        try:
            if timeout_s and not port.in_waiting:
                port.timeout = timeout_s
                data = port.read(1)
            else:
                data = b""
            data += port.read(port.in_waiting)
        except OSError as error:
            raise self._gone(error) from error
        return list(self._parser.feed(data))
