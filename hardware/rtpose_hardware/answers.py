"""What the TTL board sends, answers and events, and its clock.

``hardware/firmware/protocol.h`` describes the format. Nothing here touches a port.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rtpose.errors import MessageError
from rtpose_hardware.protocol import (
    LINES,
    PROTOCOL_VERSION,
    Answer,
    Event,
    Fault,
    Reset,
    StopState,
)


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
    """Which firmware answers; with ``booted`` it has just started.

    Of another version only ``version`` and ``hash`` have a meaning.
    """

    sequence: int
    booted: bool
    version: int
    hash: int
    lines: int
    lines_with_levels: int
    inputs: int
    reset_cause: int
    firmware: str


@dataclass(frozen=True, slots=True)
class BoardStatus:
    """The state of the board.

    Attributes
    ----------
    levels : int
        Lines as read back from the pins, bit n = line n; one at a level counts as high.
    stop : StopState
        What the stop input says.
    inputs : int
        Levels of the inputs, bit n = input n.
    """

    sequence: int
    time_us: int
    session: int
    levels: int
    watchdog_ms: int
    stop: StopState = StopState.UNUSED
    inputs: int = 0


@dataclass(frozen=True, slots=True)
class Counters:
    """What the board has counted since its reset, each modulo 65536."""

    sequence: int
    good: int
    bad: int
    wire_errors: int
    refused: int
    trips: int
    stops: int
    edges_lost: int


@dataclass(frozen=True, slots=True)
class SelfTest:
    """What the board found when it examined itself.

    Attributes
    ----------
    faults : Fault
        Empty if all is well.
    levels : int
        Lines as read back from the pins while all are driven low, bit n = line n.
    flash_checksum : int
        CRC of the program in the chip.
    free_stack_bytes : int
        Stack that was never used since the reset.
    """

    sequence: int
    faults: Fault
    levels: int
    flash_checksum: int
    free_stack_bytes: int


@dataclass(frozen=True, slots=True)
class Trip:
    """The board's watchdog dropped all lines and disarmed it."""

    sequence: int
    time_us: int
    session: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """The board's stop input said stop: it dropped all lines and disarmed."""

    sequence: int
    time_us: int
    session: int


@dataclass(frozen=True, slots=True)
class InputEdge:
    """An edge on an input of the board.

    Attributes
    ----------
    time_us : int
        The board's clock at the edge, 32 bits.
    level : int
        After the edge, 0 or 1.
    unreported : int
        Edges of this input since its last report that were not reported; 255 means or more.
    """

    sequence: int
    time_us: int
    input: int
    level: int
    unreported: int


Received = Done | Hello | BoardStatus | Counters | SelfTest | Trip | Stopped | InputEdge


def _parse_hello(sequence: int, kind: int, data: bytes) -> Hello:
    booted = kind == Event.BOOT
    version, protocol_hash = struct.unpack_from("<BI", data)
    if version != PROTOCOL_VERSION:
        return Hello(sequence, booted, version, protocol_hash, 0, 0, 0, Reset.UNKNOWN, "")
    lines, levels, inputs, cause = struct.unpack_from("<BBBB", data, 5)
    name = data[9:].decode("ascii", "replace")
    return Hello(sequence, booted, version, protocol_hash, lines, levels, inputs, cause, name)


def _parse_done(sequence: int, kind: int, data: bytes) -> Done:
    if kind == Answer.REFUSED:
        time_us, reason = struct.unpack("<IB", data)
        return Done(sequence, time_us, False, reason)
    (time_us,) = struct.unpack("<I", data)
    return Done(sequence, time_us, kind == Answer.DONE)


def _parse_status(sequence: int, _kind: int, data: bytes) -> BoardStatus:
    time_us, session, levels, watchdog_ms, stop, inputs = struct.unpack("<IHBHBB", data)
    return BoardStatus(sequence, time_us, session, levels, watchdog_ms, StopState(stop), inputs)


def _parse_counters(sequence: int, _kind: int, data: bytes) -> Counters:
    return Counters(sequence, *struct.unpack("<HHHHHHH", data))


def _parse_self_test(sequence: int, _kind: int, data: bytes) -> SelfTest:
    faults, *rest = struct.unpack("<BBHH", data)
    return SelfTest(sequence, Fault(faults), *rest)


def _parse_trip(sequence: int, kind: int, data: bytes) -> Trip | Stopped:
    time_us, session = struct.unpack("<IH", data)
    return (Stopped if kind == Event.STOP else Trip)(sequence, time_us, session)


def _parse_input(sequence: int, _kind: int, data: bytes) -> InputEdge:
    return InputEdge(sequence, *struct.unpack("<IBBB", data))


_PARSERS: Mapping[int, Callable[[int, int, bytes], Received]] = {
    Answer.DONE: _parse_done,
    Answer.UNCHANGED: _parse_done,
    Answer.REFUSED: _parse_done,
    Answer.HELLO: _parse_hello,
    Answer.STATUS: _parse_status,
    Answer.COUNTERS: _parse_counters,
    Answer.SELF_TEST: _parse_self_test,
    Event.BOOT: _parse_hello,
    Event.WATCHDOG: _parse_trip,
    Event.STOP: _parse_trip,
    Event.INPUT: _parse_input,
}


def parse(payload: bytes) -> Received:
    """Return what a payload from the board says.

    Raises
    ------
    MessageError
        If its type is unknown or its length does not fit its type.
    """
    kind, sequence, data = payload[0], payload[1], payload[2:]
    parser = _PARSERS.get(kind)
    if parser is None:
        raise MessageError(f"frame of unknown type {kind:#04x}")
    try:
        return parser(sequence, kind, data)
    except (struct.error, ValueError) as error:
        raise MessageError(f"frame of type {kind:#04x} that means nothing: {data.hex()}") from error


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
