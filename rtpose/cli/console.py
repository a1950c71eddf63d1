"""What all verbs share: the console, and writing what a program reads."""

import importlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from rtpose.errors import InputError, MissingExtraError

OUT, ERROR = Console(), Console(stderr=True)

RigFile = Annotated[Path, typer.Argument(help="The rig.toml to use.", show_default=False)]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the report to this file.")]


def say(words: str) -> None:
    """Print a line as it is: a path or a command in it can be copied, however narrow the screen."""
    OUT.print(words, markup=False, highlight=False, soft_wrap=True)


def check_writable(*paths: Path | None) -> None:
    """Raise `InputError` for a file that could not be written, before the work and not after."""
    for path in paths:
        if path is None:
            continue
        folder = path.parent
        if not folder.is_dir():
            raise InputError(f"cannot write {path}: there is no folder {folder}")
        if path.is_dir():
            raise InputError(f"cannot write {path}: it is a folder")
        if not os.access(path if path.exists() else folder, os.W_OK):
            raise InputError(f"cannot write {path}: permission denied")


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a report; raise `InputError` if it cannot be written there."""
    try:
        path.write_text(json.dumps(data, indent=2) + "\n")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def size_px(text: str) -> tuple[int, int]:
    """Return width and height out of WIDTHxHEIGHT; raise `InputError` if it is not that."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise InputError(f"--size {text!r} is not WIDTHxHEIGHT, e.g. 320x240")
    return int(width), int(height)


def trainer(module: str) -> Any:
    """Import a part of the trainer, which the runtime itself never does."""
    return _import(f"rtpose_train.{module}", "train", "training and export")


def hardware(module: str) -> Any:
    """Import a part of the drivers' package, which the runtime itself never does."""
    return _import(f"rtpose_hardware.{module}", "serial", "the TTL board")


def _import(module: str, extra: str, needed_for: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or module, extra, needed_for) from error
