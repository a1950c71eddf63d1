"""The drivers against the emulated board: orders, faults, and a host that dies."""

import os
import shutil
import signal
import subprocess
import sys
import tty
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest
import serial
from board_rig import (
    CYCLES_PER_MS,
    CYCLES_PER_US,
    FIRMWARE_115200,
    HARDWARE,
    PATIENCE_S,
    EmulatedBoard,
    Relay,
    pulses,
    read_edges,
    read_wire,
    relayed,
)
from device_timed_contract import DeviceTimedContract, Drive, InputContract, MakeWith
from test_output_contract import LINES as CONTRACT_LINES
from test_output_contract import Edges, OutputContract, pause

from rtpose.clock import now_ns
from rtpose.errors import BoardVersionError, OutputError
from rtpose.interfaces import Output
from rtpose.messages import Ack, Command
from rtpose_hardware import protocol
from rtpose_hardware.answers import BoardStatus, parse
from rtpose_hardware.board_link import BoardLink
from rtpose_hardware.board_output import BoardOutput
from rtpose_hardware.board_settings import BoardLine
from rtpose_hardware.emulated_ttl import EmulatedTtlOutput
from rtpose_hardware.ttl import TtlOutput

pytestmark = [pytest.mark.hardware, pytest.mark.usefixtures("built")]

LINES = {"laser": BoardLine(pin=0, max_on_ms=2000), "valve": BoardLine(pin=5, max_on_ms=2000)}


def command(command_id: int, line: str, action: str, width_us: int = 0) -> Command:
    return Command.model_validate(
        {
            "command_id": command_id,
            "output": "board",
            "line": line,
            "action": action,
            "width_us": width_us,
        }
    )


def collect(output: BoardOutput, count: int) -> list[Ack]:
    """Wait for that many answers."""
    answers: list[Ack] = []
    deadline_ns = now_ns() + int(PATIENCE_S * 1e9)
    while len(answers) < count and now_ns() < deadline_ns:
        answers += output.acks()
    assert len(answers) == count
    return answers


def complaint(output: BoardOutput) -> str:
    """Wait until the driver raises, and return what it says."""
    deadline_ns = now_ns() + int(PATIENCE_S * 1e9)
    while now_ns() < deadline_ns:
        try:
            output.acks()
        except OutputError as error:
            return str(error)
    pytest.fail("it never complained")


@pytest.fixture
def make_ttl(start_board: Callable[..., EmulatedBoard]) -> Iterator[Callable[..., TtlOutput]]:
    """Return a function that makes drivers; they are closed before their boards are stopped."""
    outputs: list[TtlOutput] = []

    def make(port: Path | str, **settings: Any) -> TtlOutput:
        config = TtlOutput.Config(port=str(port), lines=LINES, **{"watchdog_ms": 1000, **settings})
        outputs.append(TtlOutput(config))
        return outputs[-1]

    yield make
    for output in outputs:
        output.close()


@pytest.fixture
def rig(start_board: Callable[..., EmulatedBoard]) -> EmulatedBoard:
    """Return an emulated board that nobody has opened yet."""
    return start_board()


@pytest.fixture
def relay(rig: EmulatedBoard) -> Iterator[Relay]:
    """Return a wire to the board on which things can get lost."""
    with relayed(rig.tty) as relay:
        yield relay


class TestEmulated(OutputContract):
    plugin = EmulatedTtlOutput
    settings: ClassVar[Mapping[str, Any]] = {"watchdog_ms": 200}

    @pytest.fixture
    def make_output(self, tmp_path: Path) -> Callable[[], Output]:
        edge_log = str(tmp_path / "edges.log")
        settings = {"lines": CONTRACT_LINES, "edge_log": edge_log, **self.settings}
        config = EmulatedTtlOutput.Config.model_validate(settings)
        return lambda: EmulatedTtlOutput(config)


