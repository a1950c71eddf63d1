"""Stacked DenseNet: Graving et al. 2019 (eLife 8:e47994), the network behind the published figures.

Densely connected hourglasses with SELU and no normalisation; every network of the stack draws the
maps, and the next one reads them. The structure is that of DeepPoseKit 0.1.
"""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from rtpose.errors import InputError
from rtpose_train.networks.padding import check_halvings, cut_to_image, pad_to_multiple

#: Standard deviation of a unit normal that is cut off at two standard deviations.
_TRUNCATED_STD = 0.87962566103423978
#: Fewer channels than this are an image, which is passed on as it is.
_IMAGE_CHANNELS = 3
#: The paper draws maps of height 255 with Glorot weights; the maps here have height 1.
_PAPER_HEIGHT = 255


def _conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    """Return convolution and SELU, with LeCun-normal weights."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
    std = math.sqrt(1 / (inputs * kernel**2)) / _TRUNCATED_STD
    nn.init.trunc_normal_(convolution.weight, std=std, a=-2 * std, b=2 * std)
    nn.init.zeros_(cast("Tensor", convolution.bias))
    return nn.Sequential(convolution, nn.SELU())


class _DenseUnit(nn.Module):
    """Append new channels: 1x1 to the bottleneck (left out where that is no less), then 3x3."""

    def __init__(self, inputs: int, growth: int, bottleneck: float) -> None:
        super().__init__()
        width = round(growth * bottleneck)
        layers = [_conv(inputs, width)] if inputs > width else []
        self.new = nn.Sequential(
            *layers, _conv(width if inputs > width else inputs, growth, kernel=3)
        )
        self.outputs = inputs + growth

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.new(x)], dim=1)


class _Block(nn.Sequential):
    """Dense units one after the other."""

    def __init__(self, inputs: int, units: int, growth: int, bottleneck: float) -> None:
        layers = [_DenseUnit(inputs + n * growth, growth, bottleneck) for n in range(units)]
        super().__init__(*layers)
        self.outputs = inputs + units * growth


class _Compress(nn.Module):
    """1x1 convolution to a fraction of the channels; an image passes as it is."""

    def __init__(self, inputs: int, fraction: float) -> None:
        super().__init__()
        is_image = inputs <= _IMAGE_CHANNELS
        self.outputs = inputs if is_image else round(inputs * fraction)
        self.layer = nn.Identity() if is_image else _conv(inputs, self.outputs)

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.layer(x))


class _Up(nn.Module):
    """Depth to space, after a 1x1 to the nearest multiple of 4 channels where that is needed."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        quarter = (inputs + 1) // 4  # ties go down
        self.fit = nn.Identity() if inputs % 4 == 0 else _conv(inputs, 4 * quarter)
        self.outputs = quarter

    def forward(self, x: Tensor) -> Tensor:
        return functional.pixel_shuffle(self.fit(x), 2)


