"""Whatever is killed while a line is high: the line goes low, nothing stays behind, it is said."""

import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from rtpose.clock import now_ns

pytestmark = [pytest.mark.hardware, pytest.mark.usefixtures("emulated_board")]

CYCLES_PER_US = 16
WATCHDOG_MS = 200
#: The emulator follows the host's clock within this; kills are stamped on the host's clock.
PACING_MS = 5

# The whole picture is the region, so the line is high as long as everything works.
RIG = """
[cameras.arena]
type = "synthetic"
width_px = 320
height_px = 240
rate_hz = 100.0

[model]
path = "demo"

[latency]
budget_ms = 1000.0
max_pose_gap_ms = 10_000.0

[outputs.board]
type = "emulated-ttl"
watchdog_ms = {watchdog_ms}
edge_log = "{edge_log}"

[outputs.board.lines.laser]
pin = 0
max_on_ms = 60_000.0

[triggers.everywhere]
type = "region"
keypoint = "tailbase"
polygon = [[-9000, -9000], [9000, -9000], [9000, 9000], [-9000, 9000]]
when = "inside"
output = "board.laser"
"""


@dataclass(frozen=True)
class Edge:
    """One edge of a line, as the emulated chip saw it."""

    host_ns: int
    cycle: int
    line: int
    level: int


def edges(log: Path) -> list[Edge]:
    """Return the whole lines of an edge log."""
    if not log.exists():
        return []
    lines = log.read_text().splitlines(keepends=True)
    return [Edge(*map(int, line.split())) for line in lines if line.endswith("\n")]


def cycle_at(reference: Edge, host_ns: int) -> int:
    """Return the board's cycle at a time of the host, by an edge that has both."""
    return reference.cycle + (host_ns - reference.host_ns) * CYCLES_PER_US // 1000


class LitRig:
    """A running rig whose laser is on."""

    def __init__(self, rig: Any) -> None:
        self.rig = rig
        self.log = rig.folder / "edges.log"
        rig.start(RIG.format(watchdog_ms=WATCHDOG_MS, edge_log=self.log), "--arm")
        self.pids: dict[str, int] = rig.manifest()["pids"]
        self.wait_for: Callable[..., Any] = rig.wait_for
        self.wait_for(lambda: edges(self.log) and edges(self.log)[-1].level, "the laser goes on")

    def wait_low(self) -> Edge:
        self.wait_for(lambda: not edges(self.log)[-1].level, "the laser goes off")
        return edges(self.log)[-1]


@pytest.fixture
def lit(rig: Any) -> LitRig:
    return LitRig(rig)


@pytest.mark.parametrize("victim", ["capture", "inference", "control"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_killed_or_stopped_while_the_laser_is_on(
    lit: LitRig, victim: str, how: signal.Signals
) -> None:
    killed_ns = now_ns()
    os.kill(lit.pids[victim], how)
    low = lit.wait_low()
    code, _, error = lit.rig.end()
    assert code == 1
    expected = "was killed by SIGKILL" if how == signal.SIGKILL else "hung"
    assert f"{victim} {expected}" in error
    assert error.count(victim) == 1, "it is said once"
    if how == signal.SIGKILL or victim == "control":
        high = edges(lit.log)[-2]
        on_for = low.cycle - cycle_at(high, killed_ns)
        assert on_for <= (WATCHDOG_MS + PACING_MS) * 1000 * CYCLES_PER_US
    assert_nothing_left(lit)


def test_the_supervisor_killed_while_the_laser_is_on(lit: LitRig) -> None:
    killed_ns = now_ns()
    lit.rig.running.kill()
    low = lit.wait_low()
    high = edges(lit.log)[-2]
    on_for = low.cycle - cycle_at(high, killed_ns)
    assert on_for <= (WATCHDOG_MS + PACING_MS) * 1000 * CYCLES_PER_US
    lit.rig.end()
    lit.wait_for(
        lambda: not any(psutil.pid_exists(pid) for pid in lit.pids.values()),
        "every process of a dead supervisor ends",
    )
    assert_nothing_left(lit)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_everybody_asked_to_end_while_the_laser_is_on(lit: LitRig, how: signal.Signals) -> None:
    os.killpg(lit.rig.running.pid, how)
    lit.wait_low()
    code, _, error = lit.rig.end()
    assert (code, error) == (0, "")
    assert lit.rig.log()[-1].detail == "outputs safe"
    assert_nothing_left(lit)


def assert_nothing_left(lit: LitRig) -> None:
    """Assert that the processes, shared memory and sockets of the rig are gone."""
    lit.wait_for(
        lambda: not any(psutil.pid_exists(pid) for pid in lit.pids.values()), "processes end"
    )
    lit.wait_for(lambda: not lit.rig.segments(), "shared memory is removed")
    lit.wait_for(
        lambda: not [c for c in psutil.process_iter(["cmdline"]) if _is_emulator(c, lit.log)],
        "the emulator ends",
    )
    for port in lit.rig.ports.values():
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("127.0.0.1", port))
            free.listen()


def _is_emulator(process: psutil.Process, log: Path) -> bool:
    return str(log) in (process.info["cmdline"] or [])
