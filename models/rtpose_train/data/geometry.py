"""Frames into model inputs, with exactly the geometry of the live service."""

import cv2
import numpy as np
from numpy.typing import NDArray

from rtpose.model_card import InputSpec, Placement, place


def letterbox(frame: NDArray[np.uint8], spec: InputSpec) -> tuple[NDArray[np.uint8], Placement]:
    """Scale a frame into the model's input as the live service does.

    Parameters
    ----------
    frame : ndarray of uint8, shape (height, width) or (height, width, 3)
        In the model's colour order.

    Returns
    -------
    ndarray of uint8, shape (1, height, width, channels)
        The model's input, black where the frame does not reach.
    Placement
        Where the frame lies in it.
    """
    placement = place(spec, frame.shape[1], frame.shape[0])
    shrinks = placement.scale_x >= 1
    scaled = cv2.resize(
        frame,
        (placement.width_px, placement.height_px),
        interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
    )
    image = np.zeros(spec.shape, np.uint8)
    rows = slice(placement.top_px, placement.top_px + placement.height_px)
    columns = slice(placement.left_px, placement.left_px + placement.width_px)
    image[0, rows, columns] = scaled.reshape(*scaled.shape[:2], spec.channels)
    return image, placement


def frame_to_input(placement: Placement) -> NDArray[np.float64]:
    """Return the affine from frame pixels to input pixels, shape (2, 3)."""
    ax, bx, ay, by = placement.to_frame
    return np.array([[1 / ax, 0.0, -bx / ax], [0.0, 1 / ay, -by / ay]])


def transform(matrix: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return points (..., 2) moved by an affine (2, 3); NaN stays NaN."""
    moved: NDArray[np.float64] = points @ matrix[:, :2].T + matrix[:, 2]
    return moved
