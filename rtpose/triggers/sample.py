"""A pose as conditions see it: a time, and a place or nothing for every keypoint."""

import math
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from rtpose.errors import TriggerError
from rtpose.messages import Pose
from rtpose.triggers.geometry import Point

#: A pose, and what it is forecast to be for each of three outputs.
_KEPT: Final = 4


class Sample(NamedTuple):
    """What one pose shows.

    Attributes
    ----------
    start_ns : int
        The pose's own time, `Pose.start_ns`; the only clock that conditions have.
    points : sequence of (x, y) or None
        One per keypoint of the skeleton, in its order, in px of the full camera frame; None where
        the keypoint was not found, or a gate took it for wrong.
    """

    start_ns: int
    points: Sequence[Point | None]


class Unpacked(NamedTuple):
    """A pose unpacked into plain numbers.

    Attributes
    ----------
    sample : Sample
        Every keypoint that is valid and has finite coordinates.
    confidences : sequence of float
        One per keypoint.
    """

    sample: Sample
    confidences: Sequence[float]


class Unpacker:
    """Unpacks a pose once for all triggers that look at it.

    One after another they ask for the same pose, or for one of the few forecasts that are made of
    it; scalars out of an array one by one would cost each of them more than its condition. It keeps
    the last few poses, and nothing is lost by asking for another one in between.
    """

    def __init__(self) -> None:
        self._last: tuple[Pose, Unpacked] | None = None
        self._kept: deque[tuple[Pose, Unpacked]] = deque(maxlen=_KEPT)

    def __call__(self, pose: Pose, keypoints: int) -> Unpacked:
        """Unpack a pose.

        Parameters
        ----------
        pose : Pose
        keypoints : int
            How many the skeleton has.

        Raises
        ------
        TriggerError
            If the pose has another number of keypoints, or several individuals: which of them is
            meant would be left to chance.
        """
        last = self._last
        if last is None or last[0] is not pose:
            last = self._last = self._find(pose)
        if len(last[1].confidences) != keypoints:
            raise TriggerError(
                f"the pose has {pose.keypoints.shape[1]} keypoints, the skeleton {keypoints}"
            )
        return last[1]

    def _find(self, pose: Pose) -> tuple[Pose, Unpacked]:
        for kept in self._kept:
            if kept[0] is pose:
                return kept
        new = pose, _unpack(pose)
        self._kept.appendleft(new)
        return new


def _unpack(pose: Pose) -> Unpacked:
    individuals, keypoints, _ = pose.keypoints.shape
    if individuals > 1:
        raise TriggerError(
            f"the pose has {individuals} individuals; which one is meant is not said, use a model "
            "of one individual"
        )
    if individuals == 0:
        return Unpacked(Sample(pose.start_ns, [None] * keypoints), [0.0] * keypoints)
    rows = pose.keypoints[0].tolist()
    finite = math.isfinite
    points = [
        (x, y) if valid and finite(x) and finite(y) else None
        for (x, y, _), valid in zip(rows, pose.valid[0].tolist(), strict=True)
    ]
    return Unpacked(Sample(pose.start_ns, points), [row[2] for row in rows])


#: One for the process: control asks its triggers one after another.
unpacked = Unpacker()
