"""What is at the other end of an output, as a process of its own, and what it saw of the lines.

Started as a program it is the counterpart: ``counterpart.py osc|open-ephys|lsl ...`` prints one
line per level that it was given, ``<line> <0 or 1>``, and ends when its standard input closes.
"""

import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Edge = tuple[str, bool]

PATIENCE_S = 10.0


def until(condition: Callable[[], Any], what: str) -> None:
    """Wait for something to come about; fail after a long while."""
    for _ in range(round(PATIENCE_S / 0.002)):
        if condition():
            return
        threading.Event().wait(0.002)
    raise AssertionError(f"{what}: not within {PATIENCE_S:g} s")


def changes(lines: Iterable[str]) -> list[Edge]:
    """Return the changes in texts of ``<line> <0 or 1>``; all lines began low."""
    levels: dict[str, bool] = {}
    edges = []
    for text in lines:
        line, level = text.rsplit(" ", 1)
        high = level == "1"
        if levels.get(line, False) != high:
            edges.append((line, high))
        levels[line] = high
    return edges


class Counterpart:
    """A running counterpart.

    Parameters
    ----------
    *arguments : str
        What it is, and with which options.

    Attributes
    ----------
    ready : str
        What it said when it was ready: a port, for example.
    """

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, str(Path(__file__)), *arguments]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self._text = b""
        self.lines: list[str] = []
        self.ready = self._wait_for_line().removeprefix("ready ")

    def edges(self) -> list[Edge]:
        """Return every change of a line so far, in order; all lines began low."""
        self._read(0)
        return changes(self.lines[1:])

    def tell(self, word: str) -> None:
        """Tell it something and wait until it has taken it."""
        assert self.process.stdin is not None
        count = sum(text == "told 1" for text in self.lines)
        self.process.stdin.write(f"{word}\n".encode())
        while sum(text == "told 1" for text in self.lines) == count:
            self._read(PATIENCE_S)

    def stop(self) -> None:
        """End it; as if it was unplugged."""
        self.process.kill()
        self.process.wait(PATIENCE_S)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()

    def _wait_for_line(self) -> str:
        while not self.lines:
            self._read(PATIENCE_S)
        return self.lines[0]

    def _read(self, timeout_s: float) -> None:
        out = self.process.stdout
        assert out is not None
        if out.closed:
            return
        while select.select([out], [], [], timeout_s)[0]:
            data = os.read(out.fileno(), 1 << 16)
            if not data:
                assert timeout_s == 0, "the counterpart ended"
                return
            *texts, self._text = (self._text + data).split(b"\n")
            self.lines += [text.decode() for text in texts]
            timeout_s = 0


def _say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def _follow_orders(take: Callable[[str], None]) -> None:
    """Hand over what is said on standard input; end the process when that ends."""

    def follow() -> None:
        for text in sys.stdin:
            take(text.strip())
            _say("told 1")
        os._exit(0)

    threading.Thread(target=follow, daemon=True).start()


def _osc() -> None:
    from pythonosc.dispatcher import Dispatcher
    from pythonosc.osc_server import BlockingOSCUDPServer

    def take(address: str, *values: Any) -> None:
        level, width_us = values
        assert isinstance(level, int) and isinstance(width_us, int)
        assert (level == 1) == (width_us > 0)
        _say(f"{address} {level}")

    dispatcher = Dispatcher()
    dispatcher.set_default_handler(take)
    with BlockingOSCUDPServer(("127.0.0.1", 0), dispatcher) as server:
        _say(f"ready {server.server_address[1]}")
        server.serve_forever()


def _open_ephys(old: bool) -> None:
    """Answer as the plugin does: one request at a time, 'NotHandled' to what is unknown."""
    import zmq

    acquiring, mute = threading.Event(), threading.Event()
    orders = {
        "acquire": acquiring.set,
        "idle": acquiring.clear,
        "mute": mute.set,
    }
    _follow_orders(lambda word: orders[word]())
    acquiring.set()
    socket = zmq.Context().socket(zmq.REP)
    _say(f"ready {socket.bind_to_random_port('tcp://127.0.0.1')}")
    while True:
        words = socket.recv().decode().split()
        if mute.is_set():
            threading.Event().wait()
        if words == ["IsAcquiring"]:
            socket.send_string(str(int(acquiring.is_set())))
        elif words[0] == "TTL":
            values = dict(word.split("=") for word in words[1:])
            keys = ("Channel", "on") if old else ("Line", "State")
            line, state = int(values.get(keys[0], 1)), int(values.get(keys[1], 0))
            if acquiring.is_set():
                _say(f"{line} {state}")
            socket.send_string(f"TTLHandled: {keys[0]}={line} {keys[1]}={state}")
        else:
            socket.send_string("NotHandled")


def _lsl(kind: str, stream: str) -> None:
    """Print every sample with its stamp; the stamp and the numbers in hexadecimal, so exactly."""
    import pylsl

    pylsl.set_config_content(
        "[ports]\nIPv6 = disable\n[multicast]\nResolveScope = machine\nListenAddress = 127.0.0.1\n"
        "[log]\nlevel = -2\n"
    )
    _follow_orders(lambda word: None)
    _say("ready")
    (info,) = pylsl.resolve_byprop("name", stream, 1, PATIENCE_S)
    inlet = pylsl.StreamInlet(info, recover=False)
    inlet.open_stream(PATIENCE_S)
    _say(f"listening {inlet.info(PATIENCE_S).as_xml().encode().hex()} 1")
    while True:
        try:
            sample, stamp = inlet.pull_sample()
        except pylsl.util.LostError:
            os._exit(0)
        if kind == "markers":
            line, level = sample[0].rsplit(" ", 1)
            _say(f"stamp {stamp.hex()}")
            _say(f"{line} {int(level == 'on')}")
        else:
            _say(" ".join([stamp.hex(), *(float(value).hex() for value in sample)]))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["osc"]:
            _follow_orders(lambda word: None)
            _osc()
        case ["open-ephys", *options]:
            _open_ephys("old" in options)
        case ["lsl", kind, stream]:
            _lsl(kind, stream)
