"""The network as it is exported: pixels in, what the live service needs out, in few operators."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import onnx
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from rtpose.errors import ModelError
from rtpose.model_card import INPUT_NAME, MAPS_NAME, OFFSETS_NAME, InputSpec
from rtpose_train.exporting.onnx_graph import to_graph
from rtpose_train.networks.layout import HeadLayout
from rtpose_train.networks.network import (
    InvertedResidual,
    MobileNetV2,
    PoseNet,
    normalise,
    run_heads,
)


class Deployed(nn.Module):
    """A trained network with folded norms and without the channels that nobody reads.

    Parameters
    ----------
    network : nn.Module
        Copied, not changed.
    layout : HeadLayout
        What its channels mean.
    spec : InputSpec
        The input that it is exported for.
    half : bool
        Compute in half precision; input and outputs stay what they are.
    """

    def __init__(
        self, network: nn.Module, layout: HeadLayout, spec: InputSpec, *, half: bool = False
    ) -> None:
        super().__init__()
        self.layout = layout
        self.network = copy.deepcopy(network).eval()
        fold_norms(self.network)
        if isinstance(self.network, PoseNet):
            merge_first_bottleneck(self.network.backbone)
        drop_channels(self.network, layout, spec)
        self.number = torch.float16 if half else torch.float32
        self.network.to(self.number)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return maps (and offsets) of uint8 images (batch, height, width, channels)."""
        batch, height, width, channels = image.shape
        if channels == 1:
            planes = image.reshape(batch, 1, height, width)
        else:
            planes = image.permute(0, 3, 1, 2)
        drawn = run_heads(self.network, normalise(planes).to(self.number))[-1].float()
        if not self.layout.location_refinement:
            return (drawn,)
        return drawn[:, self.layout.maps], drawn[:, self.layout.offsets]


def to_onnx(
    network: nn.Module, layout: HeadLayout, spec: InputSpec, *, half: bool = False
) -> onnx.ModelProto:
    """Return the ONNX graph of a network, up to its maps (and offsets), for one input size."""
    image = torch.zeros(spec.shape, dtype=torch.uint8)
    outputs = (MAPS_NAME, OFFSETS_NAME) if layout.location_refinement else (MAPS_NAME,)
    return to_graph(Deployed(network, layout, spec, half=half), {INPUT_NAME: image}, outputs)


def drop_channels(network: nn.Module, layout: HeadLayout, spec: InputSpec) -> None:
    """Drop the last head's channels that the live service does not read, in place.

    They are cut out of the convolution that draws that head, so that they cost nothing. Heads
    before it keep theirs: the next network of the stack reads them.

    Raises
    ------
    ModelError
        If no convolution draws the last head.
    """
    if layout.exported == layout.channels:
        return
    size = spec.height_px, spec.width_px
    with _drawers(network) as drawn, torch.no_grad():
        maps = run_heads(network, torch.zeros(1, spec.channels, *size))[-1]
    layer = drawn.get(maps.untyped_storage().data_ptr())
    if layer is None:
        raise ModelError(
            f"{type(network).__name__} has no convolution that draws its last head; a network must "
            "end in one for its unused channels to be dropped"
        )
    outputs = slice(0, layout.exported)
    is_transposed = isinstance(layer, nn.ConvTranspose2d)
    weight = layer.weight[:, outputs] if is_transposed else layer.weight[outputs]
    layer.weight = nn.Parameter(weight.detach().clone())
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias[outputs].detach().clone())
    layer.out_channels = layout.exported


@contextmanager
def _drawers(network: nn.Module) -> Iterator[dict[int, nn.Conv2d | nn.ConvTranspose2d]]:
    """Note which convolution filled which memory: a cut-out of its output lies in the same one."""
    drawn: dict[int, nn.Conv2d | nn.ConvTranspose2d] = {}
    kept: list[Tensor] = []  # or its memory would be given to the next

    def note(layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        kept.append(output)
        drawn[output.untyped_storage().data_ptr()] = cast("nn.Conv2d", layer)

    layers = [
        part for part in network.modules() if isinstance(part, nn.Conv2d | nn.ConvTranspose2d)
    ]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        yield drawn
    finally:
        for hook in hooks:
            hook.remove()


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
