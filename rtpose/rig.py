"""What a rig is: the tables of rig.toml as checked, frozen objects."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rtpose.interfaces import (
    Camera,
    Output,
    OutputSettings,
    RigPath,
    Scale,
    Settings,
    Trigger,
)
from rtpose.skeleton import Skeleton

Pixels = Annotated[int, Field(ge=0, le=100_000, strict=True)]
Port = Annotated[int, Field(ge=1024, le=65535)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True)


class ModelTable(_Table):
    """``[model]``: which network, and how it runs.

    Attributes
    ----------
    path : str
        An ONNX file exported by rtpose, relative to the rig file, or the name of a model that comes
        with rtpose, see ``rtpose list models``.
    provider : {'cpu', 'cuda'}
        Where it runs. Never silently elsewhere.
    threads : int
        CPU threads of one inference; fewer than the machine has cores.
    min_confidence : float, optional
        Below it a keypoint is not valid; the model card's suggestion if absent.
    crop : list of int, optional
        [x, y, width, height] of the part of the frame to look at, in px.
    """

    path: str
    provider: Literal["cpu", "cuda"] = "cpu"
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    min_confidence: Annotated[float, Field(ge=0, le=1)] | None = None
    # TOML has arrays, not tuples.
    crop: Annotated[tuple[Pixels, Pixels, Pixels, Pixels], Field(strict=False)] | None = None


class StreamTable(_Table):
    """``[stream]``: where the rig publishes and takes requests.

    Attributes
    ----------
    host : str
        Address to bind to. Anything but loopback needs `curve_secret_key_file` or `insecure`.
    curve_secret_key_file : str, optional
        ZeroMQ certificate of the rig (``zmq.auth.create_certificates``); clients then need the
        rig's public key.
    insecure : bool
        Bind beyond loopback without encryption, knowingly.
    """

    host: str = "127.0.0.1"
    pose_port: Port = 5560
    event_port: Port = 5561
    command_port: Port = 5562
    curve_secret_key_file: RigPath | None = None
    insecure: bool = False

    def endpoint(self, port: int) -> str:
        """Return the ZeroMQ address to bind a port to."""
        return f"tcp://{self.host}:{port}"

    def local_endpoint(self, port: int) -> str:
        """Return the ZeroMQ address under which this machine reaches a port."""
        return f"tcp://{'127.0.0.1' if self.host == '0.0.0.0' else self.host}:{port}"


class LatencyTable(_Table):
    """``[latency]``: the budget, from exposure (or arrival) to the command.

    Attributes
    ----------
    budget_ms : float
        A pose older than this when the trigger has decided may not act.
    policy : {'skip', 'fire', 'disarm'}
        What happens then; the decision is counted, published and recorded in any case. ``skip``:
        nothing is sent. ``fire``: it acts all the same, and the event says so. ``disarm``: nothing
        is sent, and after `disarm_after` such decisions in a row the rig is disarmed.
    disarm_after : int
        See `policy`.
    max_pose_gap_ms : float
        After this long without a pose within the budget, control switches every line off.
    realtime : bool
        Ask for real-time priority; where the system refuses, it is said and the rig runs without.
    """

    budget_ms: Annotated[float, Field(gt=0, le=10_000)] = 50.0
    policy: Literal["skip", "fire", "disarm"] = "skip"
    disarm_after: Annotated[int, Field(ge=1, le=1_000_000)] = 3
    max_pose_gap_ms: Annotated[float, Field(gt=0, le=60_000)] = 250.0
    realtime: bool = True


class ArenaTable(_Table):
    """``[arena]``: how large things are.

    Attributes
    ----------
    px_per_mm : float, optional
        Pixels of the full camera frame per millimetre of the arena's floor; triggers with
        thresholds in mm need it.
    """

    px_per_mm: Annotated[float, Field(gt=0, le=10_000, allow_inf_nan=False)] | None = None

    @property
    def scale(self) -> Scale | None:
        """The scale for triggers, if there is one."""
        return None if self.px_per_mm is None else Scale(self.px_per_mm)


class RecordingTable(_Table):
    """``[recording]``: where each run leaves its folder (manifest, settings, event log)."""

    folder: RigPath = "runs"


class CameraCommon(_Table):
    """What ``[cameras.<name>]`` has beside the camera's own settings.

    Attributes
    ----------
    type : str
        A camera plug-in (``rtpose list cameras``) or ``"module:Class"``.
    ring_slots : int
        Frames that shared memory holds.
    max_silence_ms : float
        After this long without a frame the camera counts as stopped, and the run ends.
    """

    type: str
    ring_slots: Annotated[int, Field(ge=3, le=1024)] = 8
    max_silence_ms: Annotated[float, Field(gt=0, le=600_000)] = 2000.0


class OutputCommon(_Table):
    """What ``[outputs.<name>]`` has beside the output's own settings: its plug-in."""

    type: str


