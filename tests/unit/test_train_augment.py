"""Augmented pixels and augmented labels move together, and left stays left."""

from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from rtpose.errors import InputError, RecordingError
from rtpose.model_card import InputSpec
from rtpose.skeleton import Skeleton
from rtpose_train.data.compression import Colour, h264, jpeg
from rtpose_train.data.geometry import frame_to_input, letterbox, transform
from rtpose_train.training import contact_sheet
from rtpose_train.training.augment import Augmenter, AugmentSettings, Source, prepare

SKELETON = Skeleton(("snout", "leftear", "rightear", "tail"), pairs=(("leftear", "rightear"),))
#: An animal as seen from above, looking to the right, in units of its length.
ANIMAL = np.array([[0.5, 0.0], [0.3, -0.2], [0.3, 0.2], [-0.5, 0.0]])
SMALL = InputSpec(width_px=160, height_px=128, colour="gray")
TINY = InputSpec(width_px=64, height_px=48, colour="gray")
CLEAR: dict[str, Any] = {
    "blur_fraction": 0.0,
    "motion_fraction": 0.0,
    "contrast": 0.0,
    "brightness": 0.0,
    "gamma": 1.0,
    "noise": 0.0,
    "erase_fraction": 0.0,
    "jpeg_fraction": 0.0,
    "h264_fraction": 0.0,
}
STILL: dict[str, Any] = {
    "rotation_deg": 0.0,
    "scale": 1.0,
    "shear_deg": 0.0,
    "shift": 0.0,
    "flip": "none",
}


def _spot(width: int, height: int, x: float, y: float, sigma: float) -> NDArray[np.uint8]:
    columns, rows = np.arange(width), np.arange(height)[:, None]
    spot = 250 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    return np.asarray(np.rint(spot), np.uint8)


def _centroid(image: torch.Tensor) -> tuple[float, float]:
    pixels = image.numpy()
    moments = cv2.moments(np.where(pixels > 8, pixels, 0).astype(np.float32))
    return moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]


def _spread(image: torch.Tensor) -> float:
    """Return the standard deviation of a spot along the axis where it is widest."""
    moments = cv2.moments(image.numpy().astype(np.float32))
    mixed = [[moments["mu20"], moments["mu11"]], [moments["mu11"], moments["mu02"]]]
    return float(np.sqrt(np.linalg.eigvalsh(mixed)[-1] / moments["m00"]))


@settings(max_examples=60)
@given(
    size=st.sampled_from([(320, 240), (640, 480), (500, 300), (1600, 1200), (96, 200)]),
    place=st.tuples(st.floats(0.3, 0.7), st.floats(0.3, 0.7)),
    flip=st.sampled_from(["none", "horizontal", "vertical", "both"]),
    seed=st.integers(0, 1 << 32),
)
def test_labels_stay_on_their_pixels(
    size: tuple[int, int], place: tuple[float, float], flip: Any, seed: int
) -> None:
    width, height = size
    chosen = AugmentSettings(**{**CLEAR, "shift": 0.1, "shear_deg": 15.0, "flip": flip})
    reduction = max(width / 160, height / 128)
    x, y = place[0] * width, place[1] * height
    frame = _spot(width, height, x, y, 3 * max(reduction, 1.0))
    source = prepare(frame, np.array([[x, y], [np.nan, np.nan]]), SMALL)
    augmenter = Augmenter(SMALL, chosen, Skeleton(("spot", "never")))
    images, points = augmenter([source], np.random.default_rng(seed))
    assert images.shape == (1, 1, 128, 160)
    assert points[0, 0].tolist() == pytest.approx(_centroid(images[0, 0]), abs=0.05)
    assert points[0, 1].isnan().all()


@given(
    flip=st.sampled_from(["none", "horizontal", "vertical", "both"]),
    seed=st.integers(0, 1 << 32),
)
def test_left_stays_left_however_the_animal_is_turned_and_mirrored(flip: Any, seed: int) -> None:
    points = ANIMAL * 60 + (100, 60)
    source = Source(np.zeros((128, 160), np.uint8), points, np.eye(2, 3))
    chosen = AugmentSettings(flip=flip, shear_deg=30, erase_fraction=0)
    moved = Augmenter(SMALL, chosen, SKELETON)([source], np.random.default_rng(seed))[1][0]
    ahead, across = moved[0] - moved[3], moved[1] - moved[2]
    # y points down: seen from above, left is anticlockwise of ahead.
    assert ahead[0] * across[1] - ahead[1] * across[0] < 0


