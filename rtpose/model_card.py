"""What an exported ONNX model says about itself, inside the file.

The card is JSON under the ONNX metadata key ``rtpose.card``. It makes the file self-sufficient:
names, skeleton, preprocessing, decoding, provenance, and golden frames with the answers that the
model gave when it was exported, so that any provider can be checked before it drives hardware.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rtpose.errors import InputError, ModelError, SkeletonError
from rtpose.skeleton import Skeleton

#: The ONNX metadata key that holds the card.
METADATA_KEY = "rtpose.card"

CARD_VERSION = 1

#: Names of a graph's input, and of its outputs: raw ones, and those of a decoder inside the graph.
INPUT_NAME, MAPS_NAME, OFFSETS_NAME = "image", "maps", "offsets"
PEAKS_NAME, VALUES_NAME = "peaks", "peak_vals"

Positive = Annotated[int, Field(gt=0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InputSpec(_Part):
    """The model's input: uint8, shape (1, height, width, channels); normalised inside the graph.

    Attributes
    ----------
    colour : {'gray', 'rgb', 'bgr'}
        Order of the channels. A camera frame of another kind is converted.
    """

    width_px: Positive
    height_px: Positive
    colour: Literal["gray", "rgb", "bgr"]

    @property
    def channels(self) -> int:
        """1 or 3."""
        return 1 if self.colour == "gray" else 3

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the input tensor."""
        return (1, self.height_px, self.width_px, self.channels)


class MapsSpec(_Part):
    """The model's output: float32 keypoint maps, shape (1, keypoints, height, width), peak about 1.

    Map index ``i`` lies at model-input pixel ``i * stride + offset_px``.

    Attributes
    ----------
    sigma : float
        Standard deviation, in map cells, of the Gaussian that the model was trained to draw; the
        matched filter of the decoder uses the same.
    location_refinement : float or None
        Cells per unit of the offsets that the model draws too, shape (1, 2 * keypoints, height,
        width): x and y of keypoint 0, x and y of keypoint 1, ...; see `rtpose.peaks`. 1 for models
        trained here, the standard deviation of the offsets over the stride for DeepLabCut's. None
        if the model draws none.
    """

    width: Positive
    height: Positive
    stride: Annotated[float, Field(gt=0)]
    offset_px: float = 0.0
    sigma: Annotated[float, Field(gt=0, le=16)]
    location_refinement: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


class Golden(_Part):
    """Generated input frames and what the model answered on the machine that exported it.

    Attributes
    ----------
    seed, count : int
        Arguments of `golden_frames`.
    cells : list of [keypoint, row, column]
        Places in the maps; none where the decoder is inside the graph.
    values : list of list of float
        The maps' values there, one list per frame.
    offsets : list of list of [x, y]
        The offsets there, for models with location refinement.
    peaks : list of list of [keypoint, x_px, y_px, confidence]
        Where the decoder is inside the graph: in px of the model's input, and only the keypoints of
        each frame whose place does not hang on noise, so that any provider must find them there.
    tolerance : float
        Largest difference of values that counts as the same model.
    tolerance_px : float
        The same for places and offsets, in px of the model's input.
    """

    seed: int
    count: Positive
    cells: list[tuple[int, int, int]]
    values: list[list[float]]
    offsets: list[list[tuple[float, float]]] = Field(default_factory=list)
    peaks: list[list[tuple[int, float, float, float]]] = Field(default_factory=list)
    tolerance: Annotated[float, Field(gt=0)] = 1e-3
    tolerance_px: Annotated[float, Field(gt=0)] = 0.05

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        for per_frame in (self.values, self.offsets or self.values):
            if len(per_frame) != self.count or any(len(v) != len(self.cells) for v in per_frame):
                raise ValueError("one value per frame and cell is needed")
        if self.peaks and len(self.peaks) != self.count:
            raise ValueError("one list of peaks per frame is needed")
        return self


