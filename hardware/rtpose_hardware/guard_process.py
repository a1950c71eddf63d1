"""The program of a `guard.Guard`; started by its file name, so it imports nothing of rtpose.

guard_process.py FD TIMEOUT_MS ACTION

Standard input brings one byte per event: ``a`` armed, ``b`` beat, ``d`` disarmed. Whenever it ends
(its writer died, however) or brings nothing for TIMEOUT_MS while armed, ACTION is done on FD:
``modem`` deasserts DTR and RTS, anything else is hexadecimal and is written.
"""

import fcntl
import os
import select
import signal
import struct
import sys
import termios


def drop(fd: int, action: str) -> None:
    """Let every line of the device fall."""
    if action == "modem":
        bits = struct.pack("I", termios.TIOCM_DTR | termios.TIOCM_RTS)
        fcntl.ioctl(fd, termios.TIOCMBIC, bits)
        return
    left = bytes.fromhex(action)
    while left:
        # The host may have handed over more than the device has taken yet.
        select.select([], [fd], [])
        left = left[os.write(fd, left) :]


def watch(fd: int, timeout_s: float, action: str) -> None:
    """Wait for the end of standard input; drop the lines then, and at every silence while armed."""
    armed = False
    while True:
        ready, _, _ = select.select([0], [], [], timeout_s if armed else None)
        if not ready:
            drop(fd, action)
            armed = False
            continue
        events = os.read(0, 4096)
        if not events:
            break
        last_arm, last_disarm = events.rfind(b"a"), events.rfind(b"d")
        armed = armed if last_arm == last_disarm else last_arm > last_disarm
    drop(fd, action)


if __name__ == "__main__":
    # What ends the host by the keyboard must not end its guard; the closed pipe does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        watch(int(sys.argv[1]), int(sys.argv[2]) / 1000, sys.argv[3])
    except OSError:
        sys.exit(1)  # the device is gone, and its lines with it
