"""One random affine and one random change of light per training sample."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from rtpose.model_card import InputSpec, place
from rtpose.skeleton import Skeleton
from rtpose_train.geometry import frame_to_input, transform
from rtpose_train.settings import TrainSettings

#: The middle of the animal is not moved nearer to the border than this part of the input.
_MARGIN = 0.1


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
    """Turns sources into training samples: turned, scaled, moved, mirrored; another light.

    All ranges are uniform. `rotation_deg` is the largest turn either way, about the animal, so that
    it stays where animals are seen; `scale` the largest factor, its inverse the smallest; `shift`
    the largest move as a fraction of the input size; `flip` mirrors half of the samples and swaps
    left with right. `contrast` is the largest relative change, `brightness` the largest change in
    grey levels; `noise` and `blur_px` are the largest standard deviations, in grey levels and input
    px; half of the samples are blurred.

    Parameters
    ----------
    settings : TrainSettings
        Input and ranges.
    skeleton : Skeleton
        Tells which keypoints a mirrored image swaps.
    """

    def __init__(self, settings: TrainSettings, skeleton: Skeleton) -> None:
        self.spec = settings.input
        self.ranges = settings
        self.swap = np.arange(len(skeleton.names))
        for left, right in skeleton.pairs:
            first, second = skeleton.index(left), skeleton.index(right)
            self.swap[[first, second]] = second, first

    def __call__(
        self, source: Source, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return one sample.

        Returns
        -------
        ndarray of uint8, shape (height, width, channels)
        ndarray of float32, shape (keypoints, 2)
            x, y in input px; NaN where a keypoint is not labelled.
        """
        spec = self.spec
        mirrored = self.ranges.flip and rng.random() < 0.5
        matrix = self._affine(source, mirrored, rng)
        border = cv2.BORDER_REPLICATE if rng.random() < 0.5 else cv2.BORDER_CONSTANT
        image = cv2.warpAffine(
            source.pixels, matrix, (spec.width_px, spec.height_px), borderMode=border
        )
        points = transform(matrix, source.points)
        if mirrored:
            points = points[self.swap]
        image = self._relight(np.asarray(image, np.uint8).reshape(spec.shape[1:]), rng)
        return image, points.astype(np.float32)

    def _affine(
        self, source: Source, mirrored: bool, rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """Return frame -> input: placed as live, then mirrored, turned, scaled and moved."""
        ranges = self.ranges
        angle = np.deg2rad(rng.uniform(-ranges.rotation_deg, ranges.rotation_deg))
        size = np.array([self.spec.width_px, self.spec.height_px])
        scale = ranges.scale ** rng.uniform(-1, 1)
        shift = rng.uniform(-ranges.shift, ranges.shift, 2) * size
        points = transform(source.to_input, source.points)
        is_labelled = ~np.isnan(points[:, 0])
        centre = points[is_labelled].mean(axis=0) if is_labelled.any() else size / 2
        goal = np.clip(centre + shift, _MARGIN * size, (1 - _MARGIN) * size)
        cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
        turn = np.array([[cosine, -sine], [sine, cosine]])
        if mirrored:
            turn = turn @ np.diag([-1.0, 1.0])
        linear = turn @ source.to_input[:, :2]
        offset = turn @ (source.to_input[:, 2] - centre) + goal
        return np.column_stack([linear, offset])

    def _relight(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        ranges = self.ranges
        if ranges.blur_px and rng.random() < 0.5:
            blurred = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.1, ranges.blur_px))
            image = np.asarray(blurred, np.uint8).reshape(image.shape)
        gain = 1 + rng.uniform(-ranges.contrast, ranges.contrast)
        lift = rng.uniform(-ranges.brightness, ranges.brightness)
        mean = float(image.mean())
        changed = image.astype(np.float32) * np.float32(gain)
        changed += np.float32(mean * (1 - gain) + lift)
        changed += rng.standard_normal(image.shape, np.float32) * np.float32(
            rng.uniform(0, ranges.noise)
        )
        return np.asarray(np.clip(changed, 0, 255), np.uint8)
