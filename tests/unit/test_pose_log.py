"""The record of poses: what was taken comes back to the bit, up to where it was cut off."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rtpose.errors import MessageError, RecordingError
from rtpose.messages import Pose
from rtpose.pose_log import PoseLog, TakenPose, read_poses

times_ns = st.integers(0, (1 << 63) - 1)
names = st.text(min_size=1, max_size=20)


@st.composite
def taken_poses(draw: Any) -> TakenPose:
    shape = draw(st.tuples(st.integers(0, 3), st.integers(0, 6)))
    pose = Pose(
        draw(names),
        draw(names),
        draw(times_ns),
        draw(times_ns),
        draw(times_ns),
        draw(st.one_of(st.none(), times_ns)),
        draw(times_ns),
        draw(times_ns),
        draw(times_ns),
        draw(times_ns),
        draw(times_ns),
        draw(arrays(np.float32, (*shape, 3), elements=st.floats(width=32))),
        draw(arrays(np.uint8, shape, elements=st.integers(0, 1))),
        draw(times_ns),
    )
    decided = draw(st.lists(st.tuples(st.text("abc-_0", max_size=64), times_ns), max_size=4))
    return TakenPose(pose, draw(times_ns), draw(st.integers(0, (1 << 64) - 1)), decided)


def write(folder: str, poses: list[TakenPose]) -> Path:
    log = PoseLog(Path(folder) / "poses.bin")
    for taken in poses:
        log.append(taken.pose, taken.receive_ns, taken.records, taken.decided)
    log.close()
    return log.path


def image(taken: TakenPose) -> tuple[Any, ...]:
    """Return all that a record holds, bit by bit: not-a-number is equal to itself here."""
    return taken.pose.pack(), taken.receive_ns, taken.records, list(taken.decided)


def images(path: Path) -> list[tuple[Any, ...]]:
    return [image(taken) for taken in read_poses(path)]


@given(st.lists(taken_poses(), max_size=5))
def test_what_was_taken_comes_back(poses: list[TakenPose]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert images(write(folder, poses)) == [image(taken) for taken in poses]


@settings(max_examples=50)
@given(st.lists(taken_poses(), min_size=1, max_size=3), st.data())
def test_a_log_that_was_cut_off_anywhere_gives_the_whole_records_before(
    poses: list[TakenPose], data: Any
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(folder, poses)
        whole = path.read_bytes()
        ends = [len(write(tempfile.mkdtemp(dir=folder), poses[:n]).read_bytes()) for n in (0, 1, 2)]
        cut = data.draw(st.integers(0, len(whole) - 1))
        path.write_bytes(whole[:cut])
        complete = sum(end <= cut for end in ends[1:]) if len(poses) > 2 else None
        found = images(path)
        assert found == [image(taken) for taken in poses[: len(found)]]
        assert len(found) < len(poses)
        assert complete is None or len(found) == complete


@settings(max_examples=200)
@given(st.lists(taken_poses(), min_size=1, max_size=2), st.data())
def test_a_damaged_log_is_said_to_be_or_read_but_never_anything_else(
    poses: list[TakenPose], data: Any
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(folder, poses)
        damaged = bytearray(path.read_bytes())
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] ^= data.draw(st.integers(1, 255))
        path.write_bytes(damaged)
        try:
            assert len(images(path)) <= len(poses)
        except MessageError as error:
            assert str(path) in str(error)


def test_what_is_no_log_of_poses_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "poses.bin"
    path.write_bytes(b"PK\x03\x04 and more")
    with pytest.raises(MessageError, match=r"poses\.bin: at byte 0: no record of a pose"):
        images(path)


def test_a_log_of_another_version_is_said_to_be_one(tmp_path: Path) -> None:
    path = tmp_path / "poses.bin"
    path.write_bytes(b"PLG1\x04\x00\x00\x00abcd")
    with pytest.raises(MessageError, match="another version of rtpose"):
        images(path)


def test_a_full_disk_is_said_and_counted() -> None:
    log = PoseLog(Path("/dev/full"))
    nothing = np.zeros((1, 0, 3), np.float32), np.zeros((1, 0), np.uint8)
    log.append(Pose("r", "c", 0, 0, 0, None, 0, 0, 0, 0, 0, *nothing), 1, 0, [])
    with pytest.raises(RecordingError, match=r"1 records lost: .*No space left"):
        log.close()
