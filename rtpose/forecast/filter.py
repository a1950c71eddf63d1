"""The filter of all keypoints of one individual."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rtpose.errors import InputError
from rtpose.forecast import kernel
from rtpose.forecast.settings import ForecastSettings

#: The time over which `ForecastSettings.manoeuvre_px` is counted, and within which a keypoint is
#: expected to reach `start_speed_px_s`.
_MANOEUVRE_S: Final = 0.1


def kernel_numbers(settings: ForecastSettings) -> NDArray[np.float64]:
    """Return the settings as the kernel wants them."""
    accelerates = settings.model == "constant-acceleration"
    order = 3 if accelerates else 2
    numbers = np.zeros(kernel.NUMBERS)
    numbers[kernel.ORDER] = order
    numbers[kernel.Q] = settings.manoeuvre_px**2 / kernel.position_noise(order, 1.0, _MANOEUVRE_S)
    numbers[kernel.NOISE_PX] = settings.noise_px
    numbers[kernel.POWER] = settings.confidence_power
    numbers[kernel.START_VV] = settings.start_speed_px_s**2
    numbers[kernel.START_AA] = (settings.start_speed_px_s / _MANOEUVRE_S) ** 2 * accelerates
    numbers[kernel.GATE] = settings.gate
    numbers[kernel.MAX_OUTLIERS] = settings.max_outliers
    numbers[kernel.MAX_GAP_NS] = round(settings.max_gap_ms * 1e6)
    return numbers


class Forecaster:
    """Follows the keypoints of one individual and says where they will be.

    Nothing is allocated per pose, and nothing is compiled after the constructor.

    Parameters
    ----------
    settings : ForecastSettings
    keypoints : int
        Their number.

    Raises
    ------
    InputError
        If there are no keypoints.

    Examples
    --------
    >>> forecaster = Forecaster(ForecastSettings(), keypoints=1)
    >>> for frame in range(30):  # 300 px/s to the right, at 100 frames/s
    ...     forecaster.update(frame * 10_000_000, np.array([[3.0 * frame, 50, 1]]), np.ones(1))
    >>> points, deviations_px = np.empty((1, 3), np.float32), np.empty(1, np.float32)
    >>> forecaster.at(310_000_000, points, deviations_px)  # 20 ms after the last pose
    >>> points.round(1).tolist()
    [[93.0, 50.0, 1.0]]
    """

    def __init__(self, settings: ForecastSettings, keypoints: int) -> None:
        if keypoints < 1:
            raise InputError(f"a forecast of {keypoints} keypoints: at least 1 is needed")
        self.settings = settings
        self._shape = (keypoints, 3)
        self._numbers = kernel_numbers(settings)
        self._points = np.zeros(self._shape, np.float32)
        self._valid = np.zeros(keypoints, np.bool_)
        self._states = np.zeros((keypoints, kernel.STATE))
        self._times_ns = np.full((keypoints, 2), kernel.NEVER, np.int64)
        self._counts = np.zeros((keypoints, kernel.COUNTS), np.int64)
        self._sums = np.zeros((keypoints, kernel.SUMS))
        self._points_out = np.zeros(self._shape, np.float32)
        self._deviations_out = np.zeros(keypoints, np.float32)
        self._last_ns: int | None = None
        self._restarts = 0
        self._run(0)  # compiles
        self._forecast(0)

    def update(self, start_ns: int, keypoints: NDArray[Any], valid: NDArray[Any]) -> None:
        """Take one pose.

        Parameters
        ----------
        start_ns : int
            When it was seen: `Pose.start_ns`.
        keypoints : ndarray, shape (keypoints, 3)
            x, y in px, confidence. Any floating type; not kept.
        valid : ndarray, shape (keypoints,)
            0 where a keypoint must not be used.

        Raises
        ------
        InputError
            If an array has another shape.
        """
        check_shapes(self._shape, keypoints, valid)
        np.copyto(self._points, keypoints, casting="same_kind")
        np.copyto(self._valid, valid, casting="unsafe")
        if self._last_ns is not None and start_ns <= self._last_ns:
            self._times_ns.fill(kernel.NEVER)
            self._restarts += 1
        self._last_ns = start_ns
        self._run(start_ns)

    def _run(self, start_ns: int) -> None:
        kernel.update_tracks(
            start_ns,
            self._points,
            self._valid,
            self._numbers,
            self._states,
            self._times_ns,
            self._counts,
            self._sums,
        )

    def at(
        self,
        time_ns: int,
        keypoints_out: NDArray[np.float32],
        deviations_px_out: NDArray[np.float32] | None = None,
    ) -> None:
        """Say where the keypoints will be.

        Parameters
        ----------
        time_ns : int
            On the same clock as the poses; not before the last one.
        keypoints_out : ndarray of float32, shape (keypoints, 3)
            Receives x, y in px (NaN where there is no forecast) and the confidence of the last
            pose, as it was.
        deviations_px_out : ndarray of float32, shape (keypoints,), optional
            Receives the standard deviation per axis that the model expects, or NaN.

        Raises
        ------
        InputError
            If there was no pose yet, the time is before the last one, or an array has another
            shape.
        """
        if self._last_ns is None or time_ns < self._last_ns:
            raise InputError(
                "a forecast before the first pose"
                if self._last_ns is None
                else f"a forecast for {time_ns} ns, {self._last_ns - time_ns} ns before the pose "
                "that it is made from"
            )
        check_shapes(self._shape, keypoints_out, deviations_px_out)
        self._forecast(time_ns)
        np.copyto(keypoints_out, self._points_out)
        if deviations_px_out is not None:
            np.copyto(deviations_px_out, self._deviations_out)

    def _forecast(self, time_ns: int) -> None:
        kernel.forecast_tracks(
            time_ns,
            self._points,
            self._numbers,
            self._states,
            self._times_ns,
            self._points_out,
            self._deviations_out,
        )

    def report(self) -> dict[str, Any]:
        """Say what became of the measurements; lists are in the order of the keypoints.

        Returns
        -------
        dict
            ``outliers`` (measurements refused), ``started`` (tracks), ``nis`` (mean normalised
            innovation squared of those believed, None without any: near 2 where the settings fit
            the animal and the estimator; more means that it moves or errs more than they say),
            ``restarts`` (poses that were not later than the one before).
        """
        judged = self._counts[:, kernel.JUDGED]
        nis = self._sums[:, kernel.NIS] / np.maximum(judged, 1)
        return {
            "outliers": self._counts[:, kernel.OUTLIERS].tolist(),
            "started": self._counts[:, kernel.STARTED].tolist(),
            "nis": [float(v) if n else None for v, n in zip(nis, judged, strict=True)],
            "restarts": self._restarts,
        }

    @property
    def log_likelihood(self) -> float:
        """Logarithm of the probability density of all measurements so far, given the settings.

        An outlier counts as if it lay on the gate.
        """
        return float(self._sums[:, kernel.LOG_LIKELIHOOD].sum())


def check_shapes(
    shape: tuple[int, int], keypoints: NDArray[Any], values: NDArray[Any] | None
) -> None:
    """Raise `InputError` unless arrays are (keypoints, 3) and (keypoints,)."""
    if keypoints.shape != shape or (values is not None and values.shape != shape[:1]):
        second = "" if values is None else f" and {values.shape}"
        raise InputError(
            f"keypoints of shape {keypoints.shape}{second}: {shape[0]} keypoints were announced, "
            f"so that {shape} and {shape[:1]} are needed"
        )
