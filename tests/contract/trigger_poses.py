"""Poses, and shorthands for what triggers make of them, that several tests share."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rtpose.interfaces import Decision, Scale, Trigger
from rtpose.messages import Pose
from rtpose.plugins import load
from rtpose.skeleton import Skeleton

SKELETON = Skeleton(("snout", "neck", "tailbase"))
MS = 1_000_000

Place = tuple[float, float] | None


def make_pose(
    *places: Place,
    at_ms: float = 0,
    individuals: int = 1,
    confidence: float = 0.9,
    **stamps: int | None,
) -> Pose:
    """Return a pose with the skeleton's first keypoints at places, the rest not found."""
    keypoints = np.full((individuals, len(SKELETON.names), 3), np.nan, np.float32)
    valid = np.zeros(keypoints.shape[:2], np.uint8)
    for index, place in enumerate(places):
        if place is not None:
            keypoints[:, index] = (*place, confidence)
            valid[:, index] = 1
    at_ns = round(at_ms * MS)
    times: dict[str, Any] = {"exposure_ns": at_ns, "arrival_ns": at_ns, **stamps}
    return Pose(
        run="r",
        camera="top",
        seq=0,
        frame_id=0,
        dropped=0,
        ready_ns=at_ns,
        infer_start_ns=at_ns,
        infer_end_ns=at_ns,
        publish_ns=at_ns,
        keypoints=keypoints,
        valid=valid,
        **times,
    )


def make_trigger(kind: str, px_per_mm: float | None = None, **settings: Any) -> Trigger:
    """Return a prepared trigger, as a rig file would give it."""
    plugin: Any = load("triggers", kind)
    trigger: Trigger = plugin(plugin.Config.model_validate(settings))
    if px_per_mm is not None:
        trigger.calibrate(Scale(px_per_mm))
    trigger.prepare(SKELETON)
    return trigger


def letter(decision: Decision) -> str:
    """F(ire), H(igh), L(ow), or ``.``."""
    return "." if decision is Decision.NOTHING else decision.name[0]


def decide(
    trigger: Trigger, poses: Sequence[Sequence[Place]], step_ms: float = 10, start_ms: float = 0
) -> str:
    """Return the decisions on poses at a steady rate, one letter each."""
    return "".join(
        letter(trigger.update(make_pose(*places, at_ms=start_ms + i * step_ms)))
        for i, places in enumerate(poses)
    )


def decide_on(trigger: Trigger, snouts: Sequence[Place], step_ms: float = 10) -> str:
    """Return the decisions on poses that show the snout only."""
    return decide(trigger, [[snout] for snout in snouts], step_ms)
