import collections
import http.server
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from rtpose.cameras import opencv
from rtpose.cameras.opencv import OpenCvCamera, OpenCvConfig
from rtpose.clock import now_ns
from rtpose.errors import CameraError
from rtpose.interfaces import Captured

Pixels = NDArray[np.uint8]


def opened(**settings: Any) -> tuple[OpenCvCamera, Pixels]:
    """Open a camera, with the one backend that drops no frames before they are asked for."""
    camera = OpenCvCamera(OpenCvConfig.model_validate({"backend": "images", **settings}))
    return camera, np.zeros(camera.open().shape, np.uint8)


def grabbers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("grab")]


def refusal(**settings: Any) -> str:
    with pytest.raises(CameraError) as caught:
        opened(**settings)
    assert not grabbers(), "a camera that did not open leaves nothing behind"
    return str(caught.value)


def take(camera: OpenCvCamera, buffer: Pixels, count: int) -> list[Captured]:
    taken: list[Captured] = []
    for captured in camera.frames(lambda: buffer):
        if captured is not None:
            taken.append(captured)
        if len(taken) == count:
            break
    return taken


# ------------------------------------------------------------------------------ a fake V4L2 driver


class FakeDriver:
    """Stands in for `cv2.VideoCapture`: takes some settings and not others, and can go wrong."""

    def __init__(self) -> None:
        self.opened_with: tuple[Any, ...] = ()
        self.released = threading.Event()
        self.sets: list[int] = []
        self.refuses: set[int] = set()
        self.values: dict[int, float] = {
            cv2.CAP_PROP_FPS: 30.0,
            cv2.CAP_PROP_BUFFERSIZE: 4.0,
            cv2.CAP_PROP_AUTO_EXPOSURE: 3.0,
        }
        #: What comes next: a frame, None for a failed grab, an Event to hang until it is set.
        self.script: collections.deque[Pixels | threading.Event | None] = collections.deque()
        self.stamp_ms: Callable[[], float] = lambda: 0.0
        self.hanging = threading.Event()
        self._frame: Pixels | None = None

    def open(self, *arguments: Any) -> bool:
        self.opened_with = arguments
        return True

    def set(self, prop: int, value: float) -> bool:
        self.sets.append(prop)
        if prop in self.refuses:
            return False
        self.values[prop] = value
        return True

    def get(self, prop: int) -> float:
        return self.stamp_ms() if prop == cv2.CAP_PROP_POS_MSEC else self.values.get(prop, -1.0)

    def grab(self) -> bool:
        assert not self.released.is_set()
        step = self.script.popleft() if self.script else None
        if isinstance(step, threading.Event):
            self.hanging.set()
            step.wait()
            step = None
        self._frame = step
        return step is not None

    def retrieve(self, image: Pixels | None = None) -> tuple[bool, Pixels | None]:
        assert not self.released.is_set()
        if self._frame is None or self._frame.size == 0:
            return False, None
        frame = self._frame
        if image is not None and (image.shape, image.dtype) == (frame.shape, frame.dtype):
            image[:] = self._frame
            return True, image
        return True, self._frame.copy()

    def release(self) -> None:
        self.released.set()


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    driver = FakeDriver()
    monkeypatch.setattr(cv2, "VideoCapture", lambda: driver)
    return driver


def play(driver: FakeDriver, *steps: Pixels | threading.Event | None) -> None:
    driver.script.extend(steps)


def grey(value: int, width: int = 8, height: int = 6) -> Pixels:
    return np.full((height, width), value, np.uint8)


def colour(value: int, width: int = 8, height: int = 6) -> Pixels:
    return np.full((height, width, 3), value, np.uint8)


DAMAGED = np.empty(0, np.uint8)


