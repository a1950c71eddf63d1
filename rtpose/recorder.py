"""The recorder process: frames in order, with their poses drawn, into a video or a picture.

Killing it changes nothing in the loop: it only reads. What it could not keep up with is counted.
"""

import shutil
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2

from rtpose import overlay
from rtpose.bus import Subscriber, public_key
from rtpose.clock import now_ns
from rtpose.errors import RecordingError
from rtpose.loop import Loop
from rtpose.messages import Pose, TriggerEvent
from rtpose.model_card import ModelCard
from rtpose.overlay import Image, LineLevels
from rtpose.rig import Rig
from rtpose.ring import RingAddress, RingReader, Taken, WriterState

_WAIT_S: Final = 0.02
#: How long a frame waits for its pose; a frame that inference passed over never gets one.
_PATIENCE_NS: Final = 500_000_000
#: How long a fire is shown.
_FLASH_NS: Final = 150_000_000
_FREE_BYTES: Final = 8 << 20
_FREE_CHECK_FRAMES: Final = 50
_FALLBACK_RATE_HZ: Final = 30.0


@dataclass(frozen=True)
class RecorderTask:
    """What to make.

    Attributes
    ----------
    video : Path, optional
        An annotated MP4 of every frame.
    snapshot : Path, optional
        One annotated PNG: of the last frame with a fire, or of the last frame with a pose.
    """

    video: Path | None = None
    snapshot: Path | None = None


def recorder(
    loop: Loop, rig: Rig, card: ModelCard, task: RecorderTask, address: RingAddress, rate_hz: float
) -> None:
    """Record until the camera ends or told to stop; then finish the files."""
    _Recorder(loop, rig, card, task, rate_hz).run(RingReader(address))