@pytest.mark.parametrize(
    ("flip", "seen"),
    [
        ("none", {(1, 1)}),
        ("horizontal", {(1, 1), (-1, 1)}),
        ("vertical", {(1, 1), (1, -1)}),
        ("both", {(1, 1), (-1, 1), (1, -1), (-1, -1)}),
    ],
)
def test_samples_are_mirrored_along_the_axes_that_were_asked_for(
    flip: Any, seen: set[tuple[int, int]]
) -> None:
    source = Source(np.zeros((48, 64), np.uint8), np.array([[20.0, 20], [30, 30]]), np.eye(2, 3))
    chosen = AugmentSettings(**{**CLEAR, **STILL, "flip": flip})
    augmenter = Augmenter(TINY, chosen, Skeleton(("first", "second")))
    _, points = augmenter([source] * 40, np.random.default_rng(0))
    ahead = torch.sign(points[:, 1] - points[:, 0]).int()
    assert {(x, y) for x, y in ahead.tolist()} == seen


@pytest.mark.parametrize("size", [(640, 480), (320, 240), (200, 150), (300, 500), (1280, 960)])
def test_an_unchanged_sample_is_what_the_live_service_sees(size: tuple[int, int]) -> None:
    spec = InputSpec(width_px=320, height_px=240, colour="gray")
    texture = np.random.default_rng(0).integers(0, 256, (size[1], size[0]), np.uint8)
    smooth = cv2.GaussianBlur(texture.astype(np.float32), (0, 0), 6)
    frame = np.rint(255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)
    live, placement = letterbox(frame, spec)
    labelled = np.array([0.4 * size[0], 0.6 * size[1]])
    source = prepare(frame, labelled[None], spec)
    augmenter = Augmenter(spec, AugmentSettings(**CLEAR, **STILL), Skeleton(("one",)))
    images, points = augmenter([source], np.random.default_rng(0))
    rows = slice(placement.top_px + 4, placement.top_px + placement.height_px - 4)
    columns = slice(placement.left_px + 4, placement.left_px + placement.width_px - 4)
    difference = np.abs(images[0, 0].numpy().astype(int) - live[0, ..., 0])
    assert difference[rows, columns].mean() < 1.0
    ax, bx, ay, by = placement.to_frame
    x, y = points[0, 0].tolist()
    assert (ax * x + bx, ay * y + by) == pytest.approx(labelled, abs=1e-3)
    assert transform(frame_to_input(placement), labelled) == pytest.approx((x, y), abs=1e-3)


def test_colour_frames_of_several_sizes_make_one_batch() -> None:
    spec = InputSpec(width_px=64, height_px=48, colour="rgb")
    sources = []
    for width, height, channel in ((64, 48, 2), (128, 96, 0)):
        frame = np.zeros((height, width, 3), np.uint8)
        frame[..., channel] = 200
        sources.append(prepare(frame, np.array([[width / 2, height / 2]]), spec))
    augmenter = Augmenter(spec, AugmentSettings(**CLEAR, **STILL), Skeleton(("one",)))
    images, _ = augmenter(sources, np.random.default_rng(0))
    assert images.shape == (2, 3, 48, 64)
    assert images.dtype == torch.uint8
    assert images[:, :, 20, 30].tolist() == [[0, 0, 200], [200, 0, 0]]


def _source(seed: int) -> Source:
    frame = np.random.default_rng(seed).integers(0, 256, (96, 128), np.uint8)
    return prepare(frame, np.array([[60.0, 40], [50, 50], [70, 50], [60, 60]]), SMALL)


def test_samples_depend_on_sources_and_generator_alone() -> None:
    often: dict[str, Any] = {name: 0.5 for name in CLEAR if name.endswith("_fraction")}
    augmenter = Augmenter(SMALL, AugmentSettings(**often), SKELETON)
    sources = [_source(seed) for seed in range(4)]
    torch.manual_seed(1)
    images, points = augmenter(sources, np.random.default_rng(5))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again, points_again = augmenter(sources, np.random.default_rng(5))
    other, _ = augmenter(sources, np.random.default_rng(6))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(images, again)
    assert torch.equal(points.nan_to_num(-1), points_again.nan_to_num(-1))
    assert not torch.equal(images, other)


def test_a_frame_without_labels_is_a_sample_without_labels() -> None:
    source = prepare(np.full((96, 128), 90, np.uint8), np.full((4, 2), np.nan), SMALL)
    chosen = AugmentSettings(erase_fraction=1)
    images, points = Augmenter(SMALL, chosen, SKELETON)([source], np.random.default_rng(0))
    assert points.isnan().all()
    assert images.float().mean() > 20


