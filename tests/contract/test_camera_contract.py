"""What every camera must do; third-party ones too.

A plug-in's own tests derive a class from `CameraContract`, name the plug-in, and give its settings.
With ``tests/contract`` on pytest's ``pythonpath``::

    from test_camera_contract import CameraContract

    class TestMyCamera(CameraContract):
        plugin = MyCamera
        settings = {"serial_number": "12345678"}
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from rtpose.cameras.opencv import OpenCvCamera
from rtpose.cameras.synthetic import SyntheticCamera
from rtpose.cameras.video import VideoCamera
from rtpose.clock import now_ns
from rtpose.errors import CameraError
from rtpose.interfaces import Camera, Captured, FrameFormat

Pixels = NDArray[np.uint8]
GUARD_BYTES = 4096


class Slots:
    """Buffers as the core hands them out: random bytes, between guard bytes, one per frame."""

    def __init__(self, frame_format: FrameFormat) -> None:
        self._shape = frame_format.shape
        self._random = np.random.default_rng(0)
        self._open = False
        self.memory: list[Pixels] = []
        self.before: list[Pixels] = []

    def buffer(self) -> Pixels:
        """Give the slot that is being written; the same one until a frame was taken."""
        if not self._open:
            size = int(np.prod(self._shape)) + 2 * GUARD_BYTES
            self.memory.append(self._random.integers(0, 256, size, dtype=np.uint8))
            self.before.append(self.memory[-1].copy())
            self._open = True
        return self.pixels(self.memory[-1])

    def take(self) -> Pixels:
        """Close the slot after a frame came, and give its pixels."""
        assert self._open, "a frame was reported that no buffer was asked for"
        self._open = False
        return self.pixels(self.memory[-1])

    def pixels(self, memory: Pixels) -> Pixels:
        return memory[GUARD_BYTES:-GUARD_BYTES].reshape(self._shape)


class CameraContract:
    """The suite. `frames_wanted` of the camera's frames are looked at where one is not enough."""

    plugin: ClassVar[type[Camera]]
    settings: ClassVar[Mapping[str, Any]] = {}
    #: Settings with which the camera opens and then, for a while, delivers nothing; if it can.
    silent_settings: ClassVar[Mapping[str, Any] | None] = None
    frames_wanted: ClassVar[int] = 8

    @pytest.fixture
    def changed_settings(self) -> Mapping[str, Any]:
        """Settings that only a test knows (a path); override it where needed."""
        return {}

    @pytest.fixture
    def make_camera(self, changed_settings: Mapping[str, Any]) -> Callable[..., Camera]:
        def make(**more: Any) -> Camera:
            values = {**self.settings, **changed_settings, **more}
            return self.plugin(self.plugin.Config.model_validate(values))

        return make

    @pytest.fixture
    def camera(self, make_camera: Callable[..., Camera]) -> Iterator[Camera]:
        camera = make_camera()
        yield camera
        camera.close()

    def captures(self, camera: Camera, slots: Slots, count: int) -> Iterator[Captured]:
        frames = camera.frames(slots.buffer)
        while count > 0:
            captured = next(frames)
            if captured is not None:
                count -= 1
                yield captured

    def test_unknown_settings_are_refused(self, changed_settings: Mapping[str, Any]) -> None:
        settings = {**self.settings, **changed_settings, "no_such_setting": 1}
        with pytest.raises(ValidationError, match="no_such_setting"):
            self.plugin.Config.model_validate(settings)

    def test_it_says_what_it_delivers(self, camera: Camera) -> None:
        frame_format = camera.open()
        assert isinstance(frame_format, FrameFormat)
        assert frame_format.height_px > 0
        assert frame_format.width_px > 0
        assert frame_format.channels in (1, 3)
        assert frame_format.rate_hz >= 0
        assert all(isinstance(note, str) and note for note in frame_format.notes)

    def test_every_frame_fills_its_buffer_and_nothing_else(self, camera: Camera) -> None:
        slots = Slots(camera.open())
        for _ in self.captures(camera, slots, self.frames_wanted):
            pixels = slots.take()
            after, before = slots.memory[-1], slots.before[-1]
            changed = pixels != slots.pixels(before)
            assert changed.any(axis=tuple(range(1, changed.ndim))).all(), "every row is written"
            assert changed.any(axis=(0, *range(2, changed.ndim))).all(), "every column is written"
            assert np.array_equal(after[:GUARD_BYTES], before[:GUARD_BYTES])
            assert np.array_equal(after[-GUARD_BYTES:], before[-GUARD_BYTES:])

    def test_a_buffer_is_left_alone_after_its_frame(self, camera: Camera) -> None:
        slots = Slots(camera.open())
        for _ in self.captures(camera, slots, self.frames_wanted):
            slots.take()[:] = 0
        camera.close()
        assert not any(slots.pixels(memory).any() for memory in slots.memory)

    def test_frames_are_counted_and_stamped_in_order(self, camera: Camera) -> None:
        slots = Slots(camera.open())
        begin_ns, last_ns, last_id = now_ns(), 0, -1
        for captured in self.captures(camera, slots, self.frames_wanted):
            slots.take()
            assert max(begin_ns, last_ns) < captured.arrival_ns <= now_ns()
            if captured.exposure_ns is not None:
                assert captured.exposure_ns <= captured.arrival_ns
            if captured.frame_id is not None:
                assert captured.frame_id > last_id
                last_id = captured.frame_id
            last_ns = captured.arrival_ns

    @pytest.mark.parametrize("frames", [0, 1, 3])
    def test_it_can_be_abandoned_at_any_frame(self, camera: Camera, frames: int) -> None:
        threads = set(threading.enumerate())
        slots = Slots(camera.open())
        iterator = camera.frames(slots.buffer)
        for _ in range(frames):
            next(iterator)
        camera.close()
        camera.close()
        assert set(threading.enumerate()) <= threads

    def test_after_close_it_ends(self, camera: Camera) -> None:
        slots = Slots(camera.open())
        iterator = camera.frames(slots.buffer)
        next(iterator)
        camera.close()
        with pytest.raises((StopIteration, CameraError)):
            for _ in range(100):
                next(iterator)

    def test_close_without_open_does_nothing(self, camera: Camera) -> None:
        camera.close()
        camera.close()

    def test_frames_without_open_is_an_error(self, camera: Camera) -> None:
        with pytest.raises(CameraError):
            next(camera.frames(lambda: np.empty(0, np.uint8)))

    def test_it_can_be_opened_again_by_another(self, make_camera: Callable[..., Camera]) -> None:
        formats = []
        for _ in range(2):
            camera = make_camera()
            formats.append(camera.open())
            camera.close()
        assert formats[0] == formats[1]

    def test_it_says_so_when_nothing_comes(self, make_camera: Callable[..., Camera]) -> None:
        if self.silent_settings is None:
            pytest.skip("this camera cannot be silent on request")
        camera = make_camera(**self.silent_settings)
        try:
            slots = Slots(camera.open())
            assert any(captured is None for captured in camera.frames(slots.buffer))
        finally:
            camera.close()


