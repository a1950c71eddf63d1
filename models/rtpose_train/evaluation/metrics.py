"""What evaluation measures, as pure functions of errors, labels and confidences.

Errors are distances in px, shape (frames, keypoints), as `decode.errors_px` gives them: NaN where a
keypoint is not labelled, infinite where it is and was not found at all.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_F64 = NDArray[np.float64]

#: Smallest of the sigmas that COCO gives its keypoints (the eyes'), and what SLEAP takes for all.
STRICTEST_SIGMA = 0.025

#: Similarities at which COCO takes the average precision.
COCO_THRESHOLDS: _F64 = np.linspace(0.5, 0.95, 10)

_COCO_RECALLS: _F64 = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Keypoints of similar confidence.

    Attributes
    ----------
    low, high : float
        Confidences that fall into the bin: ``low <= confidence < high``; the last one keeps 1.
    count : int
        Keypoints in it.
    confidence : float
        Their mean confidence; NaN in an empty bin.
    fraction_right : float
        How many of them are right; NaN in an empty bin.
    """

    low: float
    high: float
    count: int
    confidence: float
    fraction_right: float


def describe(values: _F64) -> dict[str, float | None]:
    """Return mean, median, 95th percentile and maximum of what is finite; None where nothing is."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return {"mean": None, "median": None, "p95": None, "max": None}
    return {
        "mean": round(float(finite.mean()), 3),
        "median": round(float(np.median(finite)), 3),
        "p95": round(float(np.percentile(finite, 95)), 3),
        "max": round(float(finite.max()), 3),
    }


def mean_interval(errors: _F64, *, seed: int, resamples: int = 2000) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean error, by bootstrap over the frames.

    Frames are drawn with replacement, not keypoints: those of one frame err together (percentile
    interval, Efron and Tibshirani 1993, "An Introduction to the Bootstrap", section 13.3).

    Returns
    -------
    tuple of float, or None
        Lower and upper end in px; None with fewer than two frames.
    """
    finite = np.isfinite(errors)
    counts = finite.sum(axis=1)
    sums = np.where(finite, errors, 0.0).sum(axis=1)[counts > 0]
    counts = counts[counts > 0]
    if counts.size < 2:
        return None
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    for number in range(resamples):
        drawn = rng.integers(counts.size, size=counts.size)
        means[number] = sums[drawn].sum() / counts[drawn].sum()
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def reference_lengths(labels: _F64, first: int, second: int) -> _F64:
    """Return the distance of two labelled keypoints in every frame.

    Parameters
    ----------
    labels : ndarray of float64, shape (frames, keypoints, 2)
        x, y in px; NaN where not labelled.
    first, second : int
        Which keypoints.

    Returns
    -------
    ndarray of float64, shape (frames,)
        In px; NaN where one of them is not labelled or both are at one place.
    """
    lengths: _F64 = np.linalg.norm(labels[:, first] - labels[:, second], axis=1)
    return np.where(lengths > 0, lengths, np.nan)


def fraction_within(errors: _F64, thresholds: _F64) -> _F64:
    """Return the fraction of labelled keypoints that are at most so far off: the PCK curve.

    The percentage of correct keypoints of Yang and Ramanan (2013, "Articulated human detection with
    flexible mixtures of parts", section 7.1). A keypoint that was not found is never correct.

    Parameters
    ----------
    errors : ndarray of float64
        In px, or as fractions of a reference length.
    thresholds : ndarray of float64, shape (n,)
        In the same unit.

    Returns
    -------
    ndarray of float64, shape (n,)
        NaN if nothing is labelled.
    """
    labelled = np.sort(errors[~np.isnan(errors)])
    if not labelled.size:
        return np.full(thresholds.shape, np.nan)
    fractions: _F64 = np.searchsorted(labelled, thresholds, side="right") / labelled.size
    return fractions


def label_areas(labels: _F64) -> _F64:
    """Return the area of the box around the labelled keypoints of every frame, px squared.

    Parameters
    ----------
    labels : ndarray of float64, shape (frames, keypoints, 2)

    Returns
    -------
    ndarray of float64, shape (frames,)
        NaN where the box has no area: fewer than two labels, or all on one line with an axis.
    """
    low = np.where(np.isnan(labels), np.inf, labels).min(axis=1)
    high = np.where(np.isnan(labels), -np.inf, labels).max(axis=1)
    sides = np.maximum(high - low, 0.0)
    areas: _F64 = sides[:, 0] * sides[:, 1]
    return np.where(areas > 0, areas, np.nan)