def test_light_changes_without_wrapping_round() -> None:
    chosen = AugmentSettings(**{**CLEAR, "contrast": 1.0, "brightness": 255, "noise": 40})
    source = prepare(np.full((48, 64), 250, np.uint8), np.array([[30.0, 20.0]]), TINY)
    augmenter = Augmenter(TINY, chosen, Skeleton(("one",)))
    images, _ = augmenter([source] * 20, np.random.default_rng(1))
    means = images[:, 0, 10:40, 10:50].float().mean((1, 2))
    assert means.max() > 240
    assert means.min() < 120


@pytest.mark.parametrize("one", ["contrast", "brightness", "gamma", "noise"])
def test_every_change_of_light_does_something(one: str) -> None:
    larger = {"contrast": 0.5, "brightness": 50, "gamma": 2, "noise": 20}
    chosen = AugmentSettings(**{**CLEAR, **STILL, one: larger[one]})
    source = prepare(_spot(64, 48, 30, 20, 12), np.array([[30.0, 20.0]]), TINY)
    augmenter = Augmenter(TINY, chosen, Skeleton(("one",)))
    images, _ = augmenter([source] * 8, np.random.default_rng(1))
    assert len({image.numpy().tobytes() for image in images}) > 4


@pytest.mark.parametrize("kind", ["blur", "motion"])
def test_blurred_spots_are_wider_and_still_where_their_labels_are(kind: str) -> None:
    chosen = {**CLEAR, **STILL, "blur_px": 3, "motion_px": 15}
    source = prepare(_spot(160, 128, 71.3, 52.8, 3), np.array([[71.3, 52.8]]), SMALL)
    spreads = {}
    for fraction in (0.0, 1.0):
        drawn = AugmentSettings(**{**chosen, f"{kind}_fraction": fraction})
        augmenter = Augmenter(SMALL, drawn, Skeleton(("spot",)))
        images, points = augmenter([source] * 30, np.random.default_rng(0))
        for image, (place,) in zip(images, points.tolist(), strict=True):
            assert place == pytest.approx(_centroid(image[0]), abs=0.15)
        spreads[fraction] = [_spread(image[0]) for image in images]
    assert min(spreads[1.0]) > 0.99 * min(spreads[0.0])
    assert np.median(spreads[1.0]) > 1.05 * np.median(spreads[0.0])


def test_what_lies_under_an_erased_rectangle_is_not_labelled() -> None:
    columns, rows = np.meshgrid(np.arange(8, 152, 4), np.arange(8, 120, 4))
    grid = np.column_stack([columns.ravel(), rows.ravel()]).astype(np.float64)
    source = prepare(np.full((128, 160), 100, np.uint8), grid, SMALL)
    chosen = AugmentSettings(**{**CLEAR, **STILL, "erase_fraction": 1.0, "erase_size": 0.5})
    augmenter = Augmenter(SMALL, chosen, Skeleton(tuple(f"k{k}" for k in range(len(grid)))))
    images, points = augmenter([source] * 50, np.random.default_rng(0))
    covered = images[:, 0, grid[:, 1].astype(int), grid[:, 0].astype(int)] != 100
    assert torch.equal(points.isnan().any(-1), covered)
    assert covered.any(1).float().mean() > 0.8
    assert not covered.all(1).any()


