"""The Firmata output against the published StandardFirmata sketch, on the emulated chip."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from board_rig import HARDWARE, EmulatedBoard, read_edges, read_wire
from counterpart import PATIENCE_S, until
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from test_output_contract import LINES, Edges, HostTimedContract, command

from rtpose.errors import BoardVersionError, MissingExtraError, OutputError
from rtpose_hardware import firmata_protocol as protocol
from rtpose_hardware.firmata import FirmataOutput, FirmataSettings
from rtpose_hardware.firmata_protocol import Firmware, Parser, PinState, Version

#: StandardFirmata (protocol 2.4) as compiled for the Uno, in an npm package of tested hex files.
PACKAGE = "avrgirl-arduino@5.0.1"
HEX = "package/junk/hex/uno/StandardFirmata.cpp.hex"
HEX_SHA256 = "6d57ea7cf30e26c9c2f3a01ee37907d2c951f8bc9c27f84dddad12fa9c8b8f36"
BUILD = HARDWARE / "emulator" / "build"

#: Pins 4 and 5 of an Uno are the emulator's lines 0 and 1.
OWN_LINES = {name: {**line, "pin": 4 + line["pin"]} for name, line in LINES.items()}
NAMES = dict(enumerate(LINES))

#: The sketch never sleeps, so the emulated chip falls behind where others have its CPU.
OPTIONS = ("--realtime",)


@pytest.fixture(scope="session")
def sketch(built: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return StandardFirmata as an ELF file, fetched once; skip, or fail where it is required."""
    elf = BUILD / "standard-firmata.elf"
    if elf.exists():
        return elf
    try:
        return fetch(elf, tmp_path_factory.mktemp("sketch"))
    except (OSError, subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        message = f"StandardFirmata is not there: npm pack {PACKAGE} and avr-gcc failed: {error}"
        if os.environ.get("RTPOSE_REQUIRE_HARDWARE") == "1":
            pytest.fail(message)
        pytest.skip(message)


def fetch(elf: Path, folder: Path) -> Path:
    npm, compiler = shutil.which("npm"), shutil.which("avr-gcc")
    if npm is None or compiler is None:
        raise FileNotFoundError("npm or avr-gcc is not installed")
    pack = [npm, "pack", "--silent", PACKAGE]
    subprocess.run(pack, cwd=folder, check=True, capture_output=True, timeout=60)
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as packed:
        member = packed.extractfile(HEX)
        assert member is not None
        data = member.read()
    assert hashlib.sha256(data).hexdigest() == HEX_SHA256
    (folder / "sketch.hex").write_bytes(data)
    (folder / "sketch.S").write_text('.section .text\n.incbin "sketch.bin"\n')
    unhex = ["avr-objcopy", "-I", "ihex", "-O", "binary", "sketch.hex", "sketch.bin"]
    link = [compiler, "-mmcu=atmega328p", "-nostdlib", "-nostartfiles", "sketch.S", "-o"]
    subprocess.run(unhex, cwd=folder, check=True, capture_output=True)
    subprocess.run([*link, "sketch.elf"], cwd=folder, check=True, capture_output=True)
    shutil.copyfile(folder / "sketch.elf", elf)
    return elf


@pytest.fixture
def arduino(start_board: Callable[..., EmulatedBoard], sketch: Path) -> EmulatedBoard:
    """Return an Uno, which is reset by opening its port and then takes 2 s to start."""
    return start_board(*OPTIONS, firmware=sketch)


@pytest.fixture(scope="module")
def running(sketch: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedBoard]:
    """Return a board that opening does not reset, with the sketch started."""
    folder = tmp_path_factory.mktemp("uno")
    board = EmulatedBoard(folder, *OPTIONS, "--no-reset-on-open", firmware=sketch)
    starter = make(board.tty)
    starter.open()
    starter.close()
    yield board
    board.stop()


def make(port: Path | str, **settings: Any) -> FirmataOutput:
    given = {"lines": OWN_LINES, "port": str(port), **settings}
    return FirmataOutput(FirmataSettings.model_validate(given))


@pytest.fixture
def edges(running: EmulatedBoard) -> Callable[[], Edges]:
    """Return what tells the edges of the board that runs, since now."""
    before = len(edges_of(running))
    return lambda: edges_of(running)[before:]


def edges_of(arduino: EmulatedBoard) -> Edges:
    known = [edge for edge in read_edges(arduino.edge_log) if edge.line in NAMES]
    return [(NAMES[edge.line], bool(edge.level)) for edge in known]


class TestContract(HostTimedContract):
    plugin = FirmataOutput
    settings: ClassVar[dict[str, Any]] = {"port": "/dev/ttyACM0"}

    @pytest.fixture
    def make_output(self, running: EmulatedBoard) -> Callable[[], FirmataOutput]:
        return lambda: make(running.tty, watchdog_ms=250)

    @pytest.fixture
    def edges(self, edges: Callable[[], Edges]) -> Callable[[], Edges]:
        return edges

    def test_unplugged_in_mid_command_it_raises_until_it_is_back(  # type: ignore[override]
        self, arduino: EmulatedBoard
    ) -> None:
        output = make(arduino.tty)
        output.open()
        output.arm()
        super().test_unplugged_in_mid_command_it_raises_until_it_is_back(output, arduino.stop)


def test_what_it_opened_is_on_record_and_nothing_rises_before_arming(
    running: EmulatedBoard, edges: Callable[[], Edges]
) -> None:
    before = len(read_wire(running.wire_log))
    output = make(running.tty)
    info = output.open()
    assert info.facts["firmware"] == "StandardFirmata.ino 2.4"
    with pytest.raises(OutputError, match="not armed"):
        output.send(command(1, "laser", "on", 1000))
    output.close()
    assert edges() == []
    wire = read_wire(running.wire_log)[before:]
    sent = b"".join(entry.data for entry in wire if entry.what == "rx")
    levels = [sent[at + 1 : at + 3] for at, byte in enumerate(sent) if byte == 0x90]
    assert levels and set(levels) == {b"\0\0"}, "no byte that switches a line on left the host"


def test_one_line_does_not_move_the_other(
    running: EmulatedBoard, edges: Callable[[], Edges]
) -> None:
    output = make(running.tty)
    output.open()
    output.arm()
    orders = [("laser", "on"), ("valve", "on"), ("laser", "off"), ("laser", "on"), ("valve", "off")]
    for number, (line, action) in enumerate(orders):
        output.send(command(number, line, action, 0 if action == "off" else 150_000))
    output.safe()
    assert output.is_safe
    assert [ack.ok for ack in output.acks()] == [True] * 5
    output.close()
    wanted = [(line, action == "on") for line, action in orders]
    assert edges() == [*wanted, ("laser", False)]


HOST = """
import sys
from rtpose.messages import Command
from rtpose_hardware.firmata import FirmataOutput, FirmataSettings
lines = {"laser": {"pin": 4, "max_on_ms": 60_000}}
settings = {"port": sys.argv[1], "watchdog_ms": 200, "lines": lines}
output = FirmataOutput(FirmataSettings.model_validate(settings))
output.open()
output.arm()
output.send(Command(command_id=1, output="o", line="laser", action="on", width_us=60_000_000))
print("on", flush=True)
while True:
    output.beat()
    output.acks()
    sys.stdin.readline() if len(sys.argv) > 2 else __import__("time").sleep(0.02)
"""


@pytest.mark.parametrize("way", ["SIGKILL", "SIGSTOP", "hang"])
def test_a_host_that_is_killed_stopped_or_hangs_leaves_no_line_high(
    running: EmulatedBoard, edges: Callable[[], Edges], way: str
) -> None:
    hang = ["hang"] if way == "hang" else []
    host = subprocess.Popen(
        [sys.executable, "-c", HOST, str(running.tty), *hang],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert host.stdin is not None and host.stdout is not None
    try:
        assert host.stdout.readline() == b"on\n"
        until(edges, "the line rises")
        if not hang:
            assert edges() == [("laser", True)]
            host.send_signal(signal.Signals[way])
        until(lambda: len(edges()) == 2, "the line falls")
        assert edges() == [("laser", True), ("laser", False)]
    finally:
        host.kill()
        host.wait(PATIENCE_S)
        host.stdin.close()
        host.stdout.close()


def test_a_port_without_a_firmata_board_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtpose_hardware.firmata._HELLO_TIMEOUT_S", 0.2)
    master, slave = os.openpty()
    try:
        with pytest.raises(OutputError, match="answers like a Firmata board at 57600 baud"):
            make(os.ttyname(slave)).open()
    finally:
        os.close(master)
        os.close(slave)


@pytest.fixture
def talker() -> Iterator[Callable[[bytes], str]]:
    """Return what makes a port that has said something already, whatever it is asked."""
    opened: list[int] = []

    def talk(said: bytes) -> str:
        master, slave = os.openpty()
        opened.extend((master, slave))
        import tty

        tty.setraw(slave)
        os.write(master, said)
        return os.ttyname(slave)

    yield talk
    for fd in opened:
        os.close(fd)


def test_another_protocol_is_refused(
    talker: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import serial

    monkeypatch.setattr(serial.Serial, "_reset_input_buffer", lambda self: None)
    port = talker(bytes([0xF9, 3, 1, 0xF0, 0x79, 1, 0, ord("X"), 0, 0xF7]))
    with pytest.raises(BoardVersionError, match=r"Firmata 3\.1, not 2"):
        make(port).open()


def test_an_absent_port_is_named() -> None:
    with pytest.raises(OutputError, match="/dev/no-such-port"):
        make("/dev/no-such-port").open()


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ({"a": {"pin": 1, "max_on_ms": 1}}, "pins 0 and 1 are the serial port"),
        ({"a": {"pin": 4, "max_on_ms": 1}, "b": {"pin": 4, "max_on_ms": 1}}, "share pin 4"),
    ],
)
def test_pins_that_cannot_be_lines_are_refused(lines: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        FirmataSettings.model_validate({"port": "p", "lines": lines})


def test_without_pyserial_it_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "serial", None)
    with pytest.raises(MissingExtraError, match=r'pip install "rtpose\[serial\]"'):
        make("/dev/ttyACM0").open()


# ------------------------------------------------------------------------------------ the protocol

PINS = st.integers(0, 127)
MESSAGES = st.one_of(
    st.builds(Version, PINS, PINS),
    st.builds(Firmware, PINS, PINS, st.text(st.characters(max_codepoint=0x3FFF), max_size=20)),
    st.builds(PinState, PINS, PINS, st.integers(0, 2**14 - 1)),
)


def said(message: protocol.Received) -> bytes:
    match message:
        case Version(major, minor):
            return bytes([0xF9, major, minor])
        case Firmware(major, minor, name):
            letters = (part for letter in map(ord, name) for part in (letter & 127, letter >> 7))
            return bytes([0xF0, 0x79, major, minor, *letters, 0xF7])
        case PinState(pin, mode, value):
            return bytes([0xF0, 0x6E, pin, mode, value & 127, value >> 7, 0xF7])


@given(st.lists(MESSAGES, max_size=6), st.lists(st.integers(1, 9), max_size=30))
def test_messages_are_found_however_they_are_cut(
    messages: list[protocol.Received], sizes: list[int]
) -> None:
    stream = b"".join(bytes([0xE0, 1, 2]) + said(message) for message in messages)
    parser = Parser()
    got: list[protocol.Received] = []
    for size in sizes:
        got += parser.feed(stream[:size])
        stream = stream[size:]
    assert [*got, *parser.feed(stream)] == messages


@given(st.binary(max_size=200), st.lists(MESSAGES, min_size=1, max_size=3))
def test_after_noise_the_next_message_is_understood(
    noise: bytes, messages: list[protocol.Received]
) -> None:
    parser = Parser()
    list(parser.feed(noise))
    assert list(parser.feed(b"".join(map(said, messages)))) == messages


@given(st.lists(st.tuples(st.integers(2, 63), st.booleans()), max_size=40))
def test_setting_one_pin_keeps_every_other(changes: list[tuple[int, bool]]) -> None:
    levels: dict[int, int] = {}
    board: dict[int, bool] = {}
    for pin, high in changes:
        port, bit = divmod(pin, 8)
        levels[port] = levels.get(port, 0) & ~(1 << bit) | high << bit
        command_byte, low, rest = protocol.set_port(port, levels[port])
        assert command_byte == 0x90 | port and low < 128 and rest < 128
        for place in range(8):
            board[8 * port + place] = bool((low | rest << 7) >> place & 1)
    wanted = dict(changes)
    assert {pin: board[pin] for pin in wanted} == wanted
