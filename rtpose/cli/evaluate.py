"""`rtpose evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from rtpose.cli.console import OUT, JsonFile, check_writable, say, trainer, write_json


def evaluate(
    model: Annotated[Path, typer.Argument(help="Exported ONNX file.")],
    project: Annotated[Path, typer.Argument(help="Labelled frames: whatever training reads.")],
    split: Annotated[
        Path | None, typer.Option(help="JSON of a split; without it, every labelled frame counts.")
    ] = None,
    part: Annotated[
        str | None, typer.Option(help="Part of the split: test (the default), validation, train.")
    ] = None,
    individual: Annotated[
        str | None, typer.Option(help="Which animal, where frames have several: name or number.")
    ] = None,
    json_file: JsonFile = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a report with plots and pictures to this file.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Run folder whose training curve the report shows.")
    ] = None,
    reference: Annotated[
        tuple[str, str] | None,
        typer.Option(help="Two keypoints whose distance errors are set against."),
    ] = None,
    within_px: Annotated[
        float | None,
        typer.Option(
            help="How far off a keypoint counts as right in the calibration: 5, or a "
            "twentieth of the reference length."
        ),
    ] = None,
    oks_sigma: Annotated[
        list[str] | None,
        typer.Option(help="OKS constant: NUMBER, or KEYPOINT=NUMBER (again for others); 0.025."),
    ] = None,
    min_confidence: Annotated[
        float | None, typer.Option(help="Confidence threshold; the model card's.", min=0, max=1)
    ] = None,
    sweep: Annotated[
        list[str] | None, typer.Option(help="Robustness test: scale, compression (or both).")
    ] = None,
    provider: Annotated[str, typer.Option(help="Where the model runs: cpu, cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads of the model.", min=1)] = 1,
) -> None:
    """Compare an exported model with labels: errors, PCK, OKS, calibration (extra 'train')."""
    check_writable(json_file)
    module = trainer("evaluate")
    result = module.evaluate(
        model,
        project,
        split=split,
        part=part,
        individual=individual,
        reference=reference,
        within_px=within_px,
        oks_sigma=oks_sigma or (),
        min_confidence=min_confidence,
        sweeps=sweep or (),
        provider=provider,
        threads=threads,
        html=html,
        run=run,
        console=OUT,
    )
    module.show(result, OUT)
    if json_file is not None:
        write_json(json_file, result)
    if html is not None:
        say(f"report: {html}")


def add_to(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command()(evaluate)
