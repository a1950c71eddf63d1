"""The maps that a network learns to draw, and how far off it is."""

import torch
from torch import Tensor
from torch.nn import functional


def draw_targets(
    points: Tensor, height: int, width: int, stride: int, sigma: float
) -> tuple[Tensor, Tensor]:
    """Draw one Gaussian of height 1 per keypoint, in closed form, with a sub-pixel centre.

    Map index ``i`` lies at input pixel ``i * stride``. A keypoint outside the input leaves only the
    tail that reaches in: the network learns that nothing is there.

    Parameters
    ----------
    points : Tensor of float, shape (batch, keypoints, 2)
        x, y in input pixels; NaN where a keypoint is not labelled.
    height, width : int
        Size of the maps, in cells.
    stride : int
        Input pixels per cell.
    sigma : float
        Standard deviation, in cells.

    Returns
    -------
    maps : Tensor of float, shape (batch, keypoints, height, width)
        Zero where a keypoint is not labelled.
    labelled : Tensor of float, shape (batch, keypoints, 1, 1)
        1 where it is labelled, else 0: what the loss is weighted with.
    """
    centres, labelled = to_cells(points, stride)
    rows, columns = cells(points, height, width)
    scale = -0.5 / sigma**2
    along_x = torch.exp(scale * (columns - centres[..., :1]) ** 2)
    along_y = torch.exp(scale * (rows - centres[..., 1:]) ** 2)
    weight = labelled.to(points.dtype)[..., None, None]
    return along_y[..., :, None] * along_x[..., None, :] * weight, weight


def draw_offsets(
    points: Tensor, height: int, width: int, stride: int, radius: float
) -> tuple[Tensor, Tensor]:
    """Draw the way from each cell to its keypoint, known in a disc around the keypoint.

    Location refinement: Insafutdinov et al. 2016, "DeeperCut", section 3.1. DeepLabCut (Mathis et
    al. 2018) takes 17 px around the keypoint at stride 8, in units of 7.2801 px; here it is cells.

    Parameters
    ----------
    points, height, width, stride
        See `draw_targets`.
    radius : float
        Of the disc, in cells.

    Returns
    -------
    offsets : Tensor of float, shape (batch, 2 * keypoints, height, width)
        x and y of keypoint 0, x and y of keypoint 1, ..., in cells.
    inside : Tensor of float, same shape
        1 where a labelled keypoint is within the radius, else 0.
    """
    centres, labelled = to_cells(points, stride)
    rows, columns = cells(points, height, width)
    shape = (*centres.shape[:2], height, width)
    along_x = (centres[..., :1, None] - columns).expand(shape)
    along_y = (centres[..., 1:, None] - rows[:, None]).expand(shape)
    inside = (along_x**2 + along_y**2 <= radius**2) & labelled[..., None, None]
    offsets = torch.stack([along_x, along_y], dim=2).flatten(1, 2)
    return offsets, inside.to(points.dtype).repeat_interleave(2, dim=1)


def to_cells(points: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Return points in cells, 0 where they are not labelled, and where they are."""
    return torch.nan_to_num(points) / stride, ~torch.isnan(points).any(dim=-1)


def cells(points: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return the rows' and the columns' places, with the type and on the device of points."""
    rows = torch.arange(height, dtype=points.dtype, device=points.device)
    return rows, torch.arange(width, dtype=points.dtype, device=points.device)


def masked_loss(maps: Tensor, targets: Tensor, known: Tensor) -> Tensor:
    """Return the mean squared error over the cells that count: `known` is 1 there, else 0."""
    return _mean((maps - targets).square(), known)


def masked_huber_loss(maps: Tensor, targets: Tensor, known: Tensor) -> Tensor:
    """Return the mean Huber loss (square up to 1 cell) over the cells that count."""
    return _mean(functional.huber_loss(maps, targets, reduction="none"), known)


def _mean(losses: Tensor, known: Tensor) -> Tensor:
    known = known.expand_as(losses)
    return (losses * known).sum() / known.sum().clamp(min=1)
