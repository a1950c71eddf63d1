"""What `rtpose doctor` tries in a process of its own: ``python -m rtpose.doctor.probe WHAT``.

Prints one JSON object behind a record separator, because drivers print what they like. What the
user can change is an ``error`` in it, with exit code 0.
"""

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rtpose.cameras.opencv import OpenCvCamera, OpenCvConfig
from rtpose.clock import now_ns
from rtpose.errors import RtposeError
from rtpose.estimator import Estimator, Provider, available_providers, read_card
from rtpose.loop import go_realtime
from rtpose.zoo import DEMO, zoo_models

_RUNS = 50
_WATCH_NS = 1_000_000_000

#: The highest that a process of a rig asks for.
_PRIORITY = 55


def _provider(name: Provider) -> Mapping[str, Any]:
    """Run the demo model where it was asked for, and compare it with its golden frames."""
    model = zoo_models()[DEMO]
    shape = read_card(model).input.shape[1:]
    estimator = Estimator(model, frame=shape, provider=name)
    estimator.verify()
    estimator.warm_up(3)
    frame = np.zeros(shape[:2] if shape[2] == 1 else shape, np.uint8)
    times_ns = np.empty(_RUNS)
    for run in range(_RUNS):
        start_ns = now_ns()
        estimator.estimate(frame)
        times_ns[run] = now_ns() - start_ns
    return {"median_ms": round(float(np.median(times_ns)) / 1e6, 3)}


def _camera(settings: str) -> Mapping[str, Any]:
    """Open a camera as a rig does, and count its frames for a second."""
    camera = OpenCvCamera(OpenCvConfig.model_validate_json(settings))
    try:
        found = camera.open()
        buffer = np.empty(found.shape, np.uint8)
        frames = camera.frames(lambda: buffer)
        count, first_ns, last_ns = 0, 0, 0
        end_ns = now_ns() + _WATCH_NS
        for captured in frames:
            if captured is not None:
                first_ns = first_ns or captured.arrival_ns
                last_ns = captured.arrival_ns
                count += 1
            if now_ns() > end_ns:
                break
    finally:
        camera.close()
    return {
        "width_px": found.width_px,
        "height_px": found.height_px,
        "nominal_hz": round(found.rate_hz, 2),
        "measured_hz": round((count - 1) * 1e9 / (last_ns - first_ns), 2) if count > 1 else 0.0,
        "notes": list(found.notes),
    }


def _realtime() -> Mapping[str, Any]:
    return {"notes": list(go_realtime(_PRIORITY).notes)}


def _providers() -> Mapping[str, Any]:
    return {"providers": list(available_providers())}


_PROBES: Mapping[str, Callable[..., Mapping[str, Any]]] = {
    "camera": _camera,
    "provider": _provider,
    "providers": _providers,
    "realtime": _realtime,
}


def main(what: str, *arguments: str) -> None:
    """Try one thing and print what came of it."""
    try:
        found = _PROBES[what](*arguments)
    except RtposeError as error:
        found = {"error": str(error)}
    sys.stdout.write("\x1e" + json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
