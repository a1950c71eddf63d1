"""MobileNetV2 features with a deconvolution head that draws keypoint maps."""

import math
from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from rtpose.errors import InputError
from rtpose_train.networks.padding import cut_to_image, pad_to_multiple

#: Expansion, channels at width 1, repeats, first stride (Sandler et al. 2018, table 2).
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
#: The features that the head reads: ``features.<N>`` at strides 4, 8 and 16.
_STRIDE_4, _STRIDE_8, _STRIDE_16 = 3, 6, 13


def scaled_channels(channels: int, width: float) -> int:
    """Return a channel count at a width: a multiple of 8, at least 8, not below 90 % of exact."""
    exact = channels * width
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * exact else rounded


class _TensorflowConv(nn.Conv2d):
    """A 3x3 convolution with stride 2 that pads as TensorFlow does.

    An even size is padded at the right and bottom only: output ``i`` is centred on input
    ``2 * i + 1``, not on ``2 * i``, which matters to weights that were trained so.
    """

    def forward(self, input: Tensor) -> Tensor:
        left, top = input.shape[3] % 2, input.shape[2] % 2
        return super().forward(functional.pad(input, (left, 1, top, 1)))


def _conv(
    inputs: int,
    outputs: int,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    tensorflow_padding: bool = False,
) -> nn.Sequential:
    """Return convolution, batch norm and ReLU6."""
    if tensorflow_padding and stride == 2:
        convolution: nn.Conv2d = _TensorflowConv(
            inputs, outputs, kernel, stride, groups=groups, bias=False
        )
    else:
        convolution = nn.Conv2d(
            inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False
        )
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU6())


class InvertedResidual(nn.Module):
    """Expand by a 1x1, filter each channel by a 3x3, project by a linear 1x1."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        expansion: int,
        tensorflow_padding: bool = False,
    ) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = [] if expansion == 1 else [_conv(inputs, hidden)]
        layers += [
            _conv(hidden, hidden, 3, stride, hidden, tensorflow_padding),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        self.conv = nn.Sequential(*layers)
        self.adds_input = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, added to its input where their shapes agree."""
        y = cast("Tensor", self.conv(x))
        return x + y if self.adds_input else y


class MobileNetV2(nn.Module):
    """MobileNetV2 without its classifier, with torchvision's parameter names.

    Parameters
    ----------
    width : float
        Multiplier of all channel counts.
    channels : int
        Input channels: 1 grey, 3 red-green-blue.
    last : int
        Last block that is built, at most 18 (``features.0`` to ``features.18``).
    tensorflow_padding : bool
        Pad convolutions with stride 2 as TensorFlow does, for weights that were trained there.
    """

    stem = ("features.0.0.weight", "features.0.1.running_mean")

    def __init__(
        self,
        width: float = 1.0,
        channels: int = 3,
        last: int = 18,
        tensorflow_padding: bool = False,
    ) -> None:
        super().__init__()
        outputs = scaled_channels(32, width)
        blocks: list[nn.Module] = [
            _conv(channels, outputs, 3, 2, tensorflow_padding=tensorflow_padding)
        ]
        self.block_channels = [outputs]
        for expansion, stage_channels, repeats, stride in _STAGES:
            for repeat in range(repeats):
                inputs, outputs = outputs, scaled_channels(stage_channels, width)
                first_stride = stride if repeat == 0 else 1
                blocks.append(
                    InvertedResidual(inputs, outputs, first_stride, expansion, tensorflow_padding)
                )
                self.block_channels.append(outputs)
        top = max(1280, int(1280 * width))
        blocks.append(_conv(outputs, top))
        self.block_channels.append(top)
        self.features = nn.Sequential(*blocks[: last + 1])

    def forward(self, x: Tensor, wanted: Sequence[int] = ()) -> list[Tensor]:
        """Return the outputs of the wanted blocks, then that of the last block."""
        outputs = []
        for number, block in enumerate(self.features):
            x = block(x)
            if number in wanted:
                outputs.append(x)
        return [*outputs, x]


