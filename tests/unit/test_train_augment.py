"""Augmented pixels and augmented labels move together, and left stays left."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rtpose.model_card import InputSpec
from rtpose.skeleton import Skeleton
from rtpose_train.augment import Augmenter, Source, prepare
from rtpose_train.geometry import frame_to_input, letterbox, transform
from rtpose_train.settings import build_settings

SKELETON = Skeleton(("snout", "leftear", "rightear", "tail"), pairs=(("leftear", "rightear"),))
#: An animal as seen from above, looking to the right, in units of its length.
ANIMAL = np.array([[0.5, 0.0], [0.3, -0.2], [0.3, 0.2], [-0.5, 0.0]])
SMALL = {"width_px": 160, "height_px": 128}
TINY = {"width_px": 64, "height_px": 48}
SAME_LIGHT = {"contrast": 0.0, "brightness": 0.0, "noise": 0.0, "blur_px": 0.0}


def _spot(width: int, height: int, x: float, y: float, sigma: float) -> NDArray[np.uint8]:
    columns, rows = np.arange(width), np.arange(height)[:, None]
    spot = 250 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    return np.asarray(np.rint(spot), np.uint8)


def _centroid(image: NDArray[np.uint8]) -> tuple[float, float]:
    moments = cv2.moments(np.where(image > 8, image, 0).astype(np.float32))
    return moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]


@settings(max_examples=60, deadline=None)
@given(
    size=st.sampled_from([(320, 240), (640, 480), (500, 300), (1600, 1200), (96, 200)]),
    place=st.tuples(st.floats(0.3, 0.7), st.floats(0.3, 0.7)),
    seed=st.integers(0, 1 << 32),
)
def test_labels_stay_on_their_pixels(
    size: tuple[int, int], place: tuple[float, float], seed: int
) -> None:
    width, height = size
    chosen = build_settings({**SMALL, "shift": 0.1, **SAME_LIGHT})
    reduction = max(width / 160, height / 128)
    x, y = place[0] * width, place[1] * height
    frame = _spot(width, height, x, y, 3 * max(reduction, 1.0))
    source = prepare(frame, np.array([[x, y], [np.nan, np.nan]]), chosen.input)
    skeleton = Skeleton(("spot", "never"))
    image, points = Augmenter(chosen, skeleton)(source, np.random.default_rng(seed))
    assert image.shape == (128, 160, 1)
    assert points[0] == pytest.approx(_centroid(image[..., 0]), abs=0.25)
    assert np.isnan(points[1]).all()


@given(seed=st.integers(0, 1 << 32))
def test_left_stays_left_however_the_animal_is_turned_and_mirrored(seed: int) -> None:
    chosen = build_settings(SMALL)
    points = ANIMAL * 60 + (100, 60)
    source = Source(np.zeros((128, 160), np.uint8), points, np.eye(2, 3))
    _, moved = Augmenter(chosen, SKELETON)(source, np.random.default_rng(seed))
    ahead, across = moved[0] - moved[3], moved[1] - moved[2]
    # y points down: seen from above, left is anticlockwise of ahead.
    assert ahead[0] * across[1] - ahead[1] * across[0] < 0


@pytest.mark.parametrize("size", [(640, 480), (320, 240), (200, 150), (300, 500), (1280, 960)])
def test_an_unchanged_sample_is_what_the_live_service_sees(size: tuple[int, int]) -> None:
    spec = InputSpec(width_px=320, height_px=240, colour="gray")
    texture = np.random.default_rng(0).integers(0, 256, (size[1], size[0]), np.uint8)
    smooth = cv2.GaussianBlur(texture.astype(np.float32), (0, 0), 6)
    frame = np.rint(255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)
    live, placement = letterbox(frame, spec)
    source = prepare(frame, np.array([[10.0, 20.0]]), spec)
    trained = cv2.warpAffine(source.pixels, source.to_input, (320, 240))
    assert np.abs(trained.astype(int) - live[0, ..., 0])[4:-4, 4:-4].mean() < 1.0
    ax, bx, ay, by = placement.to_frame
    x, y = transform(source.to_input, source.points)[0]
    assert (ax * x + bx, ay * y + by) == pytest.approx((10.0, 20.0))
    assert transform(frame_to_input(placement), np.array([10.0, 20.0])) == pytest.approx((x, y))


def test_colour_frames_keep_their_channels() -> None:
    chosen = build_settings({**TINY, "colour": "rgb", **SAME_LIGHT, "scale": 1.0, "shift": 0.0})
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[..., 2] = 200
    source = prepare(frame, np.array([[30.0, 20.0]]), chosen.input)
    image, _ = Augmenter(chosen, Skeleton(("one",)))(source, np.random.default_rng(0))
    assert image.shape == (48, 64, 3)
    assert image[20, 30].tolist() == [0, 0, 200]


def test_light_changes_without_wrapping_round() -> None:
    chosen = build_settings({**TINY, "contrast": 1.0, "brightness": 255, "noise": 40})
    frame = np.full((48, 64), 250, np.uint8)
    source = prepare(frame, np.array([[30.0, 20.0]]), chosen.input)
    augmenter, rng = Augmenter(chosen, Skeleton(("one",))), np.random.default_rng(1)
    means = [float(augmenter(source, rng)[0][10:40, 10:50].mean()) for _ in range(20)]
    assert max(means) > 240
    assert min(means) < 120
