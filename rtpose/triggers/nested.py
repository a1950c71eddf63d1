"""Conditions inside of conditions: the tables under ``of``."""

from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import Field, PlainSerializer, PlainValidator, ValidationInfo

from rtpose import plugins
from rtpose.errors import InputError
from rtpose.interfaces import Scale
from rtpose.skeleton import Skeleton
from rtpose.triggers.condition import Condition, ConditionSettings
from rtpose.triggers.sample import Sample
from rtpose.triggers.tables import read_table
from rtpose.triggers.timing import Dwell
from rtpose.triggers.trigger import ConditionTrigger

_TYPE: Final = "type"


@dataclass(frozen=True, slots=True)
class Nested:
    """A condition inside of another one.

    Attributes
    ----------
    name : str
        The trigger plug-in whose condition it is, or ``"module:Class"``.
    condition_type : type of Condition
    settings : ConditionSettings
        Those of the condition alone: what a trigger has around its condition is said once, by the
        trigger.
    """

    name: str
    condition_type: type[Condition]
    settings: ConditionSettings

    def build(self) -> Condition:
        """Return the condition, with its own dwell time around it."""
        build: Any = self.condition_type
        condition: Condition = build(self.settings)
        dwell_ms = self.settings.dwell_ms
        return Dwelling(condition, round(dwell_ms * 1e6)) if dwell_ms else condition


class Dwelling(Condition):
    """A condition that must have been met for some time, see `Dwell`."""

    Config = ConditionSettings

    def __init__(self, condition: Condition, dwell_ns: int) -> None:
        self._condition = condition
        self._dwell = Dwell(dwell_ns)

    @property
    def keypoints(self) -> tuple[str, ...]:
        """Names of the keypoints it looks at."""
        return self._condition.keypoints

    def prepare(self, skeleton: Skeleton, scale: Scale | None) -> None:
        """Prepare the condition."""
        self._condition.prepare(skeleton, scale)

    def update(self, sample: Sample) -> bool | None:
        """Take the next sample."""
        return self._dwell.update(sample.start_ns, self._condition.update(sample))

    def reset(self) -> None:
        """Forget every sample."""
        self._condition.reset()
        self._dwell.reset()

    def let_go(self) -> None:
        """Count as ended."""
        self._condition.let_go()
        self._dwell.reset()

    def describe(self) -> str:
        """Say what the condition says."""
        return self._condition.describe()


def _parse(value: object, info: ValidationInfo) -> Nested:
    if isinstance(value, Nested):
        return value
    if not isinstance(value, dict) or not isinstance(value.get(_TYPE), str):
        raise ValueError('must be a table with a type, as in { type = "region", ... }')
    name: str = value[_TYPE]
    try:
        plugin = plugins.load("triggers", name)
    except InputError as error:
        raise ValueError(str(error)) from error
    if not issubclass(plugin, ConditionTrigger):
        raise ValueError(
            f"{name!r} is a trigger, and not made of a condition: derive it from ConditionTrigger"
        )
    condition_type = plugin.condition_type
    around = set(plugin.Config.model_fields) - set(condition_type.Config.model_fields)
    misplaced = sorted(around & set(value))
    if misplaced:
        raise ValueError(
            f"{', '.join(misplaced)}: said once, by the trigger itself, and not inside of it"
        )
    own = {key: entry for key, entry in value.items() if key != _TYPE}
    settings = read_table(condition_type.Config, own, info.context)
    return Nested(name, condition_type, settings)


def _dump(nested: Nested) -> dict[str, Any]:
    return {_TYPE: nested.name, **nested.settings.model_dump()}


#: One table under ``of``.
One = Annotated[Nested, PlainValidator(_parse), PlainSerializer(_dump)]
Several = Annotated[list[One], Field(min_length=1, max_length=100)]
