"""The scene of the synthetic camera: a mouse with known keypoints in an open-field arena."""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from rtpose.skeleton import Skeleton

Colour = tuple[float, ...]
#: Points, or outlines, as complex numbers x + i y in px.
Points = NDArray[np.complex128]

# The path's phasors: angular speeds (rad per second of scene time) and lengths. The first is faster
# than the others together, so that the mouse always has a direction.
_RATES = np.array([0.86, -0.44, 0.27, 1.63])
_LENGTHS = np.array([0.42, 0.38, 0.17, 0.03])

# OpenCV draws with fixed-point coordinates; these are the fractional bits.
_SHIFT = 6

_CIRCLE: Points = np.exp(1j * np.linspace(0.0, 2.0 * np.pi, 20, endpoint=False))

# In so many steps, in x and in y, the noise tile can be moved over the frame.
_NOISE_STEPS = 64


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours of the scene, blue-green-red, 0 to 255; a grey camera sees their luma."""

    surround: Colour = (38, 38, 40)
    wall: Colour = (118, 122, 126)
    floor: Colour = (172, 180, 186)
    shadow: Colour = (122, 128, 134)
    fur: Colour = (38, 44, 52)
    sheen: Colour = (50, 57, 66)
    ear: Colour = (92, 94, 118)
    nose: Colour = (124, 124, 164)
    tail: Colour = (92, 98, 124)


MOUSE = Palette()


@dataclass(frozen=True, slots=True)
class _Mouse:
    """One posture. Directions have length 1; y points down, so -i turns to the left."""

    length_px: float
    centre: complex
    body: complex
    head: complex
    rear: complex
    wag: complex

    @property
    def neck(self) -> complex:
        return self.centre + 0.24 * self.length_px * self.body

    @property
    def snout(self) -> complex:
        return self.neck + 0.32 * self.length_px * self.head

    @property
    def ears(self) -> tuple[complex, complex]:
        """Left, right."""
        base, side = (part * self.length_px * self.head for part in (0.06, 0.13))
        return self.neck + base - 1j * side, self.neck + base + 1j * side

    @property
    def rump(self) -> complex:
        return self.centre - 0.18 * self.length_px * self.rear

    @property
    def tailbase(self) -> complex:
        return self.centre - 0.38 * self.length_px * self.rear

    @property
    def tail(self) -> Points:
        """Points along a quadratic Bezier curve from the tail's base to its tip."""
        control = self.tailbase - 0.3 * self.length_px * self.rear
        tip = control - 0.35 * self.length_px * self.wag
        t = np.linspace(0.0, 1.0, 6)
        curve: Points = (1 - t) ** 2 * self.tailbase + 2 * t * (1 - t) * control + t**2 * tip
        return curve

    def keypoints(self) -> tuple[complex, ...]:
        """Return the keypoints in the order of `SyntheticArena.skeleton`."""
        return (self.snout, *self.ears, self.centre, self.tailbase, complex(self.tail[-1]))


