"""``open-ephys``: TTL events in the data of the Open Ephys GUI, by its Network Events plugin.

Put the plugin behind the source in the signal chain. It takes text over ZeroMQ (``TTL Line=3
State=1``) and answers each request; the lines are events in the recording, not voltages. Source:
the GUI's user manual, "Network Events", and the replies in the plugin's own source.
"""

import re
from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Annotated, ClassVar, Final, Self

import zmq
from pydantic import Field, field_validator, model_validator

from rtpose.clock import now_ns
from rtpose.errors import OutputError
from rtpose.interfaces import OutputInfo, OutputSettings
from rtpose_hardware.host_timed import Answer, HostTimedOutput

_HELLO_TIMEOUT_NS: Final = 3_000_000_000
_READY_TIMEOUT_S: Final = 0.05

#: ZeroMQ's own sign of life, so that a GUI that is gone is noticed.
_HEARTBEAT_MS: Final = 200

_NUMBERS: Final = re.compile(rb"=\s*(\d+)")


class OpenEphysSettings(OutputSettings):
    """``[outputs.<name>]`` with ``type = "open-ephys"``; ``pin`` of a line is the TTL line, from 1.

    Attributes
    ----------
    host, port : str, int
        IP address of the computer with the GUI, and the port that the plugin shows.
    ack_timeout_ms : int
        A GUI that does not answer for that long is reported as failed.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 5556
    ack_timeout_ms: Annotated[int, Field(ge=10, le=10_000)] = 1000

    @field_validator("host")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        try:
            return str(IPv4Address(value))
        except ValueError as error:
            raise ValueError("give an IP address: to look up a name may take too long") from error

    @model_validator(mode="after")
    def _lines_count_from_one(self) -> Self:
        for name, line in self.lines.items():
            if line.pin < 1:
                raise ValueError(f"lines.{name}.pin is {line.pin}: Open Ephys counts lines from 1")
        self.require_own_pins()
        return self


class OpenEphysOutput(HostTimedOutput):
    """Send TTL events to the Open Ephys GUI.

    It is acknowledged by the plugin's reply, which names line and state. A GUI that acquires no
    data replies too but drops the event, so arming is refused while it does not acquire.

    Examples
    --------
    In rig.toml::

        [outputs.ephys]
        type = "open-ephys"
        lines.reward = { pin = 3, max_on_ms = 100 }
    """

    Config: ClassVar[type[OutputSettings]] = OpenEphysSettings
    answers = True

    def __init__(self, config: OpenEphysSettings) -> None:
        self.ack_timeout_ms = config.ack_timeout_ms
        super().__init__(config)
        self._address = f"tcp://{config.host}:{config.port}"
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None

    def _connect(self) -> OutputInfo:
        self._context = zmq.Context()
        # The peer is a REP socket. DEALER with the empty frame that REQ would add can have several
        # requests on their way: a REQ socket could not switch a line off while an answer is due.
        socket = self._socket = self._context.socket(zmq.DEALER)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.IMMEDIATE, 1),  # nothing is queued for a GUI that is not there
            (zmq.HEARTBEAT_IVL, _HEARTBEAT_MS),
            (zmq.HEARTBEAT_TIMEOUT, 2 * _HEARTBEAT_MS),
        ):
            socket.setsockopt(option, value)
        socket.connect(self._address)
        if not socket.poll(_HELLO_TIMEOUT_NS // 1_000_000, zmq.POLLOUT):
            raise OutputError(
                f"nobody listens on {self._address}: is the Open Ephys GUI running, with Network "
                "Events in its signal chain and this port?"
            )
        acquiring = self._is_acquiring(_HELLO_TIMEOUT_NS / 1e9)
        return OutputInfo(
            device=f"Open Ephys GUI, Network Events at {self._address}, timed by the host",
            watchdog_ms=None,
            facts={"address": self._address, "acquiring_when_opened": acquiring},
        )

    def _is_acquiring(self, timeout_s: float) -> bool:
        self._send("IsAcquiring")
        deadline_ns = now_ns() + round(timeout_s * 1e9)
        while (left_ns := deadline_ns - now_ns()) > 0:
            for reply in self._replies(left_ns / 1e9):
                if reply in (b"0", b"1"):
                    return reply == b"1"
                if not reply.startswith(b"TTL"):
                    words = reply[:80].decode(errors="replace")
                    raise OutputError(
                        f"{self._address} does not answer like Network Events: {words!r}"
                    )
        raise OutputError(f"{self._address} took a request and did not answer it")

    def _check_ready(self) -> None:
        if not self._is_acquiring(_READY_TIMEOUT_S):
            raise OutputError(
                "the Open Ephys GUI is not acquiring, it would drop every event: start acquisition"
            )

    def _set(self, pin: int, high: bool, line: str, width_us: int) -> None:
        self._send(f"TTL Line={pin} State={int(high)}")

    def _receive(self, timeout_s: float) -> Sequence[Answer]:
        return [_answer(reply) for reply in self._replies(timeout_s)]

    def _check_device(self) -> None:
        if not self._opened().poll(0, zmq.POLLOUT):
            raise OutputError(f"the Open Ephys GUI at {self._address} is gone")

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._context is not None:
            self._context.term()
        self._socket = self._context = None

    def _opened(self) -> "zmq.Socket[bytes]":
        if self._socket is None:
            raise OutputError("the output is not open")
        return self._socket

    def _send(self, text: str) -> None:
        try:
            self._opened().send_multipart([b"", text.encode()], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            raise OutputError(f"the Open Ephys GUI at {self._address} is gone: {error}") from error

    def _replies(self, timeout_s: float) -> list[bytes]:
        socket, replies = self._opened(), []
        wait_ms = round(timeout_s * 1000)
        while socket.poll(wait_ms, zmq.POLLIN):
            replies.append(socket.recv_multipart(zmq.NOBLOCK)[-1])
            wait_ms = 0
        return replies


def _answer(reply: bytes) -> Answer:
    """Read ``TTLHandled: Line=3 State=1``, or the ``Channel=3 on=1`` of other versions."""
    text = reply[:80].decode(errors="replace")
    numbers = [int(digits) for digits in _NUMBERS.findall(reply)]
    if not reply.startswith(b"TTLHandled") or len(numbers) != 2:
        return Answer(None, None, repr(text))
    return Answer(numbers[0], bool(numbers[1]), repr(text))
