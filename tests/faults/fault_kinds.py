"""The faults: how each is made, and what the run's record must say of it.

Which deadline holds for a line when a fault strikes:

* always: ``watchdog_ms`` and 1 ms after the last sound frame that the board executed. Whatever is
  killed, stopped or hung on the host: no frames, no light.
* always: the line's ``max_on_ms`` after its rise.
* board-hang: the firmware does nothing any more, so it keeps neither of the two; the chip's
  hardware watchdog resets it, at most 1,024,000 cycles (64 ms) after it hung.
* a lost camera, a frozen picture, dead or stopped inference: ``max_pose_gap_ms`` after the last
  pose within the budget, for lines that a level holds. Control keeps it, so it adds at most the
  watchdog: had control been held up for longer, the board would have dropped the lines.
* stop-input: 50 us after the contact opened, whatever the host does.
* lost tracking (camera-black): with the first pose that does not show the keypoint.
"""

import os
import random
import resource
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Protocol

import zmq

from rtpose.bus import Requester
from rtpose.messages import Request

_EVERY_CALL: Final = ("beat", "send", "acks", "safe")


class Target(Protocol):
    """The running rig, as a fault sees it."""

    folder: Path
    pids: Mapping[str, int]
    ports: Mapping[str, int]
    notes: list[str]
    complaints: list[str]

    def disk(self) -> Path:
        """Return the small disk that the run's folder is on."""

    def drive(self, order: str) -> None:
        """Drive a pin of the board, as emulator/inputs.c describes."""


Injection = Callable[[Target, random.Random], None]


