"""Write frames of the synthetic arena as a DeepLabCut project, to train the demo model on.

``python models/synthetic_project.py FOLDER`` draws one recording per seed, at several frame sizes,
and writes ``split.json``: whole seeds (another path, floor and noise) train, validate and test.
"""

import argparse
import csv
import itertools
import sys
from pathlib import Path

import cv2
import numpy as np

from rtpose.cameras.synthetic import SyntheticArena
from rtpose_train.data.split import Split

_SIZES = ((640, 480), (640, 480), (640, 480), (320, 240), (480, 480), (1280, 720))
_SCORER = "synthetic"


def write_recording(folder: Path, seed: int, frames: int) -> list[str]:
    """Draw frames of one seed, far apart in time, with their labels; return the images' names."""
    width, height = _SIZES[seed % len(_SIZES)]
    arena = SyntheticArena(width, height, seed)
    images = folder / "labeled-data" / f"seed{seed:03d}"
    images.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    pixels = np.empty(arena.shape, np.uint8)
    names = [f"labeled-data/{images.name}/img{number:04d}.png" for number in range(frames)]
    keypoints = arena.skeleton.names
    rows: list[list[str]] = [
        ["scorer", *[_SCORER] * (2 * len(keypoints))],
        ["bodyparts", *(name for name in keypoints for _ in "xy")],
        ["coords", *["x", "y"] * len(keypoints)],
    ]
    for name in names:
        frame_id = int(rng.integers(0, 1_000_000))
        arena.draw(frame_id, pixels)
        if not cv2.imwrite(str(folder / name), pixels):
            raise OSError(f"{folder / name}: cannot be written")
        rows.append([name, *(f"{value:.3f}" for value in arena.keypoints(frame_id).ravel())])
    with (images / f"CollectedData_{_SCORER}.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return names


def write_project(folder: Path, train: int, validation: int, test: int, frames: int) -> None:
    """Write a project with so many seeds in each part, and so many frames of each seed."""
    folder.mkdir(parents=True)
    seeds = itertools.count()
    parts = {
        part: tuple(
            name
            for seed in itertools.islice(seeds, count)
            for name in write_recording(folder, seed, frames)
        )
        for part, count in (("test", test), ("validation", validation), ("train", train))
    }
    split = Split(note="by seed of the arena", **parts)
    (folder / "split.json").write_text(split.model_dump_json(indent=1) + "\n", encoding="utf-8")
    skeleton = SyntheticArena.skeleton
    lines = ["Task: synthetic", f"scorer: {_SCORER}", "date: any", "bodyparts:"]
    lines += [f"- {name}" for name in skeleton.names]
    lines += ["skeleton:", *(f"- [{first}, {second}]" for first, second in skeleton.edges)]
    lines += ["video_sets: {}", f"project_path: {folder.name}", ""]
    (folder / "config.yaml").write_text("\n".join(lines), encoding="utf-8")


def main() -> int:
    """Write the project that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder to create")
    parser.add_argument("--seeds", type=int, default=60, help="seeds to train on (default 60)")
    parser.add_argument("--frames", type=int, default=20, help="frames of each seed (default 20)")
    given = parser.parse_args()
    if given.folder.exists():
        parser.error(f"{given.folder} exists; name another folder, or delete it")
    write_project(given.folder, train=given.seeds, validation=6, test=12, frames=given.frames)
    return 0


if __name__ == "__main__":
    sys.exit(main())
