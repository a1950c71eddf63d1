"""From maps to keypoint errors in full-frame pixels, with the decoder of the live service."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rtpose.model_card import MapsSpec, Placement
from rtpose.peaks import PeakDecoder


def decode(maps: NDArray[np.float32], spec: MapsSpec, placement: Placement) -> NDArray[np.float32]:
    """Return the keypoints of one frame.

    Parameters
    ----------
    maps : ndarray of float32, shape (keypoints, height, width)
    spec : MapsSpec
        The maps' geometry.
    placement : Placement
        Where the frame lies in the input.

    Returns
    -------
    ndarray of float32, shape (keypoints, 3)
        x, y in px of the frame (NaN where a map has no peak), confidence.
    """
    count = maps.shape[0]
    keypoints = np.empty((count, 3), np.float32)
    decoder = PeakDecoder(spec, count, to_frame=placement.to_frame)
    decoder.decode(np.ascontiguousarray(maps, np.float32), keypoints, np.empty(count, np.uint8))
    return keypoints


def errors_px(
    found: Sequence[NDArray[np.float32]], labelled: Sequence[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Return the distances from found to labelled keypoints, shape (frames, keypoints), in px.

    NaN where a keypoint is not labelled; infinite where it is and no peak was found.
    """
    offsets = np.stack(found)[..., :2].astype(np.float64) - np.stack(labelled)
    distances: NDArray[np.float64] = np.hypot(offsets[..., 0], offsets[..., 1])
    is_labelled = ~np.isnan(np.stack(labelled)[..., 0])
    distances[is_labelled & np.isnan(distances)] = np.inf
    return distances
