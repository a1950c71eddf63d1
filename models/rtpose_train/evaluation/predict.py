"""What the live service answers on labelled frames, through the very estimator that it runs."""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from rtpose.errors import InputError
from rtpose.estimator import Estimator, Provider, read_card
from rtpose.model_card import ModelCard
from rtpose.zoo import find_model
from rtpose_train.data.dataset import LabelledFrame, Project, load_frames, read_project
from rtpose_train.data.split import read_split, select
from rtpose_train.evaluation.sweeps import View, unchanged

_U8 = NDArray[np.uint8]
_F64 = NDArray[np.float64]

#: Sessions that are kept open: one per frame size.
_MOST_OPEN = 16

#: The parts of a split, and the one that judges a model.
PARTS = ("train", "validation", "test")
TEST = "test"


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Labels and answers, frame by frame.

    Attributes
    ----------
    model : Path
    card : ModelCard
    model_hash : str
        SHA-256 of the file.
    provider : str
        Where it ran.
    min_confidence : float
        The threshold that was asked for, or the card's.
    project : Project
        Where the frames are from.
    frames : tuple of LabelledFrame
    names : tuple of str
        Keypoints that both model and project have, in the model's order.
    labels : ndarray of float64, shape (frames, keypoints, 2)
        x, y in px of the full frame; NaN where not labelled.
    found : ndarray of float64, shape (views, frames, keypoints, 3)
        x, y in px of the full frame (NaN where there is no peak), confidence; by view.
    notes : tuple of str
        What was left out, in words for the user.
    """

    model: Path
    card: ModelCard
    model_hash: str
    provider: str
    min_confidence: float
    project: Project
    frames: tuple[LabelledFrame, ...]
    names: tuple[str, ...]
    labels: _F64
    found: _F64
    notes: tuple[str, ...]

    @property
    def colour(self) -> str:
        """What a camera for this model delivers, see `camera_colour`."""
        return camera_colour(self.card)


def camera_colour(card: ModelCard) -> str:
    """Return 'gray' or 'bgr': what a camera delivers that serves this model."""
    return "gray" if card.input.colour == "gray" else "bgr"


def resolve_model(model: Path) -> Path:
    """Return the file of a model that a user named: a path, or a name of the zoo."""
    return find_model(str(model), Path())


def predict(
    model: Path,
    project: Path,
    *,
    split: Path | None = None,
    part: str | None = None,
    individual: str | None = None,
    provider: Provider = "cpu",
    threads: int = 1,
    min_confidence: float | None = None,
    views: Sequence[View] = (unchanged,),
    console: Console | None = None,
) -> Predictions:
    """Run an exported model on the labelled frames of a project.

    Parameters
    ----------
    model : Path
        Exported ONNX file.
    project : Path
        What `dataset.read_project` reads.
    split : Path, optional
        JSON file of a split; all labelled frames if absent.
    part : {'train', 'validation', 'test'}, optional
        Which frames of the split: those of the test if absent.
    individual : str, optional
        Which animal, where frames have several; see `dataset.read_project`.
    provider, threads, min_confidence
        As for `rtpose.estimator.Estimator`.
    views : sequence of View
        What is done to a frame before the model sees it; answers are in px of the full frame.
    console : Console, optional
        Where the progress bar goes; none if absent.

    Raises
    ------
    ModelError, ProviderError
        If the model cannot be used, or not there.
    InputError
        If the project or the split cannot be used, or have no keypoint of the model.
    """
    if part is not None and (part not in PARTS or split is None):
        raise InputError(f"--part {part!r}; allowed, with --split: {', '.join(PARTS)}")
    if provider not in get_args(Provider):
        raise InputError(f"--provider {provider!r}; allowed: {', '.join(get_args(Provider))}")
    card = read_card(model)
    read = read_project(project, individual)
    finds, labelled = card.keypoints().names, read.skeleton.names
    names = _common(finds, labelled, f"{project} and {model}")
    frames = _choose(read, split, part or TEST)
    poses = _Poses(model, provider, threads, min_confidence)
    ours, theirs = [finds.index(name) for name in names], [labelled.index(name) for name in names]
    silent = console is None or not console.is_terminal
    with Progress(console=console, transient=True, disable=silent) as progress:
        task = progress.add_task("estimating poses", total=len(frames))

        def answer(pixels: _U8, points: _F64) -> tuple[_F64, _F64]:
            answers = [poses.estimate(pixels, view(pixels))[ours] for view in views]
            progress.advance(task)
            return points[theirs], np.stack(answers)

        answered, notes = load_frames(frames, camera_colour(card), answer)
    labels = np.stack([points for points, _ in answered])
    if np.isnan(labels).all():
        raise InputError(
            f"{project}: no label of {', '.join(names)} in the {len(frames)} frames to evaluate on"
        )
    return Predictions(
        model=model,
        card=card,
        model_hash=hashlib.sha256(model.read_bytes()).hexdigest(),
        provider=provider,
        min_confidence=card.min_confidence if min_confidence is None else min_confidence,
        project=read,
        frames=tuple(frames),
        names=names,
        labels=labels,
        found=np.stack([found for _, found in answered], axis=1),
        notes=(*read.notes, *notes, *_hints(model, card, read, split)),
    )


def _common(finds: Sequence[str], labelled: Sequence[str], where: str) -> tuple[str, ...]:
    names = tuple(name for name in finds if name in labelled)
    if not names:
        raise InputError(
            f"{where} have no keypoint in common: labelled are {', '.join(labelled)}; the model "
            f"finds {', '.join(finds)}"
        )
    return names


def _choose(project: Project, split: Path | None, part: str) -> list[LabelledFrame]:
    if split is None:
        return list(project.frames)
    frames = select(project, getattr(read_split(split, project), part))
    if not frames:
        raise InputError(f"{split}: no frames under {part!r}")
    return frames


class _Poses:
    """The live service's estimator of one model: one for each size of frames."""

    def __init__(
        self, model: Path, provider: Provider, threads: int, min_confidence: float | None
    ) -> None:
        def build(*frame: int) -> Estimator:
            height, width, channels = (*frame, 1)[:3]  # grey frames have no third side
            return Estimator(
                model,
                frame=(height, width, channels),
                provider=provider,
                threads=threads,
                min_confidence=min_confidence,
            )

        self._for = functools.lru_cache(_MOST_OPEN)(build)

    def estimate(self, pixels: _U8, seen: _U8) -> _F64:
        """Return the keypoints that the model finds in a view, in px of the full frame."""
        keypoints, _ = self._for(*seen.shape).estimate(seen)
        answer = keypoints.astype(np.float64)
        if seen.shape != pixels.shape:
            # The view covers the same area, so that pixel areas scale, not pixel centres.
            ratio = np.array(pixels.shape[1::-1]) / np.array(seen.shape[1::-1])
            answer[:, :2] = (answer[:, :2] + 0.5) * ratio - 0.5
        return answer


def _hints(model: Path, card: ModelCard, project: Project, split: Path | None) -> list[str]:
    """Say so where frames that trained the model may be among those that judge it."""
    labels = card.provenance.get("labels")
    trained_on = labels.get("project") if isinstance(labels, dict) else None
    if split is not None or trained_on != project.root.resolve().name:
        return []
    beside = model.parent / "split.json"
    file = str(beside) if beside.is_file() else "SPLIT.json"
    return [
        f"the model was trained on a project called {trained_on!r}: frames that it has seen may be "
        f"among these; to judge it by unseen ones give --split {file}"
    ]