class _Decoder(nn.Module):
    """Up to the output's resolution, joined by the records on the way; features and maps.

    Parameters
    ----------
    inputs : int
        Channels at the lowest resolution.
    records : list of int
        Channels of the records, finest first.
    units : list of int
        Dense units before each step up.
    """

    def __init__(self, inputs: int, records: list[int], units: list[int], net: "_Plan") -> None:
        super().__init__()
        self.blocks, self.ups, self.skips = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        current = inputs
        for count, record in zip(units, records[::-1], strict=False):
            block = _Block(current, count, net.growth, net.bottleneck)
            up, skip = _Up(block.outputs), _Compress(record, net.compression)
            self.blocks.append(block)
            self.ups.append(up)
            self.skips.append(skip)
            current = up.outputs + skip.outputs
        # All records at and above the output's resolution; the one at it entered above already.
        self.finer = len(records) - len(units)
        joined = records[: self.finer + net.quirks]
        self.joins = nn.ModuleList(_Compress(channels, net.compression) for channels in joined)
        current += sum(cast("_Compress", join).outputs for join in self.joins)
        self.last = _Block(current, 1, net.growth, net.bottleneck)
        self.features = _Compress(self.last.outputs, net.compression)
        self.head = nn.Conv2d(self.features.outputs, net.maps, 1)
        nn.init.xavier_uniform_(self.head.weight, gain=1 / _PAPER_HEIGHT)
        nn.init.zeros_(cast("Tensor", self.head.bias))

    def forward(self, x: Tensor, records: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return features and maps."""
        layers = zip(self.blocks, self.ups, self.skips, records[::-1], strict=False)
        for block, up, skip, record in layers:
            x = torch.cat([up(block(x)), skip(record)], dim=1)
        joined = [x]
        for n, (join, record) in enumerate(zip(self.joins, records, strict=False)):
            factor = 2 ** (self.finer - n)
            joined.append(join(functional.max_pool2d(record, factor) if factor > 1 else record))
        features = self.features(self.last(torch.cat(joined, dim=1)))
        return features, self.head(features)


class _Plan:
    """What all parts of one network must agree on."""

    def __init__(
        self, maps: int, growth: int, bottleneck: float, compression: float, quirks: bool
    ) -> None:
        self.maps, self.growth, self.bottleneck = maps, growth, bottleneck
        self.compression, self.quirks = compression, quirks


class _FirstNetwork(nn.Module):
    """The encoder on the image, down by ``2**transitions``, and its decoder."""

    def __init__(self, channels: int, transitions: int, exponent: int, net: _Plan) -> None:
        super().__init__()
        self.quirks = net.quirks
        self.stem = _conv(channels, net.growth, kernel=7, stride=2)
        current, records = net.growth + channels, [channels]
        self.blocks, self.downs = nn.ModuleList(), nn.ModuleList()
        for level in range(transitions - 1):
            block = _Block(current, 1, net.growth, net.bottleneck)
            records.append(block.outputs + (current if net.quirks and level == 0 else 0))
            down = _Compress(block.outputs, net.compression)
            self.blocks.append(block)
            self.downs.append(down)
            current = down.outputs
        self.decoder = _Decoder(current, records, [1] * (transitions - exponent), net)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return features and maps of an image."""
        first = torch.cat([functional.max_pool2d(image, 2), self.stem(image)], dim=1)
        x, records = first, [image]
        for level, (block, down) in enumerate(zip(self.blocks, self.downs, strict=True)):
            dense = block(x)
            doubled = self.quirks and level == 0
            records.append(torch.cat([first, dense], dim=1) if doubled else dense)
            x = down(functional.max_pool2d(dense, 2))
        return cast("tuple[Tensor, Tensor]", self.decoder(x, records))


class _NextNetwork(nn.Module):
    """Down and up again from the output's resolution, reading features and maps of the last."""

    def __init__(self, inputs: int, depth: int, net: _Plan) -> None:
        super().__init__()
        self.blocks, self.downs = nn.ModuleList(), nn.ModuleList()
        current, records = inputs, []
        for _ in range(depth):
            block = _Block(current, depth, net.growth, net.bottleneck)
            down = _Compress(block.outputs, net.compression)
            records.append(block.outputs)
            self.blocks.append(block)
            self.downs.append(down)
            current = down.outputs
        self.decoder = _Decoder(current, records, list(range(depth, 0, -1)), net)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features and maps."""
        records = []
        for block, down in zip(self.blocks, self.downs, strict=True):
            dense = block(x)
            records.append(dense)
            x = down(functional.max_pool2d(dense, 2))
        return cast("tuple[Tensor, Tensor]", self.decoder(x, records))


class StackedDenseNet(nn.Module):
    """Stacked DenseNet, the paper's variant (Graving et al. 2019, "Stacked DenseNet").

    Any input size: the image is padded at the right and bottom, in black, to a multiple of
    ``2**transitions``, and the maps are cut back to the size that belongs to the image.

    Parameters
    ----------
    maps : int
        Output maps of every head.
    channels : int
        Input channels: 1 grey, 3 red-green-blue.
    downsample : int
        Exponent: a map cell is ``2**downsample`` input pixels; 1 to 4.
    transitions : int
        Halvings down to the lowest resolution, more than `downsample`. The published networks have
        5 at 192x192, 4 at 160x160, 6 at 256x256.
    growth, stacks : int
        Channels that a dense unit appends; networks in the stack.
    bottleneck, compression : float
        Width of the 1x1 in a dense unit over `growth`; channels kept by a compression.
    quirks : bool
        Repeat the doubled records of the released code, so that parameter counts equal the
        published ones: the first record holds its input twice, and the record at the output's
        resolution is joined twice.

    Raises
    ------
    InputError
        If an option is out of range.
    """

    def __init__(
        self,
        maps: int,
        channels: int = 1,
        *,
        downsample: int = 2,
        transitions: int = 5,
        growth: int = 48,
        stacks: int = 2,
        bottleneck: float = 1.0,
        compression: float = 0.5,
        quirks: bool = False,
    ) -> None:
        super().__init__()
        check_halvings(downsample, transitions)
        for name, value in (("growth", growth), ("stacks", stacks), ("maps", maps)):
            if value < 1:
                raise InputError(f"{name} is {value}, allowed: 1 or more")
        if not (0 < bottleneck <= 4 and 0 < compression <= 1):
            raise InputError(
                f"bottleneck is {bottleneck}, compression {compression}; allowed: over 0 up to 4, "
                "over 0 up to 1"
            )
        self.stride = 2**downsample
        self.multiple = 2**transitions
        net = _Plan(maps, growth, bottleneck, compression, quirks)
        first = _FirstNetwork(channels, transitions, downsample, net)
        self.networks = nn.ModuleList([first])
        decoder = first.decoder
        for _ in range(stacks - 1):
            following = _NextNetwork(decoder.features.outputs + maps, transitions - downsample, net)
            self.networks.append(following)
            decoder = following.decoder

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the maps of every network of the stack; the last are the best.

        Parameters
        ----------
        x : Tensor of float, shape (batch, channels, height, width)
            Pixel values in -1..1.

        Returns
        -------
        list of Tensor of float, shape (batch, maps, height / stride, width / stride), rounded up
        """
        image, x = x, pad_to_multiple(x, self.multiple)
        heads = []
        for network in self.networks:
            features, maps = network(x)
            heads.append(cut_to_image(maps, image, self.stride))
            x = torch.cat([features, 2 * maps - 1], dim=1)
        return heads
