"""What a trigger sent in another run, to be sent again at the same times."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rtpose.errors import ConfigError, InputError, Problem
from rtpose.interfaces import LineConfig
from rtpose.messages import Command, TriggerEvent
from rtpose.rig import OutputEntry, Rig
from rtpose.run_log import read_log

#: Of a session: every output is made safe.
_ENDS: Final = frozenset({"disarmed", "estop", "stopped", "output-failed"})


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

    What was still high at the end fell then, and falls then here.

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
    armed_ns = next((event.decide_ns for event in events if event.kind == "armed"), None)
    if armed_ns is None:
        raise InputError(f"{path}: that run was never armed")
    acts = list(_acts(events, trigger, armed_ns))
    if not acts:
        names = sorted({e.trigger for e in events if e.trigger and e.command is not None})
        known = f"; {', '.join(names)} did" if names else ""
        raise InputError(f"{path}: trigger {trigger!r} sent nothing in that run{known}")
    return acts


def _acts(events: Sequence[TriggerEvent], trigger: str, armed_ns: int) -> Iterator[YokedAct]:
    last: Command | None = None
    for event in events:
        if event.decide_ns < armed_ns:
            continue
        if event.kind in _ENDS or (event.kind == "trigger-failed" and event.trigger == trigger):
            # Made safe: that its line fell is no command there.
            if last is not None and last.action != "off":
                last = _off(last)
                yield YokedAct(event.decide_ns - armed_ns, last, changes=False)
            if event.kind in _ENDS:
                return
        elif event.command is not None and event.command_ns is not None:
            command = event.command
            here = last is not None and (last.output, last.line) == (command.output, command.line)
            # Control lets go of a line on its own clock without naming the trigger.
            if event.trigger == trigger or (here and command.action == "off"):
                last = command
                yield YokedAct(event.command_ns - armed_ns, last, event.kind == "level-set")


def _off(command: Command) -> Command:
    return Command(
        command_id=command.command_id, output=command.output, line=command.line, action="off"
    )


def read_all_yoked_acts(rig: Rig) -> dict[str, list[YokedAct]]:
    """Return what each yoked trigger of a rig is to send again, by its name.

    Raises
    ------
    ConfigError
        With one problem for every trigger whose log does not have that, or has what its line could
        never do.
    """
    found, problems = {}, []
    for name, entry in rig.triggers.items():
        common = entry.common
        if common.yoked_to is None:
            continue
        where = f"{rig.source}: triggers.{name}.yoked_to"
        output, line = entry.target
        target = rig.outputs[output]
        try:
            acts = read_yoked_acts(Path(common.yoked_to), common.yoked_trigger or name)
        except InputError as error:
            problems.append(Problem(where, str(error)))
            continue
        misfit = _misfit(acts, target, target.settings.lines[line])
        if misfit is not None:
            problems.append(Problem(where, f"{common.yoked_to} has {misfit[0]}", misfit[1]))
        found[name] = acts
    if problems:
        raise ConfigError(problems)
    return found


def _misfit(
    acts: Sequence[YokedAct], output: OutputEntry, limits: LineConfig
) -> tuple[str, str] | None:
    """Say what a line could never repeat and what to do, or return None.

    A level that lasted for longer than the line may be high is no misfit: it ends where it must.
    """
    longest_us = round(limits.max_on_ms * 1000)
    for command in (act.command for act in acts):
        width_ms = command.width_us / 1000
        if command.action in ("pulse", "train") and command.width_us > longest_us:
            return f"a pulse of {width_ms:g} ms", f"the line's max_on_ms is {limits.max_on_ms:g}"
        if command.level < 1 and not limits.levels:
            return f"a level of {command.level:g}", "set the line's levels = true, where it can"
        misfit = "" if command.action == "off" else output.plugin.misfit(command)
        if misfit:
            return f"a {command.action}, but {output.common.type} outputs {misfit}", "take another"
    return None


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