class SyntheticArena:
    """A round arena seen from above with a mouse that runs, pauses and turns in it.

    Every frame is a pure function of the arguments and `frame_id`, computed in constant time: any
    frame can be drawn alone, in any order, in any process.

    Parameters
    ----------
    width_px, height_px : int
        Frame size, at least 32.
    seed : int
        Seeds the path, the texture and the sensor noise.
    rate_hz : float
        Frames per second of the scene's time, > 0.
    colour : bool
        Draw blue-green-red instead of grey.
    palette : Palette
        Colours.
    noise : bool
        Add sensor noise.

    Notes
    -----
    The path is a sum of phasors that turn at incommensurate speeds, against each other, so that it
    fills the arena; time is warped so that the mouse pauses and hurries.
    """

    skeleton: ClassVar[Skeleton] = Skeleton(
        names=("snout", "leftear", "rightear", "centre", "tailbase", "tailtip"),
        edges=(
            ("snout", "leftear"),
            ("snout", "rightear"),
            ("leftear", "centre"),
            ("rightear", "centre"),
            ("centre", "tailbase"),
            ("tailbase", "tailtip"),
        ),
        pairs=(("leftear", "rightear"),),
    )

    def __init__(
        self,
        width_px: int = 640,
        height_px: int = 480,
        seed: int = 0,
        *,
        rate_hz: float = 100.0,
        colour: bool = False,
        palette: Palette = MOUSE,
        noise: bool = True,
    ) -> None:
        self.shape: tuple[int, ...] = (height_px, width_px, 3) if colour else (height_px, width_px)
        self._rate_hz, self._seed, self._noisy = rate_hz, seed, noise
        self._middle = complex((width_px - 1) / 2, (height_px - 1) / 2)
        self._radii_px = (0.47 * width_px, 0.47 * height_px)
        # The path's share of the arena leaves room for the mouse, tail included.
        self._reach_px = (0.69 * self._radii_px[0], 0.69 * self._radii_px[1])
        self._length_px = 0.18 * min(width_px, height_px)
        self._colours = {
            name: shade if colour else _grey(shade)
            for name, shade in dataclasses.asdict(palette).items()
        }
        phases = np.random.default_rng(seed).uniform(0.0, 2.0 * np.pi, 9)
        self._path_phases, self._time_phases, self._sway_phases = np.split(phases, [4, 6])

    def keypoints(self, frame_id: int) -> NDArray[np.float64]:
        """Return where the keypoints are in a frame.

        Parameters
        ----------
        frame_id : int
            Which frame, >= 0.

        Returns
        -------
        ndarray of float64, shape (6, 2)
            x, y in px, origin at the centre of the top-left pixel, y down; in the order of
            `skeleton`.
        """
        points = np.array(self._mouse(frame_id).keypoints())
        return np.stack([points.real, points.imag], axis=1)

    def draw(self, frame_id: int, out: NDArray[np.uint8]) -> None:
        """Draw a frame into `out`, an array of `shape`."""
        if out.shape != self.shape:
            raise ValueError(f"the frame has shape {self.shape}, the array {out.shape}")
        np.copyto(out, self._background)
        mouse = self._mouse(frame_id)
        self._draw_mouse(out, mouse)
        _soften(out, mouse)
        if self._noisy:
            # A multiplicative hash (Knuth) lays the tile differently over every frame.
            row, column = divmod(((frame_id * 2654435761) >> 8) % _NOISE_STEPS**2, _NOISE_STEPS)
            height, width = self.shape[:2]
            tile = self._noise[row : row + height, column : column + width]
            cv2.add(out, tile, dst=out)

    # ------------------------------------------------------------------------------- motion

    def _mouse(self, frame_id: int) -> _Mouse:
        """Pose the mouse: its head looks ahead along the path, its tail follows behind."""
        time_s = frame_id / self._rate_hz
        first, second = self._time_phases
        # Grows at 0.02 to 1.98 times the speed of real time: nearly stands still, never runs back.
        scene_s = float(
            time_s
            + 0.56 / 0.83 * np.sin(0.83 * time_s + first)
            + 0.42 / 2.17 * np.sin(2.17 * time_s + second)
        )
        scan, drift, wag = np.sin(np.array([3.1, 0.7, 4.3]) * time_s + self._sway_phases)
        body, head, rear = self._headings(np.array([scene_s, scene_s + 0.12, scene_s - 0.15]))
        return _Mouse(
            length_px=self._length_px,
            centre=self._centre(scene_s),
            body=complex(body),
            head=complex(head * np.exp(0.3j * scan * drift)),
            rear=complex(rear),
            wag=complex(rear * np.exp(0.5j * wag)),
        )

    def _centre(self, scene_s: float) -> complex:
        where = complex(np.sum(_LENGTHS * np.exp(1j * (_RATES * scene_s + self._path_phases))))
        reach_x, reach_y = self._reach_px
        return self._middle + complex(reach_x * where.real, reach_y * where.imag)

    def _headings(self, scene_s: NDArray[np.float64]) -> Points:
        """Return the directions of motion, of length 1, at some times."""
        turned = np.exp(1j * (np.multiply.outer(scene_s, _RATES) + self._path_phases))
        velocity = (1j * _RATES * _LENGTHS * turned).sum(axis=1)
        reach_x, reach_y = self._reach_px
        stretched = reach_x * velocity.real + 1j * reach_y * velocity.imag
        heading: Points = stretched / np.abs(stretched)
        return heading

    # ------------------------------------------------------------------------------ drawing

    def _draw_mouse(self, out: NDArray[np.uint8], mouse: _Mouse) -> None:
        colours, size = self._colours, mouse.length_px
        shift = 0.03 * size * (1 + 1j)
        trunk = [
            (mouse.tailbase, 0.07),
            (mouse.rump, 0.18),
            (mouse.centre, 0.19),
            (mouse.neck, 0.12),
        ]
        head = [(mouse.neck, 0.12), ((mouse.neck + mouse.snout) / 2, 0.09), (mouse.snout, 0.035)]
        sheen = [(mouse.rump, 0.08), (mouse.centre, 0.10), (mouse.neck, 0.04)]
        _fill(out, _hull([(at + shift, part) for at, part in trunk], size), colours["shadow"])
        for piece in _ribbon(mouse.tail, 0.04 * size, 0.012 * size):
            _fill(out, piece, colours["tail"])
        _fill(out, _hull(trunk, size), colours["fur"])
        _fill(out, _hull(head, size), colours["fur"])
        _fill(out, _hull(sheen, size), colours["sheen"])
        for ear in mouse.ears:
            _fill(out, _hull([(ear, 0.07)], size), colours["ear"])
        _fill(out, _hull([(mouse.snout, 0.035)], size), colours["nose"])

    @functools.cached_property
    def _background(self) -> NDArray[np.uint8]:
        """Floor with bedding and uneven light, wall, and the dark outside."""
        height, width = self.shape[:2]
        random = np.random.default_rng((self._seed, 1))
        columns = (np.arange(width) - self._middle.real) / self._radii_px[0]
        rows = (np.arange(height)[:, None] - self._middle.imag) / self._radii_px[1]
        distance = np.hypot(columns, rows)
        texture = 1.05 - 0.12 * np.hypot(columns + 0.3, rows + 0.2) ** 2
        for sigma_px, strength in ((0.8, 0.03), (3.0, 0.03), (0.15 * self._length_px + 6, 0.04)):
            layer = cv2.GaussianBlur(random.standard_normal((height, width)), (0, 0), sigma_px)
            texture += strength * layer / layer.std()
        image = np.empty((height, width, len(self._colours["floor"])))
        image[:] = self._colours["surround"]
        for radius, name, light in ((1.0, "wall", np.ones_like(texture)), (0.96, "floor", texture)):
            # The border is one pixel of transition, not a staircase.
            inside = np.clip((radius - distance) * min(self._radii_px) + 0.5, 0.0, 1.0)
            image += inside[..., None] * (np.multiply.outer(light, self._colours[name]) - image)
        return np.clip(np.rint(image), 0, 255).astype(np.uint8).reshape(self.shape)

    @functools.cached_property
    def _noise(self) -> NDArray[np.uint8]:
        """Sensor noise of about two grey levels, on a tile larger than the frame."""
        height, width, *channels = self.shape
        size = (height + _NOISE_STEPS, width + _NOISE_STEPS, *channels)
        noise = np.random.default_rng((self._seed, 2)).normal(5.0, 2.0, size)
        return np.clip(np.rint(noise), 0, 10).astype(np.uint8)


