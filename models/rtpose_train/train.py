"""Training: labelled frames in, a run folder with the best weights out."""

import copy
import csv
import hashlib
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from rtpose.clock import now_ns
from rtpose.errors import InputError, RecordingError, RtposeError
from rtpose.model_card import Placement
from rtpose.skeleton import Skeleton
from rtpose_train.augment import Augmenter, Source, prepare
from rtpose_train.dataset import Project, load_frames, read_project
from rtpose_train.decode import decode, errors_px
from rtpose_train.files import write_file
from rtpose_train.geometry import letterbox
from rtpose_train.network import load_backbone, normalise, run_heads
from rtpose_train.registry import build_network, default_settings
from rtpose_train.settings import (
    LOG_FILE,
    SETTINGS_FILE,
    SPLIT_FILE,
    WEIGHTS_FILE,
    RunRecord,
    TrainSettings,
    build_settings,
)
from rtpose_train.split import Split, read_split, select, split_frames
from rtpose_train.targets import draw_targets, masked_loss

_NS_PER_MINUTE = 60e9
_WARM_UP = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """A validation frame as the live service would see it."""

    image: NDArray[np.uint8]
    placement: Placement
    points: NDArray[np.float64]


def train(
    project: Path,
    out: Path,
    *,
    size: tuple[int, int] = (320, 240),
    weights: Path | None = None,
    split: Path | None = None,
    edges: Sequence[tuple[str, str]] = (),
    console: Console | None = None,
    **settings: Any,
) -> RunRecord:
    """Train a model on a project of labelled frames.

    Parameters
    ----------
    project : Path
        A DeepLabCut project.
    out : Path
        Run folder to create: record, split, log, best weights.
    size : (width, height)
        Model input, px.
    weights : Path, optional
        MobileNetV2 or ResNet-50 weights in torchvision's layout to start from; random if absent.
    split : Path, optional
        JSON file that says which frames train, validate and test; drawn with the seed if absent.
    edges : sequence of (str, str)
        Lines of the skeleton, if the project does not name them.
    console : Console, optional
        Where notes and the progress bar go; standard error if absent.
    **settings
        Other fields of `TrainSettings`; None stands for the default, which is the network's own
        where `registry.default_settings` has one.

    Raises
    ------
    InputError
        If the project, a setting or the run folder cannot be used.
    ModelError
        If the weights do not fit the network.
    RecordingError
        If the run folder cannot be written.
    """
    console = console or Console(stderr=True)
    if out.exists():
        raise InputError(f"{out}: exists; name another folder, or delete it")
    given = {name: value for name, value in settings.items() if value is not None}
    model = str(given.get("model", TrainSettings.model_fields["model"].default))
    chosen = build_settings(
        {"width_px": size[0], "height_px": size[1], **default_settings(model), **given}
    )
    read = read_project(project)
    skeleton = Skeleton(
        read.skeleton.names, tuple(edges) or read.skeleton.edges, read.skeleton.pairs
    )
    names = [frame.name for frame in read.frames]
    parts = read_split(split, read) if split else split_frames(names, chosen.seed)
    torch.manual_seed(chosen.seed)
    channels = chosen.input.channels
    network = build_network(chosen.model, len(skeleton.names), channels, chosen.stride)
    if weights is not None:
        load_backbone(network, weights, channels)
    sources, seen, notes = _load(read, parts, chosen)
    for note in (*read.notes, *notes):
        console.print(note, style="yellow")
    record = RunRecord(
        settings=chosen,
        skeleton=skeleton.to_dict(),
        labels=_describe_labels(read, parts),
        start_weights=_describe_weights(weights),
        trained_on=_describe_machine(),
    )
    _create(out)
    write_file(out / SPLIT_FILE, parts.model_dump_json(indent=1))
    write_file(out / SETTINGS_FILE, record.model_dump_json(indent=1))
    samples = _batches(sources, Augmenter(chosen, skeleton), chosen)
    with Progress(console=console) as progress:
        return _Trainer(network, record, out, seen).run(samples, progress)


def _load(
    project: Project, parts: Split, settings: TrainSettings
) -> tuple[list[Source], list[_Seen], list[str]]:
    """Read the frames that train and the frames that validate."""
    spec = settings.input

    def see(pixels: NDArray[np.uint8], points: NDArray[np.float64]) -> _Seen:
        return _Seen(*letterbox(pixels, spec), points)

    def source(pixels: NDArray[np.uint8], points: NDArray[np.float64]) -> Source:
        return prepare(pixels, points, spec)

    sources, notes = load_frames(select(project, parts.train), settings.colour, source)
    seen, more_notes = load_frames(select(project, parts.validation), settings.colour, see)
    labelled = ~np.isnan(np.stack([source.points[:, 0] for source in sources]))
    never = [name for k, name in enumerate(project.skeleton.names) if not labelled[:, k].any()]
    if never:
        raise InputError(
            f"{project.root}: not labelled in any of the {len(sources)} frames to train on: "
            f"{', '.join(never)}; label them in more frames, or take another seed or split"
        )
    if all(np.isnan(frame.points).all() for frame in seen):
        raise InputError(f"{project.root}: no label in the {len(seen)} frames to validate on")
    return sources, seen, [*notes, *more_notes]


