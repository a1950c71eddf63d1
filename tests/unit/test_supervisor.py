"""The supervisor, without its processes."""

import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import rtpose
from rtpose.clock import now_ns
from rtpose.config import load_rig
from rtpose.loop import new_activity
from rtpose.supervisor import Supervisor, _Child

DEMO = Path(rtpose.__file__).parent / "demo" / "rig.toml"


class DeadProcess:
    """What is left of a process that was killed."""

    exitcode = -9
    pid = 1

    def is_alive(self) -> bool:
        return False


class SilentProcess:
    """A process that lives and says nothing."""

    pid = 1
    killed = False

    def is_alive(self) -> bool:
        return not self.killed

    def kill(self) -> None:
        self.killed = True


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


def test_a_supervisor_that_was_held_up_does_not_call_the_others_hung(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    time_ms = now_ns() // 1_000_000
    monkeypatch.setattr("rtpose.supervisor.now_ns", lambda: time_ms * 1_000_000)
    control, line = multiprocessing.Pipe()
    silent: Any = SilentProcess()
    child = _Child("capture", silent, line, new_activity(), time_ms * 1_000_000, ready=True)
    supervisor._children["capture"] = child

    time_ms += 60_000  # stopped, or starved
    supervisor.step(0.0)
    assert not silent.killed
    for _ in range(30):
        time_ms += 100
        supervisor.step(0.0)
        assert not silent.killed
    time_ms += 100
    supervisor.step(0.0)
    assert silent.killed, "this silence is its own"
    assert supervisor.problems == ["capture hung (no heartbeat for 3 s)"]
    control.close()
    line.close()
