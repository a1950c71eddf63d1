"""What precision and place of decoding cost and buy, on frames never trained on.

``python models/studies/precision.py RUN PROJECT --out runs/precision``

RUN is a run folder of the labelled open field. It is exported in every precision, decoded on the
host and in the graph; int8 is calibrated on the frames that it was trained on. Distances from torch
are those of the run's validation frames.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from rich.console import Console

from cost import latencies_ms
from rtpose.errors import RtposeError
from rtpose.estimator import read_card
from rtpose_train.export import export
from study import judge, markdown


def from_torch(model: Path) -> list[str]:
    """Return how many keypoints export compared with torch's, and their mean and largest distance.

    In px of the model's input; the card has it from export.
    """
    beside = read_card(model).provenance["disagreement_with_torch"]
    distances_px = (beside["mean_px"], beside["max_px"])
    return [
        f"{beside['keypoints']}",
        *("-" if distance is None else f"{distance:.2g}" for distance in distances_px),
    ]


def main() -> int:
    """Export what is missing and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("project", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of the exported files")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    files: dict[str, Path] = {}
    try:
        for precision in ("fp32", "fp16", "int8"):
            for place in ("host", "graph"):
                file = given.out / f"{given.run.name}-{precision}-{place}.onnx"
                if not file.exists():
                    # With the project, all are compared with torch on real frames: in generated
                    # ones a network is sure of hardly any keypoint.
                    export(
                        given.run, file, precision=precision, decode=place, calibrate=given.project
                    )
                files[f"{precision}, {place}"] = file
        errors = {name: judge(file, given.project)["error_px"] for name, file in files.items()}
    except RtposeError as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False)
        return error.exit_code
    times_ms = latencies_ms(files, rounds=10, runs=20)
    rows = [
        [
            name,
            *(f"{errors[name][key]:.2f}" for key in ("mean", "median", "p95")),
            *from_torch(file),
            *(f"{time:.2f}" for time in np.percentile(times_ms[name], (50, 99))),
            f"{file.stat().st_size / 1e6:.2f}",
        ]
        for name, file in files.items()
    ]
    header = (
        "precision, decoded in",
        "mean px",
        "median px",
        "p95 px",
        "keypoints compared",
        "from torch, mean input px",
        "from torch, most input px",
        "p50 ms",
        "p99 ms",
        "MB",
    )
    Console().print(markdown(header, rows), markup=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
