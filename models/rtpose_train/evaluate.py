"""Evaluation: how far an exported model is off, in px of the full frames.

``python -m rtpose_train.evaluate MODEL.onnx PROJECT --frames split.json``
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state
from rich.console import Console
from rich.table import Table

from rtpose.errors import InputError, ModelError, RtposeError
from rtpose.model_card import ModelCard
from rtpose_train.dataset import load_frames, read_project
from rtpose_train.decode import decode, errors_px
from rtpose_train.export import INPUT_NAME, OUTPUT_NAME, write_model
from rtpose_train.files import write_file
from rtpose_train.geometry import letterbox
from rtpose_train.split import read_split, select

#: ONNX Runtime's exceptions have no common base but Exception.
_LOAD_ERRORS = (
    ort_state.Fail,
    ort_state.InvalidArgument,
    ort_state.InvalidGraph,
    ort_state.InvalidProtobuf,
    ort_state.NotImplemented,
    ort_state.RuntimeException,
)


def evaluate(
    model: Path, project: Path, *, split: Path | None = None, part: str = "test"
) -> dict[str, Any]:
    """Compare an exported model, run by ONNX Runtime on the CPU, with the labels of a project.

    Parameters
    ----------
    model : Path
        Exported ONNX file.
    project : Path
        A project with the model's keypoints.
    split : Path, optional
        JSON file of a split; all labelled frames if absent.
    part : {'test', 'validation', 'train'}
        Which frames of the split.

    Returns
    -------
    dict
        ``frames``, ``labels``, ``missed`` (labelled, but the map has no peak), ``error_px`` with
        ``mean``, ``median``, ``p95``, ``max`` over the labels that were found, and ``keypoints``
        with the same for each.

    Raises
    ------
    ModelError
        If the model is missing or damaged.
    InputError
        If the project cannot be used, or has other keypoints.
    """
    card, session = _open(model)
    names = card.keypoints().names
    read = read_project(project)
    if set(read.skeleton.names) != set(names):
        raise InputError(
            f"{project}: keypoints {', '.join(read.skeleton.names)}; "
            f"{model} finds {', '.join(names)}"
        )
    frames = list(read.frames)
    if split is not None:
        frames = select(read, getattr(read_split(split, read), part))
    if not frames:
        raise InputError(f"{split}: no frames under {part!r}")
    order = [read.skeleton.index(name) for name in names]

    def compare(
        pixels: NDArray[np.uint8], points: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        image, placement = letterbox(pixels, card.input)
        maps = session.run([OUTPUT_NAME], {INPUT_NAME: image})[0]
        return decode(maps[0], card.maps, placement), points[order]

    compared, _ = load_frames(frames, card.input.colour, compare)
    errors = errors_px([found for found, _ in compared], [points for _, points in compared])
    return {
        "frames": len(frames),
        "labels": int((~np.isnan(errors)).sum()),
        "missed": int(np.isinf(errors).sum()),
        "error_px": _summary(errors),
        "keypoints": {name: _summary(errors[:, k]) for k, name in enumerate(names)},
    }


def _open(model: Path) -> tuple[ModelCard, onnxruntime.InferenceSession]:
    if not model.is_file():
        raise ModelError(f"{model}: no such model file")
    try:
        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    except _LOAD_ERRORS as error:
        raise ModelError(f"{model}: damaged, or not an ONNX model: {error}") from error
    metadata = session.get_modelmeta().custom_metadata_map
    return ModelCard.from_metadata(metadata, str(model)), session


def _summary(errors: NDArray[np.float64]) -> dict[str, float | None]:
    found = errors[np.isfinite(errors)]
    if not found.size:
        return {"mean": None, "median": None, "p95": None, "max": None}
    return {
        "mean": round(float(found.mean()), 3),
        "median": round(float(np.median(found)), 3),
        "p95": round(float(np.percentile(found, 95)), 3),
        "max": round(float(found.max()), 3),
    }


def record(model: Path, result: dict[str, Any], frames: str) -> None:
    """Write an evaluation into the card's provenance, under ``unseen_frames``."""
    graph = onnx.load(model)
    metadata = {entry.key: entry.value for entry in graph.metadata_props}
    card = ModelCard.from_metadata(metadata, str(model))
    provenance = {**card.provenance, "unseen_frames": {"which": frames, **result}}
    write_model(graph, card.model_copy(update={"provenance": provenance}), model)


def show(result: dict[str, Any], console: Console) -> None:
    """Print an evaluation as a table."""
    table = Table(title=f"{result['frames']} frames, {result['labels']} labels")
    for column in ("keypoint", "mean px", "median px", "p95 px", "max px"):
        table.add_column(column, justify="left" if column == "keypoint" else "right")
    rows = {**result["keypoints"], "all": result["error_px"]}
    for name, summary in rows.items():
        cells = ("-" if value is None else f"{value:.2f}" for value in summary.values())
        table.add_row(name, *cells, style="bold" if name == "all" else "")
    console.print(table)
    if result["missed"]:
        console.print(f"{result['missed']} labelled keypoints were not found at all")


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate from the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m rtpose_train.evaluate", description=__doc__)
    parser.add_argument("model", type=Path, help="exported ONNX file")
    parser.add_argument("project", type=Path, help="DeepLabCut project")
    parser.add_argument("--frames", type=Path, help="split file; all labelled frames if absent")
    parser.add_argument("--part", choices=("test", "validation", "train"), default="test")
    parser.add_argument("--json", type=Path, help="write the result here too")
    parser.add_argument("--record", action="store_true", help="write the result into the card")
    given = parser.parse_args(arguments)
    try:
        result = evaluate(given.model, given.project, split=given.frames, part=given.part)
        if given.record:
            which = f"{given.part} of {given.frames.name}" if given.frames else "all"
            record(given.model, result, which)
        if given.json:
            write_file(given.json, json.dumps(result, indent=1) + "\n")
    except RtposeError as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False)
        return error.exit_code
    show(result, Console())
    return 0


if __name__ == "__main__":
    sys.exit(main())
