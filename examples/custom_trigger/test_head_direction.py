import math
import tomllib
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from rtpose_head_direction import HeadDirectionSettings, HeadDirectionTrigger
from test_trigger_contract import TriggerContract

from rtpose.interfaces import Decision
from rtpose.messages import Pose
from rtpose.skeleton import Skeleton

SETTINGS: dict[str, Any] = {
    "back": "tailbase",
    "front": "snout",
    "x_px": 100,
    "y_px": 100,
    "within_deg": 20,
}


class TestContract(TriggerContract):
    plugin = HeadDirectionTrigger
    settings: ClassVar[Mapping[str, Any]] = SETTINGS


def pose(snout: tuple[float, float], tailbase: tuple[float, float]) -> Pose:
    keypoints = np.array([[(*snout, 0.9), (*tailbase, 0.9)]], np.float32)
    valid = np.isfinite(keypoints[:, :, 0]).astype(np.uint8)
    return Pose("run", "top", 0, 0, 0, None, 0, 0, 0, 0, 0, keypoints, valid)


@pytest.mark.parametrize(
    ("snout", "tailbase", "decision", "words"),
    [
        ((60, 100), (50, 100), Decision.HIGH, "head 0 deg off"),
        ((140, 140), (150, 150), Decision.HIGH, "head 0 deg off"),
        ((60, 103.5), (50, 100), Decision.HIGH, "head 19 deg off"),
        ((60, 104), (50, 100), Decision.LOW, "head 22 deg off"),
        ((40, 100), (50, 100), Decision.LOW, "head 180 deg off"),
        ((50, 100), (50, 100), Decision.LOW, "head not found"),
        ((60, 100), (100, 100), Decision.LOW, "head not found"),
        ((math.nan, math.nan), (50, 100), Decision.LOW, "head not found"),
    ],
)
def test_where_the_head_points(
    snout: tuple[float, float], tailbase: tuple[float, float], decision: Decision, words: str
) -> None:
    trigger = HeadDirectionTrigger(HeadDirectionSettings(**SETTINGS))
    trigger.prepare(Skeleton(("snout", "tailbase")))
    assert trigger.update(pose(snout, tailbase)) is decision
    assert trigger.describe() == words


def test_rtpose_finds_it_by_name() -> None:
    project = tomllib.loads(Path(__file__).with_name("pyproject.toml").read_text())["project"]
    target = project["entry-points"]["rtpose.triggers"]["head-direction"]
    assert EntryPoint("head-direction", target, "rtpose.triggers").load() is HeadDirectionTrigger
