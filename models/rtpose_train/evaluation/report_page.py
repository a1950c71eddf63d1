"""An evaluation as one self-contained web page: no script, nothing to fetch."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from rtpose_train.data.dataset import read_image
from rtpose_train.decode import errors_px
from rtpose_train.evaluation import pictures, plots
from rtpose_train.evaluation.measure import labelled_and_missing
from rtpose_train.evaluation.predict import Predictions
from rtpose_train.evaluation.report_tables import FIGURES, number, percent, summary_lines
from rtpose_train.evaluation.sweeps import SWEEPS
from rtpose_train.evaluation.training_log import TrainingLog
from rtpose_train.files import write_file

_MONTAGE = 12

_STYLE = """
:root{color-scheme:light}
body{font:16px/1.5 system-ui,sans-serif;color:#1a1a1a;background:#fff;max-width:60rem;
margin:0 auto;padding:1rem}
h1{font-size:1.6rem;margin:.5rem 0}h2{font-size:1.2rem;margin:2rem 0 .5rem;
border-bottom:1px solid #ccc}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.2rem .7rem;text-align:right;border-bottom:1px solid #e4e4e4}
th:first-child,td:first-child{text-align:left}
tr.all td{font-weight:bold}
.facts th{font-weight:normal;color:#555;vertical-align:top}.facts td{text-align:left;
overflow-wrap:anywhere}
.note{background:#fff4e0;border-left:4px solid #d55e00;padding:.4rem .8rem;margin:.5rem 0}
img{max-width:100%;height:auto}
.plot img{width:40rem}
figure{margin:.8rem 0}figcaption{font-size:.85rem;color:#444;overflow-wrap:anywhere}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(14rem,1fr));gap:.8rem}
.grid figure{margin:0;break-inside:avoid}.grid img{width:100%}
.key{display:inline-block;width:.8em;height:.8em;border-radius:50%;border:1px solid #000;
margin:0 .3em 0 .9em}
.small{font-size:.85rem;color:#444}
@media print{h2{break-after:avoid}figure,table{break-inside:avoid}body{font-size:11px}
.grid{grid-template-columns:repeat(3,1fr)}}
"""


def write_page(
    file: Path, predictions: Predictions, result: dict[str, Any], log: TrainingLog
) -> None:
    """Write the report of an evaluation.

    Parameters
    ----------
    file : Path
        HTML file to write.
    predictions : Predictions
        What was compared.
    result : dict
        What `evaluate.evaluate` returns of it.
    log : dict
        The training's log; empty if there is none.

    Raises
    ------
    RecordingError
        If the file cannot be written.
    """
    errors = errors_px(list(predictions.found[0]), list(predictions.labels))
    title = f"{predictions.card.name} on {result['data']['project']}"
    sections = [
        _header(predictions, result, title),
        _errors(result, errors, predictions.names),
        _confidence(predictions, result["confidence"]),
        _training(log),
        *(_sweep(name, entries) for name, entries in result["sweeps"].items()),
        _worst(predictions, result["worst_frames"]),
        _montage(predictions),
        _method(result),
    ]
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>\n"
        + "\n".join(sections)
        + "\n</body></html>\n"
    )
    write_file(file, page)


# -------------------------------------------------------------------------------- building blocks


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], last: str = "") -> str:
    """Return a table; the row that begins with `last` stands out."""
    cells = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = [
        ('<tr class="all">' if row[0] == last else "<tr>")
        + "".join(f"<td>{escape(cell)}</td>" for cell in row)
        + "</tr>"
        for row in rows
    ]
    return f'<div class="wide"><table><tr>{cells}</tr>{"".join(lines)}</table></div>'


def _image(kind: str, content: bytes, alt: str) -> str:
    encoded = base64.b64encode(content).decode()
    return f'<img src="data:image/{kind};base64,{encoded}" alt="{escape(alt)}">'


def _plot(content: bytes, alt: str, caption: str) -> str:
    image = _image("svg+xml", content, alt)
    return f'<figure class="plot">{image}<figcaption>{escape(caption)}</figcaption></figure>'


def _picture(content: bytes, alt: str, caption: str) -> str:
    image = _image("jpeg", content, alt)
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


# --------------------------------------------------------------------------------------- sections


def _header(predictions: Predictions, result: dict[str, Any], title: str) -> str:
    card, error, data = predictions.card, result["error_px"], result["data"]
    labels = card.provenance.get("labels")
    known = labels if isinstance(labels, dict) else {}
    spec = card.input
    frames = f"{result['frames']} frames, {result['labels']} labels: {data['part']}"
    facts = {
        "mean error": f"{number(error['mean'])} px (median {number(error['median'])}, "
        f"p95 {number(error['p95'])}, max {number(error['max'])})",
        "frames": frames + (f" of {data['split']}" if data["split"] else ""),
        "model": f"{result['model']['file']}, {predictions.model.stat().st_size / 1000:.0f} kB, "
        f"SHA-256 {predictions.model_hash}",
        "network": f"{card.network}, input {spec.width_px}x{spec.height_px} {spec.colour}, "
        f"maps {card.maps.width}x{card.maps.height}, run on {result['model']['provider']}",
        "species": card.species or "not said",
        "keypoints": ", ".join(card.keypoints().names),
        "confidence threshold": f"{predictions.min_confidence:g}"
        + (
            f" (card: {card.min_confidence:g})"
            if predictions.min_confidence != card.min_confidence
            else ""
        ),
        **{f"trained on: {key}": str(value) for key, value in known.items()},
        "validation error in training": f"{number(card.provenance.get('validation_px'))} px",
        "start weights": str(card.provenance.get("start_weights", "not said")),
    }
    rows = "".join(
        f'<tr><th scope="row">{escape(key)}</th><td>{escape(value)}</td></tr>'
        for key, value in facts.items()
    )
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in result["notes"])
    table = f'<div class="wide"><table class="facts">{rows}</table></div>'
    return f"<h1>{escape(title)}</h1>{notes}{table}"


def _errors(result: dict[str, Any], errors: plots._F64, names: Sequence[str]) -> str:
    summaries = {**result["keypoints"], "all": {**result["error_px"], "labels": result["labels"]}}
    rows = [
        (name, str(summary["labels"]), *(number(summary[figure]) for figure in FIGURES))
        for name, summary in summaries.items()
    ]
    lines = "".join(f"<li>{escape(line)}</li>" for line in summary_lines(result))
    return (
        "<h2>Errors</h2>"
        + _table(("keypoint", "labels", *(f"{figure} px" for figure in FIGURES)), rows, "all")
        + f"<ul>{lines}</ul>"
        + _plot(
            plots.error_strips(errors, names),
            "Every error as a dot, one row per keypoint; the table above has the figures",
            "Every error, by keypoint. Solid bar: median; dotted bar: 95th percentile.",
        )
        + _plot(
            plots.error_curves(errors, names),
            "Cumulative distribution of the errors of every keypoint and of all",
            "Cumulative distribution of the errors. The axis ends at the 99.5th percentile.",
        )
        + _plot(
            plots.correct_keypoints(result["pck"]),
            "Fraction of correct keypoints over the threshold",
            "Fraction of labels within a threshold (PCK). A keypoint that was not found is never "
            "correct. Dots: the thresholds named above.",
        )
    )


def _confidence(predictions: Predictions, confidence: dict[str, Any]) -> str:
    parts = [
        "<h2>Confidence</h2>",
        _plot(
            plots.reliability_diagram(confidence),
            "Reliability diagram: fraction of right keypoints over confidence, and counts",
            "Reliability of the confidence, over the labelled keypoints. Confidence is the height "
            "of the map, not a probability: what counts is that the curve rises.",
        ),
    ]
    missing = confidence["missing"]
    if missing is None:
        return "".join([*parts, "<p>No keypoint is missing in these frames.</p>"])
    seen, absent = labelled_and_missing(predictions.labels)
    values = predictions.found[0][..., 2]
    parts.append(
        _plot(
            plots.confidence_histograms(values[seen], values[absent], predictions.min_confidence),
            "Histograms of the confidence of labelled and of missing keypoints",
            f"Confidence of labelled and of missing keypoints: AUC {number(missing['auc'], 3)} "
            "(how often a labelled one is above a missing one).",
        )
    )
    rows = [
        (name, str(entry["missing"]), number(entry["auc"], 3))
        for name, entry in missing["keypoints"].items()
    ]
    parts.append(_table(("keypoint", "missing", "AUC"), rows))
    return "".join(parts)


def _training(log: TrainingLog) -> str:
    if not log:
        return (
            "<h2>Training</h2><p>No training log: the model does not lie in its run folder "
            "(name that with <code>--run</code>).</p>"
        )
    return "<h2>Training</h2>" + _plot(
        plots.training_curve(log),
        "Training loss and validation error over the steps",
        "Loss (logarithmic) and validation error over the steps; the dot is the least error. The "
        "axis of the error ends at four times its median.",
    )


def _sweep(name: str, entries: Sequence[dict[str, Any]]) -> str:
    sweep = SWEEPS[name]
    rows = [
        (
            str(entry[sweep.unit]),
            *(number(entry["error_px"][figure]) for figure in FIGURES),
            str(entry["missed"]),
            str(entry["below_threshold"]),
        )
        for entry in entries
    ]
    head = (sweep.about, *(f"{figure} px" for figure in FIGURES), "missed", "below threshold")
    return (
        f"<h2>Robustness: {escape(name)}</h2>"
        + _table(head, rows)
        + _plot(
            plots.sweep_curves(name, entries),
            f"Error over {sweep.about}; the table above has the figures",
            f"Error over {sweep.about}; band: 95 % interval of the mean. The model is the same "
            "throughout, and errors are in px of the full frame.",
        )
    )


def _worst(predictions: Predictions, worst: Sequence[dict[str, Any]]) -> str:
    shown = []
    for entry in worst:
        index = entry["index"]
        pixels = read_image(predictions.frames[index], predictions.colour)
        labels, found = predictions.labels[index], predictions.found[0, index]
        px = "not found" if entry["px"] is None else f"{entry['px']:.1f} px off"
        keypoint = predictions.names.index(entry["keypoint"])
        labelled = ~np.isnan(labels).any(axis=1)
        answers = np.where(labelled[:, None], found[:, :2], np.nan)
        picture = pictures.encode_jpeg(pictures.close_up(pixels, labels, answers, keypoint))
        words = f"{entry['keypoint']} {px}, confidence {found[keypoint, 2]:.2f}"
        shown.append(_picture(picture, f"{entry['frame']}: {words}", f"{words}: {entry['frame']}"))
    return (
        "<h2>Worst frames</h2><p>The frames with the largest error of one keypoint (thick "
        "line), enlarged around the animal. "
        + _key("label (ring)", pictures.LABEL)
        + _key("prediction (cross)", pictures.PREDICTION)
        + f'</p><div class="grid">{"".join(shown)}</div>'
    )


def _key(words: str, colour: tuple[int, int, int]) -> str:
    tint = pictures.hexadecimal(colour)
    return f'<span class="key" style="background:{tint}"></span>{escape(words)}'


def _montage(predictions: Predictions) -> str:
    count = len(predictions.frames)
    chosen = np.unique(np.linspace(0, count - 1, min(count, _MONTAGE)).round().astype(int))
    edges = [
        (predictions.names.index(first), predictions.names.index(second))
        for first, second in predictions.card.keypoints().edges
        if first in predictions.names and second in predictions.names
    ]
    shown = []
    for index in map(int, chosen):
        frame, found = predictions.frames[index], predictions.found[0, index]
        valid = np.isfinite(found[:, 0]) & (found[:, 2] >= predictions.min_confidence)
        pixels = read_image(frame, predictions.colour)
        picture = pictures.encode_jpeg(pictures.thumbnail(pixels, found[:, :2], valid, edges))
        words = f"{frame.name}: {int(valid.sum())} of {valid.size} keypoints"
        shown.append(_picture(picture, words, words))
    colours = pictures.keypoint_colours(len(predictions.names))
    keys = "".join(map(_key, predictions.names, colours))
    return (
        "<h2>Predictions</h2><p>Frames spread evenly over those that were evaluated, with the "
        f"keypoints at or above the threshold. {keys}</p>"
        f'<div class="grid">{"".join(shown)}</div>'
    )


def _method(result: dict[str, Any]) -> str:
    within_px = result["confidence"]["within_px"]
    right = percent(result["confidence"]["threshold"]["above"]["within"])
    lines = (
        "Poses are those of the live service's estimator: its scaling, ONNX Runtime, its sub-pixel "
        "decoder. Errors are Euclidean distances to the labels, in px of the full frame, over the "
        "labels that were found; those that were not are counted as missed.",
        "The interval of the mean is a bootstrap over frames (2000 resamples). Frames of one video "
        "resemble each other, so that on another animal or arena more is to be expected.",
        "OKS: object keypoint similarity as COCO defines it, the scale being the square root of "
        "the area of the box around the labelled keypoints (COCO: of the animal's outline). AP is "
        "the mean average precision at similarities of 0.50 to 0.95. A sigma of 0.025 is the "
        "smallest that COCO gives a keypoint.",
        f"Of the labels at or above the confidence threshold {right} are within "
        f"{within_px:.3g} px.",
        "Scale: the frame is shrunk by averaging and given to the same model. Compression: every "
        "frame is encoded by x264 as a key frame (4:2:0) and decoded again. After Mathis and "
        "Warren 2018, bioRxiv 457242.",
    )
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<h2>How it was measured</h2><ul class="small">{items}</ul>'
