"""The TTL board's wire format: framing, checksum, requests, answers, and the board's clock.

``hardware/firmware/protocol.h`` describes the format; this module follows it, and a test compares
every constant. Nothing here touches a port.
"""

import binascii
import enum
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rtpose.errors import MessageError

PROTOCOL_VERSION = 1

#: CRC of the definitions in protocol.h, as the firmware's Makefile computes it: a board that was
#: built from other definitions is refused even if its version is the same.
PROTOCOL_HASH = 607250136

FRAME_END = 0xC0
FRAME_ESCAPE = 0xDB
FRAME_ESCAPED_END = 0xDC
FRAME_ESCAPED_ESCAPE = 0xDD
FRAME_RESIDUE = 0x1D0F
FRAME_MAX_REQUEST = 8
FRAME_MAX_ANSWER = 48

LINES = 8
MIN_WIDTH_US = 20
MAX_WIDTH_US = 60_000_000
MIN_WATCHDOG_MS = 20
MAX_WATCHDOG_MS = 1000
DEFAULT_WATCHDOG_MS = 100


class Request(enum.IntEnum):
    """What the host asks; an order to a line (OFF, ON, PULSE) has the line in its low 4 bits."""

    HELLO = 0x01
    STATUS = 0x02
    COUNTERS = 0x03
    SAFE = 0x04
    BEAT = 0x05
    ARM = 0x06
    WATCHDOG = 0x07
    LIMIT = 0x08
    OFF = 0x10
    ON = 0x20
    PULSE = 0x30


class Answer(enum.IntEnum):
    """What the board answers."""

    DONE = 0x80
    UNCHANGED = 0x81
    REFUSED = 0x82
    HELLO = 0x83
    STATUS = 0x84
    COUNTERS = 0x85


class Event(enum.IntEnum):
    """What the board sends by itself."""

    BOOT = 0x90
    WATCHDOG = 0x91


class Reason(enum.IntEnum):
    """Why the board refused a request."""

    TYPE = 1
    LENGTH = 2
    LINE = 3
    DISARMED = 4
    NO_LIMIT = 5
    WIDTH = 6
    BUSY = 7
    VALUE = 8
    ARMED = 9
    SESSION = 10


class Reset(enum.IntEnum):
    """What reset the board last."""

    UNKNOWN = 0
    POWER = 1
    PIN = 2
    BROWN_OUT = 3
    WATCHDOG = 4


#: `Reason` and `Reset` in words.
REFUSALS: Mapping[int, str] = {
    Reason.TYPE: "the board does not know this request",
    Reason.LENGTH: "the request has the wrong length",
    Reason.LINE: "the board has no such line",
    Reason.DISARMED: "the board is not armed",
    Reason.NO_LIMIT: "the line's longest on-time is not set on the board",
    Reason.WIDTH: "the width is not allowed on this line",
    Reason.BUSY: "the line is high already, the pulse would not have its width",
    Reason.VALUE: "the value is out of range",
    Reason.ARMED: "not while the board is armed",
    Reason.SESSION: "the board is armed by another program",
}

RESETS: Mapping[int, str] = {
    Reset.UNKNOWN: "unknown",
    Reset.POWER: "power was switched on",
    Reset.PIN: "reset button, or the port was opened",
    Reset.BROWN_OUT: "supply voltage too low",
    Reset.WATCHDOG: "its firmware hung",
}


# ---------------------------------------------------------------------------------------- framing


_SUBSTITUTES = {b"\xdc": b"\xc0", b"\xdd": b"\xdb"}


def checksum(data: bytes) -> int:
    """Return the CRC of protocol.h, CRC-16/GENIBUS."""
    return binascii.crc_hqx(data, 0xFFFF) ^ 0xFFFF


def encode(payload: bytes) -> bytes:
    """Return the frame of a payload: CRC appended, bytes stuffed, closed by FRAME_END."""
    body = payload + checksum(payload).to_bytes(2, "big")
    body = body.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc")
    return body + b"\xc0"


def decode(body: bytes) -> bytes:
    """Return the payload of a frame, given without its FRAME_END.

    Raises
    ------
    MessageError
        If the stuffing, the length or the CRC is wrong.
    """
    data, *escaped = body.split(b"\xdb")
    for part in escaped:
        byte = _SUBSTITUTES.get(part[:1])
        if byte is None:
            raise MessageError(f"frame with a wrong escape: {body.hex()}")
        data += byte + part[1:]
    if len(data) < 4 or checksum(data) != FRAME_RESIDUE ^ 0xFFFF:
        raise MessageError(f"frame with a wrong checksum or length: {body.hex()}")
    return data[:-2]


