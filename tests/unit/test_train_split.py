"""A split loses no frame, leaks no video, and says what is missing."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtpose.errors import InputError
from rtpose.skeleton import Skeleton
from rtpose_train.data.dataset import LabelledFrame, Project
from rtpose_train.data.images import ImageFile
from rtpose_train.data.split import read_split, select, split_frames


@given(count=st.integers(3, 200), seed=st.integers(0, 1 << 32), data=st.data())
def test_a_split_loses_no_frame_and_does_not_depend_on_order(
    count: int, seed: int, data: st.DataObject
) -> None:
    names = [f"img{n:04d}.png" for n in range(count)]
    split = split_frames(names, seed)
    assert sorted([*split.train, *split.validation, *split.test]) == names
    assert split.validation
    assert split.test
    assert split_frames(data.draw(st.permutations(names)), seed) == split


@given(
    sizes=st.lists(st.integers(1, 30), min_size=3, max_size=12),
    seed=st.integers(0, 1 << 32),
    fractions=st.sampled_from([(0.1, 0.1), (0.3, 0.3), (0.5, 0.4), (0.1, 0.0)]),
    data=st.data(),
)
def test_by_video_no_video_is_in_two_parts(
    sizes: list[int], seed: int, fractions: tuple[float, float], data: st.DataObject
) -> None:
    groups = {f"v{v}.mp4#{n}": f"v{v}.mp4" for v, size in enumerate(sizes) for n in range(size)}
    names = sorted(groups)
    split = split_frames(names, seed, *fractions, by="video", groups=groups)
    assert sorted([*split.train, *split.validation, *split.test]) == names
    parts = [{groups[name] for name in part} for part in (split.train, split.validation)]
    parts.append({groups[name] for name in split.test})
    assert sum(map(len, parts)) == len(sizes)
    assert all(parts[:2])
    assert bool(parts[2]) == (fractions[1] > 0)
    shuffled = data.draw(st.permutations(names))
    assert split_frames(shuffled, seed, *fractions, by="video", groups=groups) == split


def test_by_video_the_parts_are_as_large_as_whole_videos_allow() -> None:
    groups = {f"v{v}#{n}": f"v{v}" for v, size in enumerate([60, 9, 9, 22]) for n in range(size)}
    for seed in range(20):
        split = split_frames(sorted(groups), seed, by="video", groups=groups)
        assert (len(split.test), len(split.validation), len(split.train)) == (9, 9, 82)


def test_seeds_differ() -> None:
    names = [f"img{n}" for n in range(50)]
    assert len({split_frames(names, seed).test for seed in range(10)}) == 10


def test_too_few_frames_or_videos_to_split_is_said() -> None:
    with pytest.raises(InputError, match="2 labelled frames: too few"):
        split_frames(["a", "b"], 0)
    groups = {name: "day1" if name < "c" else "day2" for name in "abcd"}
    with pytest.raises(InputError, match=r"frames of 2 videos \(day1, day2\).*or split by frame"):
        split_frames("abcd", 0, by="video", groups=groups)
    with pytest.raises(InputError, match="video' with every frame's video"):
        split_frames("abcd", 0, by="video")
    with pytest.raises(InputError, match="together below 1"):
        split_frames("abcd", 0, 0.5, 0.5)


def _project(*names: str) -> Project:
    frames = (
        LabelledFrame(name, ImageFile(Path(name)), np.zeros((1, 2)), f"file: {name}")
        for name in names
    )
    return Project(Path("mouse"), Skeleton(("snout",)), tuple(frames), ())


def test_a_split_file_is_checked(tmp_path: Path) -> None:
    a, b, c = "img0.png", "img1.png", "img2.png"
    project = _project(a, b, c)
    file = tmp_path / "split.json"
    file.write_text(json.dumps({"train": [a], "validation": [b], "test": [c]}))
    split = read_split(file, project)
    assert [frame.name for frame in select(project, split.test)] == [c]
    for wrong, words in (
        ({"train": [a], "validation": ["img9.png"]}, "not labelled in .*img9.png"),
        ({"train": [a, b], "validation": [b]}, "in more than one part"),
        ({"train": [], "validation": [b]}, "needs frames"),
        ({"training": [a], "validation": [b]}, "not a split"),
    ):
        file.write_text(json.dumps(wrong))
        with pytest.raises(InputError, match=words):
            read_split(file, project)
    file.write_text("{")
    with pytest.raises(InputError, match="not a split"):
        read_split(file, project)
