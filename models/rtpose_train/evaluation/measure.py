"""What of predictions goes into an evaluation: every figure, ready to be written as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtpose.errors import InputError
from rtpose_train.decode import errors_px
from rtpose_train.evaluation import metrics
from rtpose_train.evaluation.predict import Predictions

_F64 = NDArray[np.float64]

_SEED = 0
_WORST = 12
_CURVE_POINTS = 41
_PCK_PX = (1.0, 2.0, 5.0, 10.0)
_PCK_REFERENCE = (0.05, 0.1, 0.2)
_WITHIN_PX, _WITHIN_REFERENCE = 5.0, 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Choices:
    """What is measured besides the error in px.

    Attributes
    ----------
    reference : (int, int) or None
        Keypoints whose labelled distance errors are set against.
    sigmas : ndarray of float64, shape (keypoints,)
        Constants of the object keypoint similarity.
    within_px : float or None
        How far off a right keypoint may be; None stands for a twentieth of the median
        reference length, or for 5 px without a reference.
    """

    reference: tuple[int, int] | None
    sigmas: _F64
    within_px: float | None


def measure(predictions: Predictions, choices: Choices) -> dict[str, Any]:
    """Return the figures that `evaluate.evaluate` documents, of the first view.

    Raises
    ------
    InputError
        If the two keypoints of the reference are nowhere labelled together.
    """
    names, labels, found = predictions.names, predictions.labels, predictions.found[0]
    errors = errors_px(list(found), list(labels))
    lengths = _lengths(labels, names, choices)
    within_px = choices.within_px
    if within_px is None:
        within_px = (
            _WITHIN_PX if lengths is None else _WITHIN_REFERENCE * float(np.nanmedian(lengths))
        )
    finds, labelled = predictions.card.keypoints().names, predictions.project.skeleton.names
    return {
        "frames": len(labels),
        "labels": _count(~np.isnan(errors)),
        "missed": _count(np.isinf(errors)),
        "error_px": _error(errors),
        "keypoints": {
            name: {**metrics.describe(errors[:, k]), "labels": _count(~np.isnan(errors[:, k]))}
            for k, name in enumerate(names)
        },
        "not_compared": {
            "model": [name for name in finds if name not in names],
            "project": [name for name in labelled if name not in names],
        },
        "reference": _reference(errors, lengths, names, choices),
        "pck": _pck(errors, lengths),
        "oks": _oks(errors, labels, found[..., 2], names, choices.sigmas),
        "confidence": {
            "within_px": round(within_px, 3),
            **_calibration(errors, found[..., 2], within_px, predictions.min_confidence),
            "missing": missing(labels, found[..., 2], names, predictions.min_confidence),
        },
        "worst_frames": _worst(errors, predictions),
    }


def _count(which: NDArray[np.bool_]) -> int:
    return int(which.sum())


def _round(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def _error(errors: _F64) -> dict[str, Any]:
    interval = metrics.mean_interval(errors, seed=_SEED)
    return {
        **metrics.describe(errors),
        "mean_interval_95": interval and [round(end, 3) for end in interval],
    }


def _lengths(labels: _F64, names: Sequence[str], choices: Choices) -> _F64 | None:
    if choices.reference is None:
        return None
    first, second = choices.reference
    lengths = metrics.reference_lengths(labels, first, second)
    if np.isnan(lengths).all():
        raise InputError(
            f"--reference {names[first]} {names[second]}: not labelled together, "
            "apart from each other, in any frame; name two others"
        )
    return lengths


def _reference(
    errors: _F64, lengths: _F64 | None, names: Sequence[str], choices: Choices
) -> dict[str, Any] | None:
    if lengths is None or choices.reference is None:
        return None
    return {
        "keypoints": [names[place] for place in choices.reference],
        "frames": _count(~np.isnan(lengths)),
        "length_px": metrics.describe(lengths),
        "error": metrics.describe(errors / lengths[:, None]),
    }


def _pck(errors: _F64, lengths: _F64 | None) -> dict[str, Any]:
    curves = {"px": _pck_curve(errors, _PCK_PX), "reference": None}
    if lengths is not None:
        curves["reference"] = _pck_curve(errors / lengths[:, None], _PCK_REFERENCE)
    return curves


def _pck_curve(errors: _F64, points: Sequence[float]) -> dict[str, Any]:
    found = errors[np.isfinite(errors)]
    highest = max(points[-1], float(np.percentile(found, 98)) if found.size else 0.0)
    thresholds = np.linspace(0.0, highest, _CURVE_POINTS)
    named = metrics.fraction_within(errors, np.array(points))
    return {
        "points": {f"{point:g}": _round(value) for point, value in zip(points, named, strict=True)},
        "curve": {
            "threshold": [round(float(value), 4) for value in thresholds],
            "fraction": [_round(value) for value in metrics.fraction_within(errors, thresholds)],
        },
    }


def _oks(
    errors: _F64, labels: _F64, confidence: _F64, names: Sequence[str], sigmas: _F64
) -> dict[str, Any]:
    """Return mean similarity and average precision; an answer's score is its mean confidence."""
    similarities = metrics.keypoint_similarity(errors, metrics.label_areas(labels), sigmas)
    counted = ~np.isnan(similarities)
    similarities, scores = similarities[counted], confidence.mean(axis=1)[counted]
    precisions = [
        metrics.average_precision(similarities, scores, threshold)
        for threshold in metrics.COCO_THRESHOLDS
    ]
    return {
        "sigma": dict(zip(names, sigmas.tolist(), strict=True)),
        "scale": "square root of the area of the box around the labelled keypoints",
        "frames": _count(counted),
        "mean": _round(similarities.mean()) if similarities.size else None,
        "ap": _round(float(np.mean(precisions))),
        "ap50": _round(precisions[0]),
        "ap75": _round(precisions[5]),
    }


