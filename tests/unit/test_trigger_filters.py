"""Filters and gates: against their definitions, and the delay that they say they have."""

import math
from statistics import median
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trigger_poses import MS, Place, decide_on, make_pose, make_trigger

from rtpose.interfaces import Decision
from rtpose.triggers.filters import (
    Exponential,
    ExponentialSettings,
    Median,
    MedianSettings,
    OneEuro,
    OneEuroSettings,
)
from rtpose.triggers.gates import JumpGate, KeypointPath
from rtpose.triggers.geometry import Point

coordinates = st.integers(-4000, 4000).map(lambda n: n / 4)
paths = st.lists(
    st.tuples(st.integers(1, 60), st.tuples(coordinates, coordinates)), min_size=1, max_size=20
)


def one_euro(**settings: float) -> OneEuroSettings:
    return OneEuroSettings.model_validate({"type": "one-euro", **settings})


def stamped(path: list[tuple[int, Point]]) -> list[tuple[int, Point]]:
    """Return times since the start, in ns, in place of the ms between two."""
    times = np.cumsum([step for step, _ in path]).tolist()
    return [(t * MS, point) for t, (_, point) in zip(times, path, strict=True)]


# ------------------------------------------------------------------------------------- one filter


@given(paths, st.floats(0.1, 20), st.floats(0, 0.1), st.floats(0.1, 20))
def test_one_euro_against_the_published_algorithm(
    path: list[tuple[int, Point]], min_cutoff: float, beta: float, speed_cutoff: float
) -> None:
    settings = one_euro(min_cutoff_hz=min_cutoff, beta_per_px=beta, speed_cutoff_hz=speed_cutoff)
    filtered = OneEuro(settings)

    def alpha(cutoff: float, rate: float) -> float:
        tau = 1.0 / (2 * math.pi * cutoff)
        return 1.0 / (1.0 + tau * rate)

    before: tuple[int, np.ndarray[Any, Any]] | None = None
    speed, smooth = np.zeros(2), np.zeros(2)
    for at_ns, point in stamped(path):
        x = np.array(point)
        if before is None:
            smooth = x
        else:
            rate = 1e9 / (at_ns - before[0])
            a = alpha(speed_cutoff, rate)
            speed = a * (x - before[1]) * rate + (1 - a) * speed
            a = alpha(min_cutoff + beta * float(np.linalg.norm(speed)), rate)
            smooth = a * x + (1 - a) * smooth
        before = (at_ns, x)
        assert filtered.update(at_ns, point) == pytest.approx(tuple(smooth), abs=1e-6)


@given(paths, st.sampled_from([3, 5, 7]))
def test_median_of_the_last_positions(path: list[tuple[int, Point]], poses: int) -> None:
    filtered, seen = Median(poses), []
    for at_ns, point in stamped(path):
        seen.append(point)
        last = seen[-poses:]
        expected = (median([x for x, _ in last]), median([y for _, y in last]))
        assert filtered.update(at_ns, point) == expected


@given(paths, st.floats(1, 500))
def test_exponential_weighs_every_position_by_its_age(
    path: list[tuple[int, Point]], tau_ms: float
) -> None:
    filtered, seen = Exponential(tau_ms), stamped(path)
    for i, (at_ns, point) in enumerate(seen):
        # What came in at t was new from t on, and has faded since.
        faded = [math.exp((t - at_ns) / (tau_ms * 1e6)) for t, _ in seen[: i + 1]]
        weights = np.diff([0.0, *faded])
        expected = weights @ np.array([p for _, p in seen[: i + 1]])
        assert filtered.update(at_ns, point) == pytest.approx(tuple(expected), abs=1e-6)


@pytest.mark.parametrize("rate_hz", [30.0, 100.0, 500.0])
@pytest.mark.parametrize(
    ("settings", "delay_ms"),
    [
        (MedianSettings(type="median", poses=5), None),
        (ExponentialSettings(type="exponential", time_constant_ms=40), None),
        (one_euro(min_cutoff_hz=2.0, beta_per_px=0.0), 1e3 / (4 * math.pi)),
        (one_euro(min_cutoff_hz=2.0, beta_per_px=0.01), 1e3 / (2 * math.pi * 12.0)),
    ],
)
def test_every_filter_lags_behind_a_steady_motion_by_what_it_says(
    settings: OneEuroSettings | MedianSettings | ExponentialSettings,
    delay_ms: float | None,
    rate_hz: float,
) -> None:
    speed_px_s, filtered = 1000.0, settings.build()
    for i in range(round(3 * rate_hz)):
        x = speed_px_s * i / rate_hz
        smooth_x, _ = filtered.update(round(i * 1e9 / rate_hz), (x, 0.0))
    stated_ms = settings.delay_ms(rate_hz)
    lag_ms = (x - smooth_x) / speed_px_s * 1e3
    assert lag_ms == pytest.approx(stated_ms if delay_ms is None else delay_ms, rel=1e-3)
    if isinstance(settings, OneEuroSettings):
        assert settings.delay_ms_at(speed_px_s) == pytest.approx(lag_ms, rel=1e-3)
        assert stated_ms == settings.delay_ms_at(0.0) >= lag_ms * 0.999


