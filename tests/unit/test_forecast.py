"""The forecast against a plain filter, the textbook and simulated animals; its tuning."""

import doctest
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numba.core.runtime import _nrt_python, rtsys
from numpy.typing import NDArray
from pydantic import ValidationError

import rtpose.forecast.filter
from rtpose.errors import InputError
from rtpose.forecast import Forecaster, ForecastErrors, ForecastSettings, tune

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
MS = 1_000_000

#: Settings of an exactly linear world: nothing is refused, nothing ends.
TRUSTING: dict[str, Any] = {"gate": 1e6, "max_gap_ms": 10_000.0}
MODELS = ("constant-velocity", "constant-acceleration")
models = st.sampled_from(MODELS)


# ------------------------------------------------------------------------------- the plain filter


def transition(order: int, t: float) -> F64:
    matrix = np.eye(order)
    for row in range(order):
        for column in range(row + 1, order):
            matrix[row, column] = t ** (column - row) / math.factorial(column - row)
    return matrix


def process_noise(order: int, t: float) -> F64:
    """Integrate what noise of density 1 in the highest derivative has become after t seconds.

    The integrand is a polynomial of degree 4 at most: three points of Gauss and Legendre are exact.
    """
    nodes, weights = np.polynomial.legendre.leggauss(3)
    total = np.zeros((order, order))
    for node, weight in zip((nodes + 1) / 2 * t, weights / 2 * t, strict=True):
        column = transition(order, node)[:, -1:]
        total += weight * column @ column.T
    return total


def density(chosen: ForecastSettings) -> tuple[int, float]:
    order = 2 if chosen.model == "constant-velocity" else 3
    return order, chosen.manoeuvre_px**2 / float(process_noise(order, 0.1)[0, 0])


def measurement_sd(chosen: ForecastSettings, confidence: float) -> float:
    return float(chosen.noise_px / min(max(confidence, 0.1), 1.0) ** chosen.confidence_power)


@dataclass
class PlainTrack:
    """One keypoint, brought forward by every pose whether it shows it or not."""

    chosen: ForecastSettings
    state: F64 | None = None
    covariance: F64 = field(default_factory=lambda: np.zeros((0, 0)))
    at_ns: int = 0
    seen_ns: int = 0
    refused: int = 0
    outliers: int = 0
    nearest_to_gate: float = math.inf

    def ahead(self, to_ns: int) -> tuple[F64, F64]:
        assert self.state is not None
        order, q = density(self.chosen)
        t = (to_ns - self.at_ns) * 1e-9
        step = transition(order, t)
        return step @ self.state, step @ self.covariance @ step.T + q * process_noise(order, t)

    def update(self, now_ns: int, measured: F64 | None) -> None:
        """Take x, y, confidence, or nothing."""
        if self.state is not None and now_ns - self.seen_ns > round(self.chosen.max_gap_ms * MS):
            self.state = None
        if self.state is not None:
            self.state, self.covariance = self.ahead(now_ns)
            self.at_ns = now_ns
        if measured is None:
            return
        place, r = measured[:2], measurement_sd(self.chosen, float(measured[2])) ** 2
        if self.state is not None:
            away = place - self.state[0]
            total = float(self.covariance[0, 0]) + r
            nis = float(away @ away) / total
            self.nearest_to_gate = min(self.nearest_to_gate, abs(nis / self.chosen.gate - 1))
            if nis > self.chosen.gate:
                self.outliers += 1
                self.refused += 1
                if self.refused < self.chosen.max_outliers:
                    return
                self.state = None
            else:
                gain = self.covariance[:, :1] / total
                keep = np.eye(len(gain)) - gain @ np.eye(1, len(gain))
                self.state = self.state + gain @ away[None]
                self.covariance = keep @ self.covariance @ keep.T + r * gain @ gain.T  # Joseph
        if self.state is None:
            order, _ = density(self.chosen)
            self.state = np.zeros((order, 2))
            self.state[0] = place
            speed = self.chosen.start_speed_px_s
            self.covariance = np.diag([r, speed**2, (speed / 0.1) ** 2][:order])
            self.at_ns = now_ns
        self.refused, self.seen_ns = 0, now_ns

    def at(self, time_ns: int) -> F64:
        """Return x, y and standard deviation, NaN without a track."""
        if self.state is None or time_ns - self.seen_ns > round(self.chosen.max_gap_ms * MS):
            return np.full(3, np.nan)
        state, covariance = self.ahead(time_ns)
        return np.array([*state[0], math.sqrt(covariance[0, 0])])


