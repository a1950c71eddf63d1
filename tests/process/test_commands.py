"""The commands as a user types them, against a running rig."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import onnx
import pytest

from rtpose.client import Commands, EventStream, PoseStream
from rtpose.messages import Ack, TriggerEvent
from rtpose.model_card import METADATA_KEY, ModelCard
from rtpose.zoo import find_model

RIG = """
[cameras.arena]
type = "synthetic"
width_px = 384
height_px = 288
rate_hz = 60.0
seed = 1

[model]
path = "demo"

[latency]
budget_ms = 1000.0

[outputs.out]
type = "virtual"

[outputs.out.lines.light]
pin = 0
max_on_ms = 100.0

[triggers.moves]
type = "speed"
keypoint = "tailbase"
above_px_s = 1.0
window_ms = 50.0
when = "starts"
output = "out.light"
pulse_ms = 5.0
"""


def rtpose(
    *arguments: str | int | Path, cwd: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "rtpose", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=100,
    )


def kinds(rig: Any) -> list[str]:
    return [m.kind for m in rig.log() if isinstance(m, TriggerEvent)]


def test_a_rig_is_watched_armed_disarmed_and_stopped(rig: Any) -> None:
    rig.start(RIG)
    rig.manifest()
    port = ("--port", rig.ports["command_port"])

    watched = rtpose("watch", "--port", rig.ports["pose_port"], "--count", 5, "--json")
    assert watched.returncode == 0, watched.stderr
    poses = [json.loads(line) for line in watched.stdout.splitlines()]
    assert len(poses) == 5
    assert [p["frame_id"] for p in poses] == sorted({p["frame_id"] for p in poses})
    assert set(poses[-1]["keypoints"]) <= {
        "snout",
        "leftear",
        "rightear",
        "centre",
        "tailbase",
        "tailtip",
    }
    assert "tailbase" in poses[-1]["keypoints"]

    assert rig.wait_for(lambda: rtpose("arm", *port).returncode == 0, "it arms")
    rig.wait_for(lambda: "fire" in kinds(rig), "a fire")
    disarmed = rtpose("disarm", *port, "--json")
    assert json.loads(disarmed.stdout)["state"] == "disarmed"
    stopped = rtpose("stop", *port)
    assert stopped.returncode == 0, stopped.stderr
    code, _, error = rig.end()
    assert (code, error) == (0, "")
    told = kinds(rig)
    assert told.index("armed") < told.index("fire") < told.index("disarmed")
    assert told[-1] == "stopped"


def test_every_verb_steers_and_says_what_was_refused(rig: Any) -> None:
    rig.start(RIG.replace("above_px_s = 1.0", "above_px_s = 1e6"))
    rig.manifest()
    port = ("--port", rig.ports["command_port"], "--timeout-s", 30)

    def done(*words: str | float) -> str:
        answer = rtpose(*map(str, words), *port)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    def refused(*words: str | float) -> str:
        answer = rtpose(*map(str, words), *port)
        assert answer.returncode == 1, answer.stdout
        return answer.stderr

    assert "not armed" in refused("fire", "out.light", 5)
    assert "trials begin with arming" in refused("trial")
    assert rig.wait_for(lambda: rtpose("arm", *port).returncode == 0, "it arms")
    assert "the rig is armed" in done("status")
    done("fire", "out.light", 5)
    assert "above max_on_ms = 100" in refused("fire", "out.light", 101)
    assert "no line 'out.dark' (lines: out.light)" in refused("fire", "out.dark", 5)
    done("end-trial")
    done("trial")
    done("set", "moves", "above_px_s", "500.0")
    assert "unknown key; allowed: " in refused("set", "moves", "above_px", "500.0")
    assert "got -1.0" in refused("set", "moves", "above_px_s", "-1.0")
    assert "rtpose release" in done("estop")
    assert "the rig is stopped" in done("status")
    assert "release it first" in refused("arm")
    done("release")
    answer = json.loads(rtpose("status", *port, "--json").stdout)
    assert (answer["ok"], answer["state"]) == (True, "disarmed")
    done("stop")
    assert rig.end()[0] == 0
    told = [m for m in rig.log() if isinstance(m, TriggerEvent)]
    kept = [m.kind for m in told if m.asked and m.kind != "refused"]
    assert kept == [
        *("armed", "fire", "trial-ended", "trial-started", "parameter-set"),
        *("estop", "released", "disarmed"),
    ]
    (changed,) = [m.detail for m in told if m.kind == "parameter-set"]
    assert changed == "triggers.moves.above_px_s: 1000000.0 -> 500.0"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("enter", "text needs quotes"),
        ("1\nother = 2", "more than one value"),
        ("nan", "does not exist in both encodings"),
        ("2024-01-01", "does not exist in both encodings"),
    ],
)
def test_a_value_that_is_none_is_said_before_anything_is_sent(value: str, words: str) -> None:
    answer = rtpose("set", "zone", "when", value, "--port", 9)
    assert answer.returncode == 2
    assert words in " ".join(answer.stderr.split())


def test_the_event_stream_tells_what_the_rig_does(rig: Any) -> None:
    rig.start(RIG)
    rig.manifest()
    ports = rig.ports
    with (
        EventStream(f"tcp://127.0.0.1:{ports['event_port']}") as stream,
        Commands(f"tcp://127.0.0.1:{ports['command_port']}") as commands,
    ):
        rig.wait_for(lambda: stream.receive(0.1), "it says something")
        rig.wait_for(lambda: commands.arm().ok, "it arms")
        seen: list[Any] = []

        def take() -> bool:
            message = stream.receive(0.1)
            seen.append(message)
            return isinstance(message, Ack)

        rig.wait_for(take, "an answer of the output")
        assert commands.stop().ok
    assert rig.end()[0] == 0
    events = [m for m in seen if isinstance(m, TriggerEvent)]
    kinds = [m.kind for m in events]
    assert kinds.index("armed") < kinds.index("trial-started") < kinds.index("fire")
    fired = next(m for m in events if m.kind == "fire")
    assert fired.command is not None
    assert fired.command.command_id == seen[-1].command_id
    assert stream.run == fired.run
    assert (stream.lost, stream.malformed) == (0, 0)


def test_a_program_follows_the_stream_by_name(rig: Any) -> None:
    rig.start(RIG)
    rig.manifest()
    with PoseStream(f"tcp://127.0.0.1:{rig.ports['pose_port']}") as stream:
        first = stream.receive(timeout_s=20)
        second = stream.receive(timeout_s=20)
    assert first is not None
    assert second is not None
    assert second.pose.seq == first.pose.seq + 1
    assert 0 < second["snout"].x_px < 384
    rtpose("stop", "--port", rig.ports["command_port"])
    assert rig.end()[0] == 0


def test_arming_too_early_is_refused_with_the_reasons(rig: Any) -> None:
    rig.start(
        RIG.replace("rate_hz = 60.0", "rate_hz = 60.0\nfreeze_after = 0\nmax_silence_ms = 600000.0")
    )
    rig.manifest()
    refused = rtpose("arm", "--port", rig.ports["command_port"])
    assert refused.returncode == 1
    assert "no pose within budget_ms" in refused.stderr
    assert "0 of 60 frames/s" in refused.stderr
    rtpose("stop", "--port", rig.ports["command_port"])
    assert rig.end()[0] == 0


@pytest.mark.parametrize("verb", ["arm", "disarm", "stop", "watch", "estop", "release", "trial"])
def test_without_a_rig_every_verb_says_so(verb: str) -> None:
    answer = rtpose(verb, "--port", 9)
    assert answer.returncode == 1
    assert "is the rig running" in answer.stderr


def test_the_demo_reports_saves_and_pictures(tmp_path: Path) -> None:
    demo = rtpose(
        "demo",
        "--seconds",
        6,
        "--json",
        "o.json",
        "--save",
        "o.mp4",
        "--snapshot",
        "o.png",
        cwd=tmp_path,
    )
    assert demo.returncode == 0, demo.stderr
    report = json.loads((tmp_path / "o.json").read_text())
    wanted = {"frames", "poses", "dropped", "torn", "events", "acks", "overruns", "budget_ms"}
    assert wanted <= set(report)
    assert report["frames"] > 0
    assert report["torn"] == 0
    assert report["poses"] + report["dropped"] >= report["frames"] - 1
    for stage in ("infer", "arrival_to_publish"):
        row = report["latency_us"][stage]
        assert 0 < row["p50"] <= row["p95"] <= row["p99"] <= row["p99.9"] <= row["max"]
    assert report["error_px"]["mean"] < 3.0  # the bundled model knows its animal
    picture = cv2.imread(str(tmp_path / "o.png"))
    assert picture is not None
    assert picture.shape == (288, 384, 3)
    video = cv2.VideoCapture(str(tmp_path / "o.mp4"))
    frames = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    video.release()
    assert 0 < frames <= report["frames"]


def test_a_report_that_cannot_be_written_is_said_before_the_run(tmp_path: Path) -> None:
    for option in ("--json", "--save", "--snapshot"):
        refused = rtpose("demo", option, "nowhere/o.mp4", cwd=tmp_path)
        assert refused.returncode == 2
        assert "cannot write nowhere/o.mp4: there is no folder nowhere" in refused.stderr
    assert not (tmp_path / "runs").exists()


def test_models_can_be_read_on_a_screen_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = rtpose("list", "models").stdout
    assert "…" not in shown
    assert "openfield-mouse-mobilenetv2-0.35" in shown


def test_a_path_is_not_broken_by_a_narrow_screen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    path = tmp_path / "rig.toml"
    path.write_text(RIG)
    assert f"{path}: good" in rtpose("check", path).stdout


def test_plugins_are_listed_for_people_and_programs() -> None:
    assert "synthetic" in rtpose("list", "cameras").stdout
    listed = json.loads(rtpose("list", "--json").stdout)
    assert listed["outputs"]["ttl"] == "rtpose_hardware.ttl:TtlOutput"
    assert rtpose("list", "spoons").returncode == 2


def test_check_runs_the_golden_frames(tmp_path: Path) -> None:
    rig = tmp_path / "rig.toml"
    rig.write_text(RIG)
    good = rtpose("check", str(rig))
    assert good.returncode == 0, good.stderr
    assert "golden frames on cpu" in good.stdout

    graph = onnx.load(find_model("demo", tmp_path))
    card = ModelCard.from_metadata({p.key: p.value for p in graph.metadata_props}, "demo")
    values = [[value + 0.5 for value in frame] for frame in card.golden.values]
    golden = card.golden.model_copy(update={"values": values})
    wrong = card.model_copy(update={"golden": golden})
    onnx.helper.set_model_props(graph, {METADATA_KEY: wrong.to_metadata()})
    onnx.save(graph, tmp_path / "wrong.onnx")
    rig.write_text(RIG.replace('path = "demo"', 'path = "wrong.onnx"'))
    bad = rtpose("check", str(rig))
    assert bad.returncode == 2
    assert "answers otherwise than the model did when it was exported" in " ".join(
        bad.stderr.split()
    )
