"""A small project of labelled frames, for tests of the trainer: spots on noise."""

import csv
from pathlib import Path

import cv2
import numpy as np

WIDTH, HEIGHT = 96, 64


def write_spots(folder: Path, frames: int) -> Path:
    """Write frames with a dark and a bright spot on noise; one label in ten is missing."""
    rng = np.random.default_rng(0)
    recording = folder / "labeled-data" / "spots"
    recording.mkdir(parents=True)
    (folder / "config.yaml").write_text(
        "Task: spots\nscorer: me\ndate: d\nbodyparts:\n- dark\n- bright\nskeleton:\n"
        "- [dark, bright]\nvideo_sets: {}\nproject_path: x\n"
    )
    rows = [["scorer"] + ["me"] * 4, ["bodyparts", "dark", "dark", "bright", "bright"]]
    rows.append(["coords", "x", "y", "x", "y"])
    columns, lines = np.arange(WIDTH), np.arange(HEIGHT)[:, None]
    for number in range(frames):
        points = rng.uniform((12, 12), (WIDTH - 13, HEIGHT - 13), (2, 2))
        while np.hypot(*(points[0] - points[1])) < 16:
            points = rng.uniform((12, 12), (WIDTH - 13, HEIGHT - 13), (2, 2))
        image = rng.normal(120, 4, (HEIGHT, WIDTH))
        for (x, y), height in zip(points, (-110, 110), strict=True):
            image += height * np.exp(-((columns - x) ** 2 + (lines - y) ** 2) / (2 * 2.5**2))
        name = f"img{number:03d}.png"
        cv2.imwrite(str(recording / name), np.clip(image, 0, 255).astype(np.uint8))
        cells = [f"{value:.3f}" for value in points.ravel()]
        if number % 10 == 9:
            cells[2:] = ["", ""]
        rows.append([f"labeled-data/spots/{name}", *cells])
    with (recording / "CollectedData_me.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder
