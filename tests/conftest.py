"""What holds for every test: it leaves no process, thread or shared memory behind."""

import multiprocessing.resource_tracker
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

# PyTorch's threads wait for each other actively: on a busy machine several of them take many times
# as long as one. Set before anything imports it; real processes inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_SHARED_MEMORY = Path("/dev/shm")

# These machines are noisy: no test, and no example of a property test either, is timed.
settings.register_profile("rtpose", deadline=None)
settings.load_profile("rtpose")


def _children() -> set[int]:
    # Python's own resource tracker stays for the life of the test run.
    tracker = getattr(multiprocessing.resource_tracker._resource_tracker, "_pid", None)
    return {child.pid for child in psutil.Process().children(recursive=True)} - {tracker}


def _segments() -> set[str]:
    """Return the rings of this process's tests; what runs beside it is not their business."""
    if not _SHARED_MEMORY.is_dir():
        return set()
    mine = (f"rtpose-test-{os.getpid()}-*", "rtpose-torture-*")
    return {entry.name for pattern in mine for entry in _SHARED_MEMORY.glob(pattern)}


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves a process, thread or shared-memory segment behind."""
    children, threads, segments = _children(), set(threading.enumerate()), _segments()
    yield
    left = [f"process {pid}" for pid in _children() - children]
    left += [
        f"thread {thread.name}"
        for thread in set(threading.enumerate()) - threads
        if thread.is_alive()
    ]
    left += [f"shared memory {name}" for name in _segments() - segments]
    assert not left, f"left behind: {', '.join(left)}"


@pytest.fixture(scope="session")
def data() -> Path:
    """Return the folder of labelled animal data, or skip."""
    default = Path(__file__).parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("RTPOSE_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no animal data at {folder} (set RTPOSE_DATA)")
    return folder


@pytest.fixture
def demo_model() -> Path:
    """Return the bundled demo model."""
    return Path(__file__).parents[1] / "rtpose" / "demo" / "synthetic-animal.onnx"


@pytest.fixture(scope="session")
def emulated_board() -> Path:
    """Return the built emulator, or skip saying what is missing (fail where it is required)."""
    hardware = Path(__file__).parents[1] / "hardware"
    emulator = hardware / "emulator" / "build" / "emulator"
    firmware = hardware / "firmware" / "build" / "board.elf"
    missing = [str(path) for path in (emulator, firmware) if not path.is_file()]
    if missing:
        why = f"the emulated board is not built ({', '.join(missing)}); type: make hardware"
        if os.environ.get("RTPOSE_REQUIRE_HARDWARE") == "1":
            pytest.fail(why)
        pytest.skip(why)
    return emulator