class TriggerCommon(_Table):
    """What ``[triggers.<name>]`` has beside the condition's own settings.

    Attributes
    ----------
    type : str
        A trigger plug-in (``rtpose list triggers``) or ``"module:Class"``.
    output : str
        ``"<output>.<line>"``, e.g. ``"board.laser"``.
    pulse_ms : float, optional
        Width of the pulse that a momentary decision gives; the line's `max_on_ms` bounds it. For a
        trigger that does not say whether it gives pulses, the line's `max_on_ms` if absent.
    """

    type: str
    output: str
    pulse_ms: Annotated[float, Field(gt=0, le=60_000)] | None = None


@dataclass(frozen=True)
class CameraEntry:
    """One camera of a rig."""

    name: str
    common: CameraCommon
    plugin: type[Camera]
    settings: Settings


@dataclass(frozen=True)
class OutputEntry:
    """One output of a rig."""

    name: str
    common: OutputCommon
    plugin: type[Output]
    settings: OutputSettings


@dataclass(frozen=True)
class TriggerEntry:
    """One trigger of a rig, with the output line that it drives."""

    name: str
    common: TriggerCommon
    plugin: type[Trigger]
    settings: Settings

    @property
    def target(self) -> tuple[str, str]:
        """Names of the output and of its line."""
        output, _, line = self.common.output.partition(".")
        return output, line

    def build(self, skeleton: Skeleton, scale: Scale | None) -> Trigger:
        """Return the trigger, ready for poses.

        Raises
        ------
        SkeletonError
            If the model does not find its keypoints.
        InputError
            If it needs a scale and there is none.
        """
        trigger = self.plugin(self.settings)
        if scale is not None:
            trigger.calibrate(scale)
        trigger.prepare(skeleton)
        return trigger


@dataclass(frozen=True)
class Rig:
    """A checked rig file.

    Attributes
    ----------
    source : Path
        The file it was read from.
    camera : CameraEntry
    outputs : mapping of str to OutputEntry
    triggers : mapping of str to TriggerEntry
    """

    source: Path
    camera: CameraEntry
    model: ModelTable
    stream: StreamTable
    latency: LatencyTable
    arena: ArenaTable
    recording: RecordingTable
    outputs: Mapping[str, OutputEntry]
    triggers: Mapping[str, TriggerEntry]

    def to_dict(self) -> dict[str, Any]:
        """Return every setting with its default filled in, laid out as in the file."""

        def entry(item: CameraEntry | OutputEntry | TriggerEntry) -> dict[str, Any]:
            return {**item.common.model_dump(), **item.settings.model_dump()}

        return {
            "cameras": {self.camera.name: entry(self.camera)},
            "model": self.model.model_dump(),
            "stream": self.stream.model_dump(),
            "latency": self.latency.model_dump(),
            "arena": self.arena.model_dump(),
            "recording": self.recording.model_dump(),
            "outputs": {name: entry(item) for name, item in self.outputs.items()},
            "triggers": {name: entry(item) for name, item in self.triggers.items()},
        }