def _double(inputs: int, outputs: int) -> nn.Sequential:
    """Return a deconvolution to twice the resolution."""
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs)
    )


def _join(inputs: int, outputs: int) -> nn.Sequential:
    """Return the 1x1 convolution that brings finer features into the head."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))


def _head_channels(maps: int) -> int:
    """Return enough channels that the last ones, half as many, outnumber the maps by a half.

    Maps are mixed from them linearly: with fewer channels than maps some maps stay empty.
    """
    return max(32, 16 * math.ceil(1.5 * maps / 8))


class PoseNet(nn.Module):
    """Keypoint maps from an image: features at stride 16, deconvolved to stride 8 or 4, or not.

    Each deconvolution doubles the resolution and is joined by the features of that resolution, so
    that a peak is placed by detail and chosen by context. Any input size: the image is padded at
    the right and bottom, in black, to a multiple of 16, and the maps are cut back.

    Parameters
    ----------
    width : float
        MobileNetV2's width multiplier.
    maps : int
        Number of maps.
    channels : int
        Input channels: 1 grey, 3 red-green-blue.
    stride : {4, 8, 16}
        Input pixels per map cell.
    head : int, optional
        Channels of the head at stride 8, half as many at stride 4; enough for `maps` if absent.
    tensorflow_padding : bool
        See `MobileNetV2`.

    Raises
    ------
    InputError
        If there is no such stride.
    """

    multiple = 16

    def __init__(
        self,
        width: float,
        maps: int,
        channels: int = 1,
        stride: int = 4,
        head: int | None = None,
        tensorflow_padding: bool = False,
    ) -> None:
        super().__init__()
        if stride not in (4, 8, 16):
            raise InputError(f"map stride {stride} px; allowed: 4, 8, 16")
        head = head or _head_channels(maps)
        self.stride = stride
        self.backbone = MobileNetV2(width, channels, _STRIDE_16, tensorflow_padding)
        at = self.backbone.block_channels
        if stride == 16:
            self.join_16 = _join(at[_STRIDE_16], head)
        else:
            self.up_8 = _double(at[_STRIDE_16], head)
            self.skip_8 = _join(at[_STRIDE_8], head)
        if stride == 4:
            self.up_4 = _double(head, head // 2)
            self.skip_4 = _join(at[_STRIDE_4], head // 2)
            head //= 2
        self.maps = nn.Conv2d(head, maps, 1)
        # Maps are nearly empty: start from empty ones. Large first gradients would linger in the
        # optimiser's second moment and slow down everything after them.
        nn.init.normal_(self.maps.weight, std=1e-3)
        nn.init.zeros_(cast("Tensor", self.maps.bias))

    def forward(self, x: Tensor) -> Tensor:
        """Return maps for normalised images.

        Parameters
        ----------
        x : Tensor of float, shape (batch, channels, height, width)
            Pixel values in -1..1, see `normalise`.

        Returns
        -------
        Tensor of float, shape (batch, maps, height / stride, width / stride), rounded up
        """
        padded = pad_to_multiple(x, self.multiple)
        at_4, at_8, at_16 = self.backbone(padded, (_STRIDE_4, _STRIDE_8))
        if self.stride == 16:
            y = functional.relu(self.join_16(at_16))
        else:
            y = functional.relu(self.up_8(at_16) + self.skip_8(at_8))
        if self.stride == 4:
            y = functional.relu(self.up_4(y) + self.skip_4(at_4))
        return cut_to_image(self.maps(y), x, self.stride)


def normalise(image: Tensor) -> Tensor:
    """Return uint8 pixels as float in -1..1, as the ImageNet weights expect them."""
    return image.float() / 127.5 - 1


def run_heads(network: nn.Module, images: Tensor) -> list[Tensor]:
    """Return the maps of every head of a network, the last of which are its answer."""
    maps = network(images)
    return maps if isinstance(maps, list) else [maps]