def test_a_camera_that_takes_everything_leaves_no_notes(driver: FakeDriver) -> None:
    play(driver, colour(1))
    camera = OpenCvCamera(
        OpenCvConfig(
            device=2,
            width_px=8,
            height_px=6,
            rate_hz=60,
            exposure=50,
            gain=3,
            pixel_format="MJPG",
            backend="v4l2",
        )
    )
    frame_format = camera.open()
    camera.close()
    assert driver.opened_with[:2] == (2, cv2.CAP_V4L2)
    assert frame_format.shape == (6, 8)
    assert frame_format.rate_hz == 60
    assert frame_format.notes == ()
    assert driver.values[cv2.CAP_PROP_FOURCC] == cv2.VideoWriter.fourcc(*"MJPG")
    assert driver.values[cv2.CAP_PROP_BUFFERSIZE] == 2
    assert driver.values[cv2.CAP_PROP_AUTO_EXPOSURE] == 1, "manual, in V4L2's numbering"
    order = [cv2.CAP_PROP_FOURCC, cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FPS]
    order += [cv2.CAP_PROP_AUTO_EXPOSURE, cv2.CAP_PROP_EXPOSURE]
    assert [prop for prop in driver.sets if prop in order] == order


def test_what_the_camera_did_not_take_is_said(driver: FakeDriver) -> None:
    play(driver, colour(1))
    driver.values[cv2.CAP_PROP_FOURCC] = cv2.VideoWriter.fourcc(*"YUYV")
    driver.refuses = {
        cv2.CAP_PROP_FOURCC,
        cv2.CAP_PROP_FPS,
        cv2.CAP_PROP_BUFFERSIZE,
        cv2.CAP_PROP_EXPOSURE,
        cv2.CAP_PROP_AUTO_EXPOSURE,
        cv2.CAP_PROP_GAIN,
    }
    camera = OpenCvCamera(
        OpenCvConfig(
            width_px=640,
            height_px=480,
            rate_hz=120,
            exposure=50,
            gain=3,
            pixel_format="MJPG",
            buffers=1,
            backend="v4l2",
        )
    )
    frame_format = camera.open()
    camera.close()
    assert frame_format.rate_hz == 30
    assert frame_format.shape == (6, 8)
    assert frame_format.notes == (
        "asked for pixel_format = 'MJPG', got 'YUYV'",
        "asked for rate_hz = 120, got 30",
        "asked for buffers = 1, got 4",
        "asked for auto_exposure = 1, got 3",
        "asked for exposure = 50, got -1",
        "asked for gain = 3, got -1",
        "asked for 640x480 px, got 8x6",
    )


def test_what_was_not_asked_for_is_left_alone(driver: FakeDriver) -> None:
    play(driver, colour(1))
    camera, _ = opened()
    camera.close()
    assert driver.sets == [cv2.CAP_PROP_BUFFERSIZE]


@pytest.mark.parametrize(("asked_hz", "expected_hz"), [(None, 30.0), (90.0, 90.0)])
def test_a_rate_that_the_camera_does_not_say_is_assumed_and_said(
    driver: FakeDriver, asked_hz: float | None, expected_hz: float
) -> None:
    play(driver, colour(1))
    driver.values[cv2.CAP_PROP_FPS] = 0.0
    driver.refuses = {cv2.CAP_PROP_FPS}
    camera = OpenCvCamera(OpenCvConfig(rate_hz=asked_hz))
    frame_format = camera.open()
    camera.close()
    assert frame_format.rate_hz == expected_hz, "0 would mean that it waits for its reader"
    assert f"the camera does not say its rate; {expected_hz:g} Hz is assumed" in frame_format.notes


@pytest.mark.parametrize("make", [grey, colour])
@pytest.mark.parametrize("wants_colour", [False, True])
def test_grey_and_colour_are_converted_as_asked(
    driver: FakeDriver, make: Callable[[int], Pixels], wants_colour: bool
) -> None:
    play(driver, make(1), make(77), make(78))
    camera, buffer = opened(colour=wants_colour)
    assert buffer.shape == ((6, 8, 3) if wants_colour else (6, 8))
    seen = []
    frames = camera.frames(lambda: buffer)
    for _ in range(2):
        assert next(frames) is not None
        seen.append(np.unique(buffer).tolist())
    camera.close()
    assert seen == [[77], [78]]


