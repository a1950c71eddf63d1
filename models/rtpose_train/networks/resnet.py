"""ResNet-50 with DeepLabCut's head: Mathis et al. 2018 (Nature Neuroscience 21:1281-1289)."""

from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from rtpose.errors import InputError
from rtpose_train.networks.padding import cut_to_image

#: Channels inside a stage, blocks, first stride, dilation of what follows (He et al. 2016, table 1,
#: with the last stage dilated in place of strided, so that the features stay at stride 16).
_STAGES = ((64, 3, 1, 1), (128, 4, 2, 1), (256, 6, 2, 1), (512, 3, 1, 2))
_EXPANSION = 4


class _Bottleneck(nn.Module):
    """1x1 down, 3x3 (with the stride), 1x1 up, added to the input."""

    def __init__(self, inputs: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        outputs = width * _EXPANSION
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(
            width, width, 3, stride, padding=dilation, dilation=dilation, bias=False
        )
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        return functional.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ResNet50(nn.Module):
    """ResNet-50 without its classifier, at output stride 16, with torchvision's parameter names."""

    outputs = _STAGES[-1][0] * _EXPANSION
    stem = ("conv1.weight", "bn1.running_mean")

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inputs, stages = 64, []
        for width, blocks, stride, dilation in _STAGES:
            stage = nn.Sequential()
            for block in range(blocks):
                # The block that would have strided sees neighbours that are still adjacent.
                stage.append(
                    _Bottleneck(inputs, width, 1, dilation)
                    if block
                    else _Bottleneck(inputs, width, stride, 1)
                )
                inputs = width * _EXPANSION
            stages.append(stage)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return features (batch, 2048, height / 16, width / 16), rounded up."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.max_pool2d(x, 3, 2, padding=1)
        return cast("Tensor", self.layer4(self.layer3(self.layer2(self.layer1(x)))))


def _head(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    """Return a 3x3 deconvolution to exactly twice the resolution, which starts from empty maps."""
    layer = nn.ConvTranspose2d(inputs, outputs, 3, 2, padding=1, output_padding=1)
    nn.init.normal_(layer.weight, std=1e-3)
    nn.init.zeros_(cast("Tensor", layer.bias))
    return layer


class ResNetPose(nn.Module):
    """DeepLabCut's network: ResNet-50 and one deconvolution to maps (and location refinement).

    At stride 8 (DeepLabCut's own) the deconvolution reads all 2048 features; at stride 4 these go
    through depth-to-space first, as in DeepPoseKit's re-implementation (Graving et al. 2019,
    appendix 8). Maps are linear, to be trained by squared error like all maps here. Any input size:
    maps cover it, rounded up.

    Parameters
    ----------
    maps : int
        Number of maps.
    channels : int
        Input channels: 1 grey, 3 red-green-blue.
    stride : {4, 8}
        Input pixels per map cell.

    Raises
    ------
    InputError
        If there is no such stride.
    """

    multiple = 1

    def __init__(self, maps: int, channels: int = 3, stride: int = 8) -> None:
        super().__init__()
        if stride not in (4, 8):
            raise InputError(f"map stride {stride} px; allowed: 4, 8")
        self.stride = stride
        self.backbone = ResNet50(channels)
        self.maps = _head(self.backbone.outputs // (4 if stride == 4 else 1), maps)

    def forward(self, x: Tensor) -> Tensor:
        """Return maps for images in -1..1.

        Parameters
        ----------
        x : Tensor of float, shape (batch, channels, height, width)

        Returns
        -------
        Tensor of float, shape (batch, maps, height / stride, width / stride), rounded up
        """
        features = cast("Tensor", self.backbone(x))
        if self.stride == 4:
            features = functional.pixel_shuffle(features, 2)
        return cut_to_image(self.maps(features), x, self.stride)
