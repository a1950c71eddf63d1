"""What every process of a rig shares: its link to the supervisor, heartbeats, real-time set-up."""

import gc
import multiprocessing
import multiprocessing.sharedctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Literal

from rtpose.bus import Outbox
from rtpose.clock import now_ns
from rtpose.errors import RtposeError
from rtpose.messages import Heartbeat

#: Every process is spawned, so that the same code runs on Linux, Windows and macOS.
SPAWN = multiprocessing.get_context("spawn")

#: Signals that ask a rig to end, where the system has them.
GROUP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")

_BEAT_INTERVAL_NS = 100_000_000
_LINK_INTERVAL_NS = 10_000_000
_ACTIVITY_BYTES = 128
#: How long a process may take to end once its supervisor is gone: as long as that would wait.
_ORPHAN_S = 6.0

Order = Literal["start", "stop", "estop"]


@dataclass
class Link:
    """The child's side of its tie to the supervisor; travels to the child when it is spawned.

    Attributes
    ----------
    inbox : str
        Endpoint that takes heartbeats.
    orders : Connection
        Brings "start", "stop" and "estop"; its end of file means that the supervisor is gone.
    activity : shared array of char
        What the process is doing at the moment, for the supervisor to read when it hangs.
    """

    process: str
    run: str
    inbox: str
    orders: "Connection[Any, Any]"
    activity: Any


def new_activity() -> Any:
    """Return shared memory for `Link.activity`."""
    return multiprocessing.sharedctypes.RawArray("c", _ACTIVITY_BYTES)


class Loop:
    """The running process: heartbeats out, orders in, counters.

    Attributes
    ----------
    counters : dict of str to int
        Published with every heartbeat.
    info : dict
        What does not change; published with every heartbeat too.
    estop_ordered : bool
        The supervisor passed on an emergency stop that nobody has seen to yet.
    """

    def __init__(self, link: Link) -> None:
        self.process = link.process
        self.run = link.run
        self.counters: dict[str, int] = {}
        self.info: dict[str, Any] = {}
        self.stop_requested = False
        self.estop_ordered = False
        self._orders = link.orders
        self._activity = link.activity
        self._outbox = Outbox(link.inbox)
        self._ready = False
        self._started = False
        self._stopping = False
        self._next_beat_ns = 0
        self._next_link_ns = 0

    def ready(self, info: Mapping[str, Any]) -> None:
        """Tell the supervisor that the start-up is done."""
        self.info.update(info)
        self._ready = True
        self._beat()

    def wait_for_start(self) -> bool:
        """Wait until the whole rig is ready; return False if it is to stop instead."""
        while not self._started and self.turn():
            self._orders.poll(_LINK_INTERVAL_NS / 1e9)
        return self._started and not self._stopping

    def turn(self) -> bool:
        """Do what is due once per loop; return False when the process is to end."""
        now = now_ns()
        if now >= self._next_link_ns:
            self._next_link_ns = now + _LINK_INTERVAL_NS
            self._read_orders()
        if now >= self._next_beat_ns:
            self._beat()
        return not self._stopping

    def doing(self, what: bytes) -> None:
        """Leave a word on what is being done, for the case that it never ends."""
        self._activity.value = what[: _ACTIVITY_BYTES - 1]

    def _read_orders(self) -> None:
        try:
            while self._orders.poll():
                order: Order = self._orders.recv()
                self._started = self._started or order == "start"
                self._stopping = self._stopping or order == "stop"
                self.estop_ordered = self.estop_ordered or order == "estop"
        except (EOFError, OSError):
            self._stopping = True  # the supervisor is gone

    def _beat(self, *, failure: str = "", failure_code: int = 0, finished: bool = False) -> None:
        now = now_ns()
        self._next_beat_ns = now + _BEAT_INTERVAL_NS
        self._outbox.send(
            Heartbeat(
                process=self.process,
                pid=os.getpid(),
                sent_ns=now,
                ready=self._ready,
                finished=finished,
                stop_requested=self.stop_requested,
                failure=failure[:4000],
                failure_code=failure_code,
                counters=self.counters,
                info=self.info,
            )
        )

    def finish(self, failure: str = "", failure_code: int = 0) -> None:
        """Send the last heartbeat and let go of the link."""
        self._beat(failure=failure, failure_code=failure_code, finished=not failure)
        self._outbox.close()
        self._orders.close()


@dataclass(frozen=True)
class RealTime:
    """What was asked of the system for a hot loop, and what it gave.

    Attributes
    ----------
    notes : tuple of str
        In plain words, what it did not give.
    """

    notes: tuple[str, ...] = field(default=())


def go_realtime(priority: int) -> RealTime:
    """Freeze garbage collection and ask for a real-time priority.

    Parameters
    ----------
    priority : int
        SCHED_FIFO priority, 1 to 99, where the system has it.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    if not hasattr(os, "sched_setscheduler"):
        return RealTime(("this system has no SCHED_FIFO: running at normal priority",))
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except PermissionError:
        return RealTime(
            (
                "no right to real-time priority: running at normal priority, with longer tails "
                "(allow it with: ulimit -r 99, or CAP_SYS_NICE)",
            )
        )
    return RealTime()


def run_process(body: Callable[..., None], link: Link, *arguments: Any) -> None:
    """Run `body(loop, *arguments)` in a spawned process, and report how it ended."""
    loop = Loop(link)
    # Ctrl-C, a closed terminal and a stopped service reach every process of the group at once. Only
    # the supervisor decides what they mean: otherwise control would die before it made safe.
    for name in GROUP_SIGNALS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    args = (link.process,)
    threading.Thread(target=_end_with_supervisor, args=args, name="orphan", daemon=True).start()
    try:
        body(loop, *arguments)
    except RtposeError as error:
        loop.finish(in_words(error), error.exit_code)
        raise SystemExit(error.exit_code) from None
    except BaseException as error:
        loop.finish(in_words(error), 1)
        raise
    loop.finish()


def _end_with_supervisor(process: str) -> None:
    """End this process some time after its supervisor, should it hang and not see to that itself.

    While it lives, the supervisor does this. Nothing is made safe here, because nothing that hangs
    can be trusted to: the devices drop their lines when they hear nothing.
    """
    supervisor = multiprocessing.parent_process()
    if supervisor is not None:
        supervisor.join()
        threading.Event().wait(_ORPHAN_S)
        sys.stderr.write(f"rtpose: {process} hung, and its supervisor is gone\n")
        sys.stderr.flush()
        os._exit(1)


def in_words(error: BaseException) -> str:
    """Return what an error says, after those that were on their way when it was raised.

    Clearing up after one error may bring about another, which must not hide the first: a board that
    is gone, and then a disk that is full.
    """
    words: list[str] = []
    earlier: BaseException | None = error
    while earlier is not None:
        known = isinstance(earlier, RtposeError)
        words.insert(0, str(earlier) if known else f"{type(earlier).__name__}: {earlier}")
        # What names its cause has said it in its own words.
        named = earlier.__suppress_context__
        earlier = None if named else earlier.__context__
    return "\n".join(words)
