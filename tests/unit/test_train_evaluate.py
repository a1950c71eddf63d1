"""An evaluation measures the live estimator against the labels, and says what it left out."""

import csv
import json
import re
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from rich.console import Console

from rtpose.cameras.synthetic import SyntheticArena
from rtpose.errors import InputError, ModelError, RecordingError
from rtpose.estimator import Estimator, read_card
from rtpose.model_card import METADATA_KEY, Golden, InputSpec, MapsSpec, ModelCard
from rtpose_train.data import compression
from rtpose_train.evaluate import evaluate, record, show
from rtpose_train.evaluation import sweeps
from rtpose_train.evaluation.predict import predict

WIDTH, HEIGHT, FRAMES = 320, 240, 6
NAMES = SyntheticArena.skeleton.names
SPLIT = {"train": [0, 1], "validation": [2], "test": [3, 4, 5]}

_F64 = NDArray[np.float64]


def _name(number: int) -> str:
    return f"labeled-data/arena/img{number:03d}.png"


def _write_project(
    folder: Path,
    change: Callable[[_F64], _F64] = lambda points: points,
    names: Sequence[str] = NAMES,
    size: tuple[int, int] = (WIDTH, HEIGHT),
) -> Path:
    """Write frames of the arena; `change` makes the labels of its true keypoints."""
    arena = SyntheticArena(*size, seed=3)
    recording = folder / "labeled-data" / "arena"
    recording.mkdir(parents=True)
    points = np.stack([arena.keypoints(1000 * number) for number in range(FRAMES)])
    labels = change(points.astype(np.float64))
    rows = [
        ["scorer", *["me"] * (2 * len(names))],
        ["bodyparts", *(name for name in names for _ in "xy")],
        ["coords", *["x", "y"] * len(names)],
    ]
    pixels = np.empty(arena.shape, np.uint8)
    for number, label in enumerate(labels):
        arena.draw(1000 * number, pixels)
        cv2.imwrite(str(folder / _name(number)), pixels)
        cells = ("" if np.isnan(value) else f"{value:.4f}" for value in label.ravel())
        rows.append([_name(number), *cells])
    with (recording / "CollectedData_me.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    lines = ["Task: arena", "scorer: me", "date: d", "bodyparts:", *(f"- {n}" for n in names)]
    lines += ["skeleton: []", "video_sets: {}", "project_path: x", ""]
    (folder / "config.yaml").write_text("\n".join(lines))
    split = {part: [_name(number) for number in numbers] for part, numbers in SPLIT.items()}
    (folder / "split.json").write_text(json.dumps(split))
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write_project(tmp_path_factory.mktemp("projects") / "arena")


def _live(model: Path, project: Path) -> _F64:
    """Return what the live service finds in every frame."""
    estimator = Estimator(model, frame=(HEIGHT, WIDTH, 1))
    images = [cv2.imread(str(project / _name(n)), cv2.IMREAD_GRAYSCALE) for n in range(FRAMES)]
    answers = [estimator.estimate(np.asarray(image, np.uint8))[0] for image in images]
    return np.stack(answers).astype(np.float64)


def test_the_errors_are_those_of_the_live_estimator(demo_model: Path, project: Path) -> None:
    predictions = predict(demo_model, project)
    live = _live(demo_model, project)
    np.testing.assert_array_equal(predictions.found[0], live)
    result = evaluate(demo_model, project)
    errors = np.linalg.norm(live[..., :2] - predictions.labels, axis=-1)
    assert result["error_px"]["mean"] == pytest.approx(errors.mean(), abs=1e-3)
    assert result["error_px"]["p95"] == pytest.approx(np.percentile(errors, 95), abs=1e-3)
    low, high = result["error_px"]["mean_interval_95"]
    assert low <= result["error_px"]["mean"] <= high
    for k, name in enumerate(NAMES):
        assert result["keypoints"][name]["median"] == pytest.approx(
            np.median(errors[:, k]), abs=1e-3
        )
    assert (result["frames"], result["labels"], result["missed"]) == (6, 36, 0)
    worst = result["worst_frames"][0]
    assert worst["px"] == pytest.approx(errors.max(), abs=1e-3)
    assert worst["frame"] == _name(int(errors.max(axis=1).argmax()))
    json.dumps(result, allow_nan=False)


def test_a_split_and_its_part_choose_the_frames(demo_model: Path, project: Path) -> None:
    split = project / "split.json"
    for part, numbers in SPLIT.items():
        assert evaluate(demo_model, project, split=split, part=part)["frames"] == len(numbers)
    assert evaluate(demo_model, project, split=split)["data"]["part"] == "test"
    for file, part in ((split, "tests"), (None, "train")):
        with pytest.raises(InputError, match="allowed, with --split: train, validation, test"):
            evaluate(demo_model, project, split=file, part=part)


def test_only_common_keypoints_are_compared(demo_model: Path, tmp_path: Path) -> None:
    names = ["tailbase", "whisker", *NAMES[:2]]

    def keep(points: _F64) -> _F64:
        tailbase = points[:, NAMES.index("tailbase")]
        return np.stack([tailbase, tailbase, points[:, 0], points[:, 1]], axis=1)

    project = _write_project(tmp_path / "some", keep, names)
    result = evaluate(demo_model, project)
    assert list(result["keypoints"]) == [*NAMES[:2], "tailbase"]
    assert result["not_compared"]["project"] == ["whisker"]
    assert set(result["not_compared"]["model"]) == set(NAMES) - set(names)
    assert result["error_px"]["max"] < 10  # every name against its own labels
    with (console := Console(width=200)).capture() as shown:
        show(result, console)
    assert "only in the project: whisker" in shown.get()


def test_a_project_without_the_models_keypoints_is_refused(
    demo_model: Path, tmp_path: Path
) -> None:
    project = _write_project(tmp_path / "other", lambda p: p[:, :2], ["paw", "elbow"])
    with pytest.raises(
        InputError, match=r"no keypoint in common: labelled are paw, elbow; .*snout"
    ):
        evaluate(demo_model, project)


def test_missing_keypoints_are_told_apart_by_their_confidence(
    demo_model: Path, tmp_path: Path
) -> None:
    hidden = NAMES.index("tailtip")

    def hide(points: _F64) -> _F64:
        points[:3, hidden] = np.nan
        return points

    project = _write_project(tmp_path / "hidden", hide)
    result = evaluate(demo_model, project)
    confidence = _live(demo_model, project)[..., 2]
    seen = np.ones_like(confidence, bool)
    seen[:3, hidden] = False
    pairs = [(p > n) + 0.5 * (p == n) for p in confidence[seen] for n in confidence[~seen]]
    missing = result["confidence"]["missing"]
    assert missing["auc"] == pytest.approx(np.mean(pairs), abs=1e-4)
    assert (missing["labelled"]["count"], missing["missing"]["count"]) == (33, 3)
    assert list(missing["keypoints"]) == ["tailtip"]
    assert result["labels"] == 33
    assert sum(one["count"] for one in result["confidence"]["bins"]) == 33


def test_errors_over_a_reference_length(demo_model: Path, project: Path) -> None:
    plain = evaluate(demo_model, project)
    assert plain["reference"] is plain["pck"]["reference"] is None
    result = evaluate(demo_model, project, reference=("snout", "tailbase"))
    predictions = predict(demo_model, project)
    snout, tailbase = NAMES.index("snout"), NAMES.index("tailbase")
    lengths = np.linalg.norm(predictions.labels[:, snout] - predictions.labels[:, tailbase], axis=1)
    errors = np.linalg.norm(predictions.found[0, ..., :2] - predictions.labels, axis=-1)
    parts = errors / lengths[:, None]
    assert result["reference"]["error"]["mean"] == pytest.approx(parts.mean(), abs=1e-3)
    assert result["pck"]["reference"]["points"]["0.05"] == pytest.approx(
        (parts <= 0.05).mean(), abs=1e-4
    )
    assert result["confidence"]["within_px"] == pytest.approx(np.median(lengths) / 20, abs=1e-3)
    assert result["error_px"] == plain["error_px"]


def test_the_threshold_parts_the_labels(demo_model: Path, project: Path) -> None:
    confidence = _live(demo_model, project)[..., 2]
    at = float(np.median(confidence))
    threshold = evaluate(demo_model, project, min_confidence=at)["confidence"]["threshold"]
    assert threshold["min_confidence"] == at
    assert threshold["above"]["labels"] == (confidence >= at).sum()
    assert threshold["below"]["labels"] == (confidence < at).sum()
    card = read_card(demo_model)
    default = evaluate(demo_model, project)["confidence"]["threshold"]
    assert default["min_confidence"] == card.min_confidence


def test_oks_constants_are_those_asked_for(demo_model: Path, project: Path) -> None:
    strict = evaluate(demo_model, project)["oks"]
    assert set(strict["sigma"].values()) == {0.025}
    mild = evaluate(demo_model, project, oks_sigma=["snout=0.2", "0.1"])["oks"]
    assert mild["sigma"]["snout"] == 0.2
    assert mild["sigma"]["tailbase"] == 0.1
    assert strict["mean"] < mild["mean"] <= 1
    assert mild["ap50"] == 1.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reference": ("snout", "nose")}, "--reference: no keypoint 'nose' .*tailbase"),
        ({"reference": ("snout", "snout")}, "two different keypoints"),
        ({"oks_sigma": ["nose=0.1"]}, "--oks-sigma: no keypoint 'nose'"),
        ({"oks_sigma": ["snout=x"]}, "--oks-sigma snout=x: give NUMBER"),
        ({"oks_sigma": ["0"]}, "more than 0"),
        ({"within_px": 0.0}, "--within-px 0.0: allowed: more than 0"),
        ({"sweeps": ["rotation"]}, "'rotation'; allowed: scale, compression"),
        ({"provider": "gpu"}, "'gpu'; allowed: cpu, cuda"),
        ({"html": Path("no/such/folder/report.html")}, "no folder"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    demo_model: Path, project: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        evaluate(demo_model, project, **options)


def test_a_model_that_is_none_is_refused(project: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"not a model")
    for file in (damaged, tmp_path / "absent.onnx"):
        with pytest.raises(ModelError, match=re.escape(str(file))):
            evaluate(file, project)


def test_a_shrunk_frame_is_measured_in_px_of_the_full_one(demo_model: Path, tmp_path: Path) -> None:
    project = _write_project(tmp_path / "large", size=(640, 480))
    result = evaluate(demo_model, project, sweeps=["scale"])
    scale = result["sweeps"]["scale"]
    assert [entry["factor"] for entry in scale] == [1, 2, 4, 8]
    assert scale[0]["error_px"] == result["error_px"]
    # The input is 192x144: half of the frame holds all that the model sees of it.
    assert scale[1]["error_px"]["mean"] == pytest.approx(result["error_px"]["mean"], abs=0.3)
    assert scale[3]["error_px"]["mean"] > result["error_px"]["mean"]


def test_odd_sizes_shrink_as_a_whole() -> None:
    pixels = np.zeros((241, 319), np.uint8)
    assert sweeps.Shrink(2)(pixels).shape == (121, 160)
    assert sweeps.Shrink(8)(np.zeros((5, 5, 3), np.uint8)).shape == (1, 1, 3)


def test_compression_costs_accuracy_only_when_it_is_strong(demo_model: Path, project: Path) -> None:
    result = evaluate(demo_model, project, sweeps=["compression"])
    compressed = result["sweeps"]["compression"]
    assert [entry["crf"] for entry in compressed] == [0, 10, 20, 30, 40, 50]
    assert compressed[0]["error_px"]["mean"] == pytest.approx(result["error_px"]["mean"], abs=0.1)
    assert compressed[-1]["error_px"]["mean"] > result["error_px"]["mean"]


def _red_model(file: Path) -> Path:
    """Write a model whose map is the red of its input, red-green-blue."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["numbers"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["numbers"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Slice", ["planes", "first", "second", "axis"], ["red"]),
            helper.make_node("Div", ["red", "white"], ["maps"]),
        ],
        "red",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, HEIGHT, WIDTH, 3])],
        [helper.make_tensor_value_info("maps", TensorProto.FLOAT, [1, 1, HEIGHT, WIDTH])],
        [
            *(
                helper.make_tensor(name, TensorProto.INT64, [1], [value])
                for name, value in (("first", 0), ("second", 1), ("axis", 1))
            ),
            helper.make_tensor("white", TensorProto.FLOAT, [], [255.0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    card = ModelCard(
        name="red",
        network="none",
        skeleton={"names": ["berry"]},
        input=InputSpec(width_px=WIDTH, height_px=HEIGHT, colour="rgb"),
        maps=MapsSpec(width=WIDTH, height=HEIGHT, stride=1, sigma=3.0),
        min_confidence=0.3,
        golden=Golden(seed=1, count=1, cells=[(0, 0, 0)], values=[[0.0]]),
    )
    helper.set_model_props(model, {METADATA_KEY: card.to_metadata()})
    onnx.save(model, file)
    return file


def test_a_colour_model_gets_its_colours_in_order(tmp_path: Path) -> None:
    red, blue = np.array([60.25, 80.5]), np.array([200.0, 120.0])
    project = _write_project(
        tmp_path / "berries", lambda points: np.tile(red, (len(points), 1, 1)), ["berry"]
    )
    columns, rows = np.arange(WIDTH), np.arange(HEIGHT)[:, None]
    pixels = np.zeros((HEIGHT, WIDTH, 3))
    for channel, (x, y) in ((2, red), (0, blue)):
        pixels[..., channel] = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 18)
    for number in range(FRAMES):
        cv2.imwrite(str(project / _name(number)), pixels.round().astype(np.uint8))
    model = _red_model(tmp_path / "red.onnx")
    result = evaluate(model, project, sweeps=["scale", "compression"], html=tmp_path / "r.html")
    assert result["error_px"]["max"] < 0.1
    assert result["sweeps"]["scale"][1]["error_px"]["max"] < 0.5
    assert result["sweeps"]["compression"][0]["error_px"]["max"] < 0.5
    assert result["oks"]["mean"] is None  # one keypoint has no box


def test_a_missing_encoder_is_said_before_anything_is_run(
    demo_model: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compression, "_ENCODER", "libx2640")
    with pytest.raises(InputError, match="libx2640"):
        evaluate(demo_model, project, sweeps=["compression"])


class _Page(HTMLParser):
    """Collects what a page shows and what it would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag == "img":
            self.images.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


def _report(model: Path, project: Path, file: Path, **options: Any) -> _Page:
    evaluate(model, project, html=file, **options)
    return _Page(file.read_text())


def test_the_report_stands_alone_and_shows_everything(demo_model: Path, tmp_path: Path) -> None:
    def spoil(points: _F64) -> _F64:
        points[0, 0] += (40, 0)  # a label beside the animal
        points[1, 1] = np.nan
        return points

    project = _write_project(tmp_path / "<arena>", spoil)
    run = tmp_path / "run"
    run.mkdir()
    (run / "log.csv").write_text(
        "step,loss,validation_px,rate\n10,0.5,30,1\n20,0.1,,1\n30,0.05,3,1\n"
    )
    page = _report(
        demo_model, project, tmp_path / "r.html", run=run, sweeps=["scale"],
        reference=("snout", "tailbase"),
    )  # fmt: skip
    assert "script" not in page.tags
    assert all(link.startswith("data:image/") for link in page.links)
    assert all(image["alt"] for image in page.images)
    pictures = [image for image in page.images if "image/jpeg" in str(image["src"])]
    assert len(pictures) == 2 * FRAMES
    for words in (
        "Errors",
        "Confidence",
        "Training",
        "Robustness: scale",
        "Worst frames",
        "<arena>",
    ):
        assert words in page.text
    assert page.text.index(f"{NAMES[0]} 4") > page.text.index("Worst frames")


def test_the_report_says_where_there_is_no_training_log(
    demo_model: Path, project: Path, tmp_path: Path
) -> None:
    assert "No training log" in _report(demo_model, project, tmp_path / "r.html").text
    with pytest.raises(InputError, match=r"no log\.csv there"):
        _report(demo_model, project, tmp_path / "r.html", run=tmp_path)
    (tmp_path / "log.csv").write_text("step,loss\n1,high\n")
    with pytest.raises(InputError, match="not the log of a training"):
        _report(demo_model, project, tmp_path / "r.html", run=tmp_path)
    with pytest.raises(InputError, match="give --html too"):
        evaluate(demo_model, project, run=tmp_path)


def test_a_report_that_cannot_be_written_is_said(
    demo_model: Path, project: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecordingError, match="cannot be written"):
        _report(demo_model, project, tmp_path)


def test_the_card_keeps_the_errors_on_unseen_frames(
    demo_model: Path, project: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(demo_model.read_bytes())
    result = evaluate(copy, project)
    record(copy, result, "all six")
    kept = read_card(copy).provenance["unseen_frames"]
    assert set(kept) == {"which", "frames", "labels", "missed", "error_px", "keypoints"}
    assert kept["which"] == "all six"
    assert kept["error_px"] == result["error_px"]
    assert evaluate(copy, project)["error_px"] == result["error_px"]


def test_who_trained_on_this_project_is_told_to_give_a_split(
    demo_model: Path, tmp_path: Path
) -> None:
    trained_on = read_card(demo_model).provenance["labels"]["project"]
    project = _write_project(tmp_path / trained_on)
    assert "give --split" in " ".join(evaluate(demo_model, project)["notes"])
    assert not evaluate(demo_model, project, split=project / "split.json")["notes"]
