"""Training runs that a study compares: made where they are missing, kept where they are there."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from rtpose_train.evaluate import evaluate
from rtpose_train.export import export
from rtpose_train.train import train

ZOO = Path(__file__).parents[1] / "zoo"
OPEN_FIELD_SPLIT = ZOO / "openfield-mouse-split.json"

#: The open field's project names no lines between its keypoints.
OPEN_FIELD_EDGES = (
    ("snout", "leftear"),
    ("snout", "rightear"),
    ("leftear", "rightear"),
    ("leftear", "tailbase"),
    ("rightear", "tailbase"),
)


@dataclass(frozen=True, slots=True)
class Variant:
    """One training of a study.

    Attributes
    ----------
    name : str
        Of its run folder.
    settings : mapping
        Fields of `TrainSettings`.
    weights : Path, optional
        What it starts from; random numbers if absent.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    weights: Path | None = None


def make(variant: Variant, project: Path, runs: Path, console: Console) -> Path:
    """Return the exported model of a variant; train and export it if it is not there."""
    run = runs / variant.name
    model = run / f"{variant.name}.onnx"
    if model.exists():
        return model
    console.rule(variant.name)
    train(
        project,
        run,
        weights=variant.weights,
        split=OPEN_FIELD_SPLIT,
        edges=OPEN_FIELD_EDGES,
        resume=run.exists(),
        console=console,
        **variant.settings,
    )
    return export(run, model, name=variant.name, species="mouse")


def judge(model: Path, project: Path) -> dict[str, Any]:
    """Return the evaluation of a model on the frames that no training here sees."""
    return evaluate(model, project, split=OPEN_FIELD_SPLIT, part="test")


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table for a README; all columns but the first are numbers."""
    lines = [header, ["---", *("---:" for _ in header[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
