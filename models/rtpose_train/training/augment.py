"""Another view, another light and other losses of quality for every training sample."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import cv2
import numpy as np
import torch
from kornia.enhance import (
    adjust_brightness,
    adjust_contrast_with_mean_subtraction,
    adjust_gamma,
)
from kornia.filters import gaussian_blur2d, motion_blur
from kornia.geometry.transform import warp_affine
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from rtpose.model_card import InputSpec, place
from rtpose.skeleton import Skeleton
from rtpose_train.data.compression import h264, jpeg, require_h264
from rtpose_train.data.geometry import frame_to_input, transform

#: The middle of the animal is not moved nearer to the border than this part of the input.
_MARGIN = 0.1

Fraction = Annotated[float, Field(ge=0, le=1)]


class AugmentSettings(BaseModel):
    """How far training samples are changed: the table ``[augment]`` of a training configuration.

    Everything is drawn uniformly for each sample alone; a factor is drawn on a logarithmic scale,
    from its inverse to itself. A ``..._fraction`` is the part of the samples that is changed in
    that way, 0 for none.

    Attributes
    ----------
    rotation_deg : float
        Largest turn either way, 0 to 180, about the animal, so that it stays where animals are
        seen. Animals seen from the side want less than the default, which is every direction.
    scale : float
        Largest factor of size, 1 to 4.
    shear_deg : float
        Largest slant of either axis, 0 to 30.
    shift : float
        Largest move either way, 0 to 1, as a fraction of the input's width and height. The middle
        of the animal stays inside.
    flip : {'none', 'horizontal', 'vertical', 'both'}
        Along which axes half of the samples are mirrored. Left and right swap names in a mirrored
        sample. With full rotation `vertical` shows nothing that `horizontal` does not.
    blur_fraction, blur_px : float
        Out of focus: largest standard deviation of the Gaussian, up to 16 input px.
    motion_fraction, motion_px : float, int
        Camera or animal moved while the shutter was open: largest length of the smear, 3 to 31
        input px, in any direction, to both sides of the labelled place. Lengths are odd numbers.
    contrast : float
        Largest relative change about the mean of the image, 0 to 1.
    brightness : float
        Largest change, 0 to 255 grey levels.
    gamma : float
        Largest exponent, 1 to 4, of the grey levels as fractions of white.
    noise : float
        Largest standard deviation, 0 to 255 grey levels.
    erase_fraction, erase_size : float
        Something in front: one even rectangle, with sides of up to this fraction of the input's,
        on the animal or touching it (after DeVries and Taylor 2017, "Cutout"). Keypoints under it
        become not labelled, as people leave empty what they cannot see: their place is left out of
        the loss, and the network is taught neither to guess nor to deny.
    jpeg_fraction, jpeg_quality : float, int
        JPEG, with qualities from this one (1 to 100) to 95.
    h264_fraction, h264_crf : float, int
        H.264, one key frame, with constant rate factors from 18 to this one (18 to 51).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rotation_deg: Annotated[float, Field(ge=0, le=180)] = 180.0
    scale: Annotated[float, Field(ge=1, le=4)] = 1.25
    shear_deg: Annotated[float, Field(ge=0, le=30)] = 5.0
    shift: Fraction = 0.2
    flip: Literal["none", "horizontal", "vertical", "both"] = "horizontal"
    blur_fraction: Fraction = 0.5
    blur_px: Annotated[float, Field(gt=0, le=16)] = 1.0
    motion_fraction: Fraction = 0.1
    motion_px: Annotated[int, Field(ge=3, le=31)] = 7
    contrast: Fraction = 0.3
    brightness: Annotated[float, Field(ge=0, le=255)] = 30.0
    gamma: Annotated[float, Field(ge=1, le=4)] = 1.25
    noise: Annotated[float, Field(ge=0, le=255)] = 6.0
    erase_fraction: Fraction = 0.2
    erase_size: Annotated[float, Field(gt=0, le=1)] = 0.15
    jpeg_fraction: Fraction = 0.1
    jpeg_quality: Annotated[int, Field(ge=1, le=95)] = 30
    h264_fraction: Fraction = 0.1
    h264_crf: Annotated[int, Field(ge=18, le=51)] = 35


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A frame ready to be augmented: shrunk by a whole factor, if that loses nothing.

    Attributes
    ----------
    pixels : ndarray of uint8, shape (height, width) or (height, width, 3)
    points : ndarray of float64, shape (keypoints, 2)
        In px of `pixels`.
    to_input : ndarray of float64, shape (2, 3)
        From `pixels` to the input, as the live service places it.
    """

    pixels: NDArray[np.uint8]
    points: NDArray[np.float64]
    to_input: NDArray[np.float64]


def prepare(frame: NDArray[np.uint8], points: NDArray[np.float64], spec: InputSpec) -> Source:
    """Shrink a frame to at most twice to four times the input's resolution.

    Bilinear sampling looks at two pixels only, so that a strong reduction would alias; and large
    frames would not fit into memory together.
    """
    height, width = frame.shape[:2]
    factor = max(1, int(place(spec, width, height).scale_x / 2))
    if factor > 1:
        size = (max(1, round(width / factor)), max(1, round(height / factor)))
        frame = np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
        ratio = np.array([size[0] / width, size[1] / height])
        points = (points + 0.5) * ratio - 0.5
    to_input = frame_to_input(place(spec, frame.shape[1], frame.shape[0]))
    return Source(frame, points, to_input)


class Augmenter:
    """Turns sources into a batch of training samples.

    In the order in which the losses happen on the way from an animal to a file: where it is seen,
    what is in front of it, lens and shutter, light, sensor, compression.

    Parameters
    ----------
    spec : InputSpec
        The model's input.
    settings : AugmentSettings
        How far.
    skeleton : Skeleton
        Tells which keypoints a mirrored image swaps.

    Raises
    ------
    InputError
        If H.264 is asked for and this installation cannot encode it.
    """

    def __init__(self, spec: InputSpec, settings: AugmentSettings, skeleton: Skeleton) -> None:
        if settings.h264_fraction:
            require_h264()
        self.spec = spec
        self.settings = settings
        self.swap = np.arange(len(skeleton.names))
        for left, right in skeleton.pairs:
            first, second = skeleton.index(left), skeleton.index(right)
            self.swap[[first, second]] = second, first

    def __call__(
        self, sources: Sequence[Source], rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return one sample of every source; the same ones for the same state of `rng`.

        Parameters
        ----------
        sources : sequence of Source
            At least one; of any sizes.
        rng : Generator
            Where all chance comes from.

        Returns
        -------
        images : Tensor of uint8, shape (batch, channels, height, width)
        points : Tensor of float32, shape (batch, keypoints, 2)
            x, y in input px; NaN where a keypoint is not labelled. A point outside the input is one
            that has left the picture.
        """
        moved = [self._move(source, rng) for source in sources]
        images = torch.cat([image for image, _ in moved])
        points = np.stack([points for _, points in moved])
        self._erase(images, points, rng)
        self._defocus(images, rng)
        self._smear(images, rng)
        images = self._add_noise(self._relight(images, rng), rng)
        pixels = images.mul_(255).round_().to(torch.uint8)
        self._compress(pixels, rng)
        return pixels, torch.from_numpy(points.astype(np.float32))

    def _move(self, source: Source, rng: np.random.Generator) -> tuple[Tensor, NDArray[np.float64]]:
        """Return one image (1, channels, height, width) in 0..1, and its points in input px."""
        flips = rng.random(2) < 0.5
        flips &= [self.settings.flip in (axis, "both") for axis in ("horizontal", "vertical")]
        matrix = self._affine(source, flips, rng)
        pixels = torch.from_numpy(source.pixels.reshape(*source.pixels.shape[:2], -1))
        image = warp_affine(
            pixels.permute(2, 0, 1)[None].float(),
            torch.from_numpy(matrix.astype(np.float32))[None],
            (self.spec.height_px, self.spec.width_px),
            padding_mode="border" if rng.random() < 0.5 else "zeros",
        )
        points = transform(matrix, source.points)
        # Mirrored twice is turned by half a circle: left stays left.
        return image.div_(255), points[self.swap] if flips.sum() == 1 else points

    def _affine(
        self, source: Source, flips: NDArray[np.bool_], rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """Return frame -> input: placed as live, then mirrored, slanted, turned, scaled, moved."""
        ranges = self.settings
        angle = np.deg2rad(rng.uniform(-ranges.rotation_deg, ranges.rotation_deg))
        slants = np.tan(np.deg2rad(rng.uniform(-ranges.shear_deg, ranges.shear_deg, 2)))
        size = np.array([self.spec.width_px, self.spec.height_px])
        scale = ranges.scale ** rng.uniform(-1, 1)
        shift = rng.uniform(-ranges.shift, ranges.shift, 2) * size
        points = transform(source.to_input, source.points)
        is_labelled = ~np.isnan(points[:, 0])
        centre = points[is_labelled].mean(axis=0) if is_labelled.any() else size / 2
        goal = np.clip(centre + shift, _MARGIN * size, (1 - _MARGIN) * size)
        cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
        turn = np.array([[cosine, -sine], [sine, cosine]])
        turn = turn @ np.array([[1, slants[0]], [slants[1], 1]]) @ np.diag(np.where(flips, -1, 1))
        linear = turn @ source.to_input[:, :2]
        offset = turn @ (source.to_input[:, 2] - centre) + goal
        return np.column_stack([linear, offset])

    def _erase(self, images: Tensor, points: NDArray[np.float64], rng: np.random.Generator) -> None:
        size = np.array([self.spec.width_px, self.spec.height_px])
        for at in _chosen(len(images), self.settings.erase_fraction, rng):
            half = size * self.settings.erase_size * rng.uniform(0.25, 1, 2) / 2
            seen = points[at][((points[at] >= 0) & (points[at] < size)).all(axis=1)]
            box = (seen.min(axis=0), seen.max(axis=0)) if seen.size else (np.zeros(2), size)
            centre = rng.uniform(box[0] - half, box[1] + half)
            low = np.rint(np.clip(centre - half, 0, size)).astype(int)
            high = np.rint(np.clip(centre + half, 0, size)).astype(int)
            images[at, :, low[1] : high[1], low[0] : high[0]] = rng.random()
            # Pixel i covers i - 0.5 to i + 0.5.
            under = ((points[at] >= low - 0.5) & (points[at] < high - 0.5)).all(axis=1)
            points[at, under] = np.nan

    def _defocus(self, images: Tensor, rng: np.random.Generator) -> None:
        ranges = self.settings
        at = _chosen(len(images), ranges.blur_fraction, rng)
        if at.size:
            sigmas = torch.from_numpy(ranges.blur_px * rng.uniform(0.1, 1, at.size)).float()
            kernel = 2 * int(np.ceil(3 * ranges.blur_px)) + 1
            images[at] = gaussian_blur2d(
                images[at], kernel, sigmas[:, None].expand(-1, 2), border_type="replicate"
            )

    def _smear(self, images: Tensor, rng: np.random.Generator) -> None:
        longest = self.settings.motion_px
        for one in _chosen(len(images), self.settings.motion_fraction, rng):
            length = 2 * int(rng.integers(1, (longest - 1) // 2, endpoint=True)) + 1
            # Bilinear: a smear that is turned keeps its length.
            images[one : one + 1] = motion_blur(
                images[one : one + 1],
                length,
                rng.uniform(0, 180),
                direction=0.0,
                border_type="replicate",
                mode="bilinear",
            )

    def _relight(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        ranges, count = self.settings, len(images)
        lift = _drawn(count, -ranges.brightness / 255, ranges.brightness / 255, rng)
        gain = _drawn(count, 1 - ranges.contrast, 1 + ranges.contrast, rng)
        # In this order only the sum is clipped: what one cuts off the other could not bring back.
        lit = adjust_brightness(images, lift, clip_output=False)
        lit = adjust_contrast_with_mean_subtraction(lit, gain)
        return adjust_gamma(lit, ranges.gamma ** _drawn(count, -1, 1, rng))

    def _add_noise(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        deviations = _drawn(len(images), 0, self.settings.noise / 255, rng)
        generator = torch.Generator().manual_seed(int(rng.integers(1 << 63)))
        noise = torch.randn(images.shape, generator=generator)
        return noise.mul_(deviations[:, None, None, None]).add_(images).clamp_(0, 1)

    def _compress(self, pixels: Tensor, rng: np.random.Generator) -> None:
        ranges, colour = self.settings, self.spec.colour
        for at in _chosen(len(pixels), ranges.jpeg_fraction, rng):
            quality = int(rng.integers(ranges.jpeg_quality, 95, endpoint=True))
            pixels[at] = _to_channels(jpeg(_to_picture(pixels[at]), quality, colour))
        for at in _chosen(len(pixels), ranges.h264_fraction, rng):
            crf = int(rng.integers(18, ranges.h264_crf, endpoint=True))
            pixels[at] = _to_channels(h264(_to_picture(pixels[at]), crf, colour))


def _chosen(count: int, fraction: float, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return which of the samples are changed."""
    return np.flatnonzero(rng.random(count) < fraction)


def _drawn(count: int, low: float, high: float, rng: np.random.Generator) -> Tensor:
    """Return one number per sample."""
    return torch.from_numpy(rng.uniform(low, high, count).astype(np.float32))


def _to_picture(pixels: Tensor) -> NDArray[np.uint8]:
    return np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())


def _to_channels(picture: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
