"""What a trigger does with keypoints before its condition sees them: gates, then a filter."""

import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Self

from pydantic import Field, model_validator

from rtpose.interfaces import Settings
from rtpose.skeleton import Skeleton
from rtpose.triggers.filters import AnyFilter, Filter
from rtpose.triggers.geometry import Point
from rtpose.triggers.sample import Sample, Unpacked
from rtpose.triggers.timing import MissingPolicy, Policy


class GateSettings(Settings):
    """What is done with keypoints before anything is made of them, and without those that miss.

    Attributes
    ----------
    min_confidence : float
        A keypoint with less is taken for missing; on top of the model's own limit.
    max_jump_px_s : float, optional
        A keypoint that would have moved faster is taken for missing, see `JumpGate`.
    filter : table, optional
        ``type = "one-euro"``, ``"median"`` or ``"exponential"``, see `rtpose.triggers.filters`.
    missing : {'skip', 'hold', 'false', 'safe'}
        What becomes of a pose that does not tell; each kind of trigger says what that means for it.
        No such pose ever fires or raises a line.
    hold_ms : float, optional
        For how long at most; given with ``missing = "hold"`` only.
    """

    min_confidence: Annotated[float, Field(ge=0, le=1)] = 0.0
    max_jump_px_s: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)] | None = None
    filter: AnyFilter | None = None
    missing: Policy = "skip"
    hold_ms: Annotated[float, Field(gt=0, le=60_000, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _hold_has_a_limit(self) -> Self:
        if (self.missing == "hold") != (self.hold_ms is not None):
            raise ValueError(
                'missing = "hold" needs hold_ms: for how long at most'
                if self.hold_ms is None
                else 'hold_ms has a meaning with missing = "hold" only'
            )
        return self

    def policy(self) -> MissingPolicy:
        """Return what decides on poses that do not tell."""
        return MissingPolicy(self.missing, round((self.hold_ms or 0.0) * 1e6))

    def paths(self, skeleton: Skeleton, keypoints: Iterable[str]) -> "Paths | None":
        """Return the ways of some keypoints through gates and filter; None if nothing is done.

        Raises
        ------
        SkeletonError
            If the model does not have one of them.
        """
        if not (self.min_confidence or self.max_jump_px_s or self.filter):
            return None
        return Paths(
            [
                (
                    skeleton.index(name),
                    KeypointPath(self.min_confidence, self.max_jump_px_s, self.filter),
                )
                for name in dict.fromkeys(keypoints)
            ]
        )


class JumpGate:
    """Takes a keypoint for lost where it would have moved faster than it can.

    The distance counts from the last position that passed, over the time since, so that dropped and
    uneven frames do not bend it, and a first position that was itself wrong stands in the way no
    longer than a real movement from there would have taken.

    Parameters
    ----------
    max_px_s : float
        Fastest movement that is believed, noise included; exactly that fast passes.
    """

    def __init__(self, max_px_s: float) -> None:
        self._max_px_s = max_px_s
        self._last: tuple[int, Point] | None = None

    def passes(self, start_ns: int, point: Point) -> bool:
        """Take the next position, later than those before, and say whether it is believed."""
        if self._last is not None:
            then_ns, (x, y) = self._last
            reach_px = self._max_px_s * (start_ns - then_ns) / 1e9
            if math.hypot(point[0] - x, point[1] - y) > reach_px:
                return False
        self._last = (start_ns, point)
        return True

    def reset(self) -> None:
        """Believe the next position, wherever it is."""
        self._last = None


class KeypointPath:
    """One keypoint on its way to a condition: confidence gate, jump gate, filter, in this order.

    Parameters
    ----------
    min_confidence : float
        A keypoint with exactly this confidence passes.
    max_jump_px_s : float or None
        See `JumpGate`.
    filter_settings : settings or None
        See `rtpose.triggers.filters`.
    """

    def __init__(
        self, min_confidence: float, max_jump_px_s: float | None, filter_settings: AnyFilter | None
    ) -> None:
        self._min_confidence = min_confidence
        self._gate = None if max_jump_px_s is None else JumpGate(max_jump_px_s)
        self._filter: Filter | None = None
        self._max_gap_ns = 0.0
        if filter_settings is not None:
            self._filter = filter_settings.build()
            self._max_gap_ns = filter_settings.max_gap_ms * 1e6
        self._seen_ns: int | None = None

    def update(self, start_ns: int, point: Point | None, confidence: float) -> Point | None:
        """Take the next pose's keypoint and return where the condition sees it, or None."""
        # The other way round, a confidence that is not a number would pass.
        if point is None or not confidence >= self._min_confidence:
            return None
        if self._gate is not None and not self._gate.passes(start_ns, point):
            return None
        if self._filter is None:
            return point
        if self._seen_ns is not None and start_ns - self._seen_ns > self._max_gap_ns:
            self._filter.reset()
        self._seen_ns = start_ns
        return self._filter.update(start_ns, point)

    def reset(self) -> None:
        """Forget every pose: time went back."""
        self._seen_ns = None
        if self._gate is not None:
            self._gate.reset()
        if self._filter is not None:
            self._filter.reset()


class Paths:
    """The keypoints of one trigger on their way to its condition.

    Parameters
    ----------
    paths : sequence of (int, KeypointPath)
        By the keypoints' places in the skeleton. Conditions see only these.
    """

    def __init__(self, paths: Sequence[tuple[int, KeypointPath]]) -> None:
        self._paths = tuple(paths)

    def update(self, pose: Unpacked) -> Sample:
        """Return what the condition sees of a pose."""
        start_ns, raw = pose.sample
        points: list[Point | None] = [None] * len(raw)
        for index, path in self._paths:
            points[index] = path.update(start_ns, raw[index], pose.confidences[index])
        return Sample(start_ns, points)

    def reset(self) -> None:
        """Forget every pose."""
        for _, path in self._paths:
            path.reset()
