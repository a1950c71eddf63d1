"""The supervisor: starts the processes of a rig in order, watches them, stops them in order."""

import json
import platform
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import FrameType
from typing import Any, Final, Self

from rtpose import ring
from rtpose.bus import Inbox, direct_pair
from rtpose.capture import capture
from rtpose.client import Commands
from rtpose.clock import now_ns, utc_now
from rtpose.control import control
from rtpose.errors import (
    ConfigError,
    NoReplyError,
    NotReadyError,
    Problem,
    ProcessFailedError,
    RecordingError,
)
from rtpose.estimator import read_card
from rtpose.inference import inference
from rtpose.interfaces import FrameFormat
from rtpose.loop import GROUP_SIGNALS, SPAWN, Link, new_activity, run_process
from rtpose.messages import Heartbeat
from rtpose.model_card import ModelCard
from rtpose.recorder import RecorderTask, recorder
from rtpose.rig import Rig
from rtpose.ring import RingAddress
from rtpose.yoke import read_all_yoked_acts
from rtpose.zoo import find_model

#: Longest silence of a process before it counts as hung. Far above any scheduling delay.
_HUNG_NS: Final = 3_000_000_000
#: After so long without a look at the others the supervisor itself was held up.
_HELD_UP_NS: Final = _HUNG_NS // 2
#: How often to look whether every process lives: a dead one must stop the outputs at once.
_LOOK_S: Final = 0.01
#: How long the last heartbeat of an ended process may be under way.
_LAST_WORDS_S: Final = 0.5
_START_NS: Final = 60_000_000_000
_STOP_S: Final = 6.0
_KILL_S: Final = 2.0
_ARM_NS: Final = 15_000_000_000
#: How long control may take to confirm an emergency stop before it is killed, upon which the boards
#: drop their lines by themselves. Far above any scheduling delay.
_ESTOP_NS: Final = 1_000_000_000

#: Control first: its outputs are safe before anything else ends.
_STOP_ORDER: Final = ("control", "capture", "inference", "recorder")


def model_path(rig: Rig) -> Path:
    """Return the ONNX file that a rig names."""
    return find_model(rig.model.path, rig.source.parent)


def check(rig: Rig) -> ModelCard:
    """Check what needs other files: the model, the triggers' keypoints in it, the logs to repeat.

    Raises
    ------
    ModelError
        If the model is missing, damaged or has no card.
    ConfigError
        With one problem for every trigger that asks for what the model does not find, or that is
        yoked to what its line could never do.
    """
    card = read_card(model_path(rig))
    problems: list[Problem] = []
    for look in (lambda: rig.check_triggers(card.keypoints()), lambda: read_all_yoked_acts(rig)):
        try:
            look()
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return card


@dataclass
class _Child:
    """One process of the rig and what is known of it."""

    name: str
    process: SpawnProcess
    orders: "Connection[Any, Any]"
    activity: Any
    last_beat_ns: int
    ready: bool = False
    finished: bool = False
    stop_requested: bool = False
    failure: str = ""
    failure_code: int = 0
    counters: Mapping[str, int] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)
    ordering: threading.Lock = field(default_factory=threading.Lock)

    @property
    def where(self) -> str:
        """What it is at work on, as the end of a sentence; empty if it did not say."""
        doing = bytes(self.activity.value).decode(errors="replace")
        return f" in {doing!r}" if doing else ""

    def order(self, what: str) -> None:
        try:
            with self.ordering:
                self.orders.send(what)
        except OSError:
            return  # it ended already; `_look_after` reports how


