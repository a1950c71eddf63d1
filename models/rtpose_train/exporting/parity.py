"""Whether an exported file answers as the network that was trained, and the answers in its card."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from rtpose.errors import ModelError
from rtpose.model_card import (
    INPUT_NAME,
    MAPS_NAME,
    OFFSETS_NAME,
    PEAKS_NAME,
    Golden,
    InputSpec,
    MapsSpec,
    golden_frames,
)
from rtpose_train.decode import decode_outputs, errors_px
from rtpose_train.networks.layout import HeadLayout
from rtpose_train.networks.network import normalise, run_heads

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

_COUNT, _CELLS, _MOST_SEEDS = 2, 32, 16
_PERTURBATIONS = 8


@dataclass(frozen=True, slots=True)
class Limits:
    """How far a precision may be off.

    Attributes
    ----------
    maps : float
        Largest difference from torch's maps anywhere; infinite if only keypoints count.
    px : float
        Largest (int8: mean) distance from torch's keypoints, in px of the input.
    golden, golden_px : float
        Tolerances of the golden answers: what other providers may differ by.
    """

    maps: float
    px: float
    golden: float
    golden_px: float


#: Half precision rounds to a part in 2048; integers to a part in 255 of each tensor's range.
LIMITS = {
    "fp32": Limits(maps=1e-3, px=0.05, golden=1e-3, golden_px=0.05),
    "fp16": Limits(maps=2e-2, px=0.25, golden=1e-2, golden_px=0.25),
    "int8": Limits(maps=np.inf, px=1.0, golden=5e-2, golden_px=1.0),
}


@dataclass(frozen=True, slots=True)
class Disagreement:
    """How far keypoints of the exported file are from torch's, in px of the model's input.

    Attributes
    ----------
    frames, keypoints : int
        How many were compared: keypoints that torch is confident of.
    mean_px, max_px : float or None
        None if torch is confident of none.
    lost : int
        Keypoints that the file did not find at all; not in the mean.
    """

    frames: int
    keypoints: int
    mean_px: float | None
    max_px: float | None
    lost: int


def run_graph(model: bytes | str, frames: U8) -> dict[str, F32]:
    """Return all outputs of ONNX Runtime on the CPU, by name, frames first.

    Parameters
    ----------
    model : bytes or str
        The file's content, or its name.
    frames : ndarray of uint8, shape (frames, height, width, channels)
        Model inputs.
    """
    return _run(onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]), frames)


def _run(session: onnxruntime.InferenceSession, frames: U8) -> dict[str, F32]:
    names = [output.name for output in session.get_outputs()]
    answers = [session.run(names, {INPUT_NAME: frame[None]}) for frame in frames]
    return {
        name: np.concatenate(parts)
        for name, parts in zip(names, zip(*answers, strict=True), strict=True)
    }


@torch.no_grad()
def run_network(network: nn.Module, layout: HeadLayout, frames: U8) -> dict[str, F32]:
    """Return what a graph's raw outputs must be, from torch, unfolded."""
    drawn = []
    for frame in frames:
        image = torch.from_numpy(frame[None]).permute(0, 3, 1, 2)
        drawn.append(run_heads(network.eval(), normalise(image))[-1].numpy())
    head = np.concatenate(drawn)
    outputs = {MAPS_NAME: head[:, layout.maps]}
    if layout.location_refinement:
        outputs[OFFSETS_NAME] = head[:, layout.offsets]
    return outputs


def largest_difference(ours: Mapping[str, F32], theirs: Mapping[str, F32]) -> float:
    """Return the largest difference between two answers with the same outputs."""
    return max(float(np.abs(ours[name] - theirs[name]).max()) for name in theirs)


def disagreement(
    ours: Mapping[str, F32], theirs: Mapping[str, F32], spec: MapsSpec, min_confidence: float
) -> Disagreement:
    """Compare the keypoints of two answers, where the second is confident."""
    expected = decode_outputs(theirs, spec).astype(np.float64)
    places = np.where(expected[..., 2:] >= min_confidence, expected[..., :2], np.nan)
    distances = errors_px(list(decode_outputs(ours, spec)), list(places))
    found = distances[np.isfinite(distances)]
    return Disagreement(
        frames=len(distances),
        keypoints=int((~np.isnan(distances)).sum()),
        mean_px=float(found.mean()) if found.size else None,
        max_px=float(found.max()) if found.size else None,
        lost=int(np.isinf(distances).sum()),
    )


