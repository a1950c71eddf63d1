"""The emergency stop for people: the space bar of the terminal in which a rig runs."""

import os
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any, Final, Self

if sys.platform == "win32":
    import msvcrt
else:
    import select
    import termios

STOP_KEY: Final = b" "
WHAT_KEYS_DO: Final = "space bar: emergency stop    Ctrl-C: end the run"

_LOOK_S: Final = 0.02


class StopKey:
    r"""Calls a function when the space bar is pressed, while the context lasts.

    A thread of its own waits for the key, so that it works whatever the rest is at. Without a
    terminal on the standard input, or in the background of one, there is no key, and `active` is
    false. The terminal is left as it was found.

    Meanwhile it shows nothing of what is typed, and neither Ctrl-Z nor Ctrl-\ nor Ctrl-S works:
    they would stop or end the process that looks after the rig, or hold it up.

    Parameters
    ----------
    pressed : callable
        Is called from the thread.
    """

    def __init__(self, pressed: Callable[[], None]) -> None:
        self._pressed = pressed
        self._former: list[Any] | None = None
        self._thread: threading.Thread | None = None
        self._ends = socket.socketpair()

    @property
    def active(self) -> bool:
        """Whether a key would be heard."""
        return self._thread is not None

    def __enter__(self) -> Self:
        if sys.stdin is None or not sys.stdin.isatty():
            return self
        fd = sys.stdin.fileno()
        if sys.platform != "win32":
            if not _in_foreground(fd):
                return self
            self._former = _take_keys(fd)
        self._thread = threading.Thread(target=self._wait, args=(fd,), name="keys", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ends[1].close()
        if self._thread is not None:
            self._thread.join()
        self._ends[0].close()
        if sys.platform != "win32" and self._former is not None:
            _give_back(sys.stdin.fileno(), self._former)

    if sys.platform == "win32":

        def _wait(self, _fd: int) -> None:
            self._ends[0].settimeout(_LOOK_S)
            while not self._ended():
                while msvcrt.kbhit():
                    if msvcrt.getch() == STOP_KEY:
                        self._pressed()

        def _ended(self) -> bool:
            try:
                return not self._ends[0].recv(1)
            except TimeoutError:
                return False

    else:

        def _wait(self, fd: int) -> None:
            while True:
                end = self._ends[0].fileno()
                ready, _, _ = select.select([fd, end], [], [])
                if end in ready:
                    return
                if not _in_foreground(fd):  # what is typed is for somebody else
                    select.select([end], [], [], _LOOK_S)
                    continue
                try:
                    keys = os.read(fd, 64)
                except OSError:
                    return  # the terminal is gone, upon which the system ends the run
                if not keys:
                    return
                if STOP_KEY in keys:
                    self._pressed()


if sys.platform != "win32":

    def _in_foreground(fd: int) -> bool:
        try:
            return os.tcgetpgrp(fd) == os.getpgrp()
        except OSError:
            return False

    def _take_keys(fd: int) -> list[Any]:
        """Let keys through one by one and unseen; return the terminal's settings until now."""
        former = termios.tcgetattr(fd)
        fresh = termios.tcgetattr(fd)
        fresh[0] &= ~termios.IXON
        fresh[3] &= ~(termios.ICANON | termios.ECHO)
        disabled = bytes([os.fpathconf(fd, "PC_VDISABLE") & 0xFF])
        for key in (termios.VSUSP, termios.VQUIT):
            fresh[6][key] = disabled
        fresh[6][termios.VMIN], fresh[6][termios.VTIME] = 1, 0
        termios.tcsetattr(fd, termios.TCSADRAIN, fresh)
        return former

    def _give_back(fd: int, former: list[Any]) -> None:
        try:
            # What was typed meanwhile was not meant for the shell.
            termios.tcsetattr(fd, termios.TCSAFLUSH, former)
        except termios.error:
            return  # the terminal is gone
