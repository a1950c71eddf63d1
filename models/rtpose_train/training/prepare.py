"""From a project and settings to all that a training needs, or to what is wrong with them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from rtpose.errors import ConfigError, InputError, Problem
from rtpose.skeleton import Skeleton
from rtpose_train.data.dataset import Project, read_project
from rtpose_train.data.split import Split, read_split, split_frames
from rtpose_train.networks.layout import HeadLayout
from rtpose_train.networks.registry import build_network
from rtpose_train.networks.weights import NAMED, find_weights, load_backbone
from rtpose_train.training.augment import Augmenter
from rtpose_train.training.module import PoseModule
from rtpose_train.training.samples import Samples, load
from rtpose_train.training.settings import RunRecord, TrainSettings

#: Settings that may differ when a run goes on: where it runs, not what it does.
_OF_THE_MACHINE = {"threads", "workers", "tensorboard"}


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A training that can begin.

    Attributes
    ----------
    record : RunRecord
        As it is before the first step.
    parts : Split
        Which frames do what.
    module : PoseModule
        The network.
    samples : Samples
        What it is trained on.
    notes : tuple of str
        What was left out of the project, in words for the user.
    """

    record: RunRecord
    parts: Split
    module: PoseModule
    samples: Samples
    notes: tuple[str, ...]

    @property
    def skeleton(self) -> Skeleton:
        """What is to be found."""
        return Skeleton.from_dict(self.record.skeleton)


def prepare(
    project: Path,
    settings: TrainSettings,
    *,
    split: Path | None = None,
    edges: Sequence[tuple[str, str]] = (),
) -> Prepared:
    """Read a project and build what is trained on it; for the parameters see `train.train`."""
    read = _read(project, settings, edges)
    parts = read_split(split, read) if split else _draw_split(read, settings)
    layout = settings.layout(read.skeleton)
    if settings.posture_graph and not layout.edges:
        raise InputError(
            f"{project}: posture_graph is on, and the project names no edges between its "
            "keypoints; add them to its skeleton, or leave out posture_graph"
        )
    network, start = _build(settings, layout)
    sources, seen, notes = load(read, parts, settings)
    augmenter = Augmenter(settings.input, settings.augment, read.skeleton)
    short = Path(settings.pretrained).name if settings.pretrained else None
    record = RunRecord(
        # Neither a card nor a record is to hold paths of this machine.
        settings=settings.model_copy(update={"pretrained": short}),
        skeleton=read.skeleton.to_dict(),
        labels=_describe_labels(read, parts),
        start_weights=start,
        trained_on=_describe_machine(network, settings),
    )
    return Prepared(
        record,
        parts,
        PoseModule(network, layout, settings, seen),
        Samples(sources, augmenter, settings.batch, settings.seed),
        (*read.notes, *notes),
    )


def _read(project: Path, settings: TrainSettings, edges: Sequence[tuple[str, str]]) -> Project:
    read = read_project(project, individual=settings.individual)
    if not edges:
        return read
    skeleton = Skeleton(read.skeleton.names, tuple(edges), read.skeleton.pairs)
    return Project(read.root, skeleton, read.frames, read.notes)


def _draw_split(read: Project, settings: TrainSettings) -> Split:
    videos = {frame.name: frame.video for frame in read.frames}
    return split_frames(list(videos), settings.seed, by=settings.split_by, groups=videos)


def _build(settings: TrainSettings, layout: HeadLayout) -> tuple[nn.Module, str]:
    """Return the network at its start, and what it starts from."""
    torch.manual_seed(settings.seed)
    channels = settings.input.channels
    network = build_network(settings.model, layout.channels, channels, settings.stride)
    if settings.pretrained is None:
        return network, "random"
    file = find_weights(settings.pretrained, settings.model)
    trained_on = "imagenet" if settings.pretrained in NAMED else settings.pretrained_input
    load_backbone(network, file, settings.colour, trained_on)
    return network, f"{file.name}, sha256 {hashlib.sha256(file.read_bytes()).hexdigest()}"


def check_same(before: RunRecord, now: RunRecord, folder: Path) -> None:
    """Raise `ConfigError` where a run would not go on with what it began with."""
    given, had = now.settings.model_dump(), before.settings.model_dump()
    where = f"{folder} has"
    problems = [
        Problem(name, f"{where} {had[name]!r}, given {given[name]!r}", "go on with the same")
        for name in given
        if name not in _OF_THE_MACHINE and given[name] != had[name]
    ]
    for name in ("skeleton", "labels", "start_weights"):
        if getattr(before, name) != getattr(now, name):
            problems.append(
                Problem(name, f"{where} others than this project", "train into a new folder")
            )
    if problems:
        raise ConfigError(problems)


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


def _describe_machine(network: nn.Module, settings: TrainSettings) -> dict[str, str | int]:
    multiple = int(network.multiple)  # type: ignore[arg-type]
    width, height = (
        -(-size // multiple) * multiple for size in (settings.width_px, settings.height_px)
    )
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "padded_to": f"{width}x{height}",
    }
