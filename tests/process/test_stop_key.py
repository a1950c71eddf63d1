"""The space bar of the terminal in which a rig runs, on a real pseudo-terminal."""

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from rtpose.client import Commands
from rtpose.clock import now_ns
from rtpose.errors import NoReplyError
from rtpose.messages import TriggerEvent
from rtpose.run_log import read_log

RIG = """
[cameras.arena]
type = "synthetic"
width_px = 384
height_px = 288
rate_hz = 60.0
seed = 1
{camera}

[model]
path = "demo"

[latency]
budget_ms = 1000.0

[recording]
folder = "runs"

[outputs.out]
type = "virtual"

[outputs.out.lines.light]
pin = 0
max_on_ms = 60000.0

[triggers.on]
type = "{trigger}"
{settings}
output = "out.light"
"""
#: Held high from the first pose on.
REGION = """
keypoint = "tailbase"
rectangle = { x_px = -1000.0, y_px = -1000.0, width_px = 5000.0, height_px = 5000.0 }
when = "inside"
"""
PATIENCE_NS = 60_000_000_000
# A terminal belongs to a session: whoever starts one there must take it.
_IN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "rtpose", *sys.argv[1:]])
"""


class Terminal:
    """An `rtpose` in a terminal of its own."""

    def __init__(
        self, folder: Path, *arguments: str, size: tuple[int, int], env: dict[str, str]
    ) -> None:
        self.folder = folder
        self._master, self._slave = pty.openpty()
        termios.tcsetwinsize(self._slave, size)
        self.former = termios.tcgetattr(self._slave)
        self.shown = ""
        self.process = subprocess.Popen(
            [sys.executable, "-c", _IN_TERMINAL, *arguments],
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            start_new_session=True,
            env={**os.environ, **env},
        )

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def wait_for(self, done: Callable[[], object], what: str) -> None:
        """Read what is shown until something holds."""
        end_ns = now_ns() + PATIENCE_NS
        while not done():
            assert now_ns() < end_ns, f"{what}; shown: {self.shown[-2000:]}"
            self.read(0.02)

    def read(self, wait_s: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], wait_s)
        if ready:
            self.shown += os.read(self._master, 65536).decode(errors="replace")
        return bool(ready)

    def end(self) -> int:
        """Wait for the end; return the exit code."""
        self.wait_for(lambda: self.process.poll() is not None, "it ends")
        while self.read(0.0):
            pass
        return self.process.wait()

    @property
    def settings(self) -> list[Any]:
        return termios.tcgetattr(self._slave)

    def kinds(self) -> list[str]:
        files = list(self.folder.glob("runs/*/events.jsonl"))
        log = read_log(files[0]) if files else []
        return [m.kind for m in log if isinstance(m, TriggerEvent)]

    def close(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            if self.process.poll() is None:
                for child in psutil.Process(self.process.pid).children(recursive=True):
                    child.kill()
                self.process.kill()
        self.process.wait()
        os.close(self._master)
        os.close(self._slave)


@pytest.fixture
def start(rig: Any) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start(
        *options: str,
        camera: str = "",
        trigger: str = "region",
        settings: str = REGION,
        size: tuple[int, int] = (50, 160),
    ) -> Terminal:
        text = RIG.format(camera=camera, trigger=trigger, settings=settings)
        ports = "\n".join(f"{name} = {port}" for name, port in rig.ports.items())
        path = rig.folder / "rig.toml"
        path.write_text(f"{text}\n[stream]\n{ports}\n")
        data = str(Path(__file__).parents[1] / "data")
        env = {"PYTHONPATH": data}
        opened.append(Terminal(rig.folder, "run", str(path), *options, size=size, env=env))
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.close()


def commands(rig: Any) -> Commands:
    return Commands(f"tcp://127.0.0.1:{rig.ports['command_port']}")


def test_the_space_bar_stops_at_once_and_stays_so_until_released(
    rig: Any, start: Callable[..., Terminal]
) -> None:
    terminal = start("--arm")
    terminal.wait_for(lambda: "fire" in terminal.kinds(), "the line is high")
    terminal.wait_for(lambda: "space bar: emergency stop" in terminal.shown, "the key is shown")
    terminal.type(b"xyz\r")  # no other key does anything
    terminal.type(b" ")
    terminal.wait_for(lambda: "estop" in terminal.kinds(), "it stops")
    terminal.wait_for(lambda: "EMERGENCY STOP" in terminal.shown, "it says so")
    port = rig.ports["command_port"]
    assert f"rtpose release --port {port}, then rtpose arm --port {port}" in terminal.shown
    with commands(rig) as steering:
        refused = steering.arm()
        assert (refused.ok, refused.state) == (False, "stopped")
        assert steering.release().ok
        assert steering.arm().ok
    terminal.wait_for(lambda: terminal.kinds().count("fire") == 2, "it goes on")
    told = terminal.kinds()
    assert told.count("estop") == 1
    assert "fire" not in told[told.index("estop") : told.index("released")]
    terminal.type(b" ")
    terminal.wait_for(lambda: terminal.kinds().count("estop") == 2, "it stops once more")
    terminal.type(b"\x03")
    assert terminal.end() == 0
    assert terminal.settings == terminal.former


def test_a_small_screen_shows_the_emergency_stop_too(start: Callable[..., Terminal]) -> None:
    terminal = start("--arm", size=(24, 80))
    # From then on there is more to show than has room.
    terminal.wait_for(lambda: "fire" in terminal.kinds(), "the line is high")
    terminal.wait_for(lambda: "space bar: emergency stop" in terminal.shown, "the key is shown")
    terminal.type(b" ")
    terminal.wait_for(lambda: "EMERGENCY STOP" in terminal.shown, "it says so")
    terminal.type(b"\x03")
    assert terminal.end() == 0


def test_the_space_bar_works_while_the_rig_starts(rig: Any, start: Callable[..., Terminal]) -> None:
    terminal = start("--arm")
    terminal.wait_for(lambda: terminal.settings != terminal.former, "it takes the keys")
    terminal.type(b" ")
    assert terminal.end() == 1
    assert "the emergency stop was used" in terminal.shown
    assert "armed" not in terminal.kinds()
    assert terminal.settings == terminal.former


def test_control_that_does_not_obey_is_killed(start: Callable[..., Terminal]) -> None:
    terminal = start("--arm", trigger="bad_triggers:Hangs", settings="")
    terminal.wait_for(lambda: "fire" in terminal.kinds(), "the line is high")
    terminal.wait_for(lambda: "space bar" in terminal.shown, "it is up")
    # It hangs after a second of poses and would be killed for that after three.
    terminal.wait_for(lambda: _stands_still(terminal), "the trigger hangs")
    terminal.type(b" ")
    assert terminal.end() == 1
    assert "control did not confirm the emergency stop in 1 s" in " ".join(terminal.shown.split())
    assert terminal.settings == terminal.former


def _stands_still(terminal: Terminal) -> bool:
    """Return whether control takes no more poses: it records them all."""
    (path,) = terminal.folder.glob("runs/*/poses.bin")
    size, end_ns = path.stat().st_size, now_ns() + 200_000_000
    while now_ns() < end_ns:
        terminal.read(0.05)
    return size > 0 and path.stat().st_size == size


@pytest.mark.parametrize(
    ("ends_by", "options", "code"),
    [("time", ("--seconds", "2"), 0), ("SIGTERM", (), 0), ("SIGHUP", (), 0), ("a fault", (), 1)],
)
def test_the_terminal_is_as_before_after_every_end(
    rig: Any, start: Callable[..., Terminal], ends_by: str, options: tuple[str, ...], code: int
) -> None:
    terminal = start(*options)
    terminal.wait_for(lambda: "started" in terminal.kinds(), "it is up")
    assert terminal.settings != terminal.former
    if ends_by.startswith("SIG"):
        terminal.process.send_signal(getattr(signal, ends_by))
    elif ends_by == "a fault":
        terminal.wait_for(lambda: list(rig.folder.glob("runs/*/manifest.json")), "it is up")
        (manifest,) = rig.folder.glob("runs/*/manifest.json")
        os.kill(json.loads(manifest.read_text())["pids"]["control"], signal.SIGKILL)
    assert terminal.end() == code
    assert terminal.settings == terminal.former


def test_a_rig_file_that_is_wrong_leaves_the_terminal_alone(
    start: Callable[..., Terminal],
) -> None:
    terminal = start(trigger="nonsense")
    assert terminal.end() == 2
    assert terminal.settings == terminal.former


def test_without_a_terminal_there_is_no_key_and_the_rig_runs(rig: Any) -> None:
    rig.start(RIG.format(camera="", trigger="region", settings=REGION))
    rig.manifest()
    with commands(rig) as steering:
        rig.wait_for(lambda: _answers(steering), "it answers")
        assert steering.stop().ok
    code, out, error = rig.end()
    assert (code, error) == (0, "")
    assert "space bar" not in out


def _answers(steering: Commands) -> bool:
    try:
        return steering.status().ok
    except NoReplyError:
        return False
