"""Export: a run folder in, one ONNX file out that says everything about itself."""

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from rtpose.errors import InputError, ModelError
from rtpose.model_card import ModelCard, golden_frames
from rtpose_train.data.dataset import load_frames, read_project
from rtpose_train.data.geometry import letterbox
from rtpose_train.data.split import read_split, select
from rtpose_train.exporting.deploy import to_onnx
from rtpose_train.exporting.graph_decoder import append_decoder
from rtpose_train.exporting.onnx_graph import write_model
from rtpose_train.exporting.parity import (
    LIMITS,
    Disagreement,
    Limits,
    disagreement,
    golden_answers,
    largest_difference,
    run_graph,
    run_network,
)
from rtpose_train.exporting.quantise import quantise
from rtpose_train.networks.registry import build_network
from rtpose_train.networks.weights import load_state
from rtpose_train.training.config import build_settings
from rtpose_train.training.settings import (
    SPLIT_FILE,
    WEIGHTS_FILE,
    RunRecord,
    TrainSettings,
    read_record,
)

Precision = Literal["fp32", "fp16", "int8"]
Decode = Literal["host", "graph"]

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

_SEED, _COUNT = 1, 2


def export(
    run: Path,
    out: Path | None = None,
    *,
    name: str | None = None,
    species: str = "",
    min_confidence: float = 0.3,
    precision: Precision = "fp32",
    decode: Decode = "host",
    size: tuple[int, int] | None = None,
    calibrate: Path | None = None,
    max_disagreement_px: float | None = None,
) -> Path:
    """Write a trained model as ONNX, with its card inside.

    The graph takes uint8 pixels as the camera gives them; normalisation is part of it. The file is
    run through ONNX Runtime on the CPU and compared with torch before it gets its name.

    Parameters
    ----------
    run : Path
        Run folder of `rtpose_train.train.train`.
    out : Path, optional
        File to write; ``<run>/<name>.onnx`` if absent.
    name, species : str
        For people; the name is the run folder's if absent.
    min_confidence : float
        Threshold that the card suggests.
    precision : {'fp32', 'fp16', 'int8'}
        Of weights and arithmetic; input and outputs stay what they are.
    decode : {'host', 'graph'}
        End in maps for the compiled decoder, or in the decoder itself: then only keypoints leave
        the graph.
    size : (width, height), optional
        Model input, px; the one that it was trained at if absent.
    calibrate : Path, optional
        The project that the model was trained on. Its training frames give int8 its ranges; on its
        validation frames the file is compared with torch. Needed for int8; without it the
        comparison is made on generated frames.
    max_disagreement_px : float, optional
        Mean distance from torch's keypoints, in px of the input, over which an int8 file is
        refused; 1 if absent.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        If the run folder is not one, the file exists, an option makes no sense, or the project is
        not the one of the run.
    ConfigError
        If the size is not allowed.
    ModelError
        If the weights are damaged, or the exported graph answers otherwise than torch.
    RecordingError
        If the file cannot be written.
    """
    record = read_record(run)
    name = name or run.resolve().name
    out = out or run / f"{name}.onnx"
    _check_request(out, min_confidence, precision, decode, calibrate, max_disagreement_px)
    settings, layout = _sized(record.settings, size), record.layout()
    network = restore(record, run / WEIGHTS_FILE)
    frames, training = golden_frames(settings.input, _SEED, _COUNT), None
    if calibrate is not None:
        frames, training = _real_frames(run, settings, calibrate)
    limits = LIMITS[precision]
    if max_disagreement_px is not None:
        limits = replace(limits, px=max_disagreement_px)
    spec = settings.maps
    graph = to_onnx(network, layout, settings.input, half=precision == "fp16")
    if precision == "int8" and training is not None:
        graph = quantise(graph, training)
    expected = run_network(network, layout, frames)
    difference = _require_maps(out, graph, frames, expected, limits)
    if decode == "graph":
        graph = append_decoder(graph, spec, layout.keypoints)
    content = graph.SerializeToString()
    beside = disagreement(run_graph(content, frames), expected, spec, min_confidence)
    _require_keypoints(out, beside, precision, limits)
    card = ModelCard(
        name=name,
        species=species,
        network=settings.model,
        skeleton=record.skeleton,
        input=settings.input,
        maps=spec,
        decode=decode,
        precision=precision,
        min_confidence=min_confidence,
        provenance=_provenance(record, difference, beside, calibrate),
        golden=golden_answers(content, network, layout, settings.input, spec, limits),
    )
    write_model(graph, card, out)
    return out


