"""What kernel and reference share: the filter, its limits, and the way from cells to the frame."""

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rtpose.errors import InputError

Affine = tuple[float, float, float, float]

#: The filter's weights end at this many sigma.
REACH_SIGMA = 3.0

#: Nearer to a border than this many sigma, a peak is no longer seen whole: what the filter misses
#: pulls by a hundredth of sigma at 2 sigma, by a four-hundredth at 2.25.
BORDER_SIGMA = 2.25

#: A response below this part of the peak is more noise than shape: its logarithm is not used.
TRUSTED = 0.2


class MapGeometry(Protocol):
    """What the decoder must know of the maps; `model_card.MapsSpec` is one."""

    @property
    def width(self) -> int:
        """Columns of a map."""

    @property
    def height(self) -> int:
        """Rows of a map."""

    @property
    def stride(self) -> float:
        """Model-input pixels per cell."""

    @property
    def offset_px(self) -> float:
        """Model-input pixel of cell 0."""

    @property
    def sigma(self) -> float:
        """Standard deviation of the Gaussian, in cells."""

    @property
    def location_refinement(self) -> float | None:
        """Cells per unit of the offsets that come with the maps; None if none do."""


def half_gaussian(sigma: float) -> NDArray[np.float64]:
    """Return the filter's weights at distance 0, 1, ...; on both sides together their sum is 1."""
    half = np.exp(-(np.arange(math.ceil(REACH_SIGMA * sigma) + 1) ** 2) / (2 * sigma**2))
    weights: NDArray[np.float64] = half / (2 * half.sum() - half[0])
    return weights


def filter_matrix(cells: int, sigma: float) -> NDArray[np.float64]:
    """Return the filter as a banded, symmetric matrix of shape (cells, cells)."""
    half = half_gaussian(sigma)
    distance = np.abs(np.subtract.outer(np.arange(cells), np.arange(cells)))
    return np.where(distance < half.size, half[np.minimum(distance, half.size - 1)], 0.0)


def contrast(cells: int, sigma: float) -> float:
    """Return how far a peak must stand above the quietest of so many rows, as a part of itself.

    Half of what a Gaussian in the middle does.
    """
    return -0.5 * math.expm1(-(((cells - 1) / 2 / sigma) ** 2) / 2)


def cells_to_frame(maps: MapGeometry, to_frame: Affine) -> Affine:
    """Return the affine from cells to px of the full frame, out of that from input px."""
    ax, bx, ay, by = to_frame
    return ax * maps.stride, ax * maps.offset_px + bx, ay * maps.stride, ay * maps.offset_px + by


def check(maps: MapGeometry, keypoints: int, to_frame: Affine, min_confidence: float) -> None:
    """Raise `InputError` if a number makes no sense."""
    if maps.width < 1 or maps.height < 1:
        raise InputError(f"maps of {maps.width}x{maps.height} cells: at least 1x1 is needed")
    if not 0 < maps.sigma <= 16 or not 0 < maps.stride < math.inf:
        raise InputError(
            f"maps with sigma {maps.sigma} (allowed: above 0, up to 16 cells) "
            f"and stride {maps.stride} (allowed: above 0)"
        )
    if not math.isfinite(maps.offset_px):
        raise InputError(f"offset {maps.offset_px} must be a finite number")
    scale = maps.location_refinement
    if scale is not None and not 0 < scale < math.inf:
        raise InputError(f"location_refinement is {scale} cells per unit, allowed: above 0")
    check_request(keypoints, to_frame, min_confidence)


def check_request(keypoints: int, to_frame: Affine, min_confidence: float) -> None:
    """Raise `InputError` if a number makes no sense, whatever the maps are."""
    if keypoints < 1:
        raise InputError(f"{keypoints} maps: at least 1 is needed")
    if not all(map(math.isfinite, to_frame)):
        raise InputError(f"to_frame {to_frame} must be finite numbers")
    if not 0 <= min_confidence <= 1:
        raise InputError(f"min_confidence is {min_confidence}, allowed: 0 to 1")