def ask(forecaster: Forecaster, time_ns: int, keypoints: int) -> tuple[F32, F32]:
    points, deviations = np.empty((keypoints, 3), np.float32), np.empty(keypoints, np.float32)
    forecaster.at(time_ns, points, deviations)
    return points, deviations


@st.composite
def chosen_settings(draw: st.DrawFn) -> ForecastSettings:
    return ForecastSettings(
        model=draw(st.sampled_from(MODELS)),
        noise_px=draw(st.floats(0.05, 5)),
        confidence_power=draw(st.sampled_from([0.0, 0.5, 1.0, 2.0])),
        manoeuvre_px=draw(st.floats(0.1, 30)),
        start_speed_px_s=draw(st.floats(10, 2000)),
        max_gap_ms=draw(st.floats(20, 500)),
        gate=draw(st.sampled_from([9.0, 25.0, 1e6])),
        max_outliers=draw(st.integers(1, 4)),
    )


@st.composite
def pose_tracks(draw: st.DrawFn) -> tuple[list[int], F32, NDArray[np.uint8]]:
    """Poses of a wandering animal, at uneven times, with gaps, jumps and useless numbers."""
    count, keypoints = draw(st.integers(1, 25)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    steps_ns = rng.integers(1, 60 * MS, count)
    times_ns = (draw(st.integers(0, 10**15)) + np.cumsum(steps_ns)).tolist()
    poses = rng.normal(300, 50, (1, keypoints, 3)) + np.cumsum(
        rng.normal(0, draw(st.sampled_from([0.5, 5.0])), (count, keypoints, 3)), axis=0
    )
    poses[rng.random((count, keypoints)) < draw(st.sampled_from([0.0, 0.2]))] += 150
    poses[..., 2] = rng.uniform(-0.1, 1.2, (count, keypoints))
    for useless in (np.nan, np.inf):
        poses[rng.random(poses.shape) < draw(st.sampled_from([0.0, 0.05]))] = useless
    valid = (rng.random((count, keypoints)) < draw(st.sampled_from([1.0, 0.7]))).astype(np.uint8)
    return times_ns, poses.astype(np.float32), valid


@given(chosen=chosen_settings(), track=pose_tracks(), horizon_ms=st.floats(0, 300))
def test_it_is_the_plain_filter(
    chosen: ForecastSettings,
    track: tuple[list[int], F32, NDArray[np.uint8]],
    horizon_ms: float,
) -> None:
    times_ns, poses, valid = track
    keypoints = poses.shape[1]
    forecaster = Forecaster(chosen, keypoints)
    plain = [PlainTrack(chosen) for _ in range(keypoints)]
    for now_ns, pose, usable in zip(times_ns, poses, valid, strict=True):
        forecaster.update(now_ns, pose, usable)
        for k, one in enumerate(plain):
            there = bool(usable[k]) and bool(np.isfinite(pose[k]).all())
            one.update(now_ns, pose[k].astype(float) if there else None)
        at_ns = now_ns + round(horizon_ms * MS)
        points, deviations = ask(forecaster, at_ns, keypoints)
        expected = np.stack([one.at(at_ns) for one in plain])
        assume(min(one.nearest_to_gate for one in plain) > 1e-6)  # no refusal hangs on rounding
        np.testing.assert_allclose(points[:, :2], expected[:, :2], rtol=1e-5, atol=1e-3)
        np.testing.assert_allclose(deviations, expected[:, 2], rtol=1e-4)
        np.testing.assert_array_equal(points[:, 2], pose[:, 2])  # as it was, whatever it was
    assert forecaster.report()["outliers"] == [one.outliers for one in plain]


# ----------------------------------------------------------------------------------- the textbook


@given(
    velocity=st.tuples(st.floats(-500, 500), st.floats(-500, 500)),
    steps_ms=st.lists(st.floats(4, 40), min_size=80, max_size=80),
    horizon_ms=st.floats(0, 50),
    model=models,
)
@settings(max_examples=30)
def test_motion_of_constant_velocity_is_forecast_exactly(
    velocity: tuple[float, float], steps_ms: list[float], horizon_ms: float, model: Any
) -> None:
    forecaster = Forecaster(ForecastSettings(model=model, **TRUSTING), 1)
    times_ns = [round(t * MS) for t in np.cumsum(steps_ms)]

    def place(time_ns: int) -> list[float]:
        return [320 + velocity[0] * time_ns * 1e-9, 240 + velocity[1] * time_ns * 1e-9, 1.0]

    for now_ns in times_ns:
        forecaster.update(now_ns, np.array([place(now_ns)]), np.ones(1))
    at_ns = times_ns[-1] + round(horizon_ms * MS)
    points, _ = ask(forecaster, at_ns, 1)
    np.testing.assert_allclose(points[0], place(at_ns), atol=0.02)


def test_motion_of_constant_acceleration_is_forecast_exactly_by_its_model_only() -> None:
    times_ns = [round(frame * 10 * MS) for frame in range(100)]

    def x(time_ns: int) -> float:
        return 1000 * (time_ns * 1e-9) ** 2

    errors = {}
    for model in MODELS:
        forecaster = Forecaster(ForecastSettings(model=model, **TRUSTING), 1)  # type: ignore[arg-type]
        for now_ns in times_ns:
            forecaster.update(now_ns, np.array([[x(now_ns), 0, 1]]), np.ones(1))
        points, _ = ask(forecaster, times_ns[-1] + 50 * MS, 1)
        errors[model] = abs(points[0, 0] - x(times_ns[-1] + 50 * MS))
    assert errors["constant-acceleration"] < 0.02
    assert errors["constant-velocity"] > 2.5  # half the acceleration times the horizon squared


@given(chosen=chosen_settings(), track=pose_tracks())
def test_the_covariance_is_positive_and_the_deviation_grows_with_the_horizon(
    chosen: ForecastSettings, track: tuple[list[int], F32, NDArray[np.uint8]]
) -> None:
    times_ns, poses, valid = track
    keypoints = poses.shape[1]
    forecaster = Forecaster(chosen.model_copy(update={"max_gap_ms": 10_000.0}), keypoints)
    order, _ = density(chosen)
    for now_ns, pose, usable in zip(times_ns, poses, valid, strict=True):
        forecaster.update(now_ns, pose, usable)
        for row in forecaster._states[:, 6:]:
            covariance = np.zeros((3, 3))
            covariance[np.triu_indices(3)] = row
            covariance = (covariance + np.triu(covariance, 1).T)[:order, :order]
            scale = np.sqrt(np.diag(covariance))
            if scale.all():  # the keypoint was seen
                correlations = covariance / np.outer(scale, scale)
                assert np.linalg.eigvalsh(correlations).min() > -1e-9
        horizons_ns = (h * MS for h in (0, 5, 20, 50, 200))
        deviations = np.stack([ask(forecaster, now_ns + h, keypoints)[1] for h in horizons_ns])
        deviations = deviations[:, np.isfinite(deviations[0])]
        assert (deviations[0] > 0).all()
        assert (np.diff(deviations, axis=0) >= 0).all()  # a little may be lost in float32
        assert (deviations[-1] > deviations[0]).all()


@pytest.mark.parametrize("model", MODELS)
def test_errors_on_animals_of_the_model_s_own_kind_are_as_large_as_it_says(model: Any) -> None:
    chosen = ForecastSettings(
        model=model, noise_px=0.8, manoeuvre_px=4.0, start_speed_px_s=150.0, **TRUSTING
    )
    order, q = density(chosen)
    rng = np.random.default_rng(1)
    animals = 4000
    state = np.zeros((animals, order, 2))
    state[:, 1] = rng.normal(0, 150, (animals, 2))
    if order == 3:
        state[:, 2] = rng.normal(0, 1500, (animals, 2))

    def live(t: float) -> F64:
        kicks = np.linalg.cholesky(process_noise(order, t) * q) @ rng.normal(size=state.shape)
        moved: F64 = transition(order, t) @ state + kicks
        return moved

    forecaster = Forecaster(chosen, animals)
    now_ns = 0
    for number in range(25):
        if number:  # the first pose finds them as they were born
            step_ns = int(rng.integers(3 * MS, 45 * MS))
            now_ns += step_ns
            state = live(step_ns * 1e-9)
        confidence = rng.uniform(0.3, 1, animals)
        noise = rng.normal(size=(animals, 2)) * (chosen.noise_px / confidence)[:, None]
        pose = np.column_stack([state[:, 0] + noise, confidence])
        forecaster.update(now_ns, pose, rng.random(animals) < (0.9 if number else 1))
    # Normalised squared errors of both axes have mean 2 and variance 4: this is within 4 sigma.
    bound = 4 * math.sqrt(4 / animals)
    for horizon_ms in (0, 15, 60):
        future = live(horizon_ms * 1e-3 + 1e-12)[:, 0]
        points, deviations = ask(forecaster, now_ns + horizon_ms * MS, animals)
        errors = ((points[:, :2] - future) ** 2).sum(axis=1) / deviations**2
        assert np.isfinite(errors).all()
        assert abs(errors.mean() - 2) < bound
    assert np.mean(forecaster.report()["nis"]) == pytest.approx(2, abs=0.03)


# ------------------------------------------------------------------- missing, doubtful and absurd


def walk(forecaster: Forecaster, frames: int, speed_px: float = 3.0) -> int:
    """Show a keypoint that goes right at 100 frames/s, and return the time of the last pose."""
    for frame in range(frames):
        pose = np.array([[100 + speed_px * frame, 50, 0.9]])
        forecaster.update(frame * 10 * MS, pose, np.ones(1))
    return (frames - 1) * 10 * MS


def test_a_keypoint_that_is_lost_goes_on_until_the_longest_gap_and_no_further() -> None:
    forecaster = Forecaster(ForecastSettings(max_gap_ms=100.0), 1)
    last_ns = walk(forecaster, 50)
    nothing, unseen = np.array([[np.nan, np.nan, 0.1]]), np.zeros(1)
    for frame in range(1, 8):
        forecaster.update(last_ns + frame * 10 * MS, nothing, unseen)
    points, _ = ask(forecaster, last_ns + 100 * MS, 1)
    assert points[0, 0] == pytest.approx(247 + 30, abs=0.5)
    assert points[0, 2] == pytest.approx(0.1)  # the last pose's own
    points, deviations = ask(forecaster, last_ns + 100 * MS + 1, 1)
    assert np.isnan([*points[0, :2], *deviations]).all()
    # Where it is found again a new track begins, at rest.
    forecaster.update(last_ns + 200 * MS, np.array([[10.0, 20.0, 1.0]]), np.ones(1))
    points, _ = ask(forecaster, last_ns + 230 * MS, 1)
    assert points[0].tolist() == [10, 20, 1]
    assert forecaster.report()["started"] == [2]


def test_a_keypoint_that_was_never_seen_has_no_forecast() -> None:
    forecaster = Forecaster(ForecastSettings(), 2)
    forecaster.update(0, np.array([[1.0, 2.0, 0.9], [3.0, 4.0, 0.2]]), np.array([1, 0]))
    points, deviations = ask(forecaster, 5 * MS, 2)
    assert np.isfinite(points[0]).all()
    assert np.isnan([*points[1, :2], deviations[1]]).all()
    assert forecaster.report()["nis"] == [None, None]


def test_an_outlier_is_refused_and_counted_and_believed_when_it_persists() -> None:
    forecaster = Forecaster(ForecastSettings(max_outliers=3), 1)
    last_ns = walk(forecaster, 50)
    swapped = np.array([[400.0, 300.0, 0.95]])
    for number in (1, 2):
        forecaster.update(last_ns + number * 10 * MS, swapped, np.ones(1))
        points, _ = ask(forecaster, last_ns + number * 10 * MS, 1)
        assert points[0, 0] == pytest.approx(247 + 3 * number, abs=0.5)
    assert forecaster.report()["outliers"] == [2]
    assert forecaster.report()["started"] == [1]
    forecaster.update(last_ns + 30 * MS, swapped, np.ones(1))
    points, _ = ask(forecaster, last_ns + 30 * MS, 1)
    assert points[0, :2].tolist() == [400, 300]
    assert (forecaster.report()["outliers"], forecaster.report()["started"]) == ([3], [2])


def test_refusals_that_do_not_follow_each_other_do_not_start_a_track() -> None:
    forecaster = Forecaster(ForecastSettings(max_outliers=2), 1)
    last_ns = walk(forecaster, 50)
    for number in range(1, 11):
        x = 400.0 if number % 2 else 247.0 + 3 * number
        forecaster.update(last_ns + number * 10 * MS, np.array([[x, 50, 0.9]]), np.ones(1))
    assert (forecaster.report()["outliers"], forecaster.report()["started"]) == ([5], [1])


def test_a_doubtful_keypoint_moves_the_forecast_less() -> None:
    moved = {}
    for confidence in (1.0, 0.2):
        forecaster = Forecaster(ForecastSettings(), 1)
        last_ns = walk(forecaster, 50, speed_px=0.0)
        forecaster.update(last_ns + 10 * MS, np.array([[102, 50, confidence]]), np.ones(1))
        moved[confidence] = ask(forecaster, last_ns + 10 * MS, 1)[0][0, 0] - 100
    assert 0 < moved[0.2] < moved[1.0] / 3


@pytest.mark.parametrize("step_ns", [0, -5 * MS])
def test_when_time_does_not_go_on_all_tracks_start_again(step_ns: int) -> None:
    forecaster = Forecaster(ForecastSettings(), 1)
    last_ns = walk(forecaster, 50)
    forecaster.update(last_ns + step_ns, np.array([[7.0, 8.0, 1.0]]), np.ones(1))
    points, _ = ask(forecaster, last_ns + 40 * MS, 1)
    assert points[0].tolist() == [7, 8, 1]
    assert forecaster.report()["restarts"] == 1


def test_what_it_is_handed_may_be_of_any_float_type_and_read_only_and_is_left_alone() -> None:
    poses = np.arange(24, dtype=np.float32).reshape(2, 2, 6)[:, :, ::2] / 30
    handed: list[NDArray[Any]] = [poses[0], poses[0].astype(np.float64), poses[0].copy()]
    handed[2].flags.writeable = False
    found = []
    for pose in handed:
        before = pose.copy()
        forecaster = Forecaster(ForecastSettings(), 2)
        forecaster.update(0, pose, np.array([True, True]))
        found.append(ask(forecaster, 10 * MS, 2)[0])
        np.testing.assert_array_equal(pose, before)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (3,), (3, 4)])
