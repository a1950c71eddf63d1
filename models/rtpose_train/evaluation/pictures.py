"""Frames with labels and predictions drawn into them, for the report."""

from collections.abc import Sequence

import cv2
import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

_U8 = NDArray[np.uint8]
_F64 = NDArray[np.float64]
_Colour = tuple[int, int, int]

#: Blue-green-red; both colours of Okabe and Ito (2008), told apart by the colour-blind too.
LABEL: _Colour = (0, 159, 230)
PREDICTION: _Colour = (233, 180, 86)
_OUTLINE: _Colour = (0, 0, 0)
_WHITE: _Colour = (255, 255, 255)

_CLOSE_UP_PX, _THUMBNAIL_PX = 420, 320
_LEAST_CROP_PX, _MARGIN = 40, 0.2
_QUALITY = 88

#: OpenCV draws between pixels if it is given sixteenths of them.
_SHIFT = 4


def hexadecimal(colour: _Colour) -> str:
    """Return a colour as web pages write it."""
    return "#{2:02x}{1:02x}{0:02x}".format(*colour)


def keypoint_colours(count: int) -> list[_Colour]:
    """Return one colour per keypoint, blue-green-red."""
    spread = colormaps["turbo"](np.linspace(0.1, 0.95, count))
    return [(round(255 * b), round(255 * g), round(255 * r)) for r, g, b, _ in spread]


def encode_jpeg(picture: _U8) -> bytes:
    """Return a picture as the bytes of a JPEG file."""
    _, encoded = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, _QUALITY))
    return encoded.tobytes()


def close_up(pixels: _U8, labels: _F64, found: _F64, worst: int) -> _U8:
    """Draw labels (rings) and predictions (crosses), joined by lines, around the animal.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (height, width) or (height, width, 3)
        The frame, grey or blue-green-red.
    labels, found : ndarray of float64, shape (keypoints, 2)
        x, y in px; NaN where there is none.
    worst : int
        The keypoint whose line is drawn thick.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        The part of the frame that holds all of them, enlarged.
    """
    left, top, right, bottom = _box(np.concatenate([labels, found]), pixels)
    part = _colour(pixels)[top:bottom, left:right]
    picture, scale = _fit(part, _CLOSE_UP_PX)
    origin = np.array([left, top])
    ends = [((points - origin + 0.5) * scale - 0.5) for points in (labels, found)]
    for k, (label, answer) in enumerate(zip(*ends, strict=True)):
        if np.isfinite(label).all() and np.isfinite(answer).all():
            _line(picture, label, answer, _WHITE, 3 if k == worst else 1)
    for label, answer in zip(*ends, strict=True):
        if np.isfinite(label).all():
            _ring(picture, label, LABEL)
        if np.isfinite(answer).all():
            _cross(picture, answer, PREDICTION)
    return picture


def thumbnail(
    pixels: _U8, found: _F64, valid: NDArray[np.bool_], edges: Sequence[tuple[int, int]]
) -> _U8:
    """Draw the valid predictions and the skeleton between them into the whole frame, made small.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (height, width) or (height, width, 3)
        The frame, grey or blue-green-red.
    found : ndarray of float64, shape (keypoints, 2)
        x, y in px.
    valid : ndarray of bool, shape (keypoints,)
        Which are drawn.
    edges : sequence of (int, int)
        Lines of the skeleton.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
    """
    picture, scale = _fit(_colour(pixels), _THUMBNAIL_PX)
    points = (found + 0.5) * scale - 0.5
    for first, second in edges:
        if valid[first] and valid[second]:
            _line(picture, points[first], points[second], _WHITE)
    for point, colour in zip(points[valid], _of_valid(valid), strict=True):
        _disc(picture, point, colour)
    return picture


def _of_valid(valid: NDArray[np.bool_]) -> list[_Colour]:
    colours = keypoint_colours(valid.size)
    return [colour for colour, drawn in zip(colours, valid, strict=True) if drawn]


def _colour(pixels: _U8) -> _U8:
    if pixels.ndim == 3:
        return pixels
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR), np.uint8)


def _box(points: _F64, pixels: _U8) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom around all points, with a margin, inside the frame."""
    height, width = pixels.shape[:2]
    known = points[np.isfinite(points).all(axis=1)]
    low, high = known.min(axis=0), known.max(axis=0)
    side = round(max(_LEAST_CROP_PX, float((high - low).max()) * (1 + 2 * _MARGIN)))
    # Rather the animal off the middle than a picture cut short.
    first = np.floor((low + high - side) / 2).astype(int)
    left, top = np.maximum(np.minimum(first, (width - side, height - side)), 0)
    return int(left), int(top), min(int(left) + side, width), min(int(top) + side, height)


def _fit(picture: _U8, side_px: int) -> tuple[_U8, _F64]:
    """Scale a picture to this longest side; return it with its scale along x and y."""
    height, width = picture.shape[:2]
    factor = side_px / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    interpolation = cv2.INTER_CUBIC if factor > 1 else cv2.INTER_AREA
    scaled = np.asarray(cv2.resize(picture, size, interpolation=interpolation), np.uint8)
    return scaled, np.array(size) / np.array([width, height])


def _at(point: _F64) -> tuple[int, int]:
    x, y = np.round(point * (1 << _SHIFT)).astype(int)
    return int(x), int(y)


def _line(picture: _U8, start: _F64, end: _F64, colour: _Colour, width_px: int = 1) -> None:
    for tint, thickness in ((_OUTLINE, width_px + 2), (colour, width_px)):
        cv2.line(picture, _at(start), _at(end), tint, thickness, cv2.LINE_AA, _SHIFT)


def _ring(picture: _U8, centre: _F64, colour: _Colour) -> None:
    for tint, thickness in ((_OUTLINE, 4), (colour, 2)):
        cv2.circle(picture, _at(centre), 6 << _SHIFT, tint, thickness, cv2.LINE_AA, _SHIFT)


def _disc(picture: _U8, centre: _F64, colour: _Colour) -> None:
    for tint, radius in ((_OUTLINE, 4), (colour, 3)):
        cv2.circle(picture, _at(centre), radius << _SHIFT, tint, cv2.FILLED, cv2.LINE_AA, _SHIFT)


def _cross(picture: _U8, centre: _F64, colour: _Colour) -> None:
    for tint, thickness in ((_OUTLINE, 4), (colour, 2)):
        for arm in (np.array([5.0, 5.0]), np.array([5.0, -5.0])):
            ends = _at(centre - arm), _at(centre + arm)
            cv2.line(picture, *ends, tint, thickness, cv2.LINE_AA, _SHIFT)
