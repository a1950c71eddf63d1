import dataclasses
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from rtpose.cameras.arena import Palette
from rtpose.cameras.synthetic import SyntheticArena, SyntheticCamera, SyntheticConfig
from rtpose.errors import CameraError
from rtpose.interfaces import Captured

BLACK = dataclasses.replace(
    Palette(), **dict.fromkeys(Palette.__dataclass_fields__, (0.0, 0.0, 0.0))
)
WHITE = (255.0, 255.0, 255.0)
NAMES = SyntheticArena.skeleton.names


def drawn(arena: SyntheticArena, frame_id: int) -> NDArray[np.uint8]:
    frame = np.empty(arena.shape, np.uint8)
    arena.draw(frame_id, frame)
    return frame


def only(*parts: str, width_px: int = 640, height_px: int = 480) -> SyntheticArena:
    """An arena in which nothing is seen but some parts of the mouse."""
    palette = dataclasses.replace(BLACK, **dict.fromkeys(parts, WHITE))
    return SyntheticArena(width_px, height_px, seed=5, palette=palette, noise=False)


def centroid(frame: NDArray[np.uint8]) -> NDArray[np.float64]:
    weights = frame.astype(np.float64)
    rows, columns = np.indices(frame.shape)
    moments = [(weights * columns).sum(), (weights * rows).sum()]
    return np.array(moments, np.float64) / float(weights.sum())


def place(arena: SyntheticArena, frame_id: int, name: str) -> NDArray[np.float64]:
    return np.asarray(arena.keypoints(frame_id)[NAMES.index(name)])


FRAMES = range(0, 3000, 171)


@pytest.mark.parametrize("frame_id", FRAMES)
def test_the_snout_is_drawn_where_it_is_said_to_be(frame_id: int) -> None:
    arena = only("nose")
    error = centroid(drawn(arena, frame_id)) - place(arena, frame_id, "snout")
    assert np.abs(error).max() < 0.15


@pytest.mark.parametrize("frame_id", FRAMES)
def test_the_ears_are_drawn_where_they_are_said_to_be(frame_id: int) -> None:
    arena = only("ear")
    frame = drawn(arena, frame_id)
    count, labels = cv2.connectedComponents((frame > 0).astype(np.uint8))
    assert count == 3, "two ears and the rest"
    found = [centroid(np.where(labels == label, frame, 0).astype(np.uint8)) for label in (1, 2)]
    for name in ("leftear", "rightear"):
        distances = [np.abs(at - place(arena, frame_id, name)).max() for at in found]
        assert min(distances) < 0.15


@pytest.mark.parametrize("frame_id", FRAMES)
def test_the_tail_ends_where_it_is_said_to_end(frame_id: int) -> None:
    arena = only("tail")
    tip, base = (place(arena, frame_id, name) for name in ("tailtip", "tailbase"))
    rows, columns = np.nonzero(drawn(arena, frame_id) > 127)
    pixels = np.stack([columns, rows], axis=1)
    farthest = pixels[np.argmax(np.linalg.norm(pixels - base, axis=1))]
    assert np.linalg.norm(farthest - tip) < 2.0


def test_the_whole_mouse_lies_where_a_finer_drawing_has_it() -> None:
    scale, body = 4, ("fur", "sheen", "ear", "nose")
    arena = only(*body, width_px=320, height_px=240)
    fine = only(*body, width_px=320 * scale, height_px=240 * scale)
    errors = []
    for frame_id in FRAMES:
        np.testing.assert_allclose(
            (arena.keypoints(frame_id) + 0.5) * scale - 0.5, fine.keypoints(frame_id), atol=1e-6
        )
        reduced = cv2.resize(drawn(fine, frame_id), (320, 240), interpolation=cv2.INTER_AREA)
        errors.append(centroid(drawn(arena, frame_id)) - centroid(np.asarray(reduced, np.uint8)))
    # Anti-aliasing widens an outline by half a pixel: the thin snout gains more than the trunk.
    assert np.abs(errors).max() < 0.3
    assert np.abs(np.mean(errors, axis=0)).max() < 0.1


