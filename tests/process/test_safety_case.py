"""Rows of the safety case (hardware/README.md) without another test: on the wire and the pins."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from chip_log import CYCLES_PER_MS, Edge, Frame, read_edges, read_wire

from rtpose.bus import Requester
from rtpose.messages import Reply, Request, TriggerEvent

pytestmark = [pytest.mark.hardware, pytest.mark.usefixtures("emulated_board")]

DATA = Path(__file__).parents[1] / "data"

RIG = """
[cameras.arena]
type = "synthetic"
width_px = 320
height_px = 240
rate_hz = 100.0
frames = {frames}

[model]
path = "demo"

[latency]
budget_ms = 1000.0

[outputs.board]
type = "emulated-ttl"
watchdog_ms = 1000
ack_timeout_ms = 5000
edge_log = "{edges}"
wire_log = "{wire}"

[outputs.board.lines.laser]
pin = 0
max_on_ms = 100.0
{limits}

[triggers.tick]
type = "fault_plugins:Blink"
on = {on}
off = {off}
output = "board.laser"
{trigger}
"""


class Board:
    """A rig with an emulated board whose laser blinks as soon as it may."""

    def __init__(self, rig: Any) -> None:
        self._rig = rig
        self._edges, self._wire = rig.folder / "edges.log", rig.folder / "wire.log"

    def start(
        self,
        *options: str,
        frames: int = 0,
        on: int = 4,
        off: int = 4,
        limits: str = "",
        trigger: str = "",
    ) -> None:
        text = RIG.format(
            frames=frames,
            edges=self._edges,
            wire=self._wire,
            on=on,
            off=off,
            limits=limits,
            trigger=trigger,
        )
        self._rig.start(text, *options)
        self._rig.manifest()

    def edges(self) -> list[Edge]:
        return read_edges(self._edges)

    def switched(self) -> list[Frame]:
        """Return every order to switch a line on that left the host."""
        return [f for f in read_wire(self._wire)[0] if f.action in ("on", "pulse")]

    def ask(self, action: Literal["status", "arm", "estop", "release", "stop"]) -> Reply:
        with Requester(f"tcp://127.0.0.1:{self._rig.ports['command_port']}") as requester:
            return requester.ask(Request(action=action), timeout_s=10.0)

    def wait_for(self, condition: Callable[[], Any], what: str) -> None:
        self._rig.wait_for(condition, what)

    def wait_for_a_rise(self) -> None:
        before = len(self.edges())
        self.wait_for(lambda: any(e.level for e in self.edges()[before:]), "the laser goes on")

    def refusals(self) -> int:
        log = self._rig.log()
        return sum(isinstance(m, TriggerEvent) and m.kind == "refused" for m in log)

    def end(self) -> None:
        code, _, error = self._rig.end()
        assert (code, error) == (0, "")


@pytest.fixture
def board(rig: Any, monkeypatch: pytest.MonkeyPatch) -> Board:
    monkeypatch.setenv("PYTHONPATH", str(DATA))
    return Board(rig)


def test_an_emergency_stop_holds_until_it_is_released(board: Board) -> None:
    board.start("--arm")
    board.wait_for_a_rise()
    assert board.ask("estop").state == "stopped"
    # The answer came after the board had confirmed that its lines are low.
    stopped, sent = board.edges(), len(board.switched())
    assert stopped[-1].level == 0
    reply = board.ask("arm")
    assert not reply.ok
    assert any("emergency stop" in reason for reason in reply.reasons)
    before = board.refusals()
    board.wait_for(lambda: board.refusals() >= before + 5, "the trigger wants to")
    assert (board.edges(), len(board.switched())) == (stopped, sent)
    assert board.ask("release").ok
    assert board.ask("arm").ok
    board.wait_for_a_rise()
    board.ask("stop")
    board.end()


@pytest.mark.parametrize(
    ("off", "trigger"), [(4, ""), (0, "pulse_ms = 15.0")], ids=["levels", "pulses"]
)
def test_no_window_holds_more_than_the_dose(board: Board, off: int, trigger: str) -> None:
    """In the chip's own cycles, whatever the trigger asks for."""
    dose_ms, window_ms = 60.0, 500.0
    limits = f"dose_ms = {dose_ms}\ndose_window_s = {window_ms / 1000}"
    board.start("--arm", on=3, off=off, limits=limits, trigger=trigger)
    board.wait_for(lambda: len(board.edges()) > 40, "the laser was on twenty times")
    board.ask("stop")
    board.end()
    edges = board.edges()
    highs = [(a.cycle, b.cycle) for a, b in zip(edges[::2], edges[1::2], strict=False)]
    # The host keeps it on its own clock and hears of edges late, so that a window of its clock may
    # be a little shorter, and a level a little longer, on the chip's.
    length = round(0.9 * window_ms * CYCLES_PER_MS)
    worst = max(
        sum(max(0, min(fall, end) - max(rise, end - length)) for rise, fall in highs)
        for _, end in highs
    )
    assert worst <= 1.1 * dose_ms * CYCLES_PER_MS
    assert worst > 0.5 * dose_ms * CYCLES_PER_MS, "the dose was not reached"
