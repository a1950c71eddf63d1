"""Which frames train a model, which choose its best moment, and which judge it."""

import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from rtpose.errors import InputError
from rtpose_train.data.dataset import LabelledFrame, Project


class Split(BaseModel):
    """Which frames train, which choose the best checkpoint, and which are seen by neither."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    note: str = ""
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...] = ()


def split_frames(
    names: Sequence[str],
    seed: int,
    validation: float = 0.1,
    test: float = 0.1,
    *,
    by: Literal["frame", "video"] = "frame",
    groups: Mapping[str, str] | None = None,
) -> Split:
    """Divide frames at random.

    Frames of one video resemble each other, so that a division by frame flatters a model; one by
    video tells what it does on the next animal, and needs at least one video for each part.

    Parameters
    ----------
    names : sequence of str
        Frame names; sorted first, so that their order does not matter.
    seed : int
        Which division.
    validation, test : float
        Fractions of the frames, rounded up to whole frames; by video as near below as whole
        videos come, but at least one.
    by : {'frame', 'video'}
        What is divided: frames one by one, or whole videos.
    groups : mapping of str to str, optional
        The video of every frame (`LabelledFrame.video`); needed by video.

    Raises
    ------
    InputError
        If there are too few frames or videos for each part to have one, or an option is wrong.
    """
    if by not in ("frame", "video") or (by == "video" and groups is None):
        raise InputError(
            f"a split by {by!r}; allowed: 'frame', or 'video' with every frame's video"
        )
    if min(validation, test) < 0 or validation + test >= 1:
        raise InputError(
            f"validation {validation} and test {test}: "
            "fractions from 0 are needed, together below 1"
        )
    if by == "video" and groups is not None:
        return _split_videos(names, groups, seed, validation, test)
    return _split_singly(names, seed, validation, test)


def _split_singly(names: Sequence[str], seed: int, validation: float, test: float) -> Split:
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


def _split_videos(
    names: Sequence[str], groups: Mapping[str, str], seed: int, validation: float, test: float
) -> Split:
    videos: dict[str, list[str]] = {}
    for name in sorted(names):
        videos.setdefault(groups[name], []).append(name)
    needed = 1 + (validation > 0) + (test > 0)
    if len(videos) < needed:
        raise InputError(
            f"frames of {len(videos)} videos ({', '.join(sorted(videos))}): too few for a split "
            f"by video into {needed} parts; label frames of more videos, or split by frame"
        )
    left = sorted(videos)
    random.Random(seed).shuffle(left)
    tests = _take(videos, left, math.ceil(len(names) * test), needed - 1)
    validations = _take(videos, left, math.ceil(len(names) * validation), 1)
    return Split(
        note=f"by video: random.Random({seed}).shuffle(sorted videos), test, validation, train",
        test=tests,
        validation=validations,
        train=tuple(sorted(name for video in left for name in videos[video])),
    )


def _take(
    videos: Mapping[str, Sequence[str]], left: list[str], wanted: int, keep: int
) -> tuple[str, ...]:
    """Move videos out of `left` up to `wanted` frames, and return their frames."""
    taken: list[str] = []
    for video in list(left):
        if len(left) > keep and len(taken) + len(videos[video]) <= wanted:
            left.remove(video)
            taken += videos[video]
    if wanted and not taken:
        smallest = min(left, key=lambda video: len(videos[video]))
        left.remove(smallest)
        taken += videos[smallest]
    return tuple(sorted(taken))


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
