"""What decoding between the cells buys at every stride, on real frames never trained on.

``python models/studies/decoding.py PROJECT MODEL.onnx...``

The models have raw maps as output (``rtpose export --decode host``). The same maps are read three
times: at the cell of the largest value, at the top of the parabolas through that cell and its
neighbours along each axis, and by the live decoder.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from rich.console import Console

from rtpose.errors import RtposeError
from rtpose.estimator import read_card
from rtpose.model_card import Placement
from rtpose_train.data.dataset import load_frames, read_project
from rtpose_train.data.geometry import letterbox
from rtpose_train.data.split import read_split, select
from rtpose_train.decode import decode, errors_px
from study import OPEN_FIELD_SPLIT, markdown

Maps = NDArray[np.float32]


def highest_cell(maps: Maps) -> NDArray[np.float64]:
    """Return column and row of the largest value of every map, shape (keypoints, 2)."""
    rows, columns = np.unravel_index(maps.reshape(len(maps), -1).argmax(axis=1), maps.shape[1:])
    return np.stack([columns, rows], axis=1).astype(np.float64)


def parabola(maps: Maps) -> NDArray[np.float64]:
    """Return the top of a parabola through the largest cell and its neighbours, per axis."""
    cells = highest_cell(maps)
    for cell, plane in zip(cells, maps.astype(np.float64), strict=True):
        column, row = (int(i) for i in cell)
        for axis, (line, at) in enumerate(((plane[row], column), (plane[:, column], row))):
            if 0 < at < line.size - 1:
                before, middle, after = line[at - 1 : at + 2]
                bend = before - 2 * middle + after
                cell[axis] += 0.5 * (before - after) / bend if bend < 0 else 0.0
    return cells


def in_frame(cells: NDArray[np.float64], stride: float, placement: Placement) -> NDArray[Any]:
    """Return cells as px of the full frame, in the layout of `rtpose_train.decode.decode`."""
    ax, bx, ay, by = placement.to_frame
    points = cells * stride * (ax, ay) + (bx, by)
    return np.column_stack([points, np.ones(len(points))]).astype(np.float32)


def compare(model: Path, project: Path) -> list[str]:
    """Return one line of the table."""
    card = read_card(model)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    read = read_project(project)
    frames = select(read, read_split(OPEN_FIELD_SPLIT, read).test)
    order = [read.skeleton.index(name) for name in card.keypoints().names]

    def decoded(pixels: NDArray[np.uint8], points: NDArray[np.float64]) -> tuple[Any, ...]:
        image, placement = letterbox(pixels, card.input)
        maps = session.run(["maps"], {"image": image})[0][0]
        ways = (
            in_frame(highest_cell(maps), card.maps.stride, placement),
            in_frame(parabola(maps), card.maps.stride, placement),
            decode(maps, card.maps, placement),
        )
        return (*ways, points[order])

    seen, _ = load_frames(frames, card.input.colour, decoded)
    *ways, labels = zip(*seen, strict=True)
    means = [float(np.nanmean(errors_px(way, labels))) for way in ways]
    return [
        model.stem,
        f"{card.maps.stride:g}",
        *(f"{mean:.2f}" for mean in means),
        f"{1 - means[2] / means[0]:.0%}",
    ]


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("project", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    given = parser.parse_args()
    try:
        rows = [compare(model, given.project) for model in given.models]
    except RtposeError as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False)
        return error.exit_code
    header = ("model", "stride", "arg-max px", "parabola px", "rtpose px", "less than arg-max")
    Console().print(markdown(header, rows), markup=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
