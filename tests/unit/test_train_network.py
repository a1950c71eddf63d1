"""The network fits the weights that are in circulation, and says so when it does not."""

from pathlib import Path

import pytest
import torch

from rtpose.errors import InputError, ModelError
from rtpose_train.exporting.deploy import fold_norms, merge_first_bottleneck
from rtpose_train.networks.network import MobileNetV2, PoseNet, scaled_channels
from rtpose_train.networks.registry import build_network
from rtpose_train.networks.weights import load_backbone

LAYOUT = Path("mobilenetv2-weights") / "torchvision-layout"


def _torchvision_state(width: float) -> dict[str, torch.Tensor]:
    """A state dict with torchvision's names and shapes, and a classifier, of random numbers."""
    torch.manual_seed(3)
    state = {
        name: torch.rand_like(value) if value.is_floating_point() else value
        for name, value in MobileNetV2(width).state_dict().items()
    }
    return {**state, "classifier.1.weight": torch.rand(10, 1280)}


def test_parameter_count_and_names_are_torchvisions() -> None:
    network = MobileNetV2(1.0)
    # 3,504,872 of the whole mobilenet_v2, less 1,281,000 of its classifier.
    assert sum(value.numel() for value in network.parameters()) == 2_223_872
    names = set(network.state_dict())
    assert {
        "features.0.0.weight",
        "features.0.1.running_var",
        "features.1.conv.0.0.weight",
        "features.1.conv.1.weight",
        "features.17.conv.3.bias",
        "features.18.1.num_batches_tracked",
    } <= names
    assert len(names) == 312


@pytest.mark.parametrize(
    ("channels", "width", "expected"),
    [(32, 0.35, 16), (24, 0.35, 8), (96, 0.35, 32), (32, 1.4, 48), (320, 0.5, 160), (16, 0.1, 8)],
)
def test_channels_are_rounded_as_in_the_published_networks(
    channels: int, width: float, expected: int
) -> None:
    assert scaled_channels(channels, width) == expected


@pytest.mark.data
@pytest.mark.parametrize(
    ("file", "width", "last"),
    [
        ("mobilenetv2_0.35_imagenet_tm.pth", 0.35, 18),
        ("mobilenetv2_1.00_imagenet_coral-int8.pth", 1.0, 18),
        ("mobilenetv2_0.50_cocopose_features0-13.pth", 0.5, 13),
        ("mobilenetv2_0.75_cocopose-int8_features0-13.pth", 0.75, 13),
    ],
)
def test_torchvision_layout_weights_load_strictly(
    data: Path, file: str, width: float, last: int
) -> None:
    state = torch.load(data / LAYOUT / file, weights_only=True)
    MobileNetV2(width, last=last).load_state_dict(state, strict=True)
    load_backbone(build_network(f"mobilenetv2-{width}", 4, 1, 4), data / LAYOUT / file, "gray")


def test_every_colour_order_sees_the_same_picture(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(_torchvision_state(0.35), file)
    grey, colour = PoseNet(0.35, 2, 1).eval(), PoseNet(0.35, 2, 3).eval()
    swapped = PoseNet(0.35, 2, 3).eval()
    load_backbone(grey, file, "gray")
    load_backbone(colour, file, "rgb")
    load_backbone(swapped, file, "bgr")
    picture = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        features = grey.backbone(picture)[-1], colour.backbone(picture.expand(1, 3, 64, 64))[-1]
    torch.testing.assert_close(*features, rtol=1e-4, atol=1e-4)
    coloured = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        features = colour.backbone(coloured)[-1], swapped.backbone(coloured.flip(1))[-1]
    torch.testing.assert_close(*features, rtol=1e-4, atol=1e-4)


def test_weights_of_another_width_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(_torchvision_state(0.5), file)
    with pytest.raises(ModelError, match="not the torchvision-layout weights"):
        load_backbone(build_network("mobilenetv2-0.35", 4, 1, 4), file, "gray")


def test_files_that_are_not_weights_are_refused_unread(tmp_path: Path) -> None:
    network = build_network("mobilenetv2-0.35", 4, 1, 4)
    junk, code, other = tmp_path / "junk.pth", tmp_path / "code.pth", tmp_path / "other.pth"
    junk.write_bytes(b"not a zip archive")
    torch.save({"features.0.0.weight": Path("an object")}, code)
    torch.save([1, 2, 3], other)
    for file in (junk, code, other, tmp_path / "absent.pth"):
        with pytest.raises(ModelError, match=file.name):
            load_backbone(network, file, "gray")


@pytest.mark.parametrize(
    "model", ["resnet-50", "mobilenetv2", "mobilenetv2-", "mobilenetv2-9", "MobileNetV2-0.35"]
)
def test_unknown_networks_are_refused_with_what_is_allowed(model: str) -> None:
    with pytest.raises(InputError, match=r"mobilenetv2-0\.35"):
        build_network(model, 4, 1, 4)


@pytest.mark.parametrize("stride", [1, 2, 32])
def test_unbuilt_strides_are_refused(stride: int) -> None:
    with pytest.raises(InputError, match="allowed: 4, 8, 16"):
        build_network("mobilenetv2-0.35", 4, 1, stride)


@pytest.mark.parametrize("width", [0.25, 0.35, 1.0])
@pytest.mark.parametrize("stride", [4, 8, 16])
@pytest.mark.parametrize("tensorflow_padding", [False, True])
def test_simplifying_for_export_changes_no_answer(
    width: float, stride: int, tensorflow_padding: bool
) -> None:
    torch.manual_seed(0)
    network = PoseNet(width, 3, 1, stride, tensorflow_padding=tensorflow_padding)
    pictures = torch.rand(4, 1, 64, 96) * 2 - 1
    with torch.no_grad():
        network(pictures)  # gives the norms something to fold
        network.eval()
        before = network(pictures)
        fold_norms(network)
        merge_first_bottleneck(network.backbone)
        after = network(pictures)
    assert before.shape == (4, 3, 64 // stride, 96 // stride)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in network.modules())
