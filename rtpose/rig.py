"""What a rig is: the tables of rig.toml as checked, frozen objects."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rtpose.errors import ConfigError, InputError, Problem
from rtpose.interfaces import (
    Camera,
    LineConfig,
    Output,
    OutputSettings,
    Scale,
    Settings,
    Trigger,
)
from rtpose.messages import Command
from rtpose.rig_tables import (
    ArenaTable,
    CameraCommon,
    ExperimentTable,
    ForecastTable,
    LatencyTable,
    ModelTable,
    OutputCommon,
    RecordingTable,
    StreamTable,
    TriggerCommon,
)
from rtpose.skeleton import Skeleton


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

    def changed(self, key: str, value: object) -> "TriggerEntry":
        """Return the trigger with one of its own settings changed.

        Raises
        ------
        ConfigError
            If it has no such setting, or that must not have this value.
        """
        config = self.plugin.Config
        name, what = f"triggers.{self.name}.{key}", ""
        if key not in config.model_fields:
            what = f"unknown key; allowed: {', '.join(config.model_fields)}"
            raise ConfigError([Problem(name, what)])
        settings = self.settings.model_dump(exclude_unset=True) | {key: value}
        try:
            return replace(self, settings=config.model_validate(settings))
        except ValidationError as error:
            problems = [
                Problem(name, f"{detail['msg']}, got {detail['input']!r}")
                for detail in error.errors()
            ]
            raise ConfigError(problems) from error

    def pulses(self, line: LineConfig) -> Command:
        """Return the pulse, or the train, that it gives on its line; its number is not set yet."""
        output, name = self.target
        width_ms = line.max_on_ms if self.common.pulse_ms is None else self.common.pulse_ms
        width_us, train = round(width_ms * 1000), self.common.train
        if train is None:
            return Command(
                command_id=0, output=output, line=name, action="pulse", width_us=width_us
            )
        return Command(
            command_id=0,
            output=output,
            line=name,
            action="train",
            width_us=width_us,
            delay_us=round(train.delay_ms * 1000),
            period_us=round(train.period_ms * 1000),
            count=train.count,
        )

    def misfit(self, trigger: Trigger, line: LineConfig) -> Problem | None:
        """Say why its settings do not fit the line that it drives, or return None if they do."""
        name = f"triggers.{self.name}"
        has_width = self.common.pulse_ms is not None
        if trigger.momentary is not None and trigger.momentary != has_width:
            what = "has no meaning for a level" if has_width else "missing: how long is a pulse?"
            fix = "delete it; max_on_ms bounds a level" if has_width else "this key is needed"
            return Problem(f"{name}.pulse_ms", what, fix)
        if trigger.gives_levels and not line.levels:
            what = f"{self.common.output} only knows on and off"
            return Problem(f"{name}.output", what, "set the line's levels = true, where it can")
        return None

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
    forecast: ForecastTable
    experiment: ExperimentTable
    recording: RecordingTable
    outputs: Mapping[str, OutputEntry]
    triggers: Mapping[str, TriggerEntry]

    def check_triggers(self, skeleton: Skeleton) -> None:
        """Check what needs to know the keypoints.

        Raises
        ------
        ConfigError
            With one problem for every trigger that asks for a keypoint that the model does not
            find, or that does not fit its line.
        """
        problems = []
        for name, entry in self.triggers.items():
            try:
                trigger = entry.build(skeleton, self.arena.scale)
            except InputError as error:
                problems.append(Problem(f"{self.source}: triggers.{name}", str(error)))
                continue
            output, line = entry.target
            misfit = entry.misfit(trigger, self.outputs[output].settings.lines[line])
            if misfit is not None:
                problems.append(replace(misfit, where=f"{self.source}: {misfit.where}"))
        if problems:
            raise ConfigError(problems)

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
            "forecast": self.forecast.model_dump(),
            "experiment": self.experiment.model_dump(),
            "recording": self.recording.model_dump(),
            "outputs": {name: entry(item) for name, item in self.outputs.items()},
            "triggers": {name: entry(item) for name, item in self.triggers.items()},
        }
