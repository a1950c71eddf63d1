"""The board's inputs, its stop, its clock and its self-test, through the driver."""

import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from board_rig import (
    CYCLES_PER_MS,
    CYCLES_PER_US,
    PATIENCE_S,
    EmulatedBoard,
    Relay,
    pulses,
    relayed,
)
from test_output_contract import command, pause

from rtpose.clock import now_ns
from rtpose.errors import OutputError
from rtpose.messages import Ack, InputEvent
from rtpose_hardware import protocol
from rtpose_hardware.answers import Hello, Received, SelfTest, Stopped, Trip, parse
from rtpose_hardware.emulated_ttl import EmulatedTtlOutput
from rtpose_hardware.ttl import TtlOutput

pytestmark = [pytest.mark.hardware, pytest.mark.usefixtures("built")]

NS_PER_CYCLE = 62.5
SETTINGS: dict[str, Any] = {
    "lines": {"laser": {"pin": 0, "max_on_ms": 2000}, "valve": {"pin": 5, "max_on_ms": 2000}},
    "inputs": {
        "lick": {"pin": "D8", "edges": "both"},
        "sync": {"pin": "A0", "edges": "both"},
        "poke": {"pin": "A1", "edges": "falling", "pull_up": True, "hold_off_ms": 20},
    },
    "stop_input": "closed-is-well",
    "watchdog_ms": 1000,
}


@pytest.fixture
def rig(start_board: Callable[..., EmulatedBoard]) -> EmulatedBoard:
    """Return an emulated board with the contact of its emergency stop closed."""
    rig = start_board()
    rig.drive("D2 0", "D8 0", "A0 0", "A1 1")
    return rig


@pytest.fixture
def relay(rig: EmulatedBoard) -> Iterator[Relay]:
    """Return a wire to the board on which things can get lost."""
    with relayed(rig.tty) as relay:
        yield relay


@pytest.fixture
def make_ttl() -> Iterator[Callable[..., TtlOutput]]:
    """Return a function that makes drivers; they are closed afterwards."""
    outputs: list[TtlOutput] = []

    def make(port: Path | str, **settings: Any) -> TtlOutput:
        config = {**SETTINGS, "port": str(port), **settings}
        outputs.append(TtlOutput(TtlOutput.Config.model_validate(config)))
        return outputs[-1]

    yield make
    for output in outputs:
        output.close()


class Heard:
    """What an output said while it was beaten."""

    def __init__(self, output: TtlOutput) -> None:
        self._output = output
        self.acks: list[Ack] = []
        self.events: list[InputEvent] = []

    def turn(self) -> None:
        self._output.beat()
        self.acks += self._output.acks()
        self.events += self._output.inputs()
        pause(2)

    def until(self, reached: Callable[[], object]) -> None:
        deadline_ns = now_ns() + int(PATIENCE_S * 1e9)
        while not reached():
            assert now_ns() < deadline_ns, (self.acks, self.events)
            self.turn()

    def wait(self, acks: int = 0, events: int = 0) -> None:
        self.until(lambda: len(self.acks) >= acks and len(self.events) >= events)
        assert (len(self.acks), len(self.events)) == (acks, events)


def held_up_ns(rig: EmulatedBoard) -> float:
    """Return by how much the emulator fell behind the wall clock at most, of all it logged."""
    logged: Sequence[Any] = [*rig.wire, *rig.edges, *rig.changes]
    behind_ns: list[float] = [entry.at_ns - entry.cycle * NS_PER_CYCLE for entry in logged]
    return max(behind_ns) - min(behind_ns)


# ------------------------------------------------------------------------------------ clock


def test_edges_of_inputs_are_dated_on_the_host_as_well_as_is_said(
    rig: EmulatedBoard, make_ttl: Callable[..., TtlOutput]
) -> None:
    output = make_ttl(rig.tty)
    output.open()
    heard = Heard(output)
    count = 0
    for level in (1, 0) * 20:
        for pin in ("D8", "A0"):
            rig.drive(f"{pin} {level}")
            count += 1
            heard.wait(events=count)
    names = {"D8": "lick", "A0": "sync"}
    changes = rig.changes[-count:]
    assert [(e.input, int(e.level)) for e in heard.events] == [
        (names[change.pin], change.level) for change in changes
    ]
    first, first_change = heard.events[0], changes[0]
    slack_ns = held_up_ns(rig)
    for event, change in zip(heard.events, changes, strict=True):
        assert first.device_us is not None
        assert event.device_us is not None
        passed_us = (change.cycle - first_change.cycle) / CYCLES_PER_US
        assert abs(event.device_us - first.device_us - passed_us) <= 10
        assert event.time_ns is not None
        assert event.uncertainty_ns is not None
        assert abs(event.time_ns - change.at_ns) <= event.uncertainty_ns + slack_ns
        assert event.arrival_ns >= change.at_ns


