"""The part of the Firmata protocol that digital outputs need. Touches no port.

Source: protocol 2.x as published by the Firmata project (github.com/firmata/protocol, protocol.md).
Commands have bit 7 set, data has not; a digital port is eight pins, its levels sent as two bytes
of seven bits.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

_DIGITAL_MESSAGE: Final = 0x90
_SET_PIN_MODE: Final = 0xF4
_REPORT_VERSION: Final = 0xF9
_SYSTEM_RESET: Final = 0xFF
_START_SYSEX: Final = 0xF0
_END_SYSEX: Final = 0xF7
_PIN_STATE_QUERY: Final = 0x6D
_PIN_STATE_RESPONSE: Final = 0x6E
_REPORT_FIRMWARE: Final = 0x79

OUTPUT_MODE: Final = 1
PINS_PER_PORT: Final = 8

#: What is longer is none of the messages that matter here.
_MAX_LENGTH: Final = 1024


class Version(NamedTuple):
    """Version of the protocol that the board speaks."""

    major: int
    minor: int


class Firmware(NamedTuple):
    """Version and name of the sketch that the board runs."""

    major: int
    minor: int
    name: str


class PinState(NamedTuple):
    """Mode of a pin and, for an output, the level that the board last gave it."""

    pin: int
    mode: int
    value: int


Received = Version | Firmware | PinState


def ask_who() -> bytes:
    """Return the requests that are answered by `Version` and then by `Firmware`."""
    return bytes([_REPORT_VERSION, _START_SYSEX, _REPORT_FIRMWARE, _END_SYSEX])


def make_output(pin: int) -> bytes:
    """Return the order that makes a pin an output, low."""
    return bytes([_SET_PIN_MODE, pin, OUTPUT_MODE])


def set_port(port: int, levels: int) -> bytes:
    """Return the order that sets the eight pins of a port to a bit mask, as far as outputs."""
    return bytes([_DIGITAL_MESSAGE | port, levels & 0x7F, levels >> 7])


def ask_pin(pin: int) -> bytes:
    """Return the request that is answered by `PinState`."""
    return bytes([_START_SYSEX, _PIN_STATE_QUERY, pin, _END_SYSEX])


def drop_all(ports: Iterable[int]) -> bytes:
    """Return bytes that make every pin low, wherever in a message the board was left."""
    zeros = b"".join(set_port(port, 0) for port in sorted(ports))
    return bytes([_END_SYSEX]) + zeros + bytes([_SYSTEM_RESET])


class Parser:
    """Finds the messages that matter here in a stream of bytes, whatever else is in it."""

    def __init__(self) -> None:
        self._message = bytearray()  # the command so far; empty between commands

    def feed(self, data: bytes) -> Iterator[Received]:
        """Yield the messages that end in `data`; anything else is skipped."""
        for byte in data:
            ends_sysex = byte == _END_SYSEX and self._message[:1] == bytes([_START_SYSEX])
            if byte >= 0x80 and not ends_sysex:
                self._message = bytearray([byte])  # of a command inside another the end was lost
                continue
            if self._message:
                self._message.append(byte)
            if ends_sysex or self._is_version() or len(self._message) > _MAX_LENGTH:
                message, self._message = _read(bytes(self._message)), bytearray()
                if message is not None:
                    yield message

    def _is_version(self) -> bool:
        return len(self._message) == 3 and self._message[0] == _REPORT_VERSION


def _read(message: bytes) -> Received | None:
    if message[0] == _REPORT_VERSION:
        return Version(message[1], message[2])
    kind, data = message[1:2], message[2:-1]
    if message[-1] != _END_SYSEX:
        return None
    if kind == bytes([_PIN_STATE_RESPONSE]) and len(data) >= 3:
        value = sum(part << 7 * place for place, part in enumerate(data[2:]))
        return PinState(data[0], data[1], value)
    if kind == bytes([_REPORT_FIRMWARE]) and len(data) >= 2:
        letters = zip(data[2::2], data[3::2], strict=False)
        return Firmware(data[0], data[1], "".join(chr(low | high << 7) for low, high in letters))
    return None
