"""The run's log: append-only, whole lines, and honest about what it could not write."""

import resource
from pathlib import Path

import pytest

from rtpose.errors import MessageError, RecordingError
from rtpose.messages import TriggerEvent
from rtpose.run_log import RunLog, read_log


def event(seq: int) -> TriggerEvent:
    return TriggerEvent(run="r", seq=seq, kind="fire", decide_ns=seq)


def test_what_is_appended_is_read_back_in_order(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "events.jsonl")
    for seq in range(200):
        log.append(event(seq))
    log.close()
    assert read_log(log.path) == [event(seq) for seq in range(200)]


def test_a_second_run_appends(tmp_path: Path) -> None:
    for seq in range(2):
        log = RunLog(tmp_path / "events.jsonl")
        log.append(event(seq))
        log.close()
    assert read_log(log.path) == [event(0), event(1)]


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path: Path, cut: int) -> None:
    log = RunLog(tmp_path / "events.jsonl")
    log.append(event(0))
    log.append(event(1))
    log.close()
    log.path.write_bytes(log.path.read_bytes()[: -1 - cut])
    assert read_log(log.path) == [event(0)]


def test_a_damaged_line_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"{nonsense\n")
    with pytest.raises(MessageError):
        read_log(path)


def test_a_full_disk_is_said_and_counted() -> None:
    log = RunLog(Path("/dev/full"))
    log.append(event(0))
    log.append(event(1))
    with pytest.raises(RecordingError, match=r"2 records lost: .*No space left"):
        log.close()


def test_a_disk_that_fills_up_within_a_line_is_said_in_its_own_words(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "events.jsonl")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        log.append(event(0))
        with pytest.raises(RecordingError, match=r"1 records lost: .*File too large"):
            log.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert log.path.stat().st_size == 100
    assert read_log(log.path) == []


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="cannot write the run's record"):
        RunLog(tmp_path / "absent" / "events.jsonl")