@settings(deadline=None)
@given(st.integers(32, 900), st.integers(32, 900), st.integers(0, 2**32 - 1), st.integers(0, 10**9))
def test_the_mouse_never_leaves_the_floor(width: int, height: int, seed: int, frame: int) -> None:
    points = SyntheticArena(width, height, seed).keypoints(frame)
    radii = 0.47 * np.array([width, height])
    away = (points - [(width - 1) / 2, (height - 1) / 2]) / radii
    assert points.shape == (len(NAMES), 2)
    assert (np.linalg.norm(away, axis=1) < 0.96).all()


@pytest.mark.parametrize("seed", range(4))
def test_the_mouse_comes_everywhere_and_turns_everywhere(seed: int) -> None:
    arena = SyntheticArena(640, 480, seed, rate_hz=5)
    poses = np.array([arena.keypoints(frame_id) for frame_id in range(6000)])
    snouts = (poses[:, 0] - [319.5, 239.5]) / (0.47 * np.array([640, 480]))
    cells = np.zeros((8, 8), bool)
    cells[tuple(((snouts.T + 1) * 4).astype(int))] = True
    middles = (np.arange(8) + 0.5) / 4 - 1
    assert cells[np.hypot(*np.meshgrid(middles, middles)) < 0.7].all()
    headings = np.angle((poses[:, 0] - poses[:, 3]) @ [1, 1j])
    turns, _ = np.histogram(headings, bins=12, range=(-np.pi, np.pi))
    assert turns.min() > 0.02 * len(poses)


def test_the_mouse_moves_like_an_animal() -> None:
    arena = SyntheticArena(640, 480, 1, rate_hz=100)
    poses = np.array([arena.keypoints(frame_id) for frame_id in range(6000)])
    steps_px = np.linalg.norm(np.diff(poses, axis=0), axis=2)
    assert steps_px.max() < 8, "no jumps, of no keypoint"
    speeds = steps_px[:, NAMES.index("centre")]
    assert np.percentile(speeds, 2) < 0.1 * np.percentile(speeds, 98), "it pauses"


@settings(deadline=None)
@given(st.integers(0, 10**6))
def test_left_is_left(frame_id: int) -> None:
    snout, left, right, centre, *_ = SyntheticArena(640, 480, 2).keypoints(frame_id)
    ahead, sideways = snout - centre, right - left
    # Seen from above with y down, a quarter turn clockwise on the picture goes from ahead to right.
    assert ahead[0] * sideways[1] - ahead[1] * sideways[0] > 0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 10**7), min_size=2, max_size=5))
def test_any_frame_can_be_drawn_alone(seed: int, frame_ids: list[int]) -> None:
    arena = SyntheticArena(96, 64, seed, colour=True)
    together = {frame_id: drawn(arena, frame_id) for frame_id in frame_ids}
    alone = drawn(SyntheticArena(96, 64, seed, colour=True), frame_ids[-1])
    assert np.array_equal(together[frame_ids[-1]], alone)


def test_another_seed_is_another_scene() -> None:
    first, second = (SyntheticArena(96, 64, seed) for seed in (1, 2))
    assert not np.array_equal(drawn(first, 0), drawn(second, 0))
    assert not np.allclose(first.keypoints(0), second.keypoints(0))


def test_the_sensor_noise_differs_from_frame_to_frame_and_nothing_else_of_the_floor() -> None:
    arena = SyntheticArena(640, 480)
    corner = np.array([drawn(arena, frame_id)[:40, :40] for frame_id in range(16)], np.float64)
    assert 1.0 < corner.std(axis=0).mean() < 3.0
    assert len(np.unique(corner.reshape(16, -1), axis=0)) == 16
    quiet = SyntheticArena(640, 480, noise=False)
    assert np.array_equal(drawn(quiet, 0)[:40, :40], drawn(quiet, 1)[:40, :40])


def test_grey_is_the_luma_of_colour() -> None:
    grey = drawn(SyntheticArena(320, 240, noise=False), 7)
    colour = drawn(SyntheticArena(320, 240, noise=False, colour=True), 7)
    difference = cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY).astype(int) - grey
    assert np.abs(difference).max() <= 2