class ModelCard(_Part):
    """Everything that rtpose must know about a model.

    Attributes
    ----------
    name, species : str
        For people.
    skeleton : dict
        `Skeleton.to_dict`.
    decode : {'host', 'graph'}
        What the graph ends in: maps for the compiled decoder, or the decoder itself.
    precision : {'fp32', 'fp16', 'int8'}
        Of weights and arithmetic; input and outputs are the same for all.
    min_confidence : float
        Suggested threshold below which a keypoint is not to be used.
    provenance : dict
        Where it comes from: data, split, weights, training, versions, error on unseen frames.
    """

    card_version: Literal[1] = 1
    name: Annotated[str, Field(min_length=1)]
    species: str = ""
    network: str
    skeleton: dict[str, Any]
    input: InputSpec
    maps: MapsSpec
    decode: Literal["host", "graph"] = "host"
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    min_confidence: Annotated[float, Field(ge=0, le=1)]
    provenance: dict[str, Any] = Field(default_factory=dict)
    golden: Golden

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        keypoints = len(Skeleton.from_dict(self.skeleton).names)
        golden, maps = self.golden, self.maps
        limits = (keypoints, maps.height, maps.width)
        cells = np.array(golden.cells or [(0, 0, 0)])
        if (cells < 0).any() or (cells >= limits).any():
            raise ValueError("golden cells outside the maps")
        peaks = [peak for frame in golden.peaks for peak in frame]
        if not all(0 <= peak[0] < keypoints for peak in peaks):
            raise ValueError("golden peaks of keypoints that the skeleton does not have")
        if self.decode == "graph" and (golden.cells or not peaks):
            raise ValueError("with decode 'graph', golden peaks and no golden cells are needed")
        if self.decode == "host" and (peaks or not golden.cells):
            raise ValueError("with decode 'host', golden cells and no golden peaks are needed")
        has_offsets = self.decode == "host" and maps.location_refinement is not None
        if has_offsets != bool(golden.offsets):
            raise ValueError("golden offsets are needed just where the model draws offsets")
        return self

    def outputs(self) -> dict[str, tuple[int, ...]]:
        """Return the names and shapes of the graph's outputs, all float32, in their order."""
        count, maps = len(self.keypoints().names), self.maps
        if self.decode == "graph":
            return {PEAKS_NAME: (1, count, 2), VALUES_NAME: (1, count)}
        outputs: dict[str, tuple[int, ...]] = {MAPS_NAME: (1, count, maps.height, maps.width)}
        if maps.location_refinement is not None:
            outputs[OFFSETS_NAME] = (1, 2 * count, maps.height, maps.width)
        return outputs

    def differences(
        self, outputs: Mapping[str, NDArray[np.float32]], frame: int
    ) -> Iterator[tuple[float, str]]:
        """Compare outputs with the golden answers.

        Parameters
        ----------
        outputs : mapping of str to ndarray of float32
            What the graph answered to that frame, by the names and shapes of `outputs`.
        frame : int
            Which of the golden frames.

        Yields
        ------
        tuple of (float, str)
            Largest difference of one kind, as a part of what is allowed (infinite if a number is
            not one), and in words.
        """
        golden = self.golden
        if self.decode == "graph":
            peaks = np.array(golden.peaks[frame]).reshape(-1, 4)
            which = peaks[:, 0].astype(int)
            beside = outputs[PEAKS_NAME][0, which] - peaks[:, 1:3]
            yield _differ("places", " px", beside, golden.tolerance_px)
            beside = outputs[VALUES_NAME][0, which] - peaks[:, 3]
            yield _differ("confidences", "", beside, golden.tolerance)
            return
        k, rows, columns = np.array(golden.cells).T
        maps = outputs[MAPS_NAME][0, k, rows, columns]
        yield _differ("maps", "", maps - np.array(golden.values[frame]), golden.tolerance)
        if self.maps.location_refinement is not None:
            offsets = outputs[OFFSETS_NAME][0]
            pairs = [offsets[2 * k, rows, columns], offsets[2 * k + 1, rows, columns]]
            beside = np.stack(pairs, axis=1) - np.array(golden.offsets[frame])
            px = beside * self.maps.location_refinement * self.maps.stride
            yield _differ("offsets", " px", px, golden.tolerance_px)

    def keypoints(self) -> Skeleton:
        """Return the skeleton as an object."""
        return Skeleton.from_dict(self.skeleton)

    def to_metadata(self) -> str:
        """Return the JSON text to store under `METADATA_KEY`."""
        return self.model_dump_json()

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], where: str) -> Self:
        """Read a card out of an ONNX file's metadata.

        Parameters
        ----------
        metadata : mapping of str to str
            The file's custom metadata.
        where : str
            The file's name, for the error.

        Raises
        ------
        ModelError
            If there is no card, it is of another version, or it contradicts itself.
        """
        text = metadata.get(METADATA_KEY)
        if text is None:
            raise ModelError(
                f"{where}: no rtpose model card inside (metadata {METADATA_KEY!r}); "
                "export the model with: rtpose export RUN_FOLDER"
            )
        try:
            data = json.loads(text)
            version = data.get("card_version") if isinstance(data, dict) else None
            if version != CARD_VERSION:
                raise ModelError(
                    f"{where}: model card version {version!r}, this rtpose reads {CARD_VERSION}; "
                    "export the model again with this version"
                )
            return cls.model_validate(data)
        except ValidationError as error:
            wrong = "; ".join(
                f"{'.'.join(map(str, e['loc'])) or 'card'}: {e['msg']}" for e in error.errors()
            )
            raise ModelError(f"{where}: model card is wrong: {wrong}") from error
        except SkeletonError as error:
            raise ModelError(f"{where}: model card is wrong: skeleton: {error}") from error
        except ValueError as error:
            raise ModelError(f"{where}: model card is not JSON: {error}") from error


