"""Reads rig.toml into a `Rig`; every problem in it at once."""

import difflib
import json
import re
import tomllib
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, TypeVar, cast, get_args

from pydantic import BaseModel, ValidationError

from rtpose import plugins
from rtpose.errors import ConfigError, InputError, Problem
from rtpose.interfaces import (
    IDENTIFIER_PATTERN,
    Camera,
    LineConfig,
    Output,
    OutputSettings,
    Settings,
    Trigger,
)
from rtpose.messages import MAX_TRAIN_US
from rtpose.rig import CameraEntry, OutputEntry, Rig, TriggerEntry
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

M = TypeVar("M", bound=BaseModel)

_TABLES = (
    "cameras",
    "model",
    "stream",
    "latency",
    "arena",
    "forecast",
    "experiment",
    "recording",
    "outputs",
    "triggers",
)

_ARRAY: Final = "must be an array, as in [..., ...]"
_TABLE: Final = "must be a table, as in { key = 1 }"
#: What pydantic says in the words of Python.
_SHAPES: Final = {
    "tuple_type": _ARRAY,
    "list_type": _ARRAY,
    "model_type": _TABLE,
    "dict_type": _TABLE,
    "mapping_type": _TABLE,
}


def load_rig(path: Path) -> Rig:
    """Read and check a rig file.

    Raises
    ------
    ConfigError
        With every problem in the file, each with its full key path.
    """
    try:
        text = path.read_bytes().decode()
        data = tomllib.loads(text)
    except OSError as error:
        raise ConfigError([Problem(str(path), f"cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(str(path), f"is not UTF-8 text: {error}")]) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([Problem(str(path), f"is not TOML: {error}")]) from error
    return _Reader(path, data).read()


def load_settings(path: Path) -> Rig:
    """Read the ``settings.json`` that a run left in its folder.

    Nothing is bound with it, so ``[stream]`` is left at its defaults: its key may be gone.

    Raises
    ------
    ConfigError
        If that is no such file, or a plug-in or file that it names is not there any more.
    """
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError([Problem(str(path), f"cannot be read: {error.strerror}")]) from error
    except ValueError as error:
        raise ConfigError([Problem(str(path), f"is not JSON: {error}")]) from error
    if not isinstance(data, dict):
        raise ConfigError([Problem(str(path), "is not the settings of a run")])
    return _Reader(path, {**data, "stream": {}}).read()


def _fields_at(table: type[BaseModel], path: tuple[int | str, ...]) -> tuple[str, ...]:
    """Return the keys of the table at a path below `table`; none where it cannot be told."""
    for step in path:
        field = table.model_fields.get(str(step))
        if field is None:
            continue  # the name of an entry in a table of tables, or of one choice of a union
        inner = _models_in(field.annotation)
        if len(inner) != 1:
            return ()
        table = inner[0]
    return tuple(table.model_fields)


def _models_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


class _Reader:
    """Turns the parsed file into a `Rig`, collecting problems on the way."""

    def __init__(self, path: Path, data: dict[str, Any]) -> None:
        self._path = path
        self._data = data
        # Absolute, so that the settings which a run leaves behind name the same files.
        self._context = {"folder": path.parent.absolute()}
        self._problems: list[Problem] = []

    def read(self) -> Rig:
        for key in self._data:
            if key not in _TABLES:
                self._unknown(key, key, _TABLES)
        model = self._table("model", ModelTable)
        stream = self._table("stream", StreamTable)
        latency = self._table("latency", LatencyTable)
        arena = self._table("arena", ArenaTable)
        forecast = self._table("forecast", ForecastTable)
        experiment = self._table("experiment", ExperimentTable)
        recording = self._table("recording", RecordingTable)
        cameras = self._entries("cameras", CameraCommon)
        outputs = self._entries("outputs", OutputCommon)
        triggers = self._entries("triggers", TriggerCommon)
        if stream is not None:
            self._check_stream(stream)
        if len(self._sub_tables("cameras")) != 1:
            self._problem("cameras", f"{len(self._sub_tables('cameras'))} cameras", "give one")
        camera_entries = [
            CameraEntry(name, common, cast("type[Camera]", plugin), settings)
            for name, (common, plugin, settings) in cameras.items()
        ]
        output_entries = {
            name: OutputEntry(
                name, common, cast("type[Output]", plugin), cast("OutputSettings", settings)
            )
            for name, (common, plugin, settings) in outputs.items()
        }
        trigger_entries = {
            name: TriggerEntry(name, common, cast("type[Trigger]", plugin), settings)
            for name, (common, plugin, settings) in triggers.items()
        }
        for output in output_entries.values():
            self._check_lines(output)
        for trigger in trigger_entries.values():
            self._check_target(trigger, output_entries)
        if self._problems or not (
            model and stream and latency and arena and forecast and experiment and recording
        ):
            raise ConfigError(self._problems)
        return Rig(
            self._path,
            camera_entries[0],
            model,
            stream,
            latency,
            arena,
            forecast,
            experiment,
            recording,
            output_entries,
            trigger_entries,
        )

    def _problem(self, key: str, what: str, fix: str = "") -> None:
        self._problems.append(Problem(f"{self._path}: {key}", what, fix))

    def _unknown(self, key: str, name: str, allowed: tuple[str, ...]) -> None:
        close = difflib.get_close_matches(name, allowed, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        known = f"allowed: {', '.join(allowed)}" if allowed else "delete it"
        self._problem(key, "unknown key", f"{hint}{known}")

    def _table(self, key: str, table: type[M]) -> M | None:
        return self._validate(key, self._data.get(key, {}), table)

    def _validate(self, key: str, data: object, table: type[M]) -> M | None:
        if not isinstance(data, dict):
            self._problem(key, f"must be a table, got {data!r}", f"write [{key}]")
            return None
        try:
            return table.model_validate(data, context=self._context)
        except ValidationError as error:
            for detail in error.errors():
                path = ".".join([key, *map(str, detail["loc"])])
                if detail["type"] == "extra_forbidden":
                    names = _fields_at(table, detail["loc"][:-1])
                    self._unknown(path, str(detail["loc"][-1]), names)
                elif detail["type"] == "missing":
                    self._problem(path, "missing", "this key is needed")
                else:
                    message = _SHAPES.get(detail["type"]) or detail["msg"]
                    message = message.removeprefix("Value error, ")
                    self._problem(path, f"{message}, got {detail['input']!r}")
            return None

    def _sub_tables(self, group: str) -> dict[str, dict[str, Any]]:
        tables = self._data.get(group, {})
        if not isinstance(tables, dict):
            return {}
        return {name: table for name, table in tables.items() if isinstance(table, dict)}

    def _entries(
        self, group: plugins.Kind, common_type: type[M]
    ) -> dict[str, tuple[M, type[Any], Settings]]:
        tables = self._data.get(group, {})
        if not isinstance(tables, dict):
            self._problem(group, f"must be tables, got {tables!r}", f"write [{group}.NAME]")
            return {}
        entries = {}
        for name, table in tables.items():
            key = f"{group}.{name}"
            if not re.fullmatch(IDENTIFIER_PATTERN, name):
                self._problem(key, f"{name!r} is no name", "letters, digits, _ and -, at most 64")
                continue
            if not isinstance(table, dict):
                self._problem(key, f"must be a table, got {table!r}", f"write [{group}.NAME]")
                continue
            entry = self._entry(group, key, table, common_type)
            if entry is not None:
                entries[name] = entry
        return entries

    def _entry(
        self, group: plugins.Kind, key: str, table: dict[str, Any], common_type: type[M]
    ) -> tuple[M, type[Any], Settings] | None:
        names = set(common_type.model_fields)
        common = self._validate(key, {k: v for k, v in table.items() if k in names}, common_type)
        type_name = table.get("type")
        if not isinstance(type_name, str):
            return None  # `common` reported it
        try:
            plugin = plugins.load(group, type_name)
        except InputError as error:
            self._problem(f"{key}.type", str(error))
            return None
        own = {k: v for k, v in table.items() if k not in names}
        settings = self._validate(key, own, plugin.Config)
        if common is None or settings is None:
            return None
        return common, plugin, settings

    def _check_stream(self, stream: StreamTable) -> None:
        ports = [stream.pose_port, stream.event_port, stream.command_port]
        if len(set(ports)) != len(ports):
            self._problem("stream", f"ports {ports} must differ")
        try:
            loopback = ip_address(stream.host).is_loopback
        except ValueError:
            loopback = stream.host == "localhost"
        if not (loopback or stream.insecure or stream.curve_secret_key_file):
            self._problem(
                "stream.host",
                f"{stream.host} is reachable from other machines",
                "give curve_secret_key_file, or insecure = true if that is meant",
            )
        key_file = stream.curve_secret_key_file
        if key_file and not Path(key_file).is_file():
            self._problem("stream.curve_secret_key_file", f"no such file: {key_file}")

    def _check_lines(self, output: OutputEntry) -> None:
        pins: dict[int, str] = {}
        for name, line in output.settings.lines.items():
            first = pins.setdefault(line.pin, name)
            if first != name:
                self._problem(
                    f"outputs.{output.name}.lines.{name}.pin", f"{line.pin} is {first}'s already"
                )

    def _check_target(self, trigger: TriggerEntry, outputs: Mapping[str, OutputEntry]) -> None:
        key, problems = f"triggers.{trigger.name}", len(self._problems)
        output_name, line_name = trigger.target
        if output_name not in outputs:
            if output_name not in self._sub_tables("outputs"):
                known = ", ".join(self._sub_tables("outputs")) or "none"
                self._problem(f"{key}.output", f"no output {output_name!r}", f"outputs: {known}")
            return
        line = outputs[output_name].settings.lines.get(line_name)
        if line is None:
            known = ", ".join(f"{output_name}.{n}" for n in outputs[output_name].settings.lines)
            self._problem(f"{key}.output", f"no line {trigger.common.output!r}", f"lines: {known}")
            return
        common = trigger.common
        if common.pulse_ms is not None and common.pulse_ms > line.max_on_ms:
            self._problem(
                f"{key}.pulse_ms",
                f"{common.pulse_ms} is longer than {common.output} may be on",
                f"at most its max_on_ms = {line.max_on_ms}",
            )
        if common.train is not None:
            self._check_train(key, common, line)
        self._check_dose(key, common, line)
        if len(self._problems) == problems and common.pulse_ms is not None:
            misfit = outputs[output_name].plugin.misfit(trigger.pulses(line))
            if misfit:
                what = "pulse_ms" if common.train is None else "train"
                self._problem(
                    f"{key}.{what}", f"{outputs[output_name].common.type} outputs {misfit}"
                )
        if common.yoked_to is not None and not Path(common.yoked_to).is_file():
            self._problem(f"{key}.yoked_to", f"no such file: {common.yoked_to}")

    def _check_train(self, key: str, common: TriggerCommon, line: LineConfig) -> None:
        train, pulse_ms = common.train, common.pulse_ms
        if train is None or pulse_ms is None:
            return
        # In whole microseconds, as it is sent.
        delay_us, period_us, width_us, refractory_us = (
            round(ms * 1000)
            for ms in (train.delay_ms, train.period_ms, pulse_ms, line.refractory_ms)
        )
        low_us = period_us - width_us
        if train.count > 1 and low_us < refractory_us:
            self._problem(
                f"{key}.train.period_ms",
                f"leaves {low_us / 1000:g} ms between pulses",
                f"at least {common.output}'s refractory_ms = {line.refractory_ms:g}",
            )
        length_us = delay_us + (train.count - 1) * period_us + width_us
        if length_us > MAX_TRAIN_US:
            self._problem(
                f"{key}.train", f"lasts {length_us / 1e6:g} s", f"at most {MAX_TRAIN_US / 1e6:g} s"
            )

    def _check_dose(self, key: str, common: TriggerCommon, line: LineConfig) -> None:
        if common.pulse_ms is None or line.dose_ms is None:
            return
        count = 1 if common.train is None else common.train.count
        high_us = count * round(common.pulse_ms * 1000)
        if high_us > round(line.dose_ms * 1000):
            self._problem(
                f"{key}.{'pulse_ms' if common.train is None else 'train'}",
                f"is high for {high_us / 1000:g} ms",
                f"at most {common.output}'s dose_ms = {line.dose_ms:g}",
            )
