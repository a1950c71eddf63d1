"""How much a network computes."""

import torch
from torch import Tensor, nn


@torch.no_grad()
def count_macs(network: nn.Module, channels: int, height: int, width: int) -> int:
    """Return the multiply-accumulates of the convolutions for one image.

    A deconvolution counts its kernel once per input cell. Norms, activations and sums are left out,
    as is usual.

    Parameters
    ----------
    network : nn.Module
        Any network of convolutions; left in the mode that it was in.
    channels, height, width : int
        The image.
    """
    total = 0

    def count(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            cells = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
            # Either weight has the channels of those cells first, then kernels to the other side.
            total += cells.numel() // len(cells) * layer.weight[0].numel()

    layers = [
        part for part in network.modules() if isinstance(part, nn.Conv2d | nn.ConvTranspose2d)
    ]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    training = network.training
    try:
        network.eval()(next(network.parameters()).new_zeros(1, channels, height, width))
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    return total
