"""Export: a run folder in, one ONNX file out that says everything about itself."""

import copy
import logging
import warnings
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from rtpose.errors import InputError, ModelError
from rtpose.model_card import METADATA_KEY, Golden, InputSpec, ModelCard, golden_frames
from rtpose_train.files import write_file
from rtpose_train.network import (
    InvertedResidual,
    MobileNetV2,
    PoseNet,
    load_state,
    normalise,
    run_heads,
)
from rtpose_train.registry import build_network
from rtpose_train.settings import WEIGHTS_FILE, RunRecord, read_record

#: Names of the graph's input and output.
INPUT_NAME, OUTPUT_NAME = "image", "maps"

#: Largest difference between torch's maps and those of the exported file.
PARITY = 1e-3

# The exporter warns that torchvision, which nothing here uses, is not installed.
logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)

_OPSET = 18
_GOLDEN_SEED, _GOLDEN_COUNT, _GOLDEN_CELLS = 1, 2, 32


def export(
    run: Path,
    out: Path | None = None,
    *,
    name: str | None = None,
    species: str = "",
    min_confidence: float = 0.3,
) -> Path:
    """Write a trained model as ONNX, with its card inside.

    The graph takes uint8 pixels as the camera gives them; normalisation is part of it. The file is
    run through ONNX Runtime on the CPU and compared with torch before it gets its name.

    Parameters
    ----------
    run : Path
        Run folder of `rtpose_train.train.train`.
    out : Path, optional
        File to write; ``<run>/<name>.onnx`` if absent.
    name, species : str
        For people; the name is the run folder's if absent.
    min_confidence : float
        Threshold that the card suggests.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        If the run folder is not one, or the file exists.
    ModelError
        If the weights are damaged, or the exported graph answers otherwise than torch.
    RecordingError
        If the file cannot be written.
    """
    record = read_record(run)
    name = name or run.resolve().name
    out = out or run / f"{name}.onnx"
    if out.exists():
        raise InputError(f"{out}: exists; name another file, or delete it")
    if not 0 <= min_confidence <= 1:
        raise InputError(f"min_confidence is {min_confidence}, allowed: 0 to 1")
    network = restore(record, run / WEIGHTS_FILE)
    spec = record.settings.input
    model = to_onnx(network, spec)
    frames = golden_frames(spec, _GOLDEN_SEED, _GOLDEN_COUNT)
    answers = run_onnx(model.SerializeToString(), frames)
    difference = float(np.abs(answers - run_torch(network, frames)).max())
    if not difference <= PARITY:
        raise ModelError(
            f"{out}: the exported maps differ from torch's by {difference:.2g}, allowed {PARITY}; "
            "not written"
        )
    card = ModelCard(
        name=name,
        species=species,
        network=record.settings.model,
        skeleton=record.skeleton,
        input=spec,
        maps=record.settings.maps,
        min_confidence=min_confidence,
        provenance=_provenance(record, difference),
        golden=_golden(answers),
    )
    write_model(model, card, out)
    return out


def restore(record: RunRecord, weights: Path) -> nn.Module:
    """Rebuild a trained network from its record and its state dict."""
    settings = record.settings
    network = build_network(
        settings.model, len(record.skeleton["names"]), settings.input.channels, settings.stride
    )
    try:
        network.load_state_dict(load_state(weights), strict=True)
    except RuntimeError as error:
        raise ModelError(f"{weights}: not the weights of {settings.model}: {error}") from error
    return network.eval()


