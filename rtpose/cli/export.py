"""`rtpose export`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rtpose.cli.console import say, size_px, trainer


class Precision(StrEnum):
    """What weights and arithmetic are."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class Decode(StrEnum):
    """Where maps become keypoints."""

    HOST = "host"
    GRAPH = "graph"


def export(
    run_folder: Annotated[Path, typer.Argument(help="Folder that `rtpose train` made.")],
    out: Annotated[Path | None, typer.Option(help="ONNX file to write.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model.")] = None,
    species: Annotated[str, typer.Option(help="What animal it is for.")] = "",
    precision: Annotated[
        Precision, typer.Option(help="Of weights and arithmetic.")
    ] = Precision.FP32,
    decode: Annotated[
        Decode,
        typer.Option(help="Maps become keypoints on the host, or inside the graph (for GPUs)."),
    ] = Decode.HOST,
    size: Annotated[
        str | None, typer.Option(help="Input size, WIDTHxHEIGHT in px, if not that of training.")
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(help="The project it was trained on: int8 needs its frames, all are judged."),
    ] = None,
    max_disagreement_px: Annotated[
        float | None,
        typer.Option(help="Refuse int8 if it is further off on average, px of the input [1]."),
    ] = None,
) -> None:
    """Export a trained model as ONNX with its card inside (needs the extra 'train')."""
    path = trainer("export").export(
        run_folder,
        out,
        name=name,
        species=species,
        precision=precision.value,
        decode=decode.value,
        size=None if size is None else size_px(size),
        calibrate=calibrate,
        max_disagreement_px=max_disagreement_px,
    )
    say(f"{path}")


def add_to(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command()(export)
