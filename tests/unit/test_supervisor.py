"""The supervisor, without its processes."""

import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import rtpose
from rtpose.config import load_rig
from rtpose.supervisor import Supervisor, _Child

DEMO = Path(rtpose.__file__).parent / "demo" / "rig.toml"


class DeadProcess:
    """What is left of a process that was killed."""

    exitcode = -9
    pid = 1

    def is_alive(self) -> bool:
        return False


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    rig = load_rig(DEMO)
    recording = rig.recording.model_copy(update={"folder": str(tmp_path)})
    supervisor = Supervisor(replace(rig, recording=recording))
    yield supervisor
    supervisor._inbox.close()


def test_a_dead_process_seen_again_and_again_does_not_fill_the_line_to_a_hung_control(
    supervisor: Supervisor,
) -> None:
    """Control reads its orders no more; the supervisor must live to end it."""
    control, line = multiprocessing.Pipe()
    dead: Any = DeadProcess()
    for name in ("capture", "control"):
        supervisor._children[name] = _Child(name, dead, line, None, 0)
    for _ in range(5000):  # far more than the line holds
        supervisor._on_exit(supervisor._children["capture"])
    assert supervisor.problems == ["capture was killed by SIGKILL"]
    assert supervisor.stopping
    assert control.recv() == "stop"
    assert not control.poll()
    control.close()
    line.close()
