"""FrameRing: frames in shared memory, one writer that never waits, any number of readers.

The writer fills slots in turn and never looks at the readers. Each slot carries a stamp: odd while
it is being written, even and equal to ``2 * index + 2`` once frame number ``index`` is whole: a
sequence lock (Lameter, "Effective synchronization on Linux/NUMA systems", 2005). A reader works on
the slot in place and looks at the stamp again afterwards; if the writer came round meanwhile, the
result is thrown away and counted as torn. So no torn frame is ever handed out, and nobody can make
the writer wait.

Waking up is a semaphore per reader, kept at zero or one, so that it neither grows nor blocks when
its reader is dead.

The segment belongs to a name that the supervisor chose, which unlinks it on every way out; when
the whole process tree is killed, Python's resource tracker does.
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from multiprocessing import shared_memory
from multiprocessing.synchronize import Semaphore
from typing import Any, Final, Generic, Self, TypeVar

import numpy as np
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from rtpose.clock import now_ns
from rtpose.errors import RingError
from rtpose.messages import FrameHeader

T = TypeVar("T")
Cells = NDArray[np.int64]
Pixels = NDArray[np.uint8]

_MAGIC: Final = 0x7274706F7365_02  # "rtpose", layout 2
_HEADER_CELLS: Final = 16
_SLOT_CELLS: Final = 8
_MAX_DIMENSIONS: Final = 3
_LINE_BYTES: Final = 64
#: Two pictures are compared in steps of so many bytes, up to the first that differ, but before that
#: in a few in the middle: with the noise of a sensor that is enough, and costs 2 us instead of 6.
_COMPARED_BYTES: Final = 16_384
_SAMPLED_BYTES: Final = 256

# Cells of the ring's header.
_MAGIC_AT, _SLOTS_AT, _DIMENSIONS_AT = 0, 1, 2  # the shape takes cells 3 to 5
_GENERATION_AT, _HEAD_AT, _BEAT_AT, _STATE_AT, _TAKEN_AT = 6, 7, 8, 9, 10
# Cells of a slot's header.
_STAMP_AT, _FRAME_ID_AT, _EXPOSURE_AT, _ARRIVAL_AT, _READY_AT, _SLOT_GENERATION_AT, _REPEATED_AT = (
    range(7)
)
_NO_EXPOSURE: Final = -1


class WriterState(IntEnum):
    """What the writer last said of itself."""

    ABSENT = 0
    LIVE = 1
    ENDED = 2  #: the source has no more frames
    FAILED = 3


@intrinsic
def _fence(_typing_context: Any) -> Any:
    """Full memory fence: what stands before it is seen before what stands after it."""

    def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


@njit(cache=True, nogil=True)
def _load(cells: Cells, at: int) -> int:
    _fence()
    value = cells[at]
    _fence()
    return int(value)


@njit(cache=True, nogil=True)
def _store(cells: Cells, at: int, value: int) -> None:
    _fence()
    cells[at] = value
    _fence()


def _post(semaphore: Semaphore) -> None:
    # Taking one first keeps the count at most one, whether or not the other side lives.
    semaphore.acquire(block=False)
    semaphore.release()


@dataclass(frozen=True, slots=True)
class Taken(Generic[T]):
    """What a reader made of one frame.

    Attributes
    ----------
    header : FrameHeader
    result : object
        What the reader's function returned.
    passed_over : int
        Frames between this one and the reader's last one that it did not get.
    """

    header: FrameHeader
    result: T
    passed_over: int


def _cells(memory: shared_memory.SharedMemory, count: int, offset_bytes: int) -> Cells:
    return np.ndarray(count, np.int64, memory.buf, offset_bytes)


def _round_up(size: int, step: int) -> int:
    return -(-size // step) * step


class _Ring:
    """The segment and the arrays that lie in it."""

    def __init__(self, memory: shared_memory.SharedMemory, slots: int, shape: tuple[int, ...]):
        self.memory = memory
        self.slots = slots
        self.shape = shape
        header_bytes = _HEADER_CELLS * 8
        slot_bytes = slots * _SLOT_CELLS * 8
        stride = _round_up(int(np.prod(shape)), _LINE_BYTES)
        self.head: Cells = _cells(memory, _HEADER_CELLS, 0)
        cells = _cells(memory, slots * _SLOT_CELLS, header_bytes)
        self.slot_cells: list[Cells] = list(cells.reshape(slots, _SLOT_CELLS))
        start = header_bytes + slot_bytes
        self.pixels: list[Pixels] = [
            np.ndarray(shape, np.uint8, memory.buf, start + slot * stride) for slot in range(slots)
        ]

    @staticmethod
    def size(slots: int, shape: tuple[int, ...]) -> int:
        stride = _round_up(int(np.prod(shape)), _LINE_BYTES)
        return (_HEADER_CELLS + slots * _SLOT_CELLS) * 8 + slots * stride

    @classmethod
    def attach(cls, name: str) -> Self:
        try:
            memory = shared_memory.SharedMemory(name)
        except (FileNotFoundError, ValueError) as error:
            raise RingError(f"no frame ring {name!r}: its camera process is not running") from error
        head = _cells(memory, _HEADER_CELLS, 0)
        magic, slots, dimensions = (int(head[at]) for at in (_MAGIC_AT, _SLOTS_AT, _DIMENSIONS_AT))
        shape = tuple(int(n) for n in head[3 : 3 + min(max(dimensions, 0), _MAX_DIMENSIONS)])
        del head
        if magic != _MAGIC or memory.size < cls.size(slots, shape):
            memory.close()
            raise RingError(f"shared memory {name!r} is not a frame ring of this version")
        return cls(memory, slots, shape)

    def close(self) -> None:
        # The segment cannot be unmapped while arrays still point into it.
        self.head = np.empty(0, np.int64)
        self.slot_cells, self.pixels = [], []
        try:
            self.memory.close()
        except BufferError as error:
            raise RingError("a frame's pixels are still held; let go of them first") from error


class RingWriter:
    """The one writer of a ring.

    Parameters
    ----------
    name : str
        Name of the segment. If it exists with the same geometry (the former writer died), the ring
        goes on where it stopped, under a new generation that readers notice.
    shape : tuple of int
        (height, width) or (height, width, 3).
    slots : int
        At least 3: one is being written, one is the newest, one may still be read.
    wakes : mapping of str to Semaphore
        One per reader, by the reader's name.

    Raises
    ------
    RingError
        If the name is taken by a ring of another geometry, or memory is not to be had.
    """

    def __init__(
        self, name: str, shape: tuple[int, ...], slots: int, wakes: Mapping[str, Semaphore]
    ) -> None:
        if slots < 3 or len(shape) not in (2, 3) or min(shape) < 1:
            raise RingError(f"a ring needs at least 3 slots and whole frames, got {slots}, {shape}")
        self._ring = self._create(name, shape, slots)
        self._flat = [pixels.reshape(-1) for pixels in self._ring.pixels]
        self._wakes = tuple(wakes.values())
        self._index = int(self._ring.head[_HEAD_AT]) + 1
        self._slot_open = False
        _store(self._ring.head, _GENERATION_AT, secrets.randbits(62))
        _store(self._ring.head, _BEAT_AT, now_ns())
        _store(self._ring.head, _STATE_AT, WriterState.LIVE)

    @staticmethod
    def _create(name: str, shape: tuple[int, ...], slots: int) -> _Ring:
        try:
            memory = shared_memory.SharedMemory(name, create=True, size=_Ring.size(slots, shape))
        except FileExistsError:
            ring = _Ring.attach(name)
            if (ring.shape, ring.slots) != (shape, slots):
                found = (ring.shape, ring.slots)
                ring.close()
                raise RingError(
                    f"frame ring {name!r} exists with another geometry: {found}, "
                    f"wanted {(shape, slots)}"
                ) from None
            return ring
        except OSError as error:
            raise RingError(
                f"no shared memory for {slots} frames of {shape}: {error}; "
                "free some, or lower the camera's size or ring_slots"
            ) from error
        head = _cells(memory, _HEADER_CELLS, 0)
        head[_SLOTS_AT], head[_DIMENSIONS_AT] = slots, len(shape)
        head[3 : 3 + len(shape)] = shape
        head[_HEAD_AT] = head[_TAKEN_AT] = -1
        _store(head, _MAGIC_AT, _MAGIC)
        del head
        return _Ring(memory, slots, shape)

    @property
    def name(self) -> str:
        """Name of the segment."""
        return self._ring.memory.name

    def buffer(self) -> Pixels:
        """Return the slot to write the next frame into; valid until `publish`."""
        slot = self._index % self._ring.slots
        if not self._slot_open:
            _store(self._ring.slot_cells[slot], _STAMP_AT, 2 * self._index + 1)
            self._slot_open = True
        return self._ring.pixels[slot]

    def repeats_the_last(self) -> bool:
        """Return whether the slot that `buffer` gave holds the very picture published last."""
        if self._index == 0:
            return False
        new, last = (
            self._flat[index % self._ring.slots] for index in (self._index, self._index - 1)
        )
        middle = slice(new.size // 2, new.size // 2 + _SAMPLED_BYTES)
        if new[middle].tobytes() != last[middle].tobytes():
            return False
        steps = range(0, new.size, _COMPARED_BYTES)
        return all(
            np.array_equal(new[at : at + _COMPARED_BYTES], last[at : at + _COMPARED_BYTES])
            for at in steps
        )

    def publish(
        self, frame_id: int, arrival_ns: int, exposure_ns: int | None, repeated_ns: int = 0
    ) -> FrameHeader:
        """Make the slot that `buffer` gave the newest frame, and wake every reader."""
        if not self._slot_open:
            raise RingError("publish() without buffer(): there is no frame to publish")
        header = FrameHeader(frame_id, exposure_ns, arrival_ns, now_ns(), repeated_ns)
        cells = self._ring.slot_cells[self._index % self._ring.slots]
        cells[_FRAME_ID_AT] = frame_id
        cells[_EXPOSURE_AT] = _NO_EXPOSURE if exposure_ns is None else exposure_ns
        cells[_ARRIVAL_AT] = arrival_ns
        cells[_READY_AT] = header.ready_ns
        cells[_REPEATED_AT] = repeated_ns
        cells[_SLOT_GENERATION_AT] = self._ring.head[_GENERATION_AT]
        _store(cells, _STAMP_AT, 2 * self._index + 2)
        _store(self._ring.head, _HEAD_AT, self._index)
        self._index += 1
        self._slot_open = False
        self._wake_all()
        return header

    def _wake_all(self) -> None:
        for wake in self._wakes:
            _post(wake)

    def beat(self) -> None:
        """Say that the writer lives, though there may be no frame."""
        _store(self._ring.head, _BEAT_AT, now_ns())

    def all_taken(self) -> bool:
        """Return whether some reader took the newest frame already."""
        return bool(_load(self._ring.head, _TAKEN_AT) >= self._index - 1)

    def finish(self, state: WriterState) -> None:
        """Say why no more frames will come, and wake every reader to see it."""
        _store(self._ring.head, _STATE_AT, state)
        self._wake_all()

    def close(self) -> None:
        """Let go of the segment; it stays for its readers until `unlink`."""
        self._flat = []
        self._ring.close()


@dataclass(frozen=True, slots=True)
class RingAddress:
    """What a reader needs to attach to a ring; travels to its process when that is spawned.

    Attributes
    ----------
    name : str
        Name of the segment.
    wake : Semaphore
        This reader's semaphore among the writer's `wakes`.
    taken : Semaphore, optional
        Released with every frame taken, for a source that goes as fast as frames are taken.
    """

    name: str
    wake: Semaphore
    taken: Semaphore | None = None


class RingReader:
    """One reader of a ring; take frames with `newest` or `next`, not with both.

    Parameters
    ----------
    address : RingAddress

    Attributes
    ----------
    torn : int
        How often the writer overwrote a slot while it was being read; the result was discarded.
    restarts : int
        How often another writer took the ring over.
    """

    def __init__(self, address: RingAddress) -> None:
        self._ring = _Ring.attach(address.name)
        self._wake = address.wake
        self._taken = address.taken
        self._last = _load(self._ring.head, _HEAD_AT)
        self._generation = _load(self._ring.head, _GENERATION_AT)
        self.torn = 0
        self.restarts = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the frames."""
        return self._ring.shape

    @property
    def writer_state(self) -> WriterState:
        """What the writer last said of itself."""
        return WriterState(_load(self._ring.head, _STATE_AT))

    def writer_silent_ns(self) -> int:
        """Return how long ago the writer last gave a sign of life."""
        newest = max(int(_load(self._ring.head, _BEAT_AT)), self._newest_ready_ns())
        return max(0, now_ns() - newest)

    def _newest_ready_ns(self) -> int:
        index = _load(self._ring.head, _HEAD_AT)
        return 0 if index < 0 else int(self._ring.slot_cells[index % self._ring.slots][_READY_AT])

    def newest(self, consume: Callable[[Pixels], T], timeout_s: float) -> Taken[T] | None:
        """Wait for a frame newer than the last, and run `consume` on the newest there is.

        Parameters
        ----------
        consume : callable
            Gets the pixels, in shared memory; must not keep them. Runs again, on a newer frame, if
            the writer overwrote the slot meanwhile, so it must not do anything that cannot be
            redone.
        timeout_s : float
            How long to wait.

        Returns
        -------
        Taken or None
            None if no new frame came in time or the writer ended.
        """
        while True:
            index = _load(self._ring.head, _HEAD_AT)
            if index > self._last:
                taken = self._take(index, consume)
                if taken is not None:
                    return taken
                continue
            if self.writer_state > WriterState.LIVE or not self._wake.acquire(timeout=timeout_s):
                return None

    def next(self, consume: Callable[[Pixels], T], timeout_s: float) -> Taken[T] | None:
        """Like `newest`, with every frame in order; `passed_over` counts what was overwritten."""
        while True:
            head = _load(self._ring.head, _HEAD_AT)
            if head > self._last:
                # The slot of frame head + 1 may be under the writer's hand already.
                oldest = head + 2 - self._ring.slots
                taken = self._take(max(self._last + 1, oldest), consume)
                if taken is not None:
                    return taken
                continue
            if self.writer_state > WriterState.LIVE or not self._wake.acquire(timeout=timeout_s):
                return None

    def _take(self, index: int, consume: Callable[[Pixels], T]) -> Taken[T] | None:
        slot = index % self._ring.slots
        cells = self._ring.slot_cells[slot]
        whole = 2 * index + 2
        if _load(cells, _STAMP_AT) != whole:
            self.torn += 1
            return None
        exposure = int(cells[_EXPOSURE_AT])
        header = FrameHeader(
            int(cells[_FRAME_ID_AT]),
            None if exposure == _NO_EXPOSURE else exposure,
            int(cells[_ARRIVAL_AT]),
            int(cells[_READY_AT]),
            int(cells[_REPEATED_AT]),
        )
        generation = int(cells[_SLOT_GENERATION_AT])
        result = consume(self._ring.pixels[slot])
        if _load(cells, _STAMP_AT) != whole:
            self.torn += 1
            return None
        if generation != self._generation:
            self._generation = generation
            self.restarts += 1
        passed_over = index - self._last - 1
        self._last = index
        if self._taken is not None:
            _store(self._ring.head, _TAKEN_AT, index)
            _post(self._taken)
        return Taken(header, result, passed_over)

    def close(self) -> None:
        """Let go of the segment."""
        self._ring.close()


def unlink(name: str) -> bool:
    """Remove a ring's segment; return whether there was one. Attached processes keep their view."""
    try:
        memory = shared_memory.SharedMemory(name)
    except FileNotFoundError:
        return False
    memory.close()
    memory.unlink()
    return True
