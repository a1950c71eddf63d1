"""What every condition must do; third-party ones too.

A plug-in's own tests derive a class from `ConditionContract`, name the condition and give settings
with which the walk of `test_trigger_contract` meets it and does not meet it; with
``tests/contract`` on pytest's ``pythonpath``::

    from test_condition_contract import ConditionContract

    class TestMyCondition(ConditionContract):
        plugin = MyCondition
        settings = {"keypoint": "snout", "limit_px": 12}
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError
from test_trigger_contract import BUILT_IN, walk

from rtpose.errors import SkeletonError
from rtpose.interfaces import Scale
from rtpose.plugins import load
from rtpose.skeleton import Skeleton
from rtpose.triggers.condition import Condition
from rtpose.triggers.logic import AllCondition, CombinedSettings
from rtpose.triggers.nested import Nested
from rtpose.triggers.sample import Sample, unpacked
from rtpose.triggers.trigger import ConditionTrigger


@cache
def _samples(skeleton: Skeleton) -> tuple[Sample, ...]:
    return tuple(unpacked(pose, len(skeleton.names)).sample for pose in walk(skeleton))


class ConditionContract:
    """The suite.

    Attributes
    ----------
    plugin, settings
        The condition, and settings that fit `skeleton`.
    skeleton
        Keypoints that the settings speak of.
    scale
        Of the arena.
    """

    plugin: ClassVar[type[Condition]]
    settings: ClassVar[Mapping[str, Any]] = {}
    skeleton: ClassVar[Skeleton] = Skeleton(("snout", "leftear", "rightear", "tailbase"))
    scale: ClassVar[Scale] = Scale(px_per_mm=3.0)

    @pytest.fixture
    def samples(self) -> list[Sample]:
        """Samples some of which meet the condition and some do not."""
        return list(_samples(self.skeleton))

    def unprepared(self) -> Condition:
        build: Any = self.plugin
        made: Condition = build(self.plugin.Config.model_validate(dict(self.settings)))
        return made

    def condition(self) -> Condition:
        made = self.unprepared()
        made.prepare(self.skeleton, self.scale)
        return made

    def answers(self, samples: Sequence[Sample]) -> list[bool | None]:
        made = self.condition()
        return [made.update(sample) for sample in samples]

    def test_unknown_settings_are_refused(self) -> None:
        with pytest.raises(ValidationError, match="no_such_setting"):
            self.plugin.Config.model_validate({**self.settings, "no_such_setting": 1})

    def test_a_model_without_its_keypoints_is_refused(self) -> None:
        with pytest.raises(SkeletonError):
            self.unprepared().prepare(Skeleton(("no_such_keypoint",)), self.scale)

    def test_it_answers_yes_no_or_nothing(self, samples: list[Sample]) -> None:
        answers = self.answers(samples)
        assert {True, False} <= set(answers) <= {True, False, None}
        assert all(answer is None or isinstance(answer, bool) for answer in answers)

    def test_it_names_the_keypoints_it_looks_at(self, samples: list[Sample]) -> None:
        """Gates and filters work on those that it names; it must not see others."""
        used = {self.skeleton.index(name) for name in self.condition().keypoints}
        assert used
        blinded = [
            Sample(at_ns, [p if i in used else None for i, p in enumerate(points)])
            for at_ns, points in samples
        ]
        assert self.answers(blinded) == self.answers(samples)

    def test_a_sample_that_shows_nothing_does_not_tell(self, samples: list[Sample]) -> None:
        made = self.condition()
        for i, sample in enumerate(samples):
            if (i // 7) % 2:
                made.update(sample)
            else:
                nothing = Sample(sample.start_ns, [None] * len(sample.points))
                assert made.update(nothing) is None

    def test_only_differences_of_time_matter(self, samples: list[Sample]) -> None:
        later = [Sample(at_ns + 10**15, points) for at_ns, points in samples]
        assert self.answers(later) == self.answers(samples)

    def test_after_a_reset_it_is_as_new(self, samples: list[Sample]) -> None:
        made = self.condition()
        for sample in samples[200:]:
            made.update(sample)
        made.reset()
        assert [made.update(sample) for sample in samples] == self.answers(samples)

    def test_two_of_them_do_not_share_anything(self, samples: list[Sample]) -> None:
        first, second = self.condition(), self.condition()
        both = [
            (first.update(sample), second.update(other))
            for sample, other in zip(samples[100:], samples, strict=False)
        ]
        assert [answer for answer, _ in both] == self.answers(samples[100:])
        assert [answer for _, answer in both] == self.answers(samples[:-100])

    def test_letting_go_needs_no_state(self, samples: list[Sample]) -> None:
        made = self.condition()
        made.let_go()
        assert [made.update(sample) for sample in samples] == self.answers(samples)

    def test_it_works_inside_of_others(self, samples: list[Sample]) -> None:
        settings = self.plugin.Config.model_validate(dict(self.settings))
        inner = Nested("inner", self.plugin, settings)
        outer = AllCondition(CombinedSettings(of=[inner]))
        outer.prepare(self.skeleton, self.scale)
        assert outer.keypoints == tuple(dict.fromkeys(self.condition().keypoints))
        alone = self.answers(samples)
        if not settings.dwell_ms:
            assert [outer.update(sample) for sample in samples] == alone

    def test_it_describes_its_last_answer_in_words(self, samples: list[Sample]) -> None:
        made = self.condition()
        assert made.describe() == str(made.describe())
        for sample in samples[:50]:
            made.update(sample)
            assert made.describe()


CONDITIONS = {
    name: table
    for name, table in BUILT_IN.items()
    if issubclass(load("triggers", table["type"]), ConditionTrigger)
}


class TestBuiltIn(ConditionContract):
    """Every built-in condition, the settings of which change from test to test."""

    @pytest.fixture(autouse=True, params=list(CONDITIONS.values()), ids=list(CONDITIONS))
    def chosen(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        trigger: Any = load("triggers", request.param["type"])
        assert issubclass(trigger, ConditionTrigger)
        condition = trigger.condition_type
        own = {k: v for k, v in request.param.items() if k in condition.Config.model_fields}
        monkeypatch.setattr(type(self), "plugin", condition, raising=False)
        monkeypatch.setattr(type(self), "settings", own)
