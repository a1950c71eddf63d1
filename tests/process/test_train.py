"""Labelled frames become a model that finds them, and says everything about itself."""

import csv
import json
import resource
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from labelled_spots import HEIGHT, WIDTH, write_spots
from rich.console import Console
from typer.testing import CliRunner

from rtpose.cli import command_line
from rtpose.errors import ConfigError, InputError, ModelError, RecordingError, RtposeError
from rtpose.estimator import Estimator
from rtpose.model_card import METADATA_KEY, ModelCard, golden_frames, place
from rtpose_train.data.dataset import load_frames, read_image, read_project
from rtpose_train.data.geometry import letterbox
from rtpose_train.decode import decode
from rtpose_train.evaluate import evaluate, record
from rtpose_train.export import export, restore
from rtpose_train.exporting.parity import run_graph, run_network
from rtpose_train.files import write_file
from rtpose_train.train import train
from rtpose_train.training.config import EXAMPLE
from rtpose_train.training.settings import read_record

QUIET = Console(quiet=True)
#: What a spot can be told by is its brightness: it may be turned, but not relit.
EASY: dict[str, Any] = {
    "flip": "none",
    "contrast": 0.0,
    "brightness": 0.0,
    "gamma": 1.0,
    "scale": 1.1,
    "shift": 0.1,
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_spots(tmp_path_factory.mktemp("data") / "spots", 40)


@pytest.fixture(scope="module")
def run(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained on the spots."""
    out = tmp_path_factory.mktemp("runs") / "spots"
    train(
        project, out, size=(WIDTH, HEIGHT), steps=200, seed=1, checks=8, console=QUIET, augment=EASY
    )
    return out


@pytest.fixture(scope="module")
def model(run: Path) -> Path:
    return export(run, name="spots", species="none")


def test_the_error_falls_while_training(run: Path) -> None:
    with (run / "log.csv").open(newline="") as file:
        errors = [float(row["validation_px"]) for row in csv.DictReader(file)]
    record = read_record(run)
    assert record.validation_px == min(errors) < 1.0 < errors[0] / 4
    assert record.labels["train"] == 32


def test_the_exported_model_answers_as_torch_does(run: Path, model: Path, project: Path) -> None:
    record = read_record(run)
    network = restore(record, run / "best.pt")
    spec, maps_spec = record.settings.input, record.settings.maps
    frames, _ = load_frames(
        read_project(project).frames, "gray", lambda pixels, _: letterbox(pixels, spec)[0][0]
    )
    ours = run_graph(str(model), np.stack(frames))["maps"]
    theirs = run_network(network, record.layout(), np.stack(frames))["maps"]
    assert np.abs(ours - theirs).max() <= 1e-3
    placement = place(spec, WIDTH, HEIGHT)
    for a, b in zip(ours, theirs, strict=True):
        found, expected = decode(a, maps_spec, placement), decode(b, maps_spec, placement)
        sure = expected[:, 2] > 0.3
        assert np.abs(found - expected)[sure, :2].max(initial=0.0) <= 0.05


def test_evaluation_sees_what_the_live_service_sees(model: Path, project: Path) -> None:
    live = Estimator(model, frame=(HEIGHT, WIDTH, 3))
    for frame in read_project(project).frames[:5]:
        pixels = np.asarray(cv2.imread(str(frame.image)), np.uint8)
        keypoints, _ = live.estimate(pixels)
        image, placement = letterbox(read_image(frame, "gray"), live.card.input)
        offline = decode(run_graph(str(model), image)["maps"][0], live.card.maps, placement)
        np.testing.assert_allclose(offline, keypoints, atol=0.02)


def test_the_card_tells_everything_and_its_golden_answers_hold(model: Path) -> None:
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    card = ModelCard.from_metadata(session.get_modelmeta().custom_metadata_map, str(model))
    assert card.keypoints().names == ("dark", "bright")
    assert card.keypoints().edges == (("dark", "bright"),)
    assert tuple(session.get_inputs()[0].shape) == card.input.shape == (1, HEIGHT, WIDTH, 1)
    assert session.get_inputs()[0].type == "tensor(uint8)"
    assert session.get_outputs()[0].shape == [1, 2, card.maps.height, card.maps.width]
    assert card.provenance["labels"]["test"] == 4
    assert card.provenance["training"]["steps"] == 200
    frames = golden_frames(card.input, card.golden.seed, card.golden.count)
    answers = run_graph(str(model), frames)["maps"]
    for maps, values in zip(answers, card.golden.values, strict=True):
        found = [float(maps[cell]) for cell in card.golden.cells]
        assert found == pytest.approx(values, abs=card.golden.tolerance)


def test_the_file_holds_no_path_of_this_machine(model: Path) -> None:
    content = model.read_bytes()
    for path in (Path.cwd(), Path(torch.__file__).parent, model.parent):
        assert str(path).encode() not in content


def test_the_error_on_unseen_frames_is_measured_and_recorded(
    run: Path, model: Path, project: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(model.read_bytes())
    measured = evaluate(copy, project, split=run / "split.json")
    record(copy, measured, "test of split.json")
    assert measured["frames"] == 4
    assert measured["missed"] == 0
    assert measured["error_px"]["median"] < 1.0
    assert measured["keypoints"]["dark"]["p95"] <= measured["error_px"]["max"]
    metadata = {entry.key: entry.value for entry in onnx.load(copy).metadata_props}
    card = ModelCard.from_metadata(metadata, "copy")
    assert card.provenance["unseen_frames"]["error_px"] == measured["error_px"]
    validation = evaluate(copy, project, split=run / "split.json", part="validation")
    assert validation["error_px"]["mean"] == pytest.approx(read_record(run).validation_px, abs=0.05)


def test_an_existing_run_folder_is_left_alone(run: Path, project: Path) -> None:
    before = (run / "best.pt").read_bytes()
    with pytest.raises(InputError, match="exists; name another folder"):
        train(project, run, size=(WIDTH, HEIGHT), steps=20, console=QUIET)
    assert (run / "best.pt").read_bytes() == before


def test_wrong_settings_are_reported_and_nothing_is_created(project: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        train(project, tmp_path / "out", batch=0, sigma=0.5, stepss=10, console=QUIET)
    assert {problem.where for problem in caught.value.problems} == {"batch", "sigma", "stepss"}
    assert not (tmp_path / "out").exists()


def test_a_run_that_diverges_stops_and_says_what_to_change(project: Path, tmp_path: Path) -> None:
    with pytest.raises(RtposeError, match="lower the learning_rate"):
        train(
            project,
            tmp_path / "out",
            size=(WIDTH, HEIGHT),
            steps=50,
            learning_rate=1e30,
            console=QUIET,
        )


def test_a_keypoint_missing_from_the_frames_to_train_on_is_named(
    project: Path, tmp_path: Path
) -> None:
    frames = read_project(project).frames
    without = [frame.name for frame in frames if np.isnan(frame.points).any()]
    others = [frame.name for frame in frames if frame.name not in without]
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train": without, "validation": others}))
    with pytest.raises(InputError, match=r"not labelled in any of the 4 frames .* bright"):
        train(project, tmp_path / "out", size=(WIDTH, HEIGHT), split=split, console=QUIET)


@pytest.mark.parametrize(
    ("frames", "options", "words"),
    [
        (1, {}, "too few"),
        (12, {"posture_graph": True}, "names no edges"),
        (12, {"pretrained": "absent.pth"}, r"absent\.pth: no such file of weights"),
        (12, {"split_by": "video"}, "video"),
    ],
    ids=["one-label", "no-edges", "no-weights", "one-video"],
)
def test_a_project_that_cannot_be_trained_on_says_why_and_nothing_is_created(
    frames: int, options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    project = write_spots(tmp_path / "spots", frames)
    config = project / "config.yaml"
    config.write_text(config.read_text().replace("- [dark, bright]", "").replace("skeleton:\n", ""))
    with pytest.raises(InputError, match=words):
        train(project, tmp_path / "out", console=QUIET, **options)
    assert not (tmp_path / "out").exists()


def test_the_command_prints_its_settings_and_draws_its_samples(
    project: Path, tmp_path: Path
) -> None:
    printed = CliRunner().invoke(command_line(), ["train", "--print-config"])
    assert printed.exit_code == 0 and printed.output == EXAMPLE.read_text()
    picture, config = tmp_path / "samples.png", tmp_path / "train.toml"
    config.write_text(printed.output.replace("# batch = 8", "batch = 2"))
    shown = CliRunner().invoke(
        command_line(),
        ["train", str(project), "--config", str(config), "--show-augmented", str(picture)],
    )
    assert shown.exit_code == 0, shown.output
    drawn = cv2.imread(str(picture))
    assert drawn is not None and drawn.std() > 10
    assert sorted(tmp_path.iterdir()) == [picture, config]
    nothing = CliRunner().invoke(command_line(), ["train", str(project)])
    assert isinstance(nothing.exception, InputError)


def test_the_run_folder_tells_what_was_trained_and_how(run: Path) -> None:
    record = read_record(run)
    assert record.settings.augment.rotation_deg == 180 and record.settings.checks == 8
    assert record.finished and record.minutes > 0
    assert record.trained_on["padded_to"] == f"{WIDTH}x{HEIGHT}"
    with (run / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(25, 201, 25))
    rates = [float(row["learning_rate"]) for row in rows]
    assert rates == sorted(rates, reverse=True) and rates[-1] < 1e-6 < rates[0]
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert any(file.name.startswith("events.") for file in (run / "tensorboard").iterdir())


def test_damaged_models_and_cards_are_refused(model: Path, project: Path, tmp_path: Path) -> None:
    cut, bare, wrong = (tmp_path / f"{name}.onnx" for name in ("cut", "bare", "wrong"))
    cut.write_bytes(model.read_bytes()[:5000])
    graph = onnx.load(model)
    card = json.loads(graph.metadata_props[0].value)
    assert graph.metadata_props[0].key == METADATA_KEY
    onnx.helper.set_model_props(graph, {METADATA_KEY: json.dumps({**card, "golden": {}})})
    onnx.save(graph, wrong)
    onnx.helper.set_model_props(graph, {})
    onnx.save(graph, bare)
    for file, words in (
        (cut, "not a model that ONNX Runtime can run"),
        (wrong, "model card is wrong: golden"),
        (bare, "no rtpose model card"),
        (tmp_path / "absent.onnx", "no such model file"),
    ):
        with pytest.raises(ModelError, match=words):
            evaluate(file, project)


def test_export_refuses_what_is_not_a_run_and_what_exists(
    run: Path, model: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="exists"):
        export(run, model)
    with pytest.raises(InputError, match="not a run folder"):
        export(tmp_path)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "run.json").write_bytes((run / "run.json").read_bytes())
    with pytest.raises(ModelError, match=r"best\.pt"):
        export(broken)
    state = torch.load(run / "best.pt", weights_only=True)
    torch.save(
        {name: value for name, value in state.items() if "maps" not in name}, broken / "best.pt"
    )
    with pytest.raises(ModelError, match="not the weights of mobilenetv2"):
        export(broken)
    (broken / "run.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        export(broken)


def test_a_full_disk_is_said_and_leaves_no_half_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    write_file(file, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(RecordingError, match=r"weights\.pt: cannot be written"):
            write_file(file, bytes(20_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert file.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["weights.pt"]
