"""Evaluation: how far an exported model is off, in px of the full frames, and when it knows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from rich.console import Console

from rtpose.errors import InputError
from rtpose.estimator import Provider
from rtpose.model_card import ModelCard
from rtpose_train.evaluation import metrics
from rtpose_train.evaluation.measure import Choices, measure, measure_level
from rtpose_train.evaluation.predict import TEST, Predictions, predict, resolve_model
from rtpose_train.evaluation.report_page import write_page
from rtpose_train.evaluation.report_tables import show
from rtpose_train.evaluation.sweeps import SWEEPS, Level, levels, unchanged
from rtpose_train.evaluation.training_log import read_log
from rtpose_train.exporting.onnx_graph import write_model

__all__ = ["evaluate", "record", "show"]

#: What of an evaluation a model's card keeps.
_KEPT = ("frames", "labels", "missed", "error_px", "keypoints")


def evaluate(
    model: Path,
    project: Path,
    *,
    split: Path | None = None,
    part: str | None = None,
    individual: str | None = None,
    reference: tuple[str, str] | None = None,
    within_px: float | None = None,
    oks_sigma: Sequence[str] = (),
    min_confidence: float | None = None,
    sweeps: Sequence[str] = (),
    provider: Provider = "cpu",
    threads: int = 1,
    html: Path | None = None,
    run: Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Compare an exported model, run by the live service's estimator, with the labels of a project.

    Parameters
    ----------
    model : Path
        Exported ONNX file.
    project : Path
        What `dataset.read_project` reads. Keypoints that only the model or only the project has are
        left out, and named under ``not_compared``.
    split : Path, optional
        JSON file of a split; all labelled frames if absent.
    part : {'test', 'validation', 'train'}, optional
        Which frames of the split: those of the test if absent.
    individual : str, optional
        Which animal, where frames have several.
    reference : (str, str), optional
        Two keypoints, whose labelled distance in a frame is the length that errors are set against.
    within_px : float, optional
        How far off a keypoint may be to count as right in the calibration; a twentieth of the
        median reference length if absent, 5 px without a reference.
    oks_sigma : sequence of str
        Constants of the OKS: ``"0.05"`` for all keypoints, ``"snout=0.05"`` for one; 0.025 if
        absent.
    min_confidence : float, optional
        Threshold; the card's if absent.
    sweeps : sequence of {'scale', 'compression'}
        Robustness tests to run, see `sweeps`.
    provider, threads
        As for `rtpose.estimator.Estimator`.
    html : Path, optional
        Write a report for people here.
    run : Path, optional
        Run folder with the training log, for the report; the model's own folder if absent.
    console : Console, optional
        Where the progress bar goes; none if absent.

    Returns
    -------
    dict
        A summary is ``{mean, median, p95, max}`` over the labels that were found; None where there
        are none.

        * ``model`` (name, file, sha256, provider) and ``data`` (project, split, part).
        * ``frames``, ``labels``, ``missed`` (labelled, but the map has no peak).
        * ``error_px``: summary in px of the full frame, and ``mean_interval_95``: ends of the 95 %
          interval of the mean, by bootstrap over the frames.
        * ``keypoints.<name>``: the same summary of one keypoint, with its ``labels``.
        * ``not_compared.model``, ``not_compared.project``: keypoints of one side only.
        * ``reference`` (None without one): ``keypoints``, ``frames`` where both are labelled,
          ``length_px`` (summary), ``error`` (summary, as fractions of the length).
        * ``pck.px`` and ``pck.reference``: fraction of the labels within a threshold; ``points``
          by threshold, ``curve.threshold`` and ``curve.fraction``.
        * ``oks``: ``sigma`` by keypoint, ``frames`` that count, ``mean``, ``ap`` (mean of 0.50 to
          0.95), ``ap50``, ``ap75``; ``scale`` says what the scale is.
        * ``confidence``: ``within_px``, ``expected_calibration_error``, ``bins`` (of
          `metrics.ReliabilityBin`), ``threshold`` with ``above`` and ``below``: ``labels``,
          ``within`` and ``error_px``; and ``missing``: labels that frames lack (see
          `measure.missing`).
        * ``worst_frames``: the largest errors first, ``px`` None where a keypoint was missed.
        * ``sweeps.<name>``: one entry per level, with ``error_px``, ``missed`` and
          ``below_threshold``.
        * ``notes``: what was left out, in words.

    Raises
    ------
    ModelError, ProviderError
        If the model is missing or damaged, or cannot run where it should.
    InputError
        If the project cannot be used, has no keypoint of the model, or an option makes no sense.
    RecordingError
        If the report cannot be written.
    """
    if html is not None and not html.absolute().parent.is_dir():
        raise InputError(f"--html {html}: no folder {html.absolute().parent}")
    if run is not None and html is None:
        raise InputError("--run is for the training curve of the report: give --html too")
    model = resolve_model(model)
    log = read_log(run, model.parent) if html else {}
    steps = {sweep: levels(sweep) for sweep in dict.fromkeys(sweeps)}
    predictions = predict(
        model,
        project,
        split=split,
        part=part,
        individual=individual,
        provider=provider,
        threads=threads,
        min_confidence=min_confidence,
        views=[unchanged, *(level.view for sweep in steps.values() for level in sweep)],
        console=console,
    )
    choices = _choose(predictions.names, reference, oks_sigma, within_px)
    result = {
        **_describe(predictions, split, part),
        **measure(predictions, choices),
        "sweeps": _measure_sweeps(predictions, steps),
        "notes": list(predictions.notes),
    }
    if html is not None:
        write_page(html, predictions, result, log)
    return result


