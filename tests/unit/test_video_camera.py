import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from rtpose.cameras.video import VideoCamera, VideoConfig
from rtpose.clock import now_ns
from rtpose.errors import CameraError
from rtpose.interfaces import Captured, FrameFormat

Pixels = NDArray[np.uint8]


class Played:
    """What a camera delivered until it ended, and the error that it ended with."""

    def __init__(self, path: Path | str, *, count: int = 10**6, **settings: Any) -> None:
        self.captured: list[Captured] = []
        self.frames: list[Pixels] = []
        self.silences = 0
        self.error: CameraError | None = None
        camera = VideoCamera(VideoConfig(path=str(path), **{"rate": "max", **settings}))
        try:
            self.format: FrameFormat = camera.open()
            buffer = np.zeros(self.format.shape, np.uint8)
            self.begin_ns = now_ns()
            for captured in camera.frames(lambda: buffer):
                if captured is None:
                    self.silences += 1
                    continue
                self.captured.append(captured)
                self.frames.append(buffer.copy())
                if len(self.frames) == count:
                    return
        except CameraError as error:
            self.error = error
        finally:
            camera.close()

    @property
    def ids(self) -> list[int | None]:
        return [captured.frame_id for captured in self.captured]


def refusal(path: Path | str, **settings: Any) -> str:
    """Open a file that cannot be played and return the error's text."""
    camera = VideoCamera(VideoConfig(path=str(path), **settings))
    with pytest.raises(CameraError) as caught:
        camera.open()
    camera.close()
    return str(caught.value)


def picture(number: int, width: int = 48, height: int = 32) -> Pixels:
    image = np.full((height, width, 3), 60, np.uint8)
    image[:, : number + 1] = (20, 200, 90)
    return image


@pytest.fixture
def write_video(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str = "clip.avi", frames: int = 12, code: str = "MJPG") -> Path:
        path = tmp_path / name
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), 25, (48, 32))
        assert writer.isOpened()
        for number in range(frames):
            writer.write(picture(number))
        writer.release()
        return path

    return write


def jpeg_stream(path: Path, sizes: list[tuple[int, int]]) -> Path:
    """Write JPEG pictures one after the other: a video without container; sizes may be odd."""
    pictures = [picture(number, *size) for number, size in enumerate(sizes)]
    path.write_bytes(b"".join(cv2.imencode(".jpg", image)[1].tobytes() for image in pictures))
    return path


def test_every_frame_comes_once_and_in_order(write_video: Callable[..., Path]) -> None:
    played = Played(write_video(), colour=True)
    assert played.error is None
    assert played.ids == list(range(12))
    assert played.format.notes == ()
    for number, frame in enumerate(played.frames):
        assert np.abs(frame.astype(int) - picture(number)).mean() < 8
    arrivals = [captured.arrival_ns for captured in played.captured]
    assert arrivals == sorted(set(arrivals))
    assert all(captured.exposure_ns is None for captured in played.captured), "never faked"


def test_grey_is_opencvs_grey_of_the_colours(write_video: Callable[..., Path]) -> None:
    path = write_video()
    grey, colour = Played(path), Played(path, colour=True)
    assert grey.format.shape == (32, 48)
    assert colour.format.shape == (32, 48, 3)
    for one, three in zip(grey.frames, colour.frames, strict=True):
        assert np.array_equal(one, cv2.cvtColor(three, cv2.COLOR_BGR2GRAY))


def test_it_loops_when_asked_and_counts_on(write_video: Callable[..., Path]) -> None:
    played = Played(write_video(frames=5), loop=True, count=13)
    assert played.ids == list(range(13))
    for number in range(5, 13):
        assert np.array_equal(played.frames[number], played.frames[number - 5])


@pytest.mark.parametrize(("rate", "expected_hz"), [("own", 25.0), (40, 40.0), (12.5, 12.5)])
def test_it_says_the_rate_it_plays_at(
    write_video: Callable[..., Path], rate: str | float, expected_hz: float
) -> None:
    assert Played(write_video(frames=2), rate=rate).format.rate_hz == expected_hz


def test_as_fast_as_frames_are_taken_has_no_rate(write_video: Callable[..., Path]) -> None:
    assert Played(write_video(), rate="max").format.rate_hz == 0


def test_no_frame_comes_before_its_time(write_video: Callable[..., Path]) -> None:
    played = Played(write_video(frames=8), rate=100)
    for number, captured in enumerate(played.captured):
        assert captured.arrival_ns - played.begin_ns >= number * 10_000_000


def test_a_slow_video_lets_the_core_stop_it(write_video: Callable[..., Path]) -> None:
    played = Played(write_video(frames=2), rate=4)
    assert played.ids == [0, 1]
    assert played.silences == 2


