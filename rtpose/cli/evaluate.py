"""`rtpose evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from rtpose.cli.console import OUT, JsonFile, trainer, write_json


def evaluate(
    model: Annotated[Path, typer.Argument(help="Exported ONNX file.")],
    project: Annotated[Path, typer.Argument(help="Project with labels of the same keypoints.")],
    split: Annotated[
        Path | None, typer.Option(help="JSON of a split; without it, every labelled frame counts.")
    ] = None,
    part: Annotated[str, typer.Option(help="Which part of the split.")] = "test",
    json_file: JsonFile = None,
) -> None:
    """Compare an exported model with labels: px error overall and per keypoint (extra 'train')."""
    module = trainer("evaluate")
    result = module.evaluate(model, project, split=split, part=part)
    module.show(result, OUT)
    if json_file is not None:
        write_json(json_file, result)
