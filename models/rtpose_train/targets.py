"""The maps that a network learns to draw."""

import torch
from torch import Tensor


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
    labelled = ~torch.isnan(points).any(dim=-1)
    centres = torch.nan_to_num(points) / stride
    columns = torch.arange(width, dtype=points.dtype, device=points.device)
    rows = torch.arange(height, dtype=points.dtype, device=points.device)
    scale = -0.5 / sigma**2
    along_x = torch.exp(scale * (columns - centres[..., :1]) ** 2)
    along_y = torch.exp(scale * (rows - centres[..., 1:]) ** 2)
    weight = labelled.to(points.dtype)[..., None, None]
    return along_y[..., :, None] * along_x[..., None, :] * weight, weight


def masked_loss(maps: Tensor, targets: Tensor, labelled: Tensor) -> Tensor:
    """Return the mean squared error over the cells of labelled keypoints."""
    cells = labelled.sum().clamp(min=1) * maps.shape[-1] * maps.shape[-2]
    return ((maps - targets).square() * labelled).sum() / cells
