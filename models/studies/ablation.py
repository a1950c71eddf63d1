"""What each ingredient buys: one change at a time, several seeds each, frames never trained on.

``python models/studies/ablation.py PROJECT --weights FILE.pth --runs runs/ablation``

PROJECT is the labelled open field (DeepLabCut's example ``openfield-Pranav-2018-10-30``), FILE.pth
holds MobileNetV2-0.35 weights in torchvision's layout. Every run is small, so that all of them
take half an hour of one CPU core: the differences count, not the errors. Runs that are there are
not made again; an interrupted one is resumed.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from rtpose.errors import RtposeError
from study import Variant, judge, make, markdown

COMMON: dict[str, Any] = {
    "model": "mobilenetv2-0.35",
    "width_px": 160,
    "height_px": 128,
    "steps": 500,
    "checks": 5,
    "threads": 1,
    "tensorboard": False,
}

#: What differs from the first row; sigma in cells.
CHANGES: dict[str, dict[str, Any]] = {
    "baseline (stride 4, sigma 1.5, pretrained)": {},
    "random start": {"random_start": True},
    "posture graph": {"posture_graph": True},
    "sigma 1.25": {"sigma": 1.25},
    "sigma 2": {"sigma": 2.0},
    "sigma 3": {"sigma": 3.0},
    "location refinement": {"location_refinement": True},
    "stride 8": {"stride": 8},
    "stride 8, location refinement": {"stride": 8, "location_refinement": True},
    "stride 16": {"stride": 16},
    "stride 16, location refinement": {"stride": 16, "location_refinement": True},
}


def variants(change: str, weights: Path, seeds: int) -> list[Variant]:
    """Return the trainings of one row."""
    settings = {**COMMON, **CHANGES[change]}
    start = None if settings.pop("random_start", False) else weights
    name = change.split(" (")[0].replace(",", "").replace(" ", "-")
    return [Variant(f"{name}-{seed}", {**settings, "seed": seed}, start) for seed in range(seeds)]


def row(change: str, errors: list[float], baseline: list[float]) -> list[str]:
    """Return one line: the mean over seeds, its spread, and the paired difference to the first."""
    difference = np.subtract(errors, baseline)
    spread = f"{np.std(errors, ddof=1):.2f}" if len(errors) > 1 else "-"
    each = ", ".join(f"{error:.2f}" for error in errors)
    change_px = "" if errors is baseline else f"{difference.mean():+.2f}"
    return [change, f"{np.mean(errors):.2f}", spread, change_px, each]


def main() -> int:
    """Make what is missing and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("project", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True, help="folder of the run folders")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    notes, console = Console(stderr=True), Console()
    table: list[list[str]] = []
    baseline: list[float] = []
    try:
        for change in CHANGES:
            models = [
                make(variant, given.project, given.runs, notes)
                for variant in variants(change, given.weights, given.seeds)
            ]
            errors = [judge(model, given.project)["error_px"]["mean"] for model in models]
            baseline = baseline or errors
            table.append(row(change, errors, baseline))
    except RtposeError as error:
        notes.print(f"error: {error}", style="red", markup=False)
        return error.exit_code
    header = ("one change", "mean px", "sd of seeds", "to the first", "each seed")
    console.print(markdown(header, table), markup=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
