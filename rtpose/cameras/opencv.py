"""Cameras that OpenCV can read: V4L2 and UVC devices, RTSP and HTTP streams."""

import contextlib
import enum
import math
import os
import queue
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from rtpose.cameras.decode import Decoder
from rtpose.clock import now_ns
from rtpose.errors import CameraError
from rtpose.interfaces import Camera, Captured, FrameFormat, Settings

#: After so long without a frame the core gets a None.
_SILENCE_S = 0.1

_ASSUMED_RATE_HZ = 30.0

#: So long `close` waits for a driver that hangs.
_CLOSE_S = 1.0

_BACKENDS = {
    "any": cv2.CAP_ANY,
    "v4l2": cv2.CAP_V4L2,
    "ffmpeg": cv2.CAP_FFMPEG,
    "gstreamer": cv2.CAP_GSTREAMER,
    "dshow": cv2.CAP_DSHOW,
    "msmf": cv2.CAP_MSMF,
    "avfoundation": cv2.CAP_AVFOUNDATION,
    "images": cv2.CAP_IMAGES,
}


class OpenCvConfig(Settings):
    """Settings of `OpenCvCamera`. What is left out stays as the camera has it.

    Attributes
    ----------
    device : int or str
        Number of the camera, ``/dev/video0``, or a URL (``rtsp://...``, ``http://...``).
    width_px, height_px : int, optional
        Frame size; both or none.
    rate_hz : float, optional
        Frames per second.
    auto_exposure : bool, optional
        Let the camera choose the exposure time.
    exposure : float, optional
        Exposure time in the backend's own unit (V4L2: 100 us; DirectShow and Media Foundation: the
        base-2 logarithm of seconds). Turns `auto_exposure` off.
    gain : float, optional
        In the backend's own unit.
    pixel_format : str, optional
        Four-character code, such as ``MJPG``, ``YUYV`` or ``GREY``.
    colour : bool
        Blue-green-red; else grey (converted if the camera delivers colours).
    buffers : int
        Length of the driver's queue. With 1 the driver has nowhere to put a frame while the last
        one is being decoded, and many cameras then deliver every second frame only.
    backend : str
        What OpenCV uses; ``auto`` is V4L2 for devices on Linux, FFmpeg for URLs, else ``any``.
    timeout_s : float
        A camera that has delivered nothing for so long has failed.
    """

    device: Annotated[int, Field(ge=0, le=255)] | Annotated[str, Field(min_length=1)] = 0
    width_px: Annotated[int, Field(ge=1, le=16384)] | None = None
    height_px: Annotated[int, Field(ge=1, le=16384)] | None = None
    rate_hz: Annotated[float, Field(gt=0, le=10_000)] | None = None
    auto_exposure: bool | None = None
    exposure: float | None = None
    gain: float | None = None
    pixel_format: Annotated[str, Field(pattern=r"^[ -~]{4}$")] | None = None
    colour: bool = False
    buffers: Annotated[int, Field(ge=1, le=10)] = 2
    backend: Literal[
        "auto", "any", "v4l2", "ffmpeg", "gstreamer", "dshow", "msmf", "avfoundation", "images"
    ] = "auto"
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 5.0

    @model_validator(mode="after")
    def _settings_agree(self) -> Self:
        if (self.width_px is None) != (self.height_px is None):
            raise ValueError("width_px and height_px go together; set both or none")
        if self.exposure is not None and self.auto_exposure:
            raise ValueError("exposure and auto_exposure = true contradict each other; set one")
        return self

    @property
    def api(self) -> int:
        """OpenCV's number of the backend."""
        if self.backend != "auto":
            return _BACKENDS[self.backend]
        if isinstance(self.device, str) and "://" in self.device:
            return cv2.CAP_FFMPEG
        return cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY

    @property
    def name(self) -> str:
        """The device in words, without the password that a URL may carry."""
        if isinstance(self.device, int):
            return f"camera {self.device}"
        url = urllib.parse.urlsplit(self.device)
        bare = url._replace(netloc=url.netloc.rpartition("@")[2])
        return f"camera {urllib.parse.urlunsplit(bare)}"


class _Order(enum.Enum):
    GRAB = enum.auto()  #: take one frame and report it
    DROP = enum.auto()  #: take frames and drop them, until the next order
    STOP = enum.auto()


