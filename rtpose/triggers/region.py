"""``region``: keypoints enter, leave, are inside or outside of a part of the picture."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from rtpose.interfaces import Scale, Settings
from rtpose.skeleton import Skeleton
from rtpose.triggers.condition import (
    Condition,
    ConditionSettings,
    Keypoint,
    Keypoints,
    indices,
)
from rtpose.triggers.geometry import Point
from rtpose.triggers.places import ShapeSettings
from rtpose.triggers.sample import Sample
from rtpose.triggers.trigger import ConditionTrigger, TriggerSettings


class RegionSettings(ShapeSettings, ConditionSettings):
    """A region (`ShapeSettings`) and who must be in it.

    Attributes
    ----------
    keypoint : str, optional
        A keypoint of the model.
    keypoints : list of str, optional
        Several of them. Exactly one of `keypoint` and `keypoints` is given.
    need : {'all', 'any'}, optional
        Given with `keypoints` only: how many of them must be inside.
    hysteresis_px : float
        A keypoint that is inside stays inside until it is farther than this from the border.
    """

    keypoint: Keypoint | None = None
    keypoints: Keypoints | None = None
    need: Literal["all", "any"] | None = None
    hysteresis_px: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] = 0.0

    @model_validator(mode="after")
    def _says_who(self) -> Self:
        if (self.keypoint is None) == (self.keypoints is None):
            given = "neither" if self.keypoint is None else "both"
            raise ValueError(f"exactly one of keypoint and keypoints is needed, {given} is given")
        if (self.keypoints is None) != (self.need is None):
            raise ValueError('keypoints and need = "all" or "any" are given together')
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the keypoints."""
        return (self.keypoint,) if self.keypoint is not None else tuple(self.keypoints or ())


class Region(Condition):
    """Keypoints and a region; a point on its border is inside, exactly.

    With several keypoints, one that is not found leaves the answer open where it could change it:
    one that is inside is enough for ``any``, one that is outside for ``all`` not to be met.
    """

    Config: ClassVar[type[ConditionSettings]] = RegionSettings

    def __init__(self, config: RegionSettings) -> None:
        shape = config.shape()
        if shape is None:
            raise ValueError("the settings have no region")
        self._shape = shape
        self._names = config.names
        self._all = config.need != "any"
        self._hysteresis_px = config.hysteresis_px
        self._indices: tuple[int, ...] = ()
        self._last: Sample | None = None
        self.reset()

    @property
    def keypoints(self) -> tuple[str, ...]:
        """Names of the keypoints it looks at."""
        return self._names

    def prepare(self, skeleton: Skeleton, scale: Scale | None) -> None:
        """Look up the keypoints."""
        self._indices = indices(skeleton, self._names)

    def reset(self) -> None:
        """Forget every sample."""
        self.let_go()

    def let_go(self) -> None:
        """Count as ended."""
        self._inside = [False] * len(self._names)

    def update(self, sample: Sample) -> bool | None:
        """Take the next sample."""
        self._last = sample
        decided, missing = not self._all, False
        answer = self._all
        for number, index in enumerate(self._indices):
            point = sample.points[index]
            if point is None:
                missing = True
            elif self._is_inside(number, point) is decided:
                answer = decided  # whatever the others do; they are asked for their hysteresis
        return None if missing and answer is not decided else answer

    def _is_inside(self, number: int, point: Point) -> bool:
        inside = self._shape.contains(*point)
        if not inside and self._hysteresis_px and self._inside[number]:
            inside = self._shape.distance(*point) <= self._hysteresis_px
        self._inside[number] = inside
        return inside

    def describe(self) -> str:
        """Say where the keypoints were in the last pose."""
        words = []
        for name, index in zip(self._names, self._indices, strict=True):
            point = None if self._last is None else self._last.points[index]
            place = "not found" if point is None else f"at ({point[0]:.1f}, {point[1]:.1f}) px"
            words.append(f"{name} {place}")
        return ", ".join(words)


class RegionTriggerSettings(TriggerSettings, RegionSettings):
    """``[triggers.<name>]`` with ``type = "region"``: `RegionSettings` and `TriggerSettings`.

    Attributes
    ----------
    when : {'enter', 'leave', 'inside', 'outside'}
        ``enter`` and ``leave`` ask for a pulse at the pose where the keypoints came in or went out;
        ``inside`` and ``outside`` ask for a high line as long as they are there.
    """

    when: Literal["enter", "leave", "inside", "outside"]


class RegionTrigger(ConditionTrigger):
    """A region as a trigger."""

    Config: ClassVar[type[Settings]] = RegionTriggerSettings
    condition_type: ClassVar[type[Condition]] = Region
