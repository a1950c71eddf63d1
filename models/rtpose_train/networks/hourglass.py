"""Stacked Hourglass: Newell et al. 2016 (ECCV, 483-499), as Graving et al. 2019 compare with it."""

from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from rtpose.errors import InputError
from rtpose_train.networks.padding import check_halvings, cut_to_image, pad_to_multiple

#: Residual blocks at the lowest resolution; the first also goes around the others.
_BOTTOM_BLOCKS = 4
#: The paper draws maps of height 255 with Glorot weights; the maps here have height 1.
_PAPER_HEIGHT = 255


def _conv(inputs: int, outputs: int, kernel: int = 1) -> nn.Sequential:
    """Return batch norm, convolution without bias, ReLU, in the pre-activation order."""
    return nn.Sequential(
        nn.BatchNorm2d(inputs),
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.ReLU(),
    )


class _Sum(nn.Module):
    """Add tensors of the same shape, each after a batch norm of its own."""

    def __init__(self, terms: int, channels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(terms))

    def forward(self, *terms: Tensor) -> Tensor:
        total = self.norms[0](terms[0])
        for norm, term in zip(self.norms[1:], terms[1:], strict=True):
            total = total + norm(term)
        return cast("Tensor", total)


class _Residual(nn.Module):
    """1x1 to half the channels, 3x3, 1x1 back, added to the input."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        half = filters // 2
        self.body = nn.Sequential(
            _conv(filters, half), _conv(half, half, kernel=3), _conv(half, filters)
        )
        self.add = _Sum(2, filters)

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.add(x, self.body(x)))


class _Level(nn.Module):
    """Down by 2, through what is inside, up again by repetition, joined by a skip."""

    def __init__(self, filters: int, inside: nn.Module) -> None:
        super().__init__()
        self.before, self.after, self.skip = (_Residual(filters) for _ in range(3))
        self.inside = inside
        self.add = _Sum(2, filters)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        lower = self.inside(functional.max_pool2d(x, 2))
        upper = functional.interpolate(lower, scale_factor=2.0, mode="nearest")
        return cast("Tensor", self.after(self.add(self.skip(x), upper)))


class _Bottom(nn.Module):
    """Residual blocks at the lowest resolution."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.first = _Residual(filters)
        self.others = nn.Sequential(*(_Residual(filters) for _ in range(_BOTTOM_BLOCKS - 1)))
        self.add = _Sum(2, filters)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return cast("Tensor", self.add(x, self.others(x)))


class _Output(nn.Module):
    """Maps; and, unless it is the last, what the next hourglass reads: features, maps, input."""

    def __init__(self, filters: int, maps: int, is_last: bool) -> None:
        super().__init__()
        self.features = _conv(filters, filters)
        self.norm = nn.BatchNorm2d(filters)
        self.head = nn.Conv2d(filters, maps, 1)
        self.merges = not is_last
        if self.merges:
            self.from_maps, self.from_features = _conv(maps, filters), _conv(filters, filters)
            self.add = _Sum(3, filters)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return maps, then the next input."""
        features = self.features(x)
        maps = self.head(self.norm(features))
        if self.merges:
            x = self.add(self.from_maps(maps), self.from_features(features), x)
        return maps, x


class StackedHourglass(nn.Module):
    """Stacked Hourglass (Newell et al. 2016, sections 3.1-3.3; widths of Graving et al. 2019).

    Any input size: the image is padded at the right and bottom, in black, to a multiple of
    ``2**transitions``, and the maps are cut back to the size that belongs to the image.

    Parameters
    ----------
    maps : int
        Output maps of every hourglass.
    channels : int
        Input channels: 1 grey, 3 red-green-blue.
    downsample : int
        Exponent: a map cell is ``2**downsample`` input pixels; 1 to 4.
    transitions : int
        Halvings down to the lowest resolution, more than `downsample`; the published networks
        have 6 at 192x192.
    filters, stacks : int
        Channels everywhere, an even number; hourglasses in the stack.

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
        transitions: int = 6,
        filters: int = 64,
        stacks: int = 2,
    ) -> None:
        super().__init__()
        check_halvings(downsample, transitions)
        if filters < 2 or filters % 2 or stacks < 1:
            raise InputError(
                f"filters is {filters}, stacks {stacks}; allowed: an even number, 1 or more"
            )
        self.stride = 2**downsample
        self.multiple = 2**transitions
        front: list[nn.Module] = [
            nn.Conv2d(channels, filters, 7, 2, padding=3, bias=False),
            nn.ReLU(),
        ]
        for _ in range(downsample - 1):
            front += [_Residual(filters), nn.MaxPool2d(2)]
        self.front = nn.Sequential(*front, _Residual(filters), _Residual(filters))
        self.hourglasses, self.outputs = nn.ModuleList(), nn.ModuleList()
        for stack in range(stacks):
            hourglass: nn.Module = _Bottom(filters)
            for _ in range(transitions - downsample):
                hourglass = _Level(filters, hourglass)
            self.hourglasses.append(hourglass)
            self.outputs.append(_Output(filters, maps, is_last=stack == stacks - 1))
        self._start()

    def _start(self) -> None:
        """Draw Glorot weights; nearly empty maps."""
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                is_head = part.bias is not None
                nn.init.xavier_uniform_(part.weight, gain=1 / _PAPER_HEIGHT if is_head else 1.0)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the maps of every hourglass; the last are the best.

        Parameters
        ----------
        x : Tensor of float, shape (batch, channels, height, width)
            Pixel values in -1..1.

        Returns
        -------
        list of Tensor of float, shape (batch, maps, height / stride, width / stride), rounded up
        """
        image, x = x, self.front(pad_to_multiple(x, self.multiple))
        heads = []
        for hourglass, output in zip(self.hourglasses, self.outputs, strict=True):
            maps, x = output(hourglass(x))
            heads.append(cut_to_image(maps, image, self.stride))
        return heads
