"""DeepPoseKit's annotation files (.h5).

Layout (jgraving/DeepPoseKit, v0.3): ``images`` (frames, height, width, channels), ``annotations``
(frames, keypoints, 2), ``annotated`` (frames, keypoints), ``skeleton`` (keypoints, [parent,
swap]), and, in some files only, ``skeleton_names``.
"""

import csv
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from rtpose.errors import InputError
from rtpose_train.data.images import Stored, VideoFrame
from rtpose_train.data.labels import Entry, Individual, Labels
from rtpose_train.data.sleap_formats import open_stored

#: Both coordinates of a keypoint that was never set, and of one that a generator took for NaN.
_MISSING = (-1.0, -99999.0)
#: Names are stored in so many bytes, the rest of them lost.
_NAME_BYTES = 10


def is_deepposekit(file: Path) -> bool:
    """Return whether an HDF5 file has DeepPoseKit's datasets."""
    try:
        with h5py.File(file) as stored:
            return {"images", "annotations", "annotated", "skeleton"} <= set(stored)
    except (OSError, KeyError, RuntimeError):
        return False


def read_deepposekit(file: Path) -> Labels:
    """Read a DeepPoseKit annotation file.

    Keypoints are named by ``skeleton_names``, else by a ``skeleton.csv`` beside the file. Frames
    of which not all keypoints are marked as annotated hold predictions, and are left out; only if
    none is marked, all are taken, and the user is told.

    Raises
    ------
    InputError
        If the datasets do not fit each other, or the file is damaged.
    """
    try:
        with h5py.File(file) as stored:
            images = stored["images"].shape
            points = np.asarray(stored["annotations"], np.float64)
            annotated = np.asarray(stored["annotated"], bool)
            skeleton = np.asarray(stored["skeleton"], np.int64)
            has_names = "skeleton_names" in stored
            given = [bytes(n).decode() for n in stored["skeleton_names"]] if has_names else []
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{file}: not DeepPoseKit annotations: {error}") from error
    _check_shapes(file, images, points, annotated, skeleton)
    names, notes = _names(file, given, len(skeleton))
    labels = Labels(file.parent, names, [], notes=notes)
    _add_skeleton(file, labels, skeleton)
    taken = _taken(file, annotated, notes)
    for value in _MISSING:
        points[(points == value).all(axis=2)] = np.nan
    # DeepPoseKit reads pictures with OpenCV, and stores them as they are.
    opened = partial(open_stored, file, "images")
    video = Stored(file, opened, blue_first=True)
    labels.entries += [
        Entry(
            f"{file.name}#{row}",
            VideoFrame(video, row),
            file.name,
            f"{file} frame {row}",
            (Individual("", points[row]),),
        )
        for row in taken
    ]
    return labels


def _taken(file: Path, annotated: NDArray[np.bool_], notes: list[str]) -> list[int]:
    """Return the frames that are labels; note what the user should know of the others."""
    complete = np.flatnonzero(annotated.all(axis=1)).tolist()
    if not complete:
        notes.append(
            f"{file}: no frame is marked as annotated; all {len(annotated)} are taken as they "
            "are, and may be predictions that nobody has looked at"
        )
        return list(range(len(annotated)))
    if len(complete) < len(annotated):
        left_out = len(annotated) - len(complete)
        notes.append(f"{file}: {left_out} frames that are not annotated left out")
    return [int(row) for row in complete]


def _check_shapes(
    file: Path,
    images: tuple[int, ...],
    points: NDArray[np.float64],
    annotated: NDArray[np.bool_],
    skeleton: NDArray[np.int64],
) -> None:
    fit = (
        len(images) == 4
        and points.ndim == 3
        and points.shape == (images[0], len(skeleton), 2)
        and annotated.shape == points.shape[:2]
        and skeleton.shape[1:] == (2,)
    )
    if not fit:
        raise InputError(
            f"{file}: images {images}, annotations {points.shape}, annotated {annotated.shape} "
            f"and skeleton {skeleton.shape} do not fit each other; (frames, height, width, "
            "channels), (frames, keypoints, 2), (frames, keypoints) and (keypoints, 2) do"
        )


def _names(file: Path, given: Sequence[str], count: int) -> tuple[tuple[str, ...], list[str]]:
    """Return the keypoints' names, and what the user should know of them."""
    table = file.with_name("skeleton.csv")
    if table.is_file():
        try:
            with table.open(newline="", encoding="utf-8") as stream:
                named = tuple(row["name"] for row in csv.DictReader(stream))
        except (OSError, KeyError, UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{table}: no column 'name' can be read: {error}") from error
        cut = tuple(name.encode()[:_NAME_BYTES].decode(errors="ignore") for name in named)
        if len(named) == count and (not given or cut == tuple(given)):
            return named, []
        raise InputError(
            f"{table}: names {', '.join(named)}; {file.name} has {count} keypoints"
            + (f": {', '.join(given)}" if given else "")
        )
    if given and len(set(given)) == len(given) == count and all(given):
        return tuple(given), []
    if given:
        raise InputError(
            f"{file}: skeleton_names {', '.join(given)} are not {count} different names (they are "
            f"cut after {_NAME_BYTES} letters); put the skeleton.csv they come from beside it"
        )
    numbered = tuple(f"keypoint{number:02d}" for number in range(count))
    return numbered, [f"{file}: no names inside and no skeleton.csv beside it; named by number"]


def _add_skeleton(file: Path, labels: Labels, skeleton: NDArray[np.int64]) -> None:
    """Add the edges, and the pairs that both partners agree on."""
    names, count = labels.names, len(labels.names)
    parents, swaps = skeleton[:, 0], skeleton[:, 1]
    if ((skeleton < -1) | (skeleton >= count)).any():
        raise InputError(f"{file}: skeleton has indices outside -1 to {count - 1}")
    labels.edges += [
        (names[parent], names[child])
        for child, parent in enumerate(parents.tolist())
        if parent not in (-1, child)
    ]
    for own, partner in enumerate(swaps.tolist()):
        if partner == -1:
            continue
        # DeepPoseKit turns the column round when it loads a skeleton: an error in one row
        # surfaces in another. Only what both rows say is used.
        if swaps[partner] != own or partner == own:
            labels.notes.append(
                f"{file}: {names[own]} swaps with {names[partner]}, which does not swap with it; "
                "this pair is not taken from the file"
            )
        elif own < partner:
            labels.pairs.append((names[own], names[partner]))
