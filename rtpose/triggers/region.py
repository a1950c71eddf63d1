"""``region``: a keypoint enters, leaves or is inside a part of the picture."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from rtpose.interfaces import Decision, Settings, Trigger
from rtpose.messages import Pose
from rtpose.skeleton import Skeleton
from rtpose.triggers.geometry import Circle, Polygon
from rtpose.triggers.keypoint import KeypointReader

#: No camera frame reaches as far.
Coordinate = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
#: TOML has arrays, not tuples.
Corner = Annotated[tuple[Coordinate, Coordinate], Field(strict=False)]


class CircleSettings(Settings):
    """``circle = { x_px, y_px, radius_px }``."""

    x_px: Coordinate
    y_px: Coordinate
    radius_px: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]


class RegionSettings(Settings):
    """``[triggers.<name>]`` with ``type = "region"``.

    Attributes
    ----------
    keypoint : str
        A keypoint of the model.
    polygon : list of [x, y], optional
        Corners in order around the border, in px of the full camera frame.
    circle : table, optional
        ``x_px``, ``y_px``, ``radius_px``. Exactly one of `polygon` and `circle` is given.
    when : {'enter', 'leave', 'inside'}
        ``enter`` and ``leave`` ask for one pulse at the pose where the keypoint came in or went
        out; ``inside`` asks for a high line as long as the keypoint is inside.
    """

    keypoint: Annotated[str, Field(min_length=1)]
    polygon: Annotated[list[Corner], Field(max_length=500)] | None = None
    circle: CircleSettings | None = None
    when: Literal["enter", "leave", "inside"]

    @field_validator("polygon")
    @classmethod
    def _simple(cls, corners: list[Corner] | None) -> list[Corner] | None:
        if corners is not None:
            Polygon(corners)
        return corners

    @model_validator(mode="after")
    def _one_shape(self) -> Self:
        if (self.polygon is None) == (self.circle is None):
            given = "neither" if self.polygon is None else "both"
            raise ValueError(f"exactly one of polygon and circle is needed, {given} is given")
        return self

    def shape(self) -> Polygon | Circle:
        """Return the region. Its border belongs to it, exactly."""
        if self.circle is not None:
            return Circle(self.circle.x_px, self.circle.y_px, self.circle.radius_px)
        return Polygon(self.polygon or ())


class RegionTrigger(Trigger):
    """A keypoint and a region.

    The first pose that shows the keypoint only tells where the animal is: one that starts inside
    has not entered. A pose that does not show it changes nothing for ``enter`` and ``leave``, so an
    animal that is lost outside and found inside has entered; ``inside`` asks for a low line then,
    because a doubtful pose never holds a line high. A point on the border is inside.

    Parameters
    ----------
    config : RegionSettings
        The checked settings.
    """

    Config: ClassVar[type[Settings]] = RegionSettings

    def __init__(self, config: RegionSettings) -> None:
        self._keypoint = KeypointReader(config.keypoint)
        self._shape = config.shape()
        self._when = config.when
        self._inside: bool | None = None
        self._position: tuple[float, float] | None = None

    def prepare(self, skeleton: Skeleton) -> None:
        """Look up the keypoint."""
        self._keypoint.prepare(skeleton)

    def update(self, pose: Pose) -> Decision:
        """Take one pose and say what should happen."""
        self._position = position = self._keypoint.position(pose)
        if position is None:
            return Decision.LOW if self._when == "inside" else Decision.NOTHING
        was_inside, self._inside = self._inside, self._shape.contains(*position)
        if self._when == "inside":
            return Decision.HIGH if self._inside else Decision.LOW
        changed = was_inside is not None and was_inside != self._inside
        wanted = self._inside == (self._when == "enter")
        return Decision.FIRE if changed and wanted else Decision.NOTHING

    @property
    def momentary(self) -> bool:
        """Whether it gives pulses: with ``when = "enter"`` and ``"leave"``."""
        return self._when != "inside"

    def describe(self) -> str:
        """Say where the keypoint was in the last pose."""
        if self._position is None:
            return f"{self._keypoint.name} not found"
        return f"{self._keypoint.name} at ({self._position[0]:.1f}, {self._position[1]:.1f}) px"
