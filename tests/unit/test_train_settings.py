"""Training settings: out of a file, the network and the command line, or refused all at once."""

import tomllib
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rtpose.errors import ConfigError, InputError
from rtpose.model_card import InputSpec
from rtpose_train.networks.network import run_heads
from rtpose_train.networks.registry import build_network
from rtpose_train.training.augment import AugmentSettings
from rtpose_train.training.config import EXAMPLE, build_settings, read_config
from rtpose_train.training.settings import TrainSettings


def _config(folder: Path, text: str) -> Path:
    file = folder / "train.toml"
    file.write_text(text)
    return file


def test_the_printed_example_tells_every_setting_with_its_default() -> None:
    lines = EXAMPLE.read_text().splitlines()
    # A setting is a line such as "# key = value"; prose has no such start.
    active = [line[2:] for line in lines if line.startswith(("# [",)) or " = " in line[:32]]
    shown = tomllib.loads("\n".join(active))
    assert shown.keys() == TrainSettings.model_fields.keys()
    assert shown["augment"].keys() == AugmentSettings.model_fields.keys()
    defaults = TrainSettings().model_dump()
    assert shown.pop("augment") == defaults.pop("augment")
    # Those without a default show what one may type.
    for name in [name for name, value in defaults.items() if value is None]:
        shown.pop(name)
        defaults.pop(name)
    assert shown == defaults
    assert tomllib.loads(EXAMPLE.read_text()) == {}


def test_the_command_line_goes_before_the_file_and_the_file_before_the_network(
    tmp_path: Path,
) -> None:
    file = _config(
        tmp_path, 'model = "leap"\nsigma = 4.0\nsteps = 100\n[augment]\nrotation_deg = 10\n'
    )
    chosen = build_settings({"steps": 50}, read_config(file), str(file))
    assert (chosen.steps, chosen.sigma, chosen.stride) == (50, 4.0, 1)
    assert chosen.augment.rotation_deg == 10
    assert chosen.augment.scale == AugmentSettings().scale
    other = build_settings({"model": "mobilenetv2-0.5"}, read_config(file), str(file))
    assert other.stride == TrainSettings().stride


def test_a_weight_file_is_relative_to_the_file_that_names_it(tmp_path: Path) -> None:
    file = _config(tmp_path, 'pretrained = "weights/start.pth"\n')
    assert read_config(file)["pretrained"] == str(tmp_path / "weights" / "start.pth")
    file = _config(tmp_path, 'pretrained = "imagenet"\n')
    assert read_config(file)["pretrained"] == "imagenet"


def test_everything_that_is_wrong_is_said_at_once_with_file_and_full_key(tmp_path: Path) -> None:
    file = _config(
        tmp_path,
        'learning_rat = 0.1\nsigma = 0.5\nsteps = "many"\ncolour = "red"\n'
        "[augment]\nrotation = 5\nscale = 0.5\n",
    )
    with pytest.raises(ConfigError) as caught:
        build_settings({"batch": 0}, read_config(file), str(file))
    problems = {problem.where: problem for problem in caught.value.problems}
    assert set(problems) == {
        f"{file}: learning_rat",
        f"{file}: sigma",
        f"{file}: steps",
        f"{file}: colour",
        f"{file}: augment.rotation",
        f"{file}: augment.scale",
        "batch",
    }
    assert "did you mean learning_rate? allowed: model," in str(problems[f"{file}: learning_rat"])
    assert "did you mean rotation_deg?" in str(problems[f"{file}: augment.rotation"])
    assert "1.25, got 0.5" in str(problems[f"{file}: sigma"])
    assert "'many'" in str(problems[f"{file}: steps"])
    assert "'gray', 'rgb' or 'bgr'" in str(problems[f"{file}: colour"])


@pytest.mark.parametrize(
    ("text", "words"), [("steps = ", "is not TOML"), ("\udcff", "is not UTF-8")]
)
def test_a_file_that_is_no_settings_is_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "train.toml"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=words):
        read_config(file)
    with pytest.raises(ConfigError, match=r"absent\.toml: cannot be read"):
        read_config(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"patience": 5}, "a cycle that is cut short"),
        ({"width_px": 8}, "width_px: .*16"),
        ({"precision": "64"}, "precision"),
        ({"augment": 5}, "augment"),
        ({"model": 5}, "model"),
    ],
)
def test_settings_that_would_do_nothing_or_harm_are_refused(
    given: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        build_settings(given)


def test_an_unknown_network_is_answered_with_all_of_them() -> None:
    with pytest.raises(InputError, match="stacked-densenet"):
        build_settings({"model": "resnet-18"})


@given(width=st.integers(16, 90), height=st.integers(16, 90), stride=st.sampled_from([4, 8, 16]))
def test_any_size_gives_maps_that_cover_it(width: int, height: int, stride: int) -> None:
    chosen = TrainSettings(model="mobilenetv2-0.1", width_px=width, height_px=height, stride=stride)
    assert chosen.input == InputSpec(width_px=width, height_px=height, colour="gray")
    assert (chosen.maps.width - 1) * stride < width <= chosen.maps.width * stride
    network = build_network(chosen.model, 1, 1, stride).eval()
    with torch.no_grad():
        drawn = run_heads(network, torch.zeros(1, 1, height, width))[-1]
    assert drawn.shape == (1, 1, chosen.maps.height, chosen.maps.width)
