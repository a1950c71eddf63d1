"""Where the pixels of a labelled frame lie: an image file, a video, or an array in a file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from rtpose.errors import InputError

#: Decoding forward is exact and fast; a larger jump is left to the container's index.
_LARGEST_STEP = 250

#: What OpenCV opens as a video.
VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".mj2", ".webm", ".m4v", ".mpg"})


class Image(Protocol):
    """One frame's pixels, read when they are asked for."""

    def read(self) -> NDArray[np.uint8]:
        """Return shape (height, width) or (height, width, 3), blue first.

        Raises
        ------
        InputError
            If the pixels cannot be read.
        """

    def close(self) -> None:
        """Close what reading has opened; reading opens it again."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A picture in a file of its own."""

    path: Path

    def __str__(self) -> str:
        """Return the path."""
        return str(self.path)

    def read(self) -> NDArray[np.uint8]:
        """Return the picture, shape (height, width, 3), blue first."""
        try:
            encoded = np.frombuffer(self.path.read_bytes(), np.uint8)
            decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if encoded.size else None
        except (OSError, cv2.error) as error:
            raise InputError(f"{self.path} cannot be read: {error}") from error
        if decoded is None:
            raise InputError(f"{self.path} is not an image that OpenCV can read")
        return np.asarray(decoded, np.uint8)

    def close(self) -> None:
        """Do nothing: nothing stays open."""


class Video:
    """A video file, read with OpenCV: forward frame by frame where that is near enough.

    A seek decodes from the last key frame again: frames in order, each sought, would be decoded
    many times over.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._capture: cv2.VideoCapture | None = None
        self._next = 0

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return a frame, shape (height, width, 3), blue first; the first has index 0."""
        if self._capture is None:
            self._capture = cv2.VideoCapture(str(self.path))
            self._next = 0
        capture = self._capture
        if not capture.isOpened():
            self.close()
            raise InputError(f"{self.path} is not a video that OpenCV can read")
        if not self._next <= index <= self._next + _LARGEST_STEP:
            capture.set(cv2.CAP_PROP_POS_FRAMES, index)
            self._next = index
        while self._next < index and capture.grab():
            self._next += 1
        found, pixels = capture.read() if self._next == index else (False, None)
        if not found:
            count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
            self.close()
            raise InputError(f"{self.path}: frame {index} cannot be read; it has {count} frames")
        self._next = index + 1
        return np.asarray(pixels, np.uint8)

    def close(self) -> None:
        """Close the file."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None


class Stored:
    """Frames that sleap-io reads: arrays and pictures in HDF5, stacks, cropped views.

    Parameters
    ----------
    path : Path
        The file.
    open_video : callable
        Returns the ``sleap_io.Video``; called when the first frame is read.
    blue_first : bool
        Whether colour is stored blue first; red first otherwise.
    """

    def __init__(
        self, path: Path, open_video: Callable[[], Any], *, blue_first: bool = False
    ) -> None:
        self.path = path
        self._open_video = open_video
        self._blue_first = blue_first
        self._video: Any = None

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return a frame, blue first if it has colours."""
        try:
            if self._video is None:
                self._video = self._open_video()
            pixels = np.asarray(self._video[index])
        except (OSError, IndexError, KeyError, ValueError, TypeError, cv2.error) as error:
            raise InputError(f"{self.path}: frame {index} cannot be read: {error}") from error
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
            raise InputError(
                f"{self.path}: frame {index} is {pixels.dtype} of shape {pixels.shape}; "
                "8-bit pixels of shape (height, width, 1 or 3) are read"
            )
        if pixels.shape[2] == 1:
            return np.ascontiguousarray(pixels[:, :, 0])
        return np.ascontiguousarray(pixels if self._blue_first else pixels[:, :, ::-1])

    def close(self) -> None:
        """Close the file."""
        if self._video is not None:
            self._video.close()
            self._video = None


@dataclass(frozen=True, slots=True)
class VideoFrame:
    """One frame of a video that other frames share."""

    video: Video | Stored
    index: int

    def __str__(self) -> str:
        """Return the video's path and the frame's index."""
        return f"{self.video.path}#{self.index}"

    def read(self) -> NDArray[np.uint8]:
        """Return the frame, blue first if it has colours."""
        return self.video.read(self.index)

    def close(self) -> None:
        """Close the video."""
        self.video.close()


def find_file(folder: Path, written: str) -> Path | None:
    """Return the file that a label file names, also if both were moved together.

    Tried are the path as it is written, if it is absolute, then its last parts inside the folder,
    as many as possible first. Both kinds of slash separate.

    Parameters
    ----------
    folder : Path
        Where the label file lies.
    written : str
        The path in the label file.
    """
    if Path(written).is_absolute() and Path(written).is_file():
        return Path(written)
    path = PureWindowsPath(written)
    parts = path.parts[1:] if path.anchor else path.parts
    for start in range(len(parts)):
        place = folder.joinpath(*parts[start:])
        if place.is_file():
            return place
    return None


def name_of(path: Path, root: Path) -> str:
    """Return a file's path relative to the project if it lies inside, else as it is."""
    for whole, base in ((path.absolute(), root.absolute()), (path.resolve(), root.resolve())):
        if whole.is_relative_to(base):
            return whole.relative_to(base).as_posix()
    return path.as_posix()


def to_colour(pixels: NDArray[np.uint8], colour: str) -> NDArray[np.uint8]:
    """Return pixels (grey, or blue first) as ``gray``, ``rgb`` or ``bgr``."""
    if colour == "gray":
        grey = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
        return np.asarray(grey, np.uint8)
    if pixels.ndim == 2:
        pixels = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR), np.uint8)
    if colour == "rgb":
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
    return pixels
