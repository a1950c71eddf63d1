"""``udp``: one datagram per command, for event markers and stimulus computers.

A datagram is ASCII text, ``<line> <action> <width_us>``: ``tone pulse 50000``. Its receiver does
not answer, has no clock that we know of and no watchdog: this output says so wherever it is asked,
and is not for anything that does harm when it stays on.
"""

import contextlib
import socket
from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from rtpose.clock import now_ns
from rtpose.errors import OutputError
from rtpose.interfaces import Output, OutputInfo, OutputSettings
from rtpose.messages import Ack, Command


class UdpSettings(OutputSettings):
    """``[outputs.<name>]`` with ``type = "udp"``.

    Attributes
    ----------
    host, port : str, int
        Where the receiver listens.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)]


class UdpOutput(Output):
    """Sends every command as text."""

    Config: ClassVar[type[OutputSettings]] = UdpSettings

    def __init__(self, config: UdpSettings) -> None:
        self._config = config
        self._socket: socket.socket | None = None
        self._armed = False
        self._acks: list[Ack] = []

    def open(self) -> OutputInfo:
        """Make the socket. Whether somebody listens shows at the earliest with a later command."""
        address = (self._config.host, self._config.port)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.connect(address)
        except OSError as error:
            raise OutputError(f"cannot send to {address[0]}:{address[1]}: {error}") from error
        self._socket.setblocking(False)
        return OutputInfo(device=f"UDP to {address[0]}:{address[1]}, unconfirmed", watchdog_ms=None)

    def arm(self) -> None:
        """Let `send` reach the receiver."""
        self._opened()
        self._armed = True

    def send(self, command: Command) -> int:
        """Send one command. The receiver keeps no limits, so they are kept here."""
        line = self._config.lines.get(command.line)
        if line is None:
            raise OutputError(f"no line {command.line!r} (lines: {', '.join(self._config.lines)})")
        if not self._armed:
            raise OutputError("the UDP output is not armed")
        if command.width_us > line.max_on_ms * 1000:
            raise OutputError(
                f"{command.width_us} us is longer than {command.line} may be on, "
                f"{line.max_on_ms:g} ms"
            )
        if command.action == "train" or command.level < 1:
            raise OutputError("the receiver knows no trains and no levels")
        self._transmit(f"{command.line} {command.action} {command.width_us}")
        sent_ns = now_ns()
        self._acks.append(
            Ack(
                command_id=command.command_id,
                output=command.output,
                line=command.line,
                ok=True,
                confirmed=False,
                command_ns=sent_ns,
                ack_ns=sent_ns,
                detail="sent; the receiver does not answer",
            )
        )
        return sent_ns

    def acks(self) -> Sequence[Ack]:
        """Say of each command that it was sent, which is all that is known."""
        self._opened()
        acks, self._acks = self._acks, []
        return acks

    def beat(self) -> None:
        """Do nothing: the receiver has no watchdog, as `open` tells."""
        self._opened()

    def safe(self) -> None:
        """Send ``off`` for every line, and disarm."""
        self._armed = False
        if self._socket is not None:
            for line in self._config.lines:
                with contextlib.suppress(OutputError):  # `is_safe` never claims that it arrived
                    self._transmit(f"{line} off 0")

    @property
    def is_safe(self) -> bool:
        """False: nobody confirms it."""
        return False

    def close(self) -> None:
        """Make safe and close the socket."""
        self.safe()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _opened(self) -> socket.socket:
        if self._socket is None:
            raise OutputError("the UDP output is not open")
        return self._socket

    def _transmit(self, text: str) -> None:
        try:
            self._opened().send(text.encode("ascii"))
        except OSError as error:  # the system reports so that nobody listens there
            raise OutputError(
                f"cannot send to {self._config.host}:{self._config.port}: {error}"
            ) from error
