"""The examples as they stand, on real input, against what the emulated chip saw on its pins."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from rtpose.config import load_rig
from rtpose.messages import Ack, Pose, TriggerEvent
from rtpose.pose_log import read_poses
from rtpose_hardware.board_orders import duty_of

EXAMPLES = Path(__file__).parents[2] / "examples"
CYCLES_PER_US = 16


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.name)
def test_every_example_is_a_good_rig_file(path: Path) -> None:
    load_rig(path)


def on_the_bench(name: str, folder: Path, data: Path) -> str:
    """Return an example with its files where a test has them, and the chip's logs in a folder."""
    text = (EXAMPLES / name).read_text()
    logs = "".join(f'\n{kind}_log = "{folder / kind}s.log"' for kind in ("edge", "level"))
    for old, new in (
        ("../../shared/data", str(data)),
        ('folder = "../runs"', 'folder = "runs"'),
        # The longest: a busy machine may hold control up for a while.
        ("watchdog_ms = 100", f"watchdog_ms = 1000{logs}"),
    ):
        assert old in text
        text = text.replace(old, new)
    return text


def commands_in_order(log: list[Any]) -> list[tuple[TriggerEvent, Ack]]:
    """Return every event with a command beside its acknowledgement."""
    sent = [m for m in log if isinstance(m, TriggerEvent) and m.command is not None]
    acks = [m for m in log if isinstance(m, Ack)]
    assert [m.command.command_id for m in sent if m.command] == [a.command_id for a in acks]
    answered = list(zip(sent, acks, strict=True))
    if not acks[-1].ok:
        del answered[-1]  # a run that is ended makes safe first, and waits for no answer
    assert all(ack.ok for _, ack in answered)
    return answered


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
    text = on_the_bench("02_mouse_video_region.toml", rig.folder, data)
    assert 'rate = "own"' in text
    log = rig.folder / "edges.log"
    rig.start(text.replace('rate = "own"', "rate = 100.0"), "--arm", seconds=100.0)
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


def speeds_mm_s(poses: list[Pose], keypoint: int, px_per_mm: float) -> list[float | None]:
    """Return the speed over 100 to 200 ms, worked out from all poses before at every pose."""
    found: list[float | None] = []
    for i, pose in enumerate(poses):
        older = [
            before
            for before in poses[:i]
            if before.valid[0, keypoint] and pose.start_ns - before.start_ns >= 100_000_000
        ]
        elapsed_ns = pose.start_ns - older[-1].start_ns if older else 0
        if not pose.valid[0, keypoint] or not 0 < elapsed_ns <= 200_000_000:
            found.append(None)
            continue
        away = pose.keypoints[0, keypoint, :2].astype(float) - older[-1].keypoints[0, keypoint, :2]
        found.append(math.hypot(*away) / px_per_mm / elapsed_ns * 1e9)
    return found


@pytest.mark.hardware
def test_the_light_of_the_chip_follows_how_fast_the_mouse_runs(
    rig: Any, data: Path, emulated_board: Path
) -> None:
    rig.start(on_the_bench("06_proportional.toml", rig.folder, data), "--arm", seconds=20.0)
    code, _, error = rig.end(timeout_s=60.0)
    assert (code, error) == (0, "")
    log = rig.log()
    events = [m for m in log if isinstance(m, TriggerEvent)]
    (path,) = rig.folder.glob("runs/*/poses.bin")
    poses = [taken.pose for taken in read_poses(path)]

    # Every level is the one that the recorded poses ask for, worked out anew.
    sent = {e.frame_id: (e.kind, e.command) for e in events if e.command is not None}
    late = {e.frame_id for e in events if e.kind in ("overrun", "refused")}
    let_go_ns = [e.decide_ns for e in events if e.kind == "line-off" and e.frame_id is None]
    level, shown, told_ns = None, 0.0, 0
    levels: list[float] = []
    for pose, speed in zip(poses, speeds_mm_s(poses, 3, px_per_mm=1.2), strict=True):
        if let_go_ns and pose.publish_ns > let_go_ns[0]:
            del let_go_ns[0]
            level = None
        if speed is None:
            continue
        kind, command = sent.get(pose.frame_id, (None, None))
        wanted = min(1.0, max(0.0, (speed - 40) / 120))
        if level is None:
            if command is None:
                assert wanted < 0.05 or pose.frame_id in late or not levels
                continue
            assert kind == "fire"
            assert wanted >= 0.05
            level = shown = command.level
        else:
            reach = 4 * (pose.start_ns - told_ns) / 1e9
            level = min(max(wanted if wanted >= 0.05 else 0.0, level - reach), level + reach)
            if level < 0.05:
                assert kind == "line-off"
                level = None
            else:
                if command is not None:
                    assert kind == "level-set"
                    shown = command.level
                    assert shown == pytest.approx(level, abs=1e-6)
                assert pose.frame_id in late or abs(shown - level) < 1 / 255 + 1e-9
        told_ns = pose.start_ns
        levels.append(level or 0.0)
    assert len(levels) > 400
    assert (max(levels), min(levels)) == (1.0, 0.0)

    # And the chip gave each of them: 0 is written where it switches nothing, off or all on.
    duties = [0]
    for event, _ in commands_in_order(log):
        command = event.command
        assert command is not None
        partly = command.action == "on" and command.level < 1
        duties.append(duty_of(command.level) if partly else 0)
    changes = [after for before, after in pairwise(duties) if after != before]
    rows = [line.split() for line in (rig.folder / "levels.log").read_text().splitlines()]
    assert {line for _, _, line, _ in rows} == {"1"}
    assert [int(duty) for _, _, _, duty in rows][: len(changes)] == changes
    assert len(changes) > 100