@pytest.mark.parametrize("size", [(33, 17), (1, 1), (99, 2), (640, 1)])
def test_any_size_is_played(tmp_path: Path, size: tuple[int, int]) -> None:
    path = jpeg_stream(tmp_path / "odd.mjpeg", [size] * 4)
    for colour in (False, True):
        played = Played(path, colour=colour, rate=1000)
        assert played.error is None
        assert played.ids == [0, 1, 2, 3]
        assert (played.format.width_px, played.format.height_px) == size


def test_a_file_that_does_not_state_its_length_says_so(tmp_path: Path) -> None:
    played = Played(jpeg_stream(tmp_path / "bare.mjpeg", [(32, 32)] * 3))
    assert len(played.frames) == 3
    assert any("early end" in note for note in played.format.notes)


def test_a_size_that_changes_never_reaches_the_core(tmp_path: Path) -> None:
    path = jpeg_stream(tmp_path / "change.mjpeg", [(64, 48)] * 3 + [(80, 60)] * 3)
    played = Played(path)
    assert {frame.shape for frame in played.frames} == {(48, 64)}


@pytest.mark.parametrize("name", ["clip.avi", "clip.mkv"])
def test_a_truncated_file_is_played_as_far_as_it_goes_then_reported(
    write_video: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    whole = write_video(name, frames=40).read_bytes()
    path = tmp_path / f"cut-{name}"
    path.write_bytes(whole[: len(whole) * 6 // 10])
    played = Played(path, loop=True)
    assert 5 < len(played.frames) < 38
    assert played.ids == list(range(len(played.frames)))
    assert f"after {len(played.frames)} of 40 frames" in str(played.error)
    assert str(path) in str(played.error)


def test_a_count_that_is_two_too_high_is_forgiven(
    write_video: Callable[..., Path], tmp_path: Path
) -> None:
    data = write_video(frames=12).read_bytes()
    for label, offset in ((b"avih", 24), (b"strh", 40)):
        at = data.index(label) + offset
        assert struct.unpack_from("<I", data, at) == (12,)
        data = data[:at] + struct.pack("<I", 14) + data[at + 4 :]
    path = tmp_path / "counted.avi"
    path.write_bytes(data)
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) == 14
    played = Played(path)
    assert played.error is None
    assert len(played.frames) == 12


def test_a_file_without_frames_is_refused(write_video: Callable[..., Path]) -> None:
    assert "no frames" in refusal(write_video(frames=0))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "nowhere.mp4"
    text = refusal(path)
    assert "no such file" in text
    assert str(path) in text


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"these are notes, not a video\n" * 200])
def test_what_is_not_a_video_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.mp4"
    path.write_bytes(content)
    assert "cannot read this as a video" in refusal(path)


def test_an_mp4_without_its_index_is_refused(
    write_video: Callable[..., Path], tmp_path: Path
) -> None:
    whole = write_video("whole.mp4", code="mp4v", frames=20).read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole[: len(whole) // 2])
    assert "cut off" in refusal(path)


def test_a_file_without_a_rate_needs_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = jpeg_stream(tmp_path / "bare.mjpeg", [(32, 32)] * 3)

    class WithoutRate:
        """A capture that does not know its rate (OpenCV's own class must not be derived from)."""

        def __init__(self) -> None:
            self._capture = real()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._capture, name)

        def get(self, prop: int) -> float:
            return 0.0 if prop == cv2.CAP_PROP_FPS else self._capture.get(prop)

    real = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", WithoutRate)
    assert "set rate to a number" in refusal(path)
    assert Played(path, rate=500).error is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "path"),
        ({"path": ""}, "path"),
        ({"path": "clip.avi", "rate": "fast"}, "rate"),
        ({"path": "clip.avi", "rate": 0}, "rate"),
        ({"path": "clip.avi", "rate": "30"}, "rate"),
        ({"path": "clip.avi", "loop": 1}, "loop"),
    ],
)
def test_wrong_settings_are_refused(wrong: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        VideoConfig.model_validate(wrong)


@pytest.mark.data
def test_the_mouse_video_comes_as_opencv_reads_it(data: Path) -> None:
    path = data / "dlc-openfield-mouse/videos/m3v1mp4.mp4"
    played = Played(path, count=25, rate="own")
    assert played.format.shape == (480, 640)
    assert played.format.rate_hz == pytest.approx(30, abs=0.01)
    reference = cv2.VideoCapture(str(path))
    for frame in played.frames:
        done, image = reference.read()
        assert done
        assert np.array_equal(frame, cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
    reference.release()
