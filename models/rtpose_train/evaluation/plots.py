"""The plots of the report, as SVG."""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from rtpose_train.evaluation.sweeps import SWEEPS
from rtpose_train.evaluation.training_log import TrainingLog

_F64 = NDArray[np.float64]

# Colours of Okabe and Ito (2008), told apart by the colour-blind too.
_BLUE, _ORANGE, _GREY = "#0072b2", "#d55e00", "#8a8a8a"
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "rtpose",  # the same figures give the same file
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "font.size": 9.0,
    "legend.frameon": False,
}
_WIDTH_IN = 6.4
_DASHES = ("-", "--", ":", "-.")


def _figure(height_in: float) -> Figure:
    return Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def error_strips(errors: _F64, names: Sequence[str]) -> bytes:
    """Draw every error as a dot, by keypoint, with median and 95th percentile.

    Parameters
    ----------
    errors : ndarray of float64, shape (frames, keypoints)
        In px; what is not finite is left out.
    names : sequence of str
        Keypoints.
    """
    rng = np.random.default_rng(0)
    with mpl.rc_context(_STYLE):
        figure = _figure(0.9 + 0.3 * len(names))
        axes = figure.subplots()
        for row, column in enumerate(errors.T):
            found = column[np.isfinite(column)]
            if not found.size:
                continue
            heights = row + rng.uniform(-0.25, 0.25, found.size)
            axes.plot(found, heights, ".", color=_BLUE, alpha=0.5, markersize=4)
            for value, dash in ((np.median(found), "-"), (np.percentile(found, 95), ":")):
                axes.plot([value, value], [row - 0.38, row + 0.38], dash, color=_ORANGE, lw=2)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.set_xlabel("error (px of the full frame)")
        return _svg(figure)


def error_curves(errors: _F64, names: Sequence[str]) -> bytes:
    """Draw the cumulative distribution of the errors of every keypoint, and of all.

    Parameters
    ----------
    errors : ndarray of float64, shape (frames, keypoints)
        In px; NaN where not labelled, infinite where not found: such a curve does not reach 1.
    names : sequence of str
        Keypoints.
    """
    found = errors[np.isfinite(errors)]
    with mpl.rc_context(_STYLE):
        figure = _figure(3.4 + 0.12 * max(0, len(names) - 8))
        axes = figure.subplots()
        colours = colormaps["turbo"](np.linspace(0.1, 0.95, len(names)))
        for k, name in enumerate(names):
            _ecdf(axes, errors[:, k], name, color=colours[k], ls=_DASHES[k % len(_DASHES)], lw=1.3)
        _ecdf(axes, errors.ravel(), "all", color="black", lw=2.2)
        axes.set_xlim(0, float(np.percentile(found, 99.5)) * 1.05 if found.size else 1.0)
        axes.set_ylim(0, 1.01)
        axes.set_xlabel("error (px of the full frame)")
        axes.set_ylabel("fraction of labels within")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return _svg(figure)


def _ecdf(axes: Axes, errors: _F64, name: str, **style: Any) -> None:
    labelled = errors[~np.isnan(errors)]
    found = np.sort(labelled[np.isfinite(labelled)])
    if labelled.size:
        heights = np.arange(found.size + 1) / labelled.size
        axes.step(np.append(0.0, found), heights, where="post", label=name, **style)


def correct_keypoints(pck: dict[str, Any]) -> bytes:
    """Draw the PCK curves of an evaluation: over px and, if there is one, over the reference."""
    curves = [(unit, pck[unit]) for unit in ("px", "reference") if pck[unit]]
    with mpl.rc_context(_STYLE):
        figure = _figure(2.9)
        for axes, (unit, entry) in zip(
            figure.subplots(1, len(curves), squeeze=False)[0], curves, strict=True
        ):
            axes.plot(entry["curve"]["threshold"], entry["curve"]["fraction"], color=_BLUE)
            points = [(float(at), value) for at, value in entry["points"].items()]
            axes.plot(*zip(*points, strict=True), "o", color=_ORANGE, markersize=5)
            axes.set_xlim(left=0)
            axes.set_ylim(0, 1.03)
            axes.set_xlabel(
                "threshold " + ("(px)" if unit == "px" else "(of the reference length)")
            )
        figure.axes[0].set_ylabel("correct keypoints (PCK)")
        return _svg(figure)


