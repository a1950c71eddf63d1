"""Builds the TTL board's firmware from the sources that come with rtpose, and runs its tools."""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rtpose.errors import InputError, OutputError

_PACKAGE: Final = Path(__file__).resolve().parent

#: In a wheel the sources lie inside the package; in a checkout beside it.
_FOLDERS: Final = (_PACKAGE / "firmware", _PACKAGE.parent / "firmware")

#: Builds and uploads take seconds.
_TIMEOUT_S: Final = 120.0

#: Debian's package of each program.
_BUILD_TOOLS: Final = {
    "make": "make",
    "avr-gcc": "gcc-avr avr-libc",
    "avr-objcopy": "binutils-avr",
    "avr-size": "binutils-avr",
}
UPLOAD_TOOLS: Final = {"avrdude": "avrdude"}

_HEX_FILES: Final = {1_000_000: "board.hex", 115_200: "board-115200.hex"}

_ELSEWHERE: Final = {
    "darwin": {
        "build": "brew tap osx-cross/avr && brew install avr-gcc",
        "upload": "brew install avrdude",
    },
    "win32": {
        "build": "the build needs make and a shell: build on Linux or macOS with rtpose flash "
        "--build-only, and pass the file here with --firmware",
        "upload": "winget install AVRDudes.AVRDUDE",
    },
}


def missing_build_tools() -> list[str]:
    """Return the programs that a build needs and this machine lacks."""
    return [tool for tool in _BUILD_TOOLS if shutil.which(tool) is None]


def missing_upload_tools() -> list[str]:
    """Return the programs that an upload needs and this machine lacks."""
    return [tool for tool in UPLOAD_TOOLS if shutil.which(tool) is None]


def how_to_install(tools: Sequence[str]) -> str:
    """Return what to type to get programs of `missing_build_tools` or `missing_upload_tools`."""
    elsewhere = _ELSEWHERE.get(sys.platform)
    if elsewhere is not None:
        kinds = ["upload" if tool in UPLOAD_TOOLS else "build" for tool in tools]
        return "; ".join(dict.fromkeys(elsewhere[kind] for kind in kinds))
    packages = " ".join({**_BUILD_TOOLS, **UPLOAD_TOOLS}[tool] for tool in tools).split()
    return f"sudo apt install {' '.join(dict.fromkeys(packages))}"


def require_build_tools() -> None:
    """Raise `InputError` unless the firmware can be built here."""
    missing = missing_build_tools()
    if missing:
        raise InputError(
            f"building the firmware needs {', '.join(missing)}, not found; install with: "
            f"{how_to_install(missing)}; or give a built firmware with --firmware FILE.hex"
        )


def build(folder: Path, baud: int) -> Path:
    """Build the firmware.

    Parameters
    ----------
    folder : Path
        Where to; the sources' own folder is not written to.
    baud : int
        Speed of its serial port: 1000000 or 115200.

    Returns
    -------
    Path
        The Intel HEX file.

    Raises
    ------
    InputError
        If a program that the build needs is missing.
    OutputError
        If the build fails; carries what the compiler said.
    """
    require_build_tools()
    hex_file = folder / _HEX_FILES[baud]
    tools = [f"BUILD={folder}", f"PYTHON={shlex.quote(sys.executable)}"]
    code, said = run_tool(["make", "-s", "-C", str(_sources()), *tools, str(hex_file)])
    if code != 0:
        raise OutputError(f"the firmware cannot be built; make (exit code {code}) said:\n{said}")
    return hex_file


def run_tool(command: Sequence[str]) -> tuple[int, str]:
    """Run a program and return its exit code and all that it said.

    Raises
    ------
    OutputError
        If it does not end; it is ended then.
    """
    try:
        run = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise OutputError(f"{command[0]} did not end within {_TIMEOUT_S:g} s") from error
    return run.returncode, run.stdout.strip()


def _sources() -> Path:
    for folder in _FOLDERS:
        if (folder / "protocol.h").is_file():
            return folder
    raise OutputError(
        f"the firmware's sources are not where they are installed ({_FOLDERS[0]}): install rtpose "
        "again"
    )
