"""Poses, places, levels and words drawn onto a frame, for people to look at."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from rtpose.messages import Pose, TriggerEvent
from rtpose.skeleton import Skeleton

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]

# OpenCV draws at sub-pixel places given as integers with this many fractional bits.
_SHIFT: Final = 4
_EDGE: Final[Colour] = (200, 200, 200)
_QUIET: Final[Colour] = (180, 160, 60)
_ACTIVE: Final[Colour] = (60, 60, 235)
_TEXT: Final[Colour] = (255, 255, 255)
_CROSS_PX: Final = 6.0
_BAR_PX: Final = 100
#: What is told when every line of every output was made low.
_ALL_LOW: Final = frozenset({"disarmed", "estop", "output-failed", "stopped"})


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


def draw_places(image: Image, settings: Mapping[str, Any], active: bool) -> None:
    """Draw every region and point in the settings of a trigger, also of conditions inside it."""
    colour = _ACTIVE if active else _QUIET
    for name, value in settings.items():
        if name in _PLACES and value:
            _PLACES[name](image, value, colour)
        elif isinstance(value, Mapping):
            draw_places(image, value, active)
        elif isinstance(value, list):
            for inner in value:
                if isinstance(inner, Mapping):
                    draw_places(image, inner, active)


def _draw_polygon(image: Image, corners: Sequence[tuple[float, float]], colour: Colour) -> None:
    points = np.array([_fixed(x, y) for x, y in corners], np.int32)
    cv2.polylines(image, [points], True, colour, 2, cv2.LINE_AA, _SHIFT)


def _draw_circle(image: Image, circle: Mapping[str, float], colour: Colour) -> None:
    radius = round(circle["radius_px"] * (1 << _SHIFT))
    centre = _fixed(circle["x_px"], circle["y_px"])
    cv2.circle(image, centre, radius, colour, 2, cv2.LINE_AA, _SHIFT)


def _draw_rectangle(image: Image, box: Mapping[str, float], colour: Colour) -> None:
    left, top = box["x_px"], box["y_px"]
    right, bottom = left + box["width_px"], top + box["height_px"]
    _draw_polygon(image, [(left, top), (right, top), (right, bottom), (left, bottom)], colour)


def _draw_point(image: Image, point: Mapping[str, float], colour: Colour) -> None:
    x, y = point["x_px"], point["y_px"]
    for dx, dy in ((_CROSS_PX, 0.0), (0.0, _CROSS_PX)):
        ends = _fixed(x - dx, y - dy), _fixed(x + dx, y + dy)
        cv2.line(image, *ends, colour, 2, cv2.LINE_AA, _SHIFT)


_PLACES: Final[Mapping[str, Callable[[Image, Any, Colour], None]]] = {
    "polygon": _draw_polygon,
    "circle": _draw_circle,
    "rectangle": _draw_rectangle,
    "point": _draw_point,
}


class LineLevels:
    """Follows which lines are held high, and at which level, from what control tells.

    Pulses are no part of it: the device times them, and nothing tells of their end.

    Parameters
    ----------
    lines : iterable of str
        ``"<output>.<line>"`` of those that are shown while they are low, too.
    triggers : mapping of str to str
        The line of every trigger.
    """

    def __init__(self, lines: Iterable[str], triggers: Mapping[str, str]) -> None:
        self._triggers = triggers
        self._levels = dict.fromkeys(lines, 0.0)
        self._shown = frozenset(self._levels)
        self._holders: dict[str, str | None] = {}
        self._events: deque[TriggerEvent] = deque()

    def take(self, event: TriggerEvent) -> None:
        """Take the next event."""
        command = event.command
        switches = command is not None and event.command_ns is not None
        if event.kind in _ALL_LOW or event.kind == "trigger-failed" or switches:
            self._events.append(event)

    def at(self, frame_id: int, ready_ns: int) -> dict[str, float]:
        """Return the levels after what was decided on a frame; frames come in order.

        What was not decided on a frame counts from the first one that was ready after it.
        """
        while self._events:
            event = self._events[0]
            if event.frame_id is None and event.decide_ns > ready_ns:
                break
            if event.frame_id is not None and event.frame_id > frame_id:
                break
            self._apply(self._events.popleft())
        return {name: level for name, level in self._levels.items() if level or name in self._shown}

    def _apply(self, event: TriggerEvent) -> None:
        command = event.command
        if command is not None:
            if command.action in ("on", "off"):
                name = f"{command.output}.{command.line}"
                self._levels[name] = command.level if command.action == "on" else 0.0
                self._holders[name] = event.trigger
            return
        output = "" if event.kind in _ALL_LOW else self._output(event.trigger)
        for name in self._levels:
            if name.startswith(output):
                self._levels[name] = 0.0

    def _output(self, trigger: str | None) -> str:
        return self._triggers.get(trigger or "", "").partition(".")[0] + "."

    def holders(self) -> set[str | None]:
        """Return the triggers that hold a line high."""
        return {self._holders[name] for name, level in self._levels.items() if level}


def draw_levels(image: Image, levels: Mapping[str, float]) -> None:
    """Draw the level of every line as a bar with its name, in the lower left corner."""
    bottom = image.shape[0] - 10
    for row, (name, level) in enumerate(reversed(list(levels.items()))):
        top = bottom - 18 * row - 10
        frame = (8, top), (8 + _BAR_PX, top + 10)
        cv2.rectangle(image, *frame, (0, 0, 0), -1)
        if level:
            filled = max(1, round(level * _BAR_PX))
            cv2.rectangle(image, frame[0], (8 + filled, top + 10), _ACTIVE, -1)
        cv2.rectangle(image, *frame, _TEXT, 1)
        _write(image, f"{name} {level:.2f}", (16 + _BAR_PX, top + 10))


def draw_words(image: Image, lines: Sequence[str]) -> None:
    """Write lines of text into the top left corner, legible on any background."""
    for row, line in enumerate(lines):
        _write(image, line, (8, 20 + 18 * row))


def _write(image: Image, line: str, place: tuple[int, int]) -> None:
    for offset, colour in ((1, (0, 0, 0)), (0, _TEXT)):
        at = (place[0] + offset, place[1] + offset)
        cv2.putText(image, line, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA)