@pytest.mark.parametrize("colour", ["gray", "rgb", "bgr"])
@given(
    width=st.integers(2, 50),
    height=st.integers(2, 50),
    level=st.tuples(*[st.integers(20, 235)] * 3),
)
@settings(max_examples=15)
def test_compression_keeps_size_and_colours(
    colour: Colour, width: int, height: int, level: tuple[int, int, int]
) -> None:
    channels = 1 if colour == "gray" else 3
    # Half as much colour as light: bright and strong colours are beyond the video's range.
    image = np.full((height, width, channels), [(value + 128) // 2 for value in level[:channels]])
    for shown in (
        jpeg(image.astype(np.uint8), 95, colour),
        h264(image.astype(np.uint8), 0, colour),
    ):
        assert shown.shape == image.shape
        assert np.abs(shown.astype(int) - image).max() <= 5


@pytest.mark.parametrize("kind", ["jpeg", "h264"])
def test_stronger_compression_loses_more_and_moves_nothing(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 30, (96, 128), np.uint8)
    image = (_spot(128, 96, 61, 40, 6) // 2 + noise)[..., None]
    qualities = (95, 50, 5) if kind == "jpeg" else (5, 25, 50)
    shown = [(jpeg if kind == "jpeg" else h264)(image, quality, "gray") for quality in qualities]
    errors = [float(np.abs(picture.astype(int) - image).mean()) for picture in shown]
    assert errors == sorted(errors)
    assert errors[0] < 2 < errors[2]
    for picture in shown:
        bright = torch.from_numpy(np.where(picture > 60, picture, 0)[..., 0])
        assert _centroid(bright) == pytest.approx((61, 40), abs=1)


@pytest.mark.parametrize("kind", ["jpeg", "h264"])
def test_the_fraction_of_compressed_samples_is_the_one_asked_for(kind: str) -> None:
    chosen = AugmentSettings(**{**CLEAR, **STILL, f"{kind}_fraction": 0.5, "jpeg_quality": 5})
    source = _source(0)
    augmenter = Augmenter(SMALL, chosen, SKELETON)
    images, _ = augmenter([source] * 40, np.random.default_rng(0))
    # Of uncompressed samples there are two kinds: the border repeated, or black.
    pixels = [image.numpy().tobytes() for image in images]
    assert 10 <= sum(pixels.count(one) < 5 for one in pixels) <= 30


def test_without_the_codec_h264_is_refused_and_the_rest_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str, mode: str) -> None:
        raise av.codec.codec.UnknownCodecError(name)

    monkeypatch.setattr(av.codec, "Codec", missing)
    with pytest.raises(InputError, match=r"libx264.*pip install"):
        Augmenter(SMALL, AugmentSettings(), SKELETON)
    Augmenter(SMALL, AugmentSettings(h264_fraction=0), SKELETON)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rotation": 90},
        {"rotation_deg": 181},
        {"scale": 0.9},
        {"shear_deg": 31},
        {"flip": True},
        {"motion_px": 2},
        {"gamma": 0.5},
        {"erase_size": 0},
        {"jpeg_quality": 100},
        {"h264_crf": 52},
        {"h264_fraction": 1.1},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AugmentSettings(**wrong)


def _sheet(
    file: Path, points: NDArray[np.float64], count: int = 1, colour: Any = "bgr"
) -> NDArray[np.uint8]:
    """Draw black samples with a blue square at 40, 20; return the picture, red-green-blue."""
    images = torch.zeros(count, 3, 80, 160, dtype=torch.uint8)
    images[:, 0, 10:31, 30:51] = 255
    skeleton = Skeleton(("nose", "tail"), (("nose", "tail"),))
    contact_sheet.draw(
        images, torch.tensor(points).expand(count, -1, -1), skeleton, file, colour=colour
    )
    return np.asarray(cv2.imread(str(file)), np.uint8)[..., ::-1]


def _middle(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.array([at.mean() for at in np.nonzero(mask)])


def test_the_contact_sheet_draws_keypoints_where_they_are(tmp_path: Path) -> None:
    picture = _sheet(tmp_path / "one.png", np.array([[40.0, 20.0], [120.0, 60.0]]))
    bare = _sheet(tmp_path / "bare.png", np.full((2, 2), np.nan))
    blue = (bare == (0, 0, 255)).all(-1)
    red = (picture == (255, 0, 0)).all(-1)
    red[: np.nonzero(blue)[0].min()] = False  # the legend
    assert np.abs(_middle(red) - _middle(blue)).max() < 2


def test_the_contact_sheet_has_room_for_many_samples_and_long_names(tmp_path: Path) -> None:
    points = np.array([[40.0, 20.0], [300.0, np.nan]])
    assert (
        _sheet(tmp_path / "nine.png", points, count=9).size
        > 4 * _sheet(tmp_path / "one.png", points).size
    )
    skeleton = Skeleton(tuple(f"a keypoint with a long name {k}" for k in range(24)))
    contact_sheet.draw(
        torch.zeros(1, 1, 48, 64, dtype=torch.uint8),
        torch.full((1, 24, 2), 20.0),
        skeleton,
        tmp_path / "many.png",
    )


def test_the_contact_sheet_refuses_what_it_cannot_write(tmp_path: Path) -> None:
    points = np.array([[40.0, 20.0], [120.0, 60.0]])
    with pytest.raises(InputError, match=r"end its name in \.png"):
        _sheet(tmp_path / "sheet.jpg", points)
    with pytest.raises(InputError, match="3 channels are not a picture in gray"):
        _sheet(tmp_path / "sheet.png", points, colour="gray")
    with pytest.raises(RecordingError, match="cannot be written"):
        _sheet(tmp_path / "missing" / "sheet.png", points)
    assert not list(tmp_path.iterdir())
