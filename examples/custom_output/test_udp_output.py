import socket
import tomllib
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import pytest
from rtpose_udp_output import UdpOutput, UdpSettings
from test_output_contract import LINES, OutputContract, command

from rtpose.errors import OutputError


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        bound.settimeout(10)
        yield bound


@pytest.fixture
def make_output(receiver: socket.socket) -> Callable[[], UdpOutput]:
    settings = {"lines": LINES, "port": receiver.getsockname()[1]}
    return lambda: UdpOutput(UdpSettings.model_validate(settings))


class TestContract(OutputContract):
    plugin = UdpOutput
    settings: ClassVar[Mapping[str, Any]] = {"port": 5600}
    confirms = False
    acknowledges = False

    @pytest.fixture
    def make_output(self, receiver: socket.socket) -> Callable[[], UdpOutput]:
        settings = {"lines": LINES, "port": receiver.getsockname()[1]}
        return lambda: UdpOutput(UdpSettings.model_validate(settings))


def test_the_receiver_gets_each_command_and_off_at_the_end(
    receiver: socket.socket, make_output: Callable[[], UdpOutput]
) -> None:
    output = make_output()
    output.open()
    with pytest.raises(OutputError, match="not armed"):
        output.send(command(0, "laser", "on", 10))
    output.arm()
    output.send(command(1, "laser", "pulse", 5000))
    output.send(command(2, "valve", "on", 200_000))
    with pytest.raises(OutputError, match="longer than valve may be on, 200 ms"):
        output.send(command(3, "valve", "on", 200_001))
    output.close()
    got = [receiver.recv(100) for _ in range(4)]
    assert got == [b"laser pulse 5000", b"valve on 200000", b"laser off 0", b"valve off 0"]


def test_it_claims_no_more_than_it_knows(make_output: Callable[[], UdpOutput]) -> None:
    output = make_output()
    assert output.open().watchdog_ms is None
    output.arm()
    output.send(command(1, "laser", "pulse", 5000))
    (ack,) = output.acks()
    assert not ack.confirmed
    assert (ack.device_us, ack.detail) == (None, "sent; the receiver does not answer")
    output.close()
    assert not output.is_safe


def test_rtpose_finds_it_by_name() -> None:
    project = tomllib.loads(Path(__file__).with_name("pyproject.toml").read_text())["project"]
    target = project["entry-points"]["rtpose.outputs"]["udp"]
    assert EntryPoint("udp", target, "rtpose.outputs").load() is UdpOutput
