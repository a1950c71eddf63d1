"""Pulses that the host times: how late they begin, and how exact their width is.

    python -m benchmarks host_timed

Once up to the moment when the driver hands a level over, which is the host's own share, and once
on a Firmata board: StandardFirmata on an emulated ATmega328P in real time, at its 57600 baud behind
a pty, with widths in the chip's own cycles. The sketch never sleeps, so the emulator needs most of
a core: on a machine with other work its figures are the machine's. ``tests/hardware`` fetches it.
"""

import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from benchmarks import PERCENTILES, summary_us, table
from rtpose.clock import RateKeeper, now_ns
from rtpose.errors import OutputError
from rtpose.interfaces import Output, OutputInfo, OutputSettings
from rtpose.loop import go_realtime
from rtpose.messages import Ack, Command
from rtpose_hardware.firmata import FirmataOutput, FirmataSettings
from rtpose_hardware.host_timed import HostTimedOutput

_BUILD = Path(__file__).parents[1] / "hardware" / "emulator" / "build"
_PULSES = 400
_RATE_HZ = 20.0
_WIDTH_US = 10_000
_CYCLES_PER_US = 16
_BITS_PER_BYTE = 10
_ORDER_BYTES = 7
_BAUD = 57_600
_PRIORITY = 55  # as control


@contextmanager
def _uno(folder: Path) -> Iterator[Path]:
    """Run the sketch on the emulated chip and give its serial port."""
    emulator, sketch = _BUILD / "emulator", _BUILD / "standard-firmata.elf"
    for file in (emulator, sketch):
        if not file.exists():
            raise OutputError(f"{file.name} is not built: make hardware, then run the tests")
    port = folder / "uno.tty"
    command = [emulator, sketch, port, folder / "edges.log", "--realtime", "--max-seconds", "120"]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE)
    try:
        if process.stdout is not None:
            process.stdout.readline()
        yield port
    finally:
        process.terminate()
        process.wait()


class _Recorder(HostTimedOutput):
    """A device that notes when each level is handed over."""

    def __init__(self, lines: OutputSettings) -> None:
        super().__init__(lines)
        self.set_ns: list[tuple[int, bool]] = []

    def _connect(self) -> OutputInfo:
        return OutputInfo(device="recorder", watchdog_ms=None)

    def _set(self, pin: int, high: bool, line: str, width_us: int) -> None:
        self.set_ns.append((now_ns(), high))

    def _disconnect(self) -> None:
        pass


def _pulses(output: Output) -> tuple[list[int], list[Ack]]:
    """Give pulses at a steady rate; return when each was asked for, and the acks."""
    called_ns: list[int] = []
    acks: list[Ack] = []
    keeper = RateKeeper(_RATE_HZ)
    for number in range(_PULSES):
        keeper.wait()
        output.beat()
        order = Command(
            command_id=number, output="uno", line="led", action="pulse", width_us=_WIDTH_US
        )
        called_ns.append(now_ns())
        output.send(order)
        while len(acks) <= number:
            acks += output.acks()
            Event().wait(0.0005)
    Event().wait(0.1)
    return called_ns, acks


def _host() -> dict[str, Any]:
    lines = OutputSettings.model_validate({"lines": {"led": {"pin": 4, "max_on_ms": 50.0}}})
    output = _Recorder(lines)
    output.open()
    output.arm()
    called_ns, _ = _pulses(output)
    output.close()
    first = next(i for i, (_, high) in enumerate(output.set_ns) if high)
    set_ns = np.array([at_ns for at_ns, _ in output.set_ns[first : first + 2 * _PULSES]])
    return {
        "send to level": summary_us(set_ns[0::2] - np.array(called_ns)),
        "width error": summary_us(set_ns[1::2] - set_ns[0::2] - _WIDTH_US * 1000),
    }


def _board() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name, _uno(Path(name)) as port:
        lines = {"led": {"pin": 4, "max_on_ms": 50.0}}
        settings = {"port": str(port), "lines": lines, "watchdog_ms": 1000}
        board = FirmataOutput(FirmataSettings.model_validate(settings))
        board.open()
        board.arm()
        called_ns, acks = _pulses(board)
        board.close()
        log = (Path(name) / "edges.log").read_text().splitlines()
    edges = np.array([list(map(int, text.split())) for text in log])
    rises, falls = edges[0::2], edges[1::2]
    widths_ns = (falls[:, 1] - rises[:, 1]) * 1000 // _CYCLES_PER_US
    return {
        "not acknowledged": sum(not ack.ok for ack in acks),
        "send to edge": summary_us(rises[:, 0] - np.array(called_ns)),
        "send to ack": summary_us(np.array([ack.ack_ns for ack in acks]) - np.array(called_ns)),
        "width error": summary_us(widths_ns - _WIDTH_US * 1000),
    }


def run() -> dict[str, Any]:
    """Return percentiles in us."""
    go_realtime(_PRIORITY)
    wire_us = _ORDER_BYTES * _BITS_PER_BYTE / _BAUD * 1e6
    return {"host": _host(), "board": _board(), "wire_us": wire_us}


def show(results: Mapping[str, Any]) -> None:
    """Print them."""
    print(
        f"{_PULSES} pulses of {_WIDTH_US} us; an order takes {results['wire_us']:.0f} us on the "
        f"board's wire; {results['board']['not acknowledged']} not acknowledged"
    )
    table("host alone, us", results["host"], list(PERCENTILES))
    names = ("send to edge", "send to ack", "width error")
    table("on the board, us", {n: results["board"][n] for n in names}, list(PERCENTILES))