class _Grabber:
    """Waits for frames on a thread of its own, because OpenCV's `grab` may block for long.

    The thread never touches pixels: a frame is decoded by whoever ordered it, before the next
    order. It also owns the release of the capture, which must not happen during a `grab`.
    """

    def __init__(self, capture: cv2.VideoCapture, name: str) -> None:
        self._capture = capture
        self._orders: queue.SimpleQueue[_Order] = queue.SimpleQueue()
        self._arrivals: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"grab {name}", daemon=True)
        self._thread.start()

    def order(self, order: _Order) -> None:
        """Give the next order; each GRAB is answered once, by `wait`."""
        self._orders.put(order)

    def wait(self, timeout_s: float) -> int | None:
        """Return when the frame arrived, or None if grabbing failed; late: `queue.Empty`."""
        return self._arrivals.get(timeout=timeout_s)

    def stop(self) -> None:
        """Release the capture, as soon as a `grab` under way returns; wait for that shortly."""
        self._orders.put(_Order.STOP)
        self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        order = self._orders.get()
        while order is not _Order.STOP:
            arrival_ns = self._grab()
            if order is _Order.GRAB:
                self._arrivals.put(arrival_ns)
                order = self._orders.get()
                continue
            # A driver that fails at once is not asked again at once.
            pause_s = _SILENCE_S if arrival_ns is None else 0
            with contextlib.suppress(queue.Empty):
                order = self._orders.get(timeout=pause_s)
        self._capture.release()

    def _grab(self) -> int | None:
        try:
            return now_ns() if self._capture.grab() else None
        except cv2.error:
            return None


