"""The modem-lines output on a pseudo-terminal that has modem lines; run by `test_modem_lines`."""

import os
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from counterpart import PATIENCE_S, changes, until
from test_output_contract import LINES, Edges, HostTimedContract, command

from rtpose.errors import OutputError
from rtpose_hardware.modem_lines import ModemLinesOutput, ModemLinesSettings

LOG = Path(os.environ["MODEM_SHIM"] + ".log")
NAMES = {"dtr": "laser", "rts": "valve"}


class Adapter:
    """A serial adapter with nothing behind it."""

    def __init__(self) -> None:
        LOG.write_text("")
        self.master, slave = os.openpty()
        self.port = os.ttyname(slave)
        os.close(slave)

    def edges(self) -> Edges:
        known = changes(LOG.read_text().splitlines())
        return [(NAMES[name], high) for name, high in known]

    def unplug(self) -> None:
        if self.master >= 0:
            os.close(self.master)
            self.master = -1


@pytest.fixture
def adapter() -> Iterator[Adapter]:
    adapter = Adapter()
    yield adapter
    adapter.unplug()


def make(adapter: Adapter, **settings: Any) -> ModemLinesOutput:
    given = {"lines": LINES, "port": adapter.port, **settings}
    return ModemLinesOutput(ModemLinesSettings.model_validate(given))


class TestContract(HostTimedContract):
    plugin = ModemLinesOutput
    settings: ClassVar[dict[str, Any]] = {"port": "/dev/ttyUSB0"}
    confirms = False
    acknowledges = False

    @pytest.fixture
    def make_output(self, adapter: Adapter) -> Callable[[], ModemLinesOutput]:
        return lambda: make(adapter, watchdog_ms=250)

    @pytest.fixture
    def edges(self, adapter: Adapter) -> Callable[[], Edges]:
        return adapter.edges

    @pytest.fixture
    def unplug(self, adapter: Adapter) -> Callable[[], None]:
        return adapter.unplug


def test_nothing_rises_from_opening_to_closing_without_arming(adapter: Adapter) -> None:
    output = make(adapter)
    info = output.open()
    assert (info.watchdog_ms, info.facts["guard"]) == (500.0, True)
    with pytest.raises(OutputError, match="not armed"):
        output.send(command(1, "laser", "on", 1000))
    output.close()
    assert adapter.edges() == []


def test_the_system_is_asked_to_drop_the_lines_when_the_port_is_closed(adapter: Adapter) -> None:
    settings = termios.tcgetattr(adapter.master)
    settings[2] &= ~termios.HUPCL
    termios.tcsetattr(adapter.master, termios.TCSANOW, settings)
    output = make(adapter)
    output.open()
    assert termios.tcgetattr(adapter.master)[2] & termios.HUPCL
    output.close()


def test_a_guard_that_was_killed_is_noticed(adapter: Adapter) -> None:
    output = make(adapter)
    output.open()
    output.arm()
    output.send(command(1, "laser", "on", 200_000))
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    (guard,) = map(int, children)
    os.kill(guard, signal.SIGKILL)
    os.waitid(os.P_PID, guard, os.WEXITED | os.WNOWAIT)
    with pytest.raises(OutputError, match="guard of the lines has ended"):
        output.beat()
    assert adapter.edges() == [("laser", True), ("laser", False)]
    with pytest.raises(OutputError, match="guard"):
        output.arm()
    output.close()


HOST = """
import sys, time
from rtpose.messages import Command
from rtpose_hardware.modem_lines import ModemLinesOutput, ModemLinesSettings
lines = {"laser": {"pin": 0, "max_on_ms": 60_000}, "valve": {"pin": 1, "max_on_ms": 60_000}}
settings = {"port": sys.argv[1], "watchdog_ms": 200, "lines": lines}
output = ModemLinesOutput(ModemLinesSettings.model_validate(settings))
output.open()
output.arm()
for number, line in enumerate(lines):
    output.send(Command(command_id=number, output="o", line=line, action="on", width_us=60_000_000))
print("on", flush=True)
while True:
    output.beat()
    time.sleep(0.02)
"""


@pytest.mark.parametrize("way", ["SIGKILL", "SIGSTOP", "SIGTERM"])
def test_a_host_that_is_killed_or_stopped_leaves_no_line_high(adapter: Adapter, way: str) -> None:
    host = subprocess.Popen([sys.executable, "-c", HOST, adapter.port], stdout=subprocess.PIPE)
    assert host.stdout is not None
    try:
        assert host.stdout.readline() == b"on\n"
        assert adapter.edges() == [("laser", True), ("valve", True)]
        host.send_signal(signal.Signals[way])
        until(lambda: len(adapter.edges()) == 4, "both lines fall")
        assert sorted(adapter.edges()[2:]) == [("laser", False), ("valve", False)]
    finally:
        host.kill()
        host.wait(PATIENCE_S)
        host.stdout.close()
