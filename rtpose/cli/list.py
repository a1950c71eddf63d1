"""`rtpose list`: what a rig file can name."""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.progress import track
from rich.table import Table
from rich.text import Text

from rtpose import plugins
from rtpose.cli.console import OUT
from rtpose.clock import now_ns
from rtpose.errors import InputError
from rtpose.estimator import Estimator, read_card
from rtpose.model_card import golden_frames
from rtpose.zoo import zoo_models

_PLUGINS: tuple[plugins.Kind, ...] = ("cameras", "triggers", "outputs")
_MODELS = "models"
_RUNS = 50


def list_command(
    what: Annotated[
        str, typer.Argument(help="cameras, triggers, outputs, models, or nothing for all.")
    ] = "all",
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """List what a rig file can name: plug-ins, and models with their measured speed."""
    if what not in ("all", _MODELS, *_PLUGINS):
        raise InputError(
            f"cannot list {what!r}; give one of: {', '.join(_PLUGINS)}, {_MODELS}, all"
        )
    found: dict[str, Any] = {
        kind: {name: point.value for name, point in plugins.available(kind).items()}
        for kind in _PLUGINS
        if what in ("all", kind)
    }
    if what in ("all", _MODELS):
        files = zoo_models().items()
        rows = track(files, "measuring", console=OUT, transient=True, disable=as_json)
        found[_MODELS] = {name: _describe(file) for name, file in rows}
    if as_json:
        OUT.print_json(json.dumps(found))
        return
    for kind, entries in found.items():
        OUT.print(_models(entries) if kind == _MODELS else _classes(kind, entries))


def _describe(file: Path) -> dict[str, Any]:
    """Return what a model says about itself, and how long a frame takes it here."""
    card = read_card(file)
    unseen = card.provenance.get("unseen_frames", {})
    return {
        "species": card.species,
        "network": card.network,
        "keypoints": list(card.keypoints().names),
        "input": f"{card.input.width_px}x{card.input.height_px}",
        "file_kb": round(file.stat().st_size / 1000),
        "unseen_frames": unseen.get("frames"),
        "mean_error_px": unseen.get("error_px", {}).get("mean"),
        "median_ms": round(_median_ms(file), 2),
    }


def _median_ms(file: Path) -> float:
    """Return the median time of one frame through the estimator, on one CPU thread, in ms."""
    card = read_card(file)
    frame = golden_frames(card.input, seed=1, count=1)[0].squeeze()
    estimator = Estimator(file, frame=card.input.shape[1:])
    estimator.warm_up(3)
    times = np.empty(_RUNS)
    for run in range(_RUNS):
        start_ns = now_ns()
        estimator.estimate(frame)
        times[run] = now_ns() - start_ns
    return float(np.median(times)) / 1e6


def _models(entries: dict[str, Any]) -> Table:
    table = Table(title="models", title_justify="left", show_lines=True)
    # Few columns, so that all can be read on a screen of 80.
    table.add_column("path, animal, keypoints", overflow="fold")
    for column in ("input\nfile", "mean error\n(unseen)", "median, 1\nCPU thread"):
        table.add_column(column, justify="right")
    for name, model in entries.items():
        error, names = model["mean_error_px"], model["keypoints"]
        table.add_row(
            Text.assemble(
                (name, "bold"), f"\n{model['species']}, {len(names)}: {', '.join(names)}"
            ),
            f"{model['input']}\n{model['file_kb']} KB",
            "-" if error is None else f"{error:.2f} px\nof {model['unseen_frames']}",
            f"{model['median_ms']:.2f} ms",
        )
    return table


def _classes(kind: str, entries: dict[str, str]) -> Table:
    table = Table("type", "class", title=kind, title_justify="left")
    for name, target in entries.items():
        table.add_row(name, target)
    return table


def add_to(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(name="list")(list_command)
