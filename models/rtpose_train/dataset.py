"""Labelled frames: reading a DeepLabCut project.

Label files are read by sleap-io; what it would pass over in silence is checked here first. It
leaves out rows whose image is missing, which moves the labels of the rows after them onto the wrong
images; it sorts the keypoints by name; and it turns a coordinate without its partner into a missing
keypoint.
"""

import csv
import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import sleap_io
from numpy.typing import NDArray

from rtpose.errors import InputError, Problem
from rtpose.skeleton import Skeleton

_MOST_SHOWN = 20

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class LabelledFrame:
    """One image file and where its keypoints are.

    Attributes
    ----------
    name : str
        Path of the image relative to the project, with forward slashes; what splits refer to.
    image : Path
        The image file.
    points : ndarray of float64, shape (keypoints, 2)
        x, y in px of the image; NaN where a keypoint is not labelled.
    where : str
        Label file and row, for messages.
    """

    name: str
    image: Path
    points: NDArray[np.float64]
    where: str


@dataclass(frozen=True, slots=True, eq=False)
class Project:
    """The labelled frames of one project.

    Attributes
    ----------
    root : Path
        Its folder.
    skeleton : Skeleton
        Keypoints in the order of the label file; pairs by their names.
    frames : tuple of LabelledFrame
        Frames with at least one labelled keypoint.
    notes : tuple of str
        What was left out, in words for the user.
    """

    root: Path
    skeleton: Skeleton
    frames: tuple[LabelledFrame, ...]
    notes: tuple[str, ...]


def read_project(path: Path) -> Project:
    """Read a DeepLabCut project.

    Parameters
    ----------
    path : Path
        The project's folder, its ``config.yaml``, or one ``CollectedData*.csv``.

    Raises
    ------
    InputError
        If there is no such project, or anything in its label files cannot be used: every problem
        found, with file and row.
    """
    root, files, config = _locate(path)
    names = _common_keypoints(files)
    # Dictionaries, as sets that keep their order.
    edges: dict[tuple[str, str], None] = {}
    notes: dict[str, None] = {}
    frames: list[LabelledFrame] = []
    for file in files:
        rows = _check_rows(file, root, names)
        labels, warned = _load(file, config)
        if len(labels.labeled_frames) != len(rows):
            raise InputError(
                f"{file}: {len(rows)} rows, of which sleap-io reads {len(labels.labeled_frames)}"
            )
        notes.update(dict.fromkeys(warned))
        for edge in labels.skeletons[0].edges:
            edges[edge.source.name, edge.destination.name] = None
        frames += _frames(labels, file, root, names, rows)
    labelled = [frame for frame in frames if not np.isnan(frame.points).all()]
    if not labelled:
        raise InputError(f"{path}: no labelled frame in {', '.join(str(file) for file in files)}")
    _check_each_keypoint(path, names, labelled)
    left_out = len(frames) - len(labelled)
    if left_out:
        notes[f"{left_out} frames without any label left out"] = None
    skeleton = Skeleton(names, tuple(edges), mirror_pairs(names))
    return Project(root, skeleton, tuple(labelled), tuple(notes))


def _locate(path: Path) -> tuple[Path, list[Path], Path | None]:
    """Return the project's folder, its label files and its configuration."""
    if not path.exists():
        raise InputError(f"{path}: no such project")
    if path.suffix == ".csv":
        return path.parent, [path], None
    config = path / "config.yaml" if path.is_dir() else path
    if not config.is_file() or config.suffix not in {".yaml", ".yml"}:
        raise InputError(
            f"{path}: not a DeepLabCut project; give its folder (the one with config.yaml), "
            "its config.yaml, or a CollectedData file (.csv)"
        )
    files = sorted(config.parent.glob("labeled-data/*/CollectedData*.csv"))
    if not files:
        raise InputError(f"{path}: no labels: no file labeled-data/*/CollectedData*.csv")
    for first, second in itertools.pairwise(files):
        if first.parent == second.parent:
            raise InputError(
                f"{first.parent}: two label files, {first.name} and {second.name}; keep one"
            )
    return config.parent, files, config


def _common_keypoints(files: Sequence[Path]) -> tuple[str, ...]:
    """Return the keypoint names in the order of the first file."""
    names = _read_header(files[0])
    for file in files[1:]:
        others = _read_header(file)
        if set(others) != set(names):
            raise InputError(
                f"{file}: keypoints {', '.join(others)} differ from {files[0]}: {', '.join(names)}"
            )
    return names


def _read_header(file: Path) -> tuple[str, ...]:
    for _, row in _csv_rows(file):
        if row and row[0] == "individuals":
            raise InputError(f"{file}: several individuals; this trainer takes one per frame")
        if row and row[0] == "bodyparts":
            return tuple(dict.fromkeys(cell for cell in row[1:] if cell))
    raise InputError(f"{file}: no header row 'bodyparts': not a DeepLabCut label file")


