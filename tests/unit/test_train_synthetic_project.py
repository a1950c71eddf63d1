"""The drawn project is one that training reads, and its parts share no scene."""

import runpy
from pathlib import Path

import numpy as np

from rtpose.cameras.synthetic import SyntheticArena
from rtpose_train.data.dataset import load_frames, read_project
from rtpose_train.data.split import read_split

SCRIPT = Path(__file__).parents[2] / "models" / "synthetic_project.py"


def test_drawn_frames_and_labels_are_those_of_the_arena(tmp_path: Path) -> None:
    folder = tmp_path / "drawn"
    runpy.run_path(str(SCRIPT))["write_project"](folder, train=2, validation=1, test=1, frames=2)
    project = read_project(folder)
    assert project.skeleton == SyntheticArena.skeleton
    split = read_split(folder / "split.json", project)
    scenes = [{name.split("/")[1] for name in part} for part in (split.train, split.test)]
    assert [len(scene) for scene in scenes] == [2, 1]
    assert not scenes[0] & scenes[1]
    drawn, notes = load_frames(project.frames, "gray", lambda pixels, points: (pixels, points))
    assert notes == []
    for pixels, points in drawn:
        x, y = np.rint(points[project.skeleton.index("centre")]).astype(int)
        assert pixels[y, x] < 80  # fur on a bright floor
