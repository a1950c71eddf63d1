"""Opens a serial port through pyserial, with words for the user where that fails."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from rtpose.errors import MissingExtraError, OutputError

if TYPE_CHECKING:
    import serial

#: What is written is short, and goes at once unless the device takes nothing any more.
_WRITE_TIMEOUT_S: Final = 0.05


def open_serial(name: str, baud: int, needed_for: str, *, lines: bool) -> "serial.Serial":
    """Open a serial port for this program alone.

    Parameters
    ----------
    name : str
    baud : int
    needed_for : str
        Who asks, for the error of a missing package.
    lines : bool
        Whether DTR and RTS are asserted on opening, as is usual; an Uno is reset by that.

    Raises
    ------
    MissingExtraError
        If pyserial is not installed.
    OutputError
        If the port cannot be opened; names the ports that there are.
    """
    try:
        import serial
    except ImportError as error:
        raise MissingExtraError("pyserial", "serial", needed_for) from error
    try:
        port = serial.Serial(None, baud, write_timeout=_WRITE_TIMEOUT_S, exclusive=True)
        port.port = name
        port.dtr = port.rts = lines
        port.open()
    except (serial.SerialException, OSError, ValueError) as error:
        found = ", ".join(available_ports()) or "none"
        raise OutputError(
            f"serial port {name!r} cannot be opened: {error} (ports of this machine: {found}; "
            "is it plugged in, is the port free, may this user open it?)"
        ) from error
    return port


def available_ports() -> Sequence[str]:
    """Return the names of the serial ports of this machine."""
    from serial.tools import list_ports

    return sorted(port.device for port in list_ports.comports())


def write_now(port: "serial.Serial", data: bytes) -> None:
    """Hand bytes to the operating system; raise `OSError` if it does not take all at once."""
    if os.name == "posix":
        # pyserial would call it a time-out if this thread was held up after a complete write. The
        # descriptor does not block.
        if os.write(port.fileno(), data) != len(data):
            raise OSError("it takes no more bytes")
    else:
        port.write(data)
