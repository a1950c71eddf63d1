"""The Open Ephys output against a process that answers as its Network Events plugin does."""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
from counterpart import Counterpart
from pydantic import ValidationError
from test_output_contract import LINES, Edges, HostTimedContract, command, pause

from rtpose.clock import now_ns
from rtpose.errors import OutputError
from rtpose_hardware.open_ephys import OpenEphysOutput, OpenEphysSettings

#: Open Ephys counts its lines from 1.
OWN_LINES = {name: {**line, "pin": 3 + line["pin"]} for name, line in LINES.items()}
NAMES = {"3": "laser", "4": "valve"}


@pytest.fixture
def gui() -> Iterator[Counterpart]:
    gui = Counterpart("open-ephys")
    yield gui
    gui.stop()


def make(port: str, **settings: Any) -> OpenEphysOutput:
    given = {"lines": OWN_LINES, "port": int(port), **settings}
    return OpenEphysOutput(OpenEphysSettings.model_validate(given))


class TestContract(HostTimedContract):
    plugin = OpenEphysOutput
    settings: ClassVar[dict[str, Any]] = {}

    @pytest.fixture
    def make_output(self, gui: Counterpart) -> Callable[[], OpenEphysOutput]:
        return lambda: make(gui.ready)

    @pytest.fixture
    def edges(self, gui: Counterpart) -> Callable[[], Edges]:
        return lambda: [(NAMES[number], high) for number, high in gui.edges() if number != "told"]

    @pytest.fixture
    def unplug(self, gui: Counterpart) -> Callable[[], None]:
        return gui.stop


def complaint(output: OpenEphysOutput) -> str:
    """Beat until the driver raises; return what it says."""
    deadline_ns = now_ns() + 10_000_000_000
    try:
        while now_ns() < deadline_ns:
            output.acks()
            output.beat()
            pause(1)
    except OutputError as error:
        return str(error)
    raise AssertionError("it did not complain")


def test_it_is_not_armed_while_the_gui_drops_events(gui: Counterpart) -> None:
    output = make(gui.ready)
    assert output.open().facts["acquiring_when_opened"] is True
    output.close()
    gui.tell("idle")
    assert output.open().facts["acquiring_when_opened"] is False
    with pytest.raises(OutputError, match="not acquiring"):
        output.arm()
    gui.tell("acquire")
    output.arm()
    output.send(command(1, "laser", "pulse", 1000))
    output.close()


def test_a_gui_that_answers_no_more_is_reported(gui: Counterpart) -> None:
    output = make(gui.ready, ack_timeout_ms=50)
    output.open()
    output.arm()
    gui.tell("mute")
    output.send(command(7, "laser", "on", 200_000))
    acks: list[Any] = []
    while not acks:  # at the latest the driver says that there is none
        acks += output.acks()
        pause(1)
    (ack,) = acks
    assert (ack.command_id, ack.ok, ack.confirmed) == (7, False, False)
    assert "has not answered for 50 ms" in ack.detail
    assert "has not answered for 50 ms" in complaint(output)
    output.safe()
    assert not output.is_safe
    output.close()


def test_nobody_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtpose_hardware.open_ephys._HELLO_TIMEOUT_NS", 100_000_000)
    with pytest.raises(OutputError, match=r"nobody listens on tcp://127\.0\.0\.1:9"):
        make("9").open()


def test_a_plugin_that_understands_another_line_is_not_taken_for_an_answer() -> None:
    old = Counterpart("open-ephys", "old")
    output = make(old.ready)
    try:
        with pytest.raises(OutputError, match="Channel=1 on=0"):
            output.open()
    finally:
        output.close()
        old.stop()


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"host": "recording-pc"}, "host"),
        ({"lines": LINES}, "counts lines from 1"),
        ({"lines": {"a": OWN_LINES["laser"], "b": OWN_LINES["laser"]}}, "'a' and 'b' share pin 3"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], where: str) -> None:
    with pytest.raises(ValidationError, match=where):
        OpenEphysSettings.model_validate({"lines": OWN_LINES, **wrong})
