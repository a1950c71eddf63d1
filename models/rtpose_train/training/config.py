"""Training settings out of a TOML file, the network's own defaults and the command line."""

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from rtpose.errors import ConfigError, Problem
from rtpose_train.networks.registry import default_settings
from rtpose_train.networks.weights import NAMED
from rtpose_train.training.settings import TrainSettings

#: Every setting with its default and what it means.
EXAMPLE = Path(__file__).with_name("example.toml")


def read_config(file: Path) -> dict[str, Any]:
    """Return the settings that a TOML file gives, unchecked but for its syntax.

    A weight file in it is relative to the folder of the TOML file.

    Raises
    ------
    ConfigError
        If the file cannot be read, or is not TOML.
    """
    try:
        given = tomllib.loads(file.read_bytes().decode())
    except OSError as error:
        raise ConfigError([Problem(str(file), f"cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(str(file), f"is not UTF-8 text: {error}")]) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([Problem(str(file), f"is not TOML: {error}")]) from error
    pretrained = given.get("pretrained")
    if isinstance(pretrained, str) and pretrained not in NAMED:
        given["pretrained"] = str(file.parent / pretrained)
    return given


def build_settings(
    given: Mapping[str, Any], config: Mapping[str, Any] | None = None, where: str = ""
) -> TrainSettings:
    """Check settings and fill in what is missing.

    Parameters
    ----------
    given : mapping
        Settings that go before all others.
    config : mapping, optional
        What `read_config` returned.
    where : str
        The file's name, for errors about what stands in it.

    Raises
    ------
    ConfigError
        With everything that is wrong.
    InputError
        If there is no such network.
    """
    config = config or {}
    together = {**config, **given}
    model = together.get("model", TrainSettings.model_fields["model"].default)
    own = default_settings(model) if isinstance(model, str) else {}
    try:
        return TrainSettings.model_validate({**own, **together})
    except ValidationError as error:
        problems = []
        for detail in error.errors():
            path = detail["loc"]
            in_file = bool(path) and path[0] in config and path[0] not in given
            key = ".".join(map(str, path)) or "settings"
            problems.append(_problem(f"{where}: {key}" if where and in_file else key, detail))
        raise ConfigError(problems) from error


def _problem(where: str, detail: Mapping[str, Any]) -> Problem:
    path = detail["loc"]
    if detail["type"] == "extra_forbidden":
        table = _table(path[:-1])
        close = difflib.get_close_matches(str(path[-1]), table.model_fields, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        return Problem(where, "unknown key", f"{hint}allowed: {', '.join(table.model_fields)}")
    message = detail["msg"].removeprefix("Value error, ")
    return Problem(where, f"{message}, got {detail['input']!r}" if path else message)


def _table(path: tuple[int | str, ...]) -> type[BaseModel]:
    """Return the settings at a path."""
    table: type[BaseModel] = TrainSettings
    for step in path:
        inner = table.model_fields[str(step)].annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            table = inner
    return table
