"""README: what its tables say can be written into a rig file is taken as it stands there."""

import re
from pathlib import Path

import pytest

from rtpose.config import load_rig
from rtpose.plugins import available
from rtpose.skeleton import Skeleton

README = Path(__file__).parents[2] / "README.md"
SKELETON = Skeleton(("snout", "leftear", "rightear", "tailbase"))
INNER = '{ type = "heading", back = "tailbase", front = "snout", towards_deg = 0, within_deg = 9 }'
RIG = """
[cameras.top]
type = "synthetic"
[model]
path = "demo"
[arena]
px_per_mm = 2.0
[outputs.board]
type = "virtual"
[outputs.board.lines.laser]
pin = 0
max_on_ms = 100
{line}
[triggers.it]
output = "board.laser"
{trigger}
[experiment]
{experiment}
"""


def table(heading: str) -> list[list[list[str]]]:
    """Return what is written as code in every cell of the table with a heading."""
    rows = README.read_text().split(f"\n| {heading} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [[re.findall(r"`([^`]+)`", cell) for cell in row.split(" | ")] for row in rows]


CONDITIONS = [(kind, row[2]) for row in table("condition: `type`") for kind in row[0]]


def test_every_condition_has_its_row() -> None:
    built_in = {n for n, point in available("triggers").items() if "rtpose." in point.value}
    assert {kind for kind, _ in CONDITIONS} == built_in


@pytest.mark.parametrize(("kind", "lines"), [c for c in CONDITIONS if c[0] != "proportional"])
def test_a_condition_is_taken_as_it_is_written(tmp_path: Path, kind: str, lines: list[str]) -> None:
    given = [line.replace("{ type = ... }", INNER) for line in lines]
    if not any(line.startswith("when") for line in given):
        given.append('when = "starts"')
    path = tmp_path / "rig.toml"
    trigger = "\n".join([f'type = "{kind}"', *given, "pulse_ms = 5"])
    path.write_text(RIG.format(line="", trigger=trigger, experiment=""))
    load_rig(path).check_triggers(SKELETON)


#: Where what a row has is written, if not in the trigger's own table.
PLACES = {"dose_ms": "line", "dose_window_s": "line"} | dict.fromkeys(
    (
        "trial_s",
        "inter_trial_s",
        "max_trials",
        "catch_probability",
        "baseline",
        "session_s",
        "seed",
    ),
    "experiment",
)


@pytest.mark.parametrize(
    "lines",
    [row[1] for row in table("design of the experiment")],
    ids=lambda lines: lines[0].split(" = ")[0],
)
def test_a_design_is_taken_as_it_is_written(tmp_path: Path, lines: list[str]) -> None:
    (tmp_path / "runs" / "...").mkdir(parents=True)
    (tmp_path / "runs" / "..." / "events.jsonl").touch()
    written = {"line": "", "experiment": "", "trigger": f'type = "not"\nof = {INNER}\n'}
    for line in lines:
        text = line.removeprefix("[experiment] ")
        written[PLACES.get(text.split(" = ")[0], "trigger")] += f"{text}\n"
    if "when" in written["trigger"]:  # a level; the row has pulses and trains beside it
        written["trigger"] = re.sub(r"(pulse_ms|train) = .*\n", "", written["trigger"])
    else:
        written["trigger"] += 'when = "starts"\n'
    if 'when = "starts"' in written["trigger"] and "pulse_ms" not in written["trigger"]:
        written["trigger"] += "pulse_ms = 5\n"
    path = tmp_path / "rig.toml"
    path.write_text(RIG.format(**written))
    load_rig(path).check_triggers(SKELETON)


OUTPUTS = [(row[0][0], row[2]) for row in table("output: `type`") if row[0]]


def test_every_output_has_its_row() -> None:
    assert {kind for kind, _ in OUTPUTS} == set(available("outputs"))


@pytest.mark.parametrize(("kind", "lines"), OUTPUTS)
def test_an_output_is_taken_as_it_is_written(tmp_path: Path, kind: str, lines: list[str]) -> None:
    (line,) = [text.split(" = ")[0].removeprefix("lines.") for text in lines if "lines." in text]
    given = "\n".join(["[outputs.it]", f'type = "{kind}"', *lines])
    path = tmp_path / "rig.toml"
    trigger = f'type = "not"\nof = {INNER}\nwhen = "starts"\npulse_ms = 5'
    rig = RIG.format(line="", trigger=trigger, experiment="")
    path.write_text(rig.replace('"board.laser"', f'"it.{line}"') + given)
    load_rig(path).check_triggers(SKELETON)
