"""Whether poses come as they must: the part of arming that looks at the stream."""

from typing import Final

from rtpose.messages import Pose, Status
from rtpose.rig_tables import LatencyTable

#: Of the camera's own rate; below it something is wrong, above it is a matter of taste.
_LEAST_RATE: Final = 0.5
_RATE_SPAN_NS: Final = 1_000_000_000
_LEAST_SPAN_NS: Final = 200_000_000


class Readiness:
    """Follows the stream and says what hinders arming.

    Parameters
    ----------
    latency : LatencyTable
        The budget, and how long may pass without a pose within it.
    rate_hz : float
        What the camera promised; 0 if nothing.
    """

    def __init__(self, latency: LatencyTable, rate_hz: float) -> None:
        self._latency = latency
        self._promised_hz = rate_hz
        self._budget_ns = round(latency.budget_ms * 1e6)
        self._max_gap_ns = round(latency.max_pose_gap_ms * 1e6)
        self._verified = False
        self._in_time_ns: int | None = None
        self._repeated_ns = 0
        self._first: tuple[int, int] | None = None
        self._rate_hz = 0.0

    def take_status(self, status: Status) -> None:
        """Take what inference says of its model."""
        self._verified = bool(status.info.get("verified"))

    def take_pose(self, pose: Pose, now: int) -> None:
        """Take note of a pose that was worked off at `now`."""
        self._repeated_ns = pose.repeated_ns
        if abs(now - pose.start_ns) <= self._budget_ns:  # a stamp far ahead says nothing of its age
            # A picture that comes again tells no more than it did when it was new.
            in_time_ns = now - pose.repeated_ns
            self._in_time_ns = max(in_time_ns, self._in_time_ns or in_time_ns)
        frame_id, arrival_ns = pose.frame_id, pose.arrival_ns
        if self._first is None or frame_id <= self._first[0]:
            self._first = (frame_id, arrival_ns)
            return
        span_ns = arrival_ns - self._first[1]
        if span_ns > _LEAST_SPAN_NS:
            self._rate_hz = (frame_id - self._first[0]) * 1e9 / span_ns
        if span_ns > _RATE_SPAN_NS:
            self._first = (frame_id, arrival_ns)

    def poses_are_fresh(self, now: int) -> bool:
        """Return whether a pose within the budget came no longer ago than allowed."""
        return self._in_time_ns is not None and now - self._in_time_ns <= self._max_gap_ns

    def hindrances(self, now: int) -> list[str]:
        """Return every reason why the stream must not be acted on."""
        reasons = []
        if not self._verified:
            reasons.append("the model is not verified yet on its provider")
        if self._repeated_ns > self._max_gap_ns:
            reasons.append(
                "the camera hangs: it has delivered one and the same picture for "
                f"{self._repeated_ns / 1e6:.0f} ms"
            )
        elif not self.poses_are_fresh(now):
            reasons.append(
                f"no pose within budget_ms = {self._latency.budget_ms:g} "
                f"for {self._latency.max_pose_gap_ms:g} ms"
            )
        if self._rate_hz < _LEAST_RATE * self._promised_hz:
            reasons.append(
                f"the camera delivers {self._rate_hz:.0f} of {self._promised_hz:.0f} frames/s"
            )
        return reasons
