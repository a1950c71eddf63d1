"""Twenty triggers of mixed kinds on one pose, as control asks them.

    python -m benchmarks triggers

A mouse of eight keypoints wanders through the picture, now and then losing one of them. Every pose
is a new `Pose` as control unpacks it; the time is that of all `update` calls for one pose, the
unpacking of its arrays included. ``paced`` asks 100 times a second, as a camera does, so that code
and data have left the caches in between; the others ask as fast as they can. Then each trigger
alone, which unpacks its poses for itself.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks import PERCENTILES, summary_us, table
from rtpose.clock import RateKeeper, now_ns
from rtpose.interfaces import Decision, Scale, Trigger
from rtpose.messages import Pose
from rtpose.plugins import load
from rtpose.skeleton import Skeleton

_POSES: Final = 5000
_WARM_UP: Final = 500
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
    "slow in mm": {
        "type": "speed",
        "keypoint": "snout",
        "below_mm_s": 20,
        "window_ms": 200,
        "when": "while",
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


def _per_pose(
    triggers: list[Trigger], walk: list[Pose], pace: RateKeeper | None = None
) -> tuple[NDArray[np.int64], int]:
    times, acted = np.empty(len(walk), np.int64), 0
    for number, pose in enumerate(walk):
        if pace is not None:
            pace.wait()
        start_ns = now_ns()
        decisions = [trigger.update(pose) for trigger in triggers]
        times[number] = now_ns() - start_ns
        acted += sum(d in (Decision.FIRE, Decision.HIGH) for d in decisions)
    return times[_WARM_UP:], acted


def run() -> dict[str, Any]:
    walk = poses(_POSES)
    together, acted = _per_pose([build(s) for s in TRIGGERS.values()], walk)
    paced, _ = _per_pose(
        [build(s) for s in TRIGGERS.values()], walk[: _POSES // 5], RateKeeper(_RATE_HZ)
    )
    alone = {
        name: _per_pose([build(settings)], poses(_POSES // 5 + _WARM_UP))[0]
        for name, settings in TRIGGERS.items()
    }
    return {
        "triggers": len(TRIGGERS),
        "poses": _POSES - _WARM_UP,
        "fired or high": acted,
        "target_us": _TARGET_US,
        "together_us": summary_us(together),
        "paced_us": summary_us(paced),
        "alone_us": {name: summary_us(times) for name, times in alone.items()},
    }


def show(result: dict[str, Any]) -> None:
    all_of_them = f"{result['triggers']} together"
    rows = {
        all_of_them: result["together_us"],
        f"{all_of_them}, paced": result["paced_us"],
        **result["alone_us"],
    }
    table("one pose, us", rows, list(PERCENTILES))
    print(f"target: p50 under {result['target_us']:g} us for {result['triggers']} together")
