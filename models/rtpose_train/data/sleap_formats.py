"""SLEAP (.slp) and NWB (.nwb), read by sleap-io, and its labels turned into ours.

sleap-io reads predictions beside labels, several skeletons, and label files whose videos are
missing. Only labels by hand are taken here, of one skeleton, and every video must be found.
"""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import sleap_io

from rtpose.errors import InputError, Problem
from rtpose_train.data.images import (
    VIDEO_SUFFIXES,
    Image,
    ImageFile,
    Stored,
    Video,
    VideoFrame,
    find_file,
    name_of,
)
from rtpose_train.data.labels import Entry, Individual, Labels, noting, raise_problems

#: What damaged and foreign files make sleap-io, h5py and pynwb raise.
_READ_ERRORS = (OSError, KeyError, ValueError, IndexError, TypeError, AttributeError, RuntimeError)

_PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp"})


def read_slp(file: Path) -> Labels:
    """Read SLEAP labels; frames lie in a package (.pkg.slp), or in videos or images beside it.

    Raises
    ------
    InputError
        If the file is damaged, holds no labels by hand, or names videos that are not there.
    """
    read, notes = _load(file, partial(sleap_io.load_slp, str(file), open_videos=False))
    try:
        with h5py.File(file) as stored:
            count = stored["instances"].shape[0]
    except _READ_ERRORS as error:
        raise InputError(f"{file}: cannot be read as SLEAP labels: {error}") from error
    found = sum(len(frame.instances) for frame in read.labeled_frames)
    if found != count:
        raise InputError(f"{file}: {count} instances, of which sleap-io reads {found}")
    return from_sleap_io(file, read, notes)


def read_nwb(file: Path) -> Labels:
    """Read NWB labels (ndx-pose's PoseTraining); frames lie in videos or images beside it.

    Raises
    ------
    InputError
        If the file is damaged, holds predictions only, or names videos that are not there.
    """
    read, notes = _load(file, partial(_read_training, file))
    return from_sleap_io(file, read, notes)


def _read_training(file: Path) -> Any:
    # Slow to import, and of no use to other formats.
    from pynwb import NWBHDF5IO
    from sleap_io.io import nwb_annotations

    with NWBHDF5IO(file, mode="r") as stored:
        processing = stored.read().processing
        behavior = processing.get("behavior", {})
        if "PoseTraining" not in getattr(behavior, "data_interfaces", {}):
            raise InputError(
                f"{file}: no PoseTraining in it; poses that were predicted are no labels"
            )
        training = behavior["PoseTraining"]
        for series in training.source_videos.image_series.values():
            if series.external_file is None:
                raise InputError(
                    f"{file}: the frames of {series.name} lie inside it, which is not read; "
                    "keep them in a video or in images beside it"
                )
            # sleap-io takes a list of image files for one only if it is a Python list.
            series.fields["external_file"] = [str(name) for name in series.external_file]
        return nwb_annotations.nwb_pose_training_to_sleap_labels(training, behavior["Skeletons"])


def _load(file: Path, load: Callable[[], Any]) -> tuple[Any, list[str]]:
    try:
        return noting(file, load)
    except _READ_ERRORS as error:
        raise InputError(f"{file}: cannot be read as {file.suffix} labels: {error}") from error


def from_sleap_io(file: Path, read: Any, notes: list[str]) -> Labels:
    """Turn ``sleap_io.Labels`` into ours.

    Parameters
    ----------
    file : Path
        Where they come from.
    read : sleap_io.Labels
        What sleap-io made of it.
    notes : list of str
        What the user should be told already.

    Raises
    ------
    InputError
        If there are several skeletons, no labels by hand, or a video is not found.
    """
    skeleton = _only_skeleton(file, read)
    places = _Places(file)
    predicted = unlabelled = 0
    entries = []
    for labelled in read.labeled_frames:
        by_hand = [i for i in labelled.instances if not isinstance(i, sleap_io.PredictedInstance)]
        predicted += len(labelled.instances) - len(by_hand)
        if not by_hand:  # its video need not be there
            unlabelled += 1
            continue
        found = places.find(labelled.video, int(labelled.frame_idx))
        if found is not None:
            image, video, name = found
            animals = individuals_of(by_hand)
            entries.append(Entry(name, image, video, f"{file}: {name}", animals))
    raise_problems(places.problems)
    if predicted and not entries:
        raise InputError(
            f"{file}: {predicted} predicted instances and no label by hand; "
            "correct predictions first, so that they become labels"
        )
    if predicted:
        notes.append(f"{file}: {predicted} predicted instances left out: only labels are taken")
    if unlabelled:
        notes.append(f"{file}: {unlabelled} frames without a label by hand left out")
    edges = [(edge.source.name, edge.destination.name) for edge in skeleton.edges]
    names = tuple(str(name) for name in skeleton.node_names)
    return Labels(file.parent, names, entries, edges, _pairs(file, skeleton, notes), notes)


