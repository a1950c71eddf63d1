"""``proportional``: the level of a line follows a quantity of the pose."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import Field, PlainSerializer, PlainValidator, ValidationInfo, model_validator

from rtpose.interfaces import Decision, Settings
from rtpose.skeleton import Skeleton
from rtpose.triggers.acceleration import AccelerationOfSettings
from rtpose.triggers.angle import JointSettings
from rtpose.triggers.condition import QuantitySettings
from rtpose.triggers.distance import DistanceOfSettings
from rtpose.triggers.gates import GateSettings
from rtpose.triggers.heading import DirectionSettings
from rtpose.triggers.looking import SightSettings
from rtpose.triggers.posture import ChainSettings
from rtpose.triggers.sample import Sample
from rtpose.triggers.speed import SpeedOfSettings
from rtpose.triggers.tables import read_table
from rtpose.triggers.thresholds import Signed, px_per_unit, quantity_words
from rtpose.triggers.trigger import SampleTrigger

#: By the names of the triggers that compare the same quantities with thresholds.
QUANTITIES: Final[dict[str, type[QuantitySettings]]] = {
    "speed": SpeedOfSettings,
    "acceleration": AccelerationOfSettings,
    "distance": DistanceOfSettings,
    "heading": DirectionSettings,
    "angle": JointSettings,
    "looking": SightSettings,
    "posture": ChainSettings,
}
_TYPE: Final = "type"
_FROM: Final = "from_"
#: The least that an output of 8 bits can show.
_LEAST: Final = 1 / 255


@dataclass(frozen=True, slots=True)
class ChosenQuantity:
    """A quantity by its name, and what it is taken from."""

    name: str
    settings: QuantitySettings


def _parse(value: object, info: ValidationInfo) -> ChosenQuantity:
    if isinstance(value, ChosenQuantity):
        return value
    chosen = value.get(_TYPE) if isinstance(value, dict) else None
    if not isinstance(value, dict) or chosen not in QUANTITIES:
        raise ValueError(f"must be a table whose type is one of: {', '.join(QUANTITIES)}")
    own = {key: entry for key, entry in value.items() if key != _TYPE}
    return ChosenQuantity(chosen, read_table(QUANTITIES[chosen], own, info.context))


def _dump(chosen: ChosenQuantity) -> dict[str, Any]:
    return {_TYPE: chosen.name, **chosen.settings.model_dump()}


AnyQuantity = Annotated[ChosenQuantity, PlainValidator(_parse), PlainSerializer(_dump)]

Level = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
# TOML has arrays, not tuples.
Levels = Annotated[tuple[Level, Level], Field(strict=False)]
Range = Annotated[tuple[Signed, Signed], Field(strict=False)]


class ProportionalSettings(GateSettings):
    """``type = "proportional"``, for a line with ``levels = true``.

    What `GateSettings` calls ``missing`` means for a level: ``skip``: the line is low for that
    pose, and goes on from its last level; ``hold``: it keeps its level for at most `hold_ms` after
    the last pose that told; ``false`` and ``safe``: it is low, and begins anew. After `hold_ms` it
    is as with ``false``.

    Attributes
    ----------
    quantity : table
        ``type`` is ``speed``, ``acceleration``, ``distance``, ``heading``, ``angle``, ``looking``
        or ``posture``, the other keys are those of that trigger, without its thresholds. Of
        ``heading`` and ``looking`` the number is how far off `towards_deg`, or the place, the axis
        is, to either side: 0 to 180 deg.
    from_px, from_mm, from_px_s, from_mm_s, from_px_s2, from_mm_s2, from_deg, from_ratio : list
        Exactly one, ``[low, high]``, in a unit of the quantity: where the level is the first, and
        the second of `to`. Between them it is in proportion, beyond them it stays.
    to : list of float
        The two levels, 0 to 1; the first may be the higher one.
    min_level : float
        A lower one is off: the line is low.
    slew_per_s : float, optional
        The level changes by no more than this per second, by the poses' stamps. A line that goes
        high begins at `min_level`, one that is let go by control, or for want of a pose that tells,
        goes low at once.
    """

    quantity: AnyQuantity
    from_px: Range | None = None
    from_mm: Range | None = None
    from_px_s: Range | None = None
    from_mm_s: Range | None = None
    from_px_s2: Range | None = None
    from_mm_s2: Range | None = None
    from_deg: Range | None = None
    from_ratio: Range | None = None
    to: Levels = (0.0, 1.0)
    min_level: Annotated[float, Field(ge=_LEAST, le=1)] = _LEAST
    slew_per_s: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _has_one_range(self) -> Self:
        name, units = self.quantity.name, self.quantity.settings.units
        given = [key for key in type(self).model_fields if key.startswith(_FROM)]
        given = [key for key in given if getattr(self, key) is not None]
        wanted = [_FROM + unit for unit in units]
        if len(given) != 1 or given[0] not in wanted:
            raise ValueError(
                f"{name} needs exactly one of {' and '.join(wanted)}, given: "
                f"{', '.join(given) or 'none'}"
            )
        low, high = self.range
        if low >= high:
            raise ValueError(
                f"{given[0]} = [{low:g}, {high:g}] must be low, high; let `to` fall for a level "
                "that falls"
            )
        least, most = self.quantity.settings.span
        if not least <= low < high <= most:
            raise ValueError(
                f"{given[0]} = [{low:g}, {high:g}] reaches beyond what {name} can be: "
                f"{least:g} to {most:g}"
            )
        return self

    @model_validator(mode="after")
    def _switches(self) -> Self:
        first, second = self.to
        if first == second:
            raise ValueError(
                f"to = [{first:g}, {second:g}] is one level whatever the pose; for that take a "
                "trigger with thresholds"
            )
        if max(self.to) < self.min_level:
            raise ValueError(
                f"to = [{first:g}, {second:g}] never reaches min_level = {self.min_level:g}"
            )
        return self

    @property
    def unit(self) -> str:
        """The unit in which the range is given."""
        units = self.quantity.settings.units
        return next(unit for unit in units if getattr(self, _FROM + unit) is not None)

    @property
    def range(self) -> tuple[float, float]:
        """The range, in that unit."""
        found: tuple[float, float] = getattr(self, _FROM + self.unit)
        return found


class Slew:
    """A level that is off, or follows its target as fast as it may.

    Parameters
    ----------
    min_level : float
        Where it begins when it was off, and what it does not fall below without going off.
    per_s : float
        Its fastest change; may be infinite.
    """

    def __init__(self, min_level: float, per_s: float) -> None:
        self._min_level = min_level
        self._per_ns = per_s / 1e9
        self._last_ns = 0
        self.level: float | None = None

    def update(self, start_ns: int, target: float) -> float | None:
        """Take the next target, later than those before; return the level, None where it is off."""
        reach = self._per_ns * (start_ns - self._last_ns)
        self._last_ns = start_ns
        wanted = target if target >= self._min_level else 0.0
        if self.level is not None:
            level = min(max(wanted, self.level - reach), self.level + reach)
        else:
            level = wanted if self._per_ns == math.inf else min(wanted, self._min_level)
        self.level = level if level >= self._min_level else None
        return self.level

    def switch_off(self) -> None:
        """Be off."""
        self.level = None


class ProportionalTrigger(SampleTrigger):
    """The level of a line follows a quantity, clamped, and no faster than it may."""

    Config: ClassVar[type[Settings]] = ProportionalSettings

    def __init__(self, config: ProportionalSettings) -> None:
        super().__init__(config)
        self._config = config
        self._range, self._to = config.range, config.to
        self._quantity = config.quantity.settings.build()
        self._policy = config.policy()
        self._slew = Slew(config.min_level, config.slew_per_s or math.inf)
        self._px_per_unit = 1.0
        self._value: float | None = None

    def prepare(self, skeleton: Skeleton) -> None:
        """Look up keypoints, and turn mm into px."""
        self._px_per_unit = px_per_unit(self._config.unit, self._scale)
        self._quantity.prepare(skeleton)
        self._look_at(skeleton, self._quantity.keypoints)

    def _decide(self, sample: Sample) -> Decision:
        start_ns = sample.start_ns
        value = self._quantity.update(sample)
        if value is None:
            self._value = None
            return self._on_missing(start_ns)
        self._value = value / self._px_per_unit
        self._policy.told(start_ns)
        level = self._slew.update(start_ns, self._target(self._value))
        return Decision.LOW if level is None else Decision.HIGH

    def _target(self, value: float) -> float:
        (low, high), (first, second) = self._range, self._to
        share = min(1.0, max(0.0, (value - low) / (high - low)))
        return min(1.0, (1.0 - share) * first + share * second)  # exact at both ends

    def _on_missing(self, start_ns: int) -> Decision:
        match self._policy.missing(start_ns):
            case "hold" if self._slew.level is not None:
                return Decision.NOTHING  # which leaves a high line as it is, and raises none
            case "end":
                self._slew.switch_off()
        return Decision.LOW

    def _start_afresh(self, start_ns: int) -> None:
        self._policy.reset()
        self._slew.switch_off()
        self._quantity.reset()

    def refused(self) -> None:
        """Begin anew with the next pose: the line is low."""
        self._slew.switch_off()

    def let_go(self) -> None:
        """Begin anew: control has let go of the line."""
        self._slew.switch_off()

    @property
    def gives_levels(self) -> bool:
        """It does."""
        return True

    @property
    def level(self) -> float:
        """The level that the last pose asked for; that of a low line is not asked for."""
        return self._slew.level or self._config.min_level

    @property
    def momentary(self) -> bool:
        """No: its line stays high."""
        return False

    def _words(self) -> str:
        quantity = self._config.quantity.settings.words()
        words = quantity_words(quantity, self._value, self._config.unit)
        if self._value is None:
            return words
        level = self._slew.level
        return f"{words}: {'off' if level is None else f'level {level:.3f}'}"
