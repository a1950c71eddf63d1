"""What the emulated chip saw: its lines' edges, and the host's frames, each with its CPU cycle."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rtpose.errors import MessageError
from rtpose_hardware import protocol
from rtpose_hardware.protocol import Request

CYCLES_PER_US: Final = 16
CYCLES_PER_MS: Final = 16_000
#: Ten bits of 16 cycles, at 1 Mbaud.
_CYCLES_PER_BYTE: Final = 160
#: The hardware watchdog of a chip whose firmware hangs: hardware/README.md, "Figures".
HANG_CYCLES: Final = 1_024_000
#: The pin of the stop input, and what an open contact lets it read.
STOP: Final = ("D2", "1")

#: Requests that move a line, and the word for each in a `Command`.
ORDERS: Final = {
    Request.OFF: "off",
    Request.ON: "on",
    Request.LEVEL: "on",
    Request.PULSE: "pulse",
    Request.TRAIN: "train",
}
#: What stands before and behind the width in an order's data.
_WIDTH_AT: Final = {Request.LEVEL: slice(1, None), Request.TRAIN: slice(4, 8)}


@dataclass(frozen=True)
class Edge:
    """One edge of a line."""

    host_ns: int
    cycle: int
    line: int
    level: int


@dataclass(frozen=True)
class Frame:
    """One sound frame from the host, when its last byte had arrived.

    Attributes
    ----------
    line, width_us : int
        Of an order to a line.
    deaf : bool
        It came while the firmware hung, so the board never executed it.
    """

    cycle: int
    kind: Request
    line: int = 0
    width_us: int = 0
    deaf: bool = False

    @property
    def action(self) -> str:
        """The word for it in a `Command`; empty for what moves no line."""
        return ORDERS.get(self.kind, "")


@dataclass(frozen=True)
class Note:
    """What befell the board: ``opened``, ``closed``, ``reset``, ``hang``, ``unplugged``, `STOP`."""

    cycle: int
    what: str


def _entries(path: Path) -> Iterator[list[str]]:
    """Yield the fields of every whole line; the board may be ended in the middle of one."""
    for text in path.read_text().splitlines(keepends=True):
        if text.endswith("\n"):
            yield text.split()


def read_edges(path: Path) -> list[Edge]:
    """Return the edges in an edge log, which may not be there yet."""
    if not path.exists():
        return []
    return [Edge(*map(int, fields[:4])) for fields in _entries(path)]


class _Wire:
    """Cuts the host's bytes into frames, as the firmware does."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.notes: list[Note] = []
        self._body = bytearray()
        self._hangs = False

    def note(self, cycle: int, what: str) -> None:
        self.notes.append(Note(cycle, what))
        if what == "reset":
            self._body.clear()
        self._hangs = what == "hang" or (self._hangs and what != "reset")

    def take(self, cycle: int, data: bytes) -> None:
        for count, byte in enumerate(data, 1):
            if byte != protocol.FRAME_END:
                self._body.append(byte)
                continue
            body = bytes(self._body)
            self._body.clear()
            try:
                payload = protocol.decode(body) if body else b""
            except MessageError:
                continue
            if payload:
                self._add(cycle + count * _CYCLES_PER_BYTE, payload)

    def _add(self, cycle: int, payload: bytes) -> None:
        kind, line = payload[0], 0
        if kind & 0xF0 in ORDERS:
            kind, line = kind & 0xF0, kind & 0x0F
        request = Request(kind)
        width = payload[2:][_WIDTH_AT.get(request, slice(None))] if request in ORDERS else b""
        width_us = int.from_bytes(width, "little")
        self.frames.append(Frame(cycle, request, line, width_us, self._hangs))


def read_wire(path: Path) -> tuple[list[Frame], list[Note]]:
    """Return the host's sound frames in a wire log, and what happened to the board."""
    wire = _Wire()
    for _, cycle, what, *data in _entries(path):
        if what == "rx":
            wire.take(int(cycle), bytes.fromhex("".join(data)))
        elif what != "tx":
            wire.note(int(cycle), what)
    return wire.frames, wire.notes


def read_stops(path: Path) -> list[Note]:
    """Return when the contact of the stop input was opened, from an input log."""
    fields = _entries(path) if path.exists() else ()
    return [Note(int(cycle), "stop") for _, cycle, pin, level in fields if (pin, level) == STOP]
