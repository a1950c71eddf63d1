"""Every model that comes with rtpose, on every provider that works here.

    python -m benchmarks providers

A frame of the model's own size goes through `Estimator.load`, `infer` and `decode`, one at a time,
as in the loop; the providers take turns within one run. Before that each answers the model's golden
frames. A provider that is not there is left out, and the reason is printed.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import PERCENTILES, summary_us, table
from rtpose.clock import now_ns
from rtpose.errors import ProviderError
from rtpose.estimator import Estimator, Provider, read_card
from rtpose.model_card import golden_frames
from rtpose.zoo import zoo_models

_ROUNDS, _REPEATS, _WARM_UP = 20, 25, 50
_THREADS = 4


def _candidates() -> dict[str, tuple[Provider, int]]:
    threads = min(_THREADS, max(1, (os.cpu_count() or 1) - 1))
    found: dict[str, tuple[Provider, int]] = {"cpu, 1 thread": ("cpu", 1)}
    if threads > 1:
        found[f"cpu, {threads} threads"] = ("cpu", threads)
    return found | {"cuda": ("cuda", 1)}


def _open(file: Path) -> tuple[dict[str, Estimator], list[str]]:
    """Return an estimator for each provider that works, and why others do not."""
    card, estimators, missing = read_card(file), {}, []
    for name, (provider, threads) in _candidates().items():
        try:
            estimator = Estimator(
                file, frame=card.input.shape[1:], provider=provider, threads=threads
            )
        except ProviderError as error:
            missing.append(f"{name}: {error}")
            continue
        estimator.verify()
        estimator.warm_up(_WARM_UP)
        estimators[name] = estimator
    return estimators, missing


def _measure(file: Path) -> dict[str, Any]:
    estimators, missing = _open(file)
    keypoints = len(read_card(file).keypoints().names)
    points, valid = np.empty((keypoints, 3), np.float32), np.empty(keypoints, np.uint8)
    frames = golden_frames(read_card(file).input, seed=1, count=8)
    frames = frames[..., 0] if frames.shape[-1] == 1 else frames
    times_ns: dict[str, dict[str, list[int]]] = {
        name: {"whole frame": [], "session.run": []} for name in estimators
    }
    for _ in range(_ROUNDS):
        for name, estimator in estimators.items():
            for number in range(_REPEATS):
                start_ns = now_ns()
                estimator.load(frames[number % len(frames)])
                before_ns = now_ns()
                estimator.infer()
                after_ns = now_ns()
                estimator.decode(points, valid)
                times_ns[name]["whole frame"].append(now_ns() - start_ns)
                times_ns[name]["session.run"].append(after_ns - before_ns)
    return {
        "latency_us": {
            name: {stage: summary_us(np.array(times)) for stage, times in stages.items()}
            for name, stages in times_ns.items()
        },
        "missing": missing,
    }


def run() -> dict[str, Any]:
    """Return percentiles in microseconds, per model, provider and stage."""
    return {name: _measure(file) for name, file in zoo_models().items()}


def show(result: dict[str, Any]) -> None:
    """Print one table per model."""
    for name, measured in result.items():
        rows = {
            f"{provider}, {stage}": row
            for provider, stages in measured["latency_us"].items()
            for stage, row in stages.items()
        }
        table(f"{name}, us", rows, list(PERCENTILES))
        for reason in measured["missing"]:
            print(f"  not here: {reason}")
