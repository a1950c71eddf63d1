"""What is reported of forecasts, against keeping every pose and every forecast."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rtpose.errors import InputError
from rtpose.forecast import ForecastErrors, ForecastSettings

F32 = NDArray[np.float32]
MS = 1_000_000


@dataclass
class PlainErrors:
    """Every pose and every forecast, kept; judged at the end, in the order of their poses."""

    max_gap_ns: int
    poses: list[tuple[int, F32, NDArray[Any]]] = field(default_factory=list)
    expected: list[tuple[int, int, F32]] = field(default_factory=list)  # pose, time, forecast

    def judged(self, keypoints: int) -> tuple[list[list[tuple[float, float]]], list[float], int]:
        """Return distances per keypoint, horizons in ms, and how many could not be judged."""
        found: list[list[tuple[float, float]]] = [[] for _ in range(keypoints)]
        horizons, unjudged = [], 0
        for number in range(1, len(self.poses)):
            (t0, p0, v0), (t1, p1, v1) = self.poses[number - 1 : number + 1]
            for source, time_ns, forecast in list(self.expected):
                if source >= number:
                    continue
                if t1 <= t0:
                    lost = True
                elif time_ns > t1:
                    continue
                else:
                    lost = t1 - t0 > self.max_gap_ns
                self.expected = [e for e in self.expected if e[2] is not forecast]
                if lost:
                    unjudged += 1
                    continue
                start_ns, pose, valid = self.poses[source]
                horizons.append((time_ns - start_ns) / 1e6)
                part = (time_ns - t0) / (t1 - t0)
                for k in range(keypoints):
                    if not (valid[k] and v0[k] and v1[k]) or np.isnan(forecast[k, 0]):
                        continue
                    true = p0[k, :2].astype(float) * (1 - part) + p1[k, :2].astype(float) * part
                    found[k].append(
                        (math.dist(forecast[k, :2], true), math.dist(pose[k, :2], true))
                    )
        return found, horizons, unjudged


def nearest_rank(values: list[float], part: float) -> float:
    return sorted(values)[max(1, math.ceil(part * len(values))) - 1]


@given(data=st.data())
def test_reported_errors_are_those_of_everything_kept(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    keypoints, count = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 30))
    window = data.draw(st.sampled_from([5, 100]))
    longest_ms = data.draw(st.sampled_from([8, 40, 120]))
    judge = ForecastErrors(ForecastSettings(max_gap_ms=50.0), keypoints, window)
    plain = PlainErrors(50 * MS)
    now_ns = 10**9
    steps_ms = [1, 7, 10, 10, 10, 33, 50, 51, data.draw(st.sampled_from([10, 0, -20]))]
    for _ in range(count):
        now_ns += int(rng.choice(steps_ms)) * MS
        pose = rng.uniform(0, 100, (keypoints, 3)).astype(np.float32)
        valid = (rng.random(keypoints) < 0.9).astype(np.uint8)
        judge.update(now_ns, pose, valid)
        plain.poses.append((now_ns, pose, valid))
        for _ in range(int(rng.integers(0, 3))):
            time_ns = now_ns + int(rng.integers(0, longest_ms + 1)) * MS
            forecast = rng.uniform(0, 100, (keypoints, 3)).astype(np.float32)
            forecast[rng.random(keypoints) < 0.1] = np.nan
            judge.expect(time_ns, forecast)
            plain.expected.append((len(plain.poses) - 1, time_ns, forecast))
    found, horizons, unjudged = plain.judged(keypoints)
    report = judge.report()
    assert (report["judged"], report["unjudged"]) == (len(horizons), unjudged)
    recent = [errors[-window:] for errors in found]
    pooled = [pair for errors in recent for pair in errors]
    for rows, place in [(pooled, report), *zip(recent, report["keypoints"], strict=True)]:
        for column, name in enumerate(("forecast_px", "last_pose_px")):
            values = [row[column] for row in rows]
            _agrees(place[name], values, 1e-4)
    _agrees(report["horizon_ms"], horizons[-window:], 1e-9)


def _agrees(reported: dict[str, float] | None, values: list[float], tolerance: float) -> None:
    if not values:
        assert reported is None
        return
    assert reported is not None
    for name, part in (("p50", 0.5), ("p95", 0.95)):
        assert reported[name] == pytest.approx(nearest_rank(values, part), abs=tolerance)


def test_a_perfect_forecast_errs_by_nothing_and_the_last_pose_by_the_way_gone() -> None:
    judge = ForecastErrors(ForecastSettings(), 1)
    for frame in range(20):
        now_ns = frame * 10 * MS
        judge.update(now_ns, np.array([[3.0 * frame, 0, 1]]), np.ones(1))
        judge.expect(now_ns + 25 * MS, np.array([[3.0 * frame + 7.5, 0, 1]], np.float32))
    report = judge.report()
    assert report["horizon_ms"] == {"p50": 25, "p95": 25}
    assert report["forecast_px"]["p95"] == pytest.approx(0, abs=1e-4)
    assert report["last_pose_px"]["p50"] == pytest.approx(7.5, abs=1e-4)
    assert (report["judged"], report["unjudged"]) == (17, 0)


def test_forecasts_that_are_too_many_to_wait_are_counted() -> None:
    judge = ForecastErrors(ForecastSettings(), 1)
    judge.update(0, np.zeros((1, 3)), np.ones(1))
    for number in range(300):
        judge.expect(number * 1000, np.zeros((1, 3), np.float32))
    judge.update(10 * MS, np.zeros((1, 3)), np.ones(1))
    report = judge.report()
    assert (report["judged"], report["unjudged"]) == (256, 44)


def test_a_forecast_before_its_pose_is_refused() -> None:
    judge = ForecastErrors(ForecastSettings(), 1)
    with pytest.raises(InputError, match="before any pose"):
        judge.expect(0, np.zeros((1, 3), np.float32))
    judge.update(10, np.zeros((1, 3)), np.ones(1))
    with pytest.raises(InputError, match="before any pose"):
        judge.expect(9, np.zeros((1, 3), np.float32))
    with pytest.raises(InputError, match="announced"):
        judge.expect(10, np.zeros((2, 3), np.float32))
    with pytest.raises(InputError, match="at least 1"):
        ForecastErrors(ForecastSettings(), 1, window=0)
