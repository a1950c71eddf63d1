"""A serial port with a thread that reads the TTL board's frames and stamps their arrival."""

import queue
import threading

from rtpose.clock import now_ns
from rtpose.errors import MessageError, OutputError
from rtpose_hardware.answers import Received, parse
from rtpose_hardware.protocol import FrameReader
from rtpose_hardware.serial_port import open_port

_JOIN_TIMEOUT_S = 1.0

#: In front of a frame it closes what noise may have begun.
FRESH_START = b"\xc0"


class BoardLink:
    """An open connection to a board.

    Parameters
    ----------
    port : str
        Name of the serial port.

    Attributes
    ----------
    low_latency : bool
        Whether the operating system took the low-latency setting.
    heard_ns : int
        When the last bytes arrived.
    damaged : int
        Frames that arrived damaged, and were dropped.
    failure : str or None
        Why the port does not work any more.

    Raises
    ------
    MissingExtraError
        If pyserial is not installed.
    OutputError
        If the port cannot be opened.
    """

    def __init__(self, port: str) -> None:
        self.name = port
        self._frames: queue.SimpleQueue[tuple[Received, int]] = queue.SimpleQueue()
        self.failure: str | None = None
        self._stopping = False
        self.heard_ns = 0
        self.damaged = 0
        self._port = open_port(port)
        self.low_latency = self._port.ask_low_latency()
        self._thread = threading.Thread(target=self._read, name=f"board on {port}", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise `OutputError` if the port has failed."""
        if self.failure is not None:
            raise OutputError(f"the board on {self.name} is gone: {self.failure}")

    def set_baud(self, baud: int) -> bool:
        """Talk at another speed from now on; return False if the port refuses it.

        Raises
        ------
        OutputError
            If the port has failed.
        """
        try:
            return self._port.set_baud(baud)
        except OSError as error:
            raise self._gone(error) from error

    def write(self, frame: bytes) -> int:
        """Hand bytes to the operating system and return `now_ns` just after that."""
        self.check()
        try:
            return self._port.write(frame)
        except OSError as error:
            raise self._gone(error) from error

    def _gone(self, error: OSError) -> OutputError:
        self.failure = str(error)
        return OutputError(f"the board on {self.name} is gone: {error}")

    def receive(self, timeout_s: float = 0.0) -> tuple[Received, int] | None:
        """Return the next frame and its arrival in ns, or None if none comes in time."""
        if timeout_s <= 0 and self._frames.empty():
            return None
        try:
            return self._frames.get(timeout=max(timeout_s, 0.0))
        except queue.Empty:
            return None

    def close(self) -> None:
        """Stop the thread and close the port."""
        self._stopping = True
        self._port.cancel()
        self._thread.join(_JOIN_TIMEOUT_S)
        self._port.close()

    def _read(self) -> None:
        reader = FrameReader()
        while not self._stopping:
            try:
                data = self._port.read()
            except (OSError, ValueError) as error:  # ValueError: too many files open for select
                self.failure = self.failure or str(error)
                return
            arrival_ns = self.heard_ns = now_ns()
            payloads = reader.feed(data)
            self.damaged = reader.bad
            for payload in payloads:
                try:
                    self._frames.put((parse(payload), arrival_ns))
                except MessageError:
                    continue  # sound, but of another protocol: HELLO will tell which
