"""Weights to start from: state dicts in files, and torchvision's by name.

Networks here take pixels scaled to -1..1. Weights that were trained on torchvision's input,
``(pixel / 255 - mean) / deviation``, get the scale folded into the first convolution and the shift
into the running mean of the norm after it, which is exact, but for one thing: their training padded
pictures with the mean colour (0 in their input), where these networks pad with grey (0 in theirs),
so that the answers differ along the picture's border.
"""

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251 - what torch.load raises; nothing is unpickled
from typing import Literal, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from rtpose.errors import InputError, ModelError, RecordingError

#: Names that stand for weights to download.
NAMED = ("imagenet",)
_URL = "https://download.pytorch.org/models/"
#: torchvision's weights by our names; their names end in the first digits of their SHA-256.
_IMAGENET = {
    "mobilenetv2-1.0": "mobilenet_v2-7ebf99e0.pth",
    "resnet50": "resnet50-0676ba61.pth",
}
#: Of ImageNet's colours, red, green, blue in 0..1, as torchvision takes them.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

TrainedOn = Literal["symmetric", "imagenet"]


@runtime_checkable
class _Backbone(Protocol):
    """Features that torchvision's weights fit."""

    #: Names of the first convolution's weights and of the running mean after it.
    stem: tuple[str, str]


def find_weights(name: str, model: str, url: str = _URL) -> Path:
    """Return the file of weights that a user means, downloaded if it is a name.

    Parameters
    ----------
    name : str
        A file, or "imagenet".
    model : str
        The network, for its name.
    url : str
        Where named weights lie.

    Raises
    ------
    InputError
        If there is no such file, there are no weights of that name for the network, or they cannot
        be downloaded.
    ModelError
        If what was downloaded is not what its hash says.
    RecordingError
        If it cannot be written.
    """
    if name not in NAMED:
        file = Path(name)
        if not file.is_file():
            raise InputError(f"{file}: no such file of weights; a file, or {', '.join(NAMED)}")
        return file
    if model not in _IMAGENET:
        raise InputError(
            f"no {name} weights for {model}: torchvision has them for {', '.join(_IMAGENET)}; "
            "give a file of weights in torchvision's layout"
        )
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / _IMAGENET[model]
    if not file.is_file():
        _download(url + file.name, file)
    return file


def _download(url: str, file: Path) -> None:
    digits = file.stem.rpartition("-")[2]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordingError(f"{file.parent}: cannot be created: {error.strerror}") from error
    try:
        torch.hub.download_url_to_file(url, str(file), hash_prefix=digits, progress=False)
    except RuntimeError as error:  # its only one: the hash
        raise ModelError(f"{url}: not the published file: {error}; not kept") from error
    except OSError as error:
        raise InputError(
            f"{url} cannot be downloaded: {error}; download it elsewhere and put it at {file}"
        ) from error


def load_backbone(
    network: nn.Module, file: Path, colour: str, trained_on: TrainedOn = "symmetric"
) -> None:
    """Start the features from a torchvision-layout state dict (MobileNetV2, ResNet-50).

    Blocks that this network does not have, and the classifier, are left out. For grey input the
    first convolution's weights are summed over the colours, which gives the same answer on a grey
    picture; for blue-green-red they change places.

    Parameters
    ----------
    network : Module
        What `registry.build_network` returned.
    file : Path
        The state dict, trained on red-green-blue.
    colour : {'gray', 'rgb', 'bgr'}
        Input of the network.
    trained_on : {'symmetric', 'imagenet'}
        Pixels scaled to -1..1, or torchvision's.

    Raises
    ------
    InputError
        If this kind of network has no features that such weights fit.
    ModelError
        If the file is not such a state dict, or is of another width.
    """
    backbone = getattr(network, "backbone", None)
    if not isinstance(backbone, nn.Module) or not isinstance(backbone, _Backbone):
        raise InputError(
            f"{file}: {type(network).__name__} has no pretrained weights; leave out the weights"
        )
    state = load_state(file)
    wanted = backbone.state_dict()
    first = backbone.stem[0]
    missing = [name for name in wanted if name not in state]
    other = [
        name
        for name in wanted
        if name != first and name in state and state[name].shape != wanted[name].shape
    ]
    if not missing and state[first].shape != (wanted[first].shape[0], 3, *wanted[first].shape[2:]):
        other.append(first)
    if missing or other:
        what = f"no {missing[0]}" if missing else f"another shape of {other[0]}"
        raise ModelError(
            f"{file}: {what}: not the torchvision-layout weights of this network and width"
        )
    adapted = {name: state[name] for name in wanted} | _stem(
        state, backbone.stem, colour, trained_on
    )
    backbone.load_state_dict(adapted, strict=True)


def _stem(
    state: Mapping[str, Tensor], names: tuple[str, str], colour: str, trained_on: TrainedOn
) -> dict[str, Tensor]:
    """Return the first convolution and the mean after it, for our input."""
    weight, mean = (state[name] for name in names)
    if trained_on == "imagenet":
        deviation = torch.tensor(_DEVIATION)
        # A pixel u in -1..1 is (u + 1) / 2 in 0..1: u * 0.5 / deviation + shift in their input.
        shift = (0.5 - torch.tensor(_MEAN)) / deviation
        mean = mean - torch.einsum("oihw,i->o", weight, shift)
        weight = weight * (0.5 / deviation)[:, None, None]
    if colour == "gray":
        weight = weight.sum(dim=1, keepdim=True)
    elif colour == "bgr":
        weight = weight.flip(1)
    return {names[0]: weight, names[1]: mean}


def load_state(file: Path) -> dict[str, Tensor]:
    """Read a state dict; nothing else is unpickled.

    Raises
    ------
    ModelError
        If the file is missing, or is not a state dict.
    """
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"{file}: cannot be read: {error.strerror or error}") from error
    except (RuntimeError, ValueError, EOFError, UnpicklingError) as error:
        raise ModelError(f"{file}: not a file of weights: {error}") from error
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ModelError(f"{file}: not a state dict: names with tensors")
    return dict(cast("Mapping[str, Tensor]", state))
