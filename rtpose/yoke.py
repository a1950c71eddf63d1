"""What a trigger sent in another run, to be sent again at the same times."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rtpose.errors import InputError
from rtpose.interfaces import LineConfig
from rtpose.messages import Command, TriggerEvent
from rtpose.run_log import read_log


@dataclass(frozen=True, slots=True)
class YokedAct:
    """One command of the other run.

    Attributes
    ----------
    offset_ns : int
        When it was handed over, counted from arming.
    command : Command
        As it was sent; only its action and its numbers are of use here.
    changes : bool
        It gave another level to a line that was high; it raises none.
    """

    offset_ns: int
    command: Command
    changes: bool


def read_yoked_acts(path: Path, trigger: str) -> list[YokedAct]:
    """Return what a trigger sent in the first session of a run, from arming to disarming.

    Parameters
    ----------
    path : Path
        ``events.jsonl`` of that run.
    trigger : str
        Its name there.

    Raises
    ------
    InputError
        If that is no log of a run, it was never armed, or the trigger sent nothing.
    """
    try:
        events = [message for message in read_log(path) if isinstance(message, TriggerEvent)]
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    armed_ns: int | None = None
    acts: list[YokedAct] = []
    line: tuple[str, str] | None = None
    for event in events:
        if event.kind == "armed":
            armed_ns = event.decide_ns
        elif armed_ns is None:
            continue
        elif event.kind in ("disarmed", "estop", "stopped"):
            break
        elif event.command is not None and event.command_ns is not None:
            target = (event.command.output, event.command.line)
            # Control lets go of a line on its own clock without naming the trigger.
            if event.trigger == trigger or (target == line and event.command.action == "off"):
                line = target
                offset_ns = event.command_ns - armed_ns
                acts.append(YokedAct(offset_ns, event.command, event.kind == "level-set"))
    if armed_ns is None:
        raise InputError(f"{path}: that run was never armed")
    if not acts:
        names = sorted({e.trigger for e in events if e.trigger and e.command is not None})
        known = f"; {', '.join(names)} did" if names else ""
        raise InputError(f"{path}: trigger {trigger!r} sent nothing in that run{known}")
    return acts


def misfit(acts: Sequence[YokedAct], limits: LineConfig, *, takes_trains: bool) -> str:
    """Say what a line could never repeat and why, or return an empty string.

    A level that lasted for longer than the line may be high is no misfit: it ends where it must.
    """
    longest_us = round(limits.max_on_ms * 1000)
    for command in (act.command for act in acts):
        if command.action == "train" and not takes_trains:
            return "a train, which is beyond the output"
        if command.action in ("pulse", "train") and command.width_us > longest_us:
            width = f"a pulse of {command.width_us / 1000:g} ms"
            return f"{width}, which is above max_on_ms = {limits.max_on_ms:g}"
        if command.level < 1 and not limits.levels:
            return f"a level of {command.level:g}, which needs levels = true"
    return ""


class YokedActs:
    """Says which commands of the other run are due.

    Parameters
    ----------
    acts : mapping of str to list of YokedAct
        For every yoked trigger, in the order of time.
    """

    def __init__(self, acts: Mapping[str, Sequence[YokedAct]]) -> None:
        self._acts = acts
        self._start_ns = 0
        self._left: dict[str, deque[YokedAct]] = {}

    def start(self, now: int) -> None:
        """Begin from the first: the rig was armed."""
        self._start_ns = now
        self._left = {name: deque(acts) for name, acts in self._acts.items()}

    def stop(self) -> None:
        """Let nothing more become due: the rig was disarmed."""
        self._left = {}

    def due(self, now: int) -> Iterator[tuple[str, YokedAct]]:
        """Take out, and yield, what is due, with the trigger's name."""
        for name, acts in self._left.items():
            while acts and now >= self._start_ns + acts[0].offset_ns:
                yield name, acts.popleft()

    @property
    def next_ns(self) -> int | None:
        """When something is due next."""
        times = [self._start_ns + acts[0].offset_ns for acts in self._left.values() if acts]
        return min(times, default=None)
