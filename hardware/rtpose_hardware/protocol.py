"""The TTL board's wire format: constants, framing, checksum, requests.

``hardware/firmware/protocol.h`` describes the format; this module follows it, and a test compares
every constant. What the board sends is in `answers`. Nothing here touches a port.
"""

import binascii
import enum
import struct
from collections.abc import Mapping

from rtpose.errors import MessageError

PROTOCOL_VERSION = 2

#: CRC of the definitions in protocol.h, as the firmware's Makefile computes it: a board that was
#: built from other definitions is refused even if its version is the same.
PROTOCOL_HASH = 1464605032

FRAME_END = 0xC0
FRAME_ESCAPE = 0xDB
FRAME_ESCAPED_END = 0xDC
FRAME_ESCAPED_ESCAPE = 0xDD
FRAME_RESIDUE = 0x1D0F
FRAME_MAX_REQUEST = 24
FRAME_MAX_ANSWER = 48

#: Bytes on the wire that the board holds until it has time for them.
RECEIVE_BYTES = 255

LINES = 8
LINES_WITH_LEVELS = 0x06
LEVEL_HZ = 7812
MIN_WIDTH_US = 20
MAX_WIDTH_US = 60_000_000
MIN_DELAY_US = 100
MAX_SPAN_US = 3_600_000_000
MAX_TRAIN_US = 600_000_000
MAX_TRAIN_EDGES_HZ = 4000
MIN_WATCHDOG_MS = 20
MAX_WATCHDOG_MS = 1000
DEFAULT_WATCHDOG_MS = 100
INPUTS = 5


class Request(enum.IntEnum):
    """What the host asks; an order to a line (from OFF on) has the line in its low 4 bits."""

    HELLO = 0x01
    STATUS = 0x02
    COUNTERS = 0x03
    SAFE = 0x04
    BEAT = 0x05
    ARM = 0x06
    WATCHDOG = 0x07
    LIMIT = 0x08
    INPUT = 0x09
    STOP_INPUT = 0x0A
    SELF_TEST = 0x0B
    OFF = 0x10
    ON = 0x20
    PULSE = 0x30
    LEVEL = 0x40
    TRAIN = 0x50


class Answer(enum.IntEnum):
    """What the board answers."""

    DONE = 0x80
    UNCHANGED = 0x81
    REFUSED = 0x82
    HELLO = 0x83
    STATUS = 0x84
    COUNTERS = 0x85
    SELF_TEST = 0x86


class Event(enum.IntEnum):
    """What the board sends by itself."""

    BOOT = 0x90
    WATCHDOG = 0x91
    INPUT = 0x92
    STOP = 0x93


class InputMode(enum.IntEnum):
    """Which edges of an input the board reports."""

    OFF = 0
    RISING = 1
    FALLING = 2
    BOTH = 3


class StopMode(enum.IntEnum):
    """What the stop input means: CLOSED to ground is well (a broken wire stops), or HIGH is."""

    OFF = 0
    CLOSED = 1
    HIGH = 2


class StopState(enum.IntEnum):
    """What the stop input says."""

    UNUSED = 0
    WELL = 1
    STOP = 2


class Fault(enum.IntFlag):
    """What the board's self-test found."""

    PIN = 0x01
    FLASH = 0x02
    CLOCK = 0x04
    STACK = 0x08


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
    REFRACTORY = 11
    DOSE = 12
    LEVEL = 13
    STOPPED = 14
    INPUT = 15
    RATE = 16


class Reset(enum.IntEnum):
    """What reset the board last."""

    UNKNOWN = 0
    POWER = 1
    PIN = 2
    BROWN_OUT = 3
    WATCHDOG = 4


#: `Reason`, `Reset` and `Fault` in words.
REFUSALS: Mapping[int, str] = {
    Reason.TYPE: "the board does not know this request",
    Reason.LENGTH: "the request has the wrong length",
    Reason.LINE: "the board has no such line",
    Reason.DISARMED: "the board is not armed",
    Reason.NO_LIMIT: "the line's longest on-time is not set on the board",
    Reason.WIDTH: "the width is not allowed on this line",
    Reason.BUSY: "the line is on or in a train already",
    Reason.VALUE: "the value is out of range",
    Reason.ARMED: "not while the board is armed",
    Reason.SESSION: "the board is armed by another program",
    Reason.REFRACTORY: "too soon after the line's last falling edge",
    Reason.DOSE: "the line would be on for longer than its dose allows",
    Reason.LEVEL: "the line has no levels, only low and high",
    Reason.STOPPED: "the board's stop input says stop",
    Reason.INPUT: "the board has no such input",
    Reason.RATE: "the trains would have more edges per second than the board can make exactly",
}

RESETS: Mapping[int, str] = {
    Reset.UNKNOWN: "unknown",
    Reset.POWER: "power was switched on",
    Reset.PIN: "reset button, or the port was opened",
    Reset.BROWN_OUT: "supply voltage too low",
    Reset.WATCHDOG: "its firmware hung",
}

FAULTS: Mapping[int, str] = {
    Fault.PIN: "a line reads high although it is driven low",
    Fault.FLASH: "the program in the chip is not the one that was built",
    Fault.CLOCK: "the clock stands still",
    Fault.STACK: "the stack is nearly used up",
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


def _width(width_us: int) -> bytes:
    return width_us.to_bytes((width_us.bit_length() + 7) // 8, "little")


def order(kind: Request, sequence: int, line: int, width_us: int = 0) -> bytes:
    """Return the frame of an order: OFF, or ON and PULSE with a width in microseconds."""
    return encode(bytes((kind | line, sequence)) + _width(width_us))


def level_order(sequence: int, line: int, duty: int, width_us: int) -> bytes:
    """Return the frame that sets a line to a level: high for (duty + 1) / 256 of the time."""
    return encode(bytes((Request.LEVEL | line, sequence, duty)) + _width(width_us))


def train_order(
    sequence: int, line: int, *, delay_us: int, width_us: int, period_us: int, count: int
) -> bytes:
    """Return the frame that orders a train: ``count`` pulses, ``period_us`` apart."""
    data = struct.pack("<IIIH", delay_us, width_us, period_us, count)
    return encode(bytes((Request.TRAIN | line, sequence)) + data)


def arm_data(session: int) -> bytes:
    """Return what follows an ARM request."""
    return struct.pack("<H", session)


def watchdog_data(watchdog_ms: int) -> bytes:
    """Return what follows a WATCHDOG request."""
    return struct.pack("<H", watchdog_ms)


def limit_data(
    line: int, longest_us: int, refractory_us: int = 0, dose_us: int = 0, window_us: int = 0
) -> bytes:
    """Return what follows a LIMIT request."""
    return struct.pack("<BIIII", line, longest_us, refractory_us, dose_us, window_us)


def input_data(index: int, mode: InputMode, *, pull_up: bool = False, holdoff_us: int = 0) -> bytes:
    """Return what follows an INPUT request."""
    return struct.pack("<BBBH", index, mode, pull_up, holdoff_us)


def stop_input_data(mode: StopMode) -> bytes:
    """Return what follows a STOP_INPUT request."""
    return struct.pack("<B", mode)