def _batches(
    sources: Sequence[Source], augmenter: Augmenter, settings: TrainSettings
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images (batch, channels, height, width) and points for ever, all frames in turn."""
    rng = np.random.default_rng(settings.seed)
    queue: list[int] = []
    while True:
        while len(queue) < settings.batch:
            queue += rng.permutation(len(sources)).tolist()
        chosen, queue = queue[: settings.batch], queue[settings.batch :]
        samples = [augmenter(sources[index], rng) for index in chosen]
        images = np.stack([image for image, _ in samples]).transpose(0, 3, 1, 2)
        points = np.stack([points for _, points in samples])
        yield torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(points)


def _create(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise RecordingError(f"{folder}: cannot be created: {error.strerror}") from error


class _Trainer:
    """The loop: step, average, check now and then, keep the best."""

    def __init__(
        self, network: nn.Module, record: RunRecord, folder: Path, seen: Sequence[_Seen]
    ) -> None:
        self.record = record
        self.settings = record.settings
        self.folder = folder
        self.seen = seen
        self.device = torch.device(str(record.trained_on["device"]))
        self.network = network.to(self.device)
        for parameter in self.network.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.network).eval()
        self.optimiser = torch.optim.AdamW(
            network.parameters(),
            self.settings.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=self.settings.weight_decay,
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser,
            self.settings.learning_rate,
            total_steps=self.settings.steps,
            pct_start=_WARM_UP,
            cycle_momentum=False,
        )
        self.log: list[tuple[int, float, float]] = []
        self.best_px = math.inf

    def run(self, samples: Iterator[tuple[Tensor, Tensor]], progress: Progress) -> RunRecord:
        """Take all steps and return the completed record."""
        start_ns = now_ns()
        steps = self.settings.steps
        every = max(1, steps // self.settings.checks)
        task = progress.add_task("training", total=steps)
        losses: list[float] = []
        for step in range(1, steps + 1):
            losses.append(self._step(*next(samples)))
            self._update_average(step)
            if step % every == 0 or step == steps:
                self._check(step, float(np.mean(losses)), (now_ns() - start_ns) / _NS_PER_MINUTE)
                losses.clear()
                progress.update(
                    task,
                    description=f"validation {self.log[-1][2]:.2f} px, best {self.best_px:.2f} px",
                )
            progress.advance(task)
        return self.record

    def _step(self, images: Tensor, points: Tensor) -> float:
        self.network.train()
        images = normalise(images.to(self.device)).contiguous(memory_format=torch.channels_last)
        heads = run_heads(self.network, images)
        targets, labelled = draw_targets(
            points.to(self.device),
            heads[-1].shape[2],
            heads[-1].shape[3],
            self.settings.stride,
            self.settings.sigma,
        )
        loss = torch.stack([masked_loss(maps, targets, labelled) for maps in heads]).sum()
        if not math.isfinite(float(loss.detach())):
            raise RtposeError(
                f"training diverged: the loss is {float(loss.detach())}; "
                f"lower the learning_rate, now {self.settings.learning_rate}"
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.schedule.step()
        return float(loss.detach())

    @torch.no_grad()
    def _update_average(self, step: int) -> None:
        """Move the averaged weights towards the newest; faster at first, to forget the start."""
        keep = min(self.settings.averaging, step / (step + 10))
        pairs = zip(
            self.average.state_dict().values(), self.network.state_dict().values(), strict=True
        )
        for averaged, newest in pairs:
            if averaged.is_floating_point():
                averaged.lerp_(newest, 1 - keep)

    def _check(self, step: int, loss: float, minutes: float) -> None:
        """Take the validation error, log it, and keep the weights if they are the best so far."""
        error_px = round(self.validation_px(), 4)
        self.log.append((step, loss, error_px))
        table = io.StringIO()
        writer = csv.writer(table)
        writer.writerows([("step", "loss", "validation_px"), *self.log])
        write_file(self.folder / LOG_FILE, table.getvalue())
        update: dict[str, float] = {"minutes": round(minutes, 2)}
        if error_px <= self.best_px:
            self.best_px = error_px
            update |= {"validation_px": error_px, "best_step": step}
            weights = io.BytesIO()
            state = {name: value.cpu() for name, value in self.average.state_dict().items()}
            torch.save(state, weights)
            write_file(self.folder / WEIGHTS_FILE, weights.getvalue())
        self.record = self.record.model_copy(update=update)
        write_file(self.folder / SETTINGS_FILE, self.record.model_dump_json(indent=1))

    @torch.no_grad()
    def validation_px(self) -> float:
        """Return the mean error in px of the full frames; a missed keypoint is a diagonal off."""
        spec = self.settings.maps
        found, diagonals = [], []
        for seen in self.seen:
            image = torch.from_numpy(seen.image).permute(0, 3, 1, 2).to(self.device)
            maps = run_heads(self.average, normalise(image))[-1][0].cpu().numpy()
            found.append(decode(maps, spec, seen.placement))
            diagonals.append(np.hypot(seen.placement.crop_width_px, seen.placement.crop_height_px))
        errors = errors_px(found, [seen.points for seen in self.seen])
        errors = np.where(np.isinf(errors), np.array(diagonals)[:, None], errors)
        return float(np.nanmean(errors))


def _describe_labels(project: Project, parts: Split) -> dict[str, str | int]:
    digest = hashlib.sha256()
    for frame in sorted(project.frames, key=lambda frame: frame.name):
        digest.update(frame.name.encode() + np.round(frame.points, 3).astype("<f8").tobytes())
    return {
        "project": project.root.resolve().name,
        "train": len(parts.train),
        "validation": len(parts.validation),
        "test": len(parts.test),
        "sha256": digest.hexdigest(),
    }


def _describe_weights(weights: Path | None) -> str:
    if weights is None:
        return "random"
    return f"{weights.name}, sha256 {hashlib.sha256(weights.read_bytes()).hexdigest()}"


def _describe_machine() -> dict[str, str | int]:
    return {
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