@dataclass(frozen=True)
class Outcome:
    """One way in which a run may end.

    Attributes
    ----------
    code : int
        The exit code of ``rtpose run``.
    says : str
        Pattern of what standard error and the manifest's problems must say; with exit code 0 they
        say nothing.
    logged : tuple of str
        Patterns of events, as ``"kind: detail"``, that the log must have.
    """

    code: int
    says: str = ""
    logged: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes
    ----------
    outcomes : tuple of Outcome
        The run must end in one of them.
    setup : mapping of str to str
        What the rig's camera, trigger or output is to do at its cue.
    needs : tuple of str
        ``recorder``, ``small-disk``, ``slow-disk``.
    seconds : float
        How long the rig runs after it was armed, if nothing ends it.
    """

    name: str
    inject: Injection
    outcomes: tuple[Outcome, ...]
    setup: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    seconds: float = 3.0

    def allows(self, second: "Kind") -> bool:
        """Return whether another fault may follow."""
        # Nobody can end a stopped process but its supervisor, and a flood takes its time.
        stopped = self.name.endswith("-stop") and second.name == "supervisor-kill"
        return self.name != second.name and not stopped and not self.needs


#: The run goes on, and ends when its time is up.
UNHARMED: Final = Outcome(0, "", ("stopped: outputs safe",))
#: The board heard nothing for so long that it let go of everything by itself.
TRIPPED: Final = Outcome(1, "dropped its lines and disarmed: it had no heartbeat")


# ------------------------------------------------------------------------------------- processes


def _send(target: Target, process: str, number: signal.Signals) -> None:
    try:
        os.kill(target.pids[process], number)
    except ProcessLookupError:
        target.notes.append(f"{process} was gone before {number.name}")


def _signal(process: str, number: signal.Signals) -> Injection:
    return lambda target, _draw: _send(target, process, number)


def _pause(process: str, longest_s: float) -> Injection:
    def inject(target: Target, draw: random.Random) -> None:
        _send(target, process, signal.SIGSTOP)
        threading.Event().wait(draw.uniform(0.02, longest_s))
        _send(target, process, signal.SIGCONT)

    return inject


def _stop_then_kill(target: Target, draw: random.Random) -> None:
    _send(target, "supervisor", signal.SIGSTOP)
    threading.Event().wait(draw.uniform(0.02, 1.0))
    _send(target, "supervisor", signal.SIGKILL)


def _process_kinds() -> list[Kind]:
    kinds = []
    for process in ("capture", "inference", "control", "recorder"):
        needs = ("recorder",) if process == "recorder" else ()
        killed = Outcome(1, f"{process} was killed by SIGKILL")
        hung = Outcome(1, f"{process} hung")
        paused = (UNHARMED, TRIPPED) if process == "control" else (UNHARMED,)
        kinds += [
            Kind(f"{process}-kill", _signal(process, signal.SIGKILL), (killed,), needs=needs),
            Kind(
                f"{process}-stop",
                _signal(process, signal.SIGSTOP),
                (hung,),
                needs=needs,
                seconds=6.0,
            ),
            Kind(f"{process}-pause", _pause(process, 1.5), paused, needs=needs),
            Kind(f"{process}-term", _signal(process, signal.SIGTERM), (UNHARMED,), needs=needs),
        ]
    return kinds


#: It ends without a word; its children see that it is gone, and the manifest that it never ended.
_ORPHANS: Final = Outcome(-signal.SIGKILL, "", ("stopped: outputs safe",))
_SUPERVISOR: Final = [
    Kind("supervisor-kill", _signal("supervisor", signal.SIGKILL), (_ORPHANS,)),
    Kind("supervisor-stop-kill", _stop_then_kill, (_ORPHANS,)),
    Kind("supervisor-pause", _pause("supervisor", 4.0), (UNHARMED,)),
    Kind("supervisor-term", _signal("supervisor", signal.SIGTERM), (UNHARMED,)),
]


# -------------------------------------------------------------------------------------- plug-ins


def _cue(part: str) -> Injection:
    return lambda target, _draw: (target.folder / f"{part}.cue").touch()


def _for_a_while(target: Target, draw: random.Random) -> None:
    cue = target.folder / "camera.cue"
    cue.touch()
    threading.Event().wait(draw.uniform(0.2, 1.2))
    cue.unlink()


def _camera(then: str, inject: Injection, outcome: Outcome) -> Kind:
    return Kind(f"camera-{then}", inject, (outcome,), {"camera": then}, seconds=6.0)


def _plugin_kinds() -> list[Kind]:
    camera = _cue("camera")
    return [
        _camera("raise", camera, Outcome(1, "capture: RuntimeError: the camera came apart")),
        _camera("hang", camera, Outcome(1, "capture hung")),
        _camera("freeze", camera, Outcome(1, "camera 'arena' delivered no frame for 1 s")),
        _camera(
            "repeat",
            camera,
            Outcome(1, "camera 'arena' delivered nothing but one and the same picture for 1 s"),
        ),
        _camera("black", _for_a_while, UNHARMED),
        Kind(
            "trigger-raise",
            _cue("trigger"),
            (
                Outcome(
                    0,
                    "",
                    ("trigger-failed: RuntimeError: the trigger came apart; .*board made safe",),
                ),
            ),
            {"trigger": "raise"},
        ),
        Kind(
            "trigger-hang",
            _cue("trigger"),
            (
                Outcome(1, "control hung in 'bad'"),
                Outcome(-signal.SIGKILL, "control hung, and its supervisor is gone"),
            ),
            {"trigger": "hang"},
            seconds=6.0,
        ),
        *(
            Kind(
                f"output-raise-{call}",
                _cue("output"),
                (
                    Outcome(1, "control: RuntimeError: the driver came apart"),
                    # Where the supervisor is killed as well, it is left to say so itself.
                    Outcome(-signal.SIGKILL, "RuntimeError: the driver came apart"),
                ),
                {"output": f"raise {call}"},
            )
            for call in _EVERY_CALL
        ),
        *(
            Kind(
                f"output-hang-{call}",
                _cue("output"),
                (
                    Outcome(
                        1,
                        "control (hung|did not end when asked, and was killed) in 'output bad'",
                    ),
                    Outcome(-signal.SIGKILL, "control hung, and its supervisor is gone"),
                ),
                {"output": f"hang {call}"},
                seconds=6.0,
            )
            for call in _EVERY_CALL
        ),
    ]


# ----------------------------------------------------------------------------------------- board

_GONE: Final = Outcome(
    1, "control: .*is gone", ("output-failed: .*is gone", "stopped: NOT CONFIRMED low: board")
)


def _was_reset(why: str) -> Outcome:
    return Outcome(1, rf"control: .*was reset \({why}", (rf"output-failed: .*was reset \({why}",))


_BOARD: Final = [
    Kind("board-unplug", _signal("board", signal.SIGUSR2), (_GONE,)),
    Kind("board-hang", _signal("board", signal.SIGUSR1), (_was_reset("its firmware hung"),)),
    Kind(
        "stop-input",
        lambda target, _draw: target.drive("D2 z"),
        (Outcome(0, "", ("estop: input stop of output board", "stopped: outputs safe")),),
    ),
    Kind("board-reset", _signal("board", signal.SIGALRM), (_was_reset("reset button"),)),
]


# --------------------------------------------------------------------------------------- sockets


def _garbage(target: Target, draw: random.Random) -> None:
    for port in target.ports.values():
        for _ in range(draw.randint(5, 40)):
            with socket.create_connection(("127.0.0.1", port)) as raw:
                raw.sendall(draw.randbytes(draw.randint(1, 8192)))


def _half_open(target: Target, draw: random.Random) -> None:
    """Connect many times and say nothing, or the first bytes of a greeting."""
    held = []
    for port in target.ports.values():
        for _ in range(draw.randint(20, 100)):
            raw = socket.create_connection(("127.0.0.1", port))
            raw.sendall(b"\xff\x00\x00"[: draw.randint(0, 3)])
            held.append(raw)
    threading.Event().wait(1.0)
    for raw in held:
        raw.close()


_REQUESTS: Final = (
    b'{"v":1,"type":"request","action":"status"}',
    b'{"v":1,"type":"request","action":"explode"}',
    b'{"v":0,"type":"request","action":"disarm"}',
    b"\x80",
    b"",
)


def _flood(target: Target, draw: random.Random) -> None:
    """Send requests as fast as they are taken, reading no answer, and subscriptions likewise."""
    context = zmq.Context()
    try:
        for name, port in list(target.ports.items()) * 4:
            peer = context.socket(zmq.DEALER if name == "command_port" else zmq.XSUB)
            peer.setsockopt(zmq.LINGER, 200)
            peer.setsockopt(zmq.SNDTIMEO, 50)
            peer.connect(f"tcp://127.0.0.1:{port}")
            _push(peer, name == "command_port", draw)
            peer.close()
    finally:
        context.term()


def _push(peer: "zmq.Socket[bytes]", requests: bool, draw: random.Random) -> None:
    try:
        for _ in range(5000):
            if requests:
                peer.send_multipart([b"", draw.choice(_REQUESTS)])
            else:
                peer.send(b"\x01" + draw.randbytes(8))
    except zmq.Again:
        return  # the rig takes no more from this peer, which is its right


def _deaf(target: Target, _draw: random.Random) -> None:
    """Subscribe to everything and read nothing."""
    context = zmq.Context()
    peers = []
    for port in target.ports.values():
        peer = context.socket(zmq.SUB)
        peer.setsockopt(zmq.RCVHWM, 1)
        peer.setsockopt(zmq.RCVBUF, 1024)
        peer.setsockopt(zmq.LINGER, 0)
        peer.subscribe(b"")
        peer.connect(f"tcp://127.0.0.1:{port}")
        peers.append(peer)
    threading.Event().wait(1.0)
    for peer in peers:
        peer.close()
    context.term()


def _ask(target: Target, action: Literal["estop", "disarm"]) -> None:
    with Requester(f"tcp://127.0.0.1:{target.ports['command_port']}") as requester:
        reply = requester.ask(Request(action=action), timeout_s=5.0)
    if not reply.ok or reply.state == "armed":
        target.complaints.append(f"{action}: the rig answered {reply}")


def _stop_in_a_flood(target: Target, draw: random.Random) -> None:
    flood = threading.Thread(target=_flood, args=(target, draw))
    flood.start()
    try:
        _ask(target, "estop")
    finally:
        flood.join()


_STOPPED: Final = Outcome(0, "", ("estop: asked for", "stopped: outputs safe"))
_DISARMED: Final = Outcome(0, "", ("disarmed: asked for", "stopped: outputs safe"))
_REQUESTED: Final = [
    Kind("client-estop", lambda target, _draw: _ask(target, "estop"), (_STOPPED,)),
    Kind("client-disarm", lambda target, _draw: _ask(target, "disarm"), (_DISARMED,)),
    Kind("flood-estop", _stop_in_a_flood, (_STOPPED,)),
]
_SOCKETS: Final = [
    Kind("flood-garbage", _garbage, (UNHARMED,)),
    Kind("flood-half-open", _half_open, (UNHARMED,)),
    Kind("flood-requests", _flood, (UNHARMED,)),
    Kind("flood-deaf", _deaf, (UNHARMED,)),
]


# ------------------------------------------------------------------------------------------ disk


def _fill(target: Target, _draw: random.Random) -> None:
    with (target.disk() / "filler").open("wb", buffering=0) as filler:
        try:
            while filler.write(bytes(1 << 16)):
                pass
        except OSError:
            return  # it is full


def _limit_files(target: Target, _draw: random.Random) -> None:
    """Let control's files grow no more: a full disk, as a user without rights can make one."""
    (log,) = target.folder.glob("**/events.jsonl")
    size = log.stat().st_size
    resource.prlimit(target.pids["control"], resource.RLIMIT_FSIZE, (size, size))


