"""One keypoint, by name, out of every pose."""

import math

from rtpose.errors import TriggerError
from rtpose.messages import Pose
from rtpose.skeleton import Skeleton


class KeypointReader:
    """Finds a keypoint's place once, then reads it from every pose.

    Parameters
    ----------
    name : str
        The keypoint.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._index = -1
        self._count = 0

    def prepare(self, skeleton: Skeleton) -> None:
        """Look the keypoint up; raise `SkeletonError` if the model does not have it."""
        self._index = skeleton.index(self.name)
        self._count = len(skeleton.names)

    def position(self, pose: Pose) -> tuple[float, float] | None:
        """Return x, y in px of the full frame, or None if the keypoint was not found.

        Not found means: no individual in the pose, ``valid`` is 0, or a coordinate is not a finite
        number.

        Raises
        ------
        TriggerError
            If the pose has another number of keypoints than the skeleton, or several individuals:
            which of them is meant would be left to chance.
        """
        individuals, keypoints, _ = pose.keypoints.shape
        if keypoints != self._count:
            raise TriggerError(
                f"the pose has {keypoints} keypoints, the skeleton {self._count}"
                if self._count
                else "update before prepare: the keypoint's place is not known yet"
            )
        if individuals != 1:
            if individuals == 0:
                return None
            raise TriggerError(
                f"the pose has {individuals} individuals; {self.name!r} of which one is meant "
                "is not said, use a model of one individual"
            )
        if not pose.valid.item(0, self._index):
            return None
        x, y = pose.keypoints.item(0, self._index, 0), pose.keypoints.item(0, self._index, 1)
        return (x, y) if math.isfinite(x) and math.isfinite(y) else None