class _Recorder:
    def __init__(
        self, loop: Loop, rig: Rig, card: ModelCard, task: RecorderTask, rate_hz: float
    ) -> None:
        self._loop = loop
        self._rig = rig
        self._skeleton = card.keypoints()
        self._snapshot_file = task.snapshot
        self._snapshot: tuple[bool, Image] | None = None
        self._video = None if task.video is None else _Video(task.video, rate_hz)
        self._waiting: deque[tuple[int, int, Image]] = deque()
        self._poses: dict[int, Pose] = {}
        self._newest_pose = -1
        self._fires: dict[str, int] = {}
        self._settings = {name: e.settings.model_dump() for name, e in rig.triggers.items()}
        self._levels = LineLevels(
            [
                f"{output.name}.{name}"
                for output in rig.outputs.values()
                for name, line in output.settings.lines.items()
                if line.levels
            ],
            {name: entry.common.output for name, entry in rig.triggers.items()},
        )
        loop.counters.update(recorded=0, passed_over=0)

    def run(self, reader: RingReader) -> None:
        stream = self._rig.stream
        key_file = stream.curve_secret_key_file
        key = None if key_file is None else public_key(Path(key_file))
        endpoints = [stream.local_endpoint(port) for port in (stream.pose_port, stream.event_port)]
        with Subscriber(endpoints, [f"pose.{self._rig.camera.name}", "event"], key) as messages:
            self._loop.ready({})
            while self._loop.turn():
                taken = reader.next(overlay.to_bgr, _WAIT_S)
                self._take_messages(messages)
                if taken is not None:
                    self._keep(taken)
                elif reader.writer_state is not WriterState.LIVE:
                    break
                self._write_what_is_due()
            self._take_messages(messages)
            self._write_what_is_due(everything=True)
        self._loop.counters["torn"] = reader.torn
        reader.close()
        self._finish()

    def _keep(self, taken: Taken[Image]) -> None:
        self._loop.counters["passed_over"] += taken.passed_over
        self._waiting.append((taken.header.frame_id, taken.header.ready_ns, taken.result))

    def _take_messages(self, messages: Subscriber) -> None:
        while (message := messages.receive(0.0)) is not None:
            if isinstance(message, Pose):
                self._poses[message.frame_id] = message
                self._newest_pose = max(self._newest_pose, message.frame_id)
            elif isinstance(message, TriggerEvent):
                self._levels.take(message)
                if message.kind == "fire" and message.trigger:
                    self._fires[message.trigger] = message.decide_ns

    def _write_what_is_due(self, *, everything: bool = False) -> None:
        now = now_ns()
        while self._waiting:
            frame_id, ready_ns, image = self._waiting[0]
            if not everything and frame_id > self._newest_pose and now - ready_ns < _PATIENCE_NS:
                return
            self._waiting.popleft()
            self._write(frame_id, ready_ns, image)

    def _write(self, frame_id: int, ready_ns: int, image: Image) -> None:
        pose = self._poses.pop(frame_id, None)
        for passed in [known for known in self._poses if known < frame_id]:
            del self._poses[passed]  # of frames that the recorder itself passed over
        flashing = {
            name
            for name, at in self._fires.items()
            if 0 <= at - ready_ns + _FLASH_NS < 2 * _FLASH_NS
        }
        levels = self._levels.at(frame_id, ready_ns)
        active = flashing | self._levels.holders()
        for name, settings in self._settings.items():
            overlay.draw_places(image, settings, name in active)
        words = [f"frame {frame_id}"]
        if pose is not None:
            overlay.draw_pose(image, pose, self._skeleton)
            words.append(f"pose after {(pose.publish_ns - pose.start_ns) / 1e6:.1f} ms")
        words += [f"{name}: fire" for name in sorted(flashing)]
        overlay.draw_words(image, words)
        overlay.draw_levels(image, levels)
        if pose is not None and (flashing or not (self._snapshot and self._snapshot[0])):
            self._snapshot = (bool(flashing), image)
        if self._video is not None:
            self._video.write(image)
        self._loop.counters["recorded"] += 1

    def _finish(self) -> None:
        if self._video is not None:
            self._video.finish()
        if self._snapshot_file is None:
            return
        if self._snapshot is None:
            raise RecordingError(f"{self._snapshot_file}: there was no frame with a pose to save")
        encoded, picture = cv2.imencode(".png", self._snapshot[1])
        try:
            if not encoded:
                raise RecordingError(f"{self._snapshot_file}: the picture cannot be encoded")
            self._snapshot_file.write_bytes(picture.tobytes())
        except OSError as error:
            raise RecordingError(f"{self._snapshot_file}: {error.strerror}") from error


class _Video:
    """An MP4 that is only given its name when it is whole."""

    def __init__(self, path: Path, rate_hz: float) -> None:
        self._path = path
        self._partial = path.with_name(f"{path.stem}.partial{path.suffix or '.mp4'}")
        self._rate_hz = rate_hz or _FALLBACK_RATE_HZ
        self._writer: cv2.VideoWriter | None = None
        self._written = 0

    def write(self, image: Image) -> None:
        if self._writer is None:
            height, width = image.shape[:2]
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._partial), code, self._rate_hz, (width, height))
            if not self._writer.isOpened():
                raise RecordingError(
                    f"cannot write the video {self._path}: is its folder there and writable, "
                    "and does its name end in .mp4?"
                )
        if self._written % _FREE_CHECK_FRAMES == 0:
            self._check_space()
        self._writer.write(image)
        self._written += 1

    def _check_space(self) -> None:
        free = shutil.disk_usage(self._partial.parent).free
        if free < _FREE_BYTES:
            self._close()
            raise RecordingError(
                f"disk full: {free >> 20} MiB left for {self._path}; "
                f"the first {self._written} frames are in {self._partial}"
            )

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.release()

    def finish(self) -> None:
        """Close the file and look whether every frame is in it (OpenCV does not report a loss)."""
        self._close()
        if self._writer is None:
            raise RecordingError(f"{self._path}: there was no frame to save")
        found = int(cv2.VideoCapture(str(self._partial)).get(cv2.CAP_PROP_FRAME_COUNT))
        if found != self._written:
            raise RecordingError(
                f"{self._partial} holds {found} of {self._written} frames: the disk may be full"
            )
        self._partial.replace(self._path)
