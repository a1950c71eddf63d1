"""What an exported model costs: numbers stored, multiply-accumulates, time on this machine."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from rtpose.clock import now_ns
from rtpose.estimator import Estimator, read_card
from rtpose.model_card import golden_frames

_LAYERS = ("Conv", "ConvTranspose")


def parameters_and_macs(model: Path) -> tuple[int, int]:
    """Return the trained numbers of a graph, and the multiply-accumulates of its convolutions.

    Biases and what the export folded away (batch norms) are part of neither the graph nor the
    count of multiply-accumulates.
    """
    graph = onnx.shape_inference.infer_shapes(onnx.load(model)).graph
    shapes = {
        info.name: [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        for info in (*graph.input, *graph.value_info, *graph.output)
    }
    weights = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    parameters = macs = 0
    for node in graph.node:
        if node.op_type not in _LAYERS:
            continue
        weight = weights[node.input[1]]
        parameters += sum(int(np.prod(weights[name])) for name in node.input[1:])
        # A deconvolution applies its kernel once per input cell, a convolution per output cell.
        cells = shapes[node.input[0] if node.op_type == "ConvTranspose" else node.output[0]]
        macs += int(np.prod(cells[1:])) * int(np.prod(weight[1:]))
    return parameters, macs


def latencies_ms(
    models: Mapping[str, Path], rounds: int, runs: int
) -> dict[str, NDArray[np.float64]]:
    """Return the times of single frames through the estimator, on one CPU thread, in ms.

    The models take turns, so that whatever else the machine does meets all of them.
    """
    estimators, frames = {}, {}
    for name, file in models.items():
        card = read_card(file)
        frames[name] = golden_frames(card.input, seed=1, count=1)[0].squeeze()
        estimators[name] = Estimator(file, frame=card.input.shape[1:])
        estimators[name].warm_up(3)
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, estimator in estimators.items():
            for _ in range(runs):
                start_ns = now_ns()
                estimator.estimate(frames[name])
                times[name].append((now_ns() - start_ns) / 1e6)
    return {name: np.array(measured) for name, measured in times.items()}
