"""A whole rig runs, a client asks for this and that, and the record gives the same events again."""

import json
import random
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rtpose.bus import Requester
from rtpose.client import PoseStream
from rtpose.messages import Reply, Request, TriggerEvent, decode, encode_json

RIG = """
[cameras.arena]
type = "synthetic"
width_px = 384
height_px = 288
rate_hz = 100.0
seed = 3

[model]
path = "demo"

[latency]
budget_ms = 1000.0
max_pose_gap_ms = 2000.0

[experiment]
trial_s = 0.4
inter_trial_s = [0.05, 0.15]
catch_probability = 0.3

[outputs.out]
type = "{output}"
watchdog_ms = 1000

[outputs.out.lines.light]
pin = 0
max_on_ms = 60.0
dose_ms = 800.0

[outputs.out.lines.valve]
pin = 1
max_on_ms = 30.0
refractory_ms = 20.0

[triggers.runs]
type = "speed"
keypoint = "snout"
above_px_s = 40.0
window_ms = 20.0
when = "while"
probability = 0.8
output = "out.light"

[triggers.turns]
type = "speed"
keypoint = "tailtip"
above_px_s = 60.0
window_ms = 20.0
when = "starts"
pulse_ms = 5.0
output = "out.valve"

[triggers.ahead]
type = "speed"
keypoint = "snout"
above_px_s = 40.0
window_ms = 50.0
when = "starts"
pulse_ms = 3.0
forecast = true
sham = true
output = "out.valve"
"""

README = Path(__file__).parents[2] / "README.md"
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)

REQUESTS: tuple[dict[str, Any], ...] = (
    {"action": "fire", "line": "out.valve", "width_ms": 2.0},
    {"action": "fire", "line": "out.light", "width_ms": 59.0},
    {"action": "fire", "line": "out.nothing", "width_ms": 2.0},
    {"action": "set", "trigger": "runs", "key": "dwell_ms", "value": 15.0},
    {"action": "set", "trigger": "runs", "key": "dwell_ms", "value": 0.0},
    {"action": "set", "trigger": "turns", "key": "above_px_s", "value": 50.0},
    {"action": "set", "trigger": "turns", "key": "nonsense", "value": 1},
    {"action": "trial"},
    {"action": "end-trial"},
    {"action": "disarm"},
    {"action": "estop"},
    {"action": "status"},
)


def rtpose(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "rtpose", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=100,
    )


def steer(rig: Any, seed: int) -> None:
    """Ask a running rig for this and that, a few poses apart, and for its end."""
    draws = random.Random(seed)
    requester = Requester(f"tcp://127.0.0.1:{rig.ports['command_port']}")
    stream = PoseStream(f"tcp://127.0.0.1:{rig.ports['pose_port']}")

    def ask(**fields: Any) -> Reply:
        return requester.ask(Request.model_validate(fields), 20.0)

    with requester, stream:
        rig.wait_for(lambda: ask(action="arm").ok, "it arms")
        for _ in range(40):
            for _ in range(draws.randrange(1, 25)):
                assert stream.receive(timeout_s=20) is not None
            ask(**draws.choice(REQUESTS))
            if ask(action="status").state != "armed" and draws.random() < 0.7:
                ask(action="release")
                ask(action="arm")
        ask(action="stop")
    code, _, error = rig.end()
    assert (code, error) == (0, "")


def run_folder(rig: Any) -> Path:
    (folder,) = rig.folder.glob("runs/*")
    return Path(folder)


def rewrite(log: Path, lines: Sequence[Any]) -> None:
    log.write_bytes(b"".join(encode_json(line) + b"\n" for line in lines))


@pytest.mark.hardware
def test_a_run_on_the_board_is_replayed(rig: Any, emulated_board: Path) -> None:
    assert emulated_board.is_file()
    rehearse(rig, "emulated-ttl")


def test_a_run_is_replayed_compared_and_tried_with_another_rig(rig: Any) -> None:
    rehearse(rig, "virtual")


def rehearse(rig: Any, output: str) -> None:
    rig.start(RIG.format(output=output))
    rig.manifest()
    steer(rig, seed=len(output))
    folder, report = run_folder(rig), rig.folder / "replay.json"

    same = rtpose("replay", folder, "--json", report)
    assert (same.returncode, same.stderr) == (0, "")
    told = json.loads(report.read_text())
    events = [m for m in rig.log() if isinstance(m, TriggerEvent)]
    assert f"{len(events)} events identical, over {told['poses']} poses" in same.stdout
    assert (told["identical"], told["events"], told["differences"]) == (True, len(events), [])
    assert (
        told["poses"]
        == json.loads((folder / "manifest.json").read_text())["counters"]["control"]["poses"]
    )
    assert {"fire", "withheld", "trial-ended", "line-off"} <= {event.kind for event in events}

    (snippet,) = [code for code in CODE.findall(README.read_text()) if "read_run(" in code]
    asked = subprocess.run(
        [sys.executable, "-c", snippet.replace("runs/RUN", str(folder))],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (asked.returncode, asked.stderr) == (0, "")
    assert asked.stdout.splitlines()[0].endswith(" px/s")

    text = (rig.folder / "rig.toml").read_text()
    other = rig.folder / "other.toml"
    other.write_text(text.replace("above_px_s = 40.0", "above_px_s = 1e6", 1))
    changed = rtpose("replay", folder, "--rig", other, "--json", report)
    assert (changed.returncode, changed.stderr) == (0, "")
    rows = {
        (row["trigger"], row["kind"]): row for row in json.loads(report.read_text())["triggers"]
    }
    runs = rows["runs", "fire"]
    assert runs["recorded"] > runs["replayed"]
    assert runs["only_recorded"]
    # Nobody changed this one: it decides as often, whatever came of it.
    turns = [row for row in rows.values() if row["trigger"] == "turns"]
    assert sum(row["recorded"] for row in turns) == sum(row["replayed"] for row in turns) > 0

    log = folder / "events.jsonl"
    lines = [decode(line) for line in log.read_bytes().splitlines()]
    fire = next(m for m in lines if isinstance(m, TriggerEvent) and m.kind == "fire" and m.trigger)
    rewrite(log, [line for line in lines if line is not fire])
    doctored = rtpose("replay", folder, "--json", report)
    assert doctored.returncode == 1
    assert "NOT identical" in doctored.stdout
    difference = json.loads(report.read_text())["differences"][0]
    assert difference["record"] is None
    assert difference["replay"]["frame_id"] == fire.frame_id


def test_what_is_no_run_is_said_in_words(tmp_path: Path) -> None:
    answer = rtpose("replay", tmp_path)
    assert answer.returncode == 2
    assert "give the folder of one run" in answer.stderr
