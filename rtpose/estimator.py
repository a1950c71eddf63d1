"""From a camera frame to keypoints: preprocessing, ONNX Runtime, peaks. Live and offline alike.

The only module that imports ONNX Runtime. Everything that a frame touches is allocated once: the
frame is scaled and converted straight into the input tensor, the maps (or the keypoints, where the
graph holds the decoder) are written by ONNX Runtime straight into the arrays that are decoded.
"""

import contextlib
import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from rtpose.errors import InputError, ModelError, ProviderError
from rtpose.model_card import (
    INPUT_NAME,
    MAPS_NAME,
    OFFSETS_NAME,
    PEAKS_NAME,
    VALUES_NAME,
    InputSpec,
    ModelCard,
    Placement,
    golden_frames,
    place,
)
from rtpose.peaks import PeakDecoder, PeakPlacer

Provider = Literal["cpu", "cuda"]

_F32 = NDArray[np.float32]
_U8 = NDArray[np.uint8]
_UINT8: Final = np.dtype(np.uint8)

_PROVIDERS: Final = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

#: What ONNX Runtime raises; they have no base class of their own.
_ORT_ERRORS: Final = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)

#: Colour conversion from a camera's frame (grey, or blue-green-red) to the model's input, if any.
_CONVERSIONS: Final = {
    (1, "bgr"): cv2.COLOR_GRAY2BGR,
    (1, "rgb"): cv2.COLOR_GRAY2RGB,
    (3, "gray"): cv2.COLOR_BGR2GRAY,
    (3, "rgb"): cv2.COLOR_BGR2RGB,
}
_NO_CONVERSION: Final = -1


def available_providers() -> list[str]:
    """Return the providers that this ONNX Runtime was built with; not all need work here."""
    names: list[str] = onnxruntime.get_available_providers()
    return names


def read_card(model: Path) -> ModelCard:
    """Read a model's card and check that the graph is what the card says.

    Raises
    ------
    ModelError
        If the file is missing or damaged, has no card, or contradicts it.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = _session(model, _read(model), options, "cpu")
    return _checked_card(model, session)


class Estimator:
    """Estimates the pose in frames of one camera with one model, one frame at a time.

    Parameters
    ----------
    model : Path
        ONNX file with a card inside.
    frame : (height, width, channels)
        What the camera delivers; channels 1 (grey) or 3 (blue-green-red).
    provider : {'cpu', 'cuda'}
        Where the model must run. Never falls back to another one.
    threads : int
        CPU threads of one inference and of OpenCV in this process. Fewer than the machine has
        cores: a frame waits for the slowest thread.
    crop : (x, y, width, height), optional
        Part of the frame to look at, in px; all of it if absent.
    min_confidence : float, optional
        Confidence of a valid keypoint; the card's suggestion if absent.

    Attributes
    ----------
    card : ModelCard
    model_hash : str
        SHA-256 of the file, hexadecimal.
    provider : str
        Where the model runs: the one asked for.
    placement : Placement
        Where the frame lies in the model's input.

    Raises
    ------
    ModelError
        If the file is missing or damaged, has no card, or is not what its card says.
    ProviderError
        If the provider that was asked for is not there.
    InputError
        If frame, crop, threads or threshold make no sense.

    Examples
    --------
    >>> estimator = Estimator(Path("mouse.onnx"), frame=(480, 640, 3))  # doctest: +SKIP
    >>> keypoints, valid = estimator.estimate(cv2.imread("frame.png"))  # doctest: +SKIP
    """

    def __init__(
        self,
        model: Path,
        *,
        frame: tuple[int, int, int],
        provider: Provider = "cpu",
        threads: int = 1,
        crop: tuple[int, int, int, int] | None = None,
        min_confidence: float | None = None,
    ) -> None:
        _check_request(frame, provider, threads)
        data = _read(model)
        self._session = _session(model, data, _options(threads), provider)
        self._model = model
        self.model_hash = hashlib.sha256(data).hexdigest()
        self.provider = provider
        self.card = _checked_card(model, self._session)
        self._preparation = _Preparation(self.card.input, frame, crop)
        self._input = self._preparation.tensor
        self.placement = self._preparation.placement
        self._keypoints = len(self.card.keypoints().names)
        self._outputs = {
            name: np.zeros(shape, np.float32) for name, shape in self.card.outputs().items()
        }
        self._decode = _decoding(
            self.card,
            self._outputs,
            self.placement,
            self.card.min_confidence if min_confidence is None else min_confidence,
        )
        cv2.setNumThreads(threads)
        self._bind_tensors()

    def _bind_tensors(self) -> None:
        self._binding = self._session.io_binding()
        input_value = onnxruntime.OrtValue.ortvalue_from_numpy(self._input)
        self._device_input = None
        if self.provider == "cuda":
            input_value = onnxruntime.OrtValue.ortvalue_from_numpy(self._input, "cuda", 0)
            self._device_input = input_value
        self._binding.bind_ortvalue_input(INPUT_NAME, input_value)
        for name, array in self._outputs.items():
            value = onnxruntime.OrtValue.ortvalue_from_numpy(array)
            self._binding.bind_ortvalue_output(name, value)

    def load(self, pixels: NDArray[np.uint8]) -> None:
        """Crop, scale and convert a frame into the model's input.

        Parameters
        ----------
        pixels : ndarray of uint8, shape (height, width) or (height, width, 3)
            A frame of the shape given at the start; not kept.

        Raises
        ------
        InputError
            If the frame has another shape or type.
        """
        self._preparation.load(pixels)

    def infer(self) -> None:
        """Run the model on what was loaded last."""
        if self._device_input is not None:
            self._device_input.update_inplace(self._input)
        self._session.run_with_iobinding(self._binding)

    def decode(self, keypoints_out: NDArray[np.float32], valid_out: NDArray[np.uint8]) -> None:
        """Find the keypoints in the outputs of the last inference.

        Parameters
        ----------
        keypoints_out : ndarray of float32, shape (keypoints, 3)
            Receives x, y in px of the full frame and confidence; see `rtpose.peaks`.
        valid_out : ndarray of uint8, shape (keypoints,)
            Receives 1 where a keypoint may be used.
        """
        self._decode(keypoints_out, valid_out)

    def estimate(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Return the keypoints (keypoints, 3) and their validity (keypoints,) in one frame."""
        keypoints = np.empty((self._keypoints, 3), np.float32)
        valid = np.empty(self._keypoints, np.uint8)
        self.load(pixels)
        self.infer()
        self.decode(keypoints, valid)
        return keypoints, valid

    def verify(self) -> float:
        """Run the golden frames and compare with what the model answered when it was exported.

        Returns
        -------
        float
            Largest difference found, as a part of what is allowed.

        Raises
        ------
        ModelError
            If the card allows less: this provider does not compute this model.
        """
        golden = self.card.golden
        worst = 0.0, ""
        frames = golden_frames(self.card.input, golden.seed, golden.count)
        for number, frame in enumerate(frames):
            self._input[0] = frame
            self.infer()
            worst = max(worst, *self.card.differences(self._outputs, number))
        self._input.fill(0)  # the bars beside a letterboxed frame are black
        if worst[0] > 1:
            raise ModelError(
                f"{self._model}: provider {self.provider!r} answers otherwise than the model did "
                f"when it was exported: {worst[1]}; the file is damaged or this provider computes "
                "wrongly: export the model again, or use another provider"
            )
        return worst[0]

    def warm_up(self, runs: int) -> None:
        """Process black frames, so that the first real one is not slower than the others."""
        black = np.zeros(self._preparation.frame_shape, np.uint8)
        for _ in range(runs):
            self.estimate(black)


