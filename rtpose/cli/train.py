"""`rtpose train`."""

from pathlib import Path
from typing import Annotated

import typer

from rtpose.cli.console import OUT, size_px, trainer


def train(
    project: Annotated[Path, typer.Argument(help="Folder of a DeepLabCut project.")],
    out: Annotated[Path, typer.Option(help="New folder for the run.")],
    model: Annotated[str, typer.Option(help="Network.")] = "mobilenetv2-0.35",
    size: Annotated[str, typer.Option(help="Input size, WIDTHxHEIGHT in px.")] = "320x240",
    steps: Annotated[int, typer.Option(help="Optimiser steps.", min=20)] = 4000,
    seed: Annotated[int, typer.Option(help="Of start, split and samples.", min=0)] = 0,
    weights: Annotated[
        Path | None, typer.Option(help="Start from this torchvision-layout checkpoint.")
    ] = None,
    split: Annotated[
        Path | None, typer.Option(help="JSON that says which frames train, validate and test.")
    ] = None,
) -> None:
    """Train a model on labelled frames (needs the extra 'train')."""
    record = trainer("train").train(
        project,
        out,
        size=size_px(size),
        model=model,
        steps=steps,
        seed=seed,
        weights=weights,
        split=split,
        console=OUT,
    )
    OUT.print(
        f"validation error {record.validation_px:.2f} px at step {record.best_step}, "
        f"after {record.minutes:.1f} min; export it with: rtpose export {out}",
        highlight=False,
    )