def _choose(
    names: Sequence[str],
    reference: tuple[str, str] | None,
    oks_sigma: Sequence[str],
    within_px: float | None,
) -> Choices:
    """Check the options that name keypoints or carry numbers."""
    places = None
    if reference is not None:
        _require_known("--reference", reference, names)
        if reference[0] == reference[1]:
            raise InputError(f"--reference {' '.join(reference)}: give two different keypoints")
        places = (names.index(reference[0]), names.index(reference[1]))
    if within_px is not None and not 0 < within_px < np.inf:
        raise InputError(f"--within-px {within_px}: allowed: more than 0")
    sigmas = np.full(len(names), metrics.STRICTEST_SIGMA)
    for text in sorted(oks_sigma, key=lambda text: "=" in text):  # "for all" first
        name, _, number = text.rpartition("=")
        if name:
            _require_known("--oks-sigma", (name,), names)
        try:
            sigma = float(number)
        except ValueError:
            sigma = np.nan
        if not 0 < sigma < np.inf:
            raise InputError(f"--oks-sigma {text}: give NUMBER or KEYPOINT=NUMBER, more than 0")
        sigmas[names.index(name) if name else slice(None)] = sigma
    return Choices(places, sigmas, within_px)


def _require_known(option: str, given: Sequence[str], names: Sequence[str]) -> None:
    unknown = [name for name in given if name not in names]
    if unknown:
        raise InputError(
            f"{option}: no keypoint {', '.join(map(repr, unknown))} is compared; "
            f"allowed: {', '.join(names)}"
        )


def _describe(predictions: Predictions, split: Path | None, part: str | None) -> dict[str, Any]:
    return {
        "model": {
            "name": predictions.card.name,
            "file": predictions.model.name,
            "sha256": predictions.model_hash,
            "provider": predictions.provider,
        },
        "data": {
            "project": predictions.project.root.resolve().name,
            "split": split.name if split else None,
            "part": (part or TEST) if split else "all labelled frames",
        },
    }


def _measure_sweeps(
    predictions: Predictions, steps: dict[str, tuple[Level, ...]]
) -> dict[str, list[dict[str, Any]]]:
    views = iter(predictions.found[1:])
    return {
        sweep: [
            {SWEEPS[sweep].unit: level.value, **measure_level(predictions, next(views))}
            for level in levels_of
        ]
        for sweep, levels_of in steps.items()
    }


def record(model: Path, result: dict[str, Any], frames: str) -> None:
    """Write the errors of an evaluation into the card's provenance, under ``unseen_frames``."""
    graph = onnx.load(model)
    metadata = {entry.key: entry.value for entry in graph.metadata_props}
    card = ModelCard.from_metadata(metadata, str(model))
    kept = {key: result[key] for key in _KEPT}
    provenance = {**card.provenance, "unseen_frames": {"which": frames, **kept}}
    write_model(graph, card.model_copy(update={"provenance": provenance}), model)
