"""What every label format is turned into, and what is checked for all of them."""

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from rtpose.errors import InputError, Problem
from rtpose.skeleton import Skeleton
from rtpose_train.data.images import Image
from rtpose_train.data.mirror import mirror_pairs

_MOST_SHOWN = 20
_MOST_NAMED = 5

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class LabelledFrame:
    """One frame and where its keypoints are.

    Attributes
    ----------
    name : str
        What splits refer to, different for every frame of the project: the path of the image
        relative to the project, with forward slashes; for a frame of a video the video's path,
        ``#`` and the frame's index, which counts from 0.
    image : Image
        Where its pixels are.
    points : ndarray of float64, shape (keypoints, 2)
        x, y in px of the image; NaN where a keypoint is not labelled.
    where : str
        Label file and row, for messages.
    video : str
        The video that the frame is of, or the folder of its image.
    """

    name: str
    image: Image
    points: NDArray[np.float64]
    where: str
    video: str = "."


@dataclass(frozen=True, slots=True, eq=False)
class Project:
    """The labelled frames of one project.

    Attributes
    ----------
    root : Path
        Its folder.
    skeleton : Skeleton
        Keypoints in the order of the label file; pairs that it tells, and else by their names.
    frames : tuple of LabelledFrame
        Frames with at least one labelled keypoint.
    notes : tuple of str
        What was left out, in words for the user.
    """

    root: Path
    skeleton: Skeleton
    frames: tuple[LabelledFrame, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Individual:
    """One animal in a frame: its name, empty if the format has none, and its keypoints."""

    name: str
    points: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One frame as a label file has it: see `LabelledFrame`."""

    name: str
    image: Image
    video: str
    where: str
    individuals: tuple[Individual, ...]


@dataclass(slots=True, eq=False)
class Labels:
    """A label file's content, before one individual per frame is chosen.

    Attributes
    ----------
    root : Path
        The project's folder.
    names : tuple of str
        Keypoints.
    entries : list of Entry
    edges, pairs : list of (str, str)
        What the format itself tells; empty if nothing.
    notes : list of str
        What was left out, in words for the user.
    """

    root: Path
    names: tuple[str, ...]
    entries: list[Entry]
    edges: list[tuple[str, str]] = field(default_factory=list)
    pairs: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def raise_problems(problems: Sequence[Problem]) -> None:
    """Raise `InputError` with the problems, if there are any, one per line."""
    if problems:
        more = len(problems) - _MOST_SHOWN
        lines = [str(problem) for problem in problems[:_MOST_SHOWN]]
        raise InputError("\n".join([*lines, f"... and {more} more"] if more > 0 else lines))


def noting(where: object, read: Callable[[], T]) -> tuple[T, list[str]]:
    """Return what `read` returns, and what it warned of, in words for the user.

    Libraries warn of what they leave out: the user is told, and a test is not failed by it.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = read()
    return result, list(dict.fromkeys(f"{where}: {warning.message}" for warning in caught))


def finish(path: Path, labels: Labels, individual: str | None) -> Project:
    """Choose one individual per frame, and check what must hold for every format.

    Parameters
    ----------
    path : Path
        What the user gave, for messages.
    labels : Labels
        The label file's content.
    individual : str, optional
        Which one: its name, or, in a file without names, its place in the frame, from 0.

    Raises
    ------
    InputError
        If a frame occurs twice, coordinates are not numbers, frames have several individuals and
        none was chosen, there is no such individual, no frame is labelled, or a keypoint never is.
    """
    raise_problems(_check_entries(labels.entries))
    frames, notes = _choose(path, labels.entries, individual)
    if not frames:
        raise InputError(f"{path}: no labelled frame; label some, and give the file again")
    labelled = np.any([~np.isnan(frame.points[:, 0]) for frame in frames], axis=0)
    missing = [name for name, found in zip(labels.names, labelled, strict=True) if not found]
    if missing:
        raise InputError(
            f"{path}: never labelled in {len(frames)} frames: {', '.join(missing)}; "
            "label them, or take them out of the project"
        )
    told = {name for pair in labels.pairs for name in pair}
    by_name = [pair for pair in mirror_pairs(labels.names) if told.isdisjoint(pair)]
    skeleton = Skeleton(labels.names, tuple(dict.fromkeys(labels.edges)), (*labels.pairs, *by_name))
    return Project(labels.root, skeleton, tuple(frames), (*dict.fromkeys(labels.notes), *notes))


def _check_entries(entries: Sequence[Entry]) -> list[Problem]:
    problems: list[Problem] = []
    seen: dict[str, str] = {}
    for entry in entries:
        if entry.name in seen:
            what = f"{entry.name} is labelled in {seen[entry.name]} too"
            problems.append(Problem(entry.where, what, "keep one of them"))
        seen.setdefault(entry.name, entry.where)
        for individual in entry.individuals:
            unequal = np.isnan(individual.points[:, 0]) != np.isnan(individual.points[:, 1])
            wrong = unequal | np.isinf(individual.points).any(axis=1)
            for x, y in individual.points[wrong]:
                problems.append(
                    Problem(entry.where, f"a keypoint at {x:g}, {y:g}", "both numbers, or none")
                )
    return problems


def _choose(
    path: Path, entries: Sequence[Entry], individual: str | None
) -> tuple[list[LabelledFrame], list[str]]:
    """Return the labelled frames, and how many were left out."""
    present = [
        [animal for animal in entry.individuals if not np.isnan(animal.points).all()]
        for entry in entries
    ]
    names = Counter(animal.name for animals in present for animal in animals if animal.name)
    most = max((len(entry.individuals) for entry in entries), default=0)
    allowed = sorted(names) or [str(place) for place in range(most)]
    if individual is None:
        chosen = present
        crowded = [entry for entry, animals in zip(entries, present, strict=True) if animals[1:]]
        what = f"several individuals in {len(crowded)} of {len(entries)} frames"
        fix = f"one per frame is taken; choose one individual: {', '.join(allowed)}"
    elif individual not in allowed:
        raise InputError(
            f"{path}: no individual {individual!r}; there are: {', '.join(allowed) or 'none'}"
        )
    else:
        chosen = [_called(individual, entry, bool(names)) for entry in entries]
        crowded = [entry for entry, animals in zip(entries, chosen, strict=True) if animals[1:]]
        what = f"several individuals called {individual!r} in {len(crowded)} frames"
        fix = "give each a name of its own"
    if crowded:
        shown = ", ".join(entry.name for entry in crowded[:_MOST_NAMED])
        dots = ", ..." if len(crowded) > _MOST_NAMED else ""
        raise InputError(f"{path}: {what} ({shown}{dots}); {fix}")
    frames = [
        LabelledFrame(entry.name, entry.image, animals[0].points, entry.where, entry.video)
        for entry, animals in zip(entries, chosen, strict=True)
        if animals
    ]
    left_out = len(entries) - len(frames)
    of = f" of {individual}" if individual is not None else ""
    return frames, [f"{left_out} frames without any label{of} left out"] if left_out else []


def _called(name: str, entry: Entry, have_names: bool) -> list[Individual]:
    """Return those of an entry's individuals that have the name (or place) and a keypoint."""
    if have_names:
        found = [animal for animal in entry.individuals if animal.name == name]
    else:
        found = list(entry.individuals[int(name) : int(name) + 1])
    return [animal for animal in found if not np.isnan(animal.points).all()]
