"""LEAP's label files (.labels.mat).

Read with pymatreader, which sleap-io reads them with too, but not through sleap-io: it takes
MATLAB's coordinates, which count pixels from 1, for ours, turns two labelled frames the wrong way,
and cuts off keypoints that have no name. Layout: talmo/leap, ``label_joints.m`` and
``pts2confmaps.m`` (Pereira et al. 2019).
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtpose.errors import InputError, MissingExtraError
from rtpose_train.data.images import VIDEO_SUFFIXES, Stored, Video, VideoFrame, find_file, name_of
from rtpose_train.data.labels import Entry, Individual, Labels, noting
from rtpose_train.data.sleap_formats import open_stored

_BOX = "box"


def read_leap(file: Path) -> Labels:
    """Read LEAP's labels; frames lie in the HDF5 file that they name, dataset ``box``.

    Raises
    ------
    InputError
        If the file is damaged, not LEAP's, or its frames are not found.
    MissingExtraError
        If pymatreader is not installed.
    """
    data, notes = _load(file)
    try:
        skeleton = data["skeleton"]
        nodes = skeleton["nodes"] if "nodes" in skeleton else skeleton["joints"]
        names = (str(nodes),) if isinstance(nodes, str) else tuple(str(name) for name in nodes)
        positions = _positions(file, np.asarray(data["positions"], np.float64), len(names))
        edges = np.asarray(skeleton.get("edges", []), np.int64).reshape(-1, 2) - 1
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{file}: not LEAP labels: {error!r}; skeleton.nodes and positions are needed"
        ) from error
    video, video_name = _video(file, str(data.get("boxPath", "")))
    entries = [
        Entry(
            f"{video_name}#{index}",
            VideoFrame(video, index),
            video_name,
            f"{file} frame {index + 1}",
            (Individual("", points - 1),),
        )
        for index, points in enumerate(positions)
    ]
    labels = Labels(file.parent, names, entries, notes=notes)
    if edges.size and (edges.min() < 0 or edges.max() >= len(names)):
        labels.notes.append(f"{file}: edges to keypoints that there are not; no edges are taken")
    else:
        labels.edges += [(names[a], names[b]) for a, b in edges]
    return labels


def _load(file: Path) -> tuple[dict[str, Any], list[str]]:
    try:
        from pymatreader import read_mat
        from scipy.io.matlab import MatReadError
    except ModuleNotFoundError as error:
        raise MissingExtraError("pymatreader", "train", "reading LEAP labels (.mat)") from error
    try:
        return noting(file, partial(read_mat, str(file)))
    except (MatReadError, OSError, ValueError, KeyError, TypeError, NotImplementedError) as error:
        raise InputError(f"{file}: cannot be read as a MATLAB file: {error}") from error


def _positions(file: Path, stored: NDArray[np.float64], keypoints: int) -> NDArray[np.float64]:
    """Return positions of shape (frames, keypoints, 2)."""
    # MATLAB stores (keypoints, 2, frames), and one frame as (keypoints, 2).
    if stored.ndim in (2, 3) and stored.shape[:2] == (keypoints, 2):
        return np.moveaxis(stored.reshape(keypoints, 2, -1), 2, 0)
    raise InputError(
        f"{file}: positions of shape {stored.shape}; ({keypoints} keypoints, 2, frames) is needed"
    )


def _video(file: Path, written: str) -> tuple[Video | Stored, str]:
    stem = file.name.removesuffix(".mat").removesuffix(".labels")
    beside = [file.with_name(stem + suffix) for suffix in (".h5", ".mp4")]
    path = find_file(file.parent, written) if written else None
    path = path or next((place for place in beside if place.is_file()), None)
    if path is None:
        raise InputError(
            f"{file}: no frames: boxPath is {written!r}; looked for it there, by the end of that "
            f"path in {file.parent}, and for {' and '.join(place.name for place in beside)} there"
        )
    name = name_of(path, file.parent)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return Video(path), name
    return Stored(path, partial(open_stored, path, _BOX, "channels_first")), name