class _Deployed(nn.Module):
    """The network as it is exported: pixels in, the last head's maps out, linear steps made one."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval()
        fold_norms(self.network)
        if isinstance(self.network, PoseNet):
            merge_first_bottleneck(self.network.backbone)

    def forward(self, image: Tensor) -> Tensor:
        """Return the maps of uint8 images (batch, height, width, channels)."""
        batch, height, width, channels = image.shape
        if channels == 1:
            planes = image.reshape(batch, 1, height, width)
        else:
            planes = image.permute(0, 3, 1, 2)
        return run_heads(self.network, normalise(planes))[-1]


def fold_norms(module: nn.Module) -> None:
    """Replace every convolution with the batch norm after it by one convolution, in place."""
    for child in module.children():
        fold_norms(child)
    if isinstance(module, nn.Sequential):
        layers = list(module)
        for at in range(len(layers) - 1):
            convolution, norm = layers[at], layers[at + 1]
            if not isinstance(norm, nn.BatchNorm2d):
                continue
            if isinstance(convolution, nn.ConvTranspose2d):
                module[at] = fuse_conv_bn_eval(convolution, norm, transpose=True)
            elif isinstance(convolution, nn.Conv2d):
                module[at] = fuse_conv_bn_eval(convolution, norm)
            else:
                continue
            module[at + 1] = nn.Identity()


def merge_first_bottleneck(backbone: MobileNetV2) -> None:
    """Make one 1x1 convolution of the projection of block 1 and the expansion of block 2, in place.

    Nothing but block 2 reads that bottleneck and it is linear, so the answer is the same; at the
    largest resolution of all, this saves a sixth of the whole network's time on a CPU. Expects
    folded norms.
    """
    first, second = backbone.features[1], backbone.features[2]
    if not isinstance(first, InvertedResidual) or first.adds_input:
        return
    project = cast("nn.Conv2d", first.conv[1])
    expansion = cast("nn.Sequential", cast("InvertedResidual", second).conv[0])
    expand = cast("nn.Conv2d", expansion[0])
    inner, outer = project.weight.detach().flatten(1), expand.weight.detach().flatten(1)
    merged = nn.Conv2d(inner.shape[1], outer.shape[0], 1)
    bias = outer @ cast("Tensor", project.bias) + cast("Tensor", expand.bias)
    merged.load_state_dict({"weight": (outer @ inner)[..., None, None], "bias": bias})
    first.conv[1] = nn.Identity()
    expansion[0] = merged


def to_onnx(network: nn.Module, spec: InputSpec) -> onnx.ModelProto:
    """Return the ONNX graph of a network for one input size."""
    image = torch.zeros(spec.shape, dtype=torch.uint8)
    with warnings.catch_warnings():
        # torch's exporter uses a type of its own that it has deprecated.
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        program = torch.onnx.export(
            _Deployed(network).eval(),
            (image,),
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise ModelError("torch returned no ONNX program")
    model: onnx.ModelProto = program.model_proto
    _forget_origin(model)
    return model


def _forget_origin(model: onnx.ModelProto) -> None:
    """Remove torch's notes on where each node comes from: paths of this machine, a third of it."""
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for tensor in graph.initializer:
        tensor.ClearField("metadata_props")
        tensor.ClearField("doc_string")


def run_onnx(model: bytes | str, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return ONNX Runtime's maps on the CPU, shape (frames, keypoints, height, width)."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    answers = [session.run([OUTPUT_NAME], {INPUT_NAME: frame[None]})[0] for frame in frames]
    return np.concatenate(answers)


@torch.no_grad()
def run_torch(network: nn.Module, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return torch's maps, unfolded, shape (frames, keypoints, height, width)."""
    images = torch.from_numpy(frames).permute(0, 3, 1, 2)
    maps = run_heads(network.eval(), normalise(images))[-1]
    return cast("NDArray[np.float32]", maps.cpu().numpy())


def _golden(answers: NDArray[np.float32]) -> Golden:
    """Keep the answers at the highest cell of every map, and at cells spread over the maps."""
    cells = []
    for k, peaked in enumerate(answers[0]):
        row, column = np.unravel_index(peaked.argmax(), peaked.shape)
        cells.append((k, int(row), int(column)))
    rng = np.random.default_rng(_GOLDEN_SEED)
    spread = rng.integers((0, 0, 0), answers.shape[1:], size=(_GOLDEN_CELLS, 3))
    cells += [(int(k), int(row), int(column)) for k, row, column in spread]
    values = [[float(maps[cell]) for cell in cells] for maps in answers]
    return Golden(
        seed=_GOLDEN_SEED, count=len(answers), cells=cells, values=values, tolerance=PARITY
    )


def _provenance(record: RunRecord, difference: float) -> dict[str, object]:
    return {
        "labels": record.labels,
        "start_weights": record.start_weights,
        "training": {
            **record.settings.model_dump(),
            **record.trained_on,
            "minutes": record.minutes,
            "best_step": record.best_step,
        },
        "validation_px": record.validation_px,
        "largest_difference_from_torch": difference,
        "exported_with": {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__},
    }


def write_model(model: onnx.ModelProto, card: ModelCard, out: Path) -> None:
    """Write a model with its card, completely or not at all."""
    onnx.helper.set_model_props(model, {METADATA_KEY: card.to_metadata()})
    onnx.checker.check_model(model)
    write_file(out, model.SerializeToString())
