"""Poses, regions and words drawn onto a frame, for people to look at."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from rtpose.messages import Pose
from rtpose.skeleton import Skeleton

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]

# OpenCV draws at sub-pixel places given as integers with this many fractional bits.
_SHIFT: Final = 4
_EDGE: Final[Colour] = (200, 200, 200)
_QUIET: Final[Colour] = (180, 160, 60)
_ACTIVE: Final[Colour] = (60, 60, 235)
_TEXT: Final[Colour] = (255, 255, 255)


def to_bgr(frame: Image) -> Image:
    """Return a colour copy to draw on, shape (height, width, 3)."""
    if frame.ndim == 2:
        return np.asarray(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR), np.uint8)
    return frame.copy()


def keypoint_colours(count: int) -> list[Colour]:
    """Return one clear colour (blue, green, red) per keypoint."""
    hues = np.array([[[round(180 * i / max(count, 1)), 200, 255]] for i in range(count)], np.uint8)
    return [
        (int(b), int(g), int(r)) for b, g, r in cv2.cvtColor(hues, cv2.COLOR_HSV2BGR).reshape(-1, 3)
    ]


def _fixed(x: float, y: float) -> tuple[int, int]:
    return round(x * (1 << _SHIFT)), round(y * (1 << _SHIFT))


def draw_pose(image: Image, pose: Pose, skeleton: Skeleton) -> None:
    """Draw the valid keypoints of a pose, and the edges between them."""
    colours = keypoint_colours(len(skeleton.names))
    for points, valid in zip(pose.keypoints, pose.valid, strict=True):
        for first, second in skeleton.edges:
            a, b = skeleton.index(first), skeleton.index(second)
            if valid[a] and valid[b]:
                start, end = _fixed(*points[a, :2]), _fixed(*points[b, :2])
                cv2.line(image, start, end, _EDGE, 1, cv2.LINE_AA, _SHIFT)
        for (x, y, _), is_valid, colour in zip(points, valid, colours, strict=True):
            if is_valid:
                cv2.circle(image, _fixed(x, y), 4 << _SHIFT, colour, -1, cv2.LINE_AA, _SHIFT)


def draw_region(image: Image, settings: Mapping[str, Any], active: bool) -> None:
    """Draw the region of a trigger, if its settings have one (polygon or circle)."""
    colour = _ACTIVE if active else _QUIET
    polygon, circle = settings.get("polygon"), settings.get("circle")
    if polygon:
        points = np.array([_fixed(x, y) for x, y in polygon], np.int32)
        cv2.polylines(image, [points], True, colour, 2, cv2.LINE_AA, _SHIFT)
    if circle:
        centre = _fixed(circle["x_px"], circle["y_px"])
        radius = round(circle["radius_px"] * (1 << _SHIFT))
        cv2.circle(image, centre, radius, colour, 2, cv2.LINE_AA, _SHIFT)


def draw_words(image: Image, lines: Sequence[str]) -> None:
    """Write lines of text into the top left corner, legible on any background."""
    for row, line in enumerate(lines):
        for offset, colour in ((1, (0, 0, 0)), (0, _TEXT)):
            place = (8 + offset, 20 + 18 * row + offset)
            cv2.putText(image, line, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA)
