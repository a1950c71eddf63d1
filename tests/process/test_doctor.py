"""`rtpose doctor` as a user runs it, and what it tries in processes of its own."""

import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest

from rtpose.doctor import cameras
from rtpose.doctor.trial import Trial


def _doctor(folder: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "rtpose", "doctor", *options],
        cwd=folder,
        env={**os.environ, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_it_looks_at_everything_and_its_exit_code_counts_the_problems(tmp_path: Path) -> None:
    run = _doctor(tmp_path, "--json")
    report = json.loads(run.stdout)
    grades = [finding["grade"] for finding in report["findings"]]
    assert report["problems"] == grades.count("problem")
    assert run.returncode == (1 if report["problems"] else 0), run.stderr
    topics = {finding["topic"] for finding in report["findings"]}
    assert topics >= {"versions", "model on cpu", "real time", "cores", "stream", "disk"}
    assert topics >= {"model on cuda", "clock", "flashing"}
    by_topic = {finding["topic"]: finding for finding in report["findings"]}
    assert by_topic["model on cpu"]["facts"]["median_ms"] > 0
    assert by_topic["disk"]["facts"]["folder"] == str(tmp_path / "runs")


def test_a_problem_ends_with_1_and_the_page_fits_a_screen(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()  # a file, in which no run can be recorded
    run = _doctor(tmp_path)
    assert run.returncode == 1, run.stdout + run.stderr
    lines = run.stdout.splitlines()
    (problem,) = (line for line in lines if line.startswith("problem"))
    assert "disk" in problem
    assert "choose another [recording] folder" in " ".join(run.stdout.split())
    assert len(lines) <= 40


def test_what_hangs_is_ended_and_said() -> None:
    with closing(Trial("realtime", patience_s=0.2)) as trial:
        os.kill(trial.pid, signal.SIGSTOP)
        assert "it hangs: no answer within 0.2 s" in trial.result()["error"]
        with pytest.raises(ProcessLookupError):
            os.kill(trial.pid, 0)


def test_what_crashes_is_said() -> None:
    with closing(Trial("realtime")) as trial:
        os.kill(trial.pid, signal.SIGSEGV)
        assert "it crashed (exit code -11)" in trial.result()["error"]


def test_a_camera_is_opened_as_a_rig_opens_it(tmp_path: Path) -> None:
    for number in range(5):
        assert cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros((24, 32), np.uint8))
    settings = {"device": str(tmp_path / "%d.png"), "backend": "images"}
    with closing(Trial("camera", json.dumps(settings))) as trial:
        found = trial.result()
    assert (found["width_px"], found["height_px"]) == (32, 24)
    assert found["measured_hz"] > 0


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not list cameras")
def test_only_the_nodes_with_pictures_are_opened(tmp_path: Path) -> None:
    for node, index in (("video240", 0), ("video241", 1)):  # no machine has so many
        folder = tmp_path / node
        folder.mkdir()
        (folder / "index").write_text(f"{index}\n")
        (folder / "name").write_text("Face Cam\n")
    with closing(cameras.try_cameras(tmp_path)) as trials:
        (found,) = trials.findings()
    assert (found.topic, found.grade) == ("camera 240", "warning")
    assert found.found.startswith("Face Cam: camera 240: cannot be opened")
