"""Acting on the forecast against acting on the last pose, on a recorded mouse; and what it costs.

    python -m benchmarks forecast

The mouse model estimates the pose in every frame of the mouse video (2330 frames, 30 frames/s; see
RTPOSE_DATA), once: the poses are kept in the folder for temporary files. `rtpose.forecast.tune`
chooses the noises of each model on the first half of them (those of constant velocity, rounded, are
the defaults of rtpose); the tables are of the second half.

What is compared, for the time that passes between a frame and the moment when an output acts:

* ``last pose``: where the keypoint was in the frame;
* ``last two``: the straight line through this pose and the one before;
* ``constant-velocity``, ``constant-acceleration``: `rtpose.forecast`; ``better by`` is the median
  error of ``last pose`` over that of constant velocity.

What was true at that time is not known. Two stand-ins:

* ``estimated``: the cubic through the two poses before and the two after it, by the same estimator.
  It hides the estimator's steady errors, and what the animal does between two frames; and it
  shares the random error of the pose that is judged, the more the shorter the horizon, which
  flatters whatever follows that pose closely. At 33.3 ms there is no interpolation: the truth is
  one later pose, with an error of its own.
* ``smoothed``: the cubic through poses smoothed over the whole recording, past and future
  (Rauch-Tung-Striebel smoother of the constant-acceleration model with the default noises, which
  are those of an animal more agile than this one). That removes some of the random error, and
  little of what the animal really did.

``in bound`` is how much of the (estimated) truth lies within the radius that should hold 95 % of it
by the forecast's own standard deviation.
"""

import itertools
import os
import tempfile
from pathlib import Path
from typing import Any, Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks import PERCENTILES, interleaved, summary_us, table
from rtpose.estimator import Estimator
from rtpose.forecast import Forecaster, ForecastErrors, ForecastSettings, tune

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "models" / "zoo" / "openfield-mouse-mobilenetv2-0.35.onnx"
VIDEO = "dlc-openfield-mouse/videos/m3v1mp4.mp4"
FRAME_MS = 1000 / 30
HORIZONS_MS = (5.0, 10.0, 20.0, 30.0, FRAME_MS, 40.0, 50.0)
MODELS: Final[tuple[Literal["constant-velocity", "constant-acceleration"], ...]] = (
    "constant-velocity",
    "constant-acceleration",
)
METHODS = ("last pose", "last two", *MODELS)
_SHOWN = ("last pose", "constant-velocity")
LIVE_MS = 20.0
#: Radius of the circle that holds 95 % of a round Gaussian, in standard deviations per axis.
RADIUS_95 = 2.4477
KEYPOINTS, ROUNDS, REPEATS = 30, 200, 10
TARGET_US: Final = 50.0

F64 = NDArray[np.float64]


def recorded() -> dict[str, Any] | None:
    """Return the poses of the video, or None where it is absent."""
    video = Path(os.environ.get("RTPOSE_DATA", ROOT.parent / "shared" / "data")) / VIDEO
    if not video.exists():
        return None
    estimator = Estimator(MODEL, frame=(480, 640, 3))
    kept = Path(tempfile.gettempdir()) / (
        f"rtpose-forecast-{estimator.model_hash[:16]}-{video.stat().st_size}.npz"
    )
    if not kept.exists():
        capture = cv2.VideoCapture(str(video))
        poses = []
        while (frame := capture.read())[0]:
            poses.append(estimator.estimate(np.asarray(frame[1], np.uint8)))
        capture.release()
        keypoints, valid = (np.stack(part) for part in zip(*poses, strict=True))
        half_written = kept.with_suffix(f".{os.getpid()}.npz")
        np.savez(half_written, keypoints=keypoints, valid=valid)
        half_written.replace(kept)
    with np.load(kept) as poses_kept:
        keypoints, valid = poses_kept["keypoints"], poses_kept["valid"]
    times_ns = np.round(np.arange(len(keypoints)) * FRAME_MS * 1e6).astype(np.int64)
    names = estimator.card.keypoints().names
    return {"times_ns": times_ns, "keypoints": keypoints, "valid": valid, "names": names}


# ------------------------------------------------------------------------------------- the truth


def later(places: F64, horizon_ms: float) -> F64:
    """Return places (poses, keypoints, 2) at a time after each pose: cubic through four poses."""
    whole, part = divmod(horizon_ms / FRAME_MS + 1e-9, 1)
    t = part if part > 1e-6 else 0.0
    weights = (
        -t * (t - 1) * (t - 2) / 6,
        (t + 1) * (t - 1) * (t - 2) / 2,
        -(t + 1) * t * (t - 2) / 2,
        (t + 1) * t * (t - 1) / 6,
    )
    found = np.full_like(places, np.nan)
    first, end = 1, len(places) - int(whole) - 2
    found[first:end] = sum(
        weight * places[first + int(whole) + offset : end + int(whole) + offset]
        for offset, weight in zip((-1, 0, 1, 2), weights, strict=True)
    )
    return found


