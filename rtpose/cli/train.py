"""`rtpose train`."""

from pathlib import Path
from typing import Annotated

import typer

from rtpose.cli.console import OUT, say, size_px, trainer
from rtpose.errors import InputError


def train(
    project: Annotated[
        Path | None,
        typer.Argument(
            help="Labelled frames: a project's folder or label file.", show_default=False
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="New folder for the run.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file of settings; options given here go before it.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Network; mobilenetv2-0.35 if absent.")] = None,
    size: Annotated[
        str | None, typer.Option(help="Input size, WIDTHxHEIGHT in px; 320x240 if absent.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps; 4000 if absent.")] = None,
    batch: Annotated[int | None, typer.Option(help="Samples in a step; 8 if absent.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of start, split and samples.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="Start from this torchvision-layout file, or imagenet.")
    ] = None,
    split: Annotated[
        Path | None, typer.Option(help="JSON that says which frames train, validate and test.")
    ] = None,
    split_by: Annotated[str | None, typer.Option(help="Divide by frame or by video.")] = None,
    individual: Annotated[
        str | None, typer.Option(help="Which animal, where frames show several.")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="32-true, bf16-mixed or 16-mixed.")] = None,
    devices: Annotated[int | None, typer.Option(help="How many GPUs.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that prepare samples.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run.")
    ] = False,
    show_augmented: Annotated[
        Path | None,
        typer.Option(help="Draw samples as the network would see them (.png); do not train."),
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print every setting, explained, as TOML.")
    ] = False,
) -> None:
    """Train a model on labelled frames (needs the extra 'train')."""
    if print_config:
        typer.echo(trainer("training.config").EXAMPLE.read_text(encoding="utf-8"), nl=False)
        return
    if project is None or (out is None and show_augmented is None):
        raise InputError("rtpose train needs a project and --out; see rtpose train --help")
    settings = {
        "model": model,
        "steps": steps,
        "batch": batch,
        "seed": seed,
        "split_by": split_by,
        "individual": individual,
        "precision": precision,
        "devices": devices,
        "threads": threads,
        "workers": workers,
    }
    given = {"size": size_px(size) if size else None, "split": split, "config": config, **settings}
    module = trainer("train")
    if show_augmented is not None:
        module.show_augmented(project, show_augmented, **given)
        say(f"{show_augmented}")
        return
    record = module.train(project, out, weights=weights, resume=resume, console=OUT, **given)
    say(
        f"validation error {record.validation_px:.2f} px at step {record.best_step}, "
        f"after {record.minutes:.1f} min; export it with: rtpose export {out}"
    )


def add_to(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command()(train)