class TestTtl(DeviceTimedContract, InputContract):
    """The driver for a serial port, on a wire that can be cut, at the end of which is a board."""

    plugin = TtlOutput
    settings: ClassVar[Mapping[str, Any]] = {"port": "/dev/no-such-port", "watchdog_ms": 300}

    @pytest.fixture
    def wire(self, rig: EmulatedBoard) -> Iterator[Relay]:
        rig.drive("D2 0")  # the contact of the emergency stop is closed
        relay = Relay(rig.tty)
        yield relay
        if relay.tty:
            relay.close()

    @pytest.fixture
    def make_with(self, wire: Relay) -> MakeWith:
        def build(lines: Mapping[str, Any]) -> TtlOutput:
            settings = {
                **self.settings,
                "port": wire.tty,
                "lines": lines,
                "inputs": {"lick": {"pin": "D8", "edges": "both"}},
                "stop_input": "closed-is-well",
            }
            return TtlOutput(TtlOutput.Config.model_validate(settings))

        return build

    @pytest.fixture
    def unplug(self, wire: Relay) -> Callable[[], None]:
        def cut() -> None:
            wire.close()
            wire.tty = ""

        return cut

    @pytest.fixture
    def lick(self, rig: EmulatedBoard) -> Drive:
        rig.drive("D8 0")
        return lambda high: rig.drive(f"D8 {high:d}")

    @pytest.fixture
    def press(self, rig: EmulatedBoard) -> Drive:
        return lambda pressed: rig.drive("D2 z" if pressed else "D2 0")

    @pytest.fixture
    def edges(self, rig: EmulatedBoard) -> Callable[[], Edges]:
        names = {0: "laser", 1: "lamp"}
        return lambda: [(names[edge.line], bool(edge.level)) for edge in rig.edges]


# ----------------------------------------------------------------------------------- in order


