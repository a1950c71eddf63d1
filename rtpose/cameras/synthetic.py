"""A camera that needs no hardware: it films `SyntheticArena`, and fails on request."""

import itertools
import math
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from rtpose.cameras.arena import SyntheticArena
from rtpose.clock import RateKeeper, now_ns
from rtpose.errors import CameraError
from rtpose.interfaces import Camera, Captured, FrameFormat, Settings

__all__ = ["SyntheticArena", "SyntheticCamera", "SyntheticConfig"]

#: The scene's own time step where no rate is set.
FREE_RUN_HZ = 100.0

# After so long without a frame the core gets a None, and no single wait is longer than ...
_SILENCE_NS = 100_000_000
_LONGEST_WAIT_NS = 50_000_000


class SyntheticConfig(Settings):
    """Settings of `SyntheticCamera`.

    Attributes
    ----------
    width_px, height_px : int
        Frame size.
    rate_hz : float
        Frames per second; 0 delivers as fast as frames are taken.
    colour : bool
        Blue-green-red instead of grey.
    seed : int
        Another seed: another path, texture, noise and other random faults.
    frames : int
        The source ends after so many frame ids; 0 is endless.
    drop_every : int
        Lose every n-th frame: a gap in frame_id. 0 loses none.
    drop_probability : float
        Lose frames at random.
    freeze_after : int, optional
        From this frame_id on, deliver nothing ...
    freeze_frames : int
        ... for so many frame periods (those frames are lost); 0 is for ever.
    repeat_after : int, optional
        From this frame_id on, deliver that very picture again and again, as a camera that hangs
        may do.
    jitter_ms : float
        Delay each arrival by a random time up to this.
    fail_after : int, optional
        From this frame_id on, fail as an unplugged camera does.
    """

    width_px: Annotated[int, Field(ge=32, le=8192)] = 640
    height_px: Annotated[int, Field(ge=32, le=8192)] = 480
    rate_hz: Annotated[float, Field(ge=0, le=10_000)] = 100.0
    colour: bool = False
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0
    frames: Annotated[int, Field(ge=0)] = 0
    drop_every: Annotated[int, Field(ge=0)] = 0
    drop_probability: Annotated[float, Field(ge=0, lt=1)] = 0.0
    freeze_after: Annotated[int, Field(ge=0)] | None = None
    freeze_frames: Annotated[int, Field(ge=0)] = 0
    repeat_after: Annotated[int, Field(ge=0)] | None = None
    jitter_ms: Annotated[float, Field(ge=0, le=100)] = 0.0
    fail_after: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _faults_make_sense(self) -> Self:
        if self.drop_every == 1:
            raise ValueError("drop_every = 1 would lose every frame; 2 or more, or 0 for none")
        if self.freeze_frames and self.freeze_after is None:
            raise ValueError("freeze_frames does nothing without freeze_after; set that too")
        return self

    def arena(self) -> SyntheticArena:
        """Return the scene that the camera films: the truth about every frame_id."""
        return SyntheticArena(
            self.width_px,
            self.height_px,
            self.seed,
            rate_hz=self.rate_hz or FREE_RUN_HZ,
            colour=self.colour,
        )


class SyntheticCamera(Camera):
    """Films a synthetic arena at a rate; see `SyntheticConfig` for its faults on request.

    A frame whose time passed while the core was busy is lost, and its frame_id with it, as with a
    real camera.
    """

    Config = SyntheticConfig

    def __init__(self, config: SyntheticConfig) -> None:
        self._config = config
        self._arena: SyntheticArena | None = None

    def open(self) -> FrameFormat:
        """Paint the scene."""
        config = self._config
        self._arena = config.arena()
        # Its textures are painted when they are first needed; the first frame must not wait.
        self._arena.draw(0, np.empty(self._arena.shape, np.uint8))
        channels = 3 if config.colour else 1
        return FrameFormat(config.height_px, config.width_px, channels, config.rate_hz)

    def frames(self, buffer: Callable[[], NDArray[np.uint8]]) -> Iterator[Captured | None]:
        """Draw one frame after the other; see `Camera.frames`."""
        last = self._config.frames
        yielded_ns = now_ns()
        for frame_id, due_ns in self._schedule():
            if frame_id is not None and last and frame_id >= last:
                return
            if frame_id is not None and not self._is_lost(frame_id):
                yield self._film(frame_id, due_ns, buffer())
                yielded_ns = due_ns
            elif due_ns - yielded_ns >= _SILENCE_NS:
                yield None
                yielded_ns = due_ns

    def close(self) -> None:
        """Forget the scene."""
        self._arena = None

    def _schedule(self) -> Iterator[tuple[int | None, int]]:
        """Yield every frame_id with its time, when that has come; None in long waits between."""
        rate_hz = self._config.rate_hz
        if rate_hz == 0:
            for frame_id in itertools.count():
                if self._is_frozen(frame_id):
                    time.sleep(1 / FREE_RUN_HZ)
                yield frame_id, now_ns()
        steps = max(1, math.ceil(1e9 / rate_hz / _LONGEST_WAIT_NS))
        keeper = RateKeeper(rate_hz * steps)
        for count in itertools.count():
            due_ns = keeper.wait()
            frame_id, rest = divmod(count + keeper.missed, steps)
            yield None if rest else frame_id, due_ns

    def _film(self, frame_id: int, due_ns: int, out: NDArray[np.uint8]) -> Captured:
        config = self._config
        if self._arena is None:
            raise CameraError("the synthetic camera is not open")
        if config.fail_after is not None and frame_id >= config.fail_after:
            raise CameraError(
                f"the synthetic camera failed at frame {frame_id}, as fail_after asks"
            )
        drawn = frame_id if config.repeat_after is None else min(frame_id, config.repeat_after)
        self._arena.draw(drawn, out)
        if config.jitter_ms:
            time.sleep(self._chance(frame_id, 1) * config.jitter_ms / 1000)
        # The scene is that of the moment when the frame was due: this is its exposure, exactly.
        return Captured(now_ns(), due_ns, frame_id)

    def _is_lost(self, frame_id: int) -> bool:
        every, probability = self._config.drop_every, self._config.drop_probability
        return (
            self._is_frozen(frame_id)
            or (every > 0 and frame_id % every == every - 1)
            or (probability > 0 and self._chance(frame_id, 0) < probability)
        )

    def _is_frozen(self, frame_id: int) -> bool:
        start, count = self._config.freeze_after, self._config.freeze_frames
        return start is not None and frame_id >= start and (not count or frame_id < start + count)

    def _chance(self, frame_id: int, kind: int) -> float:
        """Return a number in [0, 1) that depends on nothing but the seed and the frame."""
        return float(np.random.default_rng((self._config.seed, frame_id, kind)).random())
