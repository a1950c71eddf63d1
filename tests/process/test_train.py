"""Labelled frames become a model that finds them, and says everything about itself."""

import csv
import json
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from rich.console import Console

from rtpose.errors import ConfigError, InputError, ModelError, RecordingError, RtposeError
from rtpose.estimator import Estimator
from rtpose.model_card import METADATA_KEY, ModelCard, golden_frames, place
from rtpose_train.dataset import load_frames, read_image, read_project
from rtpose_train.decode import decode
from rtpose_train.evaluate import evaluate, main
from rtpose_train.export import export, restore, run_onnx, run_torch
from rtpose_train.files import write_file
from rtpose_train.geometry import letterbox
from rtpose_train.settings import read_record
from rtpose_train.train import train

WIDTH, HEIGHT = 96, 64
QUIET = Console(quiet=True)
#: What a spot can be told by is its brightness: it may be turned, but not relit.
EASY: dict[str, Any] = {
    "flip": False,
    "contrast": 0.0,
    "brightness": 0.0,
    "scale": 1.1,
    "shift": 0.1,
}


def _write_project(folder: Path, frames: int) -> Path:
    """Write frames with a dark and a bright spot on noise; one label in ten is missing."""
    rng = np.random.default_rng(0)
    recording = folder / "labeled-data" / "spots"
    recording.mkdir(parents=True)
    (folder / "config.yaml").write_text(
        "Task: spots\nscorer: me\ndate: d\nbodyparts:\n- dark\n- bright\nskeleton:\n"
        "- [dark, bright]\nvideo_sets: {}\nproject_path: x\n"
    )
    rows = [["scorer"] + ["me"] * 4, ["bodyparts", "dark", "dark", "bright", "bright"]]
    rows.append(["coords", "x", "y", "x", "y"])
    columns, lines = np.arange(WIDTH), np.arange(HEIGHT)[:, None]
    for number in range(frames):
        points = rng.uniform((12, 12), (WIDTH - 13, HEIGHT - 13), (2, 2))
        while np.hypot(*(points[0] - points[1])) < 16:
            points = rng.uniform((12, 12), (WIDTH - 13, HEIGHT - 13), (2, 2))
        image = rng.normal(120, 4, (HEIGHT, WIDTH))
        for (x, y), height in zip(points, (-110, 110), strict=True):
            image += height * np.exp(-((columns - x) ** 2 + (lines - y) ** 2) / (2 * 2.5**2))
        name = f"img{number:03d}.png"
        cv2.imwrite(str(recording / name), np.clip(image, 0, 255).astype(np.uint8))
        cells = [f"{value:.3f}" for value in points.ravel()]
        if number % 10 == 9:
            cells[2:] = ["", ""]
        rows.append([f"labeled-data/spots/{name}", *cells])
    with (recording / "CollectedData_me.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """A network this small only waits for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write_project(tmp_path_factory.mktemp("data") / "spots", 40)


@pytest.fixture(scope="module")
def run(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained on the spots."""
    out = tmp_path_factory.mktemp("runs") / "spots"
    train(project, out, size=(WIDTH, HEIGHT), steps=200, seed=1, console=QUIET, **EASY)
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
    ours = run_onnx(str(model), np.stack(frames))
    theirs = run_torch(network, np.stack(frames))
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
        offline = decode(run_onnx(str(model), image)[0], live.card.maps, placement)
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
    answers = run_onnx(str(model), golden_frames(card.input, card.golden.seed, card.golden.count))
    for maps, values in zip(answers, card.golden.values, strict=True):
        found = [float(maps[cell]) for cell in card.golden.cells]
        assert found == pytest.approx(values, abs=card.golden.tolerance)


def test_the_file_holds_no_path_of_this_machine(model: Path) -> None:
    content = model.read_bytes()
    for path in (Path.cwd(), Path(torch.__file__).parent, model.parent):
        assert str(path).encode() not in content


def test_the_command_measures_and_records_the_error(
    run: Path, model: Path, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, result = tmp_path / "copy.onnx", tmp_path / "result.json"
    copy.write_bytes(model.read_bytes())
    split = ["--frames", str(run / "split.json")]
    arguments = [str(copy), str(project), *split, "--json", str(result), "--record"]
    assert main(arguments) == 0
    assert "bright" in capsys.readouterr().out
    measured = json.loads(result.read_text())
    assert measured["frames"] == 4
    assert measured["missed"] == 0
    assert measured["error_px"]["median"] < 1.0
    assert measured["keypoints"]["dark"]["p95"] <= measured["error_px"]["max"]
    metadata = {entry.key: entry.value for entry in onnx.load(copy).metadata_props}
    card = ModelCard.from_metadata(metadata, "copy")
    assert card.provenance["unseen_frames"]["error_px"] == measured["error_px"]
    validation = evaluate(copy, project, split=run / "split.json", part="validation")
    assert validation["error_px"]["mean"] == pytest.approx(read_record(run).validation_px, abs=0.05)


def test_a_seed_reproduces_a_run(project: Path, tmp_path: Path) -> None:
    states = []
    for name in ("a", "b"):
        train(
            project,
            tmp_path / name,
            size=(WIDTH, HEIGHT),
            steps=20,
            seed=7,
            checks=1,
            console=QUIET,
        )
        states.append(torch.load(tmp_path / name / "best.pt", weights_only=True))
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=1e-4, atol=1e-6)


def test_an_existing_run_folder_is_left_alone(run: Path, project: Path) -> None:
    before = (run / "best.pt").read_bytes()
    with pytest.raises(InputError, match="exists; name another folder"):
        train(project, run, size=(WIDTH, HEIGHT), steps=20, console=QUIET)
    assert (run / "best.pt").read_bytes() == before


def test_every_wrong_setting_is_reported_and_nothing_is_created(
    project: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        train(project, tmp_path / "out", batch=0, sigma=0.5, stepss=10, console=QUIET)
    assert {problem.where for problem in caught.value.problems} == {"batch", "sigma", "stepss"}
    with pytest.raises(ConfigError, match="multiples of 16"):
        train(project, tmp_path / "out", size=(100, 64), console=QUIET)
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


def test_damaged_models_and_cards_are_refused(
    model: Path, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
        (cut, "damaged"),
        (wrong, "model card is wrong: golden"),
        (bare, "no rtpose model card"),
        (tmp_path / "absent.onnx", "no such model file"),
    ):
        with pytest.raises(ModelError, match=words):
            evaluate(file, project)
        assert main([str(file), str(project)]) == 2
        assert words in " ".join(capsys.readouterr().err.split())


def test_a_model_of_other_keypoints_is_refused(model: Path, tmp_path: Path) -> None:
    other = _write_project(tmp_path / "other", 3)
    file = other / "labeled-data" / "spots" / "CollectedData_me.csv"
    file.write_text(file.read_text().replace("dark", "dim"))
    with pytest.raises(InputError, match="dim"):
        evaluate(model, other)


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
