"""An evaluation on the console."""

from typing import Any

from rich.console import Console
from rich.table import Table

from rtpose_train.evaluation.sweeps import SWEEPS

#: The figures of a summary, in the order in which they are shown.
FIGURES = ("mean", "median", "p95", "max")


def number(value: float | None, digits: int = 2) -> str:
    """Return a number for people, a dash for None."""
    return "-" if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """Return a fraction in percent, a dash for None."""
    return "-" if value is None else f"{100 * value:.1f} %"


def show(result: dict[str, Any], console: Console) -> None:
    """Print an evaluation as tables."""
    for note in result["notes"]:
        console.print(note, style="yellow", markup=False, highlight=False, soft_wrap=True)
    console.print(_errors(result))
    for line in summary_lines(result):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    for name, entries in result["sweeps"].items():
        console.print(_sweep(name, entries))


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(first, title=title, title_justify="left")
    for column in others:
        table.add_column(column, justify="right")
    return table


def _errors(result: dict[str, Any]) -> Table:
    title = f"{result['frames']} frames, {result['labels']} labels"
    table = _table(title, "keypoint", *(f"{figure} px" for figure in FIGURES))
    for name, summary in {**result["keypoints"], "all": result["error_px"]}.items():
        cells = (number(summary[figure]) for figure in FIGURES)
        table.add_row(name, *cells, style="bold" if name == "all" else "")
    return table


def _sweep(name: str, entries: list[dict[str, Any]]) -> Table:
    sweep = SWEEPS[name]
    figures = (f"{figure} px" for figure in FIGURES)
    table = _table(f"sweep: {name}", sweep.about, *figures, "missed", "below threshold")
    for entry in entries:
        cells = (number(entry["error_px"][figure]) for figure in FIGURES)
        counts = (str(entry["missed"]), str(entry["below_threshold"]))
        table.add_row(str(entry[sweep.unit]), *cells, *counts)
    return table


def summary_lines(result: dict[str, Any]) -> list[str]:
    """Return what an evaluation found besides the errors in px, a sentence each."""
    lines = []
    interval = result["error_px"]["mean_interval_95"]
    if interval:
        low, high = interval
        lines.append(f"95 % interval of the mean over the frames: {low:.2f} to {high:.2f} px")
    if result["missed"]:
        lines.append(f"{result['missed']} labelled keypoints were not found at all")
    lines += [
        f"not compared, only in the {side}: {', '.join(names)}"
        for side, names in result["not_compared"].items()
        if names
    ]
    lines += _pck(result)
    oks = result["oks"]
    lines.append(
        f"OKS (sigma {_sigmas(oks['sigma'])}, {oks['frames']} frames): mean "
        f"{number(oks['mean'], 3)}, AP {number(oks['ap'], 3)}, AP50 {number(oks['ap50'], 3)}, "
        f"AP75 {number(oks['ap75'], 3)}"
    )
    return lines + _confidence(result["confidence"])


def _pck(result: dict[str, Any]) -> list[str]:
    points = result["pck"]["px"]["points"].items()
    lines = ["within " + ", ".join(f"{px} px: {percent(value)}" for px, value in points)]
    reference = result["reference"]
    if reference:
        length, error = reference["length_px"]["median"], reference["error"]
        points = result["pck"]["reference"]["points"].items()
        lines.append(
            f"over the length {' - '.join(reference['keypoints'])} (median {number(length)} px, "
            f"{reference['frames']} frames): mean {number(error['mean'], 3)}, median "
            f"{number(error['median'], 3)}, p95 {number(error['p95'], 3)}; within "
            + ", ".join(f"{part}: {percent(value)}" for part, value in points)
        )
    return lines


def _sigmas(sigmas: dict[str, float]) -> str:
    if len(set(sigmas.values())) == 1:
        return f"{next(iter(sigmas.values())):g}"
    return ", ".join(f"{name} {sigma:g}" for name, sigma in sigmas.items())


def _confidence(confidence: dict[str, Any]) -> list[str]:
    threshold, within_px = confidence["threshold"], confidence["within_px"]
    lines = [
        f"confidence against being within {within_px:.3g} px: expected calibration error "
        f"{number(confidence['expected_calibration_error'], 3)}"
    ]
    for side, words in (("above", "at or above"), ("below", "below")):
        entry = threshold[side]
        lines.append(
            f"  {words} the threshold {threshold['min_confidence']:g}: {entry['labels']} labels, "
            f"mean {number(entry['error_px']['mean'])} px, {percent(entry['within'])} within "
            f"{within_px:.3g} px"
        )
    missing = confidence["missing"]
    if missing:
        labelled, absent = missing["labelled"], missing["missing"]
        lines.append(
            f"confidence of {labelled['count']} labelled against {absent['count']} missing "
            f"keypoints: AUC {number(missing['auc'], 3)}; at or above the threshold: "
            f"{labelled['above_threshold']} labelled, {absent['above_threshold']} missing"
        )
    return lines
