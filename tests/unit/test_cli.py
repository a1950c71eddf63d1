"""The command line: which verbs it has, and what they bring with them."""

import subprocess
import sys

import pytest
from typer.main import get_group
from typer.testing import CliRunner

from rtpose.cli import _VERBS, command_line

HEAVY = {"cv2", "numba", "onnxruntime", "torch", "serial"}


def registered(verb: str = "") -> set[str]:
    return set(get_group(command_line(verb)).commands)


def test_every_verb_is_found_alone_as_well_as_among_all() -> None:
    assert registered() == set(_VERBS)
    for verb in _VERBS:
        assert verb in registered(verb)
        helped = CliRunner().invoke(command_line(verb), [verb, "--help"])
        assert helped.exit_code == 0, helped.output


def test_an_unknown_verb_is_wrong_input() -> None:
    answer = CliRunner().invoke(command_line("armm"), ["armm"])
    assert answer.exit_code == 2
    assert "armm" in answer.output


@pytest.mark.parametrize("verb", ["estop", "disarm", "stop"])
def test_a_stop_waits_for_nothing_that_it_does_not_need(verb: str) -> None:
    code = (
        "import sys; from rtpose.cli import command_line; command_line(sys.argv[1]);"
        "print(*sys.modules, sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, verb], capture_output=True, text=True, check=True, timeout=100
    )
    assert not HEAVY & set(done.stdout.split())
