"""`rtpose evaluate` as a user types it."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from rtpose.cameras.synthetic import SyntheticArena

NAMES = SyntheticArena.skeleton.names


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four labelled frames of the arena."""
    folder = tmp_path_factory.mktemp("projects") / "arena"
    recording = folder / "labeled-data" / "arena"
    recording.mkdir(parents=True)
    arena = SyntheticArena(320, 240, seed=5)
    pixels = np.empty(arena.shape, np.uint8)
    rows = [
        "scorer" + ",me" * (2 * len(NAMES)),
        "bodyparts," + ",".join(name for name in NAMES for _ in "xy"),
        "coords" + ",x,y" * len(NAMES),
    ]
    for number in range(4):
        arena.draw(500 * number, pixels)
        name = f"labeled-data/arena/img{number}.png"
        cv2.imwrite(str(folder / name), pixels)
        rows.append(",".join([name, *map(str, arena.keypoints(500 * number).ravel())]))
    (recording / "CollectedData_me.csv").write_text("\n".join(rows) + "\n")
    (folder / "config.yaml").write_text(
        "Task: t\nscorer: me\ndate: d\nbodyparts:\n"
        + "".join(f"- {name}\n" for name in NAMES)
        + "skeleton: []\nvideo_sets: {}\nproject_path: x\n"
    )
    return folder


def _evaluate(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rtpose", "evaluate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_model_is_judged_and_the_report_written(
    demo_model: Path, project: Path, tmp_path: Path
) -> None:
    result, page = tmp_path / "result.json", tmp_path / "report.html"
    done = _evaluate(
        demo_model, project, "--json", result, "--html", page, "--reference", "snout", "tailbase",
        "--sweep", "scale", "--sweep", "compression", "--oks-sigma", "0.05",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for words in ("tailbase", "OKS", "sweep: compression"):
        assert words in done.stdout
    measured = json.loads(result.read_text())
    assert measured["frames"] == 4
    assert set(measured["error_px"]) >= {"mean", "median", "p95"}
    for name in NAMES:
        assert measured["keypoints"][name]["p95"] is not None
    assert set(measured["sweeps"]) == {"scale", "compression"}
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_wrong_input_is_said_in_a_sentence(demo_model: Path, project: Path) -> None:
    done = _evaluate(demo_model, project, "--reference", "snout", "nose")
    assert done.returncode == 2
    assert "no keypoint 'nose'" in done.stderr
    assert "Traceback" not in done.stderr
