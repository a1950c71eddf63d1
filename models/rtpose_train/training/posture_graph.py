"""The posture graph: maps of the lines between keypoints, which teach what belongs together.

Graving et al. 2019 (eLife 8:e47994, "Multi-task learning"). Each edge is drawn as the ridge
``exp(-d^2 / (2 sigma^2))`` with d the distance to the segment, in closed form at the maps' own
resolution, so that a ridge runs exactly through the peaks of its keypoints. An edge of which an end
is not labelled is not drawn, and neither it nor any sum that it belongs to counts in the loss.
"""

import torch
from torch import Tensor

from rtpose_train.networks.layout import HeadLayout
from rtpose_train.training.targets import cells, draw_targets, to_cells


def draw_graph(
    points: Tensor, layout: HeadLayout, height: int, width: int, stride: int, sigma: float
) -> tuple[Tensor, Tensor]:
    """Draw the posture graph's maps.

    Parameters
    ----------
    points : Tensor of float, shape (batch, keypoints, 2)
        x, y in input pixels; NaN where a keypoint is not labelled.
    layout : HeadLayout
        Edges and connected parts.
    height, width, stride, sigma
        See `targets.draw_targets`.

    Returns
    -------
    maps : Tensor of float, shape (batch, graph channels, height, width)
        In the order of `HeadLayout`: every edge, the sum of every part's, the sum of all, and that
        with all keypoints.
    known : Tensor of float, shape (batch, graph channels, 1, 1)
        1 where all that a map shows is labelled, else 0.
    """
    edges, drawn = _draw_edges(points, layout.edges, height, width, stride, sigma)
    keypoints, labelled = draw_targets(points, height, width, stride, sigma)
    sums = [(edges[:, list(part)], drawn[:, list(part)]) for part in layout.parts]
    sums.append((edges, drawn))
    sums.append((torch.cat([edges, keypoints], dim=1), torch.cat([drawn, labelled], dim=1)))
    maps = [edges, *(shown.sum(dim=1, keepdim=True) for shown, _ in sums)]
    known = [drawn, *(seen.amin(dim=1, keepdim=True) for _, seen in sums)]
    return torch.cat(maps, dim=1), torch.cat(known, dim=1)


def _draw_edges(
    points: Tensor,
    edges: tuple[tuple[int, int], ...],
    height: int,
    width: int,
    stride: int,
    sigma: float,
) -> tuple[Tensor, Tensor]:
    """Return one ridge per edge, and 1 where both of its ends are labelled."""
    centres, labelled = to_cells(points, stride)
    first, second = (torch.tensor(ends, device=points.device) for ends in zip(*edges, strict=True))
    start, end = centres[:, first, :, None, None], centres[:, second, :, None, None]
    along = end - start
    rows, columns = cells(points, height, width)
    x, y = columns - start[:, :, 0], rows[:, None] - start[:, :, 1]
    length2 = along.square().sum(dim=2).clamp(min=torch.finfo(points.dtype).tiny)
    # How far along the segment its nearest point lies: 0 at the start, 1 at the end.
    part = ((x * along[:, :, 0] + y * along[:, :, 1]) / length2).clamp(0, 1)
    distance2 = (x - part * along[:, :, 0]).square() + (y - part * along[:, :, 1]).square()
    known = (labelled[:, first] & labelled[:, second]).to(points.dtype)[..., None, None]
    return torch.exp(-0.5 / sigma**2 * distance2) * known, known
