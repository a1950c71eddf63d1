"""The capture process: a camera's frames into the ring."""

from collections.abc import Mapping
from multiprocessing.synchronize import Semaphore

from rtpose.clock import now_ns
from rtpose.errors import CameraError
from rtpose.interfaces import Camera, Captured
from rtpose.loop import Loop, go_realtime
from rtpose.rig import CameraEntry
from rtpose.ring import RingWriter, WriterState

_PRIORITY = 50
_PULL_WAIT_S = 0.05


def capture(
    loop: Loop,
    entry: CameraEntry,
    ring_name: str,
    wakes: Mapping[str, Semaphore],
    taken: Semaphore,
    realtime: bool,
) -> None:
    """Run one camera until it ends, fails, or is told to stop.

    Parameters
    ----------
    ring_name : str
        Name to give to the shared memory.
    wakes : mapping of str to Semaphore
        One per reader of the ring.
    taken : Semaphore
        Released by the reader that sets the pace of a source without a rate of its own.
    """
    camera = entry.plugin(entry.settings)
    try:
        frame_format = camera.open()
        writer = RingWriter(ring_name, frame_format.shape, entry.common.ring_slots, wakes)
        notes = go_realtime(_PRIORITY).notes if realtime else ()
        loop.ready(
            {
                "shape": list(frame_format.shape),
                "rate_hz": frame_format.rate_hz,
                "notes": [*frame_format.notes, *notes],
            }
        )
        pace = taken if frame_format.rate_hz == 0 else None
        _Capture(loop, entry, writer, pace).run(camera)
    finally:
        camera.close()


class _Capture:
    def __init__(
        self, loop: Loop, entry: CameraEntry, writer: RingWriter, pace: Semaphore | None
    ) -> None:
        self._loop = loop
        self._name = entry.name
        self._writer = writer
        self._pace = pace
        self._max_silence_ns = round(entry.common.max_silence_ms * 1e6)
        self._frame_id = -1
        self._new_picture_ns = 0
        loop.counters.update(frames=0, camera_gaps=0, repeated_pictures=0)

    def run(self, camera: Camera) -> None:
        state = WriterState.FAILED
        try:
            if self._loop.wait_for_start():
                self._deliver(camera)
            state = WriterState.ENDED
        finally:
            self._writer.finish(state)

    def _deliver(self, camera: Camera) -> None:
        last_ns = now_ns()
        frames = camera.frames(self._writer.buffer)
        for captured in frames:
            if captured is not None:
                repeated_ns = self._repeated_ns(captured.arrival_ns) if camera.live else 0
                self._publish(captured, repeated_ns)
                if repeated_ns > self._max_silence_ns:
                    raise self._failure("nothing but one and the same picture")
                last_ns = captured.arrival_ns
                self._let_it_be_taken()
                last_ns = now_ns() if self._pace else last_ns
            elif now_ns() - last_ns > self._max_silence_ns:
                raise self._failure("no frame")
            self._writer.beat()
            if not self._loop.turn():
                return

    def _failure(self, what: str) -> CameraError:
        return CameraError(
            f"camera {self._name!r} delivered {what} for "
            f"{self._max_silence_ns / 1e9:g} s (max_silence_ms)"
        )

    def _repeated_ns(self, arrival_ns: int) -> int:
        """Return for how long the camera has been delivering the picture that just came."""
        if not self._writer.repeats_the_last():
            self._new_picture_ns = arrival_ns
            return 0
        self._loop.counters["repeated_pictures"] += 1
        return arrival_ns - self._new_picture_ns

    def _publish(self, captured: Captured, repeated_ns: int) -> None:
        frame_id = self._frame_id + 1 if captured.frame_id is None else captured.frame_id
        if frame_id <= self._frame_id:
            raise CameraError(
                f"camera {self._name!r} went back from frame {self._frame_id} to {frame_id}"
            )
        self._loop.counters["camera_gaps"] += frame_id - self._frame_id - 1
        self._frame_id = frame_id
        self._writer.publish(frame_id, captured.arrival_ns, captured.exposure_ns, repeated_ns)
        self._loop.counters["frames"] += 1

    def _let_it_be_taken(self) -> None:
        while self._pace is not None and not self._writer.all_taken() and self._loop.turn():
            self._pace.acquire(timeout=_PULL_WAIT_S)
