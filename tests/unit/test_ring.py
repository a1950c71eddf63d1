"""FrameRing against a slow, obvious model of itself."""

import os
import secrets
from collections.abc import Iterator
from multiprocessing.synchronize import Semaphore

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rtpose import ring
from rtpose.errors import RingError
from rtpose.loop import SPAWN
from rtpose.ring import RingAddress, RingReader, RingWriter, WriterState

SHAPE = (4, 6)


class Pair:
    """A writer and a reader on a ring of their own."""

    def __init__(self, slots: int, shape: tuple[int, ...] = SHAPE) -> None:
        self.name = f"rtpose-test-{os.getpid()}-{secrets.token_hex(4)}"
        self.wake: Semaphore = SPAWN.Semaphore(0)
        self.writer = RingWriter(self.name, shape, slots, {"reader": self.wake})
        self.reader = RingReader(RingAddress(self.name, self.wake))
        self.published = 0

    def publish(self, frame_id: int | None = None) -> None:
        number = self.published if frame_id is None else frame_id
        self.writer.buffer()[...] = number % 251
        self.publish_as_it_is(number)

    def publish_as_it_is(self, number: int = 0) -> None:
        self.writer.publish(number, arrival_ns=number * 10, exposure_ns=None)
        self.published += 1

    def close(self) -> None:
        self.reader.close()
        self.writer.close()
        ring.unlink(self.name)


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair(slots=4)
    yield pair
    pair.close()


