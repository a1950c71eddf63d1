"""DeepLabCut projects.

Label files are read by sleap-io; what it would pass over in silence is checked here first. It
leaves out rows whose image is missing, which moves the labels of the rows after them onto the wrong
images; it sorts the keypoints by name; and it turns a coordinate without its partner into a missing
keypoint.
"""

import csv
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import sleap_io

from rtpose.errors import InputError, Problem
from rtpose_train.data.images import ImageFile, name_of
from rtpose_train.data.labels import Entry, Individual, Labels, noting, raise_problems
from rtpose_train.data.sleap_formats import individuals_of


@dataclass(frozen=True, slots=True)
class _Header:
    """The columns of a label file.

    Attributes
    ----------
    row : int
        The last row of the header.
    first_column : int
        The first column with coordinates; those before it make up the image's path.
    columns : tuple of (str, str)
        Individual (empty if the file has none) and keypoint of every such column.
    """

    row: int
    first_column: int
    columns: tuple[tuple[str, str], ...]

    @property
    def individuals(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(individual for individual, _ in self.columns))

    def keypoints(self, individual: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for owner, name in self.columns if owner == individual))


def is_deeplabcut(file: Path) -> bool:
    """Return whether a csv file has the header of DeepLabCut labels."""
    try:
        _read_header(file)
    except InputError:
        return False
    return True


def read(path: Path, individual: str | None) -> Labels:
    """Read a DeepLabCut project: its ``config.yaml``, or one ``CollectedData*.csv``.

    Raises
    ------
    InputError
        If there is no label file, or anything in one cannot be used: every problem found, with
        file and row.
    """
    root, files, config = _locate(path)
    headers = {file: _read_header(file) for file in files}
    owner = _owner(headers, individual)
    labels = Labels(root, _common_keypoints(headers, owner), [])
    for file, header in headers.items():
        rows = _check_rows(file, root, header)
        read, notes = _load(file, config)
        if len(read.labeled_frames) != len(rows):
            raise InputError(
                f"{file}: {len(rows)} rows, of which sleap-io reads {len(read.labeled_frames)}"
            )
        labels.notes += notes
        if read.skeletons:
            labels.edges += [
                (edge.source.name, edge.destination.name)
                for edge in read.skeletons[0].edges
                if {edge.source.name, edge.destination.name} <= set(labels.names)
            ]
        labels.entries += _entries(read, file, labels, rows)
    return labels


def _locate(path: Path) -> tuple[Path, list[Path], Path | None]:
    """Return the project's folder, its label files and its configuration."""
    if path.suffix == ".csv":
        return path.parent, [path], None
    files = sorted(path.parent.glob("labeled-data/*/CollectedData*.csv"))
    if not files:
        raise InputError(f"{path}: no labels: no file labeled-data/*/CollectedData*.csv")
    for first, second in itertools.pairwise(files):
        if first.parent == second.parent:
            raise InputError(
                f"{first.parent}: two label files, {first.name} and {second.name}; keep one"
            )
    return path.parent, files, path


def _owner(headers: dict[Path, _Header], individual: str | None) -> str:
    """Return the individual whose columns count, empty if the files name none."""
    everyone = list(dict.fromkeys(name for h in headers.values() for name in h.individuals))
    if individual in everyone:
        return individual
    if len(everyone) > 1:
        files = ", ".join(str(file) for file, h in headers.items() if h.individuals != ("",))
        raise InputError(
            f"{files}: several individuals; one per frame is taken; "
            f"choose one individual: {', '.join(filter(None, everyone))}"
        )
    return everyone[0]


def _common_keypoints(headers: dict[Path, _Header], owner: str) -> tuple[str, ...]:
    """Return the keypoint names in the order of the first file."""
    (first, header), *others = headers.items()
    names = header.keypoints(owner)
    for file, other in others:
        found = other.keypoints(owner)
        if set(found) != set(names):
            raise InputError(
                f"{file}: keypoints {', '.join(found)} differ from {first}: {', '.join(names)}"
            )
    return names


def _csv_rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield row numbers (as a spreadsheet counts them) and rows."""
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            yield from enumerate(csv.reader(stream), start=1)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: cannot be read: {error}") from error


def _read_header(file: Path) -> _Header:
    rows: dict[str, list[str]] = {}
    for number, row in _csv_rows(file):
        if row:
            rows[row[0]] = row
        if "coords" in rows or number > 4:
            break
    if "bodyparts" not in rows:
        raise InputError(f"{file}: no header row 'bodyparts': not a DeepLabCut label file")
    if "x" not in rows.get("coords", ()):
        raise InputError(f"{file}: no header row 'coords' with x, y: not a DeepLabCut label file")
    start = rows["coords"].index("x")
    keypoints = rows["bodyparts"][start:]
    owners = rows["individuals"][start:] if "individuals" in rows else [""] * len(keypoints)
    if len(owners) != len(keypoints):
        raise InputError(
            f"{file}: {len(owners)} columns in the row 'individuals', {len(keypoints)} in "
            "'bodyparts'; they must be as many"
        )
    return _Header(number, start, tuple(zip(owners, keypoints, strict=True)))


def _check_rows(file: Path, root: Path, header: _Header) -> dict[Path, int]:
    """Return the row of every image, or raise with everything that is wrong in the file."""
    rows: dict[Path, int] = {}
    problems: list[Problem] = []
    columns = [name for _, name in header.columns]
    for number, row in _csv_rows(file):
        if number <= header.row or not any(row):
            continue
        where = f"{file} row {number}"
        written = "/".join(row[: header.first_column])
        image = _find_image(file, written)
        if image is None:
            problems.append(Problem(where, f"no image {written}", f"looked in {root}"))
        elif image in rows:
            problems.append(Problem(where, f"{written} is labelled in row {rows[image]} too"))
        else:
            rows[image] = number
        problems += _check_numbers(where, columns, row[header.first_column :])
    raise_problems(problems)
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
        return noting(
            config or file,
            lambda: sleap_io.load_dlc(str(file), config=str(config) if config else False),
        )
    except (ValueError, KeyError, OSError) as error:
        raise InputError(f"{file}: cannot be read as DeepLabCut labels: {error}") from error


def _entries(
    read: sleap_io.Labels, file: Path, labels: Labels, rows: dict[Path, int]
) -> Iterator[Entry]:
    order = (
        [read.skeletons[0].node_names.index(name) for name in labels.names]
        if read.skeletons
        else []
    )
    for labelled in read.labeled_frames:
        image = Path(labelled.video.filename[labelled.frame_idx])
        name = name_of(image, labels.root)
        yield Entry(
            name,
            ImageFile(image),
            Path(name).parent.as_posix(),
            f"{file} row {rows[image]}",
            tuple(
                Individual(animal.name, animal.points[order])
                for animal in individuals_of(labelled.instances)
            ),
        )
