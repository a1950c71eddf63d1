"""A command to the emulated TTL board and back, and how exact its pulses are.

    python -m benchmarks board_latency

The board is the firmware on an emulated ATmega328P in real time, behind a pty. ``wire`` is what the
bytes of the two frames take at 1 Mbaud, ten bits each: the least that is possible. A real board
has a USB bridge in between, which adds its polling interval. ``stamp to pin`` is how wrong the
board's stamps are on the host's clock: against the emulator's own time of the edge, which is late
itself whenever the emulator is held up.
"""

import random
import tempfile
from collections.abc import Mapping
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from benchmarks import summary_us, table
from rtpose.clock import RateKeeper, now_ns
from rtpose.errors import OutputError
from rtpose.loop import go_realtime
from rtpose.messages import Ack, Command
from rtpose_hardware import protocol
from rtpose_hardware.board_settings import BoardLine
from rtpose_hardware.emulated_ttl import EmulatedTtlOutput

_COMMANDS = 2000
_RATE_HZ = 200.0
_WIDTH_US = 1000
_WAIT_S = 0.001
_DENSE_PULSES = 4000
_CLOCK_KNOWN = 400  # commands, until the board's clock was compared for two seconds
_CYCLES_PER_US = 16

Edge = tuple[int, int, int, int]  # ns, cycle, line, level


def _open(folder: Path) -> EmulatedTtlOutput:
    lines = {f"line{pin}": BoardLine(pin=pin, max_on_ms=10) for pin in range(protocol.LINES)}
    board = EmulatedTtlOutput(
        EmulatedTtlOutput.Config(lines=lines, watchdog_ms=1000, edge_log=str(folder / "edges.log"))
    )
    board.open()
    board.arm()
    return board


def _pulse(number: int, line: int, width_us: int) -> Command:
    return Command(
        command_id=number, output="board", line=f"line{line}", action="pulse", width_us=width_us
    )


def _edges(folder: Path) -> list[Edge]:
    edges = []
    for text in (folder / "edges.log").read_text().splitlines():
        at_ns, cycle, line, level = map(int, text.split())
        edges.append((at_ns, cycle, line, level))
    return edges


def _collect(board: EmulatedTtlOutput, acks: list[Ack], count: int) -> None:
    """Wait for answers as control does, without keeping the thread that reads from running."""
    nothing = Event()
    while len(acks) < count:
        nothing.wait(_WAIT_S)
        acks += board.acks()


def _latency() -> dict[str, Any]:
    """Single pulses at a pace, each answered before the next."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        board = _open(folder)
        acks: list[Ack] = []
        called_ns = np.empty(_COMMANDS, np.int64)
        pace = RateKeeper(_RATE_HZ)
        for number in range(_COMMANDS):
            pace.wait()
            called_ns[number] = now_ns()
            board.send(_pulse(number, 0, _WIDTH_US))
            _collect(board, acks, number + 1)
            if number % 10 == 0:
                board.beat()  # it is answered long before the next command
        facts = board.facts()
        board.close()
        rises_ns = np.array([edge[0] for edge in _edges(folder) if edge[3]])
    moved = [ack for ack in acks if ack.ok]
    called_ns = called_ns[[ack.command_id for ack in moved]]
    stamps_ns = np.array([ack.device_ns for ack in moved], np.int64)
    frame = protocol.order(protocol.Request.PULSE, 0, 0, _WIDTH_US)
    answer = protocol.encode(bytes(6))
    return {
        "commands": len(acks),
        "refused": len(acks) - len(moved),
        "wire": {"min": 10.0 * (len(frame) + len(answer))},
        "send": summary_us(np.array([ack.command_ns for ack in moved]) - called_ns),
        "send to pin": summary_us(np.array(rises_ns) - called_ns),
        "send to ack": summary_us(np.array([ack.ack_ns for ack in moved]) - called_ns),
        "stamp to pin": summary_us(np.abs(stamps_ns - rises_ns)[_CLOCK_KNOWN:]),
        "clock": {name: value for name, value in facts.items() if name.startswith("clock_")},
    }


def _width_errors() -> dict[str, Any]:
    """Pulses of random widths on all lines at once, as fast as the wire takes them."""
    chance = random.Random(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        board = _open(folder)
        acks: list[Ack] = []
        asked = [
            (chance.randrange(protocol.LINES), chance.randrange(protocol.MIN_WIDTH_US, 3000))
            for _ in range(_DENSE_PULSES)
        ]
        for number, (line, width_us) in enumerate(asked):
            board.send(_pulse(number, line, width_us))
            if number % 100 == 0:
                board.beat()
        _collect(board, acks, _DENSE_PULSES)
        Event().wait(0.1)  # the last pulses end
        board.close()
        edges = _edges(folder)
    late = []
    for line in range(protocol.LINES):
        wanted = [asked[a.command_id][1] for a in acks if a.ok and a.line == f"line{line}"]
        cycles = [edge[1] for edge in edges if edge[2] == line]
        for rise, fall, width_us in zip(cycles[::2], cycles[1::2], wanted, strict=False):
            late.append(fall - rise - width_us * _CYCLES_PER_US)
    return {
        "pulses": len(late),
        "exact": late.count(0),
        "earliest_cycles": min(late),
        "latest_cycles": max(late),
    }


def run() -> dict[str, Any]:
    go_realtime(55)  # as control does
    try:
        return {"latency_us": _latency(), "widths": _width_errors()}
    except OutputError as error:
        return {"not_measured": str(error)}


def show(result: Mapping[str, Any]) -> None:
    if "not_measured" in result:
        print(f"not measured: {result['not_measured']}")
        return
    latency = result["latency_us"]
    rows = {n: row for n, row in latency.items() if isinstance(row, dict) and n != "clock"}
    table("us", rows, ["min", "p50", "p95", "p99", "p99.9", "max"])
    clock = latency["clock"]
    print(
        f"\nclock: drift {clock['clock_drift_ppm']:g} +- {clock['clock_drift_error_ppm']:g} ppm, "
        f"residual {clock['clock_residual_us']:g} us, a stamp is wrong by at most "
        f"{clock['clock_uncertainty_us']:g} us, {clock['clock_restarts']} restarts"
    )
    widths = result["widths"]
    print(
        f"\n{widths['exact']} of {widths['pulses']} pulses on {protocol.LINES} lines at once exact "
        f"to the cycle (62.5 ns), the others {widths['earliest_cycles']} to "
        f"{widths['latest_cycles']} cycles too long"
    )


if __name__ == "__main__":
    show(run())
