"""Quantities against thresholds, with hysteresis, in px or mm."""

from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import Field, model_validator

from rtpose.errors import InputError
from rtpose.interfaces import Scale
from rtpose.skeleton import Skeleton
from rtpose.triggers.condition import Condition, ConditionSettings, QuantitySettings
from rtpose.triggers.sample import Sample

Positive = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Signed = Annotated[float, Field(ge=-1e9, le=1e9, allow_inf_nan=False)]
Degrees = Annotated[float, Field(ge=0, le=180, allow_inf_nan=False)]

#: How a unit reads in a sentence; the others read as they are written.
_WORDS: Final = {"px_s": "px/s", "mm_s": "mm/s", "px_s2": "px/s2", "mm_s2": "mm/s2"}


class Threshold:
    """A number is above, below, or between two thresholds.

    The thresholds themselves do not meet it: it is met where ``above < value < below``. Once met,
    it stays met until the value is back by more than the hysteresis: while ``above - hysteresis <
    value < below + hysteresis``.

    Parameters
    ----------
    above, below : float
        Infinite where there is no such threshold.
    hysteresis : float
        At least 0.
    """

    def __init__(
        self, above: float = -float("inf"), below: float = float("inf"), hysteresis: float = 0.0
    ) -> None:
        self._outer = (above, below)
        self._inner = (above - hysteresis, below + hysteresis)
        self._met = False

    def update(self, value: float | None) -> bool | None:
        """Take the next value; None, which changes nothing, is not known."""
        if value is None:
            return None
        self._met = met = self.would_meet(value)
        return met

    def would_meet(self, value: float) -> bool:
        """Return what `update` would, without taking the value."""
        low, high = self._inner if self._met else self._outer
        return low < value < high

    def let_go(self) -> None:
        """Be not met."""
        self._met = False


class Arc:
    """An angle lies within an arc, both ends of which belong to it.

    Once within, it stays so until it is out by more than the hysteresis.

    Parameters
    ----------
    low_deg, high_deg : float
        The ends, -180 to 180.
    hysteresis_deg : float
        At least 0.
    """

    def __init__(self, low_deg: float, high_deg: float, hysteresis_deg: float = 0.0) -> None:
        self._outer = (low_deg, high_deg)
        self._inner = (low_deg - hysteresis_deg, high_deg + hysteresis_deg)
        self._met = False

    def update(self, angle_deg: float | None) -> bool | None:
        """Take the next angle, -180 to 180; None, which changes nothing, is not known."""
        if angle_deg is None:
            return None
        low, high = self._inner if self._met else self._outer
        self._met = met = (
            low <= angle_deg <= high or low <= angle_deg - 360.0 or angle_deg + 360.0 <= high
        )
        return met

    def let_go(self) -> None:
        """Be not met."""
        self._met = False


class BoundSettings(ConditionSettings):
    """Base of settings with ``above_<unit>``, ``below_<unit>`` and ``hysteresis_<unit>``.

    Attributes
    ----------
    UNITS : tuple of str
        Endings of the fields: one unit, or the same in px and in mm.
    """

    UNITS: ClassVar[tuple[str, ...]]

    @model_validator(mode="after")
    def _has_one_pair_of_bounds(self) -> Self:
        units = [unit for unit in self.UNITS if any(v is not None for v in self._bounds(unit))]
        if len(units) > 1:
            raise ValueError(f"give thresholds in {units[0]} or in {units[1]}, not in both")
        above, below, _ = self._bounds(units[0]) if units else (None, None, None)
        if above is None and below is None:
            names = [f"{way}_{unit}" for unit in (units or self.UNITS) for way in self._ways()]
            raise ValueError(f"a threshold is needed: {' or '.join(names)}")
        if above is not None and below is not None and above >= below:
            raise ValueError(
                f"nothing is above {above:g} and below {below:g}; above_{units[0]} must be the "
                "smaller one"
            )
        return self

    def _bounds(self, unit: str) -> tuple[float | None, float | None, float | None]:
        fields: Any = self
        above, below = (
            getattr(fields, f"{way}_{unit}") if way in self._ways() else None
            for way in ("above", "below")
        )
        return above, below, getattr(fields, f"hysteresis_{unit}")

    def _ways(self) -> tuple[str, ...]:
        return ("above", "below")

    @property
    def unit(self) -> str:
        """The unit in which the thresholds are given."""
        return next(u for u in self.UNITS if any(v is not None for v in self._bounds(u)[:2]))

    def threshold(self, scale: Scale | None) -> Threshold:
        """Return the threshold, in px where it is given in mm."""
        above, below, hysteresis = self._bounds(self.unit)
        factor = px_per_unit(self.unit, scale)
        return Threshold(
            -float("inf") if above is None else above * factor,
            float("inf") if below is None else below * factor,
            (hysteresis or 0.0) * factor,
        )


def px_per_unit(unit: str, scale: Scale | None) -> float:
    """Return the px in one of a unit's mm, 1 for units without mm; raise without a scale."""
    if not unit.startswith("mm"):
        return 1.0
    if scale is None:
        raise InputError(
            f"something is given in {unit}, and the rig has no scale: write [arena] "
            f"px_per_mm = ..., or give it in {unit.replace('mm', 'px')}"
        )
    return scale.px_per_mm


def quantity_words(words: str, value: float | None, unit: str) -> str:
    """Say what a number is, in a unit that is the ending of a field."""
    if value is None:
        return f"{words} not known"
    if unit == "ratio":
        return f"{words} {value:.3f}"
    return f"{words} {value:.1f} {_WORDS.get(unit, unit)}"


class QuantityBoundSettings(QuantitySettings, BoundSettings):
    """Base of the settings of a quantity and of the thresholds that it is compared with."""

    @model_validator(mode="after")
    def _divides_what_can_be(self) -> Self:
        (least, most), unit = self.span, self.unit
        above, below, _ = self._bounds(unit)
        wrong = "" if above is None or least <= above < most else f"above_{unit} = {above:g}"
        if below is not None and below <= least:
            wrong = f"below_{unit} = {below:g}"
        if wrong and unit in self.units:
            raise ValueError(
                f"{wrong} can make no difference: the number is always {least:g} to {most:g}"
            )
        return self


class QuantityCondition(Condition):
    """A quantity against a threshold.

    Parameters
    ----------
    config : QuantityBoundSettings
        The settings, of the quantity and of the thresholds.
    """

    def __init__(self, config: QuantityBoundSettings) -> None:
        self._config = config
        self._quantity = config.build()
        self._threshold = Threshold()
        self._px_per_unit = 1.0
        self._value: float | None = None

    @property
    def keypoints(self) -> tuple[str, ...]:
        """Names of the keypoints it looks at."""
        return self._quantity.keypoints

    def prepare(self, skeleton: Skeleton, scale: Scale | None) -> None:
        """Look up keypoints by name, and turn mm into px."""
        self._quantity.prepare(skeleton)
        self._threshold = self._config.threshold(scale)
        self._px_per_unit = px_per_unit(self._config.unit, scale)

    def update(self, sample: Sample) -> bool | None:
        """Take the next sample."""
        value = self._value = self._quantity.update(sample)
        return self._threshold.update(value)

    def reset(self) -> None:
        """Forget every sample."""
        self._quantity.reset()
        self._threshold.let_go()

    def let_go(self) -> None:
        """Count as ended."""
        self._threshold.let_go()

    def describe(self) -> str:
        """Say the number, in the unit of the thresholds."""
        value = None if self._value is None else self._value / self._px_per_unit
        return quantity_words(self._config.words(), value, self._config.unit)
