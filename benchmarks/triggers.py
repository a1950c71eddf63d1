"""Twenty triggers of mixed kinds on one pose, as control asks them.

    python -m benchmarks triggers

A mouse of eight keypoints wanders through the picture, now and then losing one of them. Every pose
is a new `Pose` as control unpacks it. What takes turns, a hundred poses each:

* ``together``: all `update` calls for one pose, the unpacking of its arrays included;
* ``every second ahead``: the same with every second trigger on the forecast, which is made too;
* ``in control``, ``in control, ahead``: the same two with all that control does around them but to
  write its logs. It is not armed, so that every decision is refused, and told.

First as fast as they can, then ``paced``: 100 poses a second, as from a camera, between which code
and data leave the caches. Then, paced too, the first few kinds, and one kind many times: what cold
code costs. Then each trigger alone, which unpacks its poses for itself.
"""

import gc
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks import PERCENTILES, interleaved, summary_us, table
from rtpose.actuators import Actuator
from rtpose.clock import RateKeeper, now_ns
from rtpose.compensation import LatencyCompensation
from rtpose.config import load_rig
from rtpose.engine import Engine
from rtpose.events import EventRecord
from rtpose.interfaces import Decision, Scale, Trigger
from rtpose.messages import Pose
from rtpose.plugins import load
from rtpose.readiness import Readiness
from rtpose.rig_tables import ForecastTable
from rtpose.skeleton import Skeleton

_POSES: Final = 5000
_PACED: Final = 500
_PACED_FEW: Final = 200
_WARM_UP: Final = 100
_IN_TURN: Final = 100
_RATE_HZ: Final = 100.0
_TARGET_US: Final = 100.0
_SKELETON: Final = Skeleton(
    ("snout", "left-ear", "right-ear", "neck", "left-hip", "right-hip", "tailbase", "tail-tip")
)

_ZONE: Final = {"type": "region", "keypoint": "snout"}
_CORNER: Final = {"circle": {"x_px": 60, "y_px": 60, "radius_px": 80}}
_HOUSE: Final = {"polygon": [[300, 200], [450, 120], [600, 200], [600, 440], [300, 440]]}
_BOX: Final = {"rectangle": {"x_px": 200, "y_px": 150, "width_px": 200, "height_px": 150}}
_AXIS: Final = {"back": "neck", "front": "snout"}
_ONE_EURO: Final = {"type": "one-euro", "min_cutoff_hz": 2.0}
_FAST: Final = {"type": "speed", "keypoint": "tailbase", "above_px_s": 200, "window_ms": 100}

TRIGGERS: Final[dict[str, dict[str, Any]]] = {
    "enter circle": {**_ZONE, **_CORNER, "when": "enter"},
    "leave polygon": {**_ZONE, **_HOUSE, "when": "leave", "hysteresis_px": 5},
    "inside box, 200 ms": {**_ZONE, **_BOX, "when": "inside", "dwell_ms": 200},
    "any of 3 outside": {
        "type": "region",
        "keypoints": ["snout", "neck", "tailbase"],
        "need": "any",
        **_HOUSE,
        "when": "outside",
    },
    "speed": {**_FAST, "when": "starts", "refractory_ms": 500},
    "speed, one-euro": {**_FAST, "when": "while", "filter": _ONE_EURO, "hysteresis_px_s": 50},
    "level by speed, in mm": {
        "type": "proportional",
        "quantity": {"type": "speed", "keypoint": "snout", "window_ms": 200},
        "from_mm_s": [20, 200],
        "slew_per_s": 5,
    },
    "acceleration": {
        "type": "acceleration",
        "keypoint": "tailbase",
        "above_px_s2": 500,
        "window_ms": 50,
        "when": "starts",
    },
    "freezing": {
        "type": "freezing",
        "keypoints": ["snout", "neck", "tailbase"],
        "below_px_s": 60,
        "window_ms": 100,
        "for_ms": 500,
        "when": "starts",
    },
    "distance of two": {
        "type": "distance",
        "keypoint": "snout",
        "to_keypoint": "tailbase",
        "below_px": 60,
        "when": "while",
    },
    "distance to point, median": {
        "type": "distance",
        "keypoint": "snout",
        "point": {"x_px": 320, "y_px": 240},
        "below_px": 100,
        "hysteresis_px": 10,
        "filter": {"type": "median", "poses": 5},
        "when": "starts",
    },
    "distance to border": {
        "type": "distance",
        "keypoint": "snout",
        **_HOUSE,
        "above_px": -20,
        "below_px": 20,
        "when": "while",
    },
    "heading north": {
        "type": "heading",
        **_AXIS,
        "towards_deg": 0,
        "within_deg": 30,
        "when": "while",
    },
    "neck angle": {
        "type": "angle",
        "joint": "neck",
        "ends": ["snout", "tailbase"],
        "below_deg": 120,
        "when": "starts",
    },
    "looking, gated": {
        "type": "looking",
        **_AXIS,
        **_CORNER,
        "within_deg": 20,
        "side": "left",
        "min_confidence": 0.5,
        "max_jump_px_s": 5000,
        "when": "while",
    },
    "stretched": {
        "type": "posture",
        "keypoints": ["snout", "neck", "tailbase", "tail-tip"],
        "measure": "straightness",
        "above_ratio": 0.9,
        "when": "starts",
    },
    "since it left": {
        "type": "time-since",
        "of": {**_ZONE, **_CORNER},
        "event": "ended",
        "below_ms": 500,
        "when": "while",
    },
    "third visit": {
        "type": "count",
        "of": {**_ZONE, **_BOX},
        "event": "began",
        "at_least": 3,
        "window_ms": 20_000,
        "when": "starts",
        "once_per_trial": True,
    },
    "in the box and fast": {
        "type": "all",
        "of": [{**_ZONE, **_BOX}, _FAST],
        "when": "while",
        "missing": "hold",
        "hold_ms": 50,
    },
    "no visit while looking": {
        "type": "any",
        "of": [
            {"type": "not", "of": {**_ZONE, **_HOUSE}},
            {"type": "looking", **_AXIS, **_CORNER, "within_deg": 30},
        ],
        "when": "unless",
        "filter": {"type": "exponential", "time_constant_ms": 20},
    },
}