def copy(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return pixels.copy()


@settings(deadline=None, max_examples=60)
@given(
    shape=st.sampled_from([(1, 1), (3, 5, 3), (100, 400)]),
    changes=st.lists(st.none() | st.integers(0, 39_999), min_size=1, max_size=12),
)
def test_a_picture_that_comes_again_is_told_from_one_that_differs_anywhere(
    shape: tuple[int, ...], changes: list[int | None]
) -> None:
    pair = Pair(3, shape)
    picture = np.zeros(shape, np.uint8)
    try:
        for number, changed in enumerate(changes):
            if changed is not None:
                picture.reshape(-1)[changed % picture.size] ^= 1
            pair.writer.buffer()[...] = picture
            assert pair.writer.repeats_the_last() == (number > 0 and changed is None)
            pair.publish_as_it_is()
    finally:
        pair.close()


def test_how_long_a_picture_was_repeated_reaches_the_reader(pair: Pair) -> None:
    pair.writer.buffer()
    pair.writer.publish(0, 10, None, 7)
    taken = pair.reader.newest(copy, timeout_s=0)
    assert taken is not None
    assert taken.header.repeated_ns == 7


operations = st.lists(st.sampled_from(["publish", "read"]), max_size=60)


@settings(deadline=None, max_examples=60)
@given(slots=st.integers(3, 6), steps=operations)
def test_newest_reader_gets_the_newest_frame_once_and_counts_the_rest(
    slots: int, steps: list[str]
) -> None:
    pair = Pair(slots)
    last = -1
    try:
        for step in steps:
            if step == "publish":
                pair.publish()
                continue
            taken = pair.reader.newest(copy, timeout_s=0)
            newest = pair.published - 1
            if newest == last:
                assert taken is None
                continue
            assert taken is not None
            assert taken.header.frame_id == newest
            assert taken.passed_over == newest - last - 1
            assert (taken.result == newest % 251).all()
            last = newest
    finally:
        pair.close()


@settings(deadline=None, max_examples=60)
@given(slots=st.integers(3, 6), steps=operations)
def test_in_order_reader_gets_every_frame_that_is_still_there_and_reports_the_gap(
    slots: int, steps: list[str]
) -> None:
    pair = Pair(slots)
    last = -1
    try:
        for step in steps:
            if step == "publish":
                pair.publish()
                continue
            taken = pair.reader.next(copy, timeout_s=0)
            newest = pair.published - 1
            if newest == last:
                assert taken is None
                continue
            # One slot belongs to the frame that may be under way.
            expected = max(last + 1, newest - (slots - 2))
            assert taken is not None
            assert taken.header.frame_id == expected
            assert taken.passed_over == expected - last - 1
            assert (taken.result == expected % 251).all()
            last = expected
    finally:
        pair.close()


def test_header_travels_with_its_pixels(pair: Pair) -> None:
    pair.writer.buffer()[...] = 7
    sent = pair.writer.publish(41, arrival_ns=123, exposure_ns=99)
    taken = pair.reader.newest(copy, timeout_s=0)
    assert taken is not None
    assert taken.header == sent
    assert (sent.frame_id, sent.arrival_ns, sent.exposure_ns) == (41, 123, 99)
    assert (taken.result == 7).all()


def test_absent_exposure_stays_absent(pair: Pair) -> None:
    pair.publish()
    taken = pair.reader.newest(copy, timeout_s=0)
    assert taken is not None
    assert taken.header.exposure_ns is None


@pytest.mark.parametrize("read", ["newest", "next"])
def test_frame_overwritten_while_it_is_read_is_never_handed_out(pair: Pair, read: str) -> None:
    pair.publish()
    pair.publish()
    interrupted: list[bool] = []

    def consume_slowly(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if not interrupted:
            interrupted.append(True)
            for _ in range(4):  # the writer comes all the way round
                pair.publish()
        return pixels.copy()

    taken = getattr(pair.reader, read)(consume_slowly, timeout_s=0)
    assert pair.reader.torn == 1
    assert taken is not None
    assert (taken.result == taken.header.frame_id % 251).all()
    assert taken.header.frame_id > 1


def test_frame_under_way_is_not_visible(pair: Pair) -> None:
    pair.writer.buffer()[...] = 9
    assert pair.reader.newest(copy, timeout_s=0) is None
    pair.writer.publish(0, arrival_ns=1, exposure_ns=None)
    assert pair.reader.newest(copy, timeout_s=0) is not None


def test_writer_never_waits_for_a_reader_that_does_not_read(pair: Pair) -> None:
    for _ in range(1000):
        pair.publish()
    # The wake-up is kept at one, so it cannot overflow however long nobody takes it.
    assert pair.wake.acquire(block=False)
    assert not pair.wake.acquire(block=False)


def test_restarted_writer_is_noticed_and_frames_go_on(pair: Pair) -> None:
    pair.publish()
    assert pair.reader.newest(copy, timeout_s=0) is not None
    second = RingWriter(pair.name, SHAPE, 4, {"reader": pair.wake})
    second.buffer()[...] = 3
    second.publish(0, arrival_ns=1, exposure_ns=None)
    taken = pair.reader.newest(copy, timeout_s=0)
    assert taken is not None
    assert (taken.header.frame_id, pair.reader.restarts) == (0, 1)
    second.close()


def test_writer_that_died_in_mid_frame_leaves_no_half_frame(pair: Pair) -> None:
    pair.publish()
    pair.writer.buffer()[...] = 200  # never published: the writer is gone
    taken = pair.reader.newest(copy, timeout_s=0)
    assert taken is not None
    assert (taken.result == 0).all()
    second = RingWriter(pair.name, SHAPE, 4, {"reader": pair.wake})
    assert pair.reader.newest(copy, timeout_s=0) is None
    second.close()


def test_end_of_the_source_is_told_after_its_last_frame(pair: Pair) -> None:
    pair.publish()
    pair.writer.finish(WriterState.ENDED)
    assert pair.reader.newest(copy, timeout_s=1) is not None
    assert pair.reader.newest(copy, timeout_s=60) is None  # at once: it does not wait
    assert pair.reader.writer_state is WriterState.ENDED


def test_dead_writer_is_seen_by_its_silence(pair: Pair) -> None:
    pair.writer.beat()
    first = pair.reader.writer_silent_ns()
    second = pair.reader.writer_silent_ns()
    assert 0 <= first <= second
    pair.writer.beat()
    assert pair.reader.writer_silent_ns() < second + 1_000_000_000


def test_all_taken_follows_the_reader_that_sets_the_pace() -> None:
    pair = Pair(slots=4)
    pacer = RingReader(RingAddress(pair.name, pair.wake, SPAWN.Semaphore(0)))
    assert pair.writer.all_taken()
    pair.publish()
    assert not pair.writer.all_taken()
    assert pacer.newest(copy, timeout_s=0) is not None
    assert pair.writer.all_taken()
    pacer.close()
    pair.close()


def test_attaching_to_nothing_says_so() -> None:
    with pytest.raises(RingError, match="no frame ring"):
        RingReader(RingAddress("rtpose-test-absent", SPAWN.Semaphore(0)))


def test_a_ring_of_another_geometry_is_refused(pair: Pair) -> None:
    with pytest.raises(RingError, match="another geometry"):
        RingWriter(pair.name, (8, 8), 4, {})


@pytest.mark.parametrize(("shape", "slots"), [((4, 4), 2), ((0, 4), 4), ((4,), 4)])
def test_impossible_rings_are_refused(shape: tuple[int, ...], slots: int) -> None:
    with pytest.raises(RingError, match="at least 3 slots"):
        RingWriter("rtpose-test-impossible", shape, slots, {})


def test_publishing_without_a_buffer_is_refused(pair: Pair) -> None:
    with pytest.raises(RingError, match="without buffer"):
        pair.writer.publish(0, arrival_ns=1, exposure_ns=None)


def test_unlink_says_whether_there_was_a_ring() -> None:
    pair = Pair(slots=3)
    pair.reader.close()
    pair.writer.close()
    assert ring.unlink(pair.name)
    assert not ring.unlink(pair.name)
