"""A camera that plays a video file."""

import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rtpose.cameras.decode import Decoder
from rtpose.clock import RateKeeper, now_ns
from rtpose.errors import CameraError
from rtpose.interfaces import Camera, Captured, FrameFormat, RigPath, Settings

#: No single wait is longer than this, so that the core can stop in time.
_LONGEST_WAIT_S = 0.1


class VideoConfig(Settings):
    """Settings of `VideoCamera`.

    Attributes
    ----------
    path : str
        The file, beside the rig file; anything that OpenCV can read.
    rate : 'own', 'max' or float
        Frames per second: as recorded, as fast as frames are taken, or a number.
    loop : bool
        Start again at the end.
    colour : bool
        Blue-green-red; else grey (converted if the video has colours).
    """

    path: RigPath
    rate: Literal["own", "max"] | Annotated[float, Field(gt=0, le=10_000)] = "own"
    loop: bool = False
    colour: bool = False


class VideoCamera(Camera):
    """Plays a video file; see `VideoConfig`.

    ``frame_id`` is the frame's place in the file, counting on when it loops. A file loses no frame:
    where frames cannot be decoded or taken at the rate, it plays slower. `exposure_ns` is absent: a
    file does not know when its frames are seen.

    Raises
    ------
    CameraError
        On opening: no such file, not a video, no frames, no rate stated where its own is wanted.
        While playing: a frame of another size, or an end more than 2 frames and 1 % of the
        stated number of frames early (some containers only estimate that number). Everything that
        can be read is delivered before. OpenCV's FFmpeg backend scales frames of another size to
        the first one's, so that there this is not noticed.
    """

    Config = VideoConfig
    live = False

    def __init__(self, config: VideoConfig) -> None:
        self._config = config
        self._capture = cv2.VideoCapture()
        self._decoder: Decoder | None = None
        self._stated_frames = 0
        self._rate_hz = 0.0

    def open(self) -> FrameFormat:
        """Open the file and decode its first frame."""
        self._start()
        decoder = Decoder(self._capture, self._config.colour, self._config.path)
        stated = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self._stated_frames = int(stated) if 0 < stated < math.inf else 0
        self._rate_hz = self._choose_rate()
        self._decoder = decoder
        unknown = "the file does not state how many frames it has: an early end is not noticed"
        notes = () if self._stated_frames else (unknown,)
        size = (decoder.height_px, decoder.width_px, decoder.channels)
        return FrameFormat(*size, self._rate_hz, notes)

    def frames(self, buffer: Callable[[], NDArray[np.uint8]]) -> Iterator[Captured | None]:
        """Decode each frame before its time has come, and deliver it then; see `Camera.frames`."""
        rate_hz = self._rate_hz
        steps = math.ceil(1 / rate_hz / _LONGEST_WAIT_S) if rate_hz else 1
        keeper = RateKeeper(rate_hz * steps) if rate_hz else None
        started = 0
        for frame_id in itertools.count():
            if frame_id and not self._capture.grab():
                if not self._may_repeat(frame_id - started):
                    return
                self._start()
                started = frame_id
            if keeper is not None and frame_id:
                for _ in range(steps - 1):
                    keeper.wait()
                    yield None
            if self._decoder is None:
                raise CameraError(f"{self._config.path}: the video is not open")
            if not self._decoder.write(buffer()):
                raise CameraError(f"{self._config.path}: frame {frame_id} cannot be decoded")
            if keeper is not None:
                keeper.wait()
            yield Captured(now_ns(), frame_id=frame_id)

    def close(self) -> None:
        """Close the file."""
        self._decoder = None
        self._capture.release()

    def _start(self) -> None:
        """Open the file at its beginning and grab the first frame."""
        path = Path(self._config.path)
        if not path.is_file():
            raise CameraError(f"{path}: no such file; set path to a video file")
        if not self._capture.open(str(path)):
            raise CameraError(
                f"{path}: OpenCV cannot read this as a video: it is none, its codec is unknown, "
                "it is empty, or it was cut off (an MP4 without its end cannot be read at all)"
            )
        if not self._capture.grab():
            raise CameraError(f"{path}: the video has no frames that can be read")

    def _choose_rate(self) -> float:
        """Return the rate to play at; 0 for as fast as frames are taken."""
        rate = self._config.rate
        if rate == "max":
            return 0.0
        if rate != "own":
            return rate
        own_hz = self._capture.get(cv2.CAP_PROP_FPS)
        if not 0 < own_hz < math.inf:
            raise CameraError(f"{self._config.path}: states no frame rate; set rate to a number")
        return own_hz

    def _may_repeat(self, played: int) -> bool:
        """Say at the end whether to loop; raise if the end came early."""
        if self._decoder is None:
            return False
        missing = self._stated_frames - played
        if missing > max(2, self._stated_frames // 100):
            raise CameraError(
                f"{self._config.path}: ended after {played} of {self._stated_frames} frames: "
                "the file is damaged or was cut off"
            )
        return self._config.loop