def test_a_pose_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    for taker in (Forecaster(ForecastSettings(), 3), ForecastErrors(ForecastSettings(), 3)):
        with pytest.raises(InputError, match="3 keypoints were announced"):
            taker.update(0, np.zeros(shape), np.ones(3))
        with pytest.raises(InputError, match="3 keypoints were announced"):
            taker.update(0, np.zeros((3, 3)), np.ones(shape[0] + 2))


def test_questions_that_have_no_answer_are_refused() -> None:
    forecaster = Forecaster(ForecastSettings(), 1)
    points = np.empty((1, 3), np.float32)
    with pytest.raises(InputError, match="before the first pose"):
        forecaster.at(0, points)
    forecaster.update(100, np.zeros((1, 3)), np.ones(1))
    with pytest.raises(InputError, match="40 ns before the pose"):
        forecaster.at(60, points)
    with pytest.raises(InputError, match="announced"):
        forecaster.at(100, points, np.empty(2, np.float32))
    with pytest.raises(InputError, match="at least 1"):
        Forecaster(ForecastSettings(), 0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", "singer"),
        ("noise_px", 0.0),
        ("noise_px", math.nan),
        ("confidence_power", -1.0),
        ("manoeuvre_px", math.inf),
        ("start_speed_px_s", 0.0),
        ("max_gap_ms", 0.0),
        ("max_gap_ms", "200"),
        ("gate", 1.0),
        ("max_outliers", 0),
        ("max_outliers", 1.5),
        ("damping_ms", 500.0),
    ],
)
def test_settings_out_of_range_are_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(ValidationError) as refusal:
        ForecastSettings.model_validate({key: value})
    assert [error["loc"] for error in refusal.value.errors()] == [(key,)]


