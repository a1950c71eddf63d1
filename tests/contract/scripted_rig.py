"""An output and triggers that do what a test has written down for them, on a clock that it moves.

Rig files name them as ``scripted_rig:ScriptedOutput`` and so on.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from pydantic import Field

from rtpose.errors import OutputError
from rtpose.interfaces import Decision, Output, OutputInfo, OutputSettings, Settings, Trigger
from rtpose.messages import Ack, Command, InputEvent, Pose
from rtpose.skeleton import Skeleton

STEP_NS = 1_700


class ScriptedClock:
    """A clock that moves by `STEP_NS` whenever it is read."""

    def __init__(self) -> None:
        self.at_ns = 1_000_000_000

    def __call__(self) -> int:
        self.at_ns += STEP_NS
        return self.at_ns


@dataclass
class Script:
    """What a device does.

    Attributes
    ----------
    answer_after_us : sequence of int
        How long it takes with each command, over and over; a negative one is a refusal.
    fails_at : int or None
        The command, counted from 0, at which it is gone.
    arms : bool
        Whether it arms when it is asked to.
    """

    clock: ScriptedClock
    answer_after_us: Sequence[int] = (300,)
    fails_at: int | None = None
    arms: bool = True
    inputs: deque[InputEvent] = field(default_factory=deque)


class _LevelSettings(OutputSettings):
    level_pins: ClassVar[frozenset[int]] = frozenset(range(8))


class ScriptedOutput(Output):
    """A device with a script."""

    Config = _LevelSettings
    takes_trains = True
    script: ClassVar[Script]

    def __init__(self, config: OutputSettings) -> None:
        self._sent = 0
        self._acks: deque[Ack] = deque()

    def open(self) -> OutputInfo:
        return OutputInfo("a script", None)

    def arm(self) -> None:
        if not self.script.arms:
            raise OutputError("it does not arm today")

    def send(self, command: Command) -> int:
        number, self._sent = self._sent, self._sent + 1
        if number == self.script.fails_at:
            raise OutputError("it is gone")
        after_us = self.script.answer_after_us[number % len(self.script.answer_after_us)]
        command_ns = self.script.clock()
        device_ns = command_ns + 200 * abs(after_us)
        self._acks.append(
            Ack(
                command_id=command.command_id,
                output=command.output,
                line=command.line,
                ok=after_us >= 0,
                command_ns=command_ns,
                ack_ns=command_ns + 1000 * abs(after_us),
                device_us=device_ns // 1000,
                device_ns=device_ns,
            )
        )
        return command_ns

    def acks(self) -> Sequence[Ack]:
        now = self.script.clock()
        here = []
        while self._acks and self._acks[0].ack_ns <= now:
            here.append(self._acks.popleft())
        return here

    def inputs(self) -> Sequence[InputEvent]:
        here = list(self.script.inputs)
        self.script.inputs.clear()
        return here

    def beat(self) -> None:
        pass

    def safe(self) -> None:
        pass

    @property
    def is_safe(self) -> bool:
        return True

    def close(self) -> None:
        pass


class _SnoutSettings(Settings):
    above_px: Annotated[float, Field(ge=-1000, le=1000)] = 0.0


class _Snout(Trigger):
    """Looks at how far right the snout is."""

    Config: ClassVar[type[Settings]] = _SnoutSettings

    def __init__(self, config: _SnoutSettings) -> None:
        self._above_px = config.above_px
        self._x_px = 0.0

    def prepare(self, skeleton: Skeleton) -> None:
        self._index = skeleton.index("snout")

    def update(self, pose: Pose) -> Decision:
        self._x_px = float(pose.keypoints[0, self._index, 0])
        return self.decide(self._x_px - self._above_px)

    def decide(self, beyond_px: float) -> Decision:
        raise NotImplementedError

    def describe(self) -> str:
        return f"x = {self._x_px:.3f} px"


class Steps(_Snout):
    """A level that follows the snout."""

    @property
    def gives_levels(self) -> bool:
        return True

    @property
    def level(self) -> float:
        return min(1.0, max(0.01, self._x_px / 60.0))

    def decide(self, beyond_px: float) -> Decision:
        return Decision.HIGH if beyond_px > 0 else Decision.LOW


class Moody(_Snout):
    """Gives pulses and levels in turns, and raises far out."""

    def decide(self, beyond_px: float) -> Decision:
        if beyond_px > 58:
            raise ValueError(f"{beyond_px:.1f} px is too far for me")
        band = int(beyond_px // 10) % 4
        return (Decision.FIRE, Decision.HIGH, Decision.LOW, Decision.NOTHING)[band]
