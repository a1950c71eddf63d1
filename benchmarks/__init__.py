"""What measures: every figure a ratio or a difference within one run, with its percentiles.

`interleaved` is the heart of it: what is compared takes turns, call by call, so that whatever else
the machine does in the meantime falls on all alike.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from platform import platform, processor, python_version
from typing import Any

# One core for each thing that is compared; NumPy reads this when it is first imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

from rtpose.clock import now_ns

PERCENTILES = {"min": 0.0, "p50": 50.0, "p95": 95.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}


def machine() -> dict[str, Any]:
    """Say what the figures were measured on, and how busy it was."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "system": platform(terse=True),
        "python": python_version(),
        **{name: version(name) for name in ("numpy", "numba")},
        "onnxruntime": _onnxruntime_version(),
    }


def _onnxruntime_version() -> str:
    import onnxruntime  # takes a second, and most benchmarks do without it

    return str(onnxruntime.__version__)


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        fields = dict(
            [part.strip() for part in line.split(":", 1)]
            for line in info.read_text().splitlines()
            if ":" in line
        )
        names = [fields.get("model name", ""), f"family {fields.get('cpu family')}"]
        return " ".join([*names, f"model {fields.get('model')}"])
    return processor()


def interleaved(
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    before: Callable[[int], object] = lambda number: None,
    repeats: int = 1,
) -> dict[str, NDArray[np.int64]]:
    """Time calls in turn, `rounds` times `repeats` calls each.

    Parameters
    ----------
    calls : mapping of str to callable
    rounds, repeats : int
        With one repeat every call finds caches and branch predictors as another one left them; with
        several, most find their own.
    before : callable
        Called before every single call, untimed, with a number that counts up.

    Returns
    -------
    dict of str to ndarray of int64, shape (rounds * repeats,)
        Nanoseconds.
    """
    times = {name: np.empty(rounds * repeats, np.int64) for name in calls}
    for round_ in range(rounds):
        for name, call in calls.items():
            for number in range(round_ * repeats, (round_ + 1) * repeats):
                before(number)
                start_ns = now_ns()
                call()
                times[name][number] = now_ns() - start_ns
    return times


def summary_us(times_ns: NDArray[np.int64]) -> dict[str, float]:
    """Return the percentiles, in microseconds."""
    values = np.percentile(times_ns, list(PERCENTILES.values())) / 1000
    return {name: round(float(v), 1) for name, v in zip(PERCENTILES, values, strict=True)}


def table(title: str, rows: Mapping[str, Mapping[str, object]], columns: Sequence[str]) -> None:
    """Print one line per row."""
    width = max(len(title), *(len(name) for name in rows))
    print(f"\n{title:<{width}}" + "".join(f"{column:>11}" for column in columns))
    for name, row in rows.items():
        print(f"{name:<{width}}" + "".join(f"{row.get(column, '')!s:>11}" for column in columns))
