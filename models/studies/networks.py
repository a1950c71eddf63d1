"""Every network on the same animal: error on unseen frames, size, computation, latency.

``python models/studies/networks.py PROJECT --runs runs/networks``

PROJECT is the labelled open field (DeepLabCut's example ``openfield-Pranav-2018-10-30``). The zoo's
models stand in the table as they are; the others are trained here from random numbers, if they are
not in the folder yet: each for some minutes only, to compare, not for use.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from cost import latencies_ms, parameters_and_macs
from rtpose.errors import RtposeError
from rtpose.estimator import read_card
from study import ZOO, Variant, judge, make, markdown

#: Trained for this table only, each for about five minutes of one CPU core.
COMMON: dict[str, Any] = {"precision": "bf16-mixed", "threads": 1, "checks": 5}
COMPARED: dict[str, dict[str, Any]] = {
    "hourglass": {"model": "hourglass", "width_px": 256, "height_px": 192, "steps": 700},
    "leap": {"model": "leap", "width_px": 128, "height_px": 96, "steps": 800},
    "resnet50-locref": {
        "model": "resnet50",
        "width_px": 160,
        "height_px": 128,
        "colour": "rgb",
        "steps": 500,
        "location_refinement": True,
    },
}


def row(name: str, file: Path, result: dict[str, Any], times_ms: Any) -> list[str]:
    """Return one line of the table."""
    card = read_card(file)
    parameters, macs = parameters_and_macs(file)
    training = card.provenance["training"]
    error = result["error_px"]
    p50, p99 = np.percentile(times_ms, (50, 99))
    return [
        name,
        f"{card.input.width_px}x{card.input.height_px}",
        f"{card.maps.stride:g}",
        card.provenance["start_weights"].split(",")[0],
        f"{training['steps']}",
        f"{training['minutes']:.0f}",
        f"{error['mean']:.2f}",
        f"{error['median']:.2f}",
        f"{error['p95']:.2f}",
        f"{parameters:,}",
        f"{macs / 1e9:.2f}",
        f"{p50:.1f}",
        f"{p99:.1f}",
        f"{file.stat().st_size / 1e6:.2f}",
    ]


HEADER = (
    "model",
    "input",
    "stride",
    "start",
    "steps",
    "minutes",
    "mean px",
    "median px",
    "p95 px",
    "parameters",
    "GMAC",
    "p50 ms",
    "p99 ms",
    "MB",
)


def main() -> int:
    """Make what is missing and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("project", type=Path)
    parser.add_argument("--runs", type=Path, required=True, help="folder of the run folders")
    given = parser.parse_args()
    notes = Console(stderr=True)
    try:
        zoo = sorted(ZOO.glob("openfield-mouse-*.onnx"))
        files = {file.stem.removeprefix("openfield-mouse-"): file for file in zoo}
        for name, settings in COMPARED.items():
            files[name] = make(Variant(name, COMMON | settings), given.project, given.runs, notes)
        results = {name: judge(file, given.project) for name, file in files.items()}
    except RtposeError as error:
        notes.print(f"error: {error}", style="red", markup=False)
        return error.exit_code
    times_ms = latencies_ms(files, rounds=10, runs=20)
    rows = [row(name, file, results[name], times_ms[name]) for name, file in files.items()]
    Console().print(markdown(HEADER, rows), markup=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
