"""Finds TTL boards among the serial ports of this machine, and opens them.

Opening a port resets an Arduino and sends a request to whatever is behind it, so nothing here opens
a port by itself that is not an Arduino Uno for certain.
"""

import errno
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rtpose.errors import InputError, MissingExtraError, OutputError, PortInUseError
from rtpose_hardware.board_link import BoardLink
from rtpose_hardware.serial_port import open_port

#: USB vendor and product of the Arduino Uno, from boards.txt of Arduino's AVR core.
_UNO: Final = {
    (0x2341, 0x0001),
    (0x2341, 0x0043),
    (0x2341, 0x0243),
    (0x2341, 0x006A),
    (0x2A03, 0x0043),
}

#: Speed at which the firmware talks if nobody chose another.
USUAL_BAUD: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Port:
    """A USB serial port of this machine.

    Attributes
    ----------
    name : str
        What to open, e.g. ``/dev/ttyACM0`` or ``COM3``.
    description : str
        What the system says of it.
    is_uno : bool
        Whether its USB numbers are an Arduino Uno's. A Nano and most clones have those of their USB
        bridge, which laser drivers, pumps and stages have too.
    """

    name: str
    description: str
    is_uno: bool

    def __str__(self) -> str:
        """Return name and description."""
        return f"{self.name} ({self.description})"


def list_ports() -> list[Port]:
    """Return the USB serial ports of this machine, by name.

    Raises
    ------
    MissingExtraError
        If pyserial is not installed.
    """
    try:
        from serial.tools.list_ports import comports
    except ImportError as error:
        raise MissingExtraError("pyserial", "serial", "the TTL board") from error
    ports = []
    for port in comports():
        if port.vid is None:
            continue
        serial_number = f", serial number {port.serial_number}" if port.serial_number else ""
        is_uno = (port.vid, port.pid) in _UNO
        ports.append(Port(port.device, f"{port.description}{serial_number}", is_uno))
    return sorted(ports, key=lambda port: port.name)


def only_board(command: str) -> Port:
    """Return the port of the one Arduino Uno of this machine.

    Parameters
    ----------
    command : str
        What the user typed, to say how to name a port.

    Raises
    ------
    InputError
        If there is none, or more than one; names what there is.
    """
    ports = list_ports()
    unos = [port for port in ports if port.is_uno]
    if len(unos) == 1:
        return unos[0]
    if unos:
        raise InputError(
            f"{len(unos)} boards are plugged in: {', '.join(map(str, unos))}; say which one: "
            f"{command} --port {unos[0].name}"
        )
    if ports:
        raise InputError(
            "no port is an Arduino Uno for certain; a Nano or a clone cannot be told from other "
            f"devices with the same USB bridge. There are: {', '.join(map(str, ports))}; if one of "
            f"them is the board, type: {command} --port {ports[0].name}"
        )
    raise InputError(
        "this machine has no USB serial port: is the board plugged in, with a cable that carries "
        "data?"
    )


# ------------------------------------------------------------------------------ opening a port


def check_free(port: str) -> None:
    """Check that a port can be opened and that no other program holds it.

    It is opened for a moment, which resets an Arduino, but not one that a rig has open: its DTR
    line is asserted already.

    Raises
    ------
    MissingExtraError
        If pyserial is not installed.
    PortInUseError
        If another program has it open; names it where the system does.
    OutputError
        If the port is not there, or not for this user; says which.
    """
    with _opening(port):
        open_port(port).close()


@contextmanager
def opened(port: str) -> Iterator[BoardLink]:
    """Open a port, which resets an Arduino, and close it at the end.

    Raises
    ------
    MissingExtraError, PortInUseError, OutputError
        As `check_free`.
    """
    with _opening(port):
        link = BoardLink(port)
    try:
        yield link
    finally:
        link.close()


@contextmanager
def _opening(port: str) -> Iterator[None]:
    """Say why a port cannot be opened, where the system tells."""
    holder = _holder(port)
    if holder is not None:
        raise _in_use(port, holder)
    try:
        yield
    except OutputError as error:
        number = getattr(error.__cause__, "errno", None)
        if number in (errno.EAGAIN, errno.EBUSY):
            raise _in_use(port, "another program") from error.__cause__
        if number in (errno.EACCES, errno.EPERM):
            raise OutputError(f"{port} may not be opened: {_permission(port)}") from error.__cause__
        raise


def _in_use(port: str, holder: str) -> PortInUseError:
    return PortInUseError(
        f"{port} is in use by {holder}; if that is a rig, end it first (rtpose stop)"
    )


def _holder(port: str) -> str | None:
    """Return which program has a port open, as far as Linux shows it to this user.

    Programs that do not lock their ports could not be noticed by opening it.
    """
    device = Path(port).resolve()
    for file in itertools.chain.from_iterable(_open_files()):
        try:
            if file.readlink() == device:
                process = file.parents[1]
                return f"{(process / 'comm').read_text().strip()} (process {process.name})"
        except OSError:  # closed, or the process has ended
            continue
    return None


def _open_files() -> Iterator[list[Path]]:
    """Give the open files of each process that this user may look into."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            yield list((process / "fd").iterdir())
        except OSError:  # ended, or another user's
            continue


def _permission(port: str) -> str:
    """Return what gives this user access to a port; on Windows the port is in use instead."""
    if os.name != "posix":
        return "another program uses it; end the rig or the serial monitor that does"
    return f"type sudo usermod -a -G {Path(port).group()} $USER and log in again"