def _check_request(
    out: Path,
    min_confidence: float,
    precision: str,
    decode: str,
    calibrate: Path | None,
    max_disagreement_px: float | None,
) -> None:
    """Refuse what cannot be done, before anything takes time: all of it at once."""
    problems = []
    if out.exists():
        problems.append(f"{out}: exists; name another file, or delete it")
    if not 0 <= min_confidence <= 1:
        problems.append(f"min_confidence is {min_confidence}, allowed: 0 to 1")
    for option, given, allowed in (
        ("--precision", precision, get_args(Precision)),
        ("--decode", decode, get_args(Decode)),
    ):
        if given not in allowed:
            problems.append(f"{option} {given!r}; allowed: {', '.join(allowed)}")
    if precision == "int8" and calibrate is None:
        problems.append(
            "--precision int8 takes its ranges from real frames; "
            "give the project that the model was trained on: --calibrate PROJECT"
        )
    if max_disagreement_px is not None:
        if precision != "int8":
            problems.append(f"--max-disagreement-px is for int8; {precision} has a fixed limit")
        if not 0 < max_disagreement_px < math.inf:
            problems.append(f"--max-disagreement-px {max_disagreement_px}; allowed: above 0")
    if problems:
        raise InputError("\n".join(problems))


def _sized(settings: TrainSettings, size: tuple[int, int] | None) -> TrainSettings:
    if size is None:
        return settings
    return build_settings({**settings.model_dump(), "width_px": size[0], "height_px": size[1]})


def _real_frames(run: Path, settings: TrainSettings, project: Path) -> tuple[U8, U8]:
    """Return the model inputs of the frames that validated a run, and of those that trained it."""
    read = read_project(project, settings.individual)
    split = read_split(run / SPLIT_FILE, read)

    def fit(pixels: U8, _points: NDArray[np.float64]) -> U8:
        image, _ = letterbox(pixels, settings.input)
        return image.reshape(image.shape[1:])

    validation, training = (
        np.stack(load_frames(select(read, names), settings.colour, fit)[0])
        for names in (split.validation, split.train)
    )
    return validation, training


def _require_maps(
    out: Path, graph: onnx.ModelProto, frames: U8, expected: Mapping[str, F32], limits: Limits
) -> float:
    """Return how far a graph's raw outputs are from torch's, if that is not too far."""
    difference = largest_difference(run_graph(graph.SerializeToString(), frames), expected)
    if not difference <= limits.maps:
        raise ModelError(
            f"{out}: the exported maps differ from torch's by {difference:.2g}, "
            f"allowed {limits.maps:g}; not written"
        )
    return difference


def _require_keypoints(
    out: Path, beside: Disagreement, precision: Precision, limits: Limits
) -> None:
    if beside.lost:
        raise ModelError(
            f"{out}: {beside.lost} of {beside.keypoints} keypoints that torch is sure of are not "
            f"found with {precision}; not written"
        )
    px, kind = (beside.mean_px, "mean") if precision == "int8" else (beside.max_px, "largest")
    if px is not None and not px <= limits.px:
        raise ModelError(
            f"{out}: keypoints with {precision} are off torch's by {px:.3g} px ({kind}, in px of "
            f"the input, {beside.keypoints} keypoints), allowed {limits.px:g}; not written"
            + ("; see --max-disagreement-px" if precision == "int8" else "")
        )


def restore(record: RunRecord, weights: Path) -> nn.Module:
    """Rebuild a trained network from its record and its state dict."""
    settings = record.settings
    network = build_network(
        settings.model, record.layout().channels, settings.input.channels, settings.stride
    )
    try:
        network.load_state_dict(load_state(weights), strict=True)
    except RuntimeError as error:
        raise ModelError(f"{weights}: not the weights of {settings.model}: {error}") from error
    return network.eval()


def _provenance(
    record: RunRecord, difference: float, beside: Disagreement, calibrate: Path | None
) -> dict[str, object]:
    frames = "validation frames" if calibrate else "generated frames"
    return {
        "labels": record.labels,
        "start_weights": record.start_weights,
        "training": {
            **record.settings.model_dump(),
            **record.trained_on,
            "minutes": record.minutes,
            "best_step": record.best_step,
        },
        "validation_px": record.validation_px,
        "largest_difference_from_torch": difference,
        "disagreement_with_torch": {"on": frames, **asdict(beside)},
        "exported_with": {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__},
    }