class _Preparation:
    """Puts frames into the input tensor, without allocating anything per frame."""

    def __init__(
        self, spec: InputSpec, frame: tuple[int, int, int], crop: tuple[int, int, int, int] | None
    ) -> None:
        height, width, channels = frame
        self.frame_shape = (height, width) if channels == 1 else frame
        self.placement = place(spec, width, height, crop)
        at = self.placement
        self._rows = slice(at.crop_y_px, at.crop_y_px + at.crop_height_px)
        self._columns = slice(at.crop_x_px, at.crop_x_px + at.crop_width_px)
        self._whole = (at.crop_height_px, at.crop_width_px) == (height, width)
        self.tensor = np.zeros(spec.shape, np.uint8)
        image = self.tensor[0, :, :, 0] if spec.channels == 1 else self.tensor[0]
        target = image[at.top_px : at.top_px + at.height_px, at.left_px : at.left_px + at.width_px]
        cropped = (at.crop_height_px, at.crop_width_px)
        fitted = (at.height_px, at.width_px)
        self._interpolation = cv2.INTER_AREA if at.scale_x >= 1 else cv2.INTER_LINEAR
        self._conversion = _CONVERSIONS.get((channels, spec.colour), _NO_CONVERSION)
        colour = () if channels == 1 else (channels,)
        # Scaling has fewer bytes to read after going grey, and before going to colour.
        self._steps: list[tuple[Callable[[_U8, _U8], None], _U8]] = []
        if self._conversion == _NO_CONVERSION:
            self._steps = [(self._copy if cropped == fitted else self._scale, target)]
        elif cropped == fitted:
            self._steps = [(self._convert, target)]
        elif spec.channels < channels:
            grey = np.zeros(cropped, np.uint8)
            self._steps = [(self._convert, grey), (self._scale, target)]
        else:
            scaled = np.zeros((*fitted, *colour), np.uint8)
            self._steps = [(self._scale, scaled), (self._convert, target)]

    def load(self, pixels: _U8) -> None:
        # An inference leaves nothing of ours in the CPU's caches, so that every call of NumPy costs
        # some 10 us here: hence no comparison of types and no view that can be left out.
        if pixels.shape != self.frame_shape or pixels.dtype is not _UINT8:
            _require_frame(pixels, self.frame_shape)
        source = pixels if self._whole else pixels[self._rows, self._columns]
        for step, target in self._steps:
            step(source, target)
            source = target

    def _copy(self, source: _U8, target: _U8) -> None:
        target[...] = source

    def _scale(self, source: _U8, target: _U8) -> None:
        size = (target.shape[1], target.shape[0])
        cv2.resize(source, size, dst=target, interpolation=self._interpolation)

    def _convert(self, source: _U8, target: _U8) -> None:
        cv2.cvtColor(source, self._conversion, dst=target)


