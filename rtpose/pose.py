"""A frame's header and its pose: what travels through the hot loop, and how it is encoded."""

import math
import reprlib
import struct
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from rtpose.errors import MessageError

#: First byte of a packed pose. No msgpack and no JSON begins with it.
PACKED_MARK: Final = 0xC1

# Mark, lengths of run and camera, individuals, keypoints; then seq, frame_id, dropped, the times.
_PACKED: Final = struct.Struct("<BBBxHH10q")

#: Of individuals or keypoints, and of characters in the name of a run or a camera.
_MOST, _LONGEST_NAME = 10_000, 128

_POSE_INTS = ("seq", "frame_id", "dropped")
_POSE_TIMES = (
    "arrival_ns",
    "ready_ns",
    "infer_start_ns",
    "infer_end_ns",
    "publish_ns",
    "repeated_ns",
)


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """What travels with the pixels of one frame in shared memory.

    Attributes
    ----------
    frame_id : int
        Counts the camera's frames; a gap is a frame that the camera itself lost.
    exposure_ns : int or None
        The camera's own stamp mapped to `clock.now_ns`, or None if the camera has none.
    arrival_ns, ready_ns : int
        When the driver handed the frame over; when its slot was published.
    repeated_ns : int
        For how long the camera has been delivering this very picture, bit by bit: from the arrival
        of the first such frame to that of this one. 0 for a new picture.
    """

    frame_id: int
    exposure_ns: int | None
    arrival_ns: int
    ready_ns: int
    repeated_ns: int = 0

    @property
    def start_ns(self) -> int:
        """What latency is counted from: the exposure where there is one, else the arrival."""
        return self.arrival_ns if self.exposure_ns is None else self.exposure_ns


