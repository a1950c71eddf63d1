"""Carries out one plan with real processes and an emulated board, and collects what it left."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
from chip_log import Edge, Frame, Note, read_edges, read_stops, read_wire
from fault_plan import Plan
from ports import free_ports

from rtpose.bus import Subscriber
from rtpose.clock import now_ns
from rtpose.messages import AnyMessage, TriggerEvent
from rtpose.run_log import read_log

_TESTS: Final = Path(__file__).resolve().parents[1]
_HARDWARE: Final = _TESTS.parent / "hardware"
EMULATOR: Final = _HARDWARE / "emulator" / "build" / "emulator"
FIRMWARE: Final = _HARDWARE / "firmware" / "build" / "board.elf"

#: Nothing is measured by these: what takes longer is broken.
_START_S: Final = 120.0
_END_S: Final = 30.0
_GONE_S: Final = 10.0
_BOARD_LIFE_S: Final = 150
_DISK_BYTES: Final = 1 << 20


@dataclass
class Evidence:
    """What a run left behind, for the judge.

    Attributes
    ----------
    exit_code : int or None
        None if the run did not end by itself.
    manifest : mapping
        Empty if there is none.
    log : list of message
        The run's log.
    heard : list of message
        What a subscriber got that was there from the start.
    frames, edges, board : list
        The host's frames as the board received them, what its lines did, what befell it.
    left : list of str
        Processes, shared memory, ports, mounts and links that are still there.
    notes : list of str
        What the runner has to say.
    complaints : list of str
        What was wrong already while it ran.
    """

    plan: Plan
    exit_code: int | None = None
    stderr: str = ""
    manifest: Mapping[str, Any] = field(default_factory=dict)
    log: list[AnyMessage] = field(default_factory=list)
    heard: list[AnyMessage] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    board: list[Note] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    armed: bool = False


def may_mount(folder: Path) -> str:
    """Return why this user may not mount small and slow disks there, or an empty string."""
    for slow in (False, True):
        disk = folder / "disk"
        disk.mkdir()
        error = _mount(disk, slow=slow)
        if error:
            return error
        subprocess.run(["umount", str(disk)], check=True)
        disk.rmdir()
    return ""


def _mount(disk: Path, *, slow: bool) -> str:
    """Mount a disk of a megabyte, or one that can be frozen; return why not, if not."""
    options, source, kind = f"size={_DISK_BYTES}", "tmpfs", "tmpfs"
    commands = []
    if slow:
        image = disk.with_suffix(".ext4")
        options, source, kind = "loop", str(image), "ext4"
        commands += [["truncate", "-s", "16M", source], ["mkfs.ext4", "-q", source]]
    commands += [["mount", "-t", kind, "-o", options, source, str(disk)]]
    for command in commands:
        if shutil.which(command[0]) is None:
            return f"there is no {command[0]} here"
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return done.stderr.strip()
    return ""


class FaultRig:
    """A rig that a fault is going to strike; use it as a context manager, which clears up.

    Attributes
    ----------
    pids : mapping of str to int
        Every process of the rig, and ``board``.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        self.evidence = Evidence(plan)
        self.notes, self.complaints = self.evidence.notes, self.evidence.complaints
        names = ("pose_port", "event_port", "command_port")
        self.ports: Mapping[str, int] = dict(zip(names, free_ports(3), strict=True))
        self.pids: Mapping[str, int] = {}
        self._port = folder / "board.tty"
        self._edges, self._wire = folder / "edges.log", folder / "wire.log"
        self._inputs, self._input_log = folder / "inputs", folder / "inputs.log"
        self._shared: set[Path] = set()
        self._mounted = False
        self._rig: subprocess.Popen[str] | None = None
        self._board: subprocess.Popen[bytes] | None = None
        self._subscriber: Subscriber | None = None

    def disk(self) -> Path:
        """Return the small disk that the run's folder is on."""
        return self.folder / "disk"

    def drive(self, order: str) -> None:
        """Drive a pin of the board, as emulator/inputs.c describes."""
        with self._inputs.open("w") as fifo:
            fifo.write(order + "\n")

    # ------------------------------------------------------------------------------------- a run

    def carry_out(self) -> Evidence:
        """Start the rig, let the faults strike, wait for the end, collect the evidence."""
        self._start()
        self.evidence.armed = self._wait(self._is_lit, _START_S)
        if self.evidence.armed:
            self._note_what_there_is()
            self._strike()
        if self._wait(self._has_ended, _END_S):
            self.evidence.exit_code = self._running.returncode
        self._wait_until_gone()
        self._settle_board()
        self._collect()
        return self.evidence

    def _start(self) -> None:
        plan = self.plan
        self._start_board()
        if plan.needs("small-disk") or plan.needs("slow-disk"):
            self.disk().mkdir()
            error = _mount(self.disk(), slow=plan.needs("slow-disk"))
            if error:
                raise PermissionError(f"no small disk: {error}")
            self._mounted = True
        runs = str((self.disk() if self._mounted else self.folder) / "runs")
        stream = "\n".join(f"{name} = {port}" for name, port in self.ports.items())
        path = self.folder / "rig.toml"
        path.write_text(f"{plan.rig_toml(str(self._port), runs)}\n[stream]\n{stream}\n")
        endpoints = [f"tcp://127.0.0.1:{self.ports[n]}" for n in ("pose_port", "event_port")]
        self._subscriber = Subscriber(endpoints, ["pose.", "event", "ack"], queue_messages=0)
        command = [sys.executable, "-m", "rtpose", "run", str(path), "--arm"]
        command += ["--seconds", str(plan.seconds)]
        if plan.needs("recorder"):
            command += ["--save", str(self.folder / "out.mp4")]
        paths = [str(_TESTS / "data"), os.environ.get("PYTHONPATH", "")]
        with (self.folder / "stdout").open("w") as out, (self.folder / "stderr").open("w") as err:
            self._rig = subprocess.Popen(
                command,
                stdout=out,
                stderr=err,
                text=True,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                    "COLUMNS": "200",
                },
                start_new_session=True,  # so that whatever it leaves behind can be found
            )

    def _start_board(self) -> None:
        command = [EMULATOR, FIRMWARE, self._port, self._edges, "--wire-log", self._wire]
        command += ["--inputs", self._inputs, "--input-log", self._input_log]
        self._board = subprocess.Popen(
            [*map(str, command), "--max-seconds", str(_BOARD_LIFE_S), "--realtime"],
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        if self._board.stdout is None or not self._board.stdout.readline().startswith(b"ready "):
            raise RuntimeError("the emulated board did not start; is it built? (make hardware)")
        self.pids = {"board": self._board.pid}
        self.drive("D2 0")  # the contact of the stop input is closed

    def _strike(self) -> None:
        draw = random.Random(self.plan.seed)
        for kind, delay_s in zip(self.plan.kinds, self.plan.delays_s, strict=False):
            self._wait(lambda: False, delay_s)
            kind.inject(self, draw)

    # ----------------------------------------------------------------------------------- waiting

    @property
    def _running(self) -> "subprocess.Popen[str]":
        if self._rig is None:
            raise RuntimeError("the rig was not started")
        return self._rig

    def _wait(self, condition: Callable[[], bool], longest_s: float) -> bool:
        """Listen to the rig until a condition holds; return False if that takes too long."""
        end_ns = now_ns() + round(longest_s * 1e9)
        while not condition():
            if now_ns() > end_ns:
                return False
            self._listen(0.01)
        return True

    def _listen(self, longest_s: float = 0.0) -> None:
        if self._subscriber is None:
            return
        message = self._subscriber.receive(longest_s)
        while message is not None:
            self.evidence.heard.append(message)
            message = self._subscriber.receive(0.0)

    def _is_lit(self) -> bool:
        """Return whether the rig is up and a line is high; a rig that ended never will be."""
        if self._has_ended():
            raise RuntimeError(f"the rig ended before it was armed: {self._words('stderr')}")
        return self._manifest_file() is not None and any(e.level for e in read_edges(self._edges))

    def _has_ended(self) -> bool:
        return self._running.poll() is not None

    def _manifest_file(self) -> Path | None:
        return next(self.folder.glob("**/manifest.json"), None)

    def _words(self, name: str) -> str:
        return (self.folder / name).read_text()

    # --------------------------------------------------------------------- what must be gone after

    def _note_what_there_is(self) -> None:
        path = self._manifest_file()
        if path is not None:
            self.pids = {**self.pids, **json.loads(path.read_text())["pids"]}
        self.pids = {**self.pids, "supervisor": self._running.pid}
        self._note_shared_memory()

    def _note_shared_memory(self) -> None:
        for process in self._alive():
            try:
                maps = Path(f"/proc/{process.pid}/maps").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has just ended
            self._shared |= {
                Path(line[line.index("/dev/shm/") :].removesuffix(" (deleted)"))
                for line in maps.splitlines()
                if "/dev/shm/" in line and not line.endswith("(deleted)")
            }

    def _session(self) -> list[psutil.Process]:
        """Return the living processes of the rig, whoever is their parent by now."""
        found = []
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) == self._running.pid:
                    found.append(process)
            except ProcessLookupError:
                continue
        return [p for p in found if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]

    def _wait_until_gone(self) -> None:
        """Wait for the end of every process of the rig; what stays is noted, and ended."""
        self._wait(lambda: not self._alive(), _GONE_S)
        self._note_shared_memory()
        for process in self._alive():
            self.evidence.left.append(f"process {process.pid} {' '.join(process.cmdline())[:80]}")
            process.kill()
        self._running.wait(_GONE_S)
        self._wait(lambda: not any(path.exists() for path in self._shared), _GONE_S)
        for path in filter(Path.exists, self._shared):
            self.evidence.left.append(str(path))
            path.unlink()

    def _alive(self) -> list[psutil.Process]:
        try:
            return self._session()
        except psutil.NoSuchProcess:
            return self._session()  # one ended while it was looked at

    def _settle_board(self) -> None:
        """Give the board time to drop its lines by itself, then end it."""
        levels: dict[int, int] = {}

        def all_low() -> bool:
            levels.update((edge.line, edge.level) for edge in read_edges(self._edges))
            return not any(levels.values())

        self._wait(all_low, _GONE_S)
        if self._board is not None:
            self._board.terminate()
            self._board.wait(_GONE_S)
        if self._port.is_symlink():
            self.evidence.left.append(str(self._port))

    def _collect(self) -> None:
        evidence = self.evidence
        self._listen()
        evidence.stderr = self._words("stderr")
        evidence.edges = read_edges(self._edges)
        evidence.frames, evidence.board = read_wire(self._wire)
        evidence.board += read_stops(self._input_log)
        manifest = self._manifest_file()
        if manifest is not None:
            evidence.manifest = json.loads(manifest.read_text())
            log = manifest.with_name("events.jsonl")
            evidence.log = read_log(log) if log.exists() else []  # it ended before control began
        for port in self.ports.values():
            with socket.socket() as free:
                free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    free.bind(("127.0.0.1", port))
                except OSError:
                    evidence.left.append(f"port {port}")

    # ------------------------------------------------------------------------------- clearing up

    def __enter__(self) -> "FaultRig":
        return self

    def __exit__(self, *_error: object) -> None:
        if self._subscriber is not None:
            self._subscriber.close()
        if self._rig is not None:
            for process in self._alive():
                process.kill()
            self._rig.wait(_GONE_S)
        if self._board is not None:
            if self._board.poll() is None:
                self._board.kill()
                self._board.wait(_GONE_S)
            if self._board.stdout is not None:
                self._board.stdout.close()
        if self._mounted:
            subprocess.run(["umount", str(self.disk())], check=True)


def carry_out(plan: Plan, folder: Path) -> Evidence:
    """Carry out a plan in a folder of its own."""
    folder.mkdir(parents=True)
    with FaultRig(plan, folder) as rig:
        return rig.carry_out()


def events(messages: list[AnyMessage]) -> list[TriggerEvent]:
    """Return the events among messages."""
    return [message for message in messages if isinstance(message, TriggerEvent)]


#: The signal that ends a process at once.
KILLED: Final = -signal.SIGKILL
