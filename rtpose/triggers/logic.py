"""``all``, ``any`` and ``not``: conditions combined, in Kleene's three-valued logic.

What is not known counts as neither met nor unmet: ``all`` is unmet as soon as one condition is
known to be unmet, ``any`` is met as soon as one is known to be met, and otherwise one that is not
known leaves the answer open; ``not`` of what is not known is not known. (S. C. Kleene, Introduction
to Metamathematics, 1952, section 64, strong connectives.)
"""

from collections.abc import Sequence
from typing import ClassVar

from rtpose.interfaces import Scale, Settings
from rtpose.skeleton import Skeleton
from rtpose.triggers.condition import Condition, ConditionSettings
from rtpose.triggers.nested import Nested, One, Several
from rtpose.triggers.sample import Sample
from rtpose.triggers.trigger import ConditionTrigger, EventTriggerSettings


class CombinedSettings(ConditionSettings):
    """``of = [{ type = "region", ... }, { type = "speed", ... }]``.

    Attributes
    ----------
    of : list of tables
        Conditions, each as in a trigger's table, without what stands around a trigger's condition
        (`TriggerSettings`) but with a `dwell_ms` of its own.
    """

    of: Several


class NotSettings(ConditionSettings):
    """``of = { type = "region", ... }``.

    Attributes
    ----------
    of : table
        One condition, as in `CombinedSettings`.
    """

    of: One


class Composite(Condition):
    """A condition made of others, all of which see every sample."""

    def __init__(self, parts: Sequence[Nested]) -> None:
        self._parts = [part.build() for part in parts]

    @property
    def keypoints(self) -> tuple[str, ...]:
        """Names of the keypoints it looks at."""
        return tuple(dict.fromkeys(name for part in self._parts for name in part.keypoints))

    def prepare(self, skeleton: Skeleton, scale: Scale | None) -> None:
        """Prepare the parts."""
        for part in self._parts:
            part.prepare(skeleton, scale)

    def reset(self) -> None:
        """Forget every sample."""
        for part in self._parts:
            part.reset()

    def let_go(self) -> None:
        """Count as ended."""
        for part in self._parts:
            part.let_go()

    def describe(self) -> str:
        """Say what the parts say."""
        return "; ".join(filter(None, (part.describe() for part in self._parts)))


class AllCondition(Composite):
    """Every part is met."""

    Config: ClassVar[type[ConditionSettings]] = CombinedSettings

    def __init__(self, config: CombinedSettings) -> None:
        super().__init__(config.of)

    def update(self, sample: Sample) -> bool | None:
        """Take the next sample."""
        answers = [part.update(sample) for part in self._parts]
        if False in answers:
            return False
        return None if None in answers else True


class AnyCondition(Composite):
    """At least one part is met."""

    Config: ClassVar[type[ConditionSettings]] = CombinedSettings

    def __init__(self, config: CombinedSettings) -> None:
        super().__init__(config.of)

    def update(self, sample: Sample) -> bool | None:
        """Take the next sample."""
        answers = [part.update(sample) for part in self._parts]
        if True in answers:
            return True
        return None if None in answers else False


class NotCondition(Composite):
    """The one part is not met."""

    Config: ClassVar[type[ConditionSettings]] = NotSettings

    def __init__(self, config: NotSettings) -> None:
        super().__init__([config.of])

    def update(self, sample: Sample) -> bool | None:
        """Take the next sample."""
        answer = self._parts[0].update(sample)
        return None if answer is None else not answer

    def describe(self) -> str:
        """Say what the part says."""
        return f"not ({super().describe()})"


class CombinedTriggerSettings(EventTriggerSettings, CombinedSettings):
    """``type = "all"`` and ``"any"``: `CombinedSettings` and `EventTriggerSettings`."""


class NotTriggerSettings(EventTriggerSettings, NotSettings):
    """``type = "not"``: `NotSettings` and `EventTriggerSettings`."""


class AllTrigger(ConditionTrigger):
    """All of several conditions as a trigger."""

    Config: ClassVar[type[Settings]] = CombinedTriggerSettings
    condition_type: ClassVar[type[Condition]] = AllCondition


class AnyTrigger(ConditionTrigger):
    """Any of several conditions as a trigger."""

    Config: ClassVar[type[Settings]] = CombinedTriggerSettings
    condition_type: ClassVar[type[Condition]] = AnyCondition


class NotTrigger(ConditionTrigger):
    """The opposite of a condition as a trigger."""

    Config: ClassVar[type[Settings]] = NotTriggerSettings
    condition_type: ClassVar[type[Condition]] = NotCondition
