"""The engine on a bench: a clock that is set by hand, and an output that answers as it is told."""

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from rtpose.actuators import Actuator
from rtpose.config import load_rig
from rtpose.engine import Engine
from rtpose.events import EventRecord
from rtpose.interfaces import Decision, Output, OutputInfo, OutputSettings, Settings, Trigger
from rtpose.messages import Ack, Command, Pose, TriggerEvent
from rtpose.readiness import Readiness
from rtpose.skeleton import Skeleton

MS: Final = 1_000_000
SKELETON: Final = Skeleton(("snout", "tailbase"))
#: From exposure to publication, and from there to the trigger's decision.
INFERENCE_NS: Final = 5 * MS
TRANSPORT_NS: Final = MS // 5

RIG: Final = """
[cameras.top]
type = "synthetic"
[model]
path = "demo"
[latency]
budget_ms = 20.0
max_pose_gap_ms = 250.0
[outputs.out]
type = "scripted:ScriptedOutput"
[outputs.out.lines.light]
pin = 0
max_on_ms = 60000.0
levels = true
[outputs.out.lines.laser]
pin = 1
max_on_ms = 1000.0
"""


class ScriptedSettings(OutputSettings):
    level_pins: ClassVar[frozenset[int]] = frozenset({0})


class ScriptedOutput(Output):
    """Takes every command at the time that the bench has set, and answers when it is told to."""

    Config: ClassVar[type[OutputSettings]] = ScriptedSettings

    def __init__(self, config: OutputSettings) -> None:
        self.commands: list[Command] = []
        self.now_ns = 0
        self._answers: deque[Ack] = deque()

    def open(self) -> OutputInfo:
        return OutputInfo("scripted", None)

    def arm(self) -> None:
        pass

    def send(self, command: Command) -> int:
        self.commands.append(command)
        return self.now_ns

    def answer(self, ack: Ack) -> None:
        self._answers.append(ack)

    def acks(self) -> Sequence[Ack]:
        answers = list(self._answers)
        self._answers.clear()
        return answers

    def beat(self) -> None:
        pass

    def safe(self) -> None:
        pass

    @property
    def is_safe(self) -> bool:
        return True

    def close(self) -> None:
        pass


class WatchingSettings(Settings):
    pass


class WatchingTrigger(Trigger):
    """Keeps the poses that it sees; it wants a pulse with every `fires_at`-th one."""

    Config: ClassVar[type[Settings]] = WatchingSettings
    fires_at = 10

    def __init__(self, config: WatchingSettings) -> None:
        self.seen: list[Pose] = []

    def prepare(self, skeleton: Skeleton) -> None:
        pass

    def update(self, pose: Pose) -> Decision:
        self.seen.append(pose)
        return Decision.NOTHING if len(self.seen) % self.fires_at else Decision.FIRE


class EngineBench:
    """An engine with outputs of this kind, fed with poses of two keypoints.

    Attributes
    ----------
    events : list of TriggerEvent
        What it told.
    now_ns : int
        The time that everything goes by.
    """

    def __init__(self, folder: Path, triggers: str) -> None:
        path = folder / "rig.toml"
        path.write_text(RIG + triggers)
        self.rig = rig = load_rig(path)
        self.outputs = {name: ScriptedOutput(e.settings) for name, e in rig.outputs.items()}
        self.output = self.outputs["out"]
        self.events: list[TriggerEvent] = []
        self.counters: dict[str, int] = {}
        self.now_ns = 1000 * MS
        self.actuators = {
            name: Actuator(rig.outputs[name], output) for name, output in self.outputs.items()
        }
        self.engine = Engine(
            rig,
            SKELETON,
            self.actuators,
            Readiness(rig.latency, 0.0),
            EventRecord("r", 20 * MS, self.events.append),
            self.counters,
            lambda _trigger: self.now_ns,
            lambda _trigger: None,
        )
        self._frame_id = 0

    def pose(
        self,
        snout: tuple[float, float] | None,
        tailbase: tuple[float, float] | None = None,
        *,
        at_ms: float,
        late_ms: float = 0.0,
    ) -> None:
        """Give it a pose of a frame that was exposed at a time, and let it turn once."""
        at_ns = round(at_ms * MS) + 1000 * MS
        keypoints, valid = np.full((1, 2, 3), np.nan, np.float32), np.zeros((1, 2), np.uint8)
        for index, place in enumerate((snout, tailbase)):
            if place is not None:
                keypoints[0, index], valid[0, index] = (*place, 1.0), 1
        publish_ns = at_ns + INFERENCE_NS
        stamps: dict[str, Any] = dict.fromkeys(
            ("arrival_ns", "ready_ns", "infer_start_ns", "infer_end_ns"), at_ns
        )
        pose = Pose(
            run="r",
            camera="top",
            seq=self._frame_id,
            frame_id=self._frame_id,
            dropped=0,
            exposure_ns=at_ns,
            publish_ns=publish_ns,
            keypoints=keypoints,
            valid=valid,
            **stamps,
        )
        self._frame_id += 1
        self.now_ns = publish_ns + TRANSPORT_NS + round(late_ms * MS)
        for output in self.outputs.values():
            output.now_ns = self.now_ns
        self.engine.on_pose(pose, self.now_ns)
        self.engine.tick(self.now_ns)

    def answer(self, command: Command, **fields: Any) -> None:
        """Let the output answer a command, and the engine hear of it."""
        ack = Ack(
            command_id=command.command_id,
            output=command.output,
            line=command.line,
            ok=fields.pop("ok", True),
            command_ns=self.now_ns,
            ack_ns=fields.pop("ack_ns", self.now_ns),
            **fields,
        )
        self.outputs[command.output].answer(ack)
        for heard in self.actuators[command.output].acks():
            self.engine.on_ack(heard, self.now_ns)

    def seen_by(self, name: str) -> list[Pose]:
        """Return the poses that a `WatchingTrigger` saw."""
        trigger = self.engine._decider.runners[name]._trigger
        assert isinstance(trigger, WatchingTrigger)
        return trigger.seen

    @property
    def kinds(self) -> list[str]:
        """The kinds of all events but those of arming and of trials."""
        around = ("armed", "trial-started")
        return [event.kind for event in self.events if event.kind not in around]