def keypoint_similarity(errors: _F64, areas: _F64, sigmas: _F64) -> _F64:
    """Return the object keypoint similarity (OKS) of every frame.

    As COCO defines it (cocodataset.org, "Keypoint Evaluation", section 1.2): the mean over the
    labelled keypoints of ``exp(-d^2 / (2 s^2 k^2))`` with ``k = 2 sigma``, where ``s^2`` is the
    area of the object. COCO takes the area of its outline; here it is that of the box around the
    labelled keypoints.

    Parameters
    ----------
    errors : ndarray of float64, shape (frames, keypoints)
    areas : ndarray of float64, shape (frames,)
        See `label_areas`.
    sigmas : ndarray of float64, shape (keypoints,)
        Standard deviation of a person's labels, over ``s``.

    Returns
    -------
    ndarray of float64, shape (frames,)
        1 without error; NaN where the area is, or nothing is labelled.
    """
    labelled = ~np.isnan(errors)
    variances = 2 * areas[:, None] * (2 * sigmas) ** 2
    with np.errstate(under="ignore"):
        terms = np.where(labelled, np.exp(-(errors**2) / variances), 0.0)
    counts = labelled.sum(axis=1)
    similarities: _F64 = terms.sum(axis=1) / np.where(counts > 0, counts, np.nan)
    return similarities


def average_precision(similarities: _F64, scores: _F64, threshold: float) -> float:
    """Return COCO's average precision, with one animal and one answer per frame.

    The area under the precision-recall curve, the precision being made to fall and taken at 101
    recalls, of the answers in the order of their scores; an answer is right if its similarity is
    at least the threshold (cocodataset.org, "Detection Evaluation", and its reference evaluation).

    Parameters
    ----------
    similarities, scores : ndarray of float64, shape (frames,)
        The similarities without NaN.
    threshold : float
        Least similarity of a right answer.
    """
    if not similarities.size:
        return float("nan")
    right = similarities[np.argsort(-scores, kind="stable")] >= threshold
    hits = np.cumsum(right)
    precisions = hits / np.arange(1, right.size + 1)
    falling = np.append(np.maximum.accumulate(precisions[::-1])[::-1], 0.0)
    places = np.searchsorted(hits / right.size, _COCO_RECALLS, side="left")
    return float(falling[places].mean())


def reliability(
    confidence: _F64, right: NDArray[np.bool_], bins: int = 10
) -> tuple[ReliabilityBin, ...]:
    """Sort keypoints into bins of confidence, and count how many of each are right.

    Parameters
    ----------
    confidence : ndarray of float64, shape (n,)
        Clipped to 0..1: a map may rise a little above 1.
    right : ndarray of bool, shape (n,)
    bins : int
        Bins of equal width (Guo et al. 2017, "On calibration of modern neural networks", section
        2).
    """
    clipped = np.clip(confidence, 0.0, 1.0)
    which = np.minimum((clipped * bins).astype(np.int64), bins - 1)
    found = []
    for number in range(bins):
        inside = which == number
        count = int(inside.sum())
        mean = float(clipped[inside].mean()) if count else float("nan")
        fraction = float(right[inside].mean()) if count else float("nan")
        found.append(ReliabilityBin(number / bins, (number + 1) / bins, count, mean, fraction))
    return tuple(found)


def expected_calibration_error(bins: tuple[ReliabilityBin, ...]) -> float:
    """Return the mean distance of confidence and fraction right over all keypoints.

    Naeini et al. 2015, "Obtaining well calibrated probabilities using Bayesian binning", section
    "Calibration measures"; NaN without keypoints.
    """
    total = sum(one.count for one in bins)
    if not total:
        return float("nan")
    gaps = (one.count * abs(one.confidence - one.fraction_right) for one in bins if one.count)
    return sum(gaps) / total


def auc(positive: _F64, negative: _F64) -> float | None:
    """Return how often a positive is above a negative, ties counting half.

    The area under the receiver operating characteristic, as the Mann-Whitney statistic over the
    number of pairs (Hanley and McNeil 1982, Radiology 143:29); None if there is no pair.
    """
    if not positive.size or not negative.size:
        return None
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    not_above = np.searchsorted(ordered, positive, side="right")
    return float((below + not_above).mean() / (2 * negative.size))
