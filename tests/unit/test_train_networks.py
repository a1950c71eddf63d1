"""The networks are the published ones, take any image, and are found by name."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rtpose.errors import InputError, ModelError
from rtpose_train.networks.hourglass import StackedHourglass
from rtpose_train.networks.leap import Leap
from rtpose_train.networks.macs import count_macs
from rtpose_train.networks.network import MobileNetV2, PoseNet, run_heads
from rtpose_train.networks.registry import build_network, default_settings
from rtpose_train.networks.resnet import ResNet50, ResNetPose
from rtpose_train.networks.stacked_densenet import StackedDenseNet, _Block
from rtpose_train.networks.weights import load_backbone
from rtpose_train.training.config import build_settings

NAMES = [
    "mobilenetv2-0.35",
    "mobilenetv2-0.35-tf",
    "stacked-densenet",
    "leap",
    "hourglass",
    "resnet50",
]


def _parameters(network: nn.Module) -> int:
    return sum(value.numel() for value in network.parameters())


def _running_statistics(network: nn.Module) -> int:
    """What Keras counts as parameters of its norms and torch does not."""
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    return sum(2 * norm.num_features for norm in norms)


@pytest.mark.parametrize(
    ("transitions", "channels", "maps", "stacks", "downsample", "parameters"),
    [
        (5, 1, 66, 2, 2, 1_463_606),  # fly, 192x192
        (5, 1, 66, 2, 3, 924_894),
        (5, 1, 66, 2, 1, 2_646_196),
        (5, 1, 66, 2, 4, 598_188),
        (5, 1, 66, 1, 2, 291_089),
        (5, 1, 66, 1, 3, 267_561),
        (4, 1, 72, 2, 2, 841_705),  # locust, 160x160
        (4, 1, 72, 2, 3, 487_834),
        (4, 1, 72, 2, 1, 1_497_380),
        (4, 1, 20, 2, 2, 683_961),  # zebra, 160x160
        (4, 1, 20, 2, 3, 430_881),
        (4, 1, 20, 2, 1, 1_348_776),
        (4, 3, 20, 2, 2, 701_437),
        (4, 3, 20, 2, 3, 424_759),
        (6, 1, 34, 2, 2, 2_600_025),  # 256x256
        (6, 1, 34, 2, 3, 1_557_342),
    ],
)
def test_stacked_densenet_has_the_published_parameter_counts(
    transitions: int, channels: int, maps: int, stacks: int, downsample: int, parameters: int
) -> None:
    network = StackedDenseNet(
        maps,
        channels,
        transitions=transitions,
        downsample=downsample,
        stacks=stacks,
        quirks=True,
    )
    assert _parameters(network) == parameters


def test_stacked_densenet_has_the_published_channels_everywhere() -> None:
    network = StackedDenseNet(66, quirks=True)
    shapes: list[tuple[int, int, int]] = []

    def note(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        shapes.append((inputs[0].shape[2], inputs[0].shape[1], shapes_of[_layer]))

    shapes_of: dict[nn.Module, int] = {}
    for part in network.modules():
        if isinstance(part, _Block):
            shapes_of[part] = part.outputs
            part.register_forward_pre_hook(note)
    with torch.no_grad():
        network.eval()(torch.zeros(1, 1, 192, 192))
    assert shapes == [
        (96, 49, 97),
        (48, 48, 96),
        (24, 48, 96),
        (12, 48, 96),
        (6, 48, 96),
        (12, 72, 120),
        (24, 78, 126),
        (48, 201, 249),
        (48, 190, 334),
        (24, 167, 311),
        (12, 156, 300),
        (6, 150, 294),
        (12, 223, 319),
        (24, 236, 284),
        (48, 405, 453),
    ]
    heads = [
        part
        for part in network.modules()
        if isinstance(part, nn.Conv2d) and part.out_channels == 66
    ]
    assert [head.in_channels for head in heads] == [124, 226]
    assert sum(isinstance(part, nn.Conv2d) for part in network.modules()) == 68


@pytest.mark.parametrize(
    ("size", "transitions", "channels", "maps", "downsample", "gmac"),
    [
        (192, 5, 1, 66, 2, 1.581),
        (192, 5, 1, 66, 3, 0.589),
        (192, 5, 1, 66, 4, 0.368),
        (160, 4, 1, 72, 2, 0.913),
        (160, 4, 3, 20, 3, 0.362),
        (256, 6, 1, 34, 2, 3.255),
    ],
)
def test_stacked_densenet_computes_as_much_as_published(
    size: int, transitions: int, channels: int, maps: int, downsample: int, gmac: float
) -> None:
    network = StackedDenseNet(
        maps, channels, transitions=transitions, downsample=downsample, quirks=True
    )
    assert count_macs(network, channels, size, size) / 1e9 == pytest.approx(gmac, rel=0.01)


def test_macs_are_counted_by_hand_on_small_layers() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, padding=1),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.ConvTranspose2d(8, 4, 4, 2, 1),
    )
    cells = 5 * 4
    assert count_macs(network, 3, 10, 8) == cells * (8 * 3 * 9 + 8 * 9 + 8 * 4 * 16)
    assert network.training


def test_without_the_doubled_records_stacked_densenet_is_smaller() -> None:
    quirky, clean = StackedDenseNet(66, quirks=True), StackedDenseNet(66)
    assert _parameters(clean) < 0.9 * _parameters(quirky)
    assert count_macs(clean, 1, 192, 192) < count_macs(quirky, 1, 192, 192)


def test_stacked_densenet_starts_with_activations_of_one_scale_and_empty_maps() -> None:
    torch.manual_seed(0)
    network = StackedDenseNet(4)
    scales: list[float] = []
    for part in network.modules():
        if isinstance(part, nn.SELU):
            part.register_forward_hook(lambda _l, _i, output: scales.append(float(output.std())))
    with torch.no_grad():
        maps = network(torch.randn(2, 1, 64, 64))
    assert min(scales) > 0.3 and max(scales) < 2.0
    assert all(float(head.abs().max()) < 0.1 for head in maps)


def test_the_second_network_reads_the_maps_of_the_first() -> None:
    torch.manual_seed(0)
    network = StackedDenseNet(4).eval()
    picture = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        _, before = network(picture)
        network.get_parameter("networks.0.decoder.head.bias").add_(1.0)
        _, after = network(picture)
    assert not torch.allclose(before, after)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"downsample": 0}, "downsample exponent is 0, allowed: 1 to 4"),
        ({"downsample": 5, "transitions": 6}, "allowed: 1 to 4"),
        ({"transitions": 2}, "more than the downsample exponent"),
        ({"growth": 0}, "growth is 0"),
        ({"stacks": 0}, "stacks is 0"),
        ({"bottleneck": 0.0}, "bottleneck is 0"),
        ({"compression": 1.5}, "compression 1.5"),
    ],
)
def test_impossible_stacked_densenets_are_refused(options: dict[str, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        StackedDenseNet(4, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"filters": 7}, {"stacks": 0}, {"transitions": 2}])
def test_impossible_hourglasses_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(InputError, match="allowed"):
        StackedHourglass(4, **options)


@pytest.mark.parametrize(("maps", "parameters"), [(32, 2_545_952), (66, 2_585_154)])
def test_leap_has_the_published_parameter_count(maps: int, parameters: int) -> None:
    assert _parameters(Leap(maps)) == parameters


@pytest.mark.parametrize(
    ("filters", "stacks", "parameters"), [(64, 2, 537_420), (256, 1, 4_232_002)]
)
def test_hourglass_has_the_published_parameter_count(
    filters: int, stacks: int, parameters: int
) -> None:
    network = StackedHourglass(66, filters=filters, stacks=stacks)
    assert _parameters(network) + _running_statistics(network) == parameters


@pytest.mark.parametrize(("stride", "parameters"), [(4, 23_891_906), (8, 24_804_290)])
def test_resnet_has_the_published_parameter_count(stride: int, parameters: int) -> None:
    network = ResNetPose(66, stride=stride)
    keras_biases = 26_560  # of its convolutions, useless before a norm
    assert _parameters(network) + _running_statistics(network) + keras_biases == parameters


def test_resnet_has_torchvisions_names_and_count() -> None:
    backbone = ResNet50()
    # 25,557,032 of the whole resnet50, less 2,049,000 of its classifier.
    assert _parameters(backbone) == 23_508_032
    names = set(backbone.state_dict())
    assert {
        "conv1.weight",
        "bn1.running_var",
        "layer1.0.downsample.1.num_batches_tracked",
        "layer3.5.conv2.weight",
        "layer4.2.bn3.bias",
    } <= names
    assert len(names) == 318


def test_resnet_starts_from_torchvision_weights_and_sees_grey_as_colour(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    file = tmp_path_factory.mktemp("weights") / "resnet.pth"
    torch.save({**ResNet50().state_dict(), "fc.weight": torch.zeros(1000, 2048)}, file)
    grey, colour = ResNetPose(3, 1).eval(), ResNetPose(3, 3).eval()
    load_backbone(grey, file, "gray", "imagenet")
    load_backbone(colour, file, "rgb", "imagenet")
    picture = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        features = grey.backbone(picture), colour.backbone(picture.expand(1, 3, 64, 64))
    torch.testing.assert_close(*features, rtol=1e-4, atol=1e-4)
    with pytest.raises(ModelError, match="not the torchvision-layout weights"):
        load_backbone(build_network("mobilenetv2-0.35", 3, 1, 4), file, "gray")
    with pytest.raises(InputError, match="leave out the weights"):
        load_backbone(build_network("stacked-densenet", 3, 1, 4), file, "gray")


@pytest.mark.parametrize("width", [0.35, 0.5, 0.75, 1.0, 1.4])
@pytest.mark.parametrize("stride", [4, 8, 16])
def test_every_mobilenet_has_every_stride(width: float, stride: int) -> None:
    network = build_network(f"mobilenetv2-{width}", 3, 1, stride).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 1, 32, 64)).shape == (1, 3, 32 // stride, 64 // stride)


def test_tensorflow_padding_centres_strided_convolutions_one_pixel_later() -> None:
    torch.manual_seed(0)
    ours, theirs = MobileNetV2(0.35, 1).eval(), MobileNetV2(0.35, 1, tensorflow_padding=True).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    picture = torch.rand(1, 1, 64, 64)
    shifted = torch.nn.functional.pad(picture, (0, 1, 0, 1))[:, :, 1:, 1:]
    with torch.no_grad():
        stem_ours, stem_theirs = ours.features[0](shifted), theirs.features[0](picture)
        assert theirs(picture)[-1].shape == ours(picture)[-1].shape
        odd = torch.rand(1, 1, 33, 47)
        torch.testing.assert_close(theirs.features[0](odd), ours.features[0](odd))
    # All but the first row and column, where padding of ours stands for pixels of theirs.
    torch.testing.assert_close(stem_ours[:, :, 1:, 1:], stem_theirs[:, :, 1:, 1:])
    assert not torch.allclose(stem_ours[:, :, 0], stem_theirs[:, :, 0])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_network_draws_the_maps_that_its_settings_promise(name: str, channels: int) -> None:
    chosen = build_settings({"model": name, "width_px": 101, "height_px": 50})
    network = build_network(name, 5, channels, chosen.stride).eval()
    with torch.no_grad():
        heads = run_heads(network, torch.zeros(2, channels, 50, 101))
    assert {head.shape for head in heads} == {(2, 5, chosen.maps.height, chosen.maps.width)}
    assert len(heads) == (2 if name in {"stacked-densenet", "hourglass"} else 1)


@settings(max_examples=12, deadline=None)
@given(
    name=st.sampled_from(
        ["stacked-densenet-4x2", "hourglass-4x2", "leap", "mobilenetv2-0.35", "mobilenetv2-0.1-tf"]
    ),
    width=st.integers(8, 80),
    height=st.integers(8, 80),
)
def test_padding_makes_any_size_fit_and_is_black_at_the_right_and_bottom(
    name: str, width: int, height: int
) -> None:
    stride = default_settings(name).get("stride", 4)
    torch.manual_seed(0)
    network = build_network(name, 2, 1, stride).eval()
    multiple = network.multiple
    assert isinstance(multiple, int)
    picture = torch.rand(1, 1, height, width) * 2 - 1
    whole = torch.full((1, 1, height + -height % multiple, width + -width % multiple), -1.0)
    whole[:, :, :height, :width] = picture
    rows, columns = -(-height // stride), -(-width // stride)
    with torch.no_grad():
        ours, padded = run_heads(network, picture), run_heads(network, whole)
    for maps, more in zip(ours, padded, strict=True):
        assert maps.shape == (1, 2, rows, columns)
        torch.testing.assert_close(maps, more[:, :, :rows, :columns])


def test_names_carry_growth_and_stacks() -> None:
    assert _parameters(build_network("stacked-densenet", 4, 1, 8)) == _parameters(
        StackedDenseNet(4, downsample=3)
    )
    assert _parameters(build_network("stacked-densenet-32x3", 4, 1, 2)) == _parameters(
        StackedDenseNet(4, downsample=1, growth=32, stacks=3)
    )
    assert _parameters(build_network("hourglass-256x1", 4, 1, 4)) == _parameters(
        StackedHourglass(4, filters=256, stacks=1)
    )
    assert isinstance(build_network("mobilenetv2-1.4-tf", 4, 1, 16), PoseNet)


@pytest.mark.parametrize("model", ["densenet", "stacked-densenet-0x2", "hourglass-", "", "LEAP"])
def test_an_unknown_name_is_answered_with_all_names(model: str) -> None:
    with pytest.raises(InputError) as caught:
        build_network(model, 4, 1, 4)
    for name in ("mobilenetv2-0.35", "stacked-densenet", "leap", "hourglass", "resnet50"):
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("model", "stride", "allowed"),
    [("leap", 4, "1"), ("resnet50", 16, "4, 8"), ("stacked-densenet", 3, "2, 4, 8, 16")],
)
def test_strides_that_a_network_lacks_are_refused(model: str, stride: int, allowed: str) -> None:
    with pytest.raises(InputError, match=f"allowed: {allowed}$"):
        build_network(model, 4, 1, stride)
