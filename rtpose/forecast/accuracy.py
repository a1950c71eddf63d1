"""What came of forecasts, beside what acting on the last pose would have meant."""

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rtpose.errors import InputError
from rtpose.forecast import kernel
from rtpose.forecast.filter import check_shapes
from rtpose.forecast.settings import ForecastSettings

#: Forecasts that may wait for their time; at 1000 poses/s that is a quarter of a second.
_PENDING: Final = 256
_PERCENTILES: Final = {"p50": 0.5, "p95": 0.95}


class ForecastErrors:
    """Compares forecasts with the poses that come later, over the last `window` of them.

    The truth at a time that was forecast is the straight line between the poses before and after
    it. It has the estimator's own error. Where a forecast reaches less than one frame ahead the
    pose that it was made from is one of these two, which flatters acting on the last pose.

    Parameters
    ----------
    settings : ForecastSettings
        Those of the forecaster: between poses further apart than `max_gap_ms` nothing is judged.
    keypoints : int
        Their number.
    window : int
        Of so many distances, per keypoint, the percentiles are.

    Raises
    ------
    InputError
        If there are no keypoints, or the window is empty.
    """

    def __init__(self, settings: ForecastSettings, keypoints: int, window: int = 300) -> None:
        if keypoints < 1 or window < 1:
            raise InputError(
                f"errors of {keypoints} keypoints over {window} forecasts: at least 1 is needed"
            )
        self._shape = (keypoints, 3)
        self._max_gap_ns = round(settings.max_gap_ms * 1e6)
        # The newest pose and the one before, which take turns.
        self._poses = [np.zeros(self._shape, np.float32) for _ in range(2)]
        self._valids = [np.zeros(keypoints, np.bool_) for _ in range(2)]
        self._forecast = np.zeros(self._shape, np.float32)
        self._last_ns: int | None = None
        self._due_ns = np.full(_PENDING, kernel.NEVER, np.int64)
        self._promised = np.full((_PENDING, keypoints, 4), np.nan, np.float32)
        self._ages_ns = np.zeros(_PENDING, np.int64)
        self._next = 0
        self._errors = np.full((2, keypoints, window), np.nan, np.float32)
        self._horizons_ns = np.zeros(window, np.int64)
        self._counts = np.zeros(keypoints + 1, np.int64)
        self._unjudged = 0
        self._judge(0, 1)  # compiles
        self._keep(0)

    def update(self, start_ns: int, keypoints: NDArray[Any], valid: NDArray[Any]) -> None:
        """Take one pose, and judge the forecasts for the time between the last one and it.

        Parameters and errors are those of `Forecaster.update`.
        """
        check_shapes(self._shape, keypoints, valid)
        self._poses.reverse()
        self._valids.reverse()
        np.copyto(self._poses[1], keypoints, casting="same_kind")
        np.copyto(self._valids[1], valid, casting="unsafe")
        if self._last_ns is not None:
            if 0 < start_ns - self._last_ns <= self._max_gap_ns:
                self._judge(self._last_ns, start_ns)
            else:
                self._forget(start_ns)
        self._last_ns = start_ns

    def expect(self, time_ns: int, forecast: NDArray[np.float32]) -> None:
        """Remember what was forecast on the last pose, to be judged when its time has come.

        Parameters
        ----------
        time_ns : int
            What `Forecaster.at` was asked for; not before the last pose.
        forecast : ndarray of float32, shape (keypoints, 3)
            What it answered.

        Raises
        ------
        InputError
            If there was no pose yet, the time is before the last one, or the array has another
            shape.
        """
        if self._last_ns is None or time_ns < self._last_ns:
            raise InputError(f"a forecast for {time_ns} ns, before any pose that it is made from")
        check_shapes(self._shape, forecast, None)
        place = self._next
        self._next = (place + 1) % _PENDING
        self._unjudged += int(self._due_ns[place] != kernel.NEVER)
        self._due_ns[place] = time_ns
        self._ages_ns[place] = time_ns - self._last_ns
        np.copyto(self._forecast, forecast)
        self._keep(place)

    def _keep(self, place: int) -> None:
        kernel.keep_forecast(self._poses[1], self._valids[1], self._forecast, self._promised[place])

    def _judge(self, first_ns: int, last_ns: int) -> None:
        kernel.judge_forecasts(
            first_ns,
            self._poses[0],
            self._valids[0],
            last_ns,
            self._poses[1],
            self._valids[1],
            self._due_ns,
            self._promised,
            self._ages_ns,
            self._errors,
            self._horizons_ns,
            self._counts,
        )

    def _forget(self, start_ns: int) -> None:
        """Drop what cannot be judged: everything if time went back, else what was for the gap."""
        back = self._last_ns is not None and start_ns <= self._last_ns
        lost = (self._due_ns != kernel.NEVER) & (back | (self._due_ns <= start_ns))
        self._unjudged += int(lost.sum())
        self._due_ns[lost] = kernel.NEVER

    def report(self) -> dict[str, Any]:
        """Say how far off forecasts and last poses were.

        Returns
        -------
        dict
            ``horizon_ms`` (from pose to the time that was forecast), ``forecast_px``,
            ``last_pose_px`` (distances, all keypoints together), each with ``p50`` and ``p95``,
            None where nothing was judged yet; ``keypoints``, a list with the latter two for each;
            ``judged`` and ``unjudged``, numbers of forecasts. Costs a fraction of a millisecond:
            for once a second, not for every pose.
        """
        window = self._errors.shape[2]
        filled = np.minimum(self._counts, window)
        # Sorting puts NaN, which stands where nothing is yet, last.
        forecast, last_pose = np.sort(self._errors.reshape(2, -1))
        sorted_px = np.sort(self._errors)
        return {
            "horizon_ms": _percentiles(np.sort(self._horizons_ns[: filled[-1]]) / 1e6),
            "forecast_px": _percentiles(forecast[: filled[:-1].sum()]),
            "last_pose_px": _percentiles(last_pose[: filled[:-1].sum()]),
            "keypoints": [
                {
                    "forecast_px": _percentiles(sorted_px[0, k, :count]),
                    "last_pose_px": _percentiles(sorted_px[1, k, :count]),
                }
                for k, count in enumerate(filled[:-1].tolist())
            ],
            "judged": int(self._counts[-1]),
            "unjudged": self._unjudged,
        }


def _percentiles(in_order: NDArray[np.floating[Any]]) -> dict[str, float] | None:
    """Return percentiles by nearest rank of numbers that are sorted."""
    count = len(in_order)
    if not count:
        return None
    return {
        name: in_order.item(max(1, math.ceil(count * part)) - 1)
        for name, part in _PERCENTILES.items()
    }
