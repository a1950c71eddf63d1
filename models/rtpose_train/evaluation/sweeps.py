"""How a model bears what cameras and recordings do to frames: fewer pixels, compressed pixels.

The robustness tests of Mathis and Warren (2018, "On the inference speed and video-compression
robustness of DeepLabCut", bioRxiv 457242): the same model, nothing trained anew.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from rtpose.errors import InputError
from rtpose_train.data.compression import h264, require_h264

_U8 = NDArray[np.uint8]

#: Turns a frame, shape (height, width) or (height, width, 3), into what the model gets to see: all
#: of it, at any size.
View = Callable[[_U8], _U8]


def unchanged(pixels: _U8) -> _U8:
    """Return the frame as it is."""
    return pixels


@dataclass(frozen=True, slots=True)
class Shrink:
    """Shrinks frames by averaging, as a camera that bins its pixels.

    Attributes
    ----------
    factor : int
        Pixels along each side that become one; sides are rounded up.
    """

    factor: int

    def __call__(self, pixels: _U8) -> _U8:
        """Return the smaller frame."""
        height, width = (-(-side // self.factor) for side in pixels.shape[:2])
        small = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
        return np.asarray(small, np.uint8)


@dataclass(frozen=True, slots=True)
class Compress:
    """Encodes every frame as H.264 by itself and decodes it again, see `compression.h264`.

    Attributes
    ----------
    crf : int
        Constant rate factor of x264: 0 least, 51 most compression.

    Raises
    ------
    InputError
        If this installation cannot encode H.264.
    """

    crf: int

    def __post_init__(self) -> None:
        require_h264()

    def __call__(self, pixels: _U8) -> _U8:
        """Return the frame as it comes out of the codec."""
        if pixels.ndim == 2:
            return h264(pixels[..., None], self.crf, "gray")[..., 0]
        return h264(pixels, self.crf, "bgr")


@dataclass(frozen=True, slots=True)
class Level:
    """One step of a sweep: its number, and what it does to a frame."""

    value: int
    view: View


@dataclass(frozen=True, slots=True)
class Sweep:
    """A robustness test.

    Attributes
    ----------
    unit : str
        What its levels' numbers are.
    about : str
        The same for people.
    view : callable
        From such a number to what it does to a frame.
    values : tuple of int
        The levels, the mildest first.
    """

    unit: str
    about: str
    view: Callable[[int], View]
    values: tuple[int, ...]


SWEEPS = {
    "scale": Sweep("factor", "frame shrunk by a factor of", Shrink, (1, 2, 4, 8)),
    "compression": Sweep("crf", "H.264 crf", Compress, (0, 10, 20, 30, 40, 50)),
}


def levels(sweep: str) -> tuple[Level, ...]:
    """Return the levels of a sweep.

    Raises
    ------
    InputError
        If there is no such sweep, or what it needs is missing.
    """
    if sweep not in SWEEPS:
        raise InputError(f"--sweep {sweep!r}; allowed: {', '.join(SWEEPS)}")
    chosen = SWEEPS[sweep]
    return tuple(Level(value, chosen.view(value)) for value in chosen.values)