def build(settings: dict[str, Any]) -> Trigger:
    """Return a trigger made from its table in a rig file, prepared."""
    plugin: Any = load("triggers", settings["type"])
    own = {key: value for key, value in settings.items() if key != "type"}
    trigger: Trigger = plugin(plugin.Config.model_validate(own))
    trigger.calibrate(Scale(3.0))
    trigger.prepare(_SKELETON)
    return trigger


def poses(count: int) -> list[Pose]:
    """Return poses of an animal that wanders, packed and unpacked as on the way to control."""
    random = np.random.default_rng(1)
    made = []
    body = np.stack([np.linspace(0, -90, 8), np.zeros(8)], axis=1)
    place, heading = np.array([320.0, 240.0]), 0.0
    for number in range(count):
        heading += random.normal(0, 0.15)
        pace = 4.0 * max(0.0, np.sin(number / 80))
        place = np.clip(place + pace * np.array([np.cos(heading), np.sin(heading)]), 20, 460)
        turn = np.array([[np.cos(heading), np.sin(heading)], [-np.sin(heading), np.cos(heading)]])
        array = np.empty((1, 8, 3), np.float32)
        array[0, :, :2] = place + body @ turn + random.normal(0, 0.5, (8, 2))
        array[0, :, 2] = 0.9
        valid = (random.random((1, 8)) > 0.01).astype(np.uint8)
        at_ns = round(number * 1e9 / _RATE_HZ) + int(random.integers(0, 500_000))
        stamps = (at_ns,) * 6
        pose = Pose("run", "top", number, number, 0, *stamps, array, valid)
        made.append(Pose.unpack(pose.pack()))
    return made


def together(ahead: bool) -> Callable[[Pose], int]:
    """Return what asks all triggers about a pose, and returns how many want something."""
    triggers = [build(settings) for settings in TRIGGERS.values()]
    if not ahead:
        return lambda pose: sum(_acts(trigger.update(pose)) for trigger in triggers)
    compensation = LatencyCompensation(ForecastTable(), len(_SKELETON.names), ["out"])
    pairs = list(zip(triggers[::2], triggers[1::2], strict=True))

    def ask(pose: Pose) -> int:
        compensation.update(pose)
        acting = 0
        for on_it, before_it in pairs:
            acting += _acts(on_it.update(pose))
            acting += _acts(before_it.update(compensation.pose_for("out", pose)[0]))
        return acting

    return ask


def _acts(decision: Decision) -> bool:
    return decision is Decision.FIRE or decision is Decision.HIGH