def _grey(colour: Colour) -> Colour:
    """Return the luma (ITU-R BT.601) of a blue-green-red colour."""
    blue, green, red = colour
    return (0.114 * blue + 0.587 * green + 0.299 * red,)


def _hull(discs: Sequence[tuple[complex, float]], size_px: float) -> Points:
    """Return the outline of the convex hull of discs (centre in px, radius in `size_px`)."""
    points = np.concatenate([at + size_px * radius * _CIRCLE for at, radius in discs])
    flat = np.stack([points.real, points.imag], axis=1).astype(np.float32)
    corners = cv2.convexHull(flat, returnPoints=False)[:, 0]
    outline: Points = points[corners]
    return outline


def _ribbon(line: Points, start_px: float, end_px: float) -> list[Points]:
    """Return convex pieces of a line whose half width goes from `start_px` to `end_px`."""
    along = np.gradient(line)
    side = 1j * along / np.abs(along) * np.linspace(start_px, end_px, len(line))
    left, right = line - side, line + side
    return [np.concatenate([left[i : i + 2], right[i : i + 2][::-1]]) for i in range(len(line) - 1)]


def _fill(out: NDArray[np.uint8], outline: Points, colour: Colour) -> None:
    """Fill a convex outline, anti-aliased, at its sub-pixel position."""
    points = np.rint(np.stack([outline.real, outline.imag], axis=1) * (1 << _SHIFT))
    # Not fillPoly, whose anti-aliased outlines lie up to 0.2 px off.
    cv2.fillConvexPoly(out, points.astype(np.int32), colour, cv2.LINE_AA, _SHIFT)


def _soften(out: NDArray[np.uint8], mouse: _Mouse) -> None:
    """Blur the drawn edges as a lens does; symmetric, so that nothing moves."""
    reach = 1.5 * mouse.length_px
    left, top = (max(0, int(at - reach)) for at in (mouse.centre.real, mouse.centre.imag))
    right, bottom = (int(at + reach) for at in (mouse.centre.real, mouse.centre.imag))
    patch = out[top:bottom, left:right]
    cv2.GaussianBlur(patch, (3, 3), 0, dst=patch)
