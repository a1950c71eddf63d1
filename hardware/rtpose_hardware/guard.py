"""A process that lets a device's lines fall when the host process is killed or stopped."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from rtpose.errors import OutputError

_PROGRAM: Final = Path(__file__).with_name("guard_process.py")
_END_TIMEOUT_S: Final = 1.0

#: Where descriptors are inherited.
AVAILABLE: Final = os.name == "posix"


class Guard:
    """A running guard over an open file descriptor of a device without a watchdog.

    It costs nothing per command: the host goes on writing to the device itself. It cannot help
    when it is killed together with the host, or when the machine stops.

    Parameters
    ----------
    fd : int
        The device, as it is open in this process.
    timeout_ms : int
        While armed, after how long without `beat` the lines fall.
    action : str
        ``"modem"``, or the bytes to write in hexadecimal; see `guard_process`.
    """

    def __init__(self, fd: int, timeout_ms: int, action: str) -> None:
        # Isolated and without site packages it starts in a few milliseconds; in a session of its
        # own, so that what kills the host's process group does not kill it.
        command = [sys.executable, "-I", "-S", str(_PROGRAM), str(fd), str(timeout_ms), action]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            bufsize=0,
            pass_fds=(fd,),
            start_new_session=True,
        )
        if self._process.stdin is not None:
            os.set_blocking(self._process.stdin.fileno(), False)

    def arm(self) -> None:
        """Watch from now on; raise `OutputError` if the guard is gone."""
        self._tell(b"a")

    def beat(self) -> None:
        """Tell that the host lives; raise `OutputError` if the guard is gone."""
        self._tell(b"b")

    def disarm(self) -> None:
        """Let the host be silent; raise `OutputError` if the guard is gone."""
        self._tell(b"d")

    def close(self) -> None:
        """End the guard, which drops the lines once more."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _tell(self, event: bytes) -> None:
        try:
            taken = self._process.stdin.write(event) if self._process.stdin is not None else None
        except OSError as error:
            raise OutputError(f"the guard of the lines has ended: {error}") from error
        if taken is None:
            raise OutputError("the guard of the lines does not listen any more")
