"""A serial port with blocking reads that can be cancelled and writes that cannot block."""

import os
import select
from typing import TYPE_CHECKING

from rtpose.clock import now_ns
from rtpose_hardware.plain_serial import open_serial

if TYPE_CHECKING:
    import serial
if os.name == "posix":
    import termios

_READ_SIZE = 4096
_SOME_BAUD = 115_200


def open_port(name: str) -> "SerialPort":
    """Open a serial port for this program alone, at a speed that every port has.

    Raises
    ------
    MissingExtraError
        If pyserial is not installed.
    OutputError
        If the port cannot be opened; names the ports that there are.
    """
    port = open_serial(name, _SOME_BAUD, "the TTL board", lines=True)
    return PosixSerialPort(port) if os.name == "posix" else SerialPort(port)


class SerialPort:
    """An open port, through pyserial alone: Windows.

    `read` may be called from another thread than the rest. It and `write`, and but for Windows
    `set_baud`, raise `OSError` (pyserial's exceptions are derived from it) when the device has
    failed or was unplugged.
    """

    def __init__(self, port: "serial.Serial") -> None:
        self._port = port

    def ask_low_latency(self) -> bool:
        """Ask the driver to hand bytes over at once instead of collecting them for up to 16 ms."""
        try:
            self._port.set_low_latency_mode(True)
        except (AttributeError, NotImplementedError, OSError, ValueError):
            return False  # another system, or a port without that setting
        return True

    def set_baud(self, baud: int) -> bool:
        """Talk at another speed from now on; return False if the port refuses it."""
        try:
            self._port.baudrate = baud
        except (OSError, ValueError):  # if the device is gone instead, the next call says so
            return False
        return True

    def read(self) -> bytes:
        """Wait for bytes and return what there is; nothing if `cancel` was called."""
        data: bytes = self._port.read(1)
        return data + self._port.read(self._port.in_waiting)

    def write(self, data: bytes) -> int:
        """Hand bytes to the operating system and return `now_ns` just after that."""
        self._port.write(data)
        return now_ns()

    def cancel(self) -> None:
        """Let the `read` that is waiting return."""
        self._port.cancel_read()

    def close(self) -> None:
        """Close the port; no other method may be called after that."""
        self._port.close()


class PosixSerialPort(SerialPort):
    """An open port of Linux or macOS: set up by pyserial, read and written without it.

    Saves a system call or two in either direction, about 8 us each, and takes the time of a write
    right after it.
    """

    def __init__(self, port: "serial.Serial") -> None:
        super().__init__(port)
        self._fd = port.fileno()  # pyserial has made it non-blocking
        self._wake_read, self._wake_write = os.pipe()

    def set_baud(self, baud: int) -> bool:
        """Talk at another speed from now on; return False if the port refuses it."""
        try:
            self._port.baudrate = baud
        except ValueError:
            return False
        except termios.error as error:  # pyserial lets it through, and it is no `OSError`
            raise OSError(*error.args) from error
        return True

    def read(self) -> bytes:
        """Wait for bytes and return what there is; nothing if `cancel` was called."""
        ready, _, _ = select.select((self._fd, self._wake_read), (), ())
        if self._fd not in ready:
            return b""
        data = os.read(self._fd, _READ_SIZE)
        if not data:
            raise OSError("unplugged")  # ready, and nothing to read: the device is gone
        return data

    def write(self, data: bytes) -> int:
        """Hand bytes to the operating system and return `now_ns` just after that."""
        taken = os.write(self._fd, data)
        written_ns = now_ns()
        if taken != len(data):
            raise OSError("it takes no more bytes")
        return written_ns

    def cancel(self) -> None:
        """Let the `read` that is waiting return."""
        os.write(self._wake_write, b"x")

    def close(self) -> None:
        """Close the port; no other method may be called after that."""
        super().close()
        os.close(self._wake_read)
        os.close(self._wake_write)