def in_control(ahead: bool) -> Callable[[Pose], None]:
    """Return what gives a pose to the engine of a rig with all triggers."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rig.toml"
        path.write_text(_rig(ahead))
        rig = load_rig(path)
    told: list[object] = []
    engine = Engine(
        rig,
        _SKELETON,
        {name: Actuator(entry) for name, entry in rig.outputs.items()},
        Readiness(rig.latency, _RATE_HZ),
        EventRecord("run", 1, told.append),
        {},
        lambda _trigger: now_ns(),
        lambda _trigger: None,
    )
    return lambda pose: engine.on_pose(pose, now_ns())


def _rig(ahead: bool) -> str:
    parts = [
        '[cameras.top]\ntype = "synthetic"\n[model]\npath = "demo"\n[arena]\npx_per_mm = 3.0\n'
        '[outputs.out]\ntype = "virtual"'
    ]
    for number, settings in enumerate(TRIGGERS.values()):
        parts.append(f"[outputs.out.lines.{number}]\npin = {number}\nmax_on_ms = 1000.0")
        parts.append(f'[triggers.{number}]\noutput = "out.{number}"')
        parts += [f"{key} = {_toml(value)}" for key, value in settings.items()]
        parts.append("pulse_ms = 1" if build(settings).momentary else "")
        parts.append("forecast = true" if ahead and number % 2 else "")
    return "\n".join(parts)


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


def compare(count: int, pace: RateKeeper | None = None) -> dict[str, NDArray[np.int64]]:
    """Return the times of `count` poses, in nanoseconds, after those that warm it up."""
    walk = poses(count + _WARM_UP)
    now = walk[0]

    def before(number: int) -> None:
        nonlocal now
        now = walk[number]
        if pace is not None:
            pace.wait()

    asked: dict[str, Callable[[Pose], object]] = {
        "together": together(ahead=False),
        "every second ahead": together(ahead=True),
        "in control": in_control(ahead=False),
        "in control, ahead": in_control(ahead=True),
    }
    calls = {name: lambda ask=ask: ask(now) for name, ask in asked.items()}
    times = interleaved(calls, len(walk) // _IN_TURN, before, _IN_TURN)
    return {name: values[_WARM_UP:] for name, values in times.items()}


def paced_few() -> dict[str, NDArray[np.int64]]:
    """Return the times of a pose at `_RATE_HZ` for some of the triggers, in nanoseconds."""
    kinds = list(TRIGGERS.values())
    chosen = {f"first {count} kinds": kinds[:count] for count in (1, 2, 5, 10)}
    chosen["one kind 20 times"] = kinds[:1] * 20
    return {name: _paced([build(one) for one in some]) for name, some in chosen.items()}


def _paced(triggers: list[Trigger]) -> NDArray[np.int64]:
    walk, pace = poses(_PACED_FEW + _WARM_UP), RateKeeper(_RATE_HZ)
    times = np.empty(len(walk), np.int64)
    for number, pose in enumerate(walk):
        pace.wait()
        start_ns = now_ns()
        for trigger in triggers:
            trigger.update(pose)
        times[number] = now_ns() - start_ns
    return times[_WARM_UP:]


def alone(settings: dict[str, Any]) -> NDArray[np.int64]:
    """Return the times of one trigger, in nanoseconds."""
    trigger, walk = build(settings), poses(_POSES // 5 + _WARM_UP)
    times = np.empty(len(walk), np.int64)
    for number, pose in enumerate(walk):
        start_ns = now_ns()
        trigger.update(pose)
        times[number] = now_ns() - start_ns
    return times[_WARM_UP:]


def run() -> dict[str, Any]:
    ask = together(ahead=False)
    acting = sum(ask(pose) for pose in poses(_POSES))
    gc.collect()
    gc.freeze()
    gc.disable()  # as in control
    try:
        at_once, paced = compare(_POSES), compare(_PACED, RateKeeper(_RATE_HZ))
        few = {name: summary_us(values) for name, values in paced_few().items()}
        times = {name: summary_us(alone(settings)) for name, settings in TRIGGERS.items()}
    finally:
        gc.enable()
        gc.unfreeze()
    return {
        "triggers": len(TRIGGERS),
        "poses": _POSES,
        "fired or high": acting,
        "target_us": _TARGET_US,
        "at_once_us": {name: summary_us(values) for name, values in at_once.items()},
        "paced_us": {name: summary_us(values) for name, values in paced.items()},
        "paced_few_us": few,
        "alone_us": times,
    }


def show(result: dict[str, Any]) -> None:
    rows = {
        **result["at_once_us"],
        **{f"{name}, paced": row for name, row in result["paced_us"].items()},
        **{f"{name}, paced": row for name, row in result["paced_few_us"].items()},
        **result["alone_us"],
    }
    table(f"one pose, {result['triggers']} triggers, us", rows, list(PERCENTILES))
    print(f"target: p50 under {result['target_us']:g} us for all of them together")
