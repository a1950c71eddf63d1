"""The filter and its judge, compiled.

One row of `states` is one keypoint: position, velocity and acceleration in x, the same in y, then
the upper triangle of their covariance, which both axes share because they have the same noises. All
in px and seconds. A keypoint of constant velocity is one whose acceleration is 0 with variance 0.

A pose that does not show a keypoint leaves its row alone: the noises of two short steps add up
exactly to that of the long one, so that nothing is lost by one step over the whole gap.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]
I64 = NDArray[np.int64]
_Function = TypeVar("_Function", bound=Callable[..., Any])

#: Columns of `states`.
X, Y, P = 0, 3, 6
STATE = 12
#: Elements of the numbers that `Forecaster` hands over.
ORDER, Q, NOISE_PX, POWER, START_VV, START_AA, GATE, MAX_OUTLIERS, MAX_GAP_NS = range(9)
NUMBERS = 9
#: Columns of `times_ns`: when a keypoint was last believed, and for when its state holds.
SEEN, STATE_AT = range(2)
#: Columns of `counts`.
STARTED, OUTLIERS, OUTLIERS_IN_A_ROW, JUDGED = range(4)
COUNTS = 4
#: Columns of `sums`: normalised innovations squared, and logarithms of their densities.
NIS, LOG_LIKELIHOOD = range(2)
SUMS = 2
#: A confidence below this is taken as this: a keypoint is never measured as if from nowhere.
LEAST_CONFIDENCE = 0.1

#: No time that is ever asked for.
NEVER = -(1 << 63)
_LOG_2PI = float(np.log(2 * np.pi))


def compiled(function: _Function) -> _Function:
    """Compile a function; numba ships no types."""
    dispatcher: _Function = njit(cache=True, nogil=True, error_model="numpy")(function)
    return dispatcher


@compiled
def position_noise(order: int, q: float, t: float) -> float:
    """Return the variance of the position after t seconds of motion known at their beginning."""
    return q * t**3 / 3 if order == 2 else q * t**5 / 20


@compiled
def _predict(s: F64, numbers: F64, t: float) -> None:
    """Bring a state forward by t seconds.

    Bar-Shalom, Li & Kirubarajan (2001), section 6.2.2 (white noise acceleration) and 6.2.3 (Wiener
    process acceleration): the continuous models, made discrete. Unlike the direct discrete models
    of section 6.3 their noise does not depend on how a time is cut into frames.
    """
    half = t * t / 2
    for at in (X, Y):
        s[at] += t * s[at + 1] + half * s[at + 2]
        s[at + 1] += t * s[at + 2]
    pp, pv, pa, vv, va, aa = s[P], s[P + 1], s[P + 2], s[P + 3], s[P + 4], s[P + 5]
    f0, f1, f2 = pp + t * pv + half * pa, pv + t * vv + half * va, pa + t * va + half * aa
    g1, g2 = vv + t * va, va + t * aa
    q = numbers[Q]
    s[P] = f0 + t * f1 + half * f2 + position_noise(int(numbers[ORDER]), q, t)
    s[P + 1], s[P + 2] = f1 + t * f2, f2
    s[P + 3], s[P + 4] = g1 + t * g2, g2
    if numbers[ORDER] == 2:
        s[P + 1] += q * t**2 / 2
        s[P + 3] += q * t
    else:
        s[P + 1] += q * t**4 / 8
        s[P + 2] += q * t**3 / 6
        s[P + 3] += q * t**3 / 3
        s[P + 4] += q * t**2 / 2
        s[P + 5] += q * t


@compiled
def _correct(s: F64, dx: float, dy: float, r: float) -> None:
    """Take a measurement with variance r that lies dx, dy from where it was expected."""
    total = s[P] + r
    gp, gv, ga = s[P] / total, s[P + 1] / total, s[P + 2] / total
    for at, d in ((X, dx), (Y, dy)):
        s[at] += gp * d
        s[at + 1] += gv * d
        s[at + 2] += ga * d
    s[P + 5] -= ga * s[P + 2]
    s[P + 4] -= gv * s[P + 2]
    s[P + 3] -= gv * s[P + 1]
    kept = r / total
    s[P] *= kept
    s[P + 1] *= kept
    s[P + 2] *= kept


@compiled
def _start(s: F64, x: float, y: float, r: float, numbers: F64) -> None:
    """Begin a track at a place, at rest, with the speed that it may have as its uncertainty."""
    s[:] = 0.0
    s[X], s[Y] = x, y
    s[P], s[P + 3], s[P + 5] = r, numbers[START_VV], numbers[START_AA]


@compiled
def update_tracks(
    now_ns: int,
    points: F32,
    valid: Bools,
    numbers: F64,
    states: F64,
    times_ns: I64,
    counts: I64,
    sums: F64,
) -> None:
    """Take one pose; the arguments are laid out by `Forecaster`."""
    for k in range(points.shape[0]):
        x, y, confidence = float(points[k, 0]), float(points[k, 1]), float(points[k, 2])
        if not valid[k] or not np.isfinite(x + y + confidence):
            continue
        trust = min(max(confidence, LEAST_CONFIDENCE), 1.0)
        r = (numbers[NOISE_PX] / trust ** numbers[POWER]) ** 2
        s, count = states[k], counts[k]
        known = times_ns[k, SEEN] != NEVER and now_ns - times_ns[k, SEEN] <= numbers[MAX_GAP_NS]
        if known:
            _predict(s, numbers, (now_ns - times_ns[k, STATE_AT]) * 1e-9)
            times_ns[k, STATE_AT] = now_ns
            dx, dy, variance = x - s[X], y - s[Y], s[P] + r
            nis = (dx * dx + dy * dy) / variance
            refused = nis > numbers[GATE]
            sums[k, LOG_LIKELIHOOD] -= _LOG_2PI + np.log(variance) + min(nis, numbers[GATE]) / 2
            if refused:
                count[OUTLIERS] += 1
                count[OUTLIERS_IN_A_ROW] += 1
                if count[OUTLIERS_IN_A_ROW] < numbers[MAX_OUTLIERS]:
                    continue
                known = False
            else:
                _correct(s, dx, dy, r)
                sums[k, NIS] += nis
                count[JUDGED] += 1
        if not known:
            _start(s, x, y, r, numbers)
            count[STARTED] += 1
        count[OUTLIERS_IN_A_ROW] = 0
        times_ns[k, STATE_AT] = times_ns[k, SEEN] = now_ns


@compiled
def forecast_tracks(
    at_ns: int,
    points: F32,
    numbers: F64,
    states: F64,
    times_ns: I64,
    points_out: F32,
    deviations_out: F32,
) -> None:
    """Write where the keypoints will be, and how surely."""
    for k in range(points.shape[0]):
        points_out[k, 2] = points[k, 2]
        if times_ns[k, SEEN] == NEVER or at_ns - times_ns[k, SEEN] > numbers[MAX_GAP_NS]:
            points_out[k, 0] = points_out[k, 1] = deviations_out[k] = np.nan
            continue
        s = states[k]
        t = (at_ns - times_ns[k, STATE_AT]) * 1e-9
        half = t * t / 2
        points_out[k, 0] = s[X] + t * s[X + 1] + half * s[X + 2]
        points_out[k, 1] = s[Y] + t * s[Y + 1] + half * s[Y + 2]
        variance = s[P] + 2 * t * s[P + 1] + 2 * half * s[P + 2] + t * t * s[P + 3]
        variance += 2 * t * half * s[P + 4] + half * half * s[P + 5]
        noise = position_noise(int(numbers[ORDER]), numbers[Q], t)
        deviations_out[k] = np.sqrt(variance + noise)


@compiled
def keep_forecast(last: F32, last_valid: Bools, forecast: F32, promise: F32) -> None:
    """Write a forecast and the pose that it was made from where `judge_forecasts` looks."""
    for k in range(last.shape[0]):
        promise[k, 0], promise[k, 1] = forecast[k, 0], forecast[k, 1]
        promise[k, 2], promise[k, 3] = last[k, 0], last[k, 1]
        if not last_valid[k]:
            promise[k, 0] = np.nan


@compiled
def judge_forecasts(
    first_ns: int,
    first: F32,
    first_valid: Bools,
    last_ns: int,
    last: F32,
    last_valid: Bools,
    due_ns: I64,
    promised: F32,
    ages_ns: I64,
    errors: F32,
    horizons_ns: I64,
    counts: I64,
) -> None:
    """Compare the forecasts for a time between two poses with the line between them.

    Parameters
    ----------
    first_ns, first, first_valid, last_ns, last, last_valid
        The two poses, (keypoints, 3) and (keypoints,).
    due_ns : ndarray of int64, shape (pending,)
        Times that were forecast; `NEVER` where there is no forecast. Judged ones are set to that.
    promised : ndarray of float32, shape (pending, keypoints, 4)
        x, y of the forecast, x, y of the pose that it was made from; NaN where there is none.
    ages_ns : ndarray of int64, shape (pending,)
        From that pose to the time that was forecast.
    errors : ndarray of float32, shape (2, keypoints, window)
        Receives the distances of forecast and pose in turn.
    horizons_ns : ndarray of int64, shape (window,)
        Receives the ages in turn.
    counts : ndarray of int64, shape (keypoints + 1,)
        How many distances of a keypoint, then how many ages, were received ever.
    """
    keypoints, window = errors.shape[1], errors.shape[2]
    for i in range(due_ns.size):
        if due_ns[i] == NEVER or due_ns[i] > last_ns:
            continue
        part = (due_ns[i] - first_ns) / (last_ns - first_ns)
        due_ns[i] = NEVER
        horizons_ns[counts[keypoints] % window] = ages_ns[i]
        counts[keypoints] += 1
        for k in range(keypoints):
            if not (first_valid[k] and last_valid[k]) or np.isnan(promised[i, k, 0]):
                continue
            x = first[k, 0] + part * (last[k, 0] - first[k, 0])
            y = first[k, 1] + part * (last[k, 1] - first[k, 1])
            place = counts[k] % window
            errors[0, k, place] = np.hypot(promised[i, k, 0] - x, promised[i, k, 1] - y)
            errors[1, k, place] = np.hypot(promised[i, k, 2] - x, promised[i, k, 3] - y)
            counts[k] += 1
