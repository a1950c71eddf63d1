"""What outputs whose pulses the host times have in common, on a device that fails as it is told."""

import contextlib
import os
import pty
import re
import select
import subprocess
import tomllib
import tty
from collections.abc import Callable, Iterator, Sequence
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from test_output_contract import LINES, PATIENCE_NS, command, pause

from rtpose import plugins
from rtpose.clock import now_ns
from rtpose.errors import OutputError
from rtpose.interfaces import LineConfig, OutputInfo, OutputSettings
from rtpose.messages import Ack, Command
from rtpose_hardware import guard
from rtpose_hardware.guard import Guard
from rtpose_hardware.host_timed import Answer, HostTimedOutput
from rtpose_hardware.virtual_board import VirtualBoard


class Device(HostTimedOutput):
    """It answers; `broken` pins cannot be set, `stuck` ones answer that they are high.

    Those in `flawed` raise what a driver must not.
    """

    answers = True
    ack_timeout_ms = 20

    def __init__(self, config: OutputSettings) -> None:
        super().__init__(config)
        self.levels: dict[int, bool] = {}
        self.broken: set[int] = set()
        self.flawed: set[int] = set()
        self.stuck: set[int] = set()
        self.mute = False
        self._answers: list[Answer] = []

    def _connect(self) -> OutputInfo:
        return OutputInfo(device="device of a test", watchdog_ms=None)

    def _set(self, pin: int, high: bool, line: str, width_us: int) -> None:
        if pin in self.broken:
            raise OutputError(f"pin {pin} is broken")
        if pin in self.flawed:
            raise ZeroDivisionError
        self.levels[pin] = high
        if not self.mute:
            level = high or pin in self.stuck
            self._answers.append(Answer(pin, level, f"pin {pin} is {level}"))

    def _receive(self, timeout_s: float) -> Sequence[Answer]:
        answers, self._answers = self._answers, []
        return answers

    def _disconnect(self) -> None:
        pass


@pytest.fixture
def device() -> Iterator[Device]:
    device = Device(OutputSettings.model_validate({"lines": LINES}))
    device.open()
    device.arm()
    yield device
    device.close()


def wait_until(done: Callable[[], bool]) -> None:
    deadline_ns = now_ns() + PATIENCE_NS
    while not done():
        assert now_ns() < deadline_ns
        pause(1)


def last_words(device: Device) -> tuple[list[Ack], str]:
    """Return the acks until the driver raises, and what it says then."""
    acks: list[Ack] = []
    deadline_ns = now_ns() + PATIENCE_NS
    try:
        while now_ns() < deadline_ns:
            acks += device.acks()
            pause(1)
    except OutputError as error:
        return acks, str(error)
    raise AssertionError("it did not complain")


def test_a_line_that_could_not_be_dropped_falls_as_soon_as_it_can(device: Device) -> None:
    pin = LINES["laser"]["pin"]
    with device._turn:  # so that the pulse does not end before it breaks
        device.send(command(1, "laser", "pulse", 1000))
        device.broken.add(pin)
    _, complaint = last_words(device)
    assert "broken" in complaint
    assert device.levels[pin], "it could not be dropped"
    device.broken.clear()  # it is plugged in again; nobody calls the driver
    wait_until(lambda: not device.levels[pin])


def test_a_driver_that_raises_what_it_must_not_ends_no_timing(device: Device) -> None:
    """A flaw in a driver must not end the thread that lets lines fall."""
    device.send(command(1, "laser", "pulse", 20_000))
    device.send(command(2, "valve", "on", 40_000))
    device.flawed = {LINES["laser"]["pin"]}
    _, words = last_words(device)
    assert "line 'laser'" in words
    assert "ZeroDivisionError" in words
    assert device.levels == {0: True, 1: False}
    device.flawed = set()
    wait_until(lambda: not device.levels[0])


def test_a_pulse_that_cannot_be_ended_is_a_fault_and_the_other_line_falls(device: Device) -> None:
    device.send(command(1, "laser", "pulse", 1000))
    device.send(command(2, "valve", "on", 200_000))
    device.broken = {0}
    acks, words = last_words(device)
    assert [(ack.command_id, ack.ok) for ack in acks] == [(1, True), (2, True)]
    assert "pin 0 is broken" in words
    assert device.levels == {0: True, 1: False}
    device.safe()
    assert not device.is_safe
    with pytest.raises(OutputError, match="broken"):
        device.arm()
    device.broken = set()
    device.arm()
    assert device.levels == {0: False, 1: False}
    device.send(command(3, "laser", "pulse", 1000))


def test_a_line_that_answers_high_when_it_was_set_low_is_not_safe(device: Device) -> None:
    device.stuck = {1}
    device.safe()
    assert not device.is_safe
    with pytest.raises(
        OutputError, match="'valve' was set low; the device answered: pin 1 is True"
    ):
        device.acks()
    device.stuck = set()
    device.arm()
    device.safe()
    assert device.is_safe


def test_an_answer_that_contradicts_the_order_is_a_refusal_with_its_words(device: Device) -> None:
    device.send(command(1, "laser", "on", 1000))
    device.stuck = {0}
    device.send(command(2, "laser", "off", 0))
    first, second = device.acks()
    assert (first.ok, first.confirmed, first.detail) == (True, True, "")
    assert (second.ok, second.confirmed) == (False, True)
    assert second.detail == "the device answered: pin 0 is True"
    device.stuck = set()


