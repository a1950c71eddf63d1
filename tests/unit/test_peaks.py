"""The peak decoder against its plain reference, the published algorithm and the truth."""

import doctest
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numba.core.runtime import _nrt_python, rtsys
from numpy.typing import NDArray

import rtpose.peaks
from rtpose.errors import InputError
from rtpose.model_card import MapsSpec
from rtpose.peaks import Affine, PeakDecoder, PeakPlacer, decode_reference

F32 = NDArray[np.float32]
AS_IT_IS: Affine = (1.0, 0.0, 1.0, 0.0)


def draw(height: int, width: int, sigma: float, x: float, y: float) -> F32:
    rows, columns = np.mgrid[:height, :width]
    squared = (columns - x) ** 2 + (rows - y) ** 2
    plane: F32 = np.exp(-squared / (2 * sigma**2)).astype(np.float32)
    return plane


def spec(plane: F32, sigma: float, stride: float = 1.0, offset_px: float = 0.0) -> MapsSpec:
    height, width = plane.shape[-2:]
    return MapsSpec(height=height, width=width, sigma=sigma, stride=stride, offset_px=offset_px)


def decode(
    maps: F32, sigma: float, min_confidence: float = 0.0
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Decode maps (keypoints, height, width) in cells."""
    decoder = PeakDecoder(spec(maps, sigma), len(maps), min_confidence=min_confidence)
    keypoints = np.empty((len(maps), 3), np.float32)
    valid = np.empty(len(maps), np.uint8)
    decoder.decode(maps, keypoints, valid)
    return keypoints, valid


def published(plane: NDArray[np.floating], sigma: float) -> tuple[float, float, float]:
    """Sub-pixel maximum of Graving et al. 2019, for maps with even sides: x, y, confidence.

    FFT cross-correlation with a Gaussian, then the same correlation on a grid of 1/100 px around
    its largest value (Guizar-Sicairos et al. 2008), largest value again.
    """
    height, width = plane.shape
    odd = min(height, width)
    while odd % 2 == 0 and odd > 2:
        odd //= 2
    half = (min(height, width) // odd + 1) // 2
    t = np.arange(-half, half + 1)
    gaussian = np.exp(-(t**2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))
    kernel = np.zeros((height, width))
    kernel[np.ix_(height // 2 + t, width // 2 + t)] = np.outer(gaussian, gaussian)
    product = np.fft.fft2(kernel) * np.conj(np.fft.fft2(plane))

    def shifts(correlation: NDArray[np.floating]) -> tuple[int, int]:
        return int(correlation.max(axis=1).argmax()), int(correlation.max(axis=0).argmax())

    coarse = [
        shift - size if shift > size // 2 else shift
        for shift, size in zip(shifts(np.abs(np.fft.ifft2(product))), plane.shape, strict=True)
    ]
    fine = (np.arange(150) - 75) / 100
    waves = [
        np.exp(2j * np.pi * np.outer(shift + fine, np.fft.fftfreq(size)))
        for shift, size in zip(coarse, plane.shape, strict=True)
    ]
    best = shifts(np.abs(waves[0] @ product @ waves[1].T))
    y, x = (
        size // 2 - (shift + fine[i])
        for size, shift, i in zip(plane.shape, coarse, best, strict=True)
    )
    return float(x), float(y), float(plane.max())


# Height, width, sigma, true x and y, what the published algorithm answers, confidence.
GOLDEN = [
    (48, 48, 1.25, (20.37, 31.82), (20.37, 31.82), 0.9473),
    (48, 48, 1.25, (10.0, 10.0), (10.00, 10.00), 1.0000),
    (48, 48, 1.25, (0.0, 24.0), (0.58, 24.00), 1.0000),
    (48, 48, 1.25, (47.0, 24.4), (46.42, 24.40), 0.9501),
    (48, 48, 1.25, (-1.0, 24.0), (0.29, 24.00), 0.7261),
    (24, 24, 0.625, (10.3, 12.7), (10.25, 12.75), 0.7942),
    (40, 40, 1.25, (5.25, 33.75), (5.25, 33.75), 0.9608),
    (48, 64, 1.25, (50.6, 7.2), (50.60, 7.20), 0.9380),
    (96, 96, 2.5, (41.11, 77.77), (41.11, 77.77), 0.9948),
]


@pytest.mark.parametrize(("height", "width", "sigma", "truth", "answer", "confidence"), GOLDEN)
def test_golden_vectors(
    height: int,
    width: int,
    sigma: float,
    truth: tuple[float, float],
    answer: tuple[float, float],
    confidence: float,
) -> None:
    plane = draw(height, width, sigma, *truth)
    assert published(plane, sigma) == pytest.approx((*answer, confidence), abs=1e-2)
    keypoints, valid = decode(plane[None], sigma)
    # Below sigma 1 the samples no longer determine the Gaussian; ours is still nearer to the truth.
    tolerance = 1e-3 if sigma >= 1.25 else 0.025
    assert keypoints[0, :2] == pytest.approx(truth, abs=tolerance)
    assert keypoints[0, 2] == pytest.approx(confidence, abs=1e-4)
    assert valid[0] == 1


@given(
    size=st.sampled_from([(48, 48), (40, 40), (48, 64), (96, 96), (60, 80)]),
    sigma=st.floats(1.25, 3.0),
    at=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_inside_a_map_the_published_algorithm_is_equalled(
    size: tuple[int, int], sigma: float, at: tuple[float, float]
) -> None:
    # Nearer to a border the published one is pulled inwards, see GOLDEN.
    room = np.array(size[::-1]) - 1 - 8 * sigma
    x, y = 4 * sigma + np.array(at) * room
    plane = draw(*size, sigma, x, y)
    theirs = published(plane, sigma)
    assert decode(plane[None], sigma)[0][0, :2] == pytest.approx(theirs[:2], abs=0.01)


# Sigma, noise, and the mean error in cells of a matched filter with 3x3 log-parabola that is
# published for it (300 interior peaks).
NOISE_TABLE = [
    (1.25, 0.0, 0.000),
    (1.25, 0.02, 0.0205),
    (1.25, 0.10, 0.099),
    (0.625, 0.0, 0.021),
    (0.625, 0.02, 0.032),
    (0.625, 0.10, 0.162),
    (2.5, 0.10, 0.101),
]


def noisy_peaks(
    count: int, size: int, sigma: float, noise: float
) -> tuple[F32, NDArray[np.float64]]:
    rng = np.random.default_rng(5)
    truth = rng.uniform(4 * sigma, size - 1 - 4 * sigma, (count, 2))
    maps = np.stack([draw(size, size, sigma, x, y) for x, y in truth])
    return maps + rng.normal(0, noise, maps.shape).astype(np.float32), truth


@pytest.mark.parametrize(("sigma", "noise", "table"), NOISE_TABLE)
def test_error_under_noise_is_that_of_the_table(sigma: float, noise: float, table: float) -> None:
    maps, truth = noisy_peaks(300, 48, sigma, noise)
    keypoints, valid = decode(maps, sigma)
    errors = np.hypot(*(keypoints[:, :2] - truth).T)
    assert valid.all()
    assert errors.mean() < 1.15 * table + 0.002


@pytest.mark.parametrize("sigma", [1.25, 2.5])
def test_agrees_with_the_published_algorithm_where_that_is_right(sigma: float) -> None:
    maps, _ = noisy_peaks(40, 48, sigma, 0.05)
    theirs = np.array([published(plane, sigma) for plane in maps])
    difference = np.abs(decode(maps, sigma)[0] - theirs)
    assert np.median(difference[:, :2]) < 0.01
    assert difference[:, :2].max() < 0.06


@st.composite
def scenes(draw_: Callable[..., Any]) -> tuple[F32, float]:
    """Maps of any small size: one peak, two, none, in any amount of noise."""
    height = draw_(st.integers(1, 40))
    width = draw_(st.integers(1, 40))
    sigma = draw_(st.floats(0.4, 5.0))
    rng = np.random.default_rng(draw_(st.integers(0, 2**32)))
    plane = rng.normal(draw_(st.sampled_from([-0.2, 0.0, 0.3])), 1, (height, width))
    plane *= draw_(st.sampled_from([1e-3, 0.02, 0.1, 0.5]))
    for height_of_peak in draw_(st.sampled_from([(), (1.0,), (0.8, 0.7), (1e-4,), (1e6,)])):
        x, y = rng.uniform(-1, width), rng.uniform(-1, height)
        plane += height_of_peak * draw(height, width, sigma, x, y)
    return plane.astype(np.float32)[None], sigma


def at_an_edge(place: float) -> bool:
    """Return whether rounding to the nearest cell depends on float32."""
    return abs(place % 1 - 0.5) < 1e-3


@given(scenes())
def test_kernel_equals_the_plain_reference(scene: tuple[F32, float]) -> None:
    maps, sigma = scene
    expected, expected_valid = decode_reference(maps, spec(maps, sigma), min_confidence=0.3)
    assume(not at_an_edge(expected[0, 0]) and not at_an_edge(expected[0, 1]))
    keypoints, valid = decode(maps, sigma, min_confidence=0.3)
    np.testing.assert_allclose(keypoints, expected, atol=2e-3, rtol=1e-6)
    assert valid.tolist() == expected_valid.tolist()


@given(
    height=st.integers(4, 60),
    width=st.integers(4, 60),
    sigma=st.floats(1.0, 6.0),
    at=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    stride=st.sampled_from([2.0, 4.0, 7.5, 16.0]),
    offset_px=st.floats(-8, 8),
    to_frame=st.tuples(st.floats(0.2, 8), st.floats(-900, 900)).map(lambda a: (*a, *a[::-1])),
)
def test_what_is_drawn_is_found_anywhere_in_the_image(
    height: int,
    width: int,
    sigma: float,
    at: tuple[float, float],
    stride: float,
    offset_px: float,
    to_frame: Affine,
) -> None:
    # From half a pixel before the first cell's to nearly a cell beyond the last one.
    cell_x, cell_y = (
        -0.5 + part * (cells + 0.4) for part, cells in zip(at, (width, height), strict=True)
    )
    ax, bx = to_frame[:2]
    ay, by = 0.7 * ax, bx + 3
    maps = draw(height, width, sigma, cell_x, cell_y)[None]
    decoder = PeakDecoder(spec(maps, sigma, stride, offset_px), 1, to_frame=(ax, bx, ay, by))
    keypoints, valid = np.empty((1, 3), np.float32), np.empty(1, np.uint8)
    decoder.decode(maps[None], keypoints, valid)
    # The filter is used from two sigma inside the border on, where a hundredth of sigma is missing.
    cells = 0.011 * sigma + 1e-3
    x, y = ax * (cell_x * stride + offset_px) + bx, ay * (cell_y * stride + offset_px) + by
    assert valid[0] == 1
    assert keypoints[0, 0] == pytest.approx(x, abs=cells * stride * ax + 1e-3)
    assert keypoints[0, 1] == pytest.approx(y, abs=cells * stride * ay + 1e-3)


def test_an_elongated_blob_across_the_grid_is_not_pulled_aside() -> None:
    rows, columns = np.mgrid[:48, :48]
    u, v = (columns - 20.4) + (rows - 25.3), (columns - 20.4) - (rows - 25.3)
    plane = np.exp(-(u**2) / 12 - v**2 / 3).astype(np.float32)
    keypoints, _ = decode(plane[None], 1.25)
    assert keypoints[0, :2] == pytest.approx((20.4, 25.3), abs=1e-3)


def no_point(maps: F32, sigma: float = 1.25) -> None:
    keypoints, valid = decode(maps, sigma)
    assert np.isnan(keypoints[:, :2]).all(), keypoints
    assert not keypoints[:, 2].any()
    assert not valid.any()


@given(
    level=st.sampled_from([0.0, -0.0, 1e-30, 0.01, 0.5, 1.0, 1e30, -1.0]),
    height=st.integers(2, 50),
    width=st.integers(2, 50),
    sigma=st.floats(0.5, 8),
)
def test_a_flat_map_is_never_a_point(level: float, height: int, width: int, sigma: float) -> None:
    no_point(np.full((1, height, width), level, np.float32), sigma)


def test_a_nearly_flat_map_is_never_a_point() -> None:
    rng = np.random.default_rng(3)
    no_point(0.5 + rng.normal(0, 0.03, (20, 40, 40)).astype(np.float32))


def test_a_stripe_is_never_a_point() -> None:
    ridge = draw(40, 40, 1.25, 20.3, 20.0)[20]
    no_point(np.stack([np.tile(ridge, (40, 1)), np.tile(ridge[:, None], (1, 40))]))


@given(seed=st.integers(0, 2**32))
def test_a_negative_map_is_never_a_point(seed: int) -> None:
    rng = np.random.default_rng(seed)
    no_point(-rng.random((1, 20, 30), np.float32) - np.float32(1e-6))


@given(
    bits=st.sampled_from([0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFFFFFFF]),
    row=st.integers(0, 23),
    column=st.integers(0, 31),
)
def test_one_number_that_is_not_finite_spoils_its_map_only(
    bits: int, row: int, column: int
) -> None:
    maps = np.stack([draw(24, 32, 1.25, 15.2, 10.1)] * 3)
    maps.view(np.uint32)[1, row, column] = bits
    keypoints, valid = decode(maps, 1.25)
    assert valid.tolist() == [1, 0, 1]
    assert np.isnan(keypoints[1, :2]).all()
    assert keypoints[1, 2] == 0
    assert keypoints[[0, 2], :2] == pytest.approx(np.array([[15.2, 10.1]] * 2), abs=1e-3)


def test_huge_and_tiny_peaks_are_found() -> None:
    maps = np.stack([draw(24, 32, 1.5, 15.2, 10.1) * np.float32(top) for top in (3e38, 1e-20)])
    keypoints, valid = decode(maps, 1.5)
    assert keypoints[:, :2] == pytest.approx(np.array([[15.2, 10.1]] * 2), abs=1e-3)
    assert valid.tolist() == [1, 1]


def test_below_the_threshold_the_place_stays_and_validity_goes() -> None:
    maps = np.stack([draw(24, 32, 1.25, 15, 10) * np.float32(top) for top in (0.29, 0.31)])
    keypoints, valid = decode(maps, 1.25, min_confidence=0.3)
    assert keypoints == pytest.approx(np.array([[15, 10, 0.29], [15, 10, 0.31]]), abs=1e-3)
    assert valid.tolist() == [0, 1]


def test_the_higher_of_two_peaks_is_taken_and_a_lone_hot_cell_is_not() -> None:
    plane = draw(48, 48, 1.5, 10, 11) + np.float32(0.9) * draw(48, 48, 1.5, 35, 36)
    plane[40, 5] = 1.5
    keypoints, _ = decode(plane[None], 1.5)
    assert keypoints[0, :2] == pytest.approx((10, 11), abs=1e-3)


@given(scenes(), scenes())
def test_a_frame_leaves_nothing_behind_for_the_next(
    first: tuple[F32, float], second: tuple[F32, float]
) -> None:
    maps, sigma = first
    other = np.resize(second[0], maps.shape)
    decoder = PeakDecoder(spec(maps, sigma), 1)
    keypoints, valid = np.empty((1, 3), np.float32), np.empty(1, np.uint8)
    before = maps.copy()
    decoder.decode(maps, keypoints, valid)
    alone = keypoints.copy()
    decoder.decode(other, keypoints, valid)
    decoder.decode(maps, keypoints, valid)
    np.testing.assert_array_equal(keypoints, alone)
    np.testing.assert_array_equal(maps, before)


def test_decoding_allocates_nothing() -> None:
    maps, _ = noisy_peaks(32, 48, 1.25, 0.02)
    maps[0] = 0.5
    maps[1, 3, 3] = np.nan
    maps[2] = draw(48, 48, 1.25, 0, 0)
    decoder = PeakDecoder(spec(maps, 1.25), 32)
    keypoints, valid = np.empty((32, 3), np.float32), np.empty(32, np.uint8)
    decoder.warm_up()
    _nrt_python.memsys_enable_stats()
    try:
        before = rtsys.get_allocation_stats()
        decoder.decode(maps, keypoints, valid)
        after = rtsys.get_allocation_stats()
    finally:
        _nrt_python.memsys_disable_stats()
    # Numba makes a descriptor of each of the eight arrays that it is handed; nothing per map.
    assert after.alloc - before.alloc <= 8
    assert after.free - before.free == after.alloc - before.alloc


# --------------------------------------------------------------------------- location refinement


def refined_spec(maps: F32, sigma: float, scale: float = 1.0) -> MapsSpec:
    return spec(maps, sigma, 4.0, 1.5).model_copy(update={"location_refinement": scale})


def decode_with(
    maps: F32, offsets: F32, geometry: MapsSpec, min_confidence: float = 0.0
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    decoder = PeakDecoder(geometry, len(maps), min_confidence=min_confidence)
    keypoints, valid = np.empty((len(maps), 3), np.float32), np.empty(len(maps), np.uint8)
    decoder.decode(maps, keypoints, valid, offsets)
    return keypoints, valid


@given(
    scene=scenes(),
    scale=st.sampled_from([1.0, 7.2801 / 8]),
    spoiled=st.sampled_from([None, np.nan, np.inf]),
    seed=st.integers(0, 99),
)
def test_the_compiled_refinement_equals_the_plain_reference(
    scene: tuple[F32, float], scale: float, spoiled: float | None, seed: int
) -> None:
    maps, sigma = scene
    rng = np.random.default_rng(seed)
    offsets = rng.normal(0, 2, (2, *maps.shape[1:])).astype(np.float32)
    if spoiled is not None:
        offsets[0, maps.shape[1] // 2 :] = spoiled
    geometry = refined_spec(maps, sigma, scale)
    expected, expected_valid = decode_reference(maps, geometry, offsets, min_confidence=0.3)
    keypoints, valid = decode_with(maps, offsets, geometry, 0.3)
    np.testing.assert_allclose(keypoints, expected, atol=1e-3, rtol=1e-6)
    assert valid.tolist() == expected_valid.tolist()


@given(
    size=st.tuples(st.integers(3, 40), st.integers(3, 40)),
    at=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_offsets_lead_from_the_largest_cell_to_the_keypoint(
    size: tuple[int, int], at: tuple[float, float]
) -> None:
    height, width = size
    x, y = at[0] * (width - 1), at[1] * (height - 1)
    rows, columns = np.mgrid[:height, :width]
    offsets = np.stack([x - columns, y - rows]).astype(np.float32)
    maps = draw(height, width, 1.5, x, y)[None]
    keypoints, valid = decode_with(maps, offsets, refined_spec(maps, 1.5))
    assert keypoints[0, :2] == pytest.approx((4 * x + 1.5, 4 * y + 1.5), abs=1e-3)
    assert keypoints[0, 2] == maps.max()
    assert valid.tolist() == [1]


def test_of_a_plateau_the_first_cell_is_taken() -> None:
    plane = np.zeros((1, 12, 14), np.float32)
    plane[0, 4:7, 5:9] = 0.75
    keypoints, _ = decode_with(plane, np.zeros((2, 12, 14), np.float32), refined_spec(plane, 1.5))
    assert keypoints[0].tolist() == [4 * 5 + 1.5, 4 * 4 + 1.5, 0.75]


def test_offsets_are_never_left_out_or_ignored() -> None:
    maps, offsets = np.zeros((2, 8, 9), np.float32), np.zeros((4, 8, 9), np.float32)
    keypoints, valid = np.zeros((2, 3), np.float32), np.zeros(2, np.uint8)
    with pytest.raises(InputError, match="offsets are given"):
        PeakDecoder(spec(maps, 1.25), 2).decode(maps, keypoints, valid, offsets)
    refining = PeakDecoder(refined_spec(maps, 1.25), 2)
    with pytest.raises(InputError, match="offsets are missing"):
        refining.decode(maps, keypoints, valid)
    wrong: list[Any] = [offsets[:2], offsets.astype(np.float64), np.asfortranarray(offsets)]
    for array in wrong:
        with pytest.raises(InputError, match=r"offsets: .* expected contiguous"):
            refining.decode(maps, keypoints, valid, array)
    refining.decode(maps[None], keypoints, valid, offsets[None])
    refining.warm_up()


def test_peaks_are_placed_in_the_frame() -> None:
    placer = PeakPlacer(4, to_frame=(2.0, 1.0, 4.0, -1.0), min_confidence=0.3)
    peaks = np.array([[[3, 5], [np.nan, np.nan], [1, 2], [6, 7]]], np.float32)
    values = np.array([[0.9, 0.8, 0.2, np.nan]], np.float32)
    keypoints, valid = np.empty((4, 3), np.float32), np.empty(4, np.uint8)
    placer.place(peaks, values, keypoints, valid)
    expected = [[7, 19, 0.9], [np.nan, np.nan, 0], [3, 7, 0.2], [np.nan, np.nan, 0]]
    np.testing.assert_allclose(keypoints, expected, rtol=1e-6)
    assert valid.tolist() == [1, 0, 0, 0]
    wrong: list[Any] = [(peaks[0], values), (peaks, values[0]), (peaks, values.astype(np.float64))]
    for first, second in wrong:
        with pytest.raises(InputError, match="expected contiguous"):
            placer.place(first, second, keypoints, valid)
    with pytest.raises(InputError, match="min_confidence is 2"):
        PeakPlacer(4, min_confidence=2)


def test_arrays_that_do_not_fit_are_refused() -> None:
    maps = np.zeros((2, 8, 9), np.float32)
    decoder = PeakDecoder(spec(maps, 1.25), 2)
    keypoints, valid = np.zeros((2, 3), np.float32), np.zeros(2, np.uint8)
    decoder.decode(maps, keypoints, valid)
    wrong = [
        (maps[:1], keypoints, valid),
        (maps[:, :, :8], keypoints, valid),
        (maps.astype(np.float64), keypoints, valid),
        (np.asfortranarray(maps), keypoints, valid),
        (maps[None, None], keypoints, valid),
        (maps, keypoints.astype(np.float64), valid),
        (maps, keypoints[:, :2], valid),
        (maps, keypoints, valid.astype(bool)),
        (maps, keypoints, valid[:1]),
    ]
    for arrays in wrong:
        with pytest.raises(InputError, match="expected contiguous"):
            decoder.decode(*arrays)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("keypoints", "to_frame", "min_confidence", "said"),
    [
        (0, AS_IT_IS, 0.5, "0 maps"),
        (1, (1.0, math.nan, 1.0, 0.0), 0.5, "finite"),
        (1, AS_IT_IS, 1.1, "min_confidence is 1.1"),
        (1, AS_IT_IS, math.nan, "min_confidence is nan"),
    ],
)
def test_senseless_numbers_are_refused(
    keypoints: int, to_frame: Affine, min_confidence: float, said: str
) -> None:
    maps = MapsSpec(width=8, height=8, stride=4, sigma=1)
    with pytest.raises(InputError, match=said):
        PeakDecoder(maps, keypoints, to_frame=to_frame, min_confidence=min_confidence)


def test_examples_in_the_documentation() -> None:
    assert doctest.testmod(rtpose.peaks).failed == 0
