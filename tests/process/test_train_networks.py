"""Every network trains from a random start, is exported, and runs in the live service."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console

from rtpose.errors import InputError
from rtpose.estimator import Estimator
from rtpose_train.export import export
from rtpose_train.settings import read_record
from rtpose_train.train import train

SIDE = 64
QUIET = Console(quiet=True)
#: Each network as small and as coarse as shows the same; one at a size that it must pad.
NETWORKS: list[tuple[str, dict[str, Any]]] = [
    ("mobilenetv2-0.35-tf", {}),
    ("stacked-densenet-16x2", {"size": (SIDE + 16, SIDE + 48)}),
    ("leap", {}),
    ("hourglass-16x2", {"stride": 8}),
    ("resnet50", {}),
]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks on pictures this small only wait for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few frames of a dark spot on noise."""
    folder = tmp_path_factory.mktemp("data") / "spot"
    recording = folder / "labeled-data" / "spot"
    recording.mkdir(parents=True)
    (folder / "config.yaml").write_text(
        "Task: spot\nscorer: me\ndate: d\nbodyparts:\n- spot\nskeleton: []\nvideo_sets: {}\n"
        "project_path: x\n"
    )
    rng = np.random.default_rng(0)
    rows = [["scorer", "me", "me"], ["bodyparts", "spot", "spot"], ["coords", "x", "y"]]
    columns, lines = np.arange(SIDE), np.arange(SIDE)[:, None]
    for number in range(12):
        x, y = rng.uniform(12, SIDE - 13, 2)
        image = rng.normal(120, 4, (SIDE, SIDE))
        image -= 100 * np.exp(-((columns - x) ** 2 + (lines - y) ** 2) / (2 * 3.0**2))
        name = f"img{number:03d}.png"
        cv2.imwrite(str(recording / name), np.clip(image, 0, 255).astype(np.uint8))
        rows.append([f"labeled-data/spot/{name}", f"{x:.3f}", f"{y:.3f}"])
    with (recording / "CollectedData_me.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


@pytest.fixture(scope="module", params=NETWORKS, ids=lambda given: given[0])
def trained(
    request: pytest.FixtureRequest, project: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run folder after a few steps, with the exported model in it.

    Export refuses a graph that answers otherwise than torch.
    """
    model, options = request.param
    run = tmp_path_factory.mktemp("runs") / "run"
    options = {"size": (SIDE, SIDE), "steps": 20, "checks": 2, "batch": 2, **options}
    train(project, run, model=model, console=QUIET, **options)
    export(run, run / "model.onnx")
    return run


def test_a_network_trains_from_a_random_start_and_estimates_when_exported(trained: Path) -> None:
    record = read_record(trained)
    assert record.start_weights == "random"
    live = Estimator(trained / "model.onnx", frame=(SIDE, SIDE, 3))
    assert live.card.network == record.settings.model
    assert live.card.maps == record.settings.maps
    keypoints, _ = live.estimate(np.full((SIDE, SIDE, 3), 120, np.uint8))
    assert keypoints.shape == (1, 3)


def test_a_network_with_two_heads_learns(project: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    light = {"contrast": 0.0, "brightness": 0.0, "noise": 0.0}
    options: dict[str, Any] = {"steps": 120, "batch": 4, "checks": 6, **light}
    record = train(
        project, run, size=(SIDE, SIDE), model="stacked-densenet-16x2", console=QUIET, **options
    )
    with (run / "log.csv").open(newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < losses[0] / 3
    assert record.validation_px is not None and record.validation_px < 2.0


def test_a_stride_that_a_network_lacks_is_refused_before_anything_is_created(
    project: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="map stride 4 px with leap; allowed: 1"):
        train(project, tmp_path / "run", size=(SIDE, SIDE), model="leap", stride=4, console=QUIET)
    with pytest.raises(InputError, match="no network 'lep'"):
        train(project, tmp_path / "run", size=(SIDE, SIDE), model="lep", console=QUIET)
    assert not (tmp_path / "run").exists()
