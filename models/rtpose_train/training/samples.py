"""What training and validation look at: augmented batches; frames as the live service sees them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from rtpose.errors import InputError
from rtpose.model_card import Placement
from rtpose_train.data.dataset import Project, load_frames
from rtpose_train.data.geometry import letterbox
from rtpose_train.data.split import Split, select
from rtpose_train.training.augment import Augmenter, Source, prepare
from rtpose_train.training.settings import TrainSettings

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A validation frame as the live service would see it.

    Attributes
    ----------
    image : ndarray of uint8, shape (1, height, width, channels)
    placement : Placement
        Where the frame lies in it.
    points : ndarray of float64, shape (keypoints, 2)
        In px of the frame; NaN where a keypoint is not labelled.
    """

    image: NDArray[np.uint8]
    placement: Placement
    points: NDArray[np.float64]


def load(
    project: Project, parts: Split, settings: TrainSettings
) -> tuple[list[Source], list[Seen], list[str]]:
    """Read the frames that train and the frames that validate, and notes for the user.

    Raises
    ------
    InputError
        If images cannot be read, or a part lacks labels.
    """
    spec = settings.input

    def see(pixels: NDArray[np.uint8], points: NDArray[np.float64]) -> Seen:
        return Seen(*letterbox(pixels, spec), points)

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
        raise InputError(
            f"{project.root}: no label in the {len(seen)} frames to validate on; label more "
            "frames, or take another seed or split"
        )
    return sources, seen, [*notes, *more_notes]


class Samples(Dataset[Batch]):
    """Augmented batches by number; each is a function of the seed and its number alone.

    All frames are taken in turn, in an order that is new for every turn.
    """

    def __init__(
        self, sources: Sequence[Source], augmenter: Augmenter, batch: int, seed: int
    ) -> None:
        self.sources, self.augmenter, self.batch, self.seed = sources, augmenter, batch, seed

    def __getitem__(self, number: int) -> Batch:
        """Return images (batch, channels, height, width) as uint8, and points in input px."""
        count = len(self.sources)
        chosen = []
        for place in range(number * self.batch, (number + 1) * self.batch):
            turn = np.random.default_rng([self.seed, 0, place // count])
            chosen.append(self.sources[turn.permutation(count)[place % count]])
        return self.augmenter(chosen, np.random.default_rng([self.seed, 1, number]))


class _Remaining(Sampler[int]):
    """Numbers of the batches that are still to come, of those that this device takes."""

    def __init__(self, trainer: "Trainer", steps: int) -> None:
        self.trainer, self.steps = trainer, steps

    def __iter__(self) -> Iterator[int]:
        trainer = self.trainer
        for step in range(trainer.global_step, self.steps):
            yield step * trainer.world_size + trainer.global_rank

    def __len__(self) -> int:
        # All of them: Lightning counts on from where it was.
        return self.steps


def training_loader(
    samples: Samples, trainer: "Trainer", steps: int, workers: int
) -> DataLoader[Batch]:
    """Return a loader that goes on at the trainer's step."""
    return DataLoader(
        samples,
        batch_size=None,
        sampler=_Remaining(trainer, steps),
        num_workers=workers,
        persistent_workers=workers > 0,
        multiprocessing_context="spawn" if workers else None,
        pin_memory=torch.cuda.is_available(),
    )


def validation_loader(seen: Sequence[Seen]) -> DataLoader[tuple[Tensor, int]]:
    """Return a loader of images (1, channels, height, width) and their numbers."""
    images = [torch.from_numpy(frame.image).permute(0, 3, 1, 2) for frame in seen]
    return DataLoader(list(zip(images, range(len(seen)), strict=True)), batch_size=None)  # type: ignore[arg-type]
