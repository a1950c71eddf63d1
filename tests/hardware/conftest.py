"""The emulated board, built and started; or a word about what is missing."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from board_rig import (
    EMULATOR,
    FIRMWARE,
    FIRMWARE_115200,
    HARDWARE,
    OTHER_VERSION,
    EmulatedBoard,
)

from rtpose_hardware import protocol

#: Debian packages, and what shows that each is there: a program or a file.
_NEEDED = {
    "make": "make",
    "gcc": "cc",
    "gcc-avr": "avr-gcc",
    "binutils-avr": "avr-objcopy",
    "avr-libc": "/usr/lib/avr/include/avr/io.h",
    "libsimavr-dev": "/usr/include/simavr/sim_avr.h",
    "libelf-dev": "/usr/include/libelf.h",
}


def _is_there(sign: str) -> bool:
    return Path(sign).exists() if sign.startswith("/") else shutil.which(sign) is not None


@pytest.fixture(scope="session")
def built() -> None:
    """Build firmware and emulator, or skip; fail where RTPOSE_REQUIRE_HARDWARE is set."""
    missing = [package for package, sign in _NEEDED.items() if not _is_there(sign)]
    if not missing:
        for folder in ("firmware", "emulator"):
            subprocess.run(["make", "-s", "-C", HARDWARE / folder], check=True, capture_output=True)
    elif not all(path.exists() for path in (EMULATOR, FIRMWARE, FIRMWARE_115200)):
        message = f"the emulated board is not built, packages missing: {', '.join(missing)}"
        if os.environ.get("RTPOSE_REQUIRE_HARDWARE") == "1":
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture(scope="session")
def other_version(built: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return our firmware, .hex beside .elf, as an rtpose of another version would have it."""
    sources = tmp_path_factory.mktemp("other-version") / "firmware"
    shutil.copytree(HARDWARE / "firmware", sources, ignore=shutil.ignore_patterns("build"))
    header = sources / "protocol.h"
    ours = f"#define PROTOCOL_VERSION {protocol.PROTOCOL_VERSION}\n"
    theirs = f"#define PROTOCOL_VERSION {OTHER_VERSION}\n"
    assert ours in header.read_text()
    header.write_text(header.read_text().replace(ours, theirs))
    subprocess.run(["make", "-s", "-C", sources], check=True, capture_output=True)
    return sources / "build" / "board.hex"


@pytest.fixture(scope="session")
def silent_firmware(built: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return firmware, .hex beside .elf, that says nothing."""
    folder = tmp_path_factory.mktemp("silent")
    source, elf, file = folder / "silent.c", folder / "silent.elf", folder / "silent.hex"
    source.write_text("int main(void) { for (;;) ; }\n")
    subprocess.run(["avr-gcc", "-mmcu=atmega328p", "-Os", "-o", elf, source], check=True)
    subprocess.run(["avr-objcopy", "-O", "ihex", elf, file], check=True)
    return file


@pytest.fixture
def start_board(built: None, tmp_path: Path) -> Iterator[Callable[..., EmulatedBoard]]:
    """Return a function that starts an emulated board; they are stopped afterwards."""
    boards: list[EmulatedBoard] = []

    def start(*options: str, firmware: Path = FIRMWARE) -> EmulatedBoard:
        folder = tmp_path / f"board-{len(boards)}"
        folder.mkdir()
        boards.append(EmulatedBoard(folder, *options, firmware=firmware))
        return boards[-1]

    yield start
    for board in boards:
        board.stop()


@pytest.fixture
def board(start_board: Callable[..., EmulatedBoard]) -> EmulatedBoard:
    """Return an emulated board that was just opened, and reset by that."""
    board = start_board()
    board.connect()
    return board
