"""What a trigger does with keypoints before its condition sees them: gates, then a filter."""

import math
from collections.abc import Sequence

from rtpose.triggers.filters import AnyFilter, Filter
from rtpose.triggers.geometry import Point
from rtpose.triggers.sample import Sample, Unpacked


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
