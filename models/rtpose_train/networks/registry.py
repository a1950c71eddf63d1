"""Every network by its name."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from rtpose.errors import InputError
from rtpose_train.networks.hourglass import StackedHourglass
from rtpose_train.networks.leap import Leap
from rtpose_train.networks.network import PoseNet
from rtpose_train.networks.resnet import ResNetPose
from rtpose_train.networks.stacked_densenet import StackedDenseNet


@dataclass(frozen=True, slots=True)
class _Entry:
    """A kind of network.

    Attributes
    ----------
    pattern : str
        What its names look like.
    about : str
        Its names for people.
    build : callable
        From the matched name, number of maps, input channels and stride.
    strides : tuple of int
        Input pixels per map cell that it can be built with, ascending.
    settings : dict
        Defaults of `TrainSettings` that suit it better than the common ones.
    """

    pattern: str
    about: str
    build: Callable[[re.Match[str], int, int, int], nn.Module]
    strides: tuple[int, ...]
    settings: dict[str, Any] = field(default_factory=dict)


def _mobilenet(name: re.Match[str], maps: int, channels: int, stride: int) -> nn.Module:
    return PoseNet(
        float(name["width"]), maps, channels, stride, tensorflow_padding=name["tf"] is not None
    )


def _densenet(name: re.Match[str], maps: int, channels: int, stride: int) -> nn.Module:
    return StackedDenseNet(
        maps,
        channels,
        downsample=stride.bit_length() - 1,
        growth=int(name["growth"] or 48),
        stacks=int(name["stacks"] or 2),
    )


def _hourglass(name: re.Match[str], maps: int, channels: int, stride: int) -> nn.Module:
    return StackedHourglass(
        maps,
        channels,
        downsample=stride.bit_length() - 1,
        filters=int(name["filters"] or 64),
        stacks=int(name["stacks"] or 2),
    )


def _leap(_name: re.Match[str], maps: int, channels: int, _stride: int) -> nn.Module:
    return Leap(maps, channels)


def _resnet(_name: re.Match[str], maps: int, channels: int, stride: int) -> nn.Module:
    return ResNetPose(maps, channels, stride)


_NETWORKS = (
    _Entry(
        r"mobilenetv2-(?P<width>0\.[1-9]\d*|1(\.\d+)?|2(\.0+)?)(?P<tf>-tf)?",
        "mobilenetv2-<width> with a width of 0.1 to 2, such as mobilenetv2-0.35 (fastest), "
        "mobilenetv2-0.5, mobilenetv2-1.0, and -tf after it for TensorFlow's padding",
        _mobilenet,
        (4, 8, 16),
    ),
    _Entry(
        r"stacked-densenet(-(?P<growth>[1-9]\d{0,2})x(?P<stacks>[1-9]))?",
        "stacked-densenet, or stacked-densenet-<growth>x<stacks> (48x2 if absent)",
        _densenet,
        (2, 4, 8, 16),
        # The paper's rate: there is no normalisation to forgive a higher one.
        {"learning_rate": 1e-3},
    ),
    _Entry(
        r"hourglass(-(?P<filters>[1-9]\d{0,2})x(?P<stacks>[1-9]))?",
        "hourglass, or hourglass-<filters>x<stacks> (64x2 if absent)",
        _hourglass,
        (2, 4, 8, 16),
        # At the common rate the second hourglass hardly learns.
        {"learning_rate": 6e-3},
    ),
    # As wide in input pixels as the common default at its stride of 4.
    _Entry("leap", "leap", _leap, (1,), {"stride": 1, "sigma": 6.0, "learning_rate": 1e-3}),
    # DeepLabCut's stride; what is in circulation was trained on torchvision's input.
    _Entry("resnet50", "resnet50", _resnet, (4, 8), {"stride": 8, "pretrained_input": "imagenet"}),
)


def _find(model: str) -> tuple[_Entry, re.Match[str]]:
    for entry in _NETWORKS:
        match = re.fullmatch(entry.pattern, model)
        if match is not None:
            return entry, match
    raise InputError(
        f"no network {model!r}; allowed: {'; '.join(entry.about for entry in _NETWORKS)}"
    )


def build_network(model: str, maps: int, channels: int, stride: int) -> nn.Module:
    """Build a network by its name.

    The network takes images (batch, channels, height, width) in -1..1, see `network.normalise`, and
    returns maps, or one tensor of maps per head: see `network.run_heads`.

    Parameters
    ----------
    model : str
        Name; a wrong one gives an error that lists all.
    maps : int
        Number of maps: see `layout.HeadLayout`.
    channels : {1, 3}
        Input channels.
    stride : int
        Input pixels per map cell.

    Raises
    ------
    InputError
        If there is no such network, or not with that map stride.
    """
    entry, match = _find(model)
    if stride not in entry.strides:
        raise InputError(
            f"map stride {stride} px with {model}; allowed: {', '.join(map(str, entry.strides))}"
        )
    return entry.build(match, maps, channels, stride)


def default_settings(model: str) -> dict[str, Any]:
    """Return the settings that suit this network better than the defaults of `TrainSettings`.

    Raises
    ------
    InputError
        If there is no such network.
    """
    return dict(_find(model)[0].settings)
