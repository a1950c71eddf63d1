"""Weights that others trained: downloaded whole or not at all, and fitted to our input."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rtpose.errors import InputError, ModelError
from rtpose_train.networks import weights
from rtpose_train.networks.network import MobileNetV2, PoseNet
from rtpose_train.networks.resnet import ResNet50, ResNetPose
from rtpose_train.networks.weights import find_weights, load_backbone

CONTENT = b"weights of somebody else"
DIGITS = hashlib.sha256(CONTENT).hexdigest()[:8]
MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
DEVIATION = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


class _Shelf(BaseHTTPRequestHandler):
    """Serves the same bytes under every name."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Shelf)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/models/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """PyTorch's cache of downloads, empty."""
    # The progress bar that PyTorch never shows here would leave a thread behind.
    monkeypatch.setattr("torch.hub.tqdm.monitor_interval", 0)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


def test_named_weights_are_downloaded_once(
    url: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(weights._IMAGENET, "resnet50", f"resnet50-{DIGITS}.pth")
    file = find_weights("imagenet", "resnet50", url)
    assert file == cache / f"resnet50-{DIGITS}.pth"
    assert file.read_bytes() == CONTENT
    assert find_weights("imagenet", "resnet50", "http://127.0.0.1:1/") == file


def test_a_file_that_is_not_the_published_one_is_not_kept(url: str, cache: Path) -> None:
    with pytest.raises(ModelError, match=r"resnet50-0676ba61\.pth: not the published file"):
        find_weights("imagenet", "resnet50", url)
    assert list(cache.iterdir()) == []


def test_without_a_network_the_error_says_where_to_get_it_and_where_to_put_it(cache: Path) -> None:
    with pytest.raises(InputError) as caught:
        find_weights("imagenet", "mobilenetv2-1.0", "http://127.0.0.1:1/models/")
    assert "http://127.0.0.1:1/models/mobilenet_v2-7ebf99e0.pth" in str(caught.value)
    assert str(cache / "mobilenet_v2-7ebf99e0.pth") in str(caught.value)


def test_networks_without_published_weights_and_files_that_are_not_there_are_refused(
    tmp_path: Path,
) -> None:
    with pytest.raises(InputError, match=r"no imagenet weights for mobilenetv2-0\.35"):
        find_weights("imagenet", "mobilenetv2-0.35")
    with pytest.raises(InputError, match=r"absent\.pth: no such file"):
        find_weights(str(tmp_path / "absent.pth"), "resnet50")


def _random_state(network: nn.Module) -> dict[str, Tensor]:
    torch.manual_seed(5)
    return {
        name: torch.rand_like(value) if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }


@pytest.mark.parametrize("kind", ["mobilenet", "resnet"])
def test_torchvisions_normalisation_is_folded_into_the_first_layer(
    kind: str, tmp_path: Path
) -> None:
    theirs: nn.Module = MobileNetV2(0.35) if kind == "mobilenet" else ResNet50()
    state = _random_state(theirs)
    theirs.load_state_dict(state)
    theirs.eval()
    torch.save(state, tmp_path / "weights.pth")
    ours = PoseNet(0.35, 2, 3) if kind == "mobilenet" else ResNetPose(2, 3)
    load_backbone(ours, tmp_path / "weights.pth", "rgb", "imagenet")
    ours.eval()

    def stem(backbone: nn.Module, picture: Tensor) -> Tensor:
        if isinstance(backbone, MobileNetV2):
            answer: Tensor = backbone.features[0](picture)
        else:
            answer = backbone.bn1(backbone.conv1(picture))  # type: ignore[operator]
        return answer

    pixels = torch.randint(0, 256, (2, 3, 40, 56)).float()
    with torch.no_grad():
        expected = stem(theirs, (pixels / 255 - MEAN) / DEVIATION)
        found = stem(ours.backbone, pixels / 127.5 - 1)
    # All but the border, where theirs pads with the mean colour and ours with grey.
    torch.testing.assert_close(
        found[:, :, 2:-2, 2:-2], expected[:, :, 2:-2, 2:-2], rtol=1e-4, atol=1e-4
    )
