"""What the machine gives a rig: priority, cores, clock, memory, ports, disk."""

import os
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rtpose.clock import now_ns
from rtpose.doctor.trial import Trial, Trials
from rtpose.finding import Finding, Grade
from rtpose.rig_tables import StreamTable

_MB: Final = 1_000_000
_GB: Final = 1_000_000_000

#: Capture, inference and control wait for their work at the same time, and the system needs one.
_ENOUGH_CORES: Final = 4

#: Eight frames, the usual ring, of 1920x1200 in colour are 55 MB, of 640x480 in grey 2.5 MB.
_ENOUGH_SHARED_BYTES: Final = 256 * _MB
_LEAST_SHARED_BYTES: Final = 16 * _MB

_ENOUGH_DISK_BYTES: Final = 20 * _GB
_LEAST_DISK_BYTES: Final = 1 * _GB

#: Read by a few instructions, without asking a device: x86, the usual hypervisors, ARM.
_FAST_CLOCKS: Final = ("tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter")
_CLOCK_READS: Final = 1000


def look(runs: Path) -> list[Finding]:
    """Look at everything that needs no trial; `runs` is the folder of recordings."""
    shared, system = Path("/dev/shm"), Path("/sys/devices/system")
    return [
        cores(),
        *governor(system / "cpu"),
        clock(system / "clocksource" / "clocksource0" / "current_clocksource"),
        *([shared_memory(shutil.disk_usage(shared).free)] if shared.is_dir() else []),
        stream_ports(StreamTable()),
        disk(runs.absolute()),
    ]


def try_realtime() -> Trials:
    """Start asking for real-time priority, as a rig's processes do."""
    return Trials([Trial("realtime")], lambda results: [judge_realtime(results[0])])


def judge_realtime(found: Mapping[str, Any]) -> Finding:
    """Return the finding for what asking for priority gave."""
    notes = [found["error"]] if "error" in found else found["notes"]
    if notes:
        return Finding("real time", "warning", "; ".join(notes))
    return Finding("real time", "good", "real-time priority is allowed")


def cores() -> Finding:
    """Return how many CPU cores a rig may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    text = f"{count} for this user, {os.cpu_count()} in all"
    facts = {"usable": count, "all": os.cpu_count()}
    if count < _ENOUGH_CORES:
        advice = "latency has longer tails below 4: capture, inference and control share cores"
        return Finding("cores", "warning", text, advice, facts)
    return Finding("cores", "good", text, facts=facts)


def governor(cpus: Path) -> Sequence[Finding]:
    """Return how the system chooses the CPU's frequency; nothing where it does not say.

    Parameters
    ----------
    cpus : Path
        Linux's folder of CPUs, ``/sys/devices/system/cpu``.
    """
    files = cpus.glob("cpu[0-9]*/cpufreq/scaling_governor")
    names = sorted({file.read_text().strip() for file in files})
    if not names:
        return []
    text, facts = ", ".join(names), {"governors": names}
    if names == ["performance"]:
        return [Finding("governor", "good", text, facts=facts)]
    advice = "the CPU slows down between frames; type: sudo cpupower frequency-set -g performance"
    return [Finding("governor", "warning", text, advice, facts)]


def clock(source: Path) -> Finding:
    """Return what the clock is made of, and what reading it costs.

    Parameters
    ----------
    source : Path
        Where Linux names it.
    """
    start_ns = now_ns()
    for _ in range(_CLOCK_READS):
        now_ns()
    cost_ns = (now_ns() - start_ns) / _CLOCK_READS
    implementation = time.get_clock_info("perf_counter").implementation
    name = source.read_text().strip() if source.is_file() else implementation
    text, facts = f"{name}, {cost_ns:.0f} ns a look", {"source": name, "cost_ns": round(cost_ns)}
    if source.is_file() and name not in _FAST_CLOCKS:
        advice = "a slow source: look in dmesg for why the kernel does not use tsc"
        return Finding("clock", "warning", text, advice, facts)
    return Finding("clock", "good", text, facts=facts)


def shared_memory(free: int) -> Finding:
    """Return whether frames fit; `free` is in bytes."""
    text, facts = f"{free / _MB:.0f} MB free for frames", {"free_bytes": free}
    if free >= _ENOUGH_SHARED_BYTES:
        return Finding("shared memory", "good", text, facts=facts)
    advice = (
        "eight colour frames of 1920x1200 take 55 MB; sudo mount -o remount,size=1G /dev/shm, or "
        "docker run --shm-size=1g"
    )
    grade: Grade = "problem" if free < _LEAST_SHARED_BYTES else "warning"
    return Finding("shared memory", grade, text, advice, facts)


def stream_ports(stream: StreamTable) -> Finding:
    """Return whether the ports of a rig are free.

    Parameters
    ----------
    stream : StreamTable
        Names the ports.
    """
    ports = {
        "pose_port": stream.pose_port,
        "event_port": stream.event_port,
        "command_port": stream.command_port,
    }
    taken = {name: port for name, port in ports.items() if not _is_free(stream.host, port)}
    numbers = ", ".join(map(str, ports.values()))
    if taken:
        names = ", ".join(f"{name} = {port}" for name, port in taken.items())
        advice = "a rig is running (rtpose stop), or give others in [stream]"
        return Finding("stream", "warning", f"in use: {names}", advice, {"taken": taken})
    return Finding("stream", "good", f"ports {numbers} are free", facts={"taken": taken})


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as trial:
        if os.name == "posix":  # as ZeroMQ: what is left of closed connections does not count
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError:
            return False
    return True


def disk(runs: Path) -> Finding:
    """Return whether recordings find room; `runs` need not exist yet."""
    folder = next(parent for parent in (runs, *runs.parents) if parent.exists())
    free = shutil.disk_usage(folder).free
    text, facts = f"{free / _GB:.1f} GB free for {runs}", {"free_bytes": free, "folder": str(runs)}
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        advice = f"no recording can be written below {folder}: choose another [recording] folder"
        return Finding("disk", "problem", text, advice, facts)
    if free < _ENOUGH_DISK_BYTES:
        grade: Grade = "problem" if free < _LEAST_DISK_BYTES else "warning"
        return Finding(
            "disk", grade, text, "make room, or choose another [recording] folder", facts
        )
    return Finding("disk", "good", text, facts=facts)
