"""Settings from a recording."""

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from rtpose.errors import InputError
from rtpose.forecast.filter import Forecaster
from rtpose.forecast.settings import ForecastSettings

#: Factors by which the search steps, in turn; the last one is how exact the answer is.
_STEPS: Final = (4.0, 2.0, 1.4, 1.2, 1.1, 1.05)
_FEWEST: Final = 100


def tune(
    settings: ForecastSettings,
    start_ns: NDArray[np.int64],
    keypoints: NDArray[Any],
    valid: NDArray[Any],
) -> ForecastSettings:
    """Return settings with the `noise_px` and `manoeuvre_px` that make a recording most likely.

    Needs no truth: what is judged is how probable each pose was, given those before it (prediction
    error decomposition of the likelihood: Harvey, "Forecasting, Structural Time Series Models and
    the Kalman Filter", 1989, section 3.4). All else stays as it is in `settings`.

    Parameters
    ----------
    settings : ForecastSettings
        Where to begin.
    start_ns : ndarray of int64, shape (poses,)
    keypoints : ndarray, shape (poses, keypoints, 3)
        x, y in px, confidence.
    valid : ndarray, shape (poses, keypoints)

    Raises
    ------
    InputError
        If the arrays do not belong together, or hold fewer than 100 poses.
    """
    if len(start_ns) < _FEWEST:
        raise InputError(f"{len(start_ns)} poses to tune on: at least {_FEWEST} are needed")
    if keypoints.shape != (*valid.shape, 3) or len(start_ns) != len(keypoints):
        raise InputError(
            f"times of shape {start_ns.shape}, keypoints {keypoints.shape}, valid {valid.shape}: "
            "(poses,), (poses, keypoints, 3) and (poses, keypoints) are needed"
        )

    def likelihood(noise_px: float, manoeuvre_px: float) -> float:
        try:
            tried = _changed(settings, noise_px, manoeuvre_px)
        except ValidationError:  # beyond what may be set
            return -math.inf
        forecaster = Forecaster(tried, keypoints.shape[1])
        for at, points, usable in zip(start_ns.tolist(), keypoints, valid, strict=True):
            forecaster.update(at, points, usable)
        return forecaster.log_likelihood

    return _changed(settings, *_climb(likelihood, settings.noise_px, settings.manoeuvre_px))


def _changed(settings: ForecastSettings, noise_px: float, manoeuvre_px: float) -> ForecastSettings:
    values = {**settings.model_dump(), "noise_px": noise_px, "manoeuvre_px": manoeuvre_px}
    return ForecastSettings.model_validate(values)


def _climb(value: Callable[[float, float], float], a: float, b: float) -> tuple[float, float]:
    """Return where a function of two positive numbers is largest near the start.

    Compass search on their logarithms (Kolda, Lewis & Torczon 2003, SIAM Review 45:385).
    """
    best = value(a, b)
    for step in _STEPS:
        better = True
        while better:
            better = False
            for x, y in ((a * step, b), (a / step, b), (a, b * step), (a, b / step)):
                found = value(x, y)
                if found > best:
                    best, a, b, better = found, x, y, True
                    break
    return a, b
