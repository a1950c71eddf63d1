"""The figures of an evaluation are what their definitions say."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from rtpose_train.evaluation import metrics

_F64 = NDArray[np.float64]

#: Errors as evaluation makes them: some not labelled, some not found.
ERRORS = arrays(
    np.float64,
    st.tuples(st.integers(1, 12), st.integers(1, 5)),
    elements=st.one_of(st.floats(0, 200, width=32), st.just(math.nan), st.just(math.inf)),
)
#: Few values, so that ties are common.
SCORES = st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.9, 1.0]), max_size=12).map(np.array)


@given(SCORES, SCORES)
def test_auc_counts_the_pairs(positive: _F64, negative: _F64) -> None:
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    expected = float(np.mean(pairs)) if pairs else None
    assert metrics.auc(positive, negative) == (
        None if expected is None else pytest.approx(expected)
    )


@given(ERRORS, st.lists(st.floats(0, 300), min_size=2, max_size=8))
def test_pck_is_the_counted_fraction_and_never_falls(errors: _F64, given_at: list[float]) -> None:
    thresholds = np.sort(np.array(given_at))
    fractions = metrics.fraction_within(errors, thresholds)
    labelled = errors[~np.isnan(errors)]
    if not labelled.size:
        assert np.isnan(fractions).all()
        return
    assert fractions.tolist() == pytest.approx([np.mean(labelled <= at) for at in thresholds])
    assert (np.diff(fractions) >= 0).all()
    assert metrics.fraction_within(errors, np.array([1e9]))[0] == pytest.approx(
        np.isfinite(labelled).mean()
    )


@given(ERRORS)
def test_a_summary_knows_only_what_was_found(errors: _F64) -> None:
    summary = metrics.describe(errors)
    found = errors[np.isfinite(errors)]
    if not found.size:
        assert set(summary.values()) == {None}
        return
    assert summary["mean"] == pytest.approx(found.mean(), abs=1e-3)
    assert summary["median"] == pytest.approx(np.median(found), abs=1e-3)
    median, p95, largest = (summary[key] or 0.0 for key in ("median", "p95", "max"))
    assert median <= p95 <= largest


@given(ERRORS)
def test_the_interval_holds_the_mean_and_stays_within_the_errors(errors: _F64) -> None:
    interval = metrics.mean_interval(errors, seed=0, resamples=200)
    assert interval == metrics.mean_interval(errors, seed=0, resamples=200)
    usable = np.isfinite(errors).any(axis=1)
    if usable.sum() < 2:
        assert interval is None
        return
    assert interval is not None
    found = errors[np.isfinite(errors)]
    low, high = interval
    assert found.min() - 1e-9 <= low <= high <= found.max() + 1e-9


def test_the_interval_is_as_wide_as_statistics_says() -> None:
    rng = np.random.default_rng(1)
    errors = np.repeat(rng.normal(10, 2, (400, 1)), 5, axis=1)  # the keypoints of a frame agree
    interval = metrics.mean_interval(errors, seed=0)
    assert interval is not None
    low, high = interval
    assert high - low == pytest.approx(2 * 1.96 * 2 / math.sqrt(400), rel=0.15)


LABELS = arrays(
    np.float64,
    st.tuples(st.integers(1, 6), st.integers(1, 5), st.just(2)),
    elements=st.floats(0, 500, width=32),
)


@given(LABELS, st.floats(0.01, 0.2), st.data())
def test_oks_is_1_without_error_and_falls_with_it(
    labels: _F64, sigma: float, data: st.DataObject
) -> None:
    missing = data.draw(arrays(np.bool_, labels.shape[:2]))
    labels = np.where(missing[..., None], np.nan, labels)
    areas, sigmas = metrics.label_areas(labels), np.full(labels.shape[1], sigma)
    errors = np.where(missing, np.nan, 0.0)
    perfect = metrics.keypoint_similarity(errors, areas, sigmas)
    np.testing.assert_array_equal(np.isnan(perfect), np.isnan(areas))
    counted = ~np.isnan(areas)
    assert (perfect[counted] == 1).all()
    near, far = (metrics.keypoint_similarity(errors + px, areas, sigmas) for px in (1.0, 2.0))
    assert (near[counted] <= 1).all()
    assert (far[counted] <= near[counted]).all()
    not_found = metrics.keypoint_similarity(errors + np.inf, areas, sigmas)
    assert (not_found[counted] == 0).all()


def test_oks_is_that_of_cocos_definition() -> None:
    labels = np.array([[[0.0, 0.0], [20.0, 50.0], [np.nan, np.nan]]])
    errors = np.array([[3.0, 4.0, np.nan]])
    areas = metrics.label_areas(labels)
    assert areas.tolist() == [1000.0]
    expected = np.mean(
        [
            math.exp(-(3.0**2) / (2 * 1000 * (2 * 0.025) ** 2)),
            math.exp(-(4.0**2) / (2 * 1000 * (2 * 0.1) ** 2)),
        ]
    )
    found = metrics.keypoint_similarity(errors, areas, np.array([0.025, 0.1, 0.025]))
    assert found[0] == pytest.approx(expected)


def test_labels_without_an_area_do_not_count() -> None:
    one, line = [[5.0, 5.0], [np.nan, np.nan]], [[0.0, 3.0], [9.0, 3.0]]
    assert np.isnan(metrics.label_areas(np.array([one, line]))).all()


@given(arrays(np.float64, st.integers(1, 20), elements=st.floats(0, 1)), st.data())
def test_average_precision_lies_between_its_limits(similar: _F64, data: st.DataObject) -> None:
    scores = data.draw(arrays(np.float64, similar.shape, elements=st.floats(0, 1)))
    precisions = [metrics.average_precision(similar, scores, at) for at in (0.0, 0.3, 0.8)]
    assert precisions[0] == pytest.approx(1.0)
    assert precisions == sorted(precisions, reverse=True)
    assert precisions[-1] >= 0.0


def test_average_precision_prefers_the_sure_answers_right() -> None:
    similar = np.array([0.9, 0.9, 0.1, 0.1])
    sure_right = metrics.average_precision(similar, np.array([4.0, 3.0, 2.0, 1.0]), 0.5)
    sure_wrong = metrics.average_precision(similar, np.array([1.0, 2.0, 3.0, 4.0]), 0.5)
    # Half of the animals found, at once: precision 1 up to and at recall 0.5, 51 of 101 recalls.
    assert sure_right == pytest.approx(51 / 101)
    # The right ones come third and fourth: precision 1/2 at most.
    assert sure_wrong == pytest.approx(51 / 101 / 2)


def test_perfect_calibration_has_no_calibration_error() -> None:
    confidence = np.repeat([0.05, 0.25, 0.75, 1.0], 100)
    right = np.concatenate([np.arange(100) < 100 * part for part in (0.05, 0.25, 0.75, 1.0)])
    bins = metrics.reliability(confidence, right)
    assert metrics.expected_calibration_error(bins) == pytest.approx(0.0)
    assert [one.count for one in bins] == [100, 0, 100, 0, 0, 0, 0, 100, 0, 100]
    overconfident = metrics.reliability(np.full(10, 0.95), np.arange(10) < 4)
    assert metrics.expected_calibration_error(overconfident) == pytest.approx(0.55)


@given(
    arrays(np.float64, st.integers(0, 30), elements=st.floats(-0.2, 1.2)),
    st.integers(1, 20),
    st.data(),
)
def test_every_keypoint_falls_into_one_bin(
    confidence: _F64, count: int, data: st.DataObject
) -> None:
    right = data.draw(arrays(np.bool_, confidence.shape))
    bins = metrics.reliability(confidence, right, count)
    assert sum(one.count for one in bins) == confidence.size
    hits = sum(one.fraction_right * one.count for one in bins if one.count)
    assert hits == pytest.approx(right.sum())
    for one in bins:
        assert math.isnan(one.confidence) or one.low - 1e-9 <= one.confidence <= one.high + 1e-9


def test_a_reference_needs_both_keypoints_apart() -> None:
    nan = np.nan
    labels = np.array([[[0, 0], [3, 4]], [[0, 0], [nan, nan]], [[7, 7], [7, 7]]], np.float64)
    lengths = metrics.reference_lengths(labels, 0, 1)
    assert lengths[0] == 5.0
    assert np.isnan(lengths[1:]).all()