def _require_frame(pixels: _U8, shape: tuple[int, ...]) -> None:
    if pixels.shape != shape or pixels.dtype != np.uint8:
        raise InputError(f"frame is {pixels.dtype} {pixels.shape}, expected uint8 {shape}")


def _check_request(frame: tuple[int, int, int], provider: str, threads: int) -> None:
    height, width, channels = frame
    if min(height, width) < 1 or channels not in (1, 3):
        raise InputError(
            f"frame (height, width, channels) is {frame}, allowed: at least 1x1, 1 or 3 channels"
        )
    if provider not in _PROVIDERS:
        raise InputError(f"provider is {provider!r}, allowed: {', '.join(_PROVIDERS)}")
    if threads < 1:
        raise InputError(f"threads is {threads}, allowed: at least 1")


def _read(model: Path) -> bytes:
    try:
        return model.read_bytes()
    except OSError as error:
        raise ModelError(
            f"{model}: cannot be read ({error.strerror}); give the path of an exported .onnx file"
        ) from error


def _options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return options


def _session(model: Path, data: bytes, options: Any, provider: Provider) -> Any:
    """Open a session on the provider that was asked for and on no other."""
    wanted = _PROVIDERS[provider]
    complaints = io.StringIO()
    if provider == "cuda" and wanted in onnxruntime.get_available_providers():
        with contextlib.redirect_stdout(complaints):
            onnxruntime.preload_dlls()
    try:
        session = onnxruntime.InferenceSession(data, options, providers=[wanted])
    except _ORT_ERRORS as error:
        raise ModelError(
            f"{model}: not a model that ONNX Runtime can run ({error}); export it again with: "
            "rtpose export RUN_FOLDER"
        ) from error
    if session.get_providers()[0] != wanted:
        reason = " ".join(complaints.getvalue().split())
        raise ProviderError(
            f"provider {provider!r} was asked for, and only {session.get_providers()[0]} would run"
            f'{": " + reason if reason else ""}; type: pip install "rtpose[cuda]" (and check the '
            "driver with: nvidia-smi), or ask for provider 'cpu'"
        )
    session.disable_fallback()
    return session


def _decoding(
    card: ModelCard, outputs: dict[str, _F32], placement: Placement, min_confidence: float
) -> Callable[[_F32, _U8], None]:
    """Return what brings a model's outputs into keypoints and their validity."""
    keypoints = len(card.keypoints().names)
    if card.decode == "graph":
        placer = PeakPlacer(keypoints, to_frame=placement.to_frame, min_confidence=min_confidence)
        peaks, values = outputs[PEAKS_NAME], outputs[VALUES_NAME]
        return lambda found, valid: placer.place(peaks, values, found, valid)
    decoder = PeakDecoder(
        card.maps, keypoints, to_frame=placement.to_frame, min_confidence=min_confidence
    )
    maps, offsets = outputs[MAPS_NAME], outputs.get(OFFSETS_NAME)
    return lambda found, valid: decoder.decode(maps, found, valid, offsets)


def _checked_card(model: Path, session: Any) -> ModelCard:
    """Return the card of a session's graph, after comparing the two."""
    card = ModelCard.from_metadata(session.get_modelmeta().custom_metadata_map, str(model))
    outputs = [(name, "tensor(float)", [*shape]) for name, shape in card.outputs().items()]
    for kind, arguments, expected in (
        ("input", session.get_inputs(), [(INPUT_NAME, "tensor(uint8)", [*card.input.shape])]),
        ("output", session.get_outputs(), outputs),
    ):
        found = [(argument.name, argument.type, list(argument.shape)) for argument in arguments]
        if found != expected:
            raise ModelError(
                f"{model}: the graph's {kind} is {_in_words(found)}, its card says "
                f"{_in_words(expected)}; export the model again with: rtpose export RUN_FOLDER"
            )
    return card


def _in_words(arguments: list[tuple[str, str, list[Any]]]) -> str:
    return ", ".join(f"{name!r} {kind} {shape}" for name, kind, shape in arguments)
