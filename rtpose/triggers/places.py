"""Settings of places in the picture: a point, a keypoint, or a region of some shape."""

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from rtpose.interfaces import Settings
from rtpose.triggers.condition import Coordinate, Keypoint
from rtpose.triggers.geometry import Circle, Point, Polygon, Rectangle, Shape

#: TOML has arrays, not tuples.
Corner = Annotated[tuple[Coordinate, Coordinate], Field(strict=False)]
Length = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]


class PointSettings(Settings):
    """``point = { x_px, y_px }``."""

    x_px: Coordinate
    y_px: Coordinate


class CircleSettings(Settings):
    """``circle = { x_px, y_px, radius_px }``."""

    x_px: Coordinate
    y_px: Coordinate
    radius_px: Length


class RectangleSettings(Settings):
    """``rectangle = { x_px, y_px, width_px, height_px }``, from its upper left corner."""

    x_px: Coordinate
    y_px: Coordinate
    width_px: Length
    height_px: Length


class ShapeSettings(Settings):
    """Settings with a region.

    Attributes
    ----------
    polygon : list of [x, y], optional
        Corners in order around the border, in px of the full camera frame.
    circle : table, optional
        ``x_px``, ``y_px``, ``radius_px``.
    rectangle : table, optional
        ``x_px``, ``y_px``, ``width_px``, ``height_px``.
    """

    polygon: Annotated[list[Corner], Field(max_length=500)] | None = None
    circle: CircleSettings | None = None
    rectangle: RectangleSettings | None = None

    @field_validator("polygon")
    @classmethod
    def _simple(cls, corners: list[Corner] | None) -> list[Corner] | None:
        if corners is not None:
            Polygon(corners)
        return corners

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        choices = self._choices()
        given = [name for name in choices if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"exactly one of {', '.join(choices[:-1])} and {choices[-1]} is needed, given: "
                f"{', '.join(given) or 'none'}"
            )
        return self

    def _choices(self) -> tuple[str, ...]:
        return ("polygon", "circle", "rectangle")

    def shape(self) -> Shape | None:
        """Return the region, if that is what is given. Its border belongs to it, exactly."""
        if self.circle is not None:
            return Circle(self.circle.x_px, self.circle.y_px, self.circle.radius_px)
        if self.rectangle is not None:
            box = self.rectangle
            return Rectangle(box.x_px, box.y_px, box.width_px, box.height_px)
        return None if self.polygon is None else Polygon(self.polygon)


class PlaceSettings(ShapeSettings):
    """Settings with something to be near to or to look at: a keypoint, a point or a region.

    Attributes
    ----------
    to_keypoint : str, optional
        Another keypoint of the model.
    point : table, optional
        ``x_px``, ``y_px``.
    """

    to_keypoint: Keypoint | None = None
    point: PointSettings | None = None

    def _choices(self) -> tuple[str, ...]:
        return ("to_keypoint", "point", "polygon", "circle", "rectangle")

    def centre(self) -> Point | None:
        """Return the point, or the centre of the region; None if a keypoint is given."""
        if self.point is not None:
            return self.point.x_px, self.point.y_px
        shape = self.shape()
        return None if shape is None else shape.centre

    def place_words(self) -> str:
        """Return what it is, in a word or two."""
        if self.to_keypoint is not None:
            return self.to_keypoint
        if self.point is not None:
            return f"({self.point.x_px:g}, {self.point.y_px:g})"
        return next(n for n in ("polygon", "circle", "rectangle") if getattr(self, n) is not None)
