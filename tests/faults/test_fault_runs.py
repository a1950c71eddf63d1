"""The short version of ``make faults``: one run per process and kind of fault, from fixed seeds."""

from dataclasses import replace
from pathlib import Path

import pytest
from fault_kinds import KINDS
from fault_plan import make_plan
from run import run_one

pytestmark = [pytest.mark.hardware, pytest.mark.usefixtures("emulated_board")]


@pytest.mark.parametrize(
    "kind",
    [
        "board-hang",
        "board-unplug",
        "camera-black",
        "camera-repeat",
        "capture-kill",
        "control-kill",
        "control-stop",
        "disk-limit",
        "flood-requests",
        "inference-stop",
        "output-raise-beat",
        "recorder-kill",
        "stop-input",
        "supervisor-kill",
        "trigger-hang",
        "trigger-raise",
    ],
)
def test_a_fault_leaves_no_line_high_and_a_true_record(kind: str, tmp_path: Path) -> None:
    verdict = run_one(make_plan(1000, kind), tmp_path)
    assert verdict.violations == []
    assert verdict.unaccounted == 0
    assert verdict.commands > 0


def test_a_process_that_hangs_ends_though_nobody_is_left_to_end_it(tmp_path: Path) -> None:
    plan = make_plan(1000, "trigger-hang")
    plan = replace(plan, kinds=(*plan.kinds, KINDS["supervisor-kill"]))
    assert run_one(plan, tmp_path).violations == []
