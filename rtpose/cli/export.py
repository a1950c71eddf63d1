"""`rtpose export`."""

from pathlib import Path
from typing import Annotated

import typer

from rtpose.cli.console import OUT, trainer


def export(
    run_folder: Annotated[Path, typer.Argument(help="Folder that `rtpose train` made.")],
    out: Annotated[Path | None, typer.Option(help="ONNX file to write.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model.")] = None,
    species: Annotated[str, typer.Option(help="What animal it is for.")] = "",
) -> None:
    """Export a trained model as ONNX with its card inside (needs the extra 'train')."""
    path = trainer("export").export(run_folder, out, name=name, species=species)
    OUT.print(f"{path}", highlight=False)
