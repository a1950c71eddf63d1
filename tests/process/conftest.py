"""A rig as a user runs it: the command line in a process of its own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ports import free_ports

from rtpose.clock import now_ns
from rtpose.messages import AnyMessage
from rtpose.run_log import read_log

_ROOT = Path(__file__).parents[2]
WAIT_S = 30.0


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float = WAIT_S) -> Any:
    """Poll a condition of another process until it holds; fail after a long while."""
    end_ns = now_ns() + round(timeout_s * 1e9)
    while now_ns() < end_ns:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"{what}: not within {timeout_s:g} s")


@dataclass
class RunningRig:
    """An `rtpose run` in a process of its own.

    Attributes
    ----------
    folder : Path
        Holds rig.toml, the runs folder and whatever the test puts there.
    """

    folder: Path
    ports: dict[str, int]
    process: "subprocess.Popen[str] | None" = None
    report_file: Path = field(init=False)

    def __post_init__(self) -> None:
        self.report_file = self.folder / "report.json"

    def start(self, rig_toml: str, *options: str, seconds: float = 60.0) -> None:
        stream = "\n".join(f"{name} = {port}" for name, port in self.ports.items())
        path = self.folder / "rig.toml"
        path.write_text(f"{rig_toml}\n[stream]\n{stream}\n")
        command = [sys.executable, "-m", "rtpose", "run", str(path), "--seconds", str(seconds)]
        command += ["--json", str(self.report_file), *options]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "COLUMNS": "200"},
            start_new_session=True,  # a process group of its own, as a terminal gives it
        )

    def wait_for(self, condition: Callable[[], Any], what: str) -> Any:
        """Poll a condition of another process until it holds; fail after a long while."""
        return wait_for(condition, what)

    @property
    def running(self) -> "subprocess.Popen[str]":
        assert self.process is not None
        return self.process

    def manifest(self) -> dict[str, Any]:
        """Return the run's manifest once the whole rig is up (or has ended)."""

        def read() -> dict[str, Any] | None:
            files = list(self.folder.glob("runs/*/manifest.json"))
            if files:
                data: dict[str, Any] = json.loads(files[0].read_text())
                return data
            if self.running.poll() is not None:
                raise AssertionError(f"the rig ended: {self.running.communicate()}")
            return None

        found: dict[str, Any] = wait_for(read, "the rig starts")
        return found

    def segments(self) -> list[str]:
        """Return what is left of the rig's shared memory."""
        runs = [path.name.rpartition("-")[2] for path in self.folder.glob("runs/*")]
        return [str(path) for run in runs for path in Path("/dev/shm").glob(f"rtpose-{run}-*")]

    def log(self) -> list[AnyMessage]:
        """Return the run's log."""
        (path,) = self.folder.glob("runs/*/events.jsonl")
        return read_log(path)

    def end(self, timeout_s: float = WAIT_S) -> tuple[int, str, str]:
        """Wait for the rig to end; return its exit code and what it said."""
        out, error = self.running.communicate(timeout=timeout_s)
        return self.running.returncode, out, error

    def report(self) -> dict[str, Any]:
        """Return the report that ``--json`` wrote."""
        data: dict[str, Any] = json.loads(self.report_file.read_text())
        return data


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[RunningRig]:
    """Return a rig that is not started yet; whatever is left of it is killed at the end."""
    names = ("pose_port", "event_port", "command_port")
    rig = RunningRig(tmp_path, dict(zip(names, free_ports(3), strict=True)))
    yield rig
    ended = rig.process is None or rig.process.poll() is not None
    if rig.process is not None and rig.process.stdout and not rig.process.stdout.closed:
        rig.process.kill()
        sys.stderr.writelines(rig.process.communicate())  # shown where the test failed
    if ended:  # otherwise Python's resource tracker clears up behind it
        assert not rig.segments()