def test_silence_is_reported_for_every_command_and_then_raised(device: Device) -> None:
    device.mute = True
    for number in range(3):
        device.send(command(number, "laser", "on", 200_000))
    acks, words = last_words(device)
    assert [(ack.command_id, ack.ok, ack.confirmed) for ack in acks] == [
        (number, False, False) for number in range(3)
    ]
    assert "has not answered for 20 ms" in words
    assert device.levels[0] is False


def test_a_refusal_by_the_driver_moves_nothing(device: Device) -> None:
    before = dict(device.levels)
    device.send(command(1, "laser", "on", 200_001))
    (ack,) = device.acks()
    assert not ack.ok and "allowed" in ack.detail
    assert device.levels == before


@pytest.mark.parametrize(
    ("order", "words"),
    [
        (command(1, "laser", "on", 1000), ""),
        (
            command(1, "laser", "on", 1000).model_copy(update={"level": 0.5}),
            "do not say levels = true",
        ),
        (
            command(1, "laser", "on", 1000).model_copy(update={"action": "train"}),
            "trains need a device with a clock of its own",
        ),
    ],
)
def test_a_train_or_a_level_is_refused_and_sets_nothing(
    device: Device, order: Command, words: str
) -> None:
    before = dict(device.levels)
    device.send(order)
    (ack,) = device.acks()
    assert (ack.ok, words in ack.detail) == (not words, True)
    assert (device.levels == before) is not ack.ok


def test_levels_are_refused_by_the_settings() -> None:
    lines = {"laser": {"pin": 0, "max_on_ms": 200, "levels": True}}
    with pytest.raises(ValidationError, match="'laser' cannot take levels: this output only"):
        OutputSettings.model_validate({"lines": lines})


def test_refractory_time_and_dose_are_kept_by_the_driver_too() -> None:
    limits = {"pin": 0, "max_on_ms": 200, "refractory_ms": 60_000, "dose_ms": 200}
    valve = {"pin": 1, "max_on_ms": 200, "dose_ms": 150}
    device = Device(OutputSettings.model_validate({"lines": {"laser": limits, "valve": valve}}))
    device.open()
    device.arm()
    for line, action, width_us in [
        ("laser", "on", 1000),
        ("laser", "off", 0),
        ("laser", "pulse", 1000),
        ("valve", "pulse", 150_001),
    ]:
        device.send(command(1, line, action, width_us))
    details = [ack.detail for ack in device.acks() if not ack.ok]
    assert details == [
        "within refractory_ms = 60000 of its last fall",
        "it would be on for more than dose_ms = 150",
    ]
    device.close()


def test_it_is_not_opened_twice(device: Device) -> None:
    with pytest.raises(OutputError, match="open already"):
        device.open()


ORDERS = st.lists(
    st.tuples(
        st.sampled_from(sorted(LINES)), st.booleans(), st.integers(20, 300), st.integers(0, 400)
    ),
    max_size=20,
)


@given(ORDERS)
def test_the_thread_wakes_up_exactly_when_a_line_falls(
    orders: list[tuple[str, bool, int, int]],
) -> None:
    limit = LineConfig(pin=0, max_on_ms=0.2)
    board = VirtualBoard(dict.fromkeys(LINES, limit), watchdog_ns=500_000)
    at_ns = 0
    board.arm(at_ns)
    for line, on, width_us, wait_us in orders:
        board.execute(command(1, line, "on" if on else "pulse", width_us), at_ns)
        end_ns = at_ns + wait_us * 1000
        while (fall_ns := board.next_edge_ns()) is not None and fall_ns <= end_ns:
            board.settle(fall_ns - 1)
            before = len(board.edges)
            board.settle(fall_ns)
            assert {edge.at_ns for edge in list(board.edges)[before:]} == {fall_ns}
        at_ns = end_ns
        board.settle(at_ns)
        board.beat(at_ns)
    assert (board.next_edge_ns() is None) == (not any(board.levels(at_ns).values()))


@pytest.mark.parametrize("name", ["modem-lines", "firmata", "open-ephys", "osc", "lsl"])
def test_what_the_class_shows_for_rig_toml_is_right(name: str) -> None:
    plugin: Any = plugins.load("outputs", name)
    shown = re.search(r"In rig\.toml::\n\n(.*)", plugin.__doc__, re.DOTALL)
    assert shown is not None
    ((given,),) = (tables.values() for tables in tomllib.loads(dedent(shown[1])).values())
    assert given.pop("type") == name
    plugin.Config.model_validate(given)


@pytest.mark.skipif(not guard.AVAILABLE, reason="no guard on this system")
def test_a_guard_drops_the_lines_of_a_device_that_takes_nothing_just_then() -> None:
    device, port = pty.openpty()
    tty.setraw(port)
    os.set_blocking(port, False)
    # The host has handed over more than the device has taken. The system moves it on for a while.
    while select.select([], [port], [], 0.2)[1]:
        with contextlib.suppress(BlockingIOError):
            while os.write(port, b"\x00"):
                pass
    watching = Guard(port, 100, b"low".hex())
    try:
        watching.arm()  # and never beats: the host is stopped
        with pytest.raises(subprocess.TimeoutExpired):
            watching._process.wait(0.5)  # it does not give up
        received = b""
        while not received.endswith(b"low"):
            ready, _, _ = select.select([device], [], [], PATIENCE_NS / 1e9)
            assert ready, "the lines were not dropped"
            received = (received + os.read(device, 4096))[-16:]
    finally:
        watching.close()
        os.close(port)
        os.close(device)
