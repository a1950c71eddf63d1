"""The OSC output against python-osc's own server, in a process of its own."""

import sys
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
from counterpart import Counterpart, until
from pydantic import ValidationError
from test_output_contract import LINES, Edges, HostTimedContract, command

from rtpose.errors import MissingExtraError, OutputError
from rtpose_hardware.osc import OscOutput, OscSettings


@pytest.fixture
def receiver() -> Iterator[Counterpart]:
    receiver = Counterpart("osc")
    yield receiver
    receiver.stop()


def make(receiver: Counterpart, **settings: Any) -> OscOutput:
    given = {"lines": LINES, "port": int(receiver.ready), **settings}
    return OscOutput(OscSettings.model_validate(given))


class TestContract(HostTimedContract):
    plugin = OscOutput
    settings: ClassVar[dict[str, Any]] = {"port": 57120}
    confirms = False
    acknowledges = False

    @pytest.fixture
    def make_output(self, receiver: Counterpart) -> Callable[[], OscOutput]:
        return lambda: make(receiver)

    @pytest.fixture
    def edges(self, receiver: Counterpart) -> Callable[[], Edges]:
        return lambda: [(name.removeprefix("/rtpose/"), high) for name, high in receiver.edges()]

    @pytest.fixture
    def unplug(self, receiver: Counterpart) -> Callable[[], None]:
        return receiver.stop


def test_nothing_goes_out_before_arming_but_lines_going_low(receiver: Counterpart) -> None:
    output = make(receiver, prefix="/lab/box-1")
    output.open()
    with pytest.raises(OutputError, match="not armed"):
        output.send(command(1, "laser", "pulse", 1000))
    output.close()
    until(lambda: receiver.edges() == [] and len(receiver.lines) == 5, "two times two lows")
    assert receiver.lines[1:] == ["/lab/box-1/laser 0", "/lab/box-1/valve 0"] * 2


def test_without_a_beat_every_line_falls_and_the_driver_says_why(receiver: Counterpart) -> None:
    lines = {"tone": {"pin": 0, "max_on_ms": 60_000}}
    output = make(receiver, lines=lines)
    output.open()
    output.arm()
    output.send(command(1, "tone", "on", 60_000_000))
    until(lambda: len(receiver.edges()) == 2, "the line falls")
    assert receiver.edges() == [("/rtpose/tone", True), ("/rtpose/tone", False)]
    assert len(output.acks()) == 1
    with pytest.raises(OutputError, match="no beat of control for 1000 ms"):
        output.beat()
    output.arm()
    output.send(command(2, "tone", "on", 1000))
    output.close()


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"host": "stimulus-pc"}, "host"),
        ({"port": 0}, "port"),
        ({"prefix": "rtpose"}, "prefix"),
        ({"prefix": "/a b"}, "prefix"),
    ],
)
def test_what_cannot_be_sent_to_is_refused(wrong: dict[str, Any], where: str) -> None:
    with pytest.raises(ValidationError, match=where):
        OscSettings.model_validate({"lines": LINES, "port": 57120, **wrong})


def test_without_python_osc_it_says_what_to_type(
    receiver: Counterpart, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pythonosc", None)
    monkeypatch.setitem(sys.modules, "pythonosc.osc_message_builder", None)
    with pytest.raises(MissingExtraError, match=r'pip install "rtpose\[osc\]"'):
        make(receiver).open()
