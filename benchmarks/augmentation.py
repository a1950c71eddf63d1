"""What augmentation costs, beside the training step that it feeds.

    python -m benchmarks augmentation

Batches of 8 samples of 320x240 with the default settings, on one thread: the stages of the
`Augmenter`, the same affine, blur, light and noise by hand in OpenCV and NumPy (what kornia
replaced), and the training step of mobilenetv2-0.35 (forward, backward, AdamW) take turns. A ratio
is that of the medians. Frames are those of the mouse project where the data is (see RTPOSE_DATA),
else generated ones.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks import interleaved, summary_us, table
from rtpose.clock import now_ns
from rtpose.model_card import InputSpec, golden_frames
from rtpose.skeleton import Skeleton
from rtpose_train.data.dataset import load_frames, read_project
from rtpose_train.networks.network import normalise, run_heads
from rtpose_train.networks.registry import build_network
from rtpose_train.training.augment import Augmenter, AugmentSettings, Source, prepare
from rtpose_train.training.targets import draw_targets, masked_loss

ROOT = Path(__file__).parents[1]
PROJECT = "dlc-openfield-mouse"
NETWORK, STRIDE, SIGMA, KEYPOINTS = "mobilenetv2-0.35", 4, 1.5, 4
BATCH, ROUNDS, WARM_UP, FRAMES = 8, 100, 3, 48
SPEC = InputSpec(width_px=320, height_px=240, colour="gray")
SKELETON = Skeleton(("snout", "leftear", "rightear", "tailbase"), pairs=(("leftear", "rightear"),))
DEFAULT = AugmentSettings()
STAGES = ("_move", "_erase", "_defocus", "_smear", "_relight", "_add_noise", "_compress")
STEP, KORNIA, BY_HAND = "training step", "augmentation, all", "cv2: move, defocus, light, noise"

U8 = NDArray[np.uint8]


def sources() -> tuple[list[Source], str]:
    """Return frames ready to be augmented, and where they come from."""
    project = Path(os.environ.get("RTPOSE_DATA", ROOT.parent / "shared" / "data")) / PROJECT

    def source(pixels: U8, points: NDArray[np.float64]) -> Source:
        return prepare(pixels, points, SPEC)

    if project.exists():
        frames = read_project(project).frames[:FRAMES]
        return load_frames(frames, SPEC.colour, source)[0], "mouse project"
    large = InputSpec(width_px=640, height_px=480, colour="gray")
    rng = np.random.default_rng(0)
    generated = golden_frames(large, seed=1, count=FRAMES)[..., 0]
    return [source(frame, rng.uniform(200, 400, (4, 2))) for frame in generated], "generated"


class Timed(Augmenter):
    """An augmenter that knows how long each of its stages took in the last batch."""

    def __init__(self) -> None:
        super().__init__(SPEC, DEFAULT, SKELETON)
        self.taken_ns = dict.fromkeys(STAGES, 0)
        for stage in STAGES:
            setattr(self, stage, self._timed(stage, getattr(self, stage)))

    def _timed(self, stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            start_ns = now_ns()
            answer = call(*arguments)
            self.taken_ns[stage] += now_ns() - start_ns
            return answer

        return timed


def move_by_hand(source: Source, rng: np.random.Generator) -> U8:
    """Turn and scale about the middle."""
    size = (SPEC.width_px, SPEC.height_px)
    turn = np.deg2rad(rng.uniform(-DEFAULT.rotation_deg, DEFAULT.rotation_deg))
    scale = DEFAULT.scale ** rng.uniform(-1, 1)
    linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = linear @ source.to_input
    matrix[:, 2] += np.array(size) / 2 - linear @ np.array(size) / 2
    border = cv2.BORDER_REPLICATE if rng.random() < 0.5 else cv2.BORDER_CONSTANT
    return np.asarray(cv2.warpAffine(source.pixels, matrix, size, borderMode=border), np.uint8)


def relight_by_hand(image: U8, rng: np.random.Generator) -> U8:
    """Defocus, change contrast and brightness, and add noise."""
    if rng.random() < DEFAULT.blur_fraction:
        blurred = cv2.GaussianBlur(image, (0, 0), DEFAULT.blur_px * rng.uniform(0.1, 1))
        image = np.asarray(blurred, np.uint8)
    gain = 1 + rng.uniform(-DEFAULT.contrast, DEFAULT.contrast)
    lift = rng.uniform(-DEFAULT.brightness, DEFAULT.brightness)
    changed = image.astype(np.float32) * np.float32(gain)
    changed += np.float32(float(image.mean()) * (1 - gain) + lift)
    deviation = np.float32(rng.uniform(0, DEFAULT.noise))
    changed += rng.standard_normal(image.shape, np.float32) * deviation
    return np.asarray(np.clip(changed, 0, 255), np.uint8)


def training_step() -> Callable[[Tensor, Tensor], None]:
    """Return one optimiser step of the network that the defaults train."""
    torch.manual_seed(0)
    network = build_network(NETWORK, KEYPOINTS, SPEC.channels, STRIDE)
    network = network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3)

    def step(images: Tensor, points: Tensor) -> None:
        heads = run_heads(network, normalise(images).contiguous(memory_format=torch.channels_last))
        height, width = heads[-1].shape[2:]
        targets, labelled = draw_targets(points, height, width, STRIDE, SIGMA)
        loss = torch.stack([masked_loss(maps, targets, labelled) for maps in heads]).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step


def run() -> dict[str, Any]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    cv2_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        return _run()
    finally:
        torch.set_num_threads(threads)
        cv2.setNumThreads(cv2_threads)


def _run() -> dict[str, Any]:
    frames, origin = sources()
    rng = np.random.default_rng(0)
    augmenter, step = Timed(), training_step()
    ready = augmenter(frames[:BATCH], rng)
    batch: list[Source] = []
    stages: dict[str, list[int]] = {stage: [] for stage in STAGES}

    def choose(number: int) -> None:
        start = number * BATCH % (len(frames) - BATCH + 1)
        batch[:] = frames[start : start + BATCH]

    def augment() -> None:
        augmenter.taken_ns.update(dict.fromkeys(STAGES, 0))
        augmenter(batch, rng)
        for stage, taken_ns in augmenter.taken_ns.items():
            stages[stage].append(taken_ns)

    def by_hand() -> None:
        np.stack([relight_by_hand(move_by_hand(source, rng), rng) for source in batch])

    calls = {KORNIA: augment, BY_HAND: by_hand, STEP: lambda: step(*ready)}
    interleaved(calls, WARM_UP, choose)
    measured = interleaved(calls, ROUNDS, choose)
    times = {
        **{name.strip("_").replace("_", " "): np.array(stages[name][WARM_UP:]) for name in STAGES},
        **measured,
    }
    medians = {name: float(np.median(taken)) for name, taken in times.items()}
    return {
        "frames": origin,
        "batch": BATCH,
        "us": {name: summary_us(taken) for name, taken in times.items()},
        "of_the_step": {name: round(m / medians[STEP], 4) for name, m in medians.items()},
    }


def show(result: dict[str, Any]) -> None:
    rows = {
        name: {
            "min": f"{us['min'] / 1000:.1f}",
            "p50": f"{us['p50'] / 1000:.1f}",
            "p95": f"{us['p95'] / 1000:.1f}",
            "of step": f"{100 * result['of_the_step'][name]:.1f} %",
        }
        for name, us in result["us"].items()
    }
    title = f"ms per batch of {result['batch']} ({result['frames']})"
    table(title, rows, ("min", "p50", "p95", "of step"))