def reliability_diagram(confidence: dict[str, Any]) -> bytes:
    """Draw the fraction of right keypoints over confidence, and how many there are of each."""
    bins = [entry for entry in confidence["bins"] if entry["count"]]
    everywhere = confidence["bins"]
    with mpl.rc_context(_STYLE):
        figure = _figure(4.6)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.plot([0, 1], [0, 1], "--", color=_GREY, label="perfectly calibrated")
        upper.plot(
            [entry["confidence"] for entry in bins],
            [entry["fraction_right"] for entry in bins],
            "o-",
            color=_BLUE,
            label=f"labels within {confidence['within_px']:.3g} px",
        )
        upper.set_ylabel("fraction right")
        upper.set_ylim(0, 1.05)
        lower.bar(
            [entry["low"] for entry in everywhere],
            [entry["count"] for entry in everywhere],
            width=[entry["high"] - entry["low"] for entry in everywhere],
            align="edge",
            color=_BLUE,
            edgecolor="white",
        )
        lower.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        lower.set_ylabel("labels")
        lower.set_xlabel("confidence")
        for axes in (upper, lower):
            axes.axvline(confidence["threshold"]["min_confidence"], color=_ORANGE, lw=1.2)
        upper.plot([], [], color=_ORANGE, lw=1.2, label="threshold")
        upper.legend(loc="lower right")
        lower.set_xlim(0, 1)
        return _svg(figure)


def confidence_histograms(labelled: _F64, missing: _F64, min_confidence: float) -> bytes:
    """Draw how confident the model is of labelled keypoints, and of missing ones."""
    edges = np.linspace(0, 1, 26)
    with mpl.rc_context(_STYLE):
        figure = _figure(2.8)
        axes = figure.subplots()
        for values, name, colour in (
            (labelled, "labelled", _BLUE),
            (missing, "missing", _ORANGE),
        ):
            counts, _ = np.histogram(values.clip(0, 1), edges)
            axes.stairs(
                counts / max(1, values.size),
                edges,
                fill=True,
                color=colour,
                alpha=0.6,
                label=f"{name} ({values.size})",
            )
        axes.axvline(min_confidence, color="black", lw=1.2, ls="--", label="threshold")
        axes.set_xlim(0, 1)
        axes.set_xlabel("confidence")
        axes.set_ylabel("fraction of the keypoints")
        axes.legend(loc="upper center")
        return _svg(figure)


def training_curve(log: TrainingLog) -> bytes:
    """Draw loss and validation error over the steps.

    Parameters
    ----------
    log : dict
        See `training_log.read_log`.
    """
    shown = [
        (column, words, scale)
        for column, words, scale in (
            ("loss", "training loss", "log"),
            ("validation_px", "validation error (px)", "linear"),
        )
        if log.get(column)
    ]
    with mpl.rc_context(_STYLE):
        figure = _figure(1.0 + 1.7 * len(shown))
        column_of_axes = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (column, words, scale) in zip(column_of_axes, shown, strict=True):
            steps, values = zip(*log[column], strict=True)
            axes.plot(steps, values, color=_BLUE)
            if min(values) > 0:
                axes.set_yscale(scale)
            axes.set_ylabel(words)
            if column == "validation_px":
                best = int(np.argmin(values))
                axes.plot(steps[best], values[best], "o", color=_ORANGE)
                # The first checks are far off; the rest is what is to be seen.
                axes.set_ylim(0, 4 * float(np.median(values)))
        figure.axes[-1].set_xlabel("step")
        return _svg(figure)


def sweep_curves(name: str, entries: Sequence[dict[str, Any]]) -> bytes:
    """Draw mean (with its interval), median and 95th percentile of the error over a sweep."""
    sweep = SWEEPS[name]
    levels = [entry[sweep.unit] for entry in entries]
    with mpl.rc_context(_STYLE):
        figure = _figure(2.9)
        axes = figure.subplots()
        for label, colour, marker in (
            ("p95", _GREY, "^-"),
            ("mean", _BLUE, "o-"),
            ("median", _ORANGE, "s--"),
        ):
            values = [_or_nan(entry["error_px"][label]) for entry in entries]
            axes.plot(levels, values, marker, color=colour, label=label, markersize=4)
        intervals = [entry["error_px"]["mean_interval_95"] for entry in entries]
        if all(intervals):
            low, high = zip(*intervals, strict=True)
            axes.fill_between(levels, low, high, color=_BLUE, alpha=0.2, lw=0)
        if name == "scale":
            axes.set_xscale("log", base=2)
        axes.set_xticks(levels, [str(level) for level in levels])
        axes.set_ylim(bottom=0)
        axes.set_xlabel(sweep.about)
        axes.set_ylabel("error (px of the full frame)")
        axes.legend()
        return _svg(figure)


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