def test_what_moved_a_pin_is_dated_on_the_host(
    rig: EmulatedBoard, make_ttl: Callable[..., TtlOutput]
) -> None:
    output = make_ttl(rig.tty)
    output.open()
    output.arm()
    heard = Heard(output)
    for number in range(40):
        output.send(command(number, "valve", ("on", "off")[number % 2], 0 if number % 2 else 10**6))
        heard.wait(acks=number + 1)
    uncertainty_ns = 1000 * float(output.facts()["clock_uncertainty_us"])
    for ack, edge in zip(heard.acks, rig.edges, strict=True):
        assert ack.device_ns is not None
        # The first were dated with less to go by, but no worse than by their own round trip.
        least_ns = max(uncertainty_ns, ack.ack_ns - ack.command_ns)
        assert abs(ack.device_ns - edge.at_ns) <= 2 * least_ns + held_up_ns(rig)


def test_what_changes_while_it_runs_is_on_record(
    rig: EmulatedBoard, make_ttl: Callable[..., TtlOutput]
) -> None:
    output = make_ttl(rig.tty)
    output.open()
    assert output.facts()["stop_input"] == "well"
    heard = Heard(output)
    heard.until(lambda: "board_refused" in output.facts())
    before = output.facts()
    assert before["stop_input"] == "well"
    assert (before["board_refused"], before["board_stops"]) == (0, 0)
    output.arm()
    output.send(command(1, "laser", "pulse", 2_000_001))
    heard.until(lambda: output.facts()["board_refused"] == 1)
    rig.drive("D2 z")
    heard.until(lambda: output.facts()["board_stops"] == 1)
    facts = output.facts()
    assert facts["stop_input"] == "stop"
    assert abs(float(facts["clock_drift_ppm"])) <= float(facts["clock_drift_error_ppm"]) + 1000
    assert float(facts["clock_uncertainty_us"]) > 0
    rig.drive("D2 0")
    heard.until(lambda: output.facts()["stop_input"] == "well")


def test_after_a_reset_the_clocks_are_compared_anew_and_the_inputs_set_up_again(
    rig: EmulatedBoard, make_ttl: Callable[..., TtlOutput]
) -> None:
    output = make_ttl(rig.tty)
    output.open()
    output.arm()
    heard = Heard(output)
    for _ in range(10):
        heard.turn()
    restarts = int(output.facts()["clock_restarts"])  # if the emulator was held up
    rig.process.send_signal(signal.SIGUSR1)
    with pytest.raises(OutputError, match="was reset"):
        heard.until(lambda: False)
    assert "clock_offset_ns" not in output.facts()
    output.arm()
    assert int(output.facts()["clock_restarts"]) > restarts
    rig.drive("D8 1")
    heard.wait(events=1)
    (event,) = heard.events
    change = rig.changes[-1]
    assert event.time_ns is not None
    assert event.uncertainty_ns is not None
    assert abs(event.time_ns - change.at_ns) <= event.uncertainty_ns + held_up_ns(rig)


# ----------------------------------------------------------------------------------- inputs


