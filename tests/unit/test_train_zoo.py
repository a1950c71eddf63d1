"""The committed models are what their cards say, and answer as the networks they came from."""

import json
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from torch import nn

from rtpose.model_card import ModelCard, golden_frames, place
from rtpose_train.dataset import load_frames, read_project
from rtpose_train.decode import decode
from rtpose_train.evaluate import evaluate
from rtpose_train.export import run_onnx, run_torch
from rtpose_train.geometry import letterbox
from rtpose_train.network import load_state
from rtpose_train.registry import build_network

ROOT = Path(__file__).parents[2]
ZOO = ROOT / "models" / "zoo"
MODELS = [*sorted(ZOO.glob("*.onnx")), ROOT / "rtpose" / "demo" / "synthetic-animal.onnx"]
MOUSE = ZOO / "openfield-mouse-mobilenetv2-0.35.onnx"


def _card(model: Path) -> ModelCard:
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return ModelCard.from_metadata(session.get_modelmeta().custom_metadata_map, str(model))


def _torch_network(model: Path) -> nn.Module:
    card = _card(model)
    network = build_network(
        card.network, len(card.keypoints().names), card.input.channels, int(card.maps.stride)
    )
    network.load_state_dict(load_state(model.with_suffix(".pt")), strict=True)
    return network.eval()


@pytest.mark.parametrize("model", MODELS, ids=lambda path: path.stem)
def test_golden_answers_hold(model: Path) -> None:
    card = _card(model)
    answers = run_onnx(str(model), golden_frames(card.input, card.golden.seed, card.golden.count))
    assert answers.shape[1:] == (len(card.keypoints().names), card.maps.height, card.maps.width)
    for maps, values in zip(answers, card.golden.values, strict=True):
        found = [float(maps[cell]) for cell in card.golden.cells]
        assert found == pytest.approx(values, abs=card.golden.tolerance)


@pytest.mark.parametrize("model", MODELS, ids=lambda path: path.stem)
def test_a_model_is_small_and_says_where_it_comes_from(model: Path) -> None:
    assert model.stat().st_size < 3_000_000
    provenance = _card(model).provenance
    assert provenance["unseen_frames"]["missed"] == 0
    assert provenance["unseen_frames"]["frames"] == provenance["labels"]["test"]
    for folder in (ROOT, Path.home(), Path(tempfile.gettempdir())):
        assert f"{folder}/".encode() not in model.read_bytes()


def test_the_mouse_model_is_as_accurate_as_a_person() -> None:
    assert _card(MOUSE).provenance["unseen_frames"]["error_px"]["mean"] <= 3.0


def test_no_frame_is_in_two_parts_of_the_mouse_split() -> None:
    split = json.loads((ZOO / "openfield-mouse-split.json").read_text())
    parts = [set(split[part]) for part in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [67, 8, 18]
    assert len(set.union(*parts)) == 93


@pytest.mark.data
def test_the_mouse_model_equals_torch_on_real_frames(data: Path) -> None:
    card, network = _card(MOUSE), _torch_network(MOUSE)
    frames, _ = load_frames(
        read_project(data / "dlc-openfield-mouse").frames,
        "gray",
        lambda pixels, _: letterbox(pixels, card.input)[0][0],
    )
    ours, theirs = run_onnx(str(MOUSE), np.stack(frames)), run_torch(network, np.stack(frames))
    assert np.abs(ours - theirs).max() <= 1e-3
    placement = place(card.input, 640, 480)
    for a, b in zip(ours, theirs, strict=True):
        found, expected = decode(a, card.maps, placement), decode(b, card.maps, placement)
        assert np.abs(found[:, :2] - expected[:, :2]).max() <= 0.05


@pytest.mark.data
def test_the_mouse_models_error_on_unseen_frames_is_the_one_in_its_card(data: Path) -> None:
    recorded = _card(MOUSE).provenance["unseen_frames"]["error_px"]
    split = ZOO / "openfield-mouse-split.json"
    measured = evaluate(MOUSE, data / "dlc-openfield-mouse", split=split)["error_px"]
    assert measured["mean"] == pytest.approx(recorded["mean"], abs=0.05)
