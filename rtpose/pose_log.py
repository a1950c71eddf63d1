"""Every pose that control took, in order, beside the run's log: what a replay needs.

The file is a row of records, all numbers little-endian:

====================  =============================================================================
4 bytes               ``PLG2``
u32                   length of what follows
i64                   when control took the pose, ns
u64                   how many lines ``events.jsonl`` had by then
u16, then so many of  u8 length and name of a trigger, i64 when it had decided, ns
the rest              the pose, as `Pose.pack` gives it
====================  =============================================================================
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rtpose.errors import MessageError
from rtpose.messages import MAX_PAYLOAD_BYTES, Pose
from rtpose.run_log import FileWriter

_MARK: Final = b"PLG2"
_HEAD: Final = struct.Struct("<4sI")
_FIXED: Final = struct.Struct("<qQH")
_DECIDED: Final = struct.Struct("<q")


@dataclass(frozen=True, slots=True)
class TakenPose:
    """A pose as control took it.

    Attributes
    ----------
    receive_ns : int
        When.
    records : int
        Lines that the run's log had by then.
    decided : sequence of (str, int)
        The triggers that decided something on it, in order, and when.
    """

    pose: Pose
    receive_ns: int
    records: int
    decided: Sequence[tuple[str, int]]


class PoseLog(FileWriter):
    """Writes poses to a file on a thread of its own, so that a slow disk holds nobody up."""

    def append(
        self, pose: Pose, receive_ns: int, records: int, decided: Sequence[tuple[str, int]]
    ) -> None:
        """Queue what `TakenPose` says for the file. Never waits."""
        parts = [_FIXED.pack(receive_ns, records, len(decided))]
        for trigger, at_ns in decided:
            name = trigger.encode()
            parts += [bytes([len(name)]), name, _DECIDED.pack(at_ns)]
        parts.append(pose.pack())
        body = b"".join(parts)
        self.write(_HEAD.pack(_MARK, len(body)) + body)


def read_poses(path: Path) -> Iterator[TakenPose]:
    """Yield what a pose log holds; a last record that was cut off by a crash is left out.

    Raises
    ------
    MessageError
        If the file is damaged.
    """
    with path.open("rb") as file:
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            mark, length = _HEAD.unpack(head)
            where = f"{path}: at byte {file.tell() - _HEAD.size}"
            if mark != _MARK and mark[:3] == _MARK[:3]:
                raise MessageError(f"{where}: a pose as another version of rtpose recorded it")
            if mark != _MARK or length > MAX_PAYLOAD_BYTES:
                raise MessageError(f"{where}: no record of a pose")
            body = file.read(length)
            if len(body) < length:
                return
            yield _unpack(where, body)


def _unpack(where: str, body: bytes) -> TakenPose:
    try:
        receive_ns, records, count = _FIXED.unpack_from(body)
        at, decided = _FIXED.size, []
        for _ in range(count):
            end = at + 1 + body[at]
            decided.append((body[at + 1 : end].decode(), *_DECIDED.unpack_from(body, end)))
            at = end + _DECIDED.size
        return TakenPose(Pose.unpack(body[at:]), receive_ns, records, decided)
    except (struct.error, IndexError, UnicodeDecodeError, MessageError) as error:
        raise MessageError(f"{where}: a damaged record: {error}") from error
