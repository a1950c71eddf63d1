"""Plug-ins that work until a file appears: then they raise, hang or fall silent.

For the fault runner in ``tests/faults``; loaded by rig files as ``fault_plugins:Name``. The file is
the setting ``cue``, so that a fault can strike at any moment of a run.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rtpose.cameras.synthetic import SyntheticCamera, SyntheticConfig
from rtpose.interfaces import Captured, Decision, RigPath, Settings, Trigger
from rtpose.messages import Ack, Command, Pose
from rtpose.skeleton import Skeleton
from rtpose_hardware.virtual import VirtualOutput, VirtualSettings

Bad = Literal["raise", "hang"]
_SILENCE_S = 0.1


def turn_bad(how: Bad, what: str) -> None:
    """Raise, or never return."""
    if how == "raise":
        raise RuntimeError(f"the {what} came apart")
    while True:
        threading.Event().wait(1.0)


class CueCameraConfig(SyntheticConfig):
    """What happens at the cue.

    ``freeze`` delivers no frame any more, ``repeat`` the last picture for ever, ``black`` black
    ones while the cue is there.
    """

    cue: RigPath
    then: Literal["raise", "hang", "freeze", "repeat", "black"]


class CueCamera(SyntheticCamera):
    Config: ClassVar[type[SyntheticConfig]] = CueCameraConfig

    def __init__(self, config: CueCameraConfig) -> None:
        super().__init__(config)
        self._cue, self._then = Path(config.cue), config.then
        self._frame: NDArray[np.uint8] | None = None
        self._last: NDArray[np.uint8] | None = None

    def frames(self, buffer: Callable[[], NDArray[np.uint8]]) -> Iterator[Captured | None]:
        def remembered() -> NDArray[np.uint8]:
            self._frame = buffer()
            return self._frame

        for captured in super().frames(remembered):
            if self._cue.exists():
                self._turn_bad()
                if self._then == "freeze":
                    yield from self._nothing()
            elif self._then == "repeat" and self._frame is not None:
                self._last = self._frame.copy()
            yield captured

    def _turn_bad(self) -> None:
        if self._then in ("raise", "hang"):
            turn_bad(self._then, "camera")
        if self._frame is not None and self._then == "black":
            self._frame &= 1  # dark, but for the noise of a sensor
        if self._frame is not None and self._then == "repeat" and self._last is not None:
            self._frame[:] = self._last

    def _nothing(self) -> Iterator[None]:
        while True:
            threading.Event().wait(_SILENCE_S)
            yield None


class BlinkConfig(Settings):
    """High for `on` poses, then low for `off`; without `off`, a pulse every `on` poses."""

    on: Annotated[int, Field(ge=1)]
    off: Annotated[int, Field(ge=0)] = 0
    cue: RigPath | None = None
    then: Bad = "raise"


class Blink(Trigger):
    Config: ClassVar[type[Settings]] = BlinkConfig

    def __init__(self, config: BlinkConfig) -> None:
        self._config = config
        self._cue = None if config.cue is None else Path(config.cue)
        self._seen = 0

    def prepare(self, skeleton: Skeleton) -> None:
        pass

    @property
    def momentary(self) -> bool:
        return not self._config.off

    def update(self, pose: Pose) -> Decision:
        if self._cue is not None and self._cue.exists():
            turn_bad(self._config.then, "trigger")
        on, off = self._config.on, self._config.off
        self._seen += 1
        if not off:
            return Decision.NOTHING if self._seen % on else Decision.FIRE
        return Decision.HIGH if self._seen % (on + off) < on else Decision.LOW


class Fade(Blink):
    """A level that is another one with every pose."""

    @property
    def gives_levels(self) -> bool:
        return True

    @property
    def level(self) -> float:
        return 0.1 + 0.9 * (self._seen % 7) / 7


class CueOutputConfig(VirtualSettings):
    """`where` names the call that turns bad."""

    cue: RigPath
    then: Bad
    where: Literal["send", "acks", "beat", "safe"]


class CueOutput(VirtualOutput):
    Config: ClassVar[type[Any]] = CueOutputConfig

    def __init__(self, config: CueOutputConfig) -> None:
        super().__init__(config)
        self._cue, self._then, self._where = Path(config.cue), config.then, config.where

    def _turn_bad_in(self, call: str) -> None:
        if call == self._where and self._cue.exists():
            turn_bad(self._then, "driver")

    def send(self, command: Command) -> int:
        self._turn_bad_in("send")
        return super().send(command)

    def acks(self) -> Sequence[Ack]:
        self._turn_bad_in("acks")
        return super().acks()

    def beat(self) -> None:
        self._turn_bad_in("beat")
        super().beat()

    def safe(self) -> None:
        self._turn_bad_in("safe")
        super().safe()