class FrameReader:
    """Cut a stream of bytes, in chunks of any size, into payloads.

    Attributes
    ----------
    bad : int
        Frames that were dropped because they were damaged.
    """

    #: Longest frame on the wire, all its bytes escaped.
    LONGEST = 2 * (FRAME_MAX_ANSWER + 2)

    def __init__(self) -> None:
        self.bad = 0
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes and return the payloads that they complete."""
        *bodies, self._rest = (self._rest + data).split(b"\xc0")
        payloads = []
        for body in bodies:
            if not body:
                continue
            try:
                payloads.append(decode(body))
            except MessageError:
                self.bad += 1
        if len(self._rest) > self.LONGEST:
            # Noise without an end. One byte is kept: the frame that it runs into counts as bad too.
            self._rest = self._rest[-1:]
            self.bad += 1
        return payloads


# --------------------------------------------------------------------------------------- requests


def request(kind: Request, sequence: int, data: bytes = b"") -> bytes:
    """Return the frame of a request that is no order to a line."""
    return encode(bytes((kind, sequence)) + data)


def order(kind: Request, sequence: int, line: int, width_us: int = 0) -> bytes:
    """Return the frame of an order: OFF, or ON and PULSE with a width in microseconds."""
    width = width_us.to_bytes((width_us.bit_length() + 7) // 8, "little")
    return encode(bytes((kind | line, sequence)) + width)


def arm_data(session: int) -> bytes:
    """Return what follows an ARM request."""
    return struct.pack("<H", session)


def watchdog_data(watchdog_ms: int) -> bytes:
    """Return what follows a WATCHDOG request."""
    return struct.pack("<H", watchdog_ms)


def limit_data(line: int, max_on_us: int) -> bytes:
    """Return what follows a LIMIT request."""
    return struct.pack("<BI", line, max_on_us)


# ---------------------------------------------------------------------------- answers and events


@dataclass(frozen=True, slots=True)
class Done:
    """A request was obeyed or refused.

    Attributes
    ----------
    time_us : int
        The board's clock, 32 bits: of the edge if a pin moved.
    moved : bool
        Whether it was obeyed by doing something (`Answer.DONE`).
    reason : int or None
        Why it was refused; None if it was not.
    """

    sequence: int
    time_us: int
    moved: bool
    reason: int | None = None


@dataclass(frozen=True, slots=True)
class Hello:
    """Which firmware answers; with ``booted`` it has just started."""

    sequence: int
    booted: bool
    version: int
    hash: int
    lines: int
    reset_cause: int
    firmware: str


@dataclass(frozen=True, slots=True)
class BoardStatus:
    """The state of the board; ``levels`` is read back from the pins, bit n = line n."""

    sequence: int
    time_us: int
    session: int
    levels: int
    watchdog_ms: int


@dataclass(frozen=True, slots=True)
class Counters:
    """What the board has counted since its reset, each modulo 65536."""

    sequence: int
    good: int
    bad: int
    wire_errors: int
    refused: int
    trips: int


@dataclass(frozen=True, slots=True)
class Trip:
    """The board's watchdog dropped all lines and disarmed it."""

    sequence: int
    time_us: int
    session: int


Received = Done | Hello | BoardStatus | Counters | Trip


def _parse_hello(sequence: int, kind: int, data: bytes) -> Hello:
    version, protocol_hash, lines, cause = struct.unpack_from("<BIBB", data)
    name = data[7:].decode("ascii", "replace")
    return Hello(sequence, kind == Event.BOOT, version, protocol_hash, lines, cause, name)


def parse(payload: bytes) -> Received:
    """Return what a payload from the board says.

    Raises
    ------
    MessageError
        If its type is unknown or its length does not fit its type.
    """
    kind, sequence, data = payload[0], payload[1], payload[2:]
    try:
        if kind in (Answer.DONE, Answer.UNCHANGED):
            (time_us,) = struct.unpack("<I", data)
            return Done(sequence, time_us, kind == Answer.DONE)
        if kind == Answer.REFUSED:
            time_us, reason = struct.unpack("<IB", data)
            return Done(sequence, time_us, False, reason)
        if kind in (Answer.HELLO, Event.BOOT):
            return _parse_hello(sequence, kind, data)
        if kind == Answer.STATUS:
            return BoardStatus(sequence, *struct.unpack("<IHBH", data))
        if kind == Answer.COUNTERS:
            return Counters(sequence, *struct.unpack("<HHHHH", data))
        if kind == Event.WATCHDOG:
            return Trip(sequence, *struct.unpack("<IH", data))
    except struct.error as error:
        raise MessageError(f"frame of type {kind:#04x} with {len(data)} bytes") from error
    raise MessageError(f"frame of unknown type {kind:#04x}")


def lines_of(levels: int) -> Sequence[int]:
    """Return the lines whose bits are set."""
    return [line for line in range(LINES) if levels >> line & 1]


class BoardClock:
    """Count the board's 32-bit microseconds on, over their wrap every 71.6 minutes.

    The host's clock bridges silences: the wrap count chosen is the one nearest to what the host
    expects, so the result is right as long as the two clocks differ by less than 35 minutes over
    one silence.
    """

    def __init__(self) -> None:
        self._last_us = 0
        self._last_ns: int | None = None

    def extend(self, time_us: int, arrival_ns: int) -> int:
        """Return a time of the board, received at ``arrival_ns`` of the host, without wraps."""
        if self._last_ns is None:
            full = time_us
        else:
            expected = self._last_us + (arrival_ns - self._last_ns) // 1000
            full = expected + ((time_us - expected + (1 << 31)) % (1 << 32) - (1 << 31))
        self._last_us, self._last_ns = max(full, 0), arrival_ns
        return max(full, 0)
