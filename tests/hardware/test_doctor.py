"""What `rtpose doctor` says of boards on the emulated chip."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from board_rig import FIRMWARE, NO_PRIVILEGE, EmulatedBoard
from serial.tools import list_ports
from serial.tools.list_ports_common import ListPortInfo

from rtpose.finding import Finding
from rtpose_hardware import doctor, protocol
from rtpose_hardware.ttl import TtlOutput

pytestmark = pytest.mark.hardware

#: What Linux calls the program that runs the tests.
_OWN_NAME = Path("/proc/self/comm").read_text().strip()

StartBoard = Callable[..., EmulatedBoard]


@pytest.fixture
def plugged_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that says what is plugged in: the kernel lists no USB device for a pty."""

    def plug(*ports: tuple[Path, int, int, str]) -> None:
        found = []
        for name, vid, pid, description in ports:
            port = ListPortInfo(str(name))
            port.vid, port.pid, port.description = vid, pid, description
            found.append(port)
        monkeypatch.setattr(list_ports, "comports", lambda: found)

    return plug


def _only(findings: Sequence[Finding]) -> Finding:
    """Return the one that is not about flashing."""
    (found,) = (finding for finding in findings if finding.topic != "flashing")
    return found


def _run(*options: str, before: Sequence[str] = ()) -> tuple[int, dict[str, Any]]:
    run = subprocess.run(
        [*before, sys.executable, "-m", "rtpose", "doctor", "--json", *options],
        capture_output=True,
        text=True,
        timeout=100,
    )
    boards = [
        finding
        for finding in json.loads(run.stdout)["findings"]
        if finding["topic"].startswith("board on")
    ]
    (board,) = boards
    return run.returncode, board


def test_a_board_says_its_firmware_and_that_it_matches(start_board: StartBoard) -> None:
    board = start_board()
    _, found = _run("--port", str(board.tty))
    assert found["topic"] == f"board on {board.tty}"
    assert found["grade"] == "good"
    assert "matches this rtpose, 1000000 baud, tested itself (and was reset)" in found["found"]
    assert found["facts"]["protocol_version"] == protocol.PROTOCOL_VERSION
    assert found["facts"]["protocol_hash"] == protocol.PROTOCOL_HASH
    assert found["facts"]["last_reset"] == protocol.RESETS[protocol.Reset.PIN]
    assert found["facts"]["firmware"] in found["found"]
    assert found["facts"]["faults"] == []
    assert board.edges == []


def test_an_uno_is_opened_and_a_clone_is_left_alone(
    start_board: StartBoard, plugged_in: Callable[..., None]
) -> None:
    uno, clone = start_board(), start_board()
    plugged_in((uno.tty, 0x2341, 0x0043, "Arduino Uno"), (clone.tty, 0x1A86, 0x7523, "USB Serial"))
    first, second, _ = doctor.look([])
    assert (first.topic, first.grade) == (f"board on {uno.tty}", "good")
    assert (second.topic, second.grade) == ("serial port", "good")
    assert f"rtpose doctor --port {clone.tty} (opening resets it)" in second.advice
    assert clone.happened() == []
    first, second, _ = doctor.look([str(clone.tty)])
    assert {first.topic, second.topic} == {f"board on {uno.tty}", f"board on {clone.tty}"}


def test_a_board_whose_program_is_damaged_is_a_problem(
    start_board: StartBoard, tmp_path: Path
) -> None:
    program = FIRMWARE.read_bytes()
    assert program.count(b"rtpose-ttl 0") == 1
    damaged = tmp_path / "damaged.elf"
    damaged.write_bytes(program.replace(b"rtpose-ttl 0", b"rtpose-ttl 8"))
    board = start_board(firmware=damaged)
    code, found = _run("--port", str(board.tty))
    assert (code, found["grade"]) == (1, "problem")
    assert "failed its self-test" in found["found"]
    assert found["facts"]["faults"] == ["FLASH"]
    assert found["advice"] == f"type: rtpose flash --port {board.tty}"


def test_firmware_of_another_version_is_a_problem(
    start_board: StartBoard, other_version: Path
) -> None:
    board = start_board(firmware=other_version.with_suffix(".elf"))
    code, found = _run("--port", str(board.tty))
    assert code == 1
    assert found["grade"] == "problem"
    assert "protocol version 250" in found["found"]
    assert f"this rtpose has protocol version {protocol.PROTOCOL_VERSION}" in found["found"]
    assert found["advice"] == f"type: rtpose flash --port {board.tty}"


def test_an_uno_that_does_something_else_is_no_problem_unless_it_was_named(
    start_board: StartBoard, silent_firmware: Path, plugged_in: Callable[..., None]
) -> None:
    board = start_board(firmware=silent_firmware.with_suffix(".elf"))
    plugged_in((board.tty, 0x2341, 0x0043, "Arduino Uno"))
    found = _only(doctor.look([]))
    assert found.grade == "warning"
    assert "nothing on" in found.found
    assert found.advice.endswith(f"rtpose flash --port {board.tty}")
    plugged_in()
    assert _only(doctor.look([str(board.tty)])).grade == "problem"


def test_a_board_that_a_rig_uses_is_not_disturbed(
    start_board: StartBoard, plugged_in: Callable[..., None]
) -> None:
    board = start_board()
    plugged_in((board.tty, 0x2341, 0x0043, "Arduino Uno"))
    lines = {"laser": {"pin": 0, "max_on_ms": 10.0}}
    output = TtlOutput(TtlOutput.Config.model_validate({"port": str(board.tty), "lines": lines}))
    output.open()
    try:
        before = board.happened()
        found = _only(doctor.look([]))
        assert found.grade == "warning"
        assert f"in use by {_OWN_NAME}" in found.found
        assert board.happened() == before
    finally:
        output.close()


@pytest.mark.parametrize(("named", "grade"), [([], "warning"), (["/dev/ttyACM0"], "problem")])
def test_without_pyserial_it_says_what_to_install(
    named: list[str], grade: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "serial.tools.list_ports", None)
    found = _only(doctor.look(named))
    assert found.grade == grade
    assert 'pip install "rtpose[serial]"' in found.advice


def test_a_port_that_may_not_be_opened_is_a_problem(start_board: StartBoard) -> None:
    board = start_board()
    board.tty.resolve().chmod(0)
    code, found = _run("--port", str(board.tty), before=NO_PRIVILEGE)
    assert (code, found["grade"]) == (1, "problem")
    assert "sudo usermod -a -G" in found["found"]


def test_missing_tools_are_a_warning(
    monkeypatch: pytest.MonkeyPatch, plugged_in: Callable[..., None], tmp_path: Path
) -> None:
    plugged_in()
    monkeypatch.setenv("PATH", str(tmp_path))
    ports, flashing = doctor.look([])
    assert ports.found == "no USB serial port: no TTL board is plugged in"
    assert (flashing.topic, flashing.grade) == ("flashing", "warning")
    assert "avr-gcc" in flashing.found
    assert "avrdude" in flashing.found
