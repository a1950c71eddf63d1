"""Which frames train a model, which choose its best moment, and which judge it."""

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from rtpose.errors import InputError
from rtpose_train.dataset import LabelledFrame, Project


class Split(BaseModel):
    """Which frames train, which choose the best checkpoint, and which are seen by neither."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    note: str = ""
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...] = ()


def split_frames(
    names: Sequence[str], seed: int, validation: float = 0.1, test: float = 0.1
) -> Split:
    """Divide frames at random, one by one.

    Parameters
    ----------
    names : sequence of str
        Frame names; sorted first, so that their order does not matter.
    seed : int
        Which division.
    validation, test : float
        Fractions, rounded up to whole frames.

    Raises
    ------
    InputError
        If no frame is left to train on.
    """
    shuffled = sorted(names)
    random.Random(seed).shuffle(shuffled)
    tests, validations = math.ceil(len(names) * test), math.ceil(len(names) * validation)
    if len(names) - tests - validations < 1:
        raise InputError(
            f"{len(names)} labelled frames: too few to keep {validations} for validation and "
            f"{tests} for the test; label more frames"
        )
    return Split(
        note=f"by frame: random.Random({seed}).shuffle(sorted names), test, validation, train",
        test=tuple(sorted(shuffled[:tests])),
        validation=tuple(sorted(shuffled[tests : tests + validations])),
        train=tuple(sorted(shuffled[tests + validations :])),
    )


def read_split(file: Path, project: Project) -> Split:
    """Read a split, and check that it names frames of the project, each in one part only."""
    try:
        split = Split.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError) as error:
        raise InputError(f"{file}: not a split of frames: {error}") from error
    named = [*split.train, *split.validation, *split.test]
    unknown = sorted(set(named) - {frame.name for frame in project.frames})
    if unknown:
        raise InputError(f"{file}: not labelled in {project.root}: {', '.join(unknown)}")
    if len(set(named)) != len(named):
        doubled = sorted({name for name in named if named.count(name) > 1})
        raise InputError(f"{file}: in more than one part: {', '.join(doubled)}")
    if not split.train or not split.validation:
        raise InputError(f"{file}: needs frames under 'train' and under 'validation'")
    return split


def select(project: Project, names: Sequence[str]) -> list[LabelledFrame]:
    """Return the frames with these names, in the project's order."""
    wanted = set(names)
    return [frame for frame in project.frames if frame.name in wanted]