def test_a_thousand_commands_are_acknowledged_in_order_and_seen_on_the_pins(
    rig: EmulatedBoard, make_ttl: Callable[..., TtlOutput]
) -> None:
    output = make_ttl(rig.tty)
    output.open()
    output.arm()
    count = 1000
    sent = []
    for number in range(count):
        action, width_us = (("on", 2_000_000), ("off", 0))[number % 2]
        sent.append(output.send(command(number, "valve", action, width_us)))
    acks = collect(output, count)
    assert [ack.command_id for ack in acks] == list(range(count))
    assert [ack.command_ns for ack in acks] == sent
    assert all(ack.ok and ack.detail == "" for ack in acks)
    edges = rig.edges
    assert [(edge.line, edge.level) for edge in edges] == [(5, 1), (5, 0)] * (count // 2)
    offsets = [
        edge.cycle - (ack.device_us or 0) * CYCLES_PER_US
        for edge, ack in zip(edges, acks, strict=True)
    ]
    assert max(offsets) - min(offsets) <= CYCLES_PER_US


def test_a_pulse_has_its_width_and_a_refusal_its_reason(
    rig: EmulatedBoard, make_ttl: Callable[..., TtlOutput]
) -> None:
    output = make_ttl(rig.tty)
    output.open()
    output.arm()
    output.send(command(1, "laser", "on", 2_000_000))
    output.send(command(2, "laser", "on", 2_000_000))
    output.send(command(3, "laser", "pulse", 1000))
    output.send(command(4, "valve", "pulse", 2_000_001))
    output.send(command(5, "valve", "off"))
    output.send(command(6, "valve", "pulse", 5000))
    details = {ack.command_id: (ack.ok, ack.detail) for ack in collect(output, 6)}
    assert details[1] == (True, "")
    assert details[2] == (True, "no edge: the line was high already")
    assert details[3][0] is False
    assert details[3][1] == "the line is on or in a train already"
    assert details[4][0] is False
    assert "2000 ms" in details[4][1]
    assert details[5] == (True, "no edge: the line was low already")
    assert details[6] == (True, "")
    while len(pulses(rig.edges, 5)) < 1:
        output.beat()
        pause(1)
    assert pulses(rig.edges, 5) == [5000 * CYCLES_PER_US]


def test_what_it_opened_is_on_record(
    rig: EmulatedBoard, make_ttl: Callable[..., TtlOutput]
) -> None:
    info = make_ttl(rig.tty, watchdog_ms=250).open()
    assert info.watchdog_ms == 250
    assert info.facts["port"] == str(rig.tty)
    assert info.facts["baud"] == 1_000_000
    assert info.facts["protocol_version"] == protocol.PROTOCOL_VERSION
    assert str(info.facts["firmware"]) in info.device


def test_the_other_speed_is_tried(
    start_board: Callable[..., EmulatedBoard], make_ttl: Callable[..., TtlOutput]
) -> None:
    board = start_board(firmware=FIRMWARE_115200)
    output = make_ttl(board.tty)
    assert output.open().facts["baud"] == 115_200
    output.arm()
    output.send(command(1, "laser", "pulse", 1000))
    assert collect(output, 1)[0].ok


def test_a_port_that_refuses_a_speed_is_used_at_the_other_one(
    start_board: Callable[..., EmulatedBoard],
    make_ttl: Callable[..., TtlOutput],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some USB bridges refuse 1 Mbaud; no port of this machine does."""
    baudrate: Any = serial.Serial.baudrate

    def refuse(port: serial.Serial, baud: int) -> None:
        if baud == 1_000_000:
            raise ValueError("the driver does not have this speed")
        baudrate.__set__(port, baud)

    monkeypatch.setattr(serial.Serial, "baudrate", property(baudrate.__get__, refuse))
    board = start_board(firmware=FIRMWARE_115200)
    output = make_ttl(board.tty)
    assert output.open().facts["baud"] == 115_200
    output.arm()
    output.send(command(1, "laser", "pulse", 1000))
    assert collect(output, 1)[0].ok


# ----------------------------------------------------------------------------- opening in vain


def test_an_absent_port_is_named_with_those_that_there_are(
    make_ttl: Callable[..., TtlOutput],
) -> None:
    output = make_ttl("/dev/no-such-port")
    with pytest.raises(OutputError, match=r"'/dev/no-such-port' cannot be opened.*ports of this"):
        output.open()
    output.safe()
    assert not output.is_safe


def test_a_port_in_use_is_not_opened_twice(
    rig: EmulatedBoard, make_ttl: Callable[..., TtlOutput]
) -> None:
    first = make_ttl(rig.tty)
    first.open()
    with pytest.raises(OutputError, match="cannot be opened"):
        make_ttl(rig.tty).open()
    with pytest.raises(OutputError, match="open already"):
        first.open()
    first.arm()


def test_a_port_without_a_board_is_said_to_be_one(
    relay: Relay, make_ttl: Callable[..., TtlOutput]
) -> None:
    relay.to_host = lambda data: b""
    with pytest.raises(OutputError, match=r"nothing on .* answers like a TTL board"):
        make_ttl(relay.tty).open()


@pytest.mark.parametrize("drift", ["PROTOCOL_VERSION", "MAX_WIDTH_US"])
def test_another_protocol_is_refused(
    drift: str,
    tmp_path: Path,
    start_board: Callable[..., EmulatedBoard],
    make_ttl: Callable[..., TtlOutput],
) -> None:
    if shutil.which("avr-gcc") is None:
        pytest.skip("package missing: gcc-avr")
    sources = tmp_path / "firmware"
    shutil.copytree(HARDWARE / "firmware", sources, ignore=shutil.ignore_patterns("build"))
    header = sources / "protocol.h"
    text = header.read_text()
    for old, new in (("PROTOCOL_VERSION 2", "PROTOCOL_VERSION 3"), ("60000000", "50000000")):
        if drift in text.split(old)[0].splitlines()[-1] + old:
            header.write_text(text.replace(old, new))
    assert header.read_text() != text
    subprocess.run(
        ["make", "-s", "-C", sources, "build/board.elf"], check=True, capture_output=True
    )
    board = start_board(firmware=sources / "build" / "board.elf")
    output = make_ttl(board.tty)
    version = 3 if drift == "PROTOCOL_VERSION" else 2
    with pytest.raises(
        BoardVersionError, match=rf"version {version} .*version 2 .*flash"
    ) as caught:
        output.open()
    assert caught.value.exit_code == 2
    with pytest.raises(OutputError, match="not open"):
        output.arm()


def test_without_the_emulator_it_says_what_to_type(tmp_path: Path) -> None:
    settings = EmulatedTtlOutput.Config(lines=LINES, emulator=str(tmp_path / "no-emulator"))
    output = EmulatedTtlOutput(settings)
    with pytest.raises(OutputError, match=r"not built.*no-emulator.*make hardware"):
        output.open()


def test_what_stops_the_emulator_from_starting_is_passed_on(tmp_path: Path) -> None:
    settings = EmulatedTtlOutput.Config(lines=LINES, edge_log=str(tmp_path / "no" / "edges.log"))
    with pytest.raises(OutputError, match=r"did not start.*edges\.log.*No such file"):
        EmulatedTtlOutput(settings).open()


# ---------------------------------------------------------------------------------- disarmed


def test_without_heartbeats_the_board_disarms_and_the_driver_says_so(
    rig: EmulatedBoard, make_ttl: Callable[..., TtlOutput]
) -> None:
    output = make_ttl(rig.tty, watchdog_ms=300)
    output.open()
    output.arm()
    output.send(command(1, "laser", "on", 2_000_000))
    (ack,) = collect(output, 1)  # what came before is handed over first
    assert ack.ok
    assert "no heartbeat for 300 ms" in complaint(output)
    for call in (output.acks, output.beat, lambda: output.send(command(2, "laser", "off"))):
        with pytest.raises(OutputError, match="no heartbeat"):
            call()
    (high,) = pulses(rig.edges, 0)
    assert 300 * CYCLES_PER_MS <= high <= 301 * CYCLES_PER_MS
    output.arm()
    output.send(command(3, "laser", "on", 1000))
    assert collect(output, 1)[0].ok


def test_a_reset_of_the_board_is_not_overlooked(
    rig: EmulatedBoard, make_ttl: Callable[..., TtlOutput]
) -> None:
    output = make_ttl(rig.tty)
    output.open()
    output.arm()
    output.send(command(1, "laser", "on", 2_000_000))
    assert collect(output, 1)[0].ok
    rig.process.send_signal(signal.SIGUSR1)
    assert "was reset (its firmware hung)" in complaint(output)
    assert [edge.level for edge in rig.edges] == [1, 0]
    with pytest.raises(OutputError, match="was reset"):
        output.send(command(2, "laser", "on", 1000))
    output.arm()  # sets the limits again, which the board forgot
    output.send(command(3, "laser", "on", 1000))
    assert collect(output, 1)[0].ok


def test_safe_drops_the_lines_and_is_confirmed_by_the_pins(
    rig: EmulatedBoard, make_ttl: Callable[..., TtlOutput]
) -> None:
    output = make_ttl(rig.tty)
    output.open()
    assert output.is_safe
    output.arm()
    for line in LINES:
        output.send(command(1, line, "on", 2_000_000))
    output.safe()
    assert output.is_safe
    assert [edge.level for edge in rig.edges] == [1, 1, 0, 0]
    with pytest.raises(OutputError, match="not armed"):
        output.send(command(2, "laser", "on", 1000))


# -------------------------------------------------------------------------- a wire that fails


def test_silence_is_reported(relay: Relay, make_ttl: Callable[..., TtlOutput]) -> None:
    output = make_ttl(relay.tty, ack_timeout_ms=200)
    output.open()
    output.arm()
    relay.to_host = lambda data: b""
    output.send(command(1, "laser", "pulse", 1000))
    output.send(command(2, "laser", "off"))
    acks = collect(output, 2)
    assert [(ack.command_id, ack.ok) for ack in acks] == [(1, False), (2, False)]
    assert all(ack.detail.startswith("no ack") for ack in acks)
    assert "silent for 200 ms" in complaint(output)
    output.safe()
    assert not output.is_safe
    relay.to_host = bytes
    output.arm()
    output.send(command(3, "laser", "pulse", 1000))
    (ack,) = collect(output, 1)
    assert (ack.command_id, ack.ok) == (3, True)


def test_a_damaged_answer_is_a_lost_one_and_the_next_is_understood(
    relay: Relay, make_ttl: Callable[..., TtlOutput]
) -> None:
    output = make_ttl(relay.tty, ack_timeout_ms=10_000)
    output.open()
    output.arm()
    damaged: list[bytes] = []

    def damage_the_first(data: bytes) -> bytes:
        if damaged:
            return data
        damaged.append(data)
        return bytes([data[0] ^ 0x10]) + data[1:]

    relay.to_host = damage_the_first
    output.send(command(1, "laser", "pulse", 1000))
    while not damaged:
        pause(1)
    output.send(command(2, "laser", "off"))
    lost, answered = collect(output, 2)
    assert (lost.command_id, lost.ok) == (1, False)
    assert "lost on the wire" in lost.detail
    assert (answered.command_id, answered.ok) == (2, True)


def test_a_board_that_reads_no_more_ends_the_sending(
    relay: Relay, make_ttl: Callable[..., TtlOutput]
) -> None:
    output = make_ttl(relay.tty)
    output.open()
    output.arm()
    relay.to_host = lambda data: b""
    with pytest.raises(OutputError, match="unanswered"):
        for number in range(100):
            output.send(command(number, "laser", "off"))


def test_a_line_that_stays_high_is_not_called_safe(
    relay: Relay, make_ttl: Callable[..., TtlOutput]
) -> None:
    def short_circuit(data: bytes) -> bytes:
        """Let the pin of line 5 read high, as if it touched another supply."""
        frames = []
        for payload in protocol.FrameReader().feed(data):
            levels = payload[8] | 1 << 5 if isinstance(parse(payload), BoardStatus) else 0
            frames.append(payload[:8] + bytes([levels]) + payload[9:] if levels else payload)
        return b"".join(map(protocol.encode, frames))

    output = make_ttl(relay.tty)
    output.open()
    relay.to_host = short_circuit
    output.safe()
    assert not output.is_safe
    with pytest.raises(OutputError, match=r"reads 5 high.*short circuit"):
        output.acks()


@pytest.mark.parametrize("call", ["beat", "send", "arm"])
def test_a_board_that_vanishes_is_an_error_at_the_next_call(
    rig: EmulatedBoard, make_ttl: Callable[..., TtlOutput], call: str
) -> None:
    output = make_ttl(rig.tty)
    output.open()
    output.arm()
    rig.process.kill()
    rig.process.wait(PATIENCE_S)
    calls: Mapping[str, Callable[[], object]] = {
        "beat": output.beat,
        "send": lambda: output.send(command(1, "laser", "on", 1000)),
        "arm": output.arm,
    }
    with pytest.raises(OutputError, match="gone"):
        calls[call]()
    assert "gone" in complaint(output)  # `acks` does not touch the port, so it may need a moment
    output.safe()  # must not raise
    assert not output.is_safe
    output.close()


def test_commands_that_a_vanished_board_will_not_answer_are_reported(
    rig: EmulatedBoard, make_ttl: Callable[..., TtlOutput]
) -> None:
    output = make_ttl(rig.tty)
    output.open()
    output.arm()
    rig.process.send_signal(signal.SIGSTOP)
    output.send(command(1, "laser", "on", 1000))
    rig.process.kill()
    rig.process.wait(PATIENCE_S)
    (ack,) = collect(output, 1)
    assert (ack.command_id, ack.ok) == (1, False)
    assert "gone" in complaint(output)


def test_a_port_that_is_unplugged_while_the_speed_is_changed_is_said_to_be_gone() -> None:
    board_end, host_end = os.openpty()
    tty.setraw(host_end)
    link = BoardLink(os.ttyname(host_end))
    os.close(host_end)
    os.close(board_end)
    with pytest.raises(OutputError, match="is gone"):
        link.set_baud(1_000_000)
    with pytest.raises(OutputError, match="is gone"):
        link.check()
    link.close()


# -------------------------------------------------------------------------- a host that dies

HOST = """
import sys
import time
from rtpose.interfaces import Output
from rtpose.messages import Command
from rtpose_hardware.board_settings import BoardLine
from rtpose_hardware.emulated_ttl import EmulatedTtlOutput

edges, wire = sys.argv[1:]
lines = {"laser": BoardLine(pin=3, max_on_ms=60000)}
output = EmulatedTtlOutput(
    EmulatedTtlOutput.Config(lines=lines, watchdog_ms=100, edge_log=edges, wire_log=wire)
)
output.open()
output.arm()
output.send(Command(command_id=1, output="board", line="laser", action="on", width_us=60_000_000))
while not output.acks():
    pass
print("on", flush=True)
while True:
    output.beat()
    time.sleep(0.01)
"""


def test_killing_the_host_drops_the_line_within_the_watchdog_time(tmp_path: Path) -> None:
    edge_log, wire_log = tmp_path / "edges.log", tmp_path / "wire.log"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", HOST, str(edge_log), str(wire_log)],
        stdout=subprocess.PIPE,
        env=environment,
    ) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == b"on\n"
        (emulator,) = psutil.Process(host.pid).children()
        while len(read_wire(wire_log)) < 100:  # it is beating
            pause(1)
        host.kill()
    assert emulator.wait(PATIENCE_S) in (0, None)  # it ends by itself, after the board's watchdog
    (rise, fall) = read_edges(edge_log)
    assert (rise.line, rise.level, fall.line, fall.level) == (3, 1, 3, 0)
    last_sent = [entry for entry in read_wire(wire_log) if entry.what == "rx"][-1]
    wire_time = len(last_sent.data) * 160  # the frame's end is on the wire so much later
    high = fall.cycle - last_sent.cycle - wire_time
    assert 100 * CYCLES_PER_MS - 160 * 64 <= high <= 100 * CYCLES_PER_MS + 200 * CYCLES_PER_US
    assert not list(tmp_path.glob("*.tty"))