def smoothed(places: F64, settings: ForecastSettings) -> F64:
    """Return places smoothed with the constant-acceleration model (Rauch, Tung & Striebel 1965)."""
    t = FRAME_MS / 1000
    step = np.array([[1, t, t * t / 2], [0, 1, t], [0, 0, 1]])
    density = settings.manoeuvre_px**2 * 20 / 0.1**5
    noise = density * np.array(
        [
            [t**5 / 20, t**4 / 8, t**3 / 6],
            [t**4 / 8, t**3 / 3, t**2 / 2],
            [t**3 / 6, t**2 / 2, t],
        ]
    )
    state = np.zeros((3, places[0].size))
    state[0] = places[0].ravel()
    covariance = np.diag([settings.noise_px**2, 1e6, 1e8])
    filtered = []
    for place in places.reshape(len(places), -1):
        ahead, spread = step @ state, step @ covariance @ step.T + noise
        gain = spread[:, :1] / (spread[0, 0] + settings.noise_px**2)
        state = ahead + gain * (place - ahead[0])
        covariance = spread - gain @ spread[:1]
        filtered.append((state, covariance, ahead, spread))
    found = [filtered[-1][0]]
    for (state, covariance, _, _), (_, _, ahead, spread) in zip(
        filtered[-2::-1], filtered[:0:-1], strict=True
    ):
        found.append(state + covariance @ step.T @ np.linalg.inv(spread) @ (found[-1] - ahead))
    return np.stack([state[0] for state in found[::-1]]).reshape(places.shape)


# ------------------------------------------------------------------------------------- the study


def forecasts(poses: dict[str, Any], settings: ForecastSettings) -> tuple[F64, F64, dict[str, Any]]:
    """Forecast from every pose, as the loop would.

    Returns
    -------
    places : ndarray, shape (horizons, poses, keypoints, 2)
    deviations_px : ndarray, shape (horizons, poses, keypoints)
    report : dict
        The forecaster's own.
    """
    keypoints, valid = poses["keypoints"], poses["valid"]
    forecaster = Forecaster(settings, keypoints.shape[1])
    points = np.empty((len(HORIZONS_MS), *keypoints.shape), np.float32)
    deviations = np.empty(points.shape[:3], np.float32)
    for number, start_ns in enumerate(poses["times_ns"].tolist()):
        forecaster.update(start_ns, keypoints[number], valid[number])
        for place, horizon_ms in enumerate(HORIZONS_MS):
            at_ns = start_ns + round(horizon_ms * 1e6)
            forecaster.at(at_ns, points[place, number], deviations[place, number])
    return points[..., :2].astype(float), deviations.astype(float), forecaster.report()


