"""The fused peak kernel against plain NumPy, against one read of its maps, and against the truth.

    python -m benchmarks peak_kernel

Rows, for maps with one peak each in noise of 2 % unless said otherwise:

* ``read``: one plain read of the maps (a compiled sum), the floor of anything that looks at them;
* ``kernel``: `PeakDecoder.decode`, from Python to Python, everything included;
* ``kernel, noise only``: maps without a peak, its worst case: no cell can be left out;
* ``numpy``: the same from maps to pixels and validity in vectorised NumPy, all maps at once, one
  thread: matched filter by two matrix products, arg-max, paraboloid through 3x3 logarithms, tests
  for what is not finite and for flat maps; only the border rules are missing;
* ``numpy, bare``: of that the filter, arg-max and paraboloid alone, in cells;
* ``reference``: `decode_reference`, the readable version with all rules;
* ``published``: sub-pixel maximum of Graving et al. 2019, FFT and 1/100-px grid, in NumPy.

Every frame is different, and is written into the decoder's input just before each call, as ONNX
Runtime does. Ten calls of a row follow each other; how the kernel does between two inferences is in
the benchmark ``estimator_overhead``.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from benchmarks import PERCENTILES, interleaved, summary_us, table
from rtpose.model_card import MapsSpec
from rtpose.peaks import PeakDecoder, decode_reference

F32 = NDArray[np.float32]

SIZES = [(32, 48, 48), (4, 60, 80), (17, 60, 60)]
SIGMA = 1.25
NOISE = 0.02
ROUNDS, REPEATS = 200, 10
SLOW_ROUNDS = 5
FRAMES = 32
#: Standard deviations of the map's Gaussian and of the noise, for the table of errors.
ERROR_CASES = [(1.25, 0.0), (1.25, 0.02), (1.25, 0.1), (2.5, 0.1), (0.625, 0.02), (0.625, 0.1)]


@njit(fastmath=True)  # type: ignore[untyped-decorator] # numba ships no types
def _read(values: F32) -> np.float32:
    total = np.float32(0)
    for i in range(values.size):
        total += values[i]
    return total


def gaussians(
    size: tuple[int, int, int], sigma: float, noise: float, rng: np.random.Generator
) -> tuple[F32, NDArray[np.float64]]:
    """Draw one peak per map, away from the borders, in noise; return maps and places (x, y)."""
    keypoints, height, width = size
    margin = 4 * sigma
    places = rng.uniform(margin, (width - 1 - margin, height - 1 - margin), (keypoints, 2))
    rows, columns = np.mgrid[:height, :width]
    x, y = places[:, 0, None, None], places[:, 1, None, None]
    clean = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    return (clean + rng.normal(0, noise, clean.shape)).astype(np.float32), places


class MatchedFilter:
    """The same estimate in vectorised NumPy, as fast as that goes."""

    def __init__(self, size: tuple[int, int, int], sigma: float) -> None:
        _, height, width = size
        self._down, self._right = self._band(height, sigma), self._band(width, sigma)
        y, x = (axis.ravel() for axis in np.mgrid[-1:2, -1:2])
        terms = np.stack([np.ones(9), x, y, x * x / 2, y * y / 2, x * y], axis=1)
        self._fit = np.linalg.pinv(terms).T.astype(np.float32)
        self._offsets = y * width + x

    def decode(self, maps: F32, found: F32, valid: NDArray[np.uint8]) -> None:
        """Write what `PeakDecoder.decode` does, but for peaks near a border."""
        found[:] = self(maps)
        found[:, :2] *= 4.0
        confidence = found[:, 2]
        rows, columns = maps.max(axis=2), maps.max(axis=1)
        quiet = np.maximum(np.maximum(rows.min(axis=1), columns.min(axis=1)), 0)
        peak = np.isfinite(maps).all(axis=(1, 2)) & (confidence - quiet >= 0.5 * confidence)
        peak &= confidence > 0
        found[~peak] = (np.nan, np.nan, 0.0)
        valid[:] = peak & (confidence >= 0.3)

    @staticmethod
    def _band(cells: int, sigma: float) -> F32:
        distance = np.subtract.outer(np.arange(cells), np.arange(cells))
        weights = np.exp(-(distance**2) / (2 * sigma**2))
        return np.asarray(np.where(abs(distance) <= 3 * sigma + 1, weights, 0), np.float32)

    def __call__(self, maps: F32) -> F32:
        """Return x, y, confidence of every map."""
        keypoints, height, width = maps.shape
        responses = (self._down @ maps @ self._right).reshape(keypoints, -1)
        inner = responses.reshape(keypoints, height, width)[:, 1:-1, 1:-1].reshape(keypoints, -1)
        row, column = np.divmod(inner.argmax(axis=1), width - 2)
        cell = (row + 1) * width + column + 1
        near = np.take_along_axis(responses, cell[:, None] + self._offsets, axis=1)
        _, fx, fy, fxx, fyy, fxy = (np.log(np.maximum(near, 1e-30)) @ self._fit).T
        determinant = fxx * fyy - fxy**2
        x = column + 1 + (fxy * fy - fyy * fx) / determinant
        y = row + 1 + (fxy * fx - fxx * fy) / determinant
        confidence = maps.reshape(keypoints, -1)[np.arange(keypoints), cell]
        return np.stack([x, y, confidence], axis=1)


def published(plane: F32, sigma: float) -> tuple[float, float]:
    """Return x, y by the sub-pixel maximum of Graving et al. 2019 (sides must be even)."""
    sides = np.array(plane.shape)
    odd = int(sides.min())
    while odd % 2 == 0 and odd > 2:
        odd //= 2
    t = np.arange(-((sides.min() // odd + 1) // 2), (sides.min() // odd + 1) // 2 + 1)
    kernel = np.zeros(plane.shape)
    gaussian = np.exp(-(t**2) / (2 * sigma**2))
    kernel[np.ix_(*(side // 2 + t for side in sides))] = np.outer(gaussian, gaussian)
    spectrum = np.fft.fft2(kernel) * np.conj(np.fft.fft2(plane))

    def shift(field: NDArray[np.complex128]) -> list[int]:
        return [int(np.abs(field).max(axis=1 - axis).argmax()) for axis in (0, 1)]

    fine = (np.arange(150) - 75) / 100
    shifts = [
        fine + (s - n if s > n // 2 else s)
        for s, n in zip(shift(np.fft.ifft2(spectrum)), sides, strict=True)
    ]
    down, right = (
        np.exp(2j * np.pi * np.outer(at, np.fft.fftfreq(n)))
        for at, n in zip(shifts, sides, strict=True)
    )
    y, x = (
        float(n // 2 - at[best])
        for n, at, best in zip(sides, shifts, shift(down @ spectrum @ right.T), strict=True)
    )
    return x, y


def time_one(size: tuple[int, int, int]) -> dict[str, dict[str, float]]:
    """Time everything on maps of one size."""
    rng = np.random.default_rng(0)
    keypoints, height, width = size
    spec = MapsSpec(width=width, height=height, stride=4, sigma=SIGMA)
    decoder, numpy_version = (
        PeakDecoder(spec, keypoints, min_confidence=0.3),
        MatchedFilter(size, SIGMA),
    )
    frames = np.stack([gaussians(size, SIGMA, NOISE, rng)[0] for _ in range(FRAMES)])
    noise = rng.normal(0, NOISE, frames.shape).astype(np.float32)
    maps, empty = np.empty(size, np.float32), np.empty(size, np.float32)
    found, valid = np.empty((keypoints, 3), np.float32), np.empty(keypoints, np.uint8)

    def write(round_: int) -> None:
        np.copyto(empty, noise[round_ % FRAMES])
        np.copyto(maps, frames[round_ % FRAMES])

    write(0)
    decoder.warm_up()
    _read(maps.reshape(-1))
    times = interleaved(
        {
            "read": lambda: _read(maps.reshape(-1)),
            "kernel": lambda: decoder.decode(maps, found, valid),
            "kernel, noise only": lambda: decoder.decode(empty, found, valid),
            "numpy": lambda: numpy_version.decode(maps, found, valid),
            "numpy, bare": lambda: numpy_version(maps),
        },
        ROUNDS,
        write,
        REPEATS,
    )
    times |= interleaved(
        {
            "reference": lambda: decode_reference(maps, spec),
            "published": lambda: [published(plane, SIGMA) for plane in maps],
        },
        SLOW_ROUNDS,
        write,
    )
    return {name: summary_us(values) for name, values in times.items()}


def errors() -> dict[str, dict[str, float]]:
    """Return mean errors in cells, on 300 peaks each."""
    result = {}
    for sigma, noise in ERROR_CASES:
        size = (300, 48, 48)
        maps, truth = gaussians(size, sigma, noise, np.random.default_rng(1))
        decoder = PeakDecoder(MapsSpec(width=48, height=48, stride=1, sigma=sigma), 300)
        found, valid = np.empty((300, 3), np.float32), np.empty(300, np.uint8)
        decoder.decode(maps, found, valid)
        cells = {
            "kernel": found[:, :2],
            "numpy": MatchedFilter(size, sigma)(maps)[:, :2],
            "published": np.array([published(plane, sigma) for plane in maps]),
        }
        distances = {name: np.hypot(*(at - truth).T).mean() for name, at in cells.items()}
        key = f"sigma {sigma} noise {noise}"
        result[key] = {name: round(float(d), 4) for name, d in distances.items()}
    return result


def run() -> dict[str, Any]:
    """Return percentiles in microseconds per size, their ratios, and the errors in cells."""
    result: dict[str, Any] = {"sizes": {}, "errors_cells": errors()}
    for size in SIZES:
        times = time_one(size)
        p50 = {name: row["p50"] for name, row in times.items()}
        result["sizes"]["x".join(map(str, size))] = {
            "us": times,
            "kernel_per_read": round(p50["kernel"] / p50["read"], 1),
            "numpy_per_kernel": round(p50["numpy"] / p50["kernel"], 1),
            "bare_numpy_per_kernel": round(p50["numpy, bare"] / p50["kernel"], 1),
            "published_per_kernel": round(p50["published"] / p50["kernel"]),
        }
    return result


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    for size, row in result["sizes"].items():
        table(f"{size} maps, us", row["us"], list(PERCENTILES))
        print(
            f"kernel = {row['kernel_per_read']} reads; numpy = {row['numpy_per_kernel']}, "
            f"bare {row['bare_numpy_per_kernel']}, published {row['published_per_kernel']} kernels"
        )
    table("mean error, cells", result["errors_cells"], ["kernel", "numpy", "published"])


if __name__ == "__main__":
    show(run())
