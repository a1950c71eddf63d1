"""The portable core of the TTL board's firmware, built for this machine and stepped."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from rtpose_hardware import protocol
from rtpose_hardware.answers import BoardStatus, Done, Received, parse
from rtpose_hardware.protocol import FrameReader, Request, Reset

FIRMWARE = Path(__file__).resolve().parents[2] / "hardware" / "firmware"

TICKS_PER_US = 16
SESSION = 7
WATCHDOG_US = 50_000
LIMIT_US = 20_000


class Core:
    """The board's core, compiled for this machine; its clock stands until it is told to go on."""

    def __init__(self, library: Path) -> None:
        self._lib = ctypes.CDLL(str(library))
        self._lib.host_sent.argtypes = [ctypes.c_char_p]
        self._lib.host_high.restype = ctypes.c_uint8
        self._lib.host_duty.restype = ctypes.c_uint8
        self._lib.host_shows_armed.restype = ctypes.c_bool
        self._lib.host_stop.argtypes = [ctypes.c_bool]
        self._lib.host_move.restype = ctypes.c_uint64
        self._lib.host_set_health.argtypes = [
            ctypes.c_uint16,
            ctypes.c_uint16,
            ctypes.c_bool,
            ctypes.c_uint8,
        ]
        self.reset()

    def reset(self) -> None:
        self._lib.host_reset(int(Reset.POWER))
        self._reader = FrameReader()
        self._sequence = 0

    def take(self, data: bytes) -> list[Received]:
        """Let the board receive bytes; return what it sends."""
        self._lib.host_take(data, len(data))
        return self.sent()

    def advance_us(self, time_us: int) -> list[Received]:
        """Let board time pass; return what it sends."""
        self._lib.host_advance(time_us * TICKS_PER_US)
        return self.sent()

    def sent(self) -> list[Received]:
        buffer = ctypes.create_string_buffer(1 << 16)
        count = self._lib.host_sent(buffer)
        return [parse(payload) for payload in self._reader.feed(buffer.raw[:count])]

    @property
    def high(self) -> int:
        return int(self._lib.host_high())

    @property
    def shows_armed(self) -> bool:
        return bool(self._lib.host_shows_armed())

    def duty(self, line: int) -> int:
        """How a line switches; 0 if it is low or high all the time."""
        return int(self._lib.host_duty(line))

    def drive(self, index: int, level: int) -> None:
        """Drive an input."""
        self._lib.host_input(index, level)

    def stop(self, *, well: bool) -> None:
        """Drive the stop input."""
        self._lib.host_stop(well)

    def set_health(self, checksum: int, free_stack: int, clock_runs: bool, held: int) -> None:
        """Say what the chip finds when it examines itself."""
        self._lib.host_set_health(checksum, free_stack, clock_runs, held)

    def spans_us(self, line: int) -> list[tuple[int, int]]:
        """When the line was high since the reset."""
        high, rise_us, spans = ctypes.c_uint8(), None, []
        for number in range(1 << 16):
            tick = self._lib.host_move(number, ctypes.byref(high))
            if tick == 2**64 - 1:
                break
            is_high = bool(high.value >> line & 1)
            if is_high and rise_us is None:
                rise_us = tick // TICKS_PER_US
            elif not is_high and rise_us is not None:
                spans.append((rise_us, tick // TICKS_PER_US))
                rise_us = None
        assert rise_us is None
        return [(rise, fall) for rise, fall in spans if fall > rise]

    def status(self) -> BoardStatus:
        status = self.ask(Request.STATUS)
        assert isinstance(status, BoardStatus)
        return status

    def ask(self, kind: Request, data: bytes = b"") -> Received:
        self._sequence = (self._sequence + 1) % 256
        (answer,) = self.take(protocol.request(kind, self._sequence, data))
        assert answer.sequence == self._sequence
        return answer

    def order(self, kind: Request, line: int, width_us: int = 0) -> Done:
        self._sequence = (self._sequence + 1) % 256
        return self._order(protocol.order(kind, self._sequence, line, width_us))

    def _order(self, frame: bytes) -> Done:
        (answer,) = self.take(frame)
        assert isinstance(answer, Done)
        assert answer.sequence == self._sequence
        return answer

    def level(self, line: int, duty: int, width_us: int) -> Done:
        self._sequence = (self._sequence + 1) % 256
        return self._order(protocol.level_order(self._sequence, line, duty, width_us))

    def train(self, line: int, delay_us: int, width_us: int, period_us: int, count: int) -> Done:
        self._sequence = (self._sequence + 1) % 256
        frame = protocol.train_order(
            self._sequence,
            line,
            delay_us=delay_us,
            width_us=width_us,
            period_us=period_us,
            count=count,
        )
        return self._order(frame)

    def arm(self) -> None:
        for line in range(protocol.LINES):
            self.ask(Request.LIMIT, protocol.limit_data(line, LIMIT_US))
        self.ask(Request.WATCHDOG, protocol.watchdog_data(WATCHDOG_US // 1000))
        self.ask(Request.ARM, protocol.arm_data(SESSION))


def build_core(folder: Path) -> Path:
    """Build the core in a folder; skip the test where that is not possible."""
    missing = [name for name, tool in (("gcc", "cc"), ("make", "make")) if not shutil.which(tool)]
    if missing:
        message = f"the firmware's core cannot be built, packages missing: {', '.join(missing)}"
        if os.environ.get("RTPOSE_REQUIRE_HARDWARE") == "1":
            pytest.fail(message)
        pytest.skip(message)
    command = ["make", "-s", "-C", str(FIRMWARE), f"BUILD={folder}", "host"]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "libboard.so"
