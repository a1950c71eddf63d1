"""Make a model of the zoo again: train, export, evaluate on frames that training never saw.

``python models/zoo/make.py NAME PROJECT --run runs/NAME [--weights FILE.pth]``

NAME.toml beside this script holds the settings, and says which frames are held out. PROJECT is the
labelled open field (DeepLabCut's example ``openfield-Pranav-2018-10-30``), the mirror mouse (of
Lightning Pose), or what ``models/synthetic_project.py`` wrote. The ONNX file is written into the
run folder; a run that was interrupted goes on.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from rtpose.errors import RtposeError
from rtpose_train.evaluate import evaluate, record, show
from rtpose_train.export import export
from rtpose_train.train import train

ZOO = Path(__file__).parent

#: Lines between keypoints, for projects that name none.
EDGES = {
    "openfield-mouse": (
        ("snout", "leftear"),
        ("snout", "rightear"),
        ("leftear", "rightear"),
        ("leftear", "tailbase"),
        ("rightear", "tailbase"),
    ),
    "mirror-mouse": tuple(
        (f"{a}_{view}", f"{b}_{view}")
        for view in ("top", "bot")
        for a, b in (("nose", "tailBase"), ("tailBase", "tailMid"))
    ),
    "synthetic-animal": (),
}


def make(name: str, project: Path, run: Path, weights: Path | None, console: Console) -> Path:
    """Train, export and evaluate one model; return the ONNX file."""
    animal = next(animal for animal in EDGES if name.startswith(animal))
    held_out = ZOO / f"{animal}-split.json"
    split = held_out if held_out.exists() else project / "split.json"
    train(
        project,
        run,
        config=ZOO / f"{name}.toml",
        weights=weights,
        split=split,
        edges=EDGES[animal],
        resume=run.exists(),
        console=console,
    )
    return finish(name, project, run, split, console)


def finish(name: str, project: Path, run: Path, split: Path, console: Console) -> Path:
    """Export what was trained, and write its error on the frames held out into its card."""
    species = "synthetic mouse" if name.startswith("synthetic") else "mouse"
    model = export(run, run / f"{name}.onnx", name=name, species=species)
    result = evaluate(model, project, split=split, part="test")
    record(model, result, f"test of {split.name}")
    show(result, console)
    return model


def main() -> int:
    """Make the model that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=sorted(file.stem for file in ZOO.glob("*.toml")))
    parser.add_argument("project", type=Path)
    parser.add_argument("--run", type=Path, required=True, help="run folder to create")
    parser.add_argument("--weights", type=Path, help="what the features start from")
    given = parser.parse_args()
    console = Console()
    try:
        model = make(given.name, given.project, given.run, given.weights, console)
    except RtposeError as error:
        console.print(f"error: {error}", style="red", markup=False)
        return error.exit_code
    console.print(f"{model}; its weights: {given.run / 'best.pt'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
