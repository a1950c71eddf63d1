"""Eight-bit integers: static quantisation with ONNX Runtime, calibrated on training frames."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

from rtpose.model_card import INPUT_NAME, MAPS_NAME, OFFSETS_NAME

#: Convolutions, and what lies between them and can stay in integers.
_OPERATORS = ["Conv", "ConvTranspose", "Add", "Clip", "Relu", "Concat", "MaxPool"]


class _Frames(quantization.CalibrationDataReader):  # type: ignore[misc] # it ships no types
    def __init__(self, frames: NDArray[np.uint8]) -> None:
        self._frames: Iterator[NDArray[np.uint8]] = iter(frames)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        frame = next(self._frames, None)
        return None if frame is None else {INPUT_NAME: frame[None]}


def quantise(model: onnx.ModelProto, frames: NDArray[np.uint8]) -> onnx.ModelProto:
    """Return a network in eight-bit integers, as operators between (de)quantisation (QDQ).

    Weights per channel, 7 bits of them: without VNNI, x86 processors add pairs of 8-bit products in
    16 bits, which saturate. Activations by their least and largest value on the frames. The
    convolutions that draw the outputs stay in floating point: what they round is the answer itself.

    Parameters
    ----------
    model : onnx.ModelProto
        Ends in maps (and offsets), in single precision.
    frames : ndarray of uint8, shape (frames, height, width, channels)
        Model inputs to calibrate on.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, prepared, quantised = (Path(folder) / f"{name}.onnx" for name in "abc")
        onnx.save(model, str(given))
        quant_pre_process(str(given), str(prepared), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(prepared),
            str(quantised),
            _Frames(frames),
            op_types_to_quantize=_OPERATORS,
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=_ends(onnx.load(str(prepared)).graph),
        )
        return onnx.load(str(quantised))


def _ends(graph: onnx.GraphProto) -> list[str]:
    """Return the names of the nodes between the input or an output and the next convolution."""
    before, after = {INPUT_NAME}, {MAPS_NAME, OFFSETS_NAME}
    names = []
    for node in graph.node:
        if node.op_type != "Conv" and before & set(node.input):
            before |= set(node.output)
            names.append(node.name)
    for node in reversed(graph.node):
        if after & set(node.output):
            names.append(node.name)
            if node.op_type not in ("Conv", "ConvTranspose"):
                after |= set(node.input)
    return names
