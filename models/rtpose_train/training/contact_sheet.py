"""A picture of augmented samples with their labels, to look at before training on them."""

import io
import math
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from torch import Tensor

from rtpose.errors import InputError
from rtpose.skeleton import Skeleton
from rtpose_train.files import write_file

_COLUMNS = 4
_TILE_INCHES = 3.2
_LEGEND_ROW_INCHES = 0.25
_DPI = 120


def draw(
    images: Tensor,
    points: Tensor,
    skeleton: Skeleton,
    file: Path,
    *,
    colour: Literal["gray", "rgb", "bgr"] = "gray",
) -> None:
    """Draw samples side by side, each with its keypoints and edges, and a legend of the names.

    Above them stands which names a mirrored sample swaps: partners that are missing there would be
    taught wrongly. Under each sample stand the keypoints that are not labelled in it or lie outside
    the picture.

    Parameters
    ----------
    images : Tensor of uint8, shape (samples, channels, height, width)
        At least one sample.
    points : Tensor of float, shape (samples, keypoints, 2)
        x, y in px; NaN where a keypoint is not labelled.
    skeleton : Skeleton
        Names and edges.
    file : Path
        The picture to write, ending in ``.png``.
    colour : {'gray', 'rgb', 'bgr'}
        Order of the channels.

    Raises
    ------
    InputError
        If the file's name does not end in ``.png``, or `colour` does not fit the channels.
    RecordingError
        If it cannot be written.
    """
    if file.suffix.lower() != ".png":
        raise InputError(f"{file}: the picture of samples is a PNG; end its name in .png")
    if images.shape[1] != (1 if colour == "gray" else 3):
        raise InputError(f"{images.shape[1]} channels are not a picture in {colour}")
    count, _, height, width = images.shape
    columns = min(_COLUMNS, count)
    rows = math.ceil(count / columns)
    entry = 0.5 + 0.08 * max(map(len, skeleton.names))  # inches, about, at 8 points
    legend_columns = max(1, int(columns * _TILE_INCHES / entry))
    legend = math.ceil(len(skeleton.names) / legend_columns) * _LEGEND_ROW_INCHES + 0.3
    tile = _TILE_INCHES * height / width + 2 * _LEGEND_ROW_INCHES
    figure = Figure((columns * _TILE_INCHES, rows * tile + legend), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    pictures = images.permute(0, 2, 3, 1).numpy()
    if colour == "bgr":
        pictures = pictures[..., ::-1]
    colours = colormaps["hsv"](np.linspace(0, 1, len(skeleton.names), endpoint=False))
    for axes, picture, placed in zip(grid, pictures, points.double().numpy(), strict=False):
        _draw_sample(axes, picture, placed, skeleton, colours)
    for axes in grid[count:]:
        axes.axis("off")
    handles = [
        Line2D([], [], linestyle="", marker="o", color=dot, label=name)
        for name, dot in zip(skeleton.names, colours, strict=True)
    ]
    figure.legend(
        handles=handles,
        loc="outside upper center",
        ncols=legend_columns,
        fontsize=8,
        frameon=False,
        title=_pairs(skeleton),
        title_fontsize=8,
    )
    encoded = io.BytesIO()
    figure.savefig(encoded, format="png", dpi=_DPI)
    write_file(file, encoded.getvalue())


def _draw_sample(
    axes: Axes,
    picture: NDArray[np.uint8],
    points: NDArray[np.float64],
    skeleton: Skeleton,
    colours: NDArray[np.float64],
) -> None:
    height, width = picture.shape[:2]
    if picture.shape[2] == 1:
        axes.imshow(picture[..., 0], cmap="gray", vmin=0, vmax=255)
    else:
        axes.imshow(picture)
    for first, second in skeleton.edges:
        ends = points[[skeleton.index(first), skeleton.index(second)]]
        axes.plot(ends[:, 0], ends[:, 1], color="white", linewidth=0.8, alpha=0.7)
    axes.scatter(points[:, 0], points[:, 1], s=14, c=colours, edgecolors="black", linewidths=0.4)
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
    missing = np.isnan(points).any(axis=1)
    outside = ((points < -0.5) | (points > np.array([width, height]) - 0.5)).any(axis=1)
    remarks = [
        f"{what}: {_some(np.array(skeleton.names)[which].tolist())}"
        for what, which in (("not labelled", missing), ("outside", outside))
        if which.any()
    ]
    axes.set_xlabel("\n".join(remarks), fontsize=7)


def _some(names: list[str]) -> str:
    """Name a few, and count the rest."""
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:2])} and {len(names) - 2}"


def _pairs(skeleton: Skeleton) -> str:
    if not skeleton.pairs:
        return "no left/right partners: names stay where they are in mirrored samples"
    return "mirrored samples swap " + ", ".join(f"{a} with {b}" for a, b in skeleton.pairs)