def _calibration(
    errors: _F64, confidence: _F64, within_px: float, min_confidence: float
) -> dict[str, Any]:
    """Return how well the confidence of a labelled keypoint tells whether it is right."""
    labelled = ~np.isnan(errors)
    bins = metrics.reliability(confidence[labelled], errors[labelled] <= within_px)
    sides = {}
    for side, inside in (
        ("above", labelled & (confidence >= min_confidence)),
        ("below", labelled & (confidence < min_confidence)),
    ):
        within = metrics.fraction_within(errors[inside], np.array([within_px]))[0]
        sides[side] = {
            "labels": _count(inside),
            "within": _round(within),
            "error_px": metrics.describe(errors[inside]),
        }
    return {
        "expected_calibration_error": _round(metrics.expected_calibration_error(bins)),
        "bins": [
            {
                "low": one.low,
                "high": one.high,
                "count": one.count,
                "confidence": _round(one.confidence),
                "fraction_right": _round(one.fraction_right),
            }
            for one in bins
        ],
        "threshold": {"min_confidence": min_confidence, **sides},
    }


def labelled_and_missing(labels: _F64) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which keypoints are labelled, and which are not in a frame where others are.

    Parameters
    ----------
    labels : ndarray of float64, shape (frames, keypoints, 2)

    Returns
    -------
    ndarray of bool, twice, shape (frames, keypoints)
    """
    seen = ~np.isnan(labels[..., 0])
    return seen, ~seen & seen.any(axis=1, keepdims=True)


def missing(
    labels: _F64, confidence: _F64, names: Sequence[str], min_confidence: float
) -> dict[str, Any] | None:
    """Return how well the confidence tells labelled keypoints from those that nobody labelled.

    A keypoint counts as missing where a frame has labels and none of it: the frame was looked at.

    Returns
    -------
    dict, or None if no keypoint is missing
        ``labelled`` and ``missing``: ``count``, ``above_threshold`` and ``confidence`` (summary);
        ``auc``; and by keypoint ``missing`` and ``auc``.
    """
    seen, absent = labelled_and_missing(labels)
    if not absent.any():
        return None

    def of(which: NDArray[np.bool_]) -> dict[str, Any]:
        return {
            "count": _count(which),
            "above_threshold": _count(which & (confidence >= min_confidence)),
            "confidence": metrics.describe(confidence[which]),
        }

    def area(seen: _F64, absent: _F64) -> float | None:
        value = metrics.auc(seen, absent)
        return None if value is None else round(value, 4)

    return {
        "labelled": of(seen),
        "missing": of(absent),
        "auc": area(confidence[seen], confidence[absent]),
        "keypoints": {
            name: {
                "missing": _count(absent[:, k]),
                "auc": area(confidence[seen[:, k], k], confidence[absent[:, k], k]),
            }
            for k, name in enumerate(names)
            if absent[:, k].any()
        },
    }


def _worst(errors: _F64, predictions: Predictions) -> list[dict[str, Any]]:
    """Return the frames with the largest errors of one keypoint, one that was missed before all."""
    largest = np.where(np.isnan(errors), -1.0, errors)
    by_error = np.argsort(-largest.max(axis=1), kind="stable")[:_WORST]
    worst = []
    for index in map(int, by_error):
        keypoint = int(largest[index].argmax())
        if largest[index, keypoint] >= 0:
            frame = predictions.frames[index]
            px = _round(largest[index, keypoint])
            name = predictions.names[keypoint]
            worst.append(
                {"frame": frame.name, "where": frame.where, "index": index}
                | {"keypoint": name, "px": px}
            )
    return worst


def measure_level(predictions: Predictions, found: _F64) -> dict[str, Any]:
    """Return the figures of one level of a sweep.

    Parameters
    ----------
    predictions : Predictions
        With the labels.
    found : ndarray of float64, shape (frames, keypoints, 3)
        What was found at this level.
    """
    errors = errors_px(list(found), list(predictions.labels))
    labelled = ~np.isnan(errors)
    return {
        "error_px": _error(errors),
        "missed": _count(np.isinf(errors)),
        "below_threshold": _count(labelled & (found[..., 2] < predictions.min_confidence)),
    }