def _differ(
    what: str, unit: str, difference: NDArray[np.floating], allowed: float
) -> tuple[float, str]:
    largest = float(np.nan_to_num(np.abs(difference), nan=np.inf).max(initial=0.0))
    return largest / allowed, f"{what} differ by {largest:.3g}{unit}, allowed {allowed:g}{unit}"


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a frame (or a crop of it) lies in the model's input, and the exact way back.

    The source rectangle is scaled as a whole until it fits, and centred; the rest of the input is
    black. Scaling is OpenCV's: pixel areas map onto pixel areas, so pixel *centres* obey
    ``x_frame = (x_input - left_px + 0.5) * scale_x - 0.5 + crop_x_px``.

    Attributes
    ----------
    crop_x_px, crop_y_px, crop_width_px, crop_height_px : int
        Source rectangle in the frame.
    left_px, top_px, width_px, height_px : int
        Where it lies in the input.
    """

    crop_x_px: int
    crop_y_px: int
    crop_width_px: int
    crop_height_px: int
    left_px: int
    top_px: int
    width_px: int
    height_px: int

    @property
    def scale_x(self) -> float:
        """Frame pixels per input pixel, horizontally."""
        return self.crop_width_px / self.width_px

    @property
    def scale_y(self) -> float:
        """Frame pixels per input pixel, vertically."""
        return self.crop_height_px / self.height_px

    @property
    def to_frame(self) -> tuple[float, float, float, float]:
        """``(ax, bx, ay, by)`` with ``x_frame = ax * x_input + bx``, the same for y."""
        ax, ay = self.scale_x, self.scale_y
        bx = (0.5 - self.left_px) * ax - 0.5 + self.crop_x_px
        by = (0.5 - self.top_px) * ay - 0.5 + self.crop_y_px
        return ax, bx, ay, by


def place(
    spec: InputSpec, width_px: int, height_px: int, crop: tuple[int, int, int, int] | None = None
) -> Placement:
    """Fit a frame into a model's input.

    Parameters
    ----------
    spec : InputSpec
        The model's input.
    width_px, height_px : int
        Size of the frame.
    crop : (x, y, width, height), optional
        Part of the frame to look at, in px; all of it if absent.

    Raises
    ------
    InputError
        If the crop is empty or reaches out of the frame.
    """
    x, y, width, height = crop or (0, 0, width_px, height_px)
    inside = min(x, y) >= 0 and x + width <= width_px and y + height <= height_px
    if width < 1 or height < 1 or not inside:
        raise InputError(
            f"crop x={x} y={y} width={width} height={height} does not lie inside "
            f"the {width_px}x{height_px} frame"
        )
    scale = min(spec.width_px / width, spec.height_px / height)
    fit_width = min(spec.width_px, max(1, round(width * scale)))
    fit_height = min(spec.height_px, max(1, round(height * scale)))
    left, top = (spec.width_px - fit_width) // 2, (spec.height_px - fit_height) // 2
    return Placement(x, y, width, height, left, top, fit_width, fit_height)


def golden_frames(spec: InputSpec, seed: int, count: int) -> NDArray[np.uint8]:
    """Draw the frames that a model is checked with: dark ellipses on a smooth background.

    Integer arithmetic on a fixed generator (Numerical Recipes' 32-bit linear congruential one,
    section 7.1), so that every machine and every NumPy draws the same bytes.

    Parameters
    ----------
    spec : InputSpec
        The model's input.
    seed, count : int
        Which frames, how many.

    Returns
    -------
    ndarray of uint8, shape (count, height, width, channels)
    """
    state = (seed * 2654435761 + 1) % (1 << 32)

    def draw(low: int, high: int) -> int:
        nonlocal state
        state = (state * 1664525 + 1013904223) % (1 << 32)
        return low + (state >> 8) % (high - low)

    height, width = spec.height_px, spec.width_px
    rows = np.arange(height, dtype=np.int64)[:, None]
    columns = np.arange(width, dtype=np.int64)[None, :]
    frames = np.empty((count, height, width, spec.channels), np.uint8)
    for frame in frames:
        slope_x, slope_y = draw(-40, 40), draw(-40, 40)
        image = 150 + slope_x * columns // width + slope_y * rows // height
        for _ in range(6):
            x, y = draw(0, width), draw(0, height)
            radius_x = draw(width // 40 + 2, width // 8 + 3)
            radius_y = draw(height // 40 + 2, height // 8 + 3)
            grey = draw(0, 256)
            inside = ((columns - x) * radius_y) ** 2 + ((rows - y) * radius_x) ** 2 <= (
                radius_x * radius_y
            ) ** 2
            image = np.where(inside, grey, image)
        frame[:] = np.clip(image, 0, 255).astype(np.uint8)[:, :, None]
    return frames