def golden_answers(
    model: bytes,
    network: nn.Module,
    layout: HeadLayout,
    spec: InputSpec,
    maps: MapsSpec,
    limits: Limits,
) -> Golden:
    """Return the golden frames for an exported file, and its own answers to them.

    Raises
    ------
    ModelError
        If the decoder is in the graph and no keypoint of any generated frame is clear enough for
        its place to be checked.
    """
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    best: Golden | None = None
    for seed in range(1, _MOST_SEEDS + 1):
        frames = golden_frames(spec, seed, _COUNT)
        answers = _run(session, frames)
        if PEAKS_NAME not in answers:
            return _golden_cells(answers, seed, limits)
        golden = _golden_peaks(answers, run_network(network, layout, frames), maps, seed, limits)
        if best is None or _peaks(golden) > _peaks(best):
            best = golden
        if _peaks(best) >= layout.keypoints:
            break
    if best is None or not _peaks(best):
        raise ModelError(
            f"in {_MOST_SEEDS * _COUNT} generated frames the network draws no peak that stands out "
            "from noise, so that no machine could check where a decoder in the graph finds it; "
            "export with --decode host"
        )
    return best


def _peaks(golden: Golden) -> int:
    return sum(map(len, golden.peaks))


def _golden_cells(answers: Mapping[str, F32], seed: int, limits: Limits) -> Golden:
    """Keep the answers at the highest cell of every map, and at cells spread over the maps."""
    maps = answers[MAPS_NAME]
    cells = []
    for k, peaked in enumerate(maps[0]):
        row, column = np.unravel_index(peaked.argmax(), peaked.shape)
        cells.append((k, int(row), int(column)))
    spread = np.random.default_rng(seed).integers((0, 0, 0), maps.shape[1:], size=(_CELLS, 3))
    cells += [(int(k), int(row), int(column)) for k, row, column in spread]
    offsets: list[list[tuple[float, float]]] = []
    if OFFSETS_NAME in answers:
        offsets = [
            [(float(drawn[2 * k, y, x]), float(drawn[2 * k + 1, y, x])) for k, y, x in cells]
            for drawn in answers[OFFSETS_NAME]
        ]
    return Golden(
        seed=seed,
        count=len(maps),
        cells=cells,
        values=[[float(frame[cell]) for cell in cells] for frame in maps],
        offsets=offsets,
        tolerance=limits.golden,
        tolerance_px=limits.golden_px,
    )


def _golden_peaks(
    answers: Mapping[str, F32], drawn: Mapping[str, F32], maps: MapsSpec, seed: int, limits: Limits
) -> Golden:
    """Keep the peaks that stay where they are when the maps change by what is tolerated."""
    rng = np.random.default_rng(seed)
    found = decode_outputs(answers, maps)
    still = np.array(np.isfinite(found).all(axis=2))
    for _ in range(_PERTURBATIONS):
        noise = rng.uniform(-limits.golden, limits.golden, drawn[MAPS_NAME].shape)
        shaken = {**drawn, MAPS_NAME: drawn[MAPS_NAME] + noise.astype(np.float32)}
        beside = np.abs(decode_outputs(shaken, maps) - found)
        allowed = (limits.golden_px, limits.golden_px, 2 * limits.golden)
        still &= (beside <= allowed).all(axis=2)
    peaks = [
        [(int(k), *map(float, frame[k])) for k in np.flatnonzero(kept)]
        for frame, kept in zip(found, still, strict=True)
    ]
    return Golden(
        seed=seed,
        count=len(found),
        cells=[],
        values=[[] for _ in found],
        peaks=cast("list[list[tuple[int, float, float, float]]]", peaks),
        tolerance=2 * limits.golden,
        tolerance_px=limits.golden_px,
    )
