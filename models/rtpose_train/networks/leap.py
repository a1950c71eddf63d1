"""LEAP: Pereira et al. 2019 (Nature Methods 16:117-125), maps at the resolution of the image."""

from typing import cast

from torch import Tensor, nn

from rtpose_train.networks.padding import cut_to_image, pad_to_multiple


def _convs(inputs: int, outputs: int, count: int) -> list[nn.Module]:
    """Return 3x3 convolutions, each with ReLU."""
    layers: list[nn.Module] = []
    for n in range(count):
        layers += [nn.Conv2d(outputs if n else inputs, outputs, 3, padding=1), nn.ReLU()]
    return layers


def _double(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    """Return a 3x3 deconvolution to exactly twice the resolution."""
    return nn.ConvTranspose2d(inputs, outputs, 3, 2, padding=1, output_padding=1)


class Leap(nn.Module):
    """LEAP (Pereira et al. 2019, "Neural network architecture"; counts of DeepPoseKit's).

    Two poolings down, two deconvolutions up; ReLU and Glorot weights. A map cell is one input
    pixel. Any input size: it is padded in black to a multiple of 4, and the maps are cut back.

    Parameters
    ----------
    maps : int
        Output maps.
    channels : int
        Input channels: 1 grey, 3 red-green-blue.
    """

    stride = 1
    multiple = 4

    def __init__(self, maps: int, channels: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_convs(channels, 64, 3),
            nn.MaxPool2d(2),
            *_convs(64, 128, 3),
            nn.MaxPool2d(2),
            *_convs(128, 256, 3),
            _double(256, 128),
            nn.ReLU(),
            *_convs(128, 128, 2),
            _double(128, maps),
        )
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(cast("Tensor", layer.bias))

    def forward(self, x: Tensor) -> Tensor:
        """Return maps (batch, maps, height, width) of images (batch, channels, height, width)."""
        return cut_to_image(self.layers(pad_to_multiple(x, self.multiple)), x, self.stride)
