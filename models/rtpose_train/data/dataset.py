"""Labelled frames: reading what labs label with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from rtpose.errors import InputError, Problem
from rtpose_train.data import deeplabcut, deepposekit, json_formats, leap_labels, sleap_formats
from rtpose_train.data.images import to_colour
from rtpose_train.data.labels import LabelledFrame, Labels, Project, finish, raise_problems
from rtpose_train.data.mirror import mirror_pairs

__all__ = ["LabelledFrame", "Project", "load_frames", "mirror_pairs", "read_image", "read_project"]

_CONFIGURATION = "config.yaml"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Format:
    """A kind of label file: what it is called, how it ends, how it is known, and its reader."""

    about: str
    suffixes: tuple[str, ...]
    matches: Callable[[Path], bool]
    read: Callable[[Path], Labels]


_FORMATS = (
    _Format("SLEAP (.slp)", (".slp",), lambda _: True, sleap_formats.read_slp),
    _Format("COCO keypoints (.json)", (".json",), json_formats.is_coco, json_formats.read_coco),
    _Format(
        "Label Studio (.json)",
        (".json",),
        json_formats.is_label_studio,
        json_formats.read_label_studio,
    ),
    _Format("LEAP (.mat)", (".mat",), lambda _: True, leap_labels.read_leap),
    _Format("NWB (.nwb)", (".nwb",), lambda _: True, sleap_formats.read_nwb),
    _Format(
        "DeepPoseKit (.h5)",
        (".h5", ".hdf5"),
        deepposekit.is_deepposekit,
        deepposekit.read_deepposekit,
    ),
)
_READABLE = "; ".join(
    [
        "DeepLabCut (the folder with config.yaml, its config.yaml, or a CollectedData csv)",
        *(kind.about for kind in _FORMATS),
        "or a folder with exactly one such file",
    ]
)


def read_project(path: Path, individual: str | None = None) -> Project:
    """Read labelled frames.

    Parameters
    ----------
    path : Path
        A DeepLabCut project (its folder, its ``config.yaml``, or one ``CollectedData*.csv``), a
        label file of SLEAP, COCO, LEAP, Label Studio, NWB or DeepPoseKit, or a folder with
        exactly one label file.
    individual : str, optional
        Which animal, where frames have several: its name (a SLEAP track, a DeepLabCut individual,
        COCO's ``track_<number>``), or, in a file without names, its place in the frame, from 0.

    Raises
    ------
    InputError
        If there is no such project, or anything in its label files cannot be used: every problem
        found, with file and row.
    """
    if not path.exists():
        raise InputError(f"{path}: no such project")
    file = _only_label_file(path) if path.is_dir() else path
    return finish(path, _read(file, individual), individual)


def _read(file: Path, individual: str | None) -> Labels:
    suffix = file.suffix.lower()
    if suffix in {".csv", ".yaml", ".yml"}:
        return deeplabcut.read(file, individual)
    candidates = [kind for kind in _FORMATS if suffix in kind.suffixes]
    for kind in candidates:
        if kind.matches(file):
            return kind.read(file)
    looked_for = f"neither of: {', '.join(k.about for k in candidates)}; " if candidates else ""
    raise InputError(f"{file}: not a project of labels; {looked_for}what is read: {_READABLE}")


def _only_label_file(folder: Path) -> Path:
    if (folder / _CONFIGURATION).is_file() and (folder / "labeled-data").is_dir():
        return folder / _CONFIGURATION
    found = sorted(file for file in folder.iterdir() if file.is_file() and _is_labels(file))
    if len(found) == 1:
        return found[0]
    have = f"several label files ({', '.join(f.name for f in found)})" if found else "no labels"
    raise InputError(f"{folder}: {have}; what is read: {_READABLE}")


def _is_labels(file: Path) -> bool:
    suffix = file.suffix.lower()
    if suffix == ".csv":
        return deeplabcut.is_deeplabcut(file)
    return any(suffix in kind.suffixes and kind.matches(file) for kind in _FORMATS)


def read_image(frame: LabelledFrame, colour: str) -> NDArray[np.uint8]:
    """Return a frame's pixels, shape (height, width) or (height, width, 3), as a camera would.

    Parameters
    ----------
    frame : LabelledFrame
        The frame.
    colour : {'gray', 'rgb', 'bgr'}
        What the model takes.

    Raises
    ------
    InputError
        If the image cannot be decoded.
    """
    return to_colour(frame.image.read(), colour)


def load_frames(
    frames: Sequence[LabelledFrame],
    colour: str,
    convert: Callable[[NDArray[np.uint8], NDArray[np.float64]], T],
) -> tuple[list[T], list[str]]:
    """Read images, and turn each with its points into what is wanted of it.

    Parameters
    ----------
    frames : sequence of LabelledFrame
        Which.
    colour : {'gray', 'rgb', 'bgr'}
        What the model takes.
    convert : callable
        Called with the pixels and the points of every frame. A point that lies outside its image
        has become NaN.

    Returns
    -------
    list
        What `convert` returned.
    list of str
        The points outside their image, in words for the user.

    Raises
    ------
    InputError
        If images cannot be read: all of them, with file and row.
    """
    converted: list[T] = []
    notes: list[str] = []
    problems: list[Problem] = []
    for place, frame in enumerate(frames):
        try:
            pixels = read_image(frame, colour)
        except InputError as error:
            problems.append(Problem(frame.where, str(error)))
            continue
        finally:
            # One video is open at a time: a project may have hundreds.
            if place + 1 == len(frames) or frames[place + 1].video != frame.video:
                frame.image.close()
        points, outside = _inside(frame, pixels.shape)
        notes += outside
        converted.append(convert(pixels, points))
    raise_problems(problems)
    return converted, notes


def _inside(frame: LabelledFrame, shape: tuple[int, ...]) -> tuple[NDArray[np.float64], list[str]]:
    """Return the points with NaN for those outside the image, and those in words."""
    height, width = shape[:2]
    # NaN compares false, so that a missing keypoint is not outside.
    low, high = frame.points < -0.5, frame.points > np.array([width, height]) - 0.5
    outside = np.logical_or(low, high).max(axis=1)
    notes = [
        f"{frame.where}: label at {x:g}, {y:g} lies outside the {width}x{height} image; "
        "taken as not labelled"
        for x, y in frame.points[outside]
    ]
    return np.where(outside[:, None], np.nan, frame.points), notes
