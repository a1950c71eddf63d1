"""The append-only log of a run: one JSON message per line, flushed line by line."""

import json
import queue
import threading
from pathlib import Path

from rtpose.errors import MessageError, RecordingError
from rtpose.messages import AnyMessage, decode, encode_json

#: Far more than a run can write in the time that a disk may hang.
_QUEUE_PIECES = 65536


class FileWriter:
    """Writes to a file on a thread of its own, so that a slow disk holds nobody up.

    Parameters
    ----------
    path : Path
        Created if absent, appended to otherwise.

    Attributes
    ----------
    failure : str
        Empty while everything was written; else why writing stopped. Pieces that could not be
        written are counted in `lost`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.failure = ""
        self.lost = 0
        self._pieces: queue.Queue[bytes | None] = queue.Queue(_QUEUE_PIECES)
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise RecordingError(
                f"cannot write the run's record {path}: {error.strerror}"
            ) from error
        self._thread = threading.Thread(target=self._work, name=path.stem, daemon=True)
        self._thread.start()

    def write(self, piece: bytes) -> None:
        """Queue a piece for the file. Never waits."""
        try:
            self._pieces.put_nowait(piece)
        except queue.Full:
            self.lost += 1
            self.failure = self.failure or "the disk is too slow"

    def _work(self) -> None:
        while (piece := self._pieces.get()) is not None:
            if self.failure:
                self.lost += 1
                continue
            try:
                while piece:  # a disk takes what it has room for, and only then says it is full
                    piece = piece[self._file.write(piece) :]
            except OSError as error:
                self.lost += 1
                self.failure = f"cannot write {self.path}: {error}"

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what is queued, then close; raise `RecordingError` if anything was lost."""
        self._pieces.put(None)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise RecordingError(f"{self.path}: the disk did not take it all in {timeout_s:g} s")
        self._file.close()
        if self.lost:
            raise RecordingError(f"{self.path}: {self.lost} records lost: {self.failure}")


class RunLog(FileWriter):
    """Writes messages to a file.

    Attributes
    ----------
    appended : int
        Messages that it was given.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.appended = 0

    def append(self, message: AnyMessage) -> None:
        """Queue a message for the file. Never waits."""
        self.appended += 1
        self.write(encode_json(message) + b"\n")


def read_log(path: Path) -> list[AnyMessage]:
    """Read a run's log back.

    A last line that was cut off by a crash is left out; any other line that is not a message is an
    error.

    Raises
    ------
    MessageError
        If a whole line is not a message; it says which.
    """
    *whole, last = path.read_bytes().split(b"\n")
    messages = []
    for number, line in enumerate([*whole, *([last] if _is_json(last) else [])], 1):
        try:
            messages += [decode(line)] if line else []
        except MessageError as error:
            raise MessageError(f"{path}, line {number}: {error}") from error
    return messages


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
