"""What every trigger must do; third-party ones too.

A plug-in's own tests derive a class from `TriggerContract`, name the plug-in, and give settings and
poses with which it has something to decide. With ``tests/contract`` on pytest's ``pythonpath`` (the
examples show how)::

    from test_trigger_contract import TriggerContract

    class TestMyTrigger(TriggerContract):
        plugin = MyTrigger
        settings = {"keypoint": "snout", "limit_px": 12}
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic import ValidationError

from rtpose.errors import SkeletonError
from rtpose.interfaces import Decision, Scale, Trigger
from rtpose.messages import Pose
from rtpose.plugins import available, load
from rtpose.skeleton import Skeleton

FRAME_PX = (640, 480)
RATE_HZ = 100


def walk(skeleton: Skeleton, count: int = 600, seed: int = 1) -> list[Pose]:
    """Draw an animal that wanders through a 640 x 480 px frame, and is sometimes not found."""
    random = np.random.default_rng(seed)
    keypoints = len(skeleton.names)
    phase = random.uniform(0, 2 * np.pi, (keypoints, 2))
    period_s = random.uniform(0.8, 2.5, (keypoints, 2))
    centre = np.array(FRAME_PX) / 2
    poses = []
    for i in range(count):
        angle = 2 * np.pi * (i / RATE_HZ) / period_s + phase
        array = np.empty((1, keypoints, 3), np.float32)
        array[0, :, :2] = centre + 0.45 * np.array(FRAME_PX) * np.sin(angle)
        array[0, :, 2] = 0.9
        valid = (random.random((1, keypoints)) > 0.03).astype(np.uint8)
        array[0, valid[0] == 0] = np.nan
        at_ns = 1_000_000_000 + round(i * 1e9 / RATE_HZ) + int(random.integers(0, 500_000))
        poses.append(
            Pose(
                run="contract",
                camera="top",
                seq=i,
                frame_id=i,
                dropped=0,
                exposure_ns=at_ns,
                arrival_ns=at_ns + 1_000_000,
                ready_ns=at_ns + 1_100_000,
                infer_start_ns=at_ns + 1_200_000,
                infer_end_ns=at_ns + 5_000_000,
                publish_ns=at_ns + 5_100_000,
                keypoints=array,
                valid=valid,
            )
        )
    return poses


def copy_of(pose: Pose, **changes: Any) -> Pose:
    arrays = {"keypoints": pose.keypoints.copy(), "valid": pose.valid.copy()}
    return dataclasses.replace(pose, **{**arrays, **changes})


class TriggerContract:
    """The suite.

    Attributes
    ----------
    plugin, settings
        The trigger, and settings that fit `skeleton`.
    skeleton
        Keypoints that the settings speak of.
    scale
        Of the arena.
    """

    plugin: ClassVar[type[Trigger]]
    settings: ClassVar[Mapping[str, Any]] = {}
    skeleton: ClassVar[Skeleton] = Skeleton(("snout", "leftear", "rightear", "tailbase"))
    scale: ClassVar[Scale] = Scale(px_per_mm=3.0)

    @pytest.fixture
    def poses(self) -> list[Pose]:
        """Poses with which the trigger has something to decide."""
        return walk(self.skeleton)

    def trigger(self) -> Trigger:
        trigger = self.unprepared()
        trigger.calibrate(self.scale)
        trigger.prepare(self.skeleton)
        return trigger

    def unprepared(self) -> Trigger:
        build: Any = self.plugin
        made: Trigger = build(self.plugin.Config.model_validate(dict(self.settings)))
        return made

    def decisions(self, poses: Sequence[Pose]) -> list[Decision]:
        trigger = self.trigger()
        return [trigger.update(pose) for pose in poses]

    def test_unknown_settings_are_refused(self) -> None:
        with pytest.raises(ValidationError, match="no_such_setting"):
            self.plugin.Config.model_validate({**self.settings, "no_such_setting": 1})

    def test_a_model_without_its_keypoints_is_refused(self) -> None:
        trigger = self.unprepared()
        trigger.calibrate(self.scale)
        with pytest.raises(SkeletonError):
            trigger.prepare(Skeleton(("no_such_keypoint",)))

    def test_the_suite_gives_it_something_to_decide(self, poses: list[Pose]) -> None:
        wanted = set(self.decisions(poses))
        assert wanted & {Decision.FIRE, Decision.HIGH}
        assert wanted & {Decision.NOTHING, Decision.LOW}

    def test_the_same_poses_give_the_same_decisions(self, poses: list[Pose]) -> None:
        assert self.decisions(poses) == self.decisions([copy_of(pose) for pose in poses])

    def test_two_of_them_do_not_share_anything(self, poses: list[Pose]) -> None:
        first, second = self.trigger(), self.trigger()
        both = [(first.update(pose), second.update(poses[-1 - i])) for i, pose in enumerate(poses)]
        # The second one saw time run backwards; only the first one's decisions mean something.
        assert [decision for decision, _ in both] == self.decisions(poses)

    def test_only_differences_of_time_matter(self, poses: list[Pose]) -> None:
        stamps = (
            "exposure_ns",
            "arrival_ns",
            "ready_ns",
            "infer_start_ns",
            "infer_end_ns",
            "publish_ns",
        )
        later = [
            copy_of(pose, **{name: getattr(pose, name) + 10**15 for name in stamps})
            for pose in poses
        ]
        assert self.decisions(later) == self.decisions(poses)

    def test_it_neither_changes_nor_keeps_the_arrays_of_a_pose(self, poses: list[Pose]) -> None:
        trigger, decisions = self.trigger(), []
        for pose in poses:
            lent = copy_of(pose)
            decisions.append(trigger.update(lent))
            np.testing.assert_array_equal(lent.keypoints, pose.keypoints)
            np.testing.assert_array_equal(lent.valid, pose.valid)
            lent.keypoints[:] = -1e6
            lent.valid[:] = 1
        assert decisions == self.decisions(poses)

    def test_it_takes_arrays_that_cannot_be_written_to(self, poses: list[Pose]) -> None:
        for pose in poses:
            pose.keypoints.flags.writeable = False
            pose.valid.flags.writeable = False
        self.decisions(poses)

    @pytest.mark.parametrize("left_in", ["nan", "the coordinates"])
    def test_a_pose_that_shows_nothing_never_fires(self, poses: list[Pose], left_in: str) -> None:
        trigger = self.trigger()
        for i, pose in enumerate(poses):
            lost = copy_of(pose, valid=np.zeros_like(pose.valid))
            if left_in == "nan":
                lost.keypoints[:] = np.nan
            if (i // 7) % 2:
                trigger.update(pose)
            else:
                assert trigger.update(lost) not in (Decision.FIRE, Decision.HIGH)

    def test_what_it_says_it_gives_is_what_it_gives(self, poses: list[Pose]) -> None:
        trigger = self.trigger()
        given = {trigger.update(pose) for pose in poses}
        if trigger.momentary is not None:
            assert (Decision.HIGH if trigger.momentary else Decision.FIRE) not in given
        assert trigger.delay_ms(RATE_HZ) >= 0

    def test_every_high_has_a_level_that_a_line_can_have(self, poses: list[Pose]) -> None:
        trigger, levels = self.trigger(), set()
        for pose in poses:
            if trigger.update(pose) is Decision.HIGH:
                assert isinstance(trigger.level, float)
                assert 0 < trigger.level <= 1
                levels.add(trigger.level)
        if trigger.gives_levels:
            assert len(levels) > 1
        else:
            assert levels <= {1.0}

    def test_sessions_trials_and_refusals_come_at_any_time(self, poses: list[Pose]) -> None:
        trigger = self.trigger()
        for i, pose in enumerate(poses):
            decision = trigger.update(pose)
            assert isinstance(decision, Decision)
            if i % 3 == 0:
                trigger.refused()
            if i % 7 == 0 and decision is Decision.HIGH:
                trigger.let_go()
            if i % 50 == 10:
                trigger.start_trial()
            if i % 100 == 20:
                trigger.start_session()

    def test_it_describes_its_last_decision_in_a_few_words(self, poses: list[Pose]) -> None:
        trigger = self.trigger()
        assert len(trigger.describe()) <= 200
        for pose in poses[:50]:
            trigger.update(pose)
            assert len(trigger.describe()) <= 200


CORNERS = [[300, 10], [630, 10], [630, 470], [320, 470]]
REGION: dict[str, Any] = {"type": "region", "keypoint": "snout", "polygon": CORNERS}
FAST: dict[str, Any] = {
    "type": "speed",
    "keypoint": "tailbase",
    "above_px_s": 900,
    "window_ms": 50,
}

#: Every built-in kind, in each of its ways, with some of what stands around a condition.
BUILT_IN: dict[str, dict[str, Any]] = {
    "region-enter": {**REGION, "when": "enter"},
    "region-leave": {
        "type": "region",
        "keypoint": "tailbase",
        "circle": {"x_px": 320, "y_px": 240, "radius_px": 150},
        "when": "leave",
        "refractory_ms": 50,
    },
    "region-inside": {**REGION, "when": "inside", "hysteresis_px": 5, "missing": "safe"},
    "region-outside-any": {
        "type": "region",
        "keypoints": ["snout", "tailbase"],
        "need": "any",
        "rectangle": {"x_px": 100, "y_px": 100, "width_px": 400, "height_px": 200},
        "when": "outside",
        "dwell_ms": 30,
    },
    "distance-starts": {
        "type": "distance",
        "keypoint": "snout",
        "to_keypoint": "tailbase",
        "below_px": 200,
        "hysteresis_px": 20,
        "when": "starts",
    },
    "distance-while-mm": {
        "type": "distance",
        "keypoint": "snout",
        "point": {"x_px": 320, "y_px": 240},
        "below_mm": 50,
        "when": "while",
        "missing": "hold",
        "hold_ms": 40,
    },
    "speed-starts": {**FAST, "when": "starts", "once_per_trial": True},
    "speed-while": {
        "type": "speed",
        "keypoint": "snout",
        "below_px_s": 900,
        "window_ms": 50,
        "when": "while",
        "filter": {"type": "one-euro"},
    },
    "acceleration": {
        "type": "acceleration",
        "keypoint": "snout",
        "above_px_s2": 2000,
        "window_ms": 20,
        "when": "starts",
        "filter": {"type": "median", "poses": 3},
    },
    "freezing": {
        "type": "freezing",
        "keypoints": ["snout", "tailbase"],
        "below_px_s": 1100,
        "window_ms": 20,
        "for_ms": 50,
        "when": "ends",
        "max_jump_px_s": 3000,
    },
    "heading": {
        "type": "heading",
        "back": "tailbase",
        "front": "snout",
        "towards_deg": 270,
        "within_deg": 45,
        "when": "while",
        "min_confidence": 0.5,
    },
    "angle": {
        "type": "angle",
        "joint": "snout",
        "ends": ["leftear", "rightear"],
        "above_deg": 90,
        "when": "starts",
        "max_fires": 3,
    },
    "looking": {
        "type": "looking",
        "back": "tailbase",
        "front": "snout",
        "polygon": CORNERS,
        "within_deg": 30,
        "side": "left",
        "when": "unless",
    },
    "posture": {
        "type": "posture",
        "keypoints": ["snout", "leftear", "tailbase"],
        "measure": "straightness",
        "above_ratio": 0.8,
        "when": "starts",
        "missing": "false",
    },
    "time-since": {
        "type": "time-since",
        "of": REGION,
        "event": "ended",
        "below_ms": 200,
        "when": "while",
    },
    "count": {
        "type": "count",
        "of": REGION,
        "event": "began",
        "at_least": 2,
        "when": "starts",
        "filter": {"type": "exponential", "time_constant_ms": 10},
    },
    "all": {"type": "all", "of": [REGION, FAST], "when": "while"},
    "any": {"type": "any", "of": [{**REGION, "dwell_ms": 50}, FAST], "when": "ends"},
    "not": {"type": "not", "of": REGION, "when": "while"},
    "proportional-speed": {
        "type": "proportional",
        "quantity": {"type": "speed", "keypoint": "snout", "window_ms": 50},
        "from_mm_s": [100, 500],
        "slew_per_s": 20,
        "filter": {"type": "median", "poses": 3},
    },
    "proportional-distance": {
        "type": "proportional",
        "quantity": {
            "type": "distance",
            "keypoint": "snout",
            "circle": {"x_px": 320, "y_px": 240, "radius_px": 100},
        },
        "from_px": [-50, 100],
        "to": [0.8, 0.0],
        "min_level": 0.2,
        "missing": "hold",
        "hold_ms": 40,
    },
    "proportional-looking": {
        "type": "proportional",
        "quantity": {
            "type": "looking",
            "back": "tailbase",
            "front": "snout",
            "point": {"x_px": 320, "y_px": 240},
        },
        "from_deg": [10, 90],
        "to": [1, 0],
        "missing": "safe",
    },
}


class TestBuiltIn(TriggerContract):
    """Every built-in trigger, the settings of which change from test to test."""

    @pytest.fixture(autouse=True, params=list(BUILT_IN.values()), ids=list(BUILT_IN))
    def chosen(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        own = dict(request.param)
        monkeypatch.setattr(type(self), "plugin", load("triggers", own.pop("type")), raising=False)
        monkeypatch.setattr(type(self), "settings", own)


def test_every_built_in_trigger_is_among_them() -> None:
    assert {table["type"] for table in BUILT_IN.values()} == {
        name for name, point in available("triggers").items() if "rtpose." in point.value
    }
