"""rig.toml: what is wrong is said, all at once, with its place, its value and what is allowed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtpose.config import load_rig
from rtpose.errors import ConfigError
from rtpose.messages import Command
from rtpose_hardware.virtual import VirtualOutput

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
    assert "equal to 0.001" in found["outputs.board.lines.laser.max_on_ms"]
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


# ------------------------------------------- trains, doses, levels, designs, forecast, experiments

FULL = """
[cameras.top]
type = "synthetic"

[model]
path = "demo"

[arena]
px_per_mm = 2.5

[forecast]
model = "constant-acceleration"
output_delay_ms = 3.0

[experiment]
seed = 5
session_s = 600
trial_s = 30
inter_trial_s = [5, 10]
max_trials = 12
catch_probability = 0.1

[outputs.board]
type = "virtual"

[outputs.board.lines.laser]
pin = 3
max_on_ms = 100
refractory_ms = 20
dose_ms = 500
dose_window_s = 60

[outputs.board.lines.lamp]
pin = 1
max_on_ms = 1000
levels = true

[outputs.tones]
type = "osc"
port = 9000
lines.tone = { pin = 0, max_on_ms = 500 }

[triggers.zone]
type = "region"
keypoint = "snout"
circle = { x_px = 10, y_px = 20, radius_px = 5 }
when = "enter"
output = "board.laser"
pulse_ms = 5
train = { count = 4, period_ms = 50, delay_ms = 2 }
forecast = true
probability = 0.5
"""


def test_everything_about_an_experiment_is_read_and_printed(tmp_path: Path) -> None:
    settings = load_rig(write(tmp_path, FULL)).to_dict()
    assert settings["experiment"] == {
        "seed": 5,
        "baseline": False,
        "session_s": 600.0,
        "trial_s": 30.0,
        "inter_trial_s": (5.0, 10.0),
        "max_trials": 12,
        "catch_probability": 0.1,
    }
    assert settings["forecast"]["model"] == "constant-acceleration"
    assert settings["forecast"]["output_delay_ms"] == 3.0
    assert settings["arena"] == {"px_per_mm": 2.5}
    zone = settings["triggers"]["zone"]
    assert zone["train"] == {"count": 4, "period_ms": 50.0, "delay_ms": 2.0}
    assert (zone["forecast"], zone["probability"], zone["sham"]) == (True, 0.5, False)
    lines = settings["outputs"]["board"]["lines"]
    assert (lines["laser"]["dose_ms"], lines["laser"]["dose_window_s"]) == (500.0, 60.0)
    assert (lines["laser"]["levels"], lines["lamp"]["levels"]) == (False, True)


def test_their_defaults_are_printed(tmp_path: Path) -> None:
    settings = load_rig(write(tmp_path, GOOD)).to_dict()
    assert settings["experiment"]["catch_probability"] == 0
    assert settings["experiment"]["seed"] is None
    assert settings["forecast"]["output_delay_ms"] > 0
    assert settings["arena"] == {"px_per_mm": None}
    zone = settings["triggers"]["zone"]
    assert (zone["probability"], zone["sham"], zone["yoked_to"], zone["train"]) == (
        1.0,
        False,
        None,
        None,
    )
    assert settings["outputs"]["board"]["lines"]["laser"]["refractory_ms"] == 0


TRAIN = "train = { count = 4, period_ms = 50, delay_ms = 2 }"
DOSE = "dose_ms = 500\ndose_window_s = 60"
INTERVAL = "inter_trial_s = [5, 10]"
OWN = "forecast = true\nprobability = 0.5"


@pytest.mark.parametrize(
    ("old", "new", "key", "words"),
    [
        # trains
        (TRAIN, "train = { count = 0, period_ms = 50 }", "triggers.zone.train.count", "equal to 1"),
        (TRAIN, "train = { period_ms = 50 }", "triggers.zone.train.count", "this key is needed"),
        (TRAIN, "train = 4", "triggers.zone.train", "got 4"),
        (
            TRAIN,
            "train = { count = 4, period = 50 }",
            "triggers.zone.train.period",
            "did you mean period_ms? allowed: count, period_ms, delay_ms",
        ),
        (
            TRAIN,
            "train = { count = 4, period_ms = 5 }",
            "triggers.zone",
            "train.period_ms = 5 must be more than pulse_ms = 5",
        ),
        (
            TRAIN,
            "train = { count = 4, period_ms = 5.0004 }",  # the same in whole microseconds
            "triggers.zone",
            "train.period_ms = 5.0004 must be more than pulse_ms = 5",
        ),
        (
            TRAIN,
            "train = { count = 4, period_ms = 24.9 }",
            "triggers.zone.train.period_ms",
            "leaves 19.9 ms between pulses (at least board.laser's refractory_ms = 20)",
        ),
        (
            TRAIN,
            "train = { count = 101, period_ms = 50 }",
            "triggers.zone.train",
            "is high for 505 ms (at most board.laser's dose_ms = 500)",
        ),
        (
            TRAIN,
            "train = { count = 50, period_ms = 12500 }",
            "triggers.zone.train",
            "lasts 612.505 s (at most 600 s)",
        ),
        (
            f"pulse_ms = 5\n{TRAIN}",
            TRAIN,
            "triggers.zone",
            "train needs pulse_ms: how long is each of its pulses?",
        ),
        (
            'output = "board.laser"',
            'output = "tones.tone"',
            "triggers.zone.train",
            "osc outputs cannot time trains",
        ),
        (
            TRAIN,
            "train = { count = 4, period_ms = 50, delay_ms = 0.05 }",
            "triggers.zone.train",
            "virtual outputs take no delay of 50 us, but 0 or 100 us or more",
        ),
        (
            f"pulse_ms = 5\n{TRAIN}",
            "pulse_ms = 0.01",
            "triggers.zone.pulse_ms",
            "virtual outputs cannot be high for 10 us, but for 20 us or more",
        ),
        # doses
        (DOSE, "dose_ms = 0", "outputs.board.lines.laser.dose_ms", "greater than 0, got 0"),
        (
            DOSE,
            "dose_window_s = 60",
            "outputs.board.lines.laser",
            "dose_window_s has a meaning with dose_ms only",
        ),
        (
            DOSE,
            "dose_ms = 501\ndose_window_s = 0.5",
            "outputs.board.lines.laser",
            "dose_ms = 501 is more than dose_window_s = 0.5 s has",
        ),
        (DOSE, "dose = 3", "outputs.board.lines.laser.dose", "did you mean dose_ms?"),
        # levels
        ("levels = true", 'levels = "yes"', "outputs.board.lines.lamp.levels", "'yes'"),
        (
            "max_on_ms = 500 }",
            "max_on_ms = 500, levels = true }",
            "outputs.tones",
            "line 'tone' cannot take levels: this output only knows on and off",
        ),
        # designs
        (OWN, "probability = 0", "triggers.zone.probability", "greater than 0, got 0"),
        (OWN, "probability = 1.1", "triggers.zone.probability", "less than or equal to 1, got 1.1"),
        (OWN, "sham = 1", "triggers.zone.sham", "valid boolean, got 1"),
        (OWN, 'yoked_to = "absent.jsonl"', "triggers.zone.yoked_to", "no such file: "),
        (OWN, 'yoked_trigger = "z"', "triggers.zone", "yoked_trigger needs yoked_to: in which run"),
        (
            OWN,
            'sham = true\nyoked_to = "rig.toml"',
            "triggers.zone",
            "a yoked trigger cannot be a sham or have a probability too",
        ),
        (OWN, "forecast = 3", "triggers.zone.forecast", "valid boolean, got 3"),
        # widths
        ("pulse_ms = 5", "pulse_ms = 0.0004", "triggers.zone.pulse_ms", "equal to 0.001"),
        (
            "max_on_ms = 1000",
            "max_on_ms = 0.0004",
            "outputs.board.lines.lamp.max_on_ms",
            "equal to 0.001",
        ),
        # experiments
        ("seed = 5", "seed = -1", "experiment.seed", "greater than or equal to 0, got -1"),
        ("session_s = 600", "session_s = 0", "experiment.session_s", "greater than 0, got 0"),
        ("trial_s = 30\n", "trial_s = inf\n", "experiment.trial_s", "finite number"),
        (
            f"trial_s = 30\n{INTERVAL}",
            INTERVAL,
            "experiment",
            "inter_trial_s needs trial_s: when a trial ends",
        ),
        (
            INTERVAL,
            "inter_trial_s = [10, 5]",
            "experiment",
            "inter_trial_s = [10.0, 5.0] must be least, most",
        ),
        (INTERVAL, "inter_trial_s = 5", "experiment.inter_trial_s", "must be an array, as in ["),
        (INTERVAL, "inter_trial_s = [5]", "experiment.inter_trial_s.1", "this key is needed"),
        (INTERVAL, "inter_trial_s = [0, 5]", "experiment.inter_trial_s.0", "greater than 0, got 0"),
        ("max_trials = 12", "max_trials = 0", "experiment.max_trials", "got 0"),
        (
            "catch_probability = 0.1",
            "catch_probability = 1.5",
            "experiment.catch_probability",
            "less than or equal to 1, got 1.5",
        ),
        ("catch_probability", "catch_probabilty", "experiment.catch_probabilty", "did you mean"),
        # forecast, arena
        (
            '"constant-acceleration"',
            '"linear"',
            "forecast.model",
            "'constant-velocity' or 'constant-acceleration'",
        ),
        ("output_delay_ms = 3.0", "output_delay_ms = -1", "forecast.output_delay_ms", "got -1"),
        (
            "output_delay_ms = 3.0",
            "output_delay_ms = 200",
            "forecast",
            "beyond max_gap_ms = 200: no keypoint would have a forecast",
        ),
        ("output_delay_ms = 3.0", "gate = 1", "forecast.gate", "greater than or equal to 4"),
        ("output_delay_ms = 3.0", "delay_ms = 1", "forecast.delay_ms", "did you mean"),
        ("px_per_mm = 2.5", "px_per_mm = 0", "arena.px_per_mm", "greater than 0, got 0"),
    ],
)
def test_one_problem_of_an_experiment_names_its_key_and_what_is_allowed(
    tmp_path: Path, old: str, new: str, key: str, words: str
) -> None:
    assert FULL.count(old) == 1
    found = problems(tmp_path, FULL.replace(old, new))
    assert list(found) == [key]
    assert words in found[key]


def test_a_pulse_that_no_dose_would_ever_allow_is_refused(tmp_path: Path) -> None:
    text = FULL.replace(TRAIN, "").replace("dose_ms = 500", "dose_ms = 4")
    found = problems(tmp_path, text)
    assert list(found) == ["triggers.zone.pulse_ms"]
    assert "is high for 5 ms (at most board.laser's dose_ms = 4)" in found["triggers.zone.pulse_ms"]


def test_numbers_that_binary_fractions_only_come_near_to_are_taken(tmp_path: Path) -> None:
    text = FULL.replace("pulse_ms = 5", "pulse_ms = 0.1").replace("dose_ms = 500", "dose_ms = 0.3")
    text = text.replace(TRAIN, "train = { count = 3, period_ms = 20.1 }")
    assert load_rig(write(tmp_path, text)).triggers["zone"].common.train is not None


def test_what_would_disarm_is_refused_where_nothing_would(tmp_path: Path) -> None:
    found = problems(tmp_path, GOOD + '[latency]\npolicy = "skip"\ndisarm_after = 5\n')
    assert 'disarm_after = 5 has a meaning with policy = "disarm" only' in found["latency"]


@given(
    width_us=st.integers(1, 200_000),
    low_us=st.integers(1, 200_000),
    count=st.integers(1, 65_535),
    delay_us=st.integers(0, 600_000_000),
)
def test_a_train_that_the_settings_allow_can_be_sent(
    tmp_path_factory: pytest.TempPathFactory,
    width_us: int,
    low_us: int,
    count: int,
    delay_us: int,
) -> None:
    period_ms = (width_us + low_us) / 1000
    train = f"train = {{ count = {count}, period_ms = {period_ms}, delay_ms = {delay_us / 1000} }}"
    text = FULL.replace(TRAIN, train).replace("pulse_ms = 5\n", f"pulse_ms = {width_us / 1000}\n")
    text = text.replace(DOSE, "").replace("refractory_ms = 20", "refractory_ms = 0.01")
    path = write(tmp_path_factory.mktemp("rig"), text)
    length_us = delay_us + (count - 1) * (width_us + low_us) + width_us
    try:
        rig = load_rig(path)
    except ConfigError:
        assert (
            length_us > 600_000_000
            or not 20 <= width_us <= 100_000
            or 0 < delay_us < 100
            or delay_us > 60_000_000
            or (count > 1 and (low_us < 20 or width_us + low_us < 500))
        )
        return
    zone = rig.triggers["zone"].common
    assert zone.train is not None and zone.pulse_ms is not None
    command = Command(
        command_id=1,
        output="board",
        line="laser",
        action="train",
        width_us=round(zone.pulse_ms * 1000),
        delay_us=round(zone.train.delay_ms * 1000),
        period_us=round(zone.train.period_ms * 1000),
        count=count,
    )
    assert command.length_us == length_us
    assert not VirtualOutput.misfit(command)
