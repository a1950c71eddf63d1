"""Cameras, triggers and outputs by name, or by ``"module:Class"``."""

import difflib
import importlib
from importlib.metadata import EntryPoint, entry_points
from typing import Literal

from rtpose.errors import InputError
from rtpose.interfaces import Camera, Output, Trigger

Kind = Literal["cameras", "triggers", "outputs"]

_BASES: dict[Kind, type[Camera] | type[Trigger] | type[Output]] = {
    "cameras": Camera,
    "triggers": Trigger,
    "outputs": Output,
}


def available(kind: Kind) -> dict[str, EntryPoint]:
    """Return the installed plug-ins of a kind, by name, without importing them."""
    return {point.name: point for point in sorted(entry_points(group=f"rtpose.{kind}"))}


def load(kind: Kind, name: str) -> type[Camera] | type[Trigger] | type[Output]:
    """Import a plug-in class.

    Parameters
    ----------
    kind : {'cameras', 'triggers', 'outputs'}
        What it must be.
    name : str
        The name of an entry point, or ``"module:Class"``.

    Raises
    ------
    InputError
        If there is no such plug-in, it cannot be imported, or it is of another kind.
    """
    target = _import(kind, name)
    base = _BASES[kind]
    if not (isinstance(target, type) and issubclass(target, base)):
        raise InputError(f"{name!r} is not a {base.__name__}: derive it from rtpose.interfaces")
    return target


def _import(kind: Kind, name: str) -> object:
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise InputError(f"cannot import {name!r}: {error}") from error
    points = available(kind)
    if name not in points:
        close = difflib.get_close_matches(name, points, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise InputError(
            f"no {kind[:-1]} named {name!r}{hint} (installed: {', '.join(points) or 'none'}; "
            'or give "module:Class")'
        )
    try:
        return points[name].load()
    except (ImportError, AttributeError) as error:
        raise InputError(f"the {kind[:-1]} plug-in {name!r} cannot be imported: {error}") from error