def test_a_pose_allocates_nothing_per_keypoint() -> None:
    chosen, keypoints = ForecastSettings(), 30
    forecaster, judge = Forecaster(chosen, keypoints), ForecastErrors(chosen, keypoints)
    pose, valid = np.ones((keypoints, 3), np.float32), np.ones(keypoints, np.uint8)
    points, deviations = np.empty((keypoints, 3), np.float32), np.empty(keypoints, np.float32)

    def step(now_ns: int) -> None:
        forecaster.update(now_ns, pose, valid)
        judge.update(now_ns, pose, valid)
        forecaster.at(now_ns + 15 * MS, points, deviations)
        judge.expect(now_ns + 15 * MS, points)

    for frame in range(5):
        step(frame * 10 * MS)
    _nrt_python.memsys_enable_stats()
    try:
        before = rtsys.get_allocation_stats()
        step(50 * MS)
        after = rtsys.get_allocation_stats()
    finally:
        _nrt_python.memsys_disable_stats()
    # Numba makes a descriptor of each of the 27 arrays that it is handed.
    assert after.alloc - before.alloc <= 27
    assert after.free - before.free == after.alloc - before.alloc


# ----------------------------------------------------------------------------------------- tuning


@pytest.mark.parametrize("model", MODELS)
def test_tuning_finds_the_noises_of_a_simulated_recording(model: Any) -> None:
    truth = ForecastSettings(model=model, noise_px=1.2, manoeuvre_px=8.0, gate=1e6)
    order, q = density(truth)
    rng = np.random.default_rng(2)
    state, poses, count = np.zeros((4, order, 2)), [], 1000
    steps_ns = rng.integers(8 * MS, 12 * MS, count)
    for step_ns in steps_ns:
        kicks = np.linalg.cholesky(process_noise(order, step_ns * 1e-9) * q)
        state = transition(order, step_ns * 1e-9) @ state + kicks @ rng.normal(size=state.shape)
        seen = state[:, 0] + rng.normal(0, truth.noise_px, (4, 2))
        poses.append(np.column_stack([seen, np.ones(4)]))
    found = tune(
        ForecastSettings(model=model, gate=1e6),
        np.cumsum(steps_ns),
        np.stack(poses),
        np.ones((count, 4), np.uint8),
    )
    assert found.noise_px == pytest.approx(1.2, rel=0.1)
    assert found.manoeuvre_px == pytest.approx(8.0, rel=0.25)
    assert found == truth.model_copy(
        update={"noise_px": found.noise_px, "manoeuvre_px": found.manoeuvre_px}
    )


def test_tuning_on_a_recording_without_any_noise_ends_at_what_may_be_set() -> None:
    still = np.tile([100.0, 50.0, 1.0], (200, 1, 1))
    found = tune(ForecastSettings(), np.arange(200) * 10 * MS, still, np.ones((200, 1)))
    assert found.noise_px < 0.0011


def test_a_recording_that_cannot_be_tuned_on_is_refused() -> None:
    with pytest.raises(InputError, match="at least 100"):
        tune(ForecastSettings(), np.arange(99), np.zeros((99, 1, 3)), np.ones((99, 1)))
    with pytest.raises(InputError, match="are needed"):
        tune(ForecastSettings(), np.arange(100), np.zeros((100, 2, 3)), np.ones((100, 1)))


def test_the_examples_in_its_documentation_run() -> None:
    assert doctest.testmod(rtpose.forecast.filter).failed == 0