class OpenCvCamera(Camera):
    """A camera or stream through OpenCV; see `OpenCvConfig`.

    `open` takes one frame, to see what the camera really delivers. A frame that cannot be decoded
    is a gap in ``frame_id``. `exposure_ns` is given for UVC cameras on Linux only: their driver
    stamps the start of the exposure on the monotonic clock (V4L2_BUF_FLAG_TSTAMP_SRC_SOE), and
    OpenCV hands that over as CAP_PROP_POS_MSEC; no other backend's stamp has a known meaning.
    Where a stream changes its size, OpenCV's FFmpeg backend scales to the first frame's size.

    Raises
    ------
    CameraError
        If the device cannot be opened, delivers nothing for `timeout_s`, or delivers frames of
        another size or type.
    """

    Config = OpenCvConfig

    def __init__(self, config: OpenCvConfig) -> None:
        self._config = config
        self._capture = cv2.VideoCapture()
        self._grabber: _Grabber | None = None
        self._decoder: Decoder | None = None
        self._stamped = False

    def open(self) -> FrameFormat:
        """Open the device, set it up, read back what it took, and look at one frame."""
        config = self._config
        self._connect()
        self._grabber = _Grabber(self._capture, config.name)
        try:
            notes = self._set_up()
            arrival_ns = self._first_frame(self._grabber)
            decoder = Decoder(self._capture, config.colour, config.name)
        except CameraError:
            self.close()
            raise
        self._decoder = decoder
        self._stamped = _driver(config) == "uvcvideo"
        if self._stamped and self._exposure_ns(arrival_ns) is None:
            notes.append("the driver's time stamps are not monotonic: latency counts from arrival")
        size = (config.height_px or decoder.height_px, config.width_px or decoder.width_px)
        if size != (decoder.height_px, decoder.width_px):
            notes.append(
                f"asked for {size[1]}x{size[0]} px, got {decoder.width_px}x{decoder.height_px}"
            )
        rate_hz = self._capture.get(cv2.CAP_PROP_FPS)
        if not 0 < rate_hz < math.inf:
            rate_hz = config.rate_hz or _ASSUMED_RATE_HZ
            notes.append(f"the camera does not say its rate; {rate_hz:g} Hz is assumed")
        if config.api != cv2.CAP_IMAGES:
            # Until the run starts, frames would queue up and later look as if they had just come.
            self._grabber.order(_Order.DROP)
        return FrameFormat(
            decoder.height_px, decoder.width_px, decoder.channels, rate_hz, tuple(notes)
        )

    def frames(self, buffer: Callable[[], NDArray[np.uint8]]) -> Iterator[Captured | None]:
        """Decode each frame as it arrives; see `Camera.frames`."""
        if self._grabber is None or self._decoder is None:
            raise CameraError(f"{self._config.name}: is not open")
        frame_id = -1
        last_ns = now_ns()
        self._grabber.order(_Order.GRAB)
        while self._grabber is not None:
            try:
                arrival_ns = self._grabber.wait(_SILENCE_S)
            except queue.Empty:
                self._check_silence(last_ns)
                yield None
                continue
            captured = None
            if arrival_ns is None:
                time.sleep(_SILENCE_S)  # the driver refused at once: do not spin
            else:
                frame_id += 1
                exposure_ns = self._exposure_ns(arrival_ns)
                if self._decoder.write(buffer()):
                    captured = Captured(arrival_ns, exposure_ns, frame_id)
                    last_ns = arrival_ns
            self._check_silence(last_ns)
            self._grabber.order(_Order.GRAB)
            yield captured

    def close(self) -> None:
        """Release the device; one that hangs is released when its driver lets go."""
        grabber, self._grabber, self._decoder = self._grabber, None, None
        if grabber is not None:
            grabber.stop()

    def _connect(self) -> None:
        config = self._config
        if config.api != cv2.CAP_ANY and not cv2.videoio_registry.hasBackend(config.api):
            has = [n for n, api in _BACKENDS.items() if cv2.videoio_registry.hasBackend(api)]
            raise CameraError(
                f"{config.name}: this OpenCV has no backend {config.backend!r}; "
                f"it has {', '.join(has)}"
            )
        options: list[int] = []
        if config.api == cv2.CAP_FFMPEG:
            timeout_ms = round(config.timeout_s * 1000)
            options = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, timeout_ms]
            options += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, timeout_ms]
        if not self._capture.open(config.device, config.api, options):
            raise CameraError(f"{config.name}: cannot be opened; {_what_is_there(config)}")

    def _first_frame(self, grabber: _Grabber) -> int:
        timeout_s = self._config.timeout_s
        grabber.order(_Order.GRAB)
        try:
            arrival_ns = grabber.wait(timeout_s)
        except queue.Empty:
            arrival_ns = None
        if arrival_ns is None:
            raise CameraError(
                f"{self._config.name}: opened, but no frame came within {timeout_s:g} s; is it "
                "used by another program, waiting for a trigger, or asked for a format it lacks?"
            )
        return arrival_ns

    def _check_silence(self, last_ns: int) -> None:
        timeout_s = self._config.timeout_s
        if now_ns() - last_ns > timeout_s * 1e9:
            raise CameraError(f"{self._config.name}: stopped: no usable frame for {timeout_s:g} s")

    def _set_up(self) -> list[str]:
        """Set what was asked for and return, in words, where the camera has something else."""
        config = self._config
        four = config.pixel_format
        # The order matters: the format decides about sizes, the size about rates; the exposure time
        # can be set only while the camera does not choose it.
        wanted = [
            ("pixel_format", cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*four) if four else None),
            ("width_px", cv2.CAP_PROP_FRAME_WIDTH, config.width_px),
            ("height_px", cv2.CAP_PROP_FRAME_HEIGHT, config.height_px),
            ("rate_hz", cv2.CAP_PROP_FPS, config.rate_hz),
            ("buffers", cv2.CAP_PROP_BUFFERSIZE, config.buffers),
            ("auto_exposure", cv2.CAP_PROP_AUTO_EXPOSURE, _auto_exposure(config)),
            ("exposure", cv2.CAP_PROP_EXPOSURE, config.exposure),
            ("gain", cv2.CAP_PROP_GAIN, config.gain),
        ]
        asked = [(name, prop, value) for name, prop, value in wanted if value is not None]
        for _, prop, value in asked:
            self._capture.set(prop, value)
        notes = []
        for name, prop, value in asked:
            if name in ("width_px", "height_px"):
                continue  # compared on a real frame
            if name == "buffers" and name not in config.model_fields_set:
                continue  # a wish of ours, which a stream has no use for
            got = self._capture.get(prop)
            if abs(got - value) > 1e-3 * abs(value):
                notes.append(f"asked for {name} = {_shown(name, value)}, got {_shown(name, got)}")
        return notes

    def _exposure_ns(self, arrival_ns: int) -> int | None:
        """Return the driver's stamp of the frame that was grabbed last, if it can be one."""
        if not self._stamped:
            return None
        stamp_ns = round(self._capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
        # A stamp of another clock (the driver can be told to use wall-clock time) is far off.
        plausible = 0 <= arrival_ns - stamp_ns < self._config.timeout_s * 1e9
        return stamp_ns if plausible else None


def _auto_exposure(config: OpenCvConfig) -> int | None:
    """Return OpenCV's value for the property, None to leave it alone."""
    if config.exposure is None and config.auto_exposure is None:
        return None
    # V4L2_EXPOSURE_APERTURE_PRIORITY and V4L2_EXPOSURE_MANUAL, the two that UVC cameras have.
    on, off = (3, 1) if config.api == cv2.CAP_V4L2 else (1, 0)
    return on if config.auto_exposure else off


def _shown(name: str, value: float) -> str:
    if name == "pixel_format":
        return repr(int(value).to_bytes(4, "little", signed=value < 0).decode("latin-1"))
    return f"{value:g}"


def _local_device(config: OpenCvConfig) -> str | None:
    """Return the device's name under ``/dev`` if it is a local one on Linux."""
    if sys.platform != "linux" or (isinstance(config.device, str) and "://" in config.device):
        return None
    if isinstance(config.device, int):
        return f"video{config.device}"
    return Path(config.device).resolve().name


def _driver(config: OpenCvConfig) -> str:
    name = _local_device(config)
    if name is None or config.api != cv2.CAP_V4L2:
        return ""
    return Path(f"/sys/class/video4linux/{name}/device/driver").resolve().name


def _what_is_there(config: OpenCvConfig) -> str:
    """Say what the user may have meant."""
    name = _local_device(config)
    if name is None:
        return "is it switched on, is the address right, and does another program use it?"
    there = sorted(Path("/dev").glob("video*"))
    if Path("/dev", name) in there and not os.access(Path("/dev", name), os.R_OK | os.W_OK):
        return f"no permission for /dev/{name}: add yourself to the group 'video' and log in again"
    return f"present are: {', '.join(map(str, there)) or 'no /dev/video* at all'}"