@dataclass(frozen=True, slots=True, eq=False)
class Pose:
    """The keypoints of all individuals in one frame.

    Attributes
    ----------
    keypoints : ndarray of float32, shape (individuals, keypoints, 3)
        x, y in px of the full camera frame, confidence.
    valid : ndarray of uint8, shape (individuals, keypoints)
        0 where the confidence is below the threshold.
    repeated_ns : int
        See `FrameHeader`.
    """

    run: str
    camera: str
    seq: int
    frame_id: int
    dropped: int
    exposure_ns: int | None
    arrival_ns: int
    ready_ns: int
    infer_start_ns: int
    infer_end_ns: int
    publish_ns: int
    keypoints: NDArray[np.float32]
    valid: NDArray[np.uint8]
    repeated_ns: int = 0

    type_name: ClassVar[str] = "pose"

    @property
    def start_ns(self) -> int:
        """What latency is counted from: the exposure where there is one, else the arrival."""
        return self.arrival_ns if self.exposure_ns is None else self.exposure_ns

    def _scalars(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "camera": self.camera,
            "seq": self.seq,
            "frame_id": self.frame_id,
            "dropped": self.dropped,
            "exposure_ns": self.exposure_ns,
            "arrival_ns": self.arrival_ns,
            "ready_ns": self.ready_ns,
            "infer_start_ns": self.infer_start_ns,
            "infer_end_ns": self.infer_end_ns,
            "publish_ns": self.publish_ns,
            "repeated_ns": self.repeated_ns,
            "shape": list(self.keypoints.shape),
        }

    def to_wire(self) -> dict[str, Any]:
        """Return the msgpack payload map."""
        data = self._scalars()
        data["keypoints"] = self.keypoints.astype("<f4", copy=False).tobytes()
        data["valid"] = self.valid.tobytes()
        return data

    def to_json_wire(self) -> dict[str, Any]:
        """Return the JSON payload map: nested lists, null for what is not a finite number."""
        data = self._scalars()
        finite = np.isfinite(self.keypoints)
        boxed = self.keypoints.astype(object)
        boxed[~finite] = None
        data["keypoints"] = boxed.tolist()
        data["valid"] = self.valid.tolist()
        return data

    def pack(self) -> bytes:
        """Return the pose in the fixed layout of the line from inference to control.

        A tenth of the code of the map, which counts when a process wakes up with cold caches.
        """
        run, camera = self.run.encode(), self.camera.encode()
        individuals, keypoints, _ = self.keypoints.shape
        head = _PACKED.pack(
            PACKED_MARK,
            len(run),
            len(camera),
            individuals,
            keypoints,
            self.seq,
            self.frame_id,
            self.dropped,
            -1 if self.exposure_ns is None else self.exposure_ns,
            self.arrival_ns,
            self.ready_ns,
            self.infer_start_ns,
            self.infer_end_ns,
            self.publish_ns,
            self.repeated_ns,
        )
        points = self.keypoints.astype("<f4", copy=False).tobytes()
        return b"".join((head, run, camera, points, self.valid.tobytes()))

    @classmethod
    def unpack(cls, payload: bytes) -> Self:
        """Check what `pack` gave and build the pose, or raise `MessageError`."""
        try:
            _, run_size, camera_size, individuals, keypoints, *numbers = _PACKED.unpack_from(
                payload
            )
            names_at = _PACKED.size
            points_at = names_at + run_size + camera_size
            valid_at = points_at + individuals * keypoints * 12
            if len(payload) != valid_at + individuals * keypoints or not run_size * camera_size:
                raise MessageError(f"malformed packed pose: {len(payload)} bytes")
            seq, frame_id, dropped, exposure_ns, *stamps = numbers
            arrival, ready, start, end, publish, repeated = stamps
            if min(numbers) < -1 or min(*numbers[:3], *numbers[4:]) < 0:
                raise MessageError("malformed packed pose: a number is negative")
            run = payload[names_at : names_at + run_size].decode()
            camera = payload[names_at + run_size : points_at].decode()
            if max(individuals, keypoints) > _MOST or max(len(run), len(camera)) > _LONGEST_NAME:
                raise MessageError("malformed packed pose: more than any pose holds")
            points = np.frombuffer(payload, "<f4", individuals * keypoints * 3, points_at)
            valid = np.frombuffer(payload, np.uint8, individuals * keypoints, valid_at)
        except (struct.error, ValueError) as error:
            raise MessageError(f"malformed packed pose: {error}") from error
        return cls(
            run,
            camera,
            seq,
            frame_id,
            dropped,
            None if exposure_ns < 0 else exposure_ns,
            arrival,
            ready,
            start,
            end,
            publish,
            points.reshape(individuals, keypoints, 3),
            valid.reshape(individuals, keypoints),
            repeated,
        )

    @classmethod
    def from_wire(cls, data: dict[str, Any]) -> Self:
        """Check a payload map of either encoding and build the pose, or raise `MessageError`."""
        try:
            scalars: dict[str, Any] = {
                name: _checked_int(data[name], name) for name in _POSE_INTS + _POSE_TIMES
            }
            exposure = data["exposure_ns"]
            scalars["exposure_ns"] = (
                None if exposure is None else _checked_int(exposure, "exposure_ns")
            )
            for name in ("run", "camera"):
                if not isinstance(data[name], str) or not 0 < len(data[name]) <= _LONGEST_NAME:
                    raise MessageError(f"malformed pose: {name}={reprlib.repr(data[name])}")
                data[name].encode()  # a lone surrogate has no UTF-8: it could not be passed on
                scalars[name] = data[name]
            keypoints, valid = _arrays(data["shape"], data["keypoints"], data["valid"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise MessageError(f"malformed pose: {error!r}") from error
        return cls(**scalars, keypoints=keypoints, valid=valid)


def _checked_int(value: object, name: str) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise MessageError(f"malformed pose: {name}={reprlib.repr(value)}")
    return value


def _arrays(
    shape: object, keypoints: object, valid: object
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    if (
        not isinstance(shape, list)
        or len(shape) != 3
        or shape[2] != 3
        or not all(type(n) is int and 0 <= n <= _MOST for n in shape)
    ):
        raise MessageError(f"malformed pose: shape={reprlib.repr(shape)}")
    if isinstance(keypoints, bytes) and isinstance(valid, bytes):
        points = np.frombuffer(keypoints, "<f4").astype(np.float32, copy=False)
        flags = np.frombuffer(valid, np.uint8)
    else:
        points = _nested(keypoints, shape, (float, int, type(None))).astype(np.float64)
        with np.errstate(over="ignore"):  # beyond float32 is infinite, which no reader uses
            points = points.astype(np.float32)
        flags = np.array(_nested(valid, shape[:2], (int,)).tolist(), np.uint8)
    if points.size != shape[0] * shape[1] * 3 or flags.size != shape[0] * shape[1]:
        raise MessageError(
            f"malformed pose: {points.size} coordinates and {flags.size} flags for shape {shape}"
        )
    return points.reshape(shape), flags.reshape(shape[:2])


def _nested(value: object, shape: list[int], types: tuple[type, ...]) -> NDArray[np.object_]:
    """Return nested lists as an array; NumPy alone would also parse text and round flags."""
    array = np.array(value, dtype=object)
    if array.size == 0 == math.prod(shape):
        array = array.reshape(shape)  # an empty list says nothing of the axes inside it
    if not isinstance(value, list) or list(array.shape) != shape:
        raise MessageError(f"malformed pose: {array.shape} values for shape {shape}")
    if any(type(item) not in types for item in array.flat):
        raise MessageError(
            f"malformed pose: values must be {' or '.join(t.__name__ for t in types)}"
        )
    return array
