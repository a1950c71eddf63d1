"""The examples as they stand, on real input, against what the emulated chip saw on its pins."""

from pathlib import Path
from typing import Any

import pytest

from rtpose.config import load_rig
from rtpose.messages import Ack, TriggerEvent

EXAMPLES = Path(__file__).parents[2] / "examples"
CYCLES_PER_US = 16


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.name)
def test_every_example_is_a_good_rig_file(path: Path) -> None:
    load_rig(path)


def commands_in_order(log: list[Any]) -> list[tuple[TriggerEvent, Ack]]:
    """Return every event with a command beside its acknowledgement."""
    sent = [m for m in log if isinstance(m, TriggerEvent) and m.command is not None]
    acks = [m for m in log if isinstance(m, Ack)]
    assert [m.command.command_id for m in sent if m.command] == [a.command_id for a in acks]
    assert all(ack.ok for ack in acks)
    return list(zip(sent, acks, strict=True))


def expected_edges(log: list[Any], pins: dict[str, int]) -> list[tuple[int, int, int]]:
    """Return (microseconds of the board, pin, level) that the acknowledged commands must give."""
    edges = []
    off_by_itself: dict[str, int] = {}
    for event, ack in commands_in_order(log):
        command = event.command
        assert command is not None
        assert ack.device_us is not None
        pin = pins[command.line]
        if command.action == "off":
            edges.append((min(ack.device_us, off_by_itself.pop(command.line)), pin, 0))
            continue
        edges.append((ack.device_us, pin, 1))
        end_us = ack.device_us + command.width_us
        if command.action == "pulse":
            edges.append((end_us, pin, 0))
        else:
            off_by_itself[command.line] = end_us
    return sorted(edges)


@pytest.mark.hardware
def test_mouse_video_events_match_the_edges_of_the_chip_one_to_one(
    rig: Any, data: Path, emulated_board: Path
) -> None:
    text = (EXAMPLES / "02_mouse_video_region.toml").read_text()
    log = rig.folder / "edges.log"
    for old, new in (
        ("../../shared/data", str(data)),
        ('folder = "../runs"', 'folder = "runs"'),
        ('rate = "own"', "rate = 100.0"),
        ("watchdog_ms = 100", f'watchdog_ms = 100\nedge_log = "{log}"'),
    ):
        assert old in text
        text = text.replace(old, new)
    rig.start(text, "--arm", seconds=100.0)
    code, _, error = rig.end(timeout_s=110.0)
    assert (code, error) == (0, "")
    report = rig.report()
    assert report["frames"] == 2330
    assert report["poses"] + report["dropped"] == 2330
    assert report["torn"] == 0

    expected = expected_edges(rig.log(), {"laser": 0, "sync": 1})
    # Columns: host ns, cycle of the chip, line, level.
    rows = [tuple(map(int, line.split())) for line in log.read_text().splitlines()]
    seen = [(cycle, line, level) for _, cycle, line, level in rows]
    assert [edge[1:] for edge in seen] == [edge[1:] for edge in expected]
    assert len(seen) > 20
    # The board's clock starts a little after the chip's first cycle; from then on they agree.
    start_us = seen[0][0] / CYCLES_PER_US - expected[0][0]
    for (cycle, _, _), (at_us, _, _) in zip(seen, expected, strict=True):
        assert abs(cycle / CYCLES_PER_US - start_us - at_us) < 50
