"""The ring between real processes: a writer flat out, and a reader that checks every byte."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("mode", "reads"), [("newest", 1_000_000), ("next", 200_000)])
def test_no_torn_frame_is_ever_handed_out(mode: str, reads: int) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks.ring_torture", "--reads", str(reads), "--mode", mode],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(finished.stdout)
    assert result["reads"] == reads
    assert result["torn"] == 0
    assert finished.stderr == ""