class Supervisor:
    """Runs one rig. Use as a context manager: leaving it stops every process, control first.

    Parameters
    ----------
    rig : Rig
    recording : RecorderTask, optional
        An annotated video or picture to make.

    Attributes
    ----------
    run : str
        Id of this run.
    folder : Path
        Where the run leaves its manifest, settings and log.
    problems : list of str
        What went wrong, in words; empty after a good run.
    """

    def __init__(self, rig: Rig, recording: RecorderTask | None = None) -> None:
        self.rig = rig
        self.card = check(rig)  # first: a rig that cannot run leaves no folder
        self.run = secrets.token_hex(4)
        self.folder = self._make_folder()
        self.problems: list[str] = []
        self.exit_code = 0
        self._recording = recording
        self._children: dict[str, _Child] = {}
        self._ring_name = f"rtpose-{self.run}-{rig.camera.name}"[:30]
        self._inbox = Inbox()
        self._stop_asked = threading.Event()
        self._estop_asked = threading.Event()
        self._estop_deadline_ns: int | None = None
        self._looked_ns = now_ns()
        self._former_handlers: dict[int, Any] = {}

    def _make_folder(self) -> Path:
        stamp = utc_now()[:19].replace(":", "-")
        folder = Path(self.rig.recording.folder).resolve() / f"{stamp}-{self.run}"
        try:
            folder.mkdir(parents=True)
            settings = json.dumps(self.rig.to_dict(), indent=2)
            (folder / "settings.json").write_text(settings)
        except OSError as error:
            raise RecordingError(
                f"cannot write the run's folder {folder}: {error.strerror}; "
                "give another [recording] folder"
            ) from error
        return folder

    # ------------------------------------------------------------------------------ start and end

    def __enter__(self) -> Self:
        numbers = [getattr(signal, name) for name in GROUP_SIGNALS if hasattr(signal, name)]
        for number in numbers:
            self._former_handlers[number] = signal.signal(number, signal.SIG_IGN)
        # It clears up when everything else was killed, so it must outlive a closed terminal: it
        # inherits what is ignored now.
        resource_tracker.ensure_running()
        for number in numbers:
            signal.signal(number, self._on_signal)
        try:
            self._start_all()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stop_asked.set()

    def _start_all(self) -> None:
        rig, latency = self.rig, self.rig.latency
        readers = ("inference", "recorder") if self._recording else ("inference",)
        wakes = {reader: SPAWN.Semaphore(0) for reader in readers}
        taken = SPAWN.Semaphore(0)
        camera = self._spawn(
            "capture", capture, rig.camera, self._ring_name, wakes, taken, latency.realtime
        )
        self._wait_ready()
        if self.stopping:
            return
        frame_format = _frame_format(camera.info)
        rate_hz = frame_format.rate_hz
        address = RingAddress(self._ring_name, wakes["inference"], taken)
        to_control, from_inference = direct_pair()
        model = model_path(rig)
        self._spawn("inference", inference, rig, model, frame_format, address, to_control)
        if self._recording:
            address = RingAddress(self._ring_name, wakes["recorder"])
            self._spawn("recorder", recorder, rig, self.card, self._recording, address, rate_hz)
        self._wait_ready()
        if self.stopping:
            return
        # Last, because it opens the hardware: nothing is connected before the rest stands.
        skeleton = self.card.keypoints()
        self._spawn("control", control, rig, skeleton, self.folder, rate_hz, from_inference)
        if self._estop_asked.is_set():
            self.emergency_stop()
        to_control.close()
        from_inference.close()
        self._wait_ready()
        self._write_manifest(ended=False)
        for child in self._children.values():
            child.order("start")

    def _spawn(self, name: str, body: Callable[..., None], *arguments: Any) -> _Child:
        ours, theirs = SPAWN.Pipe()
        activity = new_activity()
        link = Link(name, self.run, self._inbox.endpoint, theirs, activity)
        process = SPAWN.Process(
            target=run_process, args=(body, link, *arguments), name=f"rtpose-{name}"
        )
        process.start()
        theirs.close()  # so that a dead supervisor shows as end of file
        child = _Child(name, process, ours, activity, now_ns())
        self._children[name] = child
        return child

    def _wait_ready(self) -> None:
        deadline_ns = now_ns() + _START_NS
        while not self.stopping and not all(c.ready for c in self._children.values()):
            self.step(0.05)
            if now_ns() > deadline_ns:
                late = [c.name + c.where for c in self._children.values() if not c.ready]
                self._fail(f"{', '.join(late)} did not get ready within {_START_NS / 1e9:g} s", 1)

    def arm(self) -> None:
        """Arm as soon as the rig is ready.

        Raises
        ------
        NotReadyError
            With every reason, if it does not get ready in time.
        """
        deadline_ns = now_ns() + _ARM_NS
        reasons: list[str] = ["control did not answer"]
        with Commands(self._command_endpoint, timeout_s=1.0, **self._key()) as commands:
            while not self.stopping and now_ns() < deadline_ns:
                if self._estop_asked.is_set():
                    raise NotReadyError(["the emergency stop was used"])
                try:
                    reply = commands.arm()
                except NoReplyError:
                    self.step(0.0)
                    continue
                if reply.ok:
                    return
                reasons = reply.reasons
                self.step(0.1)
        if not self.stopping:
            raise NotReadyError(reasons)

    @property
    def _command_endpoint(self) -> str:
        return self.rig.stream.local_endpoint(self.rig.stream.command_port)

    def _key(self) -> dict[str, Any]:
        key_file = self.rig.stream.curve_secret_key_file
        return {} if key_file is None else {"server_key_file": Path(key_file)}

    # ------------------------------------------------------------------------------------ watching

    @property
    def stopping(self) -> bool:
        """Whether the run is to end: it failed, it is done, or somebody asked."""
        return self._stop_asked.is_set()

    def stop(self) -> None:
        """Ask for the end of the run."""
        self._stop_asked.set()

    def emergency_stop(self) -> None:
        """Make every output safe at once, until `rtpose release`; may be called from any thread.

        It goes by the line on which control gets its orders, whatever becomes of the network. If
        control does not confirm it in time, it is killed.
        """
        self._estop_asked.set()
        child = self._children.get("control")
        if child is not None:
            child.order("estop")
            self._estop_deadline_ns = now_ns() + _ESTOP_NS

    @property
    def state(self) -> str:
        """``armed``, ``disarmed``, or ``stopped`` after an emergency stop; empty at first."""
        child = self._children.get("control")
        return "" if child is None else str(child.info.get("state", ""))

    def step(self, timeout_s: float) -> None:
        """Take in heartbeats for at most `timeout_s`, and look whether every process is well."""
        end_ns = now_ns() + round(timeout_s * 1e9)
        while True:
            self._listen(min(timeout_s, _LOOK_S))
            self._allow_for_own_delay()
            for child in self._children.values():
                self._look_after(child)
            self._insist_on_emergency_stop()
            if now_ns() >= end_ns:
                return

    def _listen(self, timeout_s: float) -> None:
        message = self._inbox.receive(timeout_s)
        while message is not None:
            if isinstance(message, Heartbeat) and message.process in self._children:
                self._note(self._children[message.process], message)
            message = self._inbox.receive(0.0)

    def _allow_for_own_delay(self) -> None:
        """Give everybody their time anew if this process was stopped or starved itself.

        What they said meanwhile may not have reached the inbox yet.
        """
        now = now_ns()
        if now - self._looked_ns > _HELD_UP_NS:
            for child in self._children.values():
                child.last_beat_ns = now
            if self._estop_deadline_ns is not None:
                self._estop_deadline_ns = now + _ESTOP_NS
        self._looked_ns = now

    def _note(self, child: _Child, beat: Heartbeat) -> None:
        child.last_beat_ns = now_ns()
        child.ready = child.ready or beat.ready
        child.finished = beat.finished
        child.counters, child.info = beat.counters, beat.info
        if beat.failure and not child.failure:
            child.failure, child.failure_code = beat.failure, beat.failure_code
        if beat.stop_requested:
            self.stop()

    def _look_after(self, child: _Child) -> None:
        if not child.process.is_alive():
            self._on_exit(child)
        elif now_ns() - child.last_beat_ns > _HUNG_NS and (child.ready or not self.stopping):
            if not child.ready:
                return  # still starting: `_wait_ready` has its own limit
            child.process.kill()
            child.failure = (
                f"{child.name} hung{child.where} (no heartbeat for {_HUNG_NS / 1e9:g} s)"
            )
            self._fail(child.failure, 1)

    def _insist_on_emergency_stop(self) -> None:
        deadline_ns, child = self._estop_deadline_ns, self._children.get("control")
        if deadline_ns is None or child is None:
            return
        if self.state == "stopped" or not child.process.is_alive():
            self._estop_deadline_ns = None
        elif not child.ready:  # it stops before it does anything else
            self._estop_deadline_ns = now_ns() + _ESTOP_NS
        elif now_ns() > deadline_ns:
            self._estop_deadline_ns = None
            child.process.kill()
            child.failure = (
                f"control did not confirm the emergency stop in {_ESTOP_NS / 1e9:g} s, "
                f"and was killed{child.where}"
            )
            self._fail(child.failure, 1)

    def _on_exit(self, child: _Child) -> None:
        if child.finished or (child.failure and child.failure in "\n".join(self.problems)):
            # The source ended: inference follows when it has taken the last frame.
            if child.name in ("inference", "control") and not self.stopping:
                self.stop()
            return
        code = child.process.exitcode
        if code is not None and code > 0 and not child.failure:
            # It may have been quicker to end than its last words to get here. One that was killed
            # had none, and the outputs must not wait for them.
            self._hear_last_words(child)
        if child.failure:
            self._fail(f"{child.name}: {child.failure}", child.failure_code)
        elif code is not None and code < 0:
            self._fail(f"{child.name} was killed by {signal.Signals(-code).name}", 1)
        elif code:
            self._fail(f"{child.name} ended with exit code {code}", 1)

    def _hear_last_words(self, child: _Child) -> None:
        """Wait for the last heartbeat of a process that ended by itself: final counts, or why."""
        end_ns = now_ns() + round(_LAST_WORDS_S * 1e9)
        while not (child.finished or child.failure) and now_ns() < end_ns:
            self._listen(_LOOK_S)

    def _fail(self, what: str, code: int) -> None:
        # A dead process is seen at every look. Control is told once: the line to one that hangs too
        # would fill up, and hold the supervisor up for ever.
        if what in self.problems:
            return
        self.problems.append(what)
        self.exit_code = self.exit_code or code
        # The loop does not need its recorder: the run goes on, and ends with the problem reported.
        if not what.startswith("recorder"):
            self.stop()
            if "control" in self._children:
                self._children["control"].order("stop")

    def status(self) -> dict[str, dict[str, int]]:
        """Return the counters of every process."""
        return {child.name: dict(child.counters) for child in self._children.values()}

    def info(self) -> dict[str, dict[str, Any]]:
        """Return what every process said of itself."""
        return {child.name: dict(child.info) for child in self._children.values()}

    # --------------------------------------------------------------------------------- stopping

    def close(self) -> None:
        """Stop every process, control first; remove the shared memory; write the manifest."""
        self.stop()
        for name in _STOP_ORDER:
            if name in self._children:
                self._end(self._children[name])
        self._inbox.close()
        ring.unlink(self._ring_name)
        for number, handler in self._former_handlers.items():
            signal.signal(number, handler)
        self._former_handlers.clear()
        self._write_manifest(ended=True)

    def _end(self, child: _Child) -> None:
        child.order("stop")
        deadline_ns = now_ns() + round(_STOP_S * 1e9)
        while child.process.is_alive() and now_ns() < deadline_ns:
            self.step(0.02)
        if child.process.is_alive():
            self._fail(f"{child.name} did not end when asked, and was killed{child.where}", 1)
            child.process.kill()
        elif child.process.exitcode == 0:
            self._hear_last_words(child)
        self.step(0.0)
        child.process.join(_KILL_S)
        child.orders.close()

    def _write_manifest(self, *, ended: bool) -> None:
        manifest = {
            "run": self.run,
            "complete": ended and not self.problems,
            "ended": ended,
            "written_utc": utc_now(),
            "written_ns": now_ns(),
            "problems": self.problems,
            "rtpose": version("rtpose"),
            "python": sys.version.split()[0],
            "machine": f"{platform.platform()} {platform.processor()}",
            "model": self.card.name,
            "pids": {child.name: child.process.pid for child in self._children.values()},
            "info": self.info(),
            "counters": self.status(),
        }
        path = self.folder / "manifest.json"
        fresh = path.with_suffix(".new")
        try:
            fresh.write_text(json.dumps(manifest, indent=2))
            fresh.replace(path)
        except OSError as error:
            self._fail(f"cannot write {path}: {error.strerror}", 1)

    def raise_for_problems(self) -> None:
        """Raise `ProcessFailedError` with all problems of the run, if there were any."""
        if self.problems:
            error = ProcessFailedError("\n".join(self.problems))
            error.exit_code = self.exit_code
            raise error


def _frame_format(info: Mapping[str, Any]) -> FrameFormat:
    shape = info["shape"]
    channels = shape[2] if len(shape) == 3 else 1
    return FrameFormat(shape[0], shape[1], channels, float(info["rate_hz"]), tuple(info["notes"]))
