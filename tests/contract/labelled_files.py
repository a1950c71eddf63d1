"""Label files to read back: every frame shows which one it is by its grey level."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import sleap_io

from rtpose_train.data.dataset import load_frames

NAMES = ("snout", "leftear", "rightear")
LEVELS = (20, 60, 100, 140, 180)


def write_video(file: Path) -> Path:
    """Write a video whose frame i is uniformly grey of level LEVELS[i]."""
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for level in LEVELS:
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    return file


def write_pictures(folder: Path, *names: str) -> list[Path]:
    """Write pictures; number i is uniformly grey of level LEVELS[i]."""
    files = [folder / name for name in names]
    for level, file in zip(LEVELS, files, strict=False):
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), np.full((48, 64, 3), level, np.uint8))
    return files


def _skeleton() -> Any:
    return sleap_io.Skeleton(
        list(NAMES),
        edges=[("snout", "leftear")],
        symmetries=[("leftear", "rightear")],
        name="mouse",
    )


def make_labels(
    video: Any, frames: Sequence[int] = (3, 1), tracks: Sequence[Any] = (None,)
) -> sleap_io.Labels:
    """Return labels in which the snout of frame i lies at i + 10 k, 2 i for individual k."""
    skeleton = _skeleton()
    labelled = []
    for index in frames:
        instances = [
            sleap_io.Instance.from_numpy(
                np.array([[index + 10 * k, 2 * index], [np.nan, np.nan], [5.5, 6]]),
                skeleton=skeleton,
                track=track,
            )
            for k, track in enumerate(tracks)
        ]
        if index == frames[-1]:
            instances[0]["leftear"]["xy"] = 7, 8
            instances[0]["leftear"]["visible"] = True
        labelled.append(sleap_io.LabeledFrame(video=video, frame_idx=index, instances=instances))
    return sleap_io.Labels(labelled, skeletons=[skeleton])


def grey_of(frames: Any) -> list[int]:
    levels, notes = load_frames(frames, "gray", lambda pixels, _: round(float(pixels.mean())))
    assert notes == []
    return levels
