"""Latency compensation: poses as they will be when an output acts on them.

How long an output takes is learnt from its acknowledgements: the running median of the time from
the publication of a pose to the moment when the pin moved (by the device's own stamp, mapped to the
host's clock) or, where the device has no clock, when its answer was read.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from statistics import median
from typing import Any, Final

import numpy as np

from rtpose.forecast import Forecaster, ForecastErrors
from rtpose.messages import Ack, Command, Pose
from rtpose.rig_tables import ForecastTable

#: Of so many acknowledgements the median is taken.
_MEASURED: Final = 51
#: Commands that may wait for their acknowledgement.
_UNANSWERED: Final = 256


class LatencyCompensation:
    """Forecasts the poses of one camera to the time when each output acts.

    Parameters
    ----------
    table : ForecastTable
        ``[forecast]``.
    keypoints : int
        Their number.
    outputs : iterable of str
        Names of the outputs that act on forecasts.
    """

    def __init__(self, table: ForecastTable, keypoints: int, outputs: Iterable[str]) -> None:
        self._forecaster = Forecaster(table, keypoints)
        self._nothing = np.zeros((keypoints, 3), np.float32), np.zeros(keypoints, np.uint8)
        self._outputs = {
            name: _Output(table, keypoints, round(table.output_delay_ms * 1e6)) for name in outputs
        }
        self._sent: deque[tuple[Command, int]] = deque(maxlen=_UNANSWERED)

    def update(self, pose: Pose) -> None:
        """Take a pose, before any trigger looks at it, and judge what was forecast for its time."""
        start_ns = pose.start_ns
        points, valid = (pose.keypoints[0], pose.valid[0]) if len(pose.keypoints) else self._nothing
        self._forecaster.update(start_ns, points, valid)
        for output in self._outputs.values():
            output.errors.update(start_ns, points, valid)
            output.forecast = None

    def pose_for(self, name: str, pose: Pose) -> tuple[Pose, int]:
        """Return the last pose as it will be when an output acts on it, and when that will be.

        A keypoint without a forecast is not valid.
        """
        output = self._outputs[name]
        if output.forecast is None:
            act_ns = max(pose.publish_ns + output.delay_ns, pose.start_ns)
            points = np.empty_like(self._nothing[0])
            self._forecaster.at(act_ns, points)
            output.errors.expect(act_ns, points)
            valid = np.isfinite(points[:, 0]).view(np.uint8)
            if len(pose.valid):
                valid &= pose.valid[0]
            output.forecast = replace(pose, keypoints=points[None], valid=valid[None]), act_ns
        return output.forecast

    def take_command(self, command: Command, publish_ns: int) -> None:
        """Take note that a command is sent because of a pose."""
        if command.output in self._outputs:
            self._sent.append((command, publish_ns))

    def take_ack(self, ack: Ack) -> None:
        """Learn how long the output took, from its answer."""
        for index, (command, publish_ns) in enumerate(self._sent):
            if (command.output, command.command_id) == (ack.output, ack.command_id):
                del self._sent[index]
                if ack.ok and ack.confirmed:
                    acted_ns = ack.ack_ns
                    if ack.device_ns is not None:
                        # The delay of a train is asked for, and not the output's own.
                        acted_ns = ack.device_ns - command.delay_us * 1000
                    self._outputs[ack.output].take_delay(acted_ns - publish_ns)
                return

    def report(self) -> dict[str, Any]:
        """Return, for every output, its delay and how far off forecasts and last poses were."""
        return {
            name: {
                "delay_ms": output.delay_ns / 1e6,
                "delays_measured": output.measured,
                **output.errors.report(),
            }
            for name, output in self._outputs.items()
        }


class _Output:
    """An output that acts on forecasts: how long it takes, and what its forecasts were worth."""

    def __init__(self, table: ForecastTable, keypoints: int, delay_ns: int) -> None:
        self.errors = ForecastErrors(table, keypoints)
        self.delay_ns = delay_ns
        self.measured = 0
        self.forecast: tuple[Pose, int] | None = None
        self._delays_ns: deque[int] = deque(maxlen=_MEASURED)

    def take_delay(self, delay_ns: int) -> None:
        self._delays_ns.append(max(0, delay_ns))
        self.measured += 1
        self.delay_ns = round(median(self._delays_ns))
