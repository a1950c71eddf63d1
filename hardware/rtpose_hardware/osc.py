"""``osc``: Open Sound Control messages for sound, light and stimulus programs, over UDP.

A line ``tone`` becomes the address ``/rtpose/tone`` with two integers: the level (1 or 0), and
for a level of 1 the longest time in microseconds that it is meant to last. The receiver does not
answer, and a datagram may get lost: nothing that does harm when it stays on belongs here.
"""

import socket
from ipaddress import ip_address
from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from rtpose.errors import MissingExtraError, OutputError
from rtpose.interfaces import OutputInfo, OutputSettings
from rtpose_hardware.host_timed import HostTimedOutput


class OscSettings(OutputSettings):
    """``[outputs.<name>]`` with ``type = "osc"``; ``pin`` of a line has no meaning here.

    Attributes
    ----------
    host, port : str, int
        IP address and UDP port of the receiver.
    prefix : str
        In front of the line's name in every address.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)]
    prefix: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9_.-]+)*$", max_length=200)] = "/rtpose"

    @field_validator("host")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        try:
            return str(ip_address(value))
        except ValueError as error:
            raise ValueError("give an IP address: to look up a name may take too long") from error


class OscOutput(HostTimedOutput):
    """Send levels as OSC messages.

    Acks have ``confirmed=False``. Where the receiver's machine reports that nobody listens on the
    port (this one always does), the next call raises.

    Examples
    --------
    In rig.toml::

        [outputs.sound]
        type = "osc"
        port = 57120
        lines.tone = { pin = 0, max_on_ms = 500 }
    """

    Config: ClassVar[type[OutputSettings]] = OscSettings

    def __init__(self, config: OscSettings) -> None:
        super().__init__(config)
        self._settings = config
        self._socket: socket.socket | None = None

    def _connect(self) -> OutputInfo:
        try:
            import pythonosc.osc_message_builder  # noqa: F401 - found missing now, not when firing
        except ImportError as error:
            raise MissingExtraError("python-osc", "osc", "the output 'osc'") from error
        host, port = self._settings.host, self._settings.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        try:
            self._socket.connect((host, port))
        except OSError as error:
            raise OutputError(f"cannot send to {host} port {port}: {error}") from error
        return OutputInfo(
            device=f"OSC to {host} port {port}, timed by the host, unconfirmed",
            watchdog_ms=None,
            facts={"host": host, "port": port, "prefix": self._settings.prefix},
        )

    def _set(self, pin: int, high: bool, line: str, width_us: int) -> None:
        from pythonosc.osc_message_builder import OscMessageBuilder

        message = OscMessageBuilder(f"{self._settings.prefix}/{line}")
        message.add_arg(int(high), OscMessageBuilder.ARG_TYPE_INT)
        message.add_arg(width_us, OscMessageBuilder.ARG_TYPE_INT)
        try:
            self._opened().send(message.build().dgram)
        except OSError as error:
            raise self._gone(error) from error

    def _check_device(self) -> None:
        code = self._opened().getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise self._gone(OSError(code, "nobody listens"))

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _opened(self) -> socket.socket:
        if self._socket is None:
            raise OutputError("the output is not open")
        return self._socket

    def _gone(self, error: OSError) -> OutputError:
        where = f"{self._settings.host} port {self._settings.port}"
        return OutputError(f"nobody takes OSC messages at {where}: {error}")