def test_a_damaged_frame_is_a_gap(driver: FakeDriver) -> None:
    play(driver, colour(1), colour(2), DAMAGED, colour(3))
    camera, buffer = opened()
    assert [captured.frame_id for captured in take(camera, buffer, 2)] == [0, 2]
    camera.close()


def test_damaged_frames_only_are_a_stopped_camera(driver: FakeDriver) -> None:
    play(driver, colour(1))
    camera, buffer = opened(timeout_s=0.05)
    frames = camera.frames(lambda: buffer)
    with pytest.raises(CameraError, match="no usable frame"):
        while True:
            play(driver, DAMAGED)
            next(frames)
    camera.close()


@pytest.mark.parametrize("odd", [colour(2, width=9), grey(2), colour(2).astype(np.uint16)])
def test_a_frame_of_another_kind_is_an_error(driver: FakeDriver, odd: Pixels) -> None:
    play(driver, colour(1), odd)
    camera, buffer = opened()
    with pytest.raises(CameraError, match="were agreed at opening"):
        take(camera, buffer, 1)
    camera.close()


@pytest.mark.parametrize(
    "odd", [grey(1).astype(np.uint16), np.zeros((6, 8, 2), np.uint8), np.zeros((6, 8, 4), np.uint8)]
)
def test_a_kind_of_frame_that_cannot_be_used_is_refused(driver: FakeDriver, odd: Pixels) -> None:
    play(driver, odd)
    assert "8-bit grey or blue-green-red is needed" in refusal()
    assert driver.released.is_set()


def test_a_first_frame_that_cannot_be_decoded_is_refused(driver: FakeDriver) -> None:
    play(driver, DAMAGED)
    assert "cannot be decoded" in refusal()


def test_a_camera_that_opens_and_delivers_nothing_is_refused(driver: FakeDriver) -> None:
    play(driver, None)
    assert "no frame came within 5 s" in refusal()
    assert driver.released.is_set()


def test_a_camera_that_fails_for_good_has_stopped(driver: FakeDriver) -> None:
    play(driver, colour(1), colour(2), *[None] * 50)
    camera, buffer = opened(timeout_s=0.3)
    seen: list[bool] = []
    with pytest.raises(CameraError, match="stopped"):
        seen.extend(captured is None for captured in camera.frames(lambda: buffer))
    camera.close()
    assert seen[0] is False
    assert len(seen) > 1
    assert all(seen[1:]), "the core could have stopped it meanwhile"


def test_a_camera_that_fails_for_a_moment_goes_on(driver: FakeDriver) -> None:
    play(driver, colour(1), None, colour(2), None, colour(3))
    camera, buffer = opened()
    assert [captured.frame_id for captured in take(camera, buffer, 2)] == [0, 1]
    camera.close()


def test_a_driver_that_hangs_neither_blocks_the_core_nor_touches_its_buffer(
    driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opencv, "_CLOSE_S", 0.05)
    hang = threading.Event()
    play(driver, colour(1), colour(2), hang)
    camera, buffer = opened(timeout_s=0.3)
    (thread,) = grabbers()
    frames = camera.frames(lambda: buffer)
    assert next(frames) is not None
    assert next(frames) is None
    with pytest.raises(CameraError, match="stopped"):
        for captured in frames:
            assert captured is None
    camera.close()
    assert not driver.released.is_set(), "not while the driver is inside"
    buffer[:] = 99
    hang.set()
    assert driver.released.wait(10)
    thread.join(10)
    assert (buffer == 99).all()


def test_frames_from_before_the_start_are_dropped(driver: FakeDriver) -> None:
    hang = threading.Event()
    play(driver, colour(1), colour(2), colour(3), hang, colour(4))
    camera, buffer = opened(backend="v4l2")
    assert driver.hanging.wait(10), "it is read before anybody asks"
    frames = camera.frames(lambda: buffer)
    assert next(frames) is None
    hang.set()
    captured = next(captured for captured in frames if captured is not None)
    camera.close()
    assert captured.frame_id == 0
    assert (buffer == 4).all()


