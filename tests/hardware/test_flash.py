"""`rtpose flash`: avrdude against real boot loaders on the emulated chip."""

import json
import os
import shutil
import subprocess
import sys
import threading
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import serial
from board_rig import (
    FIRMWARE,
    FIRMWARE_115200,
    NO_PRIVILEGE,
    OTHER_VERSION,
    EmulatedBoard,
)
from serial.tools import list_ports
from serial.tools.list_ports_common import ListPortInfo
from typer.testing import CliRunner

from rtpose.cli import command_line
from rtpose.errors import InputError
from rtpose_hardware import protocol
from rtpose_hardware.ttl import TtlOutput

pytestmark = [pytest.mark.hardware, pytest.mark.usefixtures("built")]

#: Debian's package arduino-core-avr.
_BOOT_LOADERS = Path("/usr/share/arduino/hardware/arduino/avr/bootloaders")
_OLD_NANO = _BOOT_LOADERS / "atmega" / "ATmegaBOOT_168_atmega328.hex"
_ATMEGA168 = _BOOT_LOADERS / "optiboot" / "optiboot_atmega168.hex"

_LIMIT_S = 100.0

#: What Linux calls the program that runs the tests.
_OWN_NAME = Path("/proc/self/comm").read_text().strip()

StartBoard = Callable[..., EmulatedBoard]


