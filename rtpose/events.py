"""What control tells of itself: events with every stamp that led to them, in one order."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from rtpose.messages import EventKind, Pose, TriggerEvent

_LONGEST_DETAIL = 4000

#: What control does without a pose or a request, in the words of the event: by these, a replay
#: knows it again. The first ones begin those words.
CANNOT_WRITE: Final = "the run's record cannot be written"
AT_THE_TERMINAL: Final = "asked for at the rig's terminal"


@dataclass(frozen=True, slots=True)
class Moment:
    """A pose, when control took it, and when a trigger had decided on it.

    Attributes
    ----------
    forecast_ns : int or None
        The time for which its keypoints were forecast, if they were.
    """

    pose: Pose
    receive_ns: int
    decide_ns: int
    forecast_ns: int | None = None

    def stamps(self) -> Mapping[str, Any]:
        """Return the fields of an event that come from the pose."""
        pose = self.pose
        return {
            "camera": pose.camera,
            "frame_id": pose.frame_id,
            "exposure_ns": pose.exposure_ns,
            "arrival_ns": pose.arrival_ns,
            "ready_ns": pose.ready_ns,
            "infer_start_ns": pose.infer_start_ns,
            "infer_end_ns": pose.infer_end_ns,
            "publish_ns": pose.publish_ns,
            "receive_ns": self.receive_ns,
            "forecast_ns": self.forecast_ns,
        }


class EventRecord:
    """Numbers the events of a run and passes them on.

    Parameters
    ----------
    run : str
        Id of the run.
    budget_ns : int
        The latency budget, which every event carries.
    passed_on : callable
        Gets every event.

    Attributes
    ----------
    trial : int or None
        Number of the trial, which every event carries.
    """

    def __init__(self, run: str, budget_ns: int, passed_on: Callable[[TriggerEvent], None]) -> None:
        self._run = run
        self._budget_ns = budget_ns
        self._passed_on = passed_on
        self._seq = 0
        self.trial: int | None = None

    def tell(
        self,
        kind: EventKind,
        decide_ns: int,
        moment: Moment | None = None,
        *,
        detail: str = "",
        **fields: Any,
    ) -> None:
        """Make an event and pass it on; `fields` are those of `TriggerEvent`."""
        event = TriggerEvent(
            run=self._run,
            seq=self._seq,
            kind=kind,
            decide_ns=decide_ns,
            budget_ns=self._budget_ns,
            trial=self.trial,
            detail=detail[:_LONGEST_DETAIL],
            **fields,
            **({} if moment is None else moment.stamps()),
        )
        self._seq += 1
        self._passed_on(event)