def test_an_exception_of_the_driver_is_a_failed_grab(
    driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(driver, colour(1))
    camera, buffer = opened(timeout_s=0.1)

    def broken() -> bool:
        raise cv2.error("select() failed")

    monkeypatch.setattr(driver, "grab", broken)
    with pytest.raises(CameraError, match="stopped"):
        take(camera, buffer, 1)
    camera.close()


# A UVC driver's stamps are monotonic unless it was told otherwise; other drivers' are not used.


@pytest.fixture
def uvc(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    monkeypatch.setattr(opencv, "_driver", lambda _config: "uvcvideo")
    return driver


def test_the_exposure_is_what_a_uvc_driver_stamped(uvc: FakeDriver) -> None:
    stamp_ns = now_ns() - 4_000_000
    uvc.stamp_ms = lambda: stamp_ns / 1e6
    play(uvc, colour(1), colour(2))
    camera, buffer = opened()
    (captured,) = take(camera, buffer, 1)
    camera.close()
    assert captured.exposure_ns == pytest.approx(stamp_ns, abs=1000)


@pytest.mark.parametrize("offset_ns", [1_700_000_000 * 10**9, -(10**11)])
def test_a_stamp_of_another_clock_is_not_used_and_that_is_said(
    uvc: FakeDriver, offset_ns: int
) -> None:
    uvc.stamp_ms = lambda: (now_ns() + offset_ns) / 1e6
    play(uvc, colour(1), colour(2))
    camera = OpenCvCamera(OpenCvConfig(backend="images"))
    frame_format = camera.open()
    (captured,) = take(camera, np.zeros(frame_format.shape, np.uint8), 1)
    camera.close()
    assert captured.exposure_ns is None
    assert any("latency counts from arrival" in note for note in frame_format.notes)


def test_no_other_stamp_is_taken_for_an_exposure(driver: FakeDriver) -> None:
    driver.stamp_ms = lambda: now_ns() / 1e6
    play(driver, colour(1), colour(2))
    camera, buffer = opened()
    (captured,) = take(camera, buffer, 1)
    camera.close()
    assert captured.exposure_ns is None


# ----------------------------------------------------------------------------------- real OpenCV


@pytest.fixture
def pictures(tmp_path: Path) -> str:
    for number in range(6):
        cv2.imwrite(str(tmp_path / f"p{number}.png"), colour(10 * number, 31, 17))
    return str(tmp_path / "p%d.png")


def test_an_image_sequence_is_read_to_its_end(pictures: str) -> None:
    camera, buffer = opened(device=pictures, backend="images", timeout_s=0.2)
    values = []
    with pytest.raises(CameraError, match="stopped"):
        for captured in camera.frames(lambda: buffer):
            if captured is not None:
                values.append(int(buffer[0, 0]))
    camera.close()
    assert values == [10, 20, 30, 40, 50], "the first one told the format"


def test_pictures_of_changing_size_are_an_error(pictures: str) -> None:
    cv2.imwrite(pictures % 2, colour(20, 33, 17))
    camera, buffer = opened(device=pictures, backend="images")
    with pytest.raises(CameraError, match=r"\(17, 33, 3\)"):
        take(camera, buffer, 2)
    camera.close()


def test_a_camera_that_is_not_there_is_refused_with_what_is() -> None:
    text = refusal(device="/dev/video250", backend="v4l2")
    assert "camera /dev/video250: cannot be opened" in text
    assert "/dev/video" in text.partition("cannot be opened")[2]
    assert "camera 251: cannot be opened" in refusal(device=251, backend="v4l2")


def test_a_backend_that_this_opencv_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda api: api == cv2.CAP_FFMPEG)
    text = refusal(device=0, backend="dshow")
    assert "'dshow'" in text
    assert "it has ffmpeg" in text


def test_a_password_in_a_url_is_never_shown() -> None:
    text = refusal(device="rtsp://rat:secret@127.0.0.1:9/live", backend="auto", timeout_s=1)
    assert "rtsp://127.0.0.1:9/live" in text
    assert "secret" not in text


class MjpegServer(http.server.ThreadingHTTPServer):
    """Streams JPEG pictures over HTTP, as network cameras do, until it is told to stall or end."""

    daemon_threads = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Stream)
        self.frames = 10**6
        self.stall = threading.Event()
        self.ended = threading.Event()
        self.picture: Callable[[int], Pixels] = lambda number: colour(number % 250, 64, 48)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/stream.mjpg"


