"""Make the committed models again: train, export, evaluate on frames that training never saw.

``python models/zoo/make.py openfield-mouse PROJECT --weights FILE.pth --run runs/mouse``
``python models/zoo/make.py synthetic-animal PROJECT --weights FILE.pth --run runs/synthetic``

PROJECT is the labelled open field (DeepLabCut's example ``openfield-Pranav-2018-10-30``), or what
``models/synthetic_project.py`` wrote. FILE.pth holds MobileNetV2-0.35 weights in torchvision's
layout. The ONNX file and the state dict are written into the run folder.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import torch
from rich.console import Console

from rtpose.errors import RtposeError
from rtpose_train.evaluate import evaluate, record, show
from rtpose_train.export import export
from rtpose_train.train import train


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one model is made."""

    name: str
    species: str
    size: tuple[int, int]
    settings: dict[str, Any]
    edges: tuple[tuple[str, str], ...] = ()
    #: Beside this script; the project's own split.json if absent.
    split: str = ""


RECIPES = {
    "openfield-mouse": Recipe(
        name="openfield-mouse-mobilenetv2-0.35",
        species="mouse",
        size=(320, 240),
        settings={"steps": 5000},
        edges=(
            ("snout", "leftear"),
            ("snout", "rightear"),
            ("leftear", "rightear"),
            ("leftear", "tailbase"),
            ("rightear", "tailbase"),
        ),
        split="openfield-mouse-split.json",
    ),
    "synthetic-animal": Recipe(
        name="synthetic-animal",
        species="synthetic mouse",
        size=(192, 144),
        settings={"steps": 2500, "checks": 20},
    ),
}


def make(recipe: Recipe, project: Path, weights: Path, run: Path, console: Console) -> Path:
    """Train, export and evaluate one model; return the ONNX file."""
    split = Path(__file__).with_name(recipe.split) if recipe.split else project / "split.json"
    train(
        project,
        run,
        size=recipe.size,
        weights=weights,
        split=split,
        edges=recipe.edges,
        console=console,
        **recipe.settings,
    )
    model = export(run, name=recipe.name, species=recipe.species)
    result = evaluate(model, project, split=split)
    record(model, result, f"test of {split.name}")
    show(result, console)
    return model


def main() -> int:
    """Make the model that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", choices=RECIPES)
    parser.add_argument("project", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True, help="run folder to create")
    parser.add_argument("--threads", type=int, help="CPU threads; as many as cores if absent")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
        cv2.setNumThreads(given.threads)
    console = Console()
    try:
        model = make(RECIPES[given.recipe], given.project, given.weights, given.run, console)
    except RtposeError as error:
        console.print(f"error: {error}", style="red", markup=False)
        return error.exit_code
    console.print(f"{model}; its weights: {given.run / 'best.pt'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