class TestSynthetic(CameraContract):
    plugin = SyntheticCamera
    settings: ClassVar[Mapping[str, Any]] = {"rate_hz": 200, "width_px": 161, "height_px": 99}
    silent_settings: ClassVar[Mapping[str, Any]] = {"freeze_after": 0}


class TestSyntheticColourAsFastAsTaken(CameraContract):
    plugin = SyntheticCamera
    settings: ClassVar[Mapping[str, Any]] = {"rate_hz": 0, "colour": True, "jitter_ms": 2}
    silent_settings: ClassVar[Mapping[str, Any]] = {"freeze_after": 3}


class TestSyntheticWithLosses(CameraContract):
    plugin = SyntheticCamera
    settings: ClassVar[Mapping[str, Any]] = {
        "rate_hz": 500,
        "drop_every": 3,
        "drop_probability": 0.3,
        "freeze_after": 5,
        "freeze_frames": 100,
    }
    silent_settings: ClassVar[Mapping[str, Any]] = {"freeze_frames": 0}


class VideoContract(CameraContract):
    plugin = VideoCamera
    size: ClassVar[tuple[int, int]] = (62, 46)

    @pytest.fixture
    def changed_settings(self, tmp_path: Path) -> Mapping[str, Any]:
        path = tmp_path / "clip.avi"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 50, self.size)
        for number in range(20):
            writer.write(np.full((*self.size[::-1], 3), 10 * number, np.uint8))
        writer.release()
        return {"path": str(path)}


class TestVideo(VideoContract):
    settings: ClassVar[Mapping[str, Any]] = {"rate": "own"}
    silent_settings: ClassVar[Mapping[str, Any]] = {"rate": 2.0}


class TestVideoColourAsFastAsTaken(VideoContract):
    settings: ClassVar[Mapping[str, Any]] = {"rate": "max", "colour": True, "loop": True}
    silent_settings: ClassVar[Mapping[str, Any]] = {"rate": 2.0}
    frames_wanted = 50


class ImagesContract(CameraContract):
    """A camera through OpenCV, here its image sequence backend, which needs no device."""

    plugin = OpenCvCamera
    silent_settings: ClassVar[Mapping[str, Any]] = {"timeout_s": 10.0}

    @pytest.fixture
    def changed_settings(self, tmp_path: Path) -> Mapping[str, Any]:
        for number in range(20):
            picture = np.full((46, 61, 3), 10 * number, np.uint8)
            cv2.imwrite(str(tmp_path / f"frame_{number:03}.png"), picture)
        return {"device": str(tmp_path / "frame_%03d.png")}


class TestOpenCvImages(ImagesContract):
    settings: ClassVar[Mapping[str, Any]] = {"backend": "images"}


class TestOpenCvImagesInColour(ImagesContract):
    settings: ClassVar[Mapping[str, Any]] = {"backend": "images", "colour": True}
