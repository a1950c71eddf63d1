"""What leaves the host before arming and after it, read from the wire to the emulated board."""

from pathlib import Path
from typing import Any

import pytest

from rtpose.client import Commands
from rtpose.messages import TriggerEvent
from rtpose_hardware.protocol import FrameReader, Request

DATA = Path(__file__).parents[1] / "data"

RIG = """
[cameras.arena]
type = "synthetic"
width_px = 320
height_px = 240
rate_hz = 60.0

[model]
path = "demo"

[latency]
budget_ms = 1000.0

[outputs.board]
type = "emulated-ttl"
wire_log = "{folder}/wire.log"
edge_log = "{folder}/edges.log"

[outputs.board.lines.laser]
pin = 0
max_on_ms = 60_000.0

[outputs.board.lines.valve]
pin = 1
max_on_ms = 100.0

[triggers.always]
type = "region"
keypoint = "tailbase"
polygon = [[-9000, -9000], [9000, -9000], [9000, 9000], [-9000, 9000]]
when = "inside"
output = "board.laser"

[triggers.often]
type = "eager_triggers:Fires"
output = "board.valve"
pulse_ms = 5.0
"""
#: Requests whose low 4 bits are a line.
ORDERS = {kind & 0xF0 for kind in Request if kind >= Request.OFF}


def requests(wire_log: Path) -> list[int]:
    """Return the types of all requests that reached the board, in order."""
    reader, found = FrameReader(), []
    whole, _, _ = wire_log.read_text().rpartition("\n")
    for line in whole.splitlines():
        _, _, what, *data = line.split()
        if what == "rx" and data:
            found += [payload[0] for payload in reader.feed(bytes.fromhex(data[0]))]
    assert reader.bad == 0
    return found


def orders(wire_log: Path) -> list[int]:
    return [kind for kind in requests(wire_log) if kind & 0xF0 in ORDERS]


def refused(rig: Any) -> set[str | None]:
    log = [message for message in rig.log() if isinstance(message, TriggerEvent)]
    return {event.trigger for event in log if event.kind == "refused"}


@pytest.mark.hardware
def test_no_order_leaves_the_host_before_arming_nor_after_disarming(
    rig: Any, monkeypatch: pytest.MonkeyPatch, emulated_board: Path
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(DATA))
    wire_log, edge_log = rig.folder / "wire.log", rig.folder / "edges.log"
    rig.start(RIG.format(folder=rig.folder), seconds=110.0)
    rig.manifest()
    rig.wait_for(lambda: refused(rig) == {"always", "often"}, "both triggers have decided")
    assert Request.LIMIT in requests(wire_log), "the wire is read"
    assert orders(wire_log) == []

    with Commands(f"tcp://127.0.0.1:{rig.ports['command_port']}", timeout_s=30.0) as commands:
        rig.wait_for(lambda: commands.arm().ok, "it arms")
        rig.wait_for(lambda: {0x20, 0x31} <= set(orders(wire_log)), "both lines are switched on")
        assert commands.disarm().state == "disarmed"
        rig.wait_for(lambda: requests(wire_log)[-1] == Request.BEAT, "the board beats on, disarmed")
        ordered = orders(wire_log)
        seen = len(rig.log())
        rig.wait_for(lambda: len(rig.log()) > seen + 3, "triggers decide again")
        commands.stop()
    assert rig.end()[0] == 0
    assert orders(wire_log) == ordered
    levels = {line.split()[2]: line.split()[3] for line in edge_log.read_text().splitlines()}
    assert levels["0"] == "0"
    assert set(levels.values()) == {"0"}
    kinds = [event.kind for event in rig.log() if isinstance(event, TriggerEvent)]
    assert kinds.index("armed") < kinds.index("fire") < kinds.index("disarmed")