@pytest.fixture(scope="session")
def optiboot(built: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the boot loader of an Uno, from its published source.

    Debian's compiler makes it 20 bytes too large for the 512 at which an Uno starts it, so here it
    has the chip's next larger boot section, 1024 bytes.
    """
    missing = [] if shutil.which("avrdude") else ["avrdude"]
    missing += [] if _BOOT_LOADERS.is_dir() else ["arduino-core-avr"]
    if missing:
        message = f"uploads cannot be tested, packages missing: {', '.join(missing)}"
        if os.environ.get("RTPOSE_REQUIRE_HARDWARE") == "1":
            pytest.fail(message)
        pytest.skip(message)
    folder = tmp_path_factory.mktemp("optiboot")
    elf, boot_loader = folder / "optiboot.elf", folder / "optiboot.hex"
    source = _BOOT_LOADERS / "optiboot" / "optiboot.c"
    flags = "-mmcu=atmega328p -Os -fno-inline-small-functions -fno-split-wide-types -mrelax"
    flags += " -DF_CPU=16000000L -DBAUD_RATE=115200 -DLED_START_FLASHES=3 -nostartfiles -nostdlib"
    flags += " -Wl,--section-start=.text=0x7c00 -Wl,--section-start=.version=0x7ffe"
    subprocess.run(["avr-gcc", *flags.split(), "-o", elf, source], check=True)
    sections = "-j .text -j .data -j .version --set-section-flags .version=alloc,load -O ihex"
    subprocess.run(["avr-objcopy", *sections.split(), elf, boot_loader], check=True)
    return boot_loader


@pytest.fixture
def uno(start_board: StartBoard, optiboot: Path) -> EmulatedBoard:
    """Return an Uno that has our firmware for 115200 baud already."""
    return start_board("--boot-loader", str(optiboot), firmware=FIRMWARE_115200)


def _rtpose(
    *arguments: str | Path, before: Sequence[str] = (), **options: Any
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*before, sys.executable, "-m", "rtpose", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        **options,
    )


def _refusal(run: "subprocess.CompletedProcess[str]", exit_code: int = 1) -> str:
    """Return what a run that must fail said."""
    assert run.returncode == exit_code, run.stdout + run.stderr
    assert "Traceback" not in run.stderr
    return " ".join(run.stderr.split())


# ---------------------------------------------------------------------------------- an upload


def test_the_firmware_is_built_uploaded_and_asked_what_it_is(uno: EmulatedBoard) -> None:
    run = _rtpose("flash", "--port", uno.tty, "--json")
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == {
        "port": str(uno.tty),
        "board": "uno",
        "firmware": uno.connect(1_000_000).firmware,  # it had firmware for 115200 baud before
        "protocol_version": protocol.PROTOCOL_VERSION,
        "protocol_hash": protocol.PROTOCOL_HASH,
        "baud": 1_000_000,
    }
    assert uno.edges == []  # no line moved meanwhile


def test_the_old_boot_loader_and_the_slow_link(start_board: StartBoard, optiboot: Path) -> None:
    board = start_board("--boot-loader", str(_OLD_NANO), firmware=FIRMWARE)
    run = _rtpose(
        *("flash", "--port", board.tty, "--board", "nano-old-bootloader"),
        *("--baud-of-link", "115200"),
    )
    assert run.returncode == 0, run.stderr
    assert "answers at 115200 baud" in run.stdout
    assert board.connect(115_200).hash == protocol.PROTOCOL_HASH


def test_an_upload_replaces_firmware_of_another_version(
    start_board: StartBoard, optiboot: Path, other_version: Path
) -> None:
    board = start_board("--boot-loader", str(optiboot), firmware=other_version.with_suffix(".elf"))
    assert board.connect().version == OTHER_VERSION
    board.disconnect()
    run = _rtpose("flash", "--port", board.tty)
    assert run.returncode == 0, run.stderr
    assert board.connect().version == protocol.PROTOCOL_VERSION


# --------------------------------------------------------------- uploads that must be refused


def test_firmware_that_this_rtpose_must_not_drive_is_named(
    uno: EmulatedBoard, other_version: Path
) -> None:
    run = _rtpose("flash", "--port", uno.tty, "--firmware", other_version)
    said = _refusal(run, exit_code=2)
    assert f"protocol version {OTHER_VERSION}" in said
    assert f"this rtpose has protocol version {protocol.PROTOCOL_VERSION}" in said
    assert "leave out --firmware" in said


def test_foreign_firmware_is_found_out_after_the_upload(
    uno: EmulatedBoard, silent_firmware: Path
) -> None:
    run = _rtpose("flash", "--port", uno.tty, "--firmware", silent_firmware)
    said = _refusal(run)
    assert "the upload succeeded, but nothing on" in said
    assert "answers like a TTL board" in said
    assert "--baud-of-link 115200" in said


def test_firmware_for_another_speed_is_named(uno: EmulatedBoard) -> None:
    slow = FIRMWARE_115200.with_suffix(".hex")
    run = _rtpose("flash", "--port", uno.tty, "--firmware", slow)
    said = _refusal(run)
    assert "talks at 115200 baud, not at 1000000" in said
    assert "--baud-of-link 115200" in said


def test_another_chip_is_refused_before_anything_is_written(
    start_board: StartBoard, optiboot: Path
) -> None:
    board = start_board("--boot-loader", str(_ATMEGA168), firmware=FIRMWARE)
    said = _refusal(_rtpose("flash", "--port", board.tty))
    assert "the chip is not an ATmega328P" in said
    assert "0x1e9406" in said  # avrdude's own words are shown
    assert board.connect().hash == protocol.PROTOCOL_HASH  # and the old firmware runs


def test_a_device_without_a_boot_loader_is_suspected(optiboot: Path) -> None:
    with _echo() as port:
        said = _refusal(_rtpose("flash", "--port", port))
    assert "no boot loader answers" in said
    assert "--board nano-old-bootloader" in said
    assert "not in sync: resp=" in said  # avrdude's own words


@contextmanager
def _echo() -> Iterator[str]:
    """Give a port with a device behind it that repeats what it hears, as a modem may."""
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    name = os.ttyname(theirs)
    os.close(theirs)  # else the port were in use
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            try:
                os.write(ours, os.read(ours, 4096))
            except OSError:  # nobody has the port open
                stop.wait(0.01)

    thread = threading.Thread(target=run, name="echo")
    thread.start()
    try:
        yield name
    finally:
        stop.set()
        thread.join()
        os.close(ours)


def test_a_board_that_a_program_without_a_lock_uses_is_left_alone(uno: EmulatedBoard) -> None:
    monitor = serial.Serial(str(uno.tty), 115_200)  # not exclusive, as most programs open a port
    try:
        said = _refusal(_rtpose("flash", "--port", uno.tty))
    finally:
        monitor.close()
    assert f"in use by {_OWN_NAME} (process {os.getpid()})" in said


def test_a_board_that_a_rig_uses_is_left_alone(uno: EmulatedBoard) -> None:
    lines = {"laser": {"pin": 0, "max_on_ms": 10.0}}
    settings = TtlOutput.Config.model_validate({"port": str(uno.tty), "lines": lines})
    output = TtlOutput(settings)
    output.open()
    try:
        before = uno.happened()
        said = _refusal(_rtpose("flash", "--port", uno.tty))
        assert f"in use by {_OWN_NAME} (process {os.getpid()})" in said
        assert "rtpose stop" in said
        assert uno.happened() == before
    finally:
        output.close()


def test_a_port_without_permission_says_what_to_type(uno: EmulatedBoard) -> None:
    uno.tty.resolve().chmod(0)
    said = _refusal(_rtpose("flash", "--port", uno.tty, before=NO_PRIVILEGE))
    assert "may not be opened: type sudo usermod -a -G" in said
    assert "log in again" in said


# ------------------------------------------------------------------------- which port it is


def _port(name: str, vid: int | None, pid: int | None, description: str, number: str = "") -> Any:
    port = ListPortInfo(name)
    port.vid, port.pid, port.description, port.serial_number = vid, pid, description, number
    return port


_MODEM = _port("/dev/ttyS0", None, None, "n/a")
_CLONE = _port("/dev/ttyUSB0", 0x1A86, 0x7523, "USB Serial")


def test_the_only_uno_is_found(uno: EmulatedBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    # The kernel lists no USB device for a pty; from here on everything is real.
    ports = [_MODEM, _port(str(uno.tty), 0x2341, 0x0043, "Arduino Uno", "75430"), _CLONE]
    monkeypatch.setattr(list_ports, "comports", lambda: ports)
    run = CliRunner().invoke(command_line(), ["flash", "--json"])
    assert run.exit_code == 0, run.output
    assert json.loads(run.stdout)["port"] == str(uno.tty)


@pytest.mark.parametrize(
    ("ports", "said"),
    [
        ([], ["no USB serial port", "is the board plugged in"]),
        ([_MODEM], ["no USB serial port"]),
        (
            [_CLONE],
            ["/dev/ttyUSB0 (USB Serial)", "type: rtpose flash --port /dev/ttyUSB0"],
        ),
        (
            [
                _port("/dev/ttyACM1", 0x2341, 0x0043, "Arduino Uno", "22"),
                _port("/dev/ttyACM0", 0x2A03, 0x0043, "Arduino Uno", "11"),
            ],
            [
                "2 boards are plugged in",
                "/dev/ttyACM0 (Arduino Uno, serial number 11)",
                "/dev/ttyACM1 (Arduino Uno, serial number 22)",
                "rtpose flash --port /dev/ttyACM0",
            ],
        ),
    ],
    ids=["none", "no USB", "a clone perhaps", "two"],
)
def test_where_the_port_is_not_clear_nothing_is_opened(
    ports: list[Any], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(list_ports, "comports", lambda: ports)
    run = CliRunner().invoke(command_line(), ["flash"])
    assert isinstance(run.exception, InputError)
    for words in said:
        assert words in str(run.exception)


def test_a_port_that_is_not_there(tmp_path: Path) -> None:
    said = _refusal(_rtpose("flash", "--port", tmp_path / "ttyACM9"))
    assert "ttyACM9' cannot be opened" in said
    assert "is it plugged in" in said


# ------------------------------------------------------------------------ tools and options


def test_a_build_is_what_make_builds_and_leaves_the_sources_alone(tmp_path: Path) -> None:
    run = _rtpose("flash", "--build-only", "--baud-of-link", "115200", "--json", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    file = tmp_path / "rtpose-ttl-115200.hex"
    assert json.loads(run.stdout) == {"firmware_file": str(file), "baud": 115_200}
    assert file.read_bytes() == FIRMWARE_115200.with_suffix(".hex").read_bytes()


def _only(folder: Path, *programs: str) -> dict[str, str]:
    """Return an environment in which only these programs are found."""
    folder.mkdir()
    for program in programs:
        path = shutil.which(program)
        assert path is not None
        (folder / program).symlink_to(path)
    return {**os.environ, "PATH": str(folder)}


@pytest.mark.skipif(sys.platform != "linux", reason="the packages named are Debian's")
def test_missing_programs_are_named_with_their_packages(tmp_path: Path) -> None:
    only_make = _only(tmp_path / "bin", "make")
    said = _refusal(_rtpose("flash", "--build-only", env=only_make, cwd=tmp_path), exit_code=2)
    assert "needs avr-gcc, avr-objcopy, avr-size" in said
    assert "sudo apt install gcc-avr avr-libc binutils-avr;" in said
    assert "--firmware" in said
    upload = ("flash", "--port", "/dev/null", "--firmware", FIRMWARE.with_suffix(".hex"))
    said = _refusal(_rtpose(*upload, env=only_make), exit_code=2)
    assert "avrdude, not found; install with: sudo apt install avrdude" in said


def test_a_build_that_fails_shows_what_the_compiler_said(tmp_path: Path) -> None:
    environment = _only(tmp_path / "bin", "make", "sh", "sed", "tr", "cut", "cksum", "mkdir")
    compiler = tmp_path / "bin" / "avr-gcc"
    compiler.write_text("#!/bin/sh\necho 'the disk is full' >&2\nexit 1\n")
    compiler.chmod(0o755)
    for tool in ("avr-objcopy", "avr-size"):
        (tmp_path / "bin" / tool).symlink_to(compiler)
    said = _refusal(_rtpose("flash", "--build-only", env=environment, cwd=tmp_path))
    assert "the firmware cannot be built" in said
    assert "the disk is full" in said


@pytest.mark.parametrize("content", [None, b"\x7fELF", b""], ids=["absent", "ELF", "empty"])
def test_a_file_that_cannot_be_flashed_is_refused(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "firmware.hex"
    if content is not None:
        file.write_bytes(content)
    said = _refusal(_rtpose("flash", "--port", "/dev/null", "--firmware", file), exit_code=2)
    assert str(file) in said


def test_options_of_an_upload_are_refused_where_nothing_is_uploaded(tmp_path: Path) -> None:
    run = _rtpose("flash", "--build-only", "--port", "/dev/ttyACM0", "--board", "nano")
    assert "cannot go with --port, --board" in _refusal(run, exit_code=2)