def live(poses: dict[str, Any], settings: ForecastSettings) -> dict[str, Any]:
    """Return what `ForecastErrors` says at the end of the recording: about its second half."""
    keypoints, valid = poses["keypoints"], poses["valid"]
    forecaster = Forecaster(settings, keypoints.shape[1])
    judge = ForecastErrors(settings, keypoints.shape[1], window=len(keypoints) // 2)
    points = np.empty(keypoints.shape[1:], np.float32)
    for number, start_ns in enumerate(poses["times_ns"].tolist()):
        forecaster.update(start_ns, keypoints[number], valid[number])
        judge.update(start_ns, keypoints[number], valid[number])
        at_ns = start_ns + round(LIVE_MS * 1e6)
        forecaster.at(at_ns, points)
        judge.expect(at_ns, points)
    return judge.report()


def percentiles_px(distances: F64) -> dict[str, float]:
    p50, p95 = np.percentile(distances[np.isfinite(distances)], (50, 95))
    return {"p50": round(float(p50), 2), "p95": round(float(p95), 2)}


def noise_by_confidence(poses: dict[str, Any], part: slice) -> dict[str, dict[str, float]]:
    """Return the estimator's random error in px per axis, by quarters of the confidence.

    From fourth differences, which motion hardly reaches: their standard deviation is sqrt(70) times
    that of the error. Standard deviations as 1.4826 median absolute deviations.
    """
    keypoints = poses["keypoints"][part].astype(float)
    differences = np.abs(np.diff(keypoints[..., :2], n=4, axis=0)) / np.sqrt(70)
    confidence = keypoints[2:-2, :, 2]
    edges = np.percentile(confidence, (0, 25, 50, 75, 100))
    rows = {}
    for low, high in itertools.pairwise(edges):
        inside = (confidence >= low) & (confidence <= high)
        sigma = 1.4826 * float(np.median(differences[inside]))
        mean = float(confidence[inside].mean())
        rows[f"{low:.2f} to {high:.2f}"] = {
            "confidence": round(mean, 2),
            "px": round(sigma, 3),
            "px x conf.": round(sigma * mean, 3),
        }
    return rows


def study(poses: dict[str, Any]) -> dict[str, Any]:
    """Tune on the first half, compare on the second."""
    places = poses["keypoints"][..., :2].astype(float)
    half = len(places) // 2
    first = [poses[name][:half] for name in ("times_ns", "keypoints", "valid")]
    tuned = {model: tune(ForecastSettings(model=model), *first) for model in MODELS}
    made = {model: forecasts(poses, settings) for model, settings in tuned.items()}
    steps = np.diff(places, axis=0, prepend=places[:1])
    truths = {"estimated": places, "smoothed": smoothed(places, ForecastSettings())}
    result: dict[str, Any] = {
        "tuned": {
            model: {"noise_px": round(s.noise_px, 2), "manoeuvre_px": round(s.manoeuvre_px, 2)}
            for model, s in tuned.items()
        },
        "filters": {model: report for model, (_, _, report) in made.items()},
        "noise_px_by_confidence": noise_by_confidence(poses, slice(half)),
        "live_at_20_ms": live(poses, ForecastSettings()),
        "errors_px": {},
    }
    for number, horizon_ms in enumerate(HORIZONS_MS):
        guesses: dict[str, F64] = {
            "last pose": places,
            "last two": places + steps * (horizon_ms / FRAME_MS),
            **{model: points[number] for model, (points, _, _) in made.items()},
        }
        row: dict[str, Any] = {}
        for kind, truth in truths.items():
            true = later(truth, horizon_ms)[half:]
            away = {name: _distances(guess[half:], true) for name, guess in guesses.items()}
            row[kind] = {name: percentiles_px(distances) for name, distances in away.items()}
            row[kind]["better by"] = _ratio(away["last pose"], away[MODELS[0]])
            if kind == "estimated":
                row["keypoints"] = {
                    keypoint: {name: percentiles_px(d[:, k]) for name, d in away.items()}
                    for k, keypoint in enumerate(poses["names"])
                }
                row["in bound"] = {
                    model: round(_inside(away[model], made[model][1][number, half:]), 3)
                    for model in MODELS
                }
        result["errors_px"][f"{horizon_ms:.1f} ms"] = row
    return result


def _distances(places: F64, truth: F64) -> F64:
    distances: F64 = np.hypot(*np.moveaxis(places - truth, -1, 0))
    return distances


def _ratio(last_pose: F64, forecast: F64) -> float:
    return round(float(np.nanmedian(last_pose) / np.nanmedian(forecast)), 2)


def _inside(distances: F64, deviations_px: F64) -> float:
    judged = np.isfinite(distances)
    return float((distances[judged] <= RADIUS_95 * deviations_px[judged]).mean())


# -------------------------------------------------------------------------------------- the cost


class DenseFilter:
    """Constant velocity as one state of all keypoints with full matrices, in NumPy."""

    def __init__(self, keypoints: int, q: float, noise_px: float) -> None:
        self._size = 2 * keypoints
        self._state = np.zeros(2 * self._size)
        self._covariance = np.eye(2 * self._size) * 1e4
        self._see = np.eye(self._size, 2 * self._size)
        self._noise = np.eye(self._size) * noise_px**2
        self._q = q

    def update(self, t: float, places: F64) -> None:
        """Take places, shape (2 * keypoints,), seen t seconds after the last ones."""
        unit = np.eye(self._size)
        step = np.block([[unit, t * unit], [0 * unit, unit]])
        noise = self._q * np.block(
            [[t**3 / 3 * unit, t**2 / 2 * unit], [t**2 / 2 * unit, t * unit]]
        )
        state = step @ self._state
        covariance = step @ self._covariance @ step.T + noise
        total = self._see @ covariance @ self._see.T + self._noise
        gain = covariance @ self._see.T @ np.linalg.inv(total)
        self._state = state + gain @ (places - self._see @ state)
        self._covariance = covariance - gain @ self._see @ covariance

    def at(self, t: float) -> F64:
        """Return the places t seconds later."""
        places: F64 = self._state[: self._size] + t * self._state[self._size :]
        return places


def cost() -> dict[str, dict[str, float]]:
    """Time one pose of 30 keypoints, from Python to Python."""
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.normal(0, 3, (ROUNDS * REPEATS, KEYPOINTS, 3)), axis=0)
    walk[..., 2] = rng.uniform(0.5, 1, walk.shape[:2])
    poses, valid = walk.astype(np.float32), np.ones(KEYPOINTS, np.uint8)
    forecasters = {model: Forecaster(ForecastSettings(model=model), KEYPOINTS) for model in MODELS}
    judge = ForecastErrors(ForecastSettings(), KEYPOINTS)
    dense = DenseFilter(KEYPOINTS, 2.7e4, 0.5)
    points, deviations = np.empty((KEYPOINTS, 3), np.float32), np.empty(KEYPOINTS, np.float32)
    now = {"number": 0, "ns": 0}

    def before(number: int) -> None:
        now.update(number=number, ns=now["ns"] + 10_000_000)

    def step(forecaster: Forecaster) -> None:
        forecaster.update(now["ns"], poses[now["number"]], valid)
        forecaster.at(now["ns"] + 20_000_000, points, deviations)

    def judged() -> None:
        judge.update(now["ns"], poses[now["number"]], valid)
        judge.expect(now["ns"] + 20_000_000, points)

    def full_matrices() -> None:
        dense.update(0.01, walk[now["number"], :, :2].ravel())
        dense.at(0.02)

    calls = {
        "constant-velocity": lambda: step(forecasters["constant-velocity"]),
        "constant-acceleration": lambda: step(forecasters["constant-acceleration"]),
        "its errors": judged,
    }
    times = interleaved(calls, ROUNDS, before, REPEATS)
    times |= interleaved({"dense matrices": full_matrices}, ROUNDS, before)
    times["its report()"] = interleaved({"": lambda: judge.report()}, ROUNDS)[""]
    return {name: summary_us(values) for name, values in times.items()}


