"""DeepPoseKit annotations: what is missing, predicted or inconsistent is not taken for a label."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtpose.errors import InputError
from rtpose_train.data.dataset import load_frames, read_image, read_project

NAMES = ("head", "wingL", "wingR")
SKELETON = [[-1, -1], [0, 2], [0, 1]]


def _write(
    file: Path,
    points: Any,
    *,
    annotated: bool | list[bool] = True,
    skeleton: Any = SKELETON,
    names: tuple[str, ...] = NAMES,
    inside: bool = True,
) -> Path:
    """Write a file; frame i is of level i in blue, and black in green and red."""
    points = np.asarray(points, float)
    images = np.zeros((len(points), 20, 30, 3), np.uint8)
    images[..., 0] = np.arange(len(points))[:, None, None]
    with h5py.File(file, "w") as stored:
        stored["images"] = images
        stored["annotations"] = points
        stored["annotated"] = np.broadcast_to(np.array(annotated).reshape(-1, 1), points.shape[:2])
        stored["skeleton"] = np.asarray(skeleton, np.int32)
        if inside:
            stored["skeleton_names"] = np.array([n.encode() for n in names], "S10")
    if not inside and names:
        rows = "\n".join(f"{name},," for name in names)
        file.with_name("skeleton.csv").write_text(f"name,parent,swap\n{rows}\n")
    return file


def test_every_frame_keeps_its_picture_and_gaps(tmp_path: Path) -> None:
    points = [
        [[1, 2], [3, 4], [5, 6]],
        [[-1, -1], [np.nan, np.nan], [-99999, -99999]],
        [[-1, 2], [-1, -1], [7, 8]],
    ]
    project = read_project(_write(tmp_path / "fly.h5", points))
    assert project.skeleton.names == NAMES
    assert project.skeleton.edges == (("head", "wingL"), ("head", "wingR"))
    assert project.skeleton.pairs == (("wingL", "wingR"),)
    assert [(frame.name, frame.video) for frame in project.frames] == [
        ("fly.h5#0", "fly.h5"),
        ("fly.h5#2", "fly.h5"),
    ]
    assert project.notes == ("1 frames without any label left out",)
    last = project.frames[1]
    assert last.points[0].tolist() == [-1, 2]  # outside, but set
    assert np.isnan(last.points[1]).all()
    assert read_image(last, "rgb")[0, 0].tolist() == [0, 0, 2]  # stored blue first
    _, notes = load_frames(project.frames, "gray", lambda pixels, points: None)
    assert notes == [
        f"{tmp_path / 'fly.h5'} frame 2: label at -1, 2 lies outside the 30x20 image; "
        "taken as not labelled"
    ]


def test_predictions_are_left_out_and_said(tmp_path: Path) -> None:
    points = np.ones((3, 3, 2))
    some = read_project(_write(tmp_path / "some.h5", points, annotated=[True, False, True]))
    assert [frame.name for frame in some.frames] == ["some.h5#0", "some.h5#2"]
    assert "1 frames that are not annotated left out" in some.notes[0]
    none = read_project(_write(tmp_path / "none.h5", points, annotated=False))
    assert len(none.frames) == 3
    assert "may be predictions" in none.notes[0]


def test_names_come_from_the_skeleton_csv_where_the_file_has_none_or_cut_ones(
    tmp_path: Path,
) -> None:
    long = ("head", "leftforewing", "rightforewing")
    file = _write(tmp_path / "fly.h5", np.ones((1, 3, 2)), names=long, inside=False)
    assert read_project(file).skeleton.names == long
    _write(file, np.ones((1, 3, 2)), names=tuple(name[:10] for name in long))
    assert read_project(file).skeleton.names == long
    _write(file, np.ones((1, 3, 2)), names=("head", "leg", "tail"))
    with pytest.raises(InputError, match=r"skeleton\.csv: names head, leftforewing"):
        read_project(file)
    file.with_name("skeleton.csv").unlink()
    _write(file, np.ones((1, 3, 2)), names=(), inside=False)
    bare = read_project(file)
    assert bare.skeleton.names == ("keypoint00", "keypoint01", "keypoint02")
    assert "named by number" in bare.notes[0]
    _write(file, np.ones((1, 3, 2)), names=("head", "forelegleft1", "forelegleft2"))
    with pytest.raises(InputError, match="cut after 10 letters"):
        read_project(file)


@pytest.mark.parametrize("swaps", [(-1, 2, -1), (1, 2, 1), (-1, 1, 2), (2, -1, 1)])
def test_a_swap_that_one_side_denies_is_reported_not_used(
    tmp_path: Path, swaps: tuple[int, ...]
) -> None:
    skeleton = [[-1, swap] for swap in swaps]
    names = ("head", "a", "b")
    project = read_project(
        _write(tmp_path / "fly.h5", np.ones((1, 3, 2)), skeleton=skeleton, names=names)
    )
    denied = [i for i, swap in enumerate(swaps) if swap != -1 and (swaps[swap] != i or swap == i)]
    assert len([note for note in project.notes if "does not swap with it" in note]) == len(denied)
    assert all(names[i] not in pair for i in denied for pair in project.skeleton.pairs)


@settings(max_examples=25)
@given(
    swaps=st.lists(st.integers(-1, 4), min_size=5, max_size=5),
    parents=st.lists(st.integers(-1, 4), min_size=5, max_size=5),
)
def test_any_skeleton_is_read(
    tmp_path_factory: pytest.TempPathFactory, swaps: list[int], parents: list[int]
) -> None:
    file = tmp_path_factory.mktemp("dpk") / "fly.h5"
    skeleton = list(zip(parents, swaps, strict=True))
    names = tuple("abcde")
    project = read_project(_write(file, np.ones((1, 5, 2)), skeleton=skeleton, names=names))
    mutual = {
        frozenset((names[i], names[s]))
        for i, s in enumerate(swaps)
        if s not in (-1, i) and swaps[s] == i
    }
    assert {frozenset(pair) for pair in project.skeleton.pairs} == mutual


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    file = _write(tmp_path / "fly.h5", np.ones((2, 3, 2)), skeleton=[[-1, -1]] * 4)
    with pytest.raises(InputError, match=r"skeleton \(4, 2\) do not fit"):
        read_project(file)
    _write(file, np.ones((2, 3, 2)), skeleton=[[-1, -1], [0, 9], [0, 1]])
    with pytest.raises(InputError, match="outside -1 to 2"):
        read_project(file)
    _write(file, np.full((2, 3, 2), -1.0))
    with pytest.raises(InputError, match="no labelled frame"):
        read_project(file)
    file.write_bytes(b"not HDF5")
    with pytest.raises(InputError, match="neither of: DeepPoseKit"):
        read_project(file)


@pytest.mark.data
def test_the_real_example_is_read(data: Path) -> None:
    fly = read_project(data / "deepposekit-fly")  # the folder's only label file
    assert len(fly.frames) == 100
    assert fly.skeleton.names[:3] == ("head", "eyeL", "eyeR")
    assert ("head", "eyeL") in fly.skeleton.edges
    # Its table has a mistake in the middle legs; their partners are known by name.
    assert sum("does not swap with it" in note for note in fly.notes) == 3
    assert {frozenset(pair) for pair in fly.skeleton.pairs} >= {
        frozenset(("midlegL2", "midlegR2")),
        frozenset(("midlegL3", "midlegR3")),
        frozenset(("wingL", "wingR")),
    }
    pixels, notes = load_frames(fly.frames[:5], "gray", lambda pixels, points: pixels)
    assert notes == []
    assert pixels[0].shape == (192, 192)