class _Stream(http.server.BaseHTTPRequestHandler):
    server: MjpegServer

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        try:
            for number in range(self.server.frames):
                if self.server.stall.is_set():
                    self.server.ended.wait()
                if self.server.ended.wait(0.005):
                    return
                jpeg = cv2.imencode(".jpg", self.server.picture(number))[1].tobytes()
                head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                self.wfile.write(b"--frame\r\n" + head.encode() + jpeg + b"\r\n")
        except ConnectionError:
            return  # the camera hung up

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet."""


@pytest.fixture
def server() -> Iterator[MjpegServer]:
    with MjpegServer() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.ended.set()
        server.shutdown()
        thread.join()


def test_a_network_stream_is_read(server: MjpegServer) -> None:
    camera, buffer = opened(device=server.url, backend="auto")
    assert buffer.shape == (48, 64)
    begin_ns = now_ns()
    taken = take(camera, buffer, 20)
    camera.close()
    arrivals = [captured.arrival_ns for captured in taken]
    assert arrivals == sorted(set(arrivals))
    assert begin_ns < arrivals[0]
    assert [captured.frame_id for captured in taken] == list(range(20))
    assert all(captured.exposure_ns is None for captured in taken)


def test_a_network_stream_that_stalls_lets_the_core_go_on_and_is_reported(
    server: MjpegServer,
) -> None:
    camera, buffer = opened(device=server.url, backend="auto", timeout_s=1.0)
    frames = camera.frames(lambda: buffer)
    assert next(frames) is not None
    server.stall.set()
    silences = 0
    with pytest.raises(CameraError, match="stopped: no usable frame for 1 s"):
        for captured in frames:
            silences += captured is None
    camera.close()
    assert silences >= 3


def test_closing_during_a_stall_is_bounded(
    server: MjpegServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opencv, "_CLOSE_S", 0.05)
    camera, buffer = opened(device=server.url, backend="auto", timeout_s=30.0)
    frames = camera.frames(lambda: buffer)
    assert next(frames) is not None
    server.stall.set()
    while next(frames) is not None:
        pass
    (thread,) = grabbers()
    camera.close()
    assert thread.is_alive(), "the read hangs; close did not"
    server.ended.set()
    thread.join(30)
    assert not thread.is_alive()


def test_a_network_stream_that_ends_is_reported(server: MjpegServer) -> None:
    server.frames = 60
    camera, buffer = opened(device=server.url, backend="auto", timeout_s=0.5)
    with pytest.raises(CameraError, match="stopped"):
        take(camera, buffer, 100)
    camera.close()


def test_a_page_that_is_no_stream_is_refused(server: MjpegServer) -> None:
    server.frames = 0
    assert "cannot be opened" in refusal(device=server.url, backend="auto", timeout_s=1.0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"device": -1}, "device"),
        ({"device": True}, "device"),
        ({"device": ""}, "device"),
        ({"width_px": 640}, "height_px"),
        ({"rate_hz": 0}, "rate_hz"),
        ({"rate_hz": "30"}, "rate_hz"),
        ({"exposure": 10, "auto_exposure": True}, "contradict"),
        ({"pixel_format": "JPEG2"}, "pixel_format"),
        ({"buffers": 0}, "buffers"),
        ({"backend": "v4l"}, "backend"),
        ({"timeout_s": 0}, "timeout_s"),
    ],
)
def test_wrong_settings_are_refused(wrong: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        OpenCvConfig.model_validate(wrong)