def _pairs(file: Path, skeleton: Any, notes: list[str]) -> list[tuple[str, str]]:
    pairs = []
    for symmetry in skeleton.symmetries:
        couple = [str(node.name) for node in skeleton.nodes if node in symmetry.nodes]
        if len(couple) == 2:
            pairs.append((couple[0], couple[1]))
        else:
            notes.append(f"{file}: a symmetry of {', '.join(couple)} is not a pair; left out")
    return pairs


def _only_skeleton(file: Path, read: Any) -> Any:
    used = {
        id(instance.skeleton): instance.skeleton
        for labelled in read.labeled_frames
        for instance in labelled.instances
    }
    skeletons = list(used.values()) or list(read.skeletons)
    if not skeletons:
        raise InputError(f"{file}: no skeleton and no labelled frame")
    names = [tuple(skeleton.node_names) for skeleton in skeletons]
    if len(set(names)) > 1:
        raise InputError(
            f"{file}: labels of {len(set(names))} skeletons: "
            f"{' and '.join('/'.join(map(str, n)) for n in dict.fromkeys(names))}; keep one"
        )
    return skeletons[0]


class _Places:
    """Finds the frames that labels are of; every video is looked for once.

    Attributes
    ----------
    problems : list of Problem
        What was not found.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self._videos: dict[tuple[str, str], tuple[Video | Stored, str] | None] = {}

    def find(self, video: Any, index: int) -> tuple[Image, str, str] | None:
        """Return a frame, the name of its video, and its own; None if it is not found."""
        if not isinstance(video.filename, str):  # a list, or NWB's array of image files
            written = [str(name) for name in video.filename]
            if 0 <= index < len(written):
                return self._picture(written[index])
            what = f"frame {index} of {len(written)} images is labelled"
            self.problems.append(Problem(str(self.file), what))
            return None
        if Path(video.filename).suffix.lower() in _PICTURE_SUFFIXES:
            return self._picture(video.filename)
        key = (video.filename, str(video.backend_metadata.get("dataset") or ""))
        if key not in self._videos:
            self._videos[key] = self._open(video, key[1])
        found = self._videos[key]
        if found is None:
            return None
        return VideoFrame(found[0], index), found[1], f"{found[1]}#{index}"

    def _picture(self, written: str) -> tuple[Image, str, str] | None:
        path = self._look_for("image", written)
        if path is None:
            return None
        name = name_of(path, self.file.parent)
        return ImageFile(path), Path(name).parent.as_posix(), name

    def _open(self, video: Any, dataset: str) -> tuple[Video | Stored, str] | None:
        path = self._look_for("video", video.filename)
        if path is None:
            return None
        name = name_of(path, self.file.parent)
        crop = video.crop_rect
        if path.suffix.lower() in VIDEO_SUFFIXES and crop is None:
            return Video(path), name
        layout = video.backend_metadata.get("input_format") or "channels_last"
        opened = partial(open_stored, path, dataset or None, layout, crop)
        return Stored(path, opened), f"{name}/{dataset}" if dataset else name

    def _look_for(self, kind: str, written: str) -> Path | None:
        path = find_file(self.file.parent, written)
        if path is None:
            self.problems.append(
                Problem(
                    str(self.file),
                    f"no {kind} {written}",
                    f"looked there and, by the end of that path, in {self.file.parent}; "
                    "put it beside the label file",
                )
            )
        return path


def open_stored(
    path: Path,
    dataset: str | None,
    layout: str = "channels_last",
    crop: tuple[int, int, int, int] | None = None,
) -> Any:
    """Open frames that are not in a common video file.

    Parameters
    ----------
    path : Path
        HDF5, SLEAP package, TIFF stack, Norpix sequence, or a video of which a crop is wanted.
    dataset : str, optional
        Dataset of an HDF5 file.
    layout : {'channels_last', 'channels_first'}
        Order of its axes; the second is how MATLAB's (height, width, channels, frames) arrives.
    crop : (x, y, right, bottom), optional
        Part of the frame to look at, in px.

    Returns
    -------
    sleap_io.Video
    """
    # Whether pixels are grey is not guessed from the first frame: they stay as they are stored.
    video = sleap_io.Video.from_filename(
        str(path), dataset=dataset, grayscale=False, input_format=layout
    )
    return video if crop is None else video.crop(crop, share_decode=False)


def individuals_of(instances: Iterable[Any]) -> tuple[Individual, ...]:
    """Turn ``sleap_io.Instance`` objects into ours."""
    return tuple(
        Individual(
            str(instance.track.name) if instance.track else "",
            np.asarray(instance.numpy(), np.float64),
        )
        for instance in instances
    )
