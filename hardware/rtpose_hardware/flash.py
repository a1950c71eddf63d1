"""Puts the firmware onto a TTL board with avrdude, and checks that the board answers with it."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rtpose.errors import BoardVersionError, InputError, OutputError
from rtpose_hardware import boards, firmware_build
from rtpose_hardware.answers import Hello
from rtpose_hardware.board_opening import meet

#: Speed of each board's boot loader, from boards.txt of Arduino's AVR core.
BOOT_LOADER_BAUDS: Final = {"uno": 115_200, "nano": 115_200, "nano-old-bootloader": 57_600}

#: What avrdude says when it fails, in small letters, and what that usually means. The first that
#: fits is shown.
_NO_BOOT_LOADER: Final = (
    "no boot loader answers: is --board right (old Nanos and many clones need --board "
    "nano-old-bootloader), is it the board's port, and is nothing wired to D0 and D1?"
)
_CAUSES: Final = {
    "expected signature": "the chip is not an ATmega328P: the firmware runs on an Arduino Uno R3, "
    "a Nano with that chip, or a clone of either",
    "permission denied": "this user may not open the port: on Linux type sudo usermod -a -G "
    "dialout $USER and log in again",
    "busy": "another program uses the port: end the rig or the serial monitor that does",
    "verification": "the flash does not hold what was written: try again with a short cable "
    "straight into the computer; if it stays so, the board is damaged",
    "not in sync": _NO_BOOT_LOADER,
    "not responding": _NO_BOOT_LOADER,
}
_NO_CAUSE: Final = (
    "usual causes: the wrong --board, the wrong port, another program on the port, or no right to "
    "open it"
)


@dataclass(frozen=True, slots=True)
class Flashed:
    """A board that answers with the firmware that was put onto it.

    Attributes
    ----------
    port, board : str
        Where it is, and which boot loader it has.
    firmware : str
        What it calls itself.
    protocol_version, protocol_hash : int
        They match this rtpose.
    baud : int
        Speed at which it talks.
    """

    port: str
    board: str
    firmware: str
    protocol_version: int
    protocol_hash: int
    baud: int


def find_port() -> str:
    """Return the port of the only board; raise `InputError` if that is not clear."""
    return boards.only_board("rtpose flash").name


def build(out: Path, baud: int) -> Path:
    """Build the firmware for a baud rate into a folder and return the file.

    Raises
    ------
    InputError
        If a program that the build needs is missing, or the file cannot be written.
    OutputError
        If the build fails.
    """
    target = out / f"rtpose-ttl-{baud}.hex"
    with tempfile.TemporaryDirectory(prefix="rtpose-flash-") as folder:
        built = firmware_build.build(Path(folder), baud)
        try:
            shutil.copyfile(built, target)
        except OSError as error:
            raise InputError(f"cannot write {target}: {error.strerror}") from error
    return target


def flash(
    port: str, *, board: str = "uno", baud: int = 1_000_000, firmware: Path | None = None
) -> Flashed:
    """Put firmware onto a board and ask it what it is.

    While the boot loader runs the board's lines float, held low only by their pull-down resistors.

    Parameters
    ----------
    port : str
        Serial port of the board.
    board : {'uno', 'nano', 'nano-old-bootloader'}
        Which boot loader it has.
    baud : int
        Speed at which the firmware talks: 1000000 or 115200.
    firmware : Path, optional
        Intel HEX file; built from the sources that come with rtpose if absent.

    Raises
    ------
    InputError
        If a program is missing, or the file is not one that can be flashed.
    MissingExtraError
        If pyserial is not installed.
    OutputError
        If the port cannot be used, the upload fails, or the board does not answer after it.
    BoardVersionError
        If it answers with firmware that this rtpose must not drive.
    """
    if firmware is None:
        firmware_build.require_build_tools()
    else:
        _require_hex(firmware)
    _require_avrdude()
    with tempfile.TemporaryDirectory(prefix="rtpose-flash-") as folder:
        file = firmware or firmware_build.build(Path(folder), baud)
        boards.check_free(port)
        _upload(file, port, BOOT_LOADER_BAUDS[board])
    hello = _meet(port, baud)
    return Flashed(port, board, hello.firmware, hello.version, hello.hash, baud)


def _require_hex(file: Path) -> None:
    try:
        with file.open("rb") as stream:
            start = stream.read(1)
    except OSError as error:
        raise InputError(f"--firmware {file}: cannot be read ({error.strerror})") from error
    if start != b":":
        raise InputError(
            f"--firmware {file}: not an Intel HEX file; rtpose flash --build-only makes one"
        )


def _require_avrdude() -> None:
    missing = firmware_build.missing_upload_tools()
    if missing:
        raise InputError(
            "uploading needs avrdude, not found; install with: "
            f"{firmware_build.how_to_install(missing)}"
        )


def _upload(file: Path, port: str, baud: int) -> None:
    """Let avrdude write a file and read it back; raise `OutputError` if it fails."""
    # -D: the boot loader erases page by page, it cannot erase the chip.
    command = ["avrdude", "-q", "-p", "m328p", "-c", "arduino", "-P", port, "-b", str(baud), "-D"]
    code, said = firmware_build.run_tool([*command, "-U", f"flash:w:{file}:i"])
    if code != 0:
        raise OutputError(
            f"the upload to {port} failed: {_cause(said)}\navrdude (exit code {code}) said:\n"
            f"{said}\nuntil an upload succeeds the board may hold no whole firmware"
        )


def _cause(said: str) -> str:
    found = (meaning for sign, meaning in _CAUSES.items() if sign in said.lower())
    return next(found, _NO_CAUSE)


def _meet(port: str, baud: int) -> Hello:
    """Ask the board what it is now."""
    with boards.opened(port) as link:
        try:
            hello, speed = meet(link, baud)
        except BoardVersionError as error:
            raise BoardVersionError(
                f"{error}; it comes with rtpose: leave out --firmware"
            ) from error
        except OutputError as error:
            raise OutputError(
                f"the upload succeeded, but {error}; if it is firmware of rtpose, the USB bridge "
                "cannot do its speed: try --baud-of-link 115200"
            ) from error
    if speed != baud:
        raise OutputError(
            f"the upload succeeded, but the board on {port} talks at {speed} baud, not at {baud}: "
            f"the file is for --baud-of-link {speed}"
        )
    return hello
