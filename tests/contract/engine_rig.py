"""The engine on a bench: a clock that moves when it is told, outputs and triggers by script.

A keypoint's x says what the trigger on it decides, its y the level that it wants.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from rtpose.actuators import Actuator
from rtpose.config import load_rig
from rtpose.engine import Engine
from rtpose.errors import OutputError
from rtpose.events import EventRecord
from rtpose.interfaces import Decision, Output, OutputInfo, OutputSettings, Settings, Trigger
from rtpose.messages import Ack, Command, InputEvent, Pose, Status, TriggerEvent
from rtpose.readiness import Readiness
from rtpose.skeleton import Skeleton
from rtpose_hardware.virtual import VirtualSettings

MS: Final = 1_000_000
SKELETON: Final = Skeleton(("nose", "tail", "paw"))

NOTHING, FIRE, HIGH, LOW = range(4)
_DECISIONS: Final = (Decision.NOTHING, Decision.FIRE, Decision.HIGH, Decision.LOW)

#: What `engine_rig:Scripted` and the bench need beside the tables of a test.
_COMMON: Final = """
[cameras.top]
type = "synthetic"
[model]
path = "demo"
"""


class Scripted(Trigger):
    """Decides what the pose says, and counts what it is told."""

    class Config(Settings):
        keypoint: str = "nose"
        bad: str = ""  # the hook that raises, once it decides something or always
        threshold: float = 0.0  # of x, below which it decides nothing
        levels: bool = False

    def __init__(self, config: Any) -> None:
        self._config = config
        self._index = 0
        self._level = 1.0
        self.told: list[str] = []

    def prepare(self, skeleton: Skeleton) -> None:
        self._index = skeleton.index(self._config.keypoint)

    def _take(self, hook: str) -> None:
        self.told.append(hook)
        if self._config.bad == hook:
            raise ZeroDivisionError(f"in {hook}")

    def start_session(self) -> None:
        self._take("start_session")

    def start_trial(self) -> None:
        self._take("start_trial")

    def refused(self) -> None:
        self._take("refused")

    def update(self, pose: Pose) -> Decision:
        said, level, _ = pose.keypoints[0, self._index]
        self._level = float(level)
        decision = _DECISIONS[round(said)] if said >= self._config.threshold else Decision.NOTHING
        if decision is not Decision.NOTHING:
            self._take("update")
        return decision

    @property
    def gives_levels(self) -> bool:
        return bool(self._config.levels)

    @property
    def level(self) -> float:
        self._take("level")
        return self._level

    def describe(self) -> str:
        self._take("describe")
        return f"at {self._level:g}"


class ScriptedOutput(Output):
    """Takes everything, keeps what it took, and answers as it is told.

    It has no limits of its own: a line that is held is high until it is told to go low.
    """

    Config: ClassVar[type[OutputSettings]] = VirtualSettings

    def __init__(self, bench: "Bench") -> None:
        self._bench = bench
        self.armed = False
        self.sent: list[tuple[int, Command]] = []
        self.safes: list[int] = []
        self.refused: set[int] = set()
        self.refuses = ""
        self.stuck = False  # it refuses to switch off, too
        self.does_not_arm = ""
        self.answers = True
        self._acks: list[Ack] = []

    def open(self) -> OutputInfo:
        return OutputInfo("scripted", None)

    def arm(self) -> None:
        if self.does_not_arm:
            raise OutputError(self.does_not_arm)
        self.armed = True

    def send(self, command: Command) -> int:
        now = self._bench.now
        assert self.armed, "a command reached an output that is not armed"
        self.sent.append((now, command))
        if self.refuses and (command.action != "off" or self.stuck):
            self.refused.add(command.command_id)
        self.answer(command, now)
        return now

    def answer(self, command: Command, sent_ns: int) -> None:
        """Acknowledge a command, unless it is told not to."""
        if self.answers:
            self._acks.append(
                Ack(
                    command_id=command.command_id,
                    output=command.output,
                    line=command.line,
                    ok=command.command_id not in self.refused,
                    command_ns=sent_ns,
                    ack_ns=self._bench.now,
                    detail=self.refuses,
                )
            )

    def acks(self) -> Sequence[Ack]:
        acks, self._acks = self._acks, []
        return acks

    def beat(self) -> None:
        pass

    def safe(self) -> None:
        self.armed = False
        self.safes.append(self._bench.now)

    @property
    def is_safe(self) -> bool:
        return not self.armed

    def close(self) -> None:
        self.safe()

    # ----------------------------------------------------------------------- what the lines did

    def highs(self, line: str) -> list[tuple[int, int]]:
        """Return when a line was high so far: from, and to (now, if it still is)."""
        taken = [mark for mark in self.sent if mark[1].command_id not in self.refused]
        marks = [(at, 1, command) for at, command in taken if command.line == line]
        ends = [(at, 0, None) for at in self.safes]
        spans: list[tuple[int, int]] = []
        planned: list[tuple[int, int]] = []
        for at, _, command in sorted([*marks, *ends], key=lambda mark: (mark[0], -mark[1])):
            if command is None or command.action == "off":
                spans += _cut(planned, at)
                planned = []
            elif not any(start <= at < end for start, end in planned):
                spans += planned
                planned = _plan(command, at)
        return spans + _cut(planned, self._bench.now)

    def commands(self) -> list[str]:
        """Return the actions that it took, in order."""
        return [command.action for _, command in self.sent]


def _plan(command: Command, at: int) -> list[tuple[int, int]]:
    if command.action == "on":
        return [(at, 1 << 62)]
    first, width = at + command.delay_us * 1000, command.width_us * 1000
    rises = [first + number * command.period_us * 1000 for number in range(command.count)]
    return [(rise, rise + width) for rise in rises]


def _cut(planned: list[tuple[int, int]], at: int) -> list[tuple[int, int]]:
    return [(start, min(end, at)) for start, end in planned if start < at]


class Bench:
    """The engine of a rig, poses in by hand, its events out.

    Parameters
    ----------
    folder : Path
        Gets the rig file.
    tables : str
        Outputs, triggers and what else the rig has; outputs of type ``virtual`` are replaced by a
        `ScriptedOutput` each.
    """

    def __init__(self, folder: Path, tables: str) -> None:
        path = folder / "rig.toml"
        path.write_text(_COMMON + tables)
        self.rig = load_rig(path)
        self.now = 1_000_000 * MS
        self.events: list[TriggerEvent] = []
        self.counters: dict[str, int] = {}
        self.outputs: dict[str, ScriptedOutput] = {
            name: ScriptedOutput(self) for name in self.rig.outputs
        }
        self.actuators: Mapping[str, Actuator] = {
            name: Actuator(entry, self.outputs[name]) for name, entry in self.rig.outputs.items()
        }
        for actuator in self.actuators.values():
            actuator.open()
        latency = self.rig.latency
        self.engine = Engine(
            self.rig,
            SKELETON,
            self.actuators,
            Readiness(latency, 0.0),
            EventRecord("run", round(latency.budget_ms * 1e6), self.events.append),
            self.counters,
            lambda _: self.now,
            lambda _: None,
        )
        self._frame_id = 0

    @property
    def out(self) -> ScriptedOutput:
        """The output, where there is one."""
        (output,) = self.outputs.values()
        return output

    def trigger(self, name: str = "zone") -> Any:
        return self.engine._decider.runners[name]._trigger

    def arm(self) -> None:
        self.engine.arm(self.now)

    def pose(
        self, *said: int | tuple[float, float], age_ms: float = 0.0, repeated_ms: float = 0.0
    ) -> None:
        """Give the engine a pose that says what each trigger decides, or that and its level."""
        points = np.zeros((1, 3, 3), np.float32)
        for index, one in enumerate(said):
            points[0, index, :2] = one if isinstance(one, tuple) else (one, 1.0)
        start = self.now - round(age_ms * MS)
        stamps = (start,) * 5
        number, self._frame_id = self._frame_id, self._frame_id + 1
        valid, repeated_ns = np.ones((1, 3), "u1"), round(repeated_ms * MS)
        pose = Pose("run", "top", number, number, 0, None, *stamps, points, valid, repeated_ns)
        self.engine.on_pose(pose, self.now)
        self.turn()

    def turn(self) -> None:
        """Let the engine look at the clock, and take the answers of its outputs."""
        self.collect()
        self.engine.tick(self.now)
        self.collect()

    def collect(self) -> None:
        for actuator in self.actuators.values():
            for ack in actuator.acks():
                self.engine.on_ack(ack, self.now)

    def wait(self, ms: float, step_ms: float = 1.0) -> None:
        """Let time pass, as control does: it looks every few ms, and when something is due."""
        end = self.now + round(ms * MS)
        while self.now < end:
            due = self.engine.next_ns
            step = self.now + round(step_ms * MS)
            self.now = min(end, step if due is None else max(self.now + 1, min(step, due)))
            self.turn()

    def stop_input(self) -> None:
        """The emergency stop of the output is pressed."""
        event = InputEvent(output="out", input="stop", level=False, arrival_ns=self.now, stop=True)
        self.engine.on_input(event, self.now)

    # --------------------------------------------------------------------------- what it told

    def kinds(self, *only: str) -> list[str]:
        """Return the kinds of the events so far, or of those of some kinds."""
        return [event.kind for event in self.events if not only or event.kind in only]

    def told(self, kind: str) -> list[TriggerEvent]:
        """Return the events of one kind."""
        return [event for event in self.events if event.kind == kind]

    def check(self) -> None:
        """Assert what holds in every run."""
        assert [event.seq for event in self.events] == list(range(len(self.events)))
        told = [e.command for e in self.events if e.command is not None and e.command_ns]
        sent = [command for output in self.outputs.values() for _, command in output.sent]
        assert sorted(c.command_id for c in told) == sorted(c.command_id for c in sent)
        assert {c.command_id: c for c in told} == {c.command_id: c for c in sent}
        for event in self.events:
            assert (event.withheld is None) or event.command_ns is None
            assert event.kind != "withheld" or event.withheld is not None


def verified() -> Status:
    """Return what inference says when its model was verified."""
    return Status(
        run="run", process="inference", state="running", sent_ns=1, info={"verified": True}
    )