def _freeze(target: Target, draw: random.Random) -> None:
    """Let the disk take nothing for a while; a process of its own thaws it, whatever ends first."""
    disk, seconds = str(target.disk()), draw.uniform(0.1, 1.5)
    command = f'fsfreeze -f "$1" && sleep {seconds:.3f} ; fsfreeze -u "$1"'
    subprocess.run(["sh", "-c", command, "sh", disk], check=True)


_DISK: Final = [
    Kind("disk-slow", _freeze, (UNHARMED,), needs=("slow-disk",)),
    Kind(
        "disk-full",
        _fill,
        (Outcome(1, "events.jsonl: .* records lost: cannot write .*No space left"),),
        needs=("small-disk",),
    ),
    Kind(
        "disk-limit",
        _limit_files,
        (Outcome(1, "events.jsonl: .* records lost: cannot write .*File too large"),),
    ),
]

KINDS: Final = {
    kind.name: kind
    for kind in [
        *_process_kinds(),
        *_SUPERVISOR,
        *_plugin_kinds(),
        *_BOARD,
        *_SOCKETS,
        *_REQUESTED,
        *_DISK,
    ]
}
#: What may follow another fault: each of these ends a run at once.
SECOND: Final = (
    "capture-kill",
    "inference-kill",
    "control-kill",
    "control-stop",
    "supervisor-kill",
    "board-unplug",
    "board-reset",
)