def test_a_picture_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(48, 64\)"):
        SyntheticArena(64, 48).draw(0, np.empty((48, 65), np.uint8))


# --------------------------------------------------------------------------------------- camera


def film(count: int = 10**6, **settings: Any) -> list[tuple[Captured | None, NDArray[np.uint8]]]:
    """Take what a small camera yields, at most `count` times."""
    values = {"width_px": 48, "height_px": 32, "rate_hz": 0, **settings}
    camera = SyntheticCamera(SyntheticConfig.model_validate(values))
    buffer = np.zeros(camera.open().shape, np.uint8)
    frames = camera.frames(lambda: buffer)
    taken = [(captured, buffer.copy()) for captured, _ in zip(frames, range(count), strict=False)]
    camera.close()
    return taken


def ids(taken: list[tuple[Captured | None, NDArray[np.uint8]]]) -> list[int | None]:
    return [captured.frame_id for captured, _ in taken if captured is not None]


def test_the_frames_show_the_scene_whose_truth_is_known() -> None:
    settings = SyntheticConfig(width_px=48, height_px=32, rate_hz=250, seed=3, colour=True)
    truth = settings.arena()
    for captured, frame in film(5, **settings.model_dump()):
        assert captured is not None
        assert captured.frame_id is not None
        assert np.array_equal(frame, drawn(truth, captured.frame_id))


def test_it_ends_after_its_frames() -> None:
    assert ids(film(frames=7)) == list(range(7))


def test_every_third_frame_is_lost_on_request() -> None:
    assert ids(film(frames=9, drop_every=3)) == [0, 1, 3, 4, 6, 7]


def test_random_losses_are_those_of_the_seed() -> None:
    first, again, other = (
        ids(film(frames=400, drop_probability=0.25, seed=seed)) for seed in (1, 1, 2)
    )
    assert first == again != other
    assert 230 < len(first) < 370


def test_it_freezes_and_goes_on() -> None:
    taken = film(frames=40, freeze_after=5, freeze_frames=30)
    assert ids(taken) == [*range(5), *range(35, 40)]
    assert any(captured is None for captured, _ in taken), "the core can stop a frozen camera"


def test_it_freezes_for_ever() -> None:
    taken = film(6, freeze_after=3)
    assert ids(taken) == [0, 1, 2]
    assert [captured for captured, _ in taken[3:]] == [None] * 3


def test_it_repeats_a_picture_and_counts_on() -> None:
    taken = film(6, repeat_after=3)
    assert ids(taken) == [0, 1, 2, 3, 4, 5]
    same = [bool((a == b).all()) for (_, a), (_, b) in pairwise(taken)]
    assert same == [False, False, False, True, True]


def test_it_fails_as_if_unplugged() -> None:
    with pytest.raises(CameraError, match="at frame 4"):
        film(fail_after=4)


def test_exposures_are_the_moments_of_the_rate() -> None:
    taken = [captured for captured, _ in film(20, rate_hz=400)]
    first = taken[0]
    assert first is not None
    assert first.exposure_ns is not None
    for captured in taken:
        assert captured is not None
        assert captured.exposure_ns is not None
        assert captured.frame_id is not None
        assert captured.exposure_ns - first.exposure_ns == captured.frame_id * 2_500_000
        assert captured.arrival_ns >= captured.exposure_ns


def test_a_slow_camera_lets_the_core_stop_it() -> None:
    taken = [captured for captured, _ in film(4, rate_hz=0.05)]
    assert taken[0] is not None
    assert taken[1:] == [None] * 3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width_px": 31}, "width_px"),
        ({"height_px": 0}, "height_px"),
        ({"width_px": 64.5}, "width_px"),
        ({"rate_hz": -1}, "rate_hz"),
        ({"rate_hz": "100"}, "rate_hz"),
        ({"seed": -1}, "seed"),
        ({"colour": "grey"}, "colour"),
        ({"drop_every": 1}, "every frame"),
        ({"drop_probability": 1.0}, "drop_probability"),
        ({"freeze_frames": 3}, "freeze_after"),
        ({"jitter_ms": 101}, "jitter_ms"),
    ],
)
def test_wrong_settings_are_refused(wrong: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SyntheticConfig.model_validate(wrong)