def run() -> dict[str, Any]:
    """Return errors in px per horizon, and the time of a step in microseconds."""
    poses = recorded()
    result: dict[str, Any] = {"step_us": cost()}
    if poses is None:
        result["skipped"] = f"no recorded motion: {VIDEO} is not in RTPOSE_DATA"
    else:
        result["study"] = study(poses)
    return result


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    table(f"update and forecast, {KEYPOINTS} keypoints, us", result["step_us"], list(PERCENTILES))
    print(f"target: p50 under {TARGET_US:g} us for {KEYPOINTS} keypoints")
    if "skipped" in result:
        print(f"\n{result['skipped']}")
        return
    found = result["study"]
    errors = found["errors_px"]
    columns = [horizon.removesuffix(".0 ms") for horizon in errors]

    def across(*keys: str) -> dict[str, object]:
        """Return what stands under these keys, by horizon."""
        found: dict[str, object] = {}
        for column, row in zip(columns, errors.values(), strict=True):
            value: Any = row
            for key in keys:
                value = value[key]
            found[column] = _pair(value) if isinstance(value, dict) else value
        return found

    for kind in ("estimated", "smoothed"):
        rows = {name: across(kind, name) for name in (*METHODS, "better by")}
        table(f"px from {kind}, p50/p95, by ms", rows, columns)
    rows = {
        f"{keypoint}, {name}": across("keypoints", keypoint, name)
        for keypoint in errors["5.0 ms"]["keypoints"]
        for name in ("last pose", *MODELS)
    }
    table("px from estimated, p50/p95, by ms", rows, columns)
    table("in bound", {model: across("in bound", model) for model in MODELS}, columns)
    noise = found["noise_px_by_confidence"]
    table("estimator's noise, by confidence", noise, ["confidence", "px", "px x conf."])
    for model, values in found["tuned"].items():
        print(f"tuned on the first half, {model}: {values}; {found['filters'][model]}")
    reported = found["live_at_20_ms"]
    shown = {name: _rounded(reported[f"{name}_px"]) for name in ("last_pose", "forecast")}
    table(f"px as reported live, {LIVE_MS:g} ms ahead", shown, ["p50", "p95"])
    print("\n" + as_markdown(errors))


def as_markdown(errors: dict[str, Any]) -> str:
    """Return the tables as one for README.md: last pose and forecast, against both stand-ins."""
    shown = ("last pose", "forecast", "better by")
    heads = [f"{kind}: {name}" for kind in ("estimated", "smoothed") for name in shown]
    rows = [["acts after", *heads], ["---"] * (1 + len(heads))]
    for horizon, row in errors.items():
        cells = [horizon]
        for kind in ("estimated", "smoothed"):
            found = row[kind]
            cells += [f"{found[name]['p50']:.2f} / {found[name]['p95']:.2f}" for name in _SHOWN]
            cells.append(f"{found['better by']:.1f}")
        rows.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _rounded(values: dict[str, float]) -> dict[str, object]:
    return {name: round(value, 2) for name, value in values.items()}


def _pair(values: dict[str, float]) -> str:
    return f"{values['p50']:.2f}/{values['p95']:.2f}"


if __name__ == "__main__":
    show(run())
