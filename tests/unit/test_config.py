"""rig.toml: what is wrong is said, all at once, with its place, its value and what is allowed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtpose.config import load_rig
from rtpose.errors import ConfigError

GOOD = """
[cameras.top]
type = "synthetic"
width_px = 320
height_px = 240
rate_hz = 100

[model]
path = "demo"

[outputs.board]
type = "virtual"

[outputs.board.lines.laser]
pin = 3
max_on_ms = 100

[triggers.zone]
type = "region"
keypoint = "snout"
circle = { x_px = 10, y_px = 20, radius_px = 5 }
when = "enter"
output = "board.laser"
pulse_ms = 5
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "rig.toml"
    path.write_text(text)
    return path


def problems(folder: Path, text: str) -> dict[str, str]:
    """Return the text of every problem, by its key path."""
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        load_rig(path)
    assert str(path) in str(caught.value)
    return {p.where.removeprefix(f"{path}: "): str(p) for p in caught.value.problems}


def test_good_rig_is_read_with_defaults_filled_in(tmp_path: Path) -> None:
    rig = load_rig(write(tmp_path, GOOD))
    assert rig.camera.name == "top"
    assert rig.triggers["zone"].target == ("board", "laser")
    assert rig.latency.policy == "skip"
    settings = rig.to_dict()
    assert settings["stream"]["host"] == "127.0.0.1"
    assert settings["outputs"]["board"]["lines"]["laser"]["pin"] == 3
    assert settings["cameras"]["top"]["width_px"] == 320


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    text = (
        GOOD.replace('when = "enter"', 'when = "enters"')
        .replace("rate_hz = 100", 'rate_hz = "fast"\nratte_hz = 3')
        .replace("max_on_ms = 100", "max_on_ms = -1")
        .replace("[model]", "[modle]\n[model]\nthread = 2")
    )
    found = problems(tmp_path, text)
    assert set(found) == {
        "triggers.zone.when",
        "cameras.top.rate_hz",
        "cameras.top.ratte_hz",
        "outputs.board.lines.laser.max_on_ms",
        "modle",
        "model.thread",
    }
    assert "'enters'" in found["triggers.zone.when"]
    assert "'enter', 'leave', 'inside' or 'outside'" in found["triggers.zone.when"]
    assert "greater than 0" in found["outputs.board.lines.laser.max_on_ms"]
    assert "-1" in found["outputs.board.lines.laser.max_on_ms"]
    assert "did you mean rate_hz?" in found["cameras.top.ratte_hz"]
    assert "did you mean model?" in found["modle"]
    assert "did you mean threads?" in found["model.thread"]


@pytest.mark.parametrize(
    ("old", "new", "key", "words"),
    [
        ('output = "board.laser"', 'output = "bord.laser"', "triggers.zone.output", "board"),
        ('output = "board.laser"', 'output = "board.lazer"', "triggers.zone.output", "board.laser"),
        ("pulse_ms = 5", "pulse_ms = 500", "triggers.zone.pulse_ms", "max_on_ms = 100"),
        ('type = "region"', 'type = "regoin"', "triggers.zone.type", "did you mean 'region'"),
        ('type = "synthetic"', 'type = "json:loads"', "cameras.top.type", "not a Camera"),
        ('type = "synthetic"', 'type = "nosuch:Thing"', "cameras.top.type", "cannot import"),
        ("[model]\n", "[modl]\n", "model.path", "needed"),
        ("pin = 3", "pin = 3.5", "outputs.board.lines.laser.pin", "3.5"),
        ("radius_px = 5", "radius = 5", "triggers.zone.circle.radius", "x_px, y_px, radius_px"),
        (
            "pin = 3",
            "pin = 3\nmax_on = 1",
            "outputs.board.lines.laser.max_on",
            "did you mean max_on",
        ),
        ("pin = 3", "pin = 300", "outputs.board.lines.laser.pin", "less than or equal to 63"),
        ("[model]\n", "[latency]\npolicy = 'ignore'\n[model]\n", "latency.policy", "'skip'"),
        ("[model]\n", "[stream]\nhost = '0.0.0.0'\n[model]\n", "stream.host", "insecure = true"),
        ("[model]\n", "[stream]\npose_port = 5561\n[model]\n", "stream", "must differ"),
        (
            "[model]\n",
            "[stream]\ncurve_secret_key_file = 'absent.key_secret'\n[model]\n",
            "stream.curve_secret_key_file",
            "no such file",
        ),
    ],
)
def test_one_problem_names_its_key_and_what_is_allowed(
    tmp_path: Path, old: str, new: str, key: str, words: str
) -> None:
    assert old in GOOD
    found = problems(tmp_path, GOOD.replace(old, new))
    assert key in found
    assert words in found[key]


def test_two_lines_must_not_share_a_pin(tmp_path: Path) -> None:
    text = GOOD + "\n[outputs.board.lines.valve]\npin = 3\nmax_on_ms = 10\n"
    assert "laser's already" in problems(tmp_path, text)["outputs.board.lines.valve.pin"]


@pytest.mark.parametrize("name", ["the zone", "a.b", "", "x" * 65, "é"])
@pytest.mark.parametrize("table", ["triggers.zone", "outputs.board.lines.laser"])
def test_names_that_cannot_be_part_of_a_topic_are_refused(
    tmp_path: Path, table: str, name: str
) -> None:
    new = f'{table.rpartition(".")[0]}."{name}"'
    found = problems(tmp_path, GOOD.replace(f"[{table}]", f"[{new}]"))
    assert any(repr(name) in text or "should match pattern" in text for text in found.values())


def test_one_camera_is_needed(tmp_path: Path) -> None:
    text = GOOD + '\n[cameras.side]\ntype = "synthetic"\n'
    assert "give one" in problems(tmp_path, text)["cameras"]


def test_binding_beyond_loopback_can_be_meant(tmp_path: Path) -> None:
    text = GOOD + '\n[stream]\nhost = "0.0.0.0"\ninsecure = true\n'
    assert load_rig(write(tmp_path, text)).stream.insecure


@pytest.mark.parametrize("text", ["[model", "x = ", "a = 1\na = 2", "\x00"])
def test_what_is_not_toml_says_where(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"is not TOML: .*(line \d|end of document)"):
        load_rig(write(tmp_path, text))


def test_absent_file_and_wrong_encoding_are_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_rig(tmp_path / "absent.toml")
    path = tmp_path / "rig.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_rig(path)


values = st.recursive(
    st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@given(key=st.sampled_from(["cameras", "model", "outputs", "triggers", "stream"]), value=values)
def test_a_value_where_a_table_belongs_is_a_problem_not_a_crash(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: object
) -> None:
    import json

    folder = tmp_path_factory.mktemp("rig")
    text = f"{key} = {json.dumps(value, ensure_ascii=True)}\n"
    with pytest.raises(ConfigError):
        load_rig(write(folder, text))


def test_paths_are_beside_the_rig_file(tmp_path: Path) -> None:
    assert load_rig(write(tmp_path, GOOD)).recording.folder == str(tmp_path / "runs")
    text = GOOD + '\n[recording]\nfolder = "somewhere"\n'
    assert load_rig(write(tmp_path, text)).recording.folder == str(tmp_path / "somewhere")
