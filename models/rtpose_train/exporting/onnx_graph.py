"""Torch modules into ONNX graphs that hold nothing of the machine they were made on."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from tqdm import tqdm  # type: ignore[import-untyped]

from rtpose.errors import ModelError
from rtpose.model_card import METADATA_KEY, ModelCard
from rtpose_train.files import write_file

_OPSET = 18

# The exporter warns that torchvision, which nothing here uses, is not installed.
logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)


def to_graph(
    module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str]
) -> onnx.ModelProto:
    """Return the ONNX graph of a module for inputs of just these shapes and types.

    Parameters
    ----------
    module : nn.Module
        What is exported, in the mode for inference.
    inputs : mapping of str to Tensor
        Names of the graph's inputs, and examples of them, in the order of `forward`.
    outputs : sequence of str
        Names of the graph's outputs.
    """
    with warnings.catch_warnings(), _no_monitor():
        # torch's exporter uses a type of its own that it has deprecated.
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise ModelError("torch returned no ONNX program")
    model: onnx.ModelProto = program.model_proto
    _forget_origin(model)
    return model


@contextmanager
def _no_monitor() -> Iterator[None]:
    """Keep the progress bars that the exporter makes from leaving a thread behind."""
    interval = tqdm.monitor_interval
    tqdm.monitor_interval = 0
    try:
        yield
    finally:
        tqdm.monitor_interval = interval


def _forget_origin(model: onnx.ModelProto) -> None:
    """Remove torch's notes on where each node comes from: paths of this machine, a third of it."""
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for tensor in graph.initializer:
        tensor.ClearField("metadata_props")
        tensor.ClearField("doc_string")


def write_model(model: onnx.ModelProto, card: ModelCard, out: Path) -> None:
    """Write a model with its card, completely or not at all."""
    onnx.helper.set_model_props(model, {METADATA_KEY: card.to_metadata()})
    onnx.checker.check_model(model)
    write_file(out, model.SerializeToString())