def _csv_rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield row numbers (as a spreadsheet counts them) and rows."""
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            yield from enumerate(csv.reader(stream), start=1)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: cannot be read: {error}") from error


def _check_rows(file: Path, root: Path, names: Sequence[str]) -> dict[Path, int]:
    """Return the row of every image, or raise with everything that is wrong in the file."""
    rows: dict[Path, int] = {}
    problems: list[Problem] = []
    first_column = 0
    columns: list[str] = []
    for number, row in _csv_rows(file):
        where = f"{file} row {number}"
        if not first_column:
            if row and row[0] == "bodyparts":
                columns = row
            if row and row[0] == "coords":
                first_column = row.index("x")
            continue
        if not any(row):
            continue
        written = "/".join(row[:first_column])
        image = _find_image(file, written)
        if image is None:
            problems.append(Problem(where, f"no image {written}", f"looked in {root}"))
        elif image in rows:
            problems.append(Problem(where, f"{written} is labelled in row {rows[image]} too"))
        else:
            rows[image] = number
        problems += _check_numbers(where, columns[first_column:], row[first_column:])
    _raise(problems)
    return rows


def _find_image(file: Path, written: str) -> Path | None:
    """Return the image that a row names; the places where sleap-io looks."""
    for place in (
        file.parent / written,
        file.parent / Path(written).name,
        file.parent.parent / written,
    ):
        if place.is_file():
            return place
    return None


def _check_numbers(where: str, columns: Sequence[str], cells: Sequence[str]) -> list[Problem]:
    problems: list[Problem] = []
    if len(cells) != len(columns):
        return [Problem(where, f"{len(cells)} coordinates, the header has {len(columns)}")]
    for at in range(0, len(cells) - 1, 2):
        pair = cells[at : at + 2]
        try:
            numbers = [float(cell) if cell.strip() else math.nan for cell in pair]
        except ValueError:
            problems.append(Problem(where, f"{columns[at]} is {pair!r}", "two numbers, or empty"))
            continue
        if math.isnan(numbers[0]) != math.isnan(numbers[1]) or any(map(math.isinf, numbers)):
            problems.append(Problem(where, f"{columns[at]} is {pair!r}", "both numbers, or none"))
    return problems


def _load(file: Path, config: Path | None) -> tuple[sleap_io.Labels, list[str]]:
    """Return the labels of a file, and what sleap-io warns of (edges to unknown keypoints)."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            labels = sleap_io.load_dlc(str(file), config=str(config) if config else False)
    except (ValueError, KeyError, OSError) as error:
        raise InputError(f"{file}: cannot be read as DeepLabCut labels: {error}") from error
    return labels, [f"{config or file}: {warning.message}" for warning in caught]


def _frames(
    labels: sleap_io.Labels, file: Path, root: Path, names: Sequence[str], rows: dict[Path, int]
) -> Iterator[LabelledFrame]:
    order = [labels.skeletons[0].node_names.index(name) for name in names]
    for labelled in labels.labeled_frames:
        image = Path(labelled.video.filename[labelled.frame_idx])
        points = np.full((len(names), 2), np.nan)
        if labelled.instances:
            points = np.asarray(labelled.instances[0].numpy(), np.float64)[order]
        name = image.relative_to(root).as_posix()
        yield LabelledFrame(name, image, points, f"{file} row {rows[image]}")


def _check_each_keypoint(path: Path, names: Sequence[str], frames: Sequence[LabelledFrame]) -> None:
    labelled = np.any([~np.isnan(frame.points[:, 0]) for frame in frames], axis=0)
    missing = [name for name, found in zip(names, labelled, strict=True) if not found]
    if missing:
        raise InputError(
            f"{path}: never labelled in {len(frames)} frames: {', '.join(missing)}; "
            "label them, or take them out of the project"
        )


def _raise(problems: Sequence[Problem]) -> None:
    if problems:
        more = len(problems) - _MOST_SHOWN
        lines = [str(problem) for problem in problems[:_MOST_SHOWN]]
        raise InputError("\n".join([*lines, f"... and {more} more"] if more > 0 else lines))


def mirror_pairs(names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return the left/right partners among keypoint names: those that swap "left" for "right"."""
    pairs = []
    for name in names:
        for left, right in (("left", "right"), ("Left", "Right"), ("LEFT", "RIGHT")):
            partner = name.replace(left, right)
            if partner != name and partner in names:
                pairs.append((name, partner))
    return tuple(pairs)


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
    try:
        encoded = np.frombuffer(frame.image.read_bytes(), np.uint8)
        decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if encoded.size else None
    except (OSError, cv2.error) as error:
        raise InputError(f"{frame.image} cannot be read: {error}") from error
    if decoded is None:
        raise InputError(f"{frame.image} is not an image that OpenCV can read")
    if colour == "gray":
        decoded = cv2.cvtColor(decoded, cv2.COLOR_BGR2GRAY)
    elif colour == "rgb":
        decoded = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    return np.asarray(decoded, np.uint8)


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
    for frame in frames:
        try:
            pixels = read_image(frame, colour)
        except InputError as error:
            problems.append(Problem(frame.where, str(error)))
            continue
        height, width = pixels.shape[:2]
        # NaN compares false, so that a missing keypoint is not outside.
        low, high = frame.points < -0.5, frame.points > np.array([width, height]) - 0.5
        outside = np.logical_or(low, high).max(axis=1)
        for x, y in frame.points[outside]:
            notes.append(
                f"{frame.where}: label at {x:g}, {y:g} lies outside the {width}x{height} image; "
                "taken as not labelled"
            )
        converted.append(convert(pixels, np.where(outside[:, None], np.nan, frame.points)))
    _raise(problems)
    return converted, notes
