"""An emulated board for tests: the raw wire to it, what its pins did, and a wire that can fail."""

import os
import select
import subprocess
import threading
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import serial

from rtpose_hardware import protocol
from rtpose_hardware.answers import BoardStatus, Done, Hello, InputEdge, Received, parse
from rtpose_hardware.protocol import Request

HARDWARE = Path(__file__).resolve().parents[2] / "hardware"
EMULATOR = HARDWARE / "emulator" / "build" / "emulator"
FIRMWARE = HARDWARE / "firmware" / "build" / "board.elf"
FIRMWARE_115200 = HARDWARE / "firmware" / "build" / "board-115200.elf"

CYCLES_PER_US = 16
CYCLES_PER_MS = 16_000

#: Nothing is measured by it; a board that is silent for so long is broken.
PATIENCE_S = 10.0

SESSION = 0x1234

#: Protocol version of the firmware that is not ours.
OTHER_VERSION = 250

#: In front of a command: it may then open only what its user may, which root otherwise exceeds.
NO_PRIVILEGE: Sequence[str] = (
    ("setpriv", "--bounding-set", "-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
)

Frame = TypeVar("Frame", bound=Received)


class Edge(NamedTuple):
    at_ns: int
    cycle: int
    line: int
    level: int


class Level(NamedTuple):
    at_ns: int
    cycle: int
    line: int
    duty: int


class Change(NamedTuple):
    at_ns: int
    cycle: int
    pin: str
    level: int


class WireEntry(NamedTuple):
    at_ns: int
    cycle: int
    what: str
    data: bytes


def _whole_lines(path: Path) -> list[str]:
    """Return the lines of a log that is still being written, but for one that is not whole yet."""
    return path.read_text().rpartition("\n")[0].splitlines()


def read_edges(path: Path) -> list[Edge]:
    return [Edge(*map(int, text.split())) for text in _whole_lines(path)]


def read_wire(path: Path) -> list[WireEntry]:
    entries = []
    for text in _whole_lines(path):
        at_ns, cycle, what, *data = text.split()
        entries.append(WireEntry(int(at_ns), int(cycle), what, bytes.fromhex("".join(data))))
    return entries


def read_levels(path: Path) -> list[Level]:
    return [Level(*map(int, text.split())) for text in _whole_lines(path)]


def read_changes(path: Path) -> list[Change]:
    entries = (text.split() for text in _whole_lines(path))
    return [Change(int(ns), int(cycle), pin, int(level)) for ns, cycle, pin, level in entries]


def pulses(edges: Sequence[Edge], line: int) -> list[int]:
    """Return the widths in cycles of the complete pulses of a line."""
    own = [edge for edge in edges if edge.line == line]
    assert [edge.level for edge in own] == [1, 0] * (len(own) // 2) + [1] * (len(own) % 2)
    return [fall.cycle - rise.cycle for rise, fall in zip(own[::2], own[1::2], strict=False)]


class EmulatedBoard:
    """A running emulator, and a raw connection to the firmware in it."""

    def __init__(self, folder: Path, *options: str, firmware: Path = FIRMWARE) -> None:
        self.tty = folder / "board.tty"
        self.edge_log = folder / "edges.log"
        self.wire_log = folder / "wire.log"
        self.level_log = folder / "levels.log"
        self.input_log = folder / "inputs.log"
        self._inputs = folder / "inputs"
        command = map(str, (EMULATOR, firmware, self.tty, self.edge_log, *options))
        logged = ("--wire-log", self.wire_log, "--level-log", self.level_log)
        driven = ("--inputs", self._inputs, "--input-log", self.input_log, "--max-seconds", "100")
        self.process = subprocess.Popen([*command, *logged, *driven], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith(b"ready ")
        self._port: serial.Serial | None = None
        self._sequence = 0

    def stop(self) -> None:
        self.disconnect()
        self.process.terminate()
        self.process.wait(PATIENCE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()

    # ------------------------------------------------------------------- what the pins did

    @property
    def edges(self) -> list[Edge]:
        return read_edges(self.edge_log)

    @property
    def wire(self) -> list[WireEntry]:
        return read_wire(self.wire_log)

    @property
    def levels(self) -> list[Level]:
        return read_levels(self.level_log)

    @property
    def changes(self) -> list[Change]:
        return read_changes(self.input_log)

    def drive(self, *lines: str) -> None:
        """Drive pins from outside, as emulator/inputs.c describes."""
        with self._inputs.open("w") as fifo:
            fifo.write("".join(f"{line}\n" for line in lines))

    def happened(self) -> list[str]:
        """Return what hosts did to it, in order: "opened", "closed", "reset", "rx"."""
        return [entry.what for entry in self.wire if entry.what != "tx"]

    # ------------------------------------------------------------------- the wire to it

    def connect(self, baud: int = 1_000_000) -> Hello:
        """Open the port, which resets the board, and ask what it is until it is up."""
        self._port = serial.Serial(str(self.tty), baud, timeout=PATIENCE_S)
        self._reader = protocol.FrameReader()
        self._received: list[Received] = []
        return self.insist(Request.HELLO, Hello)

    def insist(self, kind: Request, answer: type[Frame]) -> Frame:
        """Ask again and again, pass over everything else, and return the answer."""
        self.port.timeout = 0.1
        sequence = None
        frame: Received | None = None
        while not isinstance(frame, answer) or frame.sequence != sequence:
            if frame is None or (isinstance(frame, Hello) and frame.booted):
                sequence = self.sequence()  # what was asked before got lost, perhaps
                self.write(b"\xc0" + protocol.request(kind, sequence))
            frame = self._next()
        self.port.timeout = PATIENCE_S
        return frame

    def disconnect(self) -> None:
        if self._port is not None:
            self._port.close()
            self._port = None

    @property
    def port(self) -> serial.Serial:
        assert self._port is not None
        return self._port

    def _next(self) -> Received | None:
        while not self._received:
            data = self.port.read(1)
            if not data:
                return None
            for payload in self._reader.feed(data + self.port.read(self.port.in_waiting)):
                self._received.append(parse(payload))
        return self._received.pop(0)

    def receive(self) -> Received:
        """Return the next frame."""
        frame = self._next()
        assert frame is not None, "the board is silent"
        return frame

    def expect(self, kind: type[Frame]) -> Frame:
        """Return the next frame, which must be of that kind."""
        frame = self.receive()
        assert isinstance(frame, kind), frame
        return frame

    def sequence(self) -> int:
        self._sequence = (self._sequence + 1) % 256
        return self._sequence

    def write(self, data: bytes) -> None:
        self.port.write(data)

    def ask(self, kind: Request, data: bytes = b"", answer: type[Frame] = Done) -> Frame:  # type: ignore[assignment]
        """Send a request and return its answer."""
        sequence = self.sequence()
        self.write(protocol.request(kind, sequence, data))
        frame = self.expect(answer)
        assert frame.sequence == sequence
        return frame

    def order(self, kind: Request, line: int, width_us: int = 0) -> Done:
        """Order something from a line and return the answer."""
        sequence = self.sequence()
        self.write(protocol.order(kind, sequence, line, width_us))
        done = self.expect(Done)
        assert done.sequence == sequence
        return done

    def level(self, line: int, duty: int, width_us: int) -> Done:
        """Order a level from a line and return the answer."""
        sequence = self.sequence()
        self.write(protocol.level_order(sequence, line, duty, width_us))
        done = self.expect(Done)
        assert done.sequence == sequence
        return done

    def train(
        self, line: int, width_us: int, period_us: int, count: int, delay_us: int = 0
    ) -> Done:
        """Order a train from a line and return the answer."""
        sequence = self.sequence()
        self.write(
            protocol.train_order(
                sequence,
                line,
                delay_us=delay_us,
                width_us=width_us,
                period_us=period_us,
                count=count,
            )
        )
        done = self.expect(Done)
        assert done.sequence == sequence
        return done

    def set_limit(self, line: int, *figures_us: int) -> Done:
        """Set what a line may do: longest on-time, refractory time, dose, window."""
        done: Done = self.ask(Request.LIMIT, protocol.limit_data(line, *figures_us))
        return done

    def set_up(self, limit_us: int, watchdog_ms: int) -> None:
        """Set the same limit on all lines, and the watchdog."""
        for line in range(protocol.LINES):
            assert self.ask(Request.LIMIT, protocol.limit_data(line, limit_us)).moved
        assert self.ask(Request.WATCHDOG, protocol.watchdog_data(watchdog_ms)).moved

    def arm(self, limit_us: int = 2_000_000, watchdog_ms: int = 1000) -> Done:
        """Set up, and arm."""
        self.set_up(limit_us, watchdog_ms)
        done: Done = self.ask(Request.ARM, protocol.arm_data(SESSION))
        assert done.moved
        return done

    def status(self) -> BoardStatus:
        return self.ask(Request.STATUS, answer=BoardStatus)

    def wait_until_low(self) -> None:
        """Let board time pass until all lines are low; asking keeps the watchdog content."""
        while self.status().levels:
            pass

    def wait_until_taken(self, data: bytes) -> None:
        """Wait until the chip has got these bytes, at whatever speed."""
        while data not in b"".join(entry.data for entry in self.wire if entry.what == "rx"):
            threading.Event().wait(0.001)

    def wait_for(self, what: str) -> WireEntry:
        """Wait until something is in the wire log; return the last such entry."""
        while True:
            found = [entry for entry in self.wire if entry.what == what]
            if found:
                return found[-1]
            threading.Event().wait(0.001)

    def events(self, kind: type[Frame]) -> list[Frame]:
        """Return the events of a kind that have come unasked, up to the answer of a beat."""
        sequence = self.sequence()
        self.write(protocol.request(Request.BEAT, sequence))
        found: list[Frame] = []
        while not isinstance(frame := self.receive(), Done) or frame.sequence != sequence:
            if isinstance(frame, kind):
                found.append(frame)
        return found

    def reports(self, count: int) -> list[InputEdge]:
        """Return so many reports of inputs, and what else of them is on its way."""
        found: list[InputEdge] = []
        while len(found) < count:
            frame = self.receive()
            if isinstance(frame, InputEdge):
                found.append(frame)
        return found + self.events(InputEdge) + self.events(InputEdge)

    def wait_for_change(self, count: int) -> list[Change]:
        """Wait until the pins were driven so many times; return how."""
        while len(changes := self.changes) < count:
            threading.Event().wait(0.001)
        return changes

    def pass_time(self, us: int) -> None:
        """Let that much board time pass, beating."""
        beat: Done = self.ask(Request.BEAT)
        start_us = beat.time_us
        while beat.time_us - start_us < us:
            beat = self.ask(Request.BEAT)


class Relay:
    """A second pty in front of a board's: what the driver opens, and where frames can get lost.

    Attributes
    ----------
    to_host : callable
        Gets every chunk from the board and returns what the host is to see of it.
    """

    def __init__(self, board: Path) -> None:
        self.to_host: Callable[[bytes], bytes] = bytes
        self._host, host_end = os.openpty()
        tty.setraw(host_end)
        self.tty = os.ttyname(host_end)
        self._host_end = host_end  # held open, or reading our end would fail until it is opened
        self._board = serial.Serial(str(board), 1_000_000)
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._run, name="relay")
        self._thread.start()

    def _run(self) -> None:
        board = self._board.fileno()
        while True:
            ready, _, _ = select.select([self._host, board, self._wake_read], [], [])
            if self._wake_read in ready:
                return
            if self._host in ready:
                os.write(board, os.read(self._host, 4096))
            if board in ready:
                os.write(self._host, self.to_host(os.read(board, 4096)))

    def close(self) -> None:
        os.write(self._wake_write, b"x")
        self._thread.join()
        self._board.close()
        for fd in (self._host, self._host_end, self._wake_read, self._wake_write):
            os.close(fd)


@contextmanager
def relayed(board: Path) -> Iterator[Relay]:
    relay = Relay(board)
    try:
        yield relay
    finally:
        relay.close()
