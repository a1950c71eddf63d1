"""Every network trains from a random start, is exported, and runs in the live service."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from labelled_spots import HEIGHT, WIDTH, write_spots
from rich.console import Console

from rtpose.errors import InputError
from rtpose.estimator import Estimator
from rtpose_train.export import export
from rtpose_train.train import train
from rtpose_train.training.settings import read_record

QUIET = Console(quiet=True)
#: A bright spot is told from a dark one by its light, and no picture this small bears more.
EASY: dict[str, Any] = {
    "flip": "none",
    "contrast": 0.0,
    "brightness": 0.0,
    "gamma": 1.0,
    "noise": 0.0,
    "blur_fraction": 0.0,
    "motion_fraction": 0.0,
    "erase_fraction": 0.0,
    "jpeg_fraction": 0.0,
    "h264_fraction": 0.0,
}
#: Each network as small and as coarse as shows the same; most at a size that they must pad.
NETWORKS: list[tuple[str, dict[str, Any]]] = [
    ("mobilenetv2-0.35-tf", {"size": (70, 51), "colour": "bgr"}),
    ("mobilenetv2-0.1", {"size": (70, 51), "location_refinement": True, "posture_graph": True}),
    ("stacked-densenet-8x2", {"size": (80, 48), "posture_graph": True}),
    ("leap", {"size": (33, 25)}),
    ("hourglass-4x2", {"stride": 16, "location_refinement": True}),
    ("resnet50", {"size": (32, 32), "batch": 1}),
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_spots(tmp_path_factory.mktemp("data") / "spots", 12)


@pytest.fixture(scope="module", params=NETWORKS, ids=lambda given: given[0])
def trained(
    request: pytest.FixtureRequest, project: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run folder after a few steps, with the exported model in it.

    Export refuses a graph that answers otherwise than torch.
    """
    model, options = request.param
    run = tmp_path_factory.mktemp("runs") / "run"
    options = {"size": (64, 64), "steps": 20, "checks": 2, "batch": 2, **options}
    train(project, run, model=model, tensorboard=False, console=QUIET, **options)
    export(run, run / "model.onnx")
    return run


def test_a_network_trains_from_a_random_start_and_estimates_when_exported(trained: Path) -> None:
    record = read_record(trained)
    assert record.start_weights == "random"
    live = Estimator(trained / "model.onnx", frame=(HEIGHT, WIDTH, 3))
    assert live.card.network == record.settings.model
    assert live.card.maps == record.settings.maps
    assert live.card.input == record.settings.input
    keypoints, _ = live.estimate(np.full((HEIGHT, WIDTH, 3), 120, np.uint8))
    assert keypoints.shape == (2, 3)


def test_an_exported_model_draws_what_the_live_service_reads_and_no_more(trained: Path) -> None:
    record = read_record(trained)
    outputs = onnx.load(trained / "model.onnx").graph.output
    shapes = {
        output.name: [size.dim_value for size in output.type.tensor_type.shape.dim]
        for output in outputs
    }
    rows, columns = record.settings.maps.height, record.settings.maps.width
    expected = {"maps": [1, 2, rows, columns]}
    if record.settings.location_refinement:
        expected["offsets"] = [1, 4, rows, columns]
    assert shapes == expected


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("stacked-densenet-16x2", {"posture_graph": True}),
        ("mobilenetv2-0.35", {"location_refinement": True, "stride": 8, "steps": 200}),
    ],
    ids=["two-networks-with-posture-graph", "location-refinement"],
)
def test_every_head_learns(
    project: Path, tmp_path: Path, model: str, options: dict[str, Any]
) -> None:
    run = tmp_path / "run"
    given: dict[str, Any] = {"steps": 120, "batch": 4, "checks": 3, "augment": EASY, **options}
    record = train(
        project, run, size=(64, 48), model=model, tensorboard=False, console=QUIET, **given
    )
    with (run / "log.csv").open(newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < 0.7 * losses[0]
    # One place for all frames would be 30 px off.
    assert record.validation_px is not None and record.validation_px < 10.0


def test_a_stride_that_a_network_lacks_is_refused_before_anything_is_created(
    project: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="map stride 4 px with leap; allowed: 1"):
        train(project, tmp_path / "run", size=(64, 64), model="leap", stride=4, console=QUIET)
    with pytest.raises(InputError, match="no network 'lep'"):
        train(project, tmp_path / "run", size=(64, 64), model="lep", console=QUIET)
    assert not (tmp_path / "run").exists()