def test_a_filter_much_quicker_than_the_frames_delays_nothing() -> None:
    assert ExponentialSettings(type="exponential", time_constant_ms=1e-3).delay_ms(1) == 0.0


def test_one_euro_is_smooth_at_rest_and_quick_in_motion() -> None:
    random = np.random.default_rng(1)
    rest, moving = OneEuro(one_euro()), OneEuro(one_euro())
    noise = random.normal(0, 1, (400, 2))
    still = [rest.update(i * 10 * MS, (x, y)) for i, (x, y) in enumerate(noise.tolist())]
    assert float(np.std([x for x, _ in still[100:]])) < 0.4
    far = [moving.update(i * 10 * MS, (30.0 * i, 0.0))[0] for i in range(100)]
    assert 30.0 * 99 - far[-1] < 30.0 * 1.5  # 3000 px/s: less than 1.5 poses late


# ------------------------------------------------------------------------------------------ gates


@given(paths, st.integers(1, 3000))
def test_the_jump_gate_believes_what_can_be_reached(
    path: list[tuple[int, Point]], limit: int
) -> None:
    gate = JumpGate(limit)
    accepted: list[tuple[int, Point]] = []
    for at_ns, point in stamped(path):
        expected = True
        if accepted:
            then_ns, (x, y) = accepted[-1]
            far, reach = math.dist(point, (x, y)), limit * (at_ns - then_ns) / 1e9
            if far == pytest.approx(reach, rel=1e-12):
                return  # which side of it rounding leaves it on is not the point here
            expected = far < reach
        assert gate.passes(at_ns, point) is expected
        if expected:
            accepted.append((at_ns, point))


def test_exactly_as_fast_as_it_can_passes() -> None:
    gate = JumpGate(1000)
    path: list[tuple[int, Point]] = [(0, (0, 0)), (10, (6, 8)), (20, (6, 18.001)), (25, (6, 18))]
    assert [gate.passes(at_ms * MS, point) for at_ms, point in path] == [True, True, False, True]


def test_a_wrong_first_position_is_overcome() -> None:
    gate = JumpGate(1000)
    passed = [gate.passes(i * 10 * MS, (0.0 if i else 95.0, 0.0)) for i in range(12)]
    assert passed == [True, *[False] * 9, True, True]


def test_gates_and_filter_come_in_this_order() -> None:
    # The doubtful position would have opened the way for the jump, and moved the median.
    median3 = MedianSettings(type="median", poses=3)
    path = KeypointPath(0.5, 100.0, median3)
    assert path.update(0, (0.0, 0.0), 0.9) == (0.0, 0.0)
    assert path.update(100 * MS, (9.0, 0.0), 0.49) is None
    assert path.update(110 * MS, (18.0, 0.0), 0.9) is None
    assert path.update(120 * MS, (4.0, 0.0), 0.5) == (2.0, 0.0)
    assert path.update(130 * MS, (4.0, 0.0), math.nan) is None
    assert path.update(140 * MS, None, 0.9) is None
    assert path.update(150 * MS, (5.0, 0.0), 0.9) == (4.0, 0.0)


def test_a_filter_begins_afresh_after_a_gap() -> None:
    settings = ExponentialSettings(type="exponential", time_constant_ms=1000, max_gap_ms=50)
    path = KeypointPath(0.0, None, settings)
    path.update(0, (0.0, 0.0), 1.0)
    x, _ = path.update(50 * MS, (100.0, 0.0), 1.0) or (math.nan, 0)
    assert 0 < x < 10
    assert path.update(101 * MS, (100.0, 0.0), 1.0) == (100.0, 0.0)


# ------------------------------------------------------------------------------------- in triggers

HALF: dict[str, Any] = {
    "keypoint": "snout",
    "rectangle": {"x_px": 0, "y_px": 0, "width_px": 100, "height_px": 100},
}


def test_a_doubtful_keypoint_is_missing() -> None:
    trigger = make_trigger("region", **HALF, when="inside", min_confidence=0.5)
    for at_ms, (confidence, decision) in enumerate([(0.5, "HIGH"), (0.49, "LOW"), (0.9, "HIGH")]):
        pose = make_pose((5, 5), at_ms=at_ms, confidence=confidence)
        assert trigger.update(pose) is Decision[decision]


def test_a_jump_fires_nothing() -> None:
    walk: list[Place] = [(150, 5), (150, 5), (5, 5), (150, 5), (130, 5), (110, 5), (90, 5)]
    assert decide_on(make_trigger("region", **HALF, when="enter"), walk) == "..F...F"
    gated = make_trigger("region", **HALF, when="enter", max_jump_px_s=2500)
    assert decide_on(gated, walk) == "......F"


def test_the_filter_applies_to_inner_conditions_too_and_forgets_when_time_goes_back() -> None:
    inner = {"type": "region", **HALF}
    trigger = make_trigger("all", of=[inner], when="while", filter={"type": "median", "poses": 3})
    assert decide_on(trigger, [(5, 5), (150, 5), (5, 5), (150, 5), (150, 5)]) == "HHHLL"
    assert decide_on(trigger, [(5, 5)]) == "H"