def test_no_edge_is_lost_over_an_arming(
    rig: EmulatedBoard, make_ttl: Callable[..., TtlOutput]
) -> None:
    output = make_ttl(rig.tty)
    output.open()
    heard = Heard(output)
    toggles = 400
    rig.drive(f"D8 ~{toggles}/{CYCLES_PER_MS}", f"A0 ~{toggles}/{CYCLES_PER_MS}")
    while len(rig.changes) < 2 * toggles:
        output.arm()
        heard.turn()
        output.safe()
    heard.until(lambda: "board_edges_lost" in output.facts())
    assert output.facts()["board_edges_lost"] == 0
    for name in ("lick", "sync"):
        levels = [event.level for event in heard.events if event.input == name]
        assert levels == [True, False] * (toggles // 2)


# ------------------------------------------------------------------- what is lost on the wire


def without(*lost: type[Received]) -> Callable[[bytes], bytes]:
    """Return what noise leaves of a board's words if it always hits the frames of a kind."""

    reader = protocol.FrameReader()

    def damage(data: bytes) -> bytes:
        heard = []
        for payload in reader.feed(data):
            frame = parse(payload)
            is_boot = isinstance(frame, Hello) and frame.booted
            if not isinstance(frame, lost) and not (is_boot and Hello in lost):
                heard.append(protocol.encode(payload))
        return b"".join(heard)

    return damage


@pytest.mark.parametrize("what", ["trip", "reset"])
def test_a_board_that_has_disarmed_is_noticed_though_its_word_of_it_is_lost(
    rig: EmulatedBoard, relay: Relay, make_ttl: Callable[..., TtlOutput], what: str
) -> None:
    output = make_ttl(relay.tty)
    output.open()
    output.arm()
    relay.to_host = without(Trip, Hello)
    output.send(command(1, "laser", "on", 2_000_000))
    heard = Heard(output)
    heard.wait(acks=1)
    if what == "reset":
        rig.process.send_signal(signal.SIGALRM)
    while [edge.level for edge in rig.edges] != [1, 0]:
        pause(1)
    with pytest.raises(OutputError, match="has disarmed; what it said of that was lost"):
        heard.until(lambda: False)
    with pytest.raises(OutputError, match="has disarmed"):
        output.send(command(2, "laser", "on", 2_000_000))
    output.arm()
    output.send(command(3, "laser", "on", 2_000_000))
    heard.wait(acks=2)
    assert heard.acks[1].ok


def test_a_stop_is_told_though_the_word_of_it_is_lost(
    rig: EmulatedBoard, relay: Relay, make_ttl: Callable[..., TtlOutput]
) -> None:
    output = make_ttl(relay.tty)
    output.open()
    output.arm()
    relay.to_host = without(Stopped)
    rig.drive("D2 z")
    heard = Heard(output)
    heard.wait(events=1)
    (event,) = heard.events
    assert (event.input, event.stop, event.time_ns) == ("stop", True, None)


def test_after_a_reset_that_nobody_heard_of_the_stop_and_the_inputs_are_in_use(
    rig: EmulatedBoard, relay: Relay, make_ttl: Callable[..., TtlOutput]
) -> None:
    output = make_ttl(relay.tty)
    output.open()
    relay.to_host = without(Hello)
    rig.process.send_signal(signal.SIGALRM)
    while rig.happened().count("reset") < 2:
        pause(1)
    heard = Heard(output)
    heard.until(lambda: output.facts()["stop_input"] == "unused")  # it is up, and knows nothing
    output.arm()
    rig.drive("D8 1")
    heard.wait(events=1)
    rig.drive("D2 z")
    heard.wait(events=2)
    assert [event.input for event in heard.events] == ["lick", "stop"]


def test_a_bouncing_contact_is_told_once_and_its_bounces_are_counted(
    rig: EmulatedBoard, make_ttl: Callable[..., TtlOutput]
) -> None:
    output = make_ttl(rig.tty)
    output.open()
    heard = Heard(output)
    rig.drive(f"A1 ~8/{CYCLES_PER_MS}")  # from high: falls at 1, 3, 5, 7 ms
    heard.wait(events=1)
    heard.until(lambda: len([c for c in rig.changes if c.pin == "A1"]) >= 9)
    start_ns = now_ns()
    heard.until(lambda: now_ns() - start_ns > 40_000_000)  # longer than the hold-off
    rig.drive("A1 0")
    heard.until(lambda: len(heard.events) >= 2)
    assert [(e.input, e.level, e.missed) for e in heard.events] == [
        ("poke", False, 0),
        ("poke", False, 3),
    ]


# ------------------------------------------------------------------------------------- stop


def test_the_stop_drops_the_line_within_the_board_and_the_order_in_flight_is_refused(
    rig: EmulatedBoard, make_ttl: Callable[..., TtlOutput]
) -> None:
    output = make_ttl(rig.tty)
    output.open()
    output.arm()
    heard = Heard(output)
    output.send(command(1, "laser", "on", 2_000_000))
    output.send(command(2, "valve", "train", 10_000, period_us=20_000, count=1000))
    heard.wait(acks=2)
    rig.drive("D2 z")
    heard.wait(acks=2, events=1)
    output.send(command(3, "laser", "on", 2_000_000))
    heard.wait(acks=3, events=1)
    assert (heard.acks[2].ok, heard.acks[2].detail) == (False, "the board is not armed")
    pressed = rig.changes[-1]
    falls = [edge for edge in rig.edges if edge.cycle > pressed.cycle]
    assert all(edge.level == 0 for edge in falls)
    assert falls[0].line == 0
    assert all(edge.cycle - pressed.cycle < 50 * CYCLES_PER_US for edge in falls)
    (event,) = heard.events
    assert (event.input, event.stop, event.level) == ("stop", True, True)
    output.safe()
    assert output.is_safe
    with pytest.raises(OutputError, match="refused ARM: the board's stop input says stop"):
        output.arm()


def test_without_a_stop_input_the_pin_is_not_looked_at(
    rig: EmulatedBoard, make_ttl: Callable[..., TtlOutput]
) -> None:
    output = make_ttl(rig.tty, stop_input=None)
    output.open()
    output.arm()
    heard = Heard(output)
    rig.drive("D2 z", "D2 0", "D2 1", "D8 1")
    heard.wait(events=1)
    assert heard.events[0].input == "lick"
    assert output.facts()["stop_input"] == "unused"


# ------------------------------------------------------------------- cut off, and self-test


def test_a_train_ends_with_the_watchdog_when_the_host_is_cut_off(
    rig: EmulatedBoard, make_ttl: Callable[..., TtlOutput]
) -> None:
    relay = Relay(rig.tty)
    output = make_ttl(relay.tty, watchdog_ms=200)
    output.open()
    output.arm()
    heard = Heard(output)
    output.send(command(1, "laser", "train", 3000, period_us=7000, count=10_000))
    heard.wait(acks=1)
    heard.until(lambda: len(rig.edges) >= 6)
    relay.close()
    with pytest.raises(OutputError, match="gone"):
        heard.until(lambda: False)
    last = [entry for entry in rig.wire if entry.what == "rx"][-1]
    while rig.changes[-1].cycle - last.cycle < 300 * CYCLES_PER_MS:  # well past its watchdog
        rig.drive(f"A2 {1 - rig.changes[-1].level}")
        pause(20)
    edges = rig.edges
    late = edges[-1].cycle - last.cycle - len(last.data) * 160 - 200 * CYCLES_PER_MS
    assert -7 * CYCLES_PER_MS <= late <= 200 * CYCLES_PER_US
    assert all(width <= 3000 * CYCLES_PER_US for width in pulses(edges, 0))


def test_a_failed_self_test_refuses_to_open_and_to_arm(
    relay: Relay, make_ttl: Callable[..., TtlOutput]
) -> None:
    def short_circuit(data: bytes) -> bytes:
        """Let the self-test find line 5 high, as if it touched another supply."""
        frames = []
        for payload in protocol.FrameReader().feed(data):
            if isinstance(parse(payload), SelfTest):
                payload = payload[:2] + bytes([protocol.Fault.PIN, 1 << 5]) + payload[4:]
            frames.append(payload)
        return b"".join(map(protocol.encode, frames))

    output = make_ttl(relay.tty)
    output.open()
    output.arm()
    output.safe()
    relay.to_host = short_circuit
    with pytest.raises(OutputError, match=r"failed its self-test: .*pin 5"):
        output.arm()
    output.close()
    with pytest.raises(OutputError, match=r"failed its self-test: .*pin 5"):
        output.open()
    relay.to_host = bytes
    output.open()
    output.arm()


def test_the_emulated_board_has_inputs_too(tmp_path: Path) -> None:
    fifo, log = tmp_path / "inputs", tmp_path / "inputs.log"
    settings = {
        **SETTINGS,
        "inputs_fifo": str(fifo),
        "input_log": str(log),
        "edge_log": str(tmp_path / "edges.log"),
    }
    output = EmulatedTtlOutput(EmulatedTtlOutput.Config.model_validate(settings))
    output.open()
    with pytest.raises(OutputError, match="stop input says stop"):
        output.arm()  # nobody has closed the contact
    fifo.write_text("D2 0\nA0 1\n")
    events: list[InputEvent] = []
    deadline_ns = now_ns() + int(PATIENCE_S * 1e9)
    while not events and now_ns() < deadline_ns:
        output.beat()
        events += output.inputs()
    output.arm()
    output.close()
    assert [(event.input, event.level) for event in events] == [("sync", True)]
    assert [line.split()[2:] for line in log.read_text().splitlines()] == [["D2", "0"], ["A0", "1"]]
