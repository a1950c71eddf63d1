"""An output device and its lines as control sees them: limits, holders, commands, beats."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final

from rtpose.interfaces import LineConfig, Output, OutputInfo
from rtpose.messages import Ack, Command, InputEvent, Withheld
from rtpose.rig import OutputEntry

_BEATS_PER_WATCHDOG: Final = 4
#: How often a device without a watchdog is told that the host lives.
_DEFAULT_BEAT_MS: Final = 250.0
#: A level that could be held for less is not begun.
_SHORTEST_LEVEL_NS: Final = 1_000_000
#: No answer takes longer; until it is here, nobody knows when a line rose.
_ANSWER_NS: Final = 100_000_000


class Dose:
    """How long a line was high, and how long it may still be.

    What ended within the window counts whole, so that in no window of that length the line is high
    for longer than `limit_ns`.

    Parameters
    ----------
    limit_ns, window_ns : int or None
        The longest on-time in all, within any so long time; without a window since `forget`.
    """

    def __init__(self, limit_ns: int | None, window_ns: int | None) -> None:
        self.limit_ns = limit_ns
        self.window_ns = window_ns
        self._used_ns = 0
        self._past: deque[tuple[int, int]] = deque()  # when it fell, how long it had been high

    def add(self, fall_ns: int, on_time_ns: int) -> None:
        """Take note that the line fell, after so long a time."""
        if self.limit_ns is not None:
            self._past.append((fall_ns, on_time_ns))
            self._used_ns += on_time_ns

    def correct(self, late_ns: int) -> None:
        """Take note that the line fell so much later than the last `add` said."""
        if self._past:
            fall_ns, on_time_ns = self._past[-1]
            self._past[-1] = fall_ns + late_ns, on_time_ns + late_ns
            self._used_ns += late_ns

    def room_ns(self, at_ns: int) -> int | None:
        """Return how much longer the line may be high, from a time on; None without a limit."""
        if self.limit_ns is None:
            return None
        while (
            self.window_ns is not None and self._past and self._past[0][0] < at_ns - self.window_ns
        ):
            self._used_ns -= self._past.popleft()[1]
        return max(0, self.limit_ns - self._used_ns)

    def forget(self) -> None:
        """Begin to count anew, if there is no window: the rig was armed."""
        if self.window_ns is None:
            self._past.clear()
            self._used_ns = 0


@dataclass
class Line:
    """What control knows of one output line.

    Attributes
    ----------
    high_until_ns : int
        Latest end of the current pulse, train or longest allowed on-time; 0 when the line is low.
    command : Command or None
        What made it rise last.
    strength : float
        The level that it has, where it takes levels.
    rise_ns : int
        When that was handed over.
    free_from_ns : int
        When its refractory time is over.
    off_id : int or None
        Number of the command that switched it off last.
    held : bool
        Held by a level decision rather than by pulses that the device times.
    used_up : str
        The limit that a level reached, in words: it must be asked to go low before it may go high
        again. Empty otherwise.
    holder : str
        Name of the trigger that last switched it on.
    withheld : str or None
        Why nothing was sent: the line is high only in the record.
    """

    output: str
    name: str
    limits: LineConfig
    high_until_ns: int = 0
    command: Command | None = None
    strength: float = 0.0
    rise_ns: int = 0
    free_from_ns: int = 0
    off_id: int | None = None
    held: bool = False
    used_up: str = ""
    holder: str = ""
    withheld: Withheld | None = None
    dose: Dose = field(init=False)

    def __post_init__(self) -> None:
        """Make the account of its dose."""
        dose_ms, window_s = self.limits.dose_ms, self.limits.dose_window_s
        self.dose = Dose(
            None if dose_ms is None else round(dose_ms * 1e6),
            None if window_s is None else round(window_s * 1e9),
        )

    def settle(self, at_ns: int) -> None:
        """Take note of a pulse that the device has ended by itself, at its end: whoever looks when.

        Everything that asks whether the line is high settles it first, so that the answer does not
        depend on when the loop happened to look before.
        """
        if self.high_until_ns and not self.held and at_ns >= self.high_until_ns:
            self.note_low(self.high_until_ns)

    def refusal(self, at_ns: int, on_time_ns: int) -> str | None:
        """Say why the line may not go high for so long at a time, or return None if it may."""
        self.settle(at_ns)
        if self.high_until_ns:
            return f"{self.output}.{self.name} is high already ({self.holder})"
        if self.used_up:
            return f"{self.used_up} is used up until it is let go"
        if at_ns < self.free_from_ns:
            return f"within refractory_ms = {self.limits.refractory_ms:g}"
        room_ns = self.dose.room_ns(at_ns)
        if room_ns is not None and on_time_ns > room_ns:
            within = self.limits.dose_window_s
            span = "since arming" if within is None else f"within dose_window_s = {within:g}"
            return (
                f"dose_ms = {self.limits.dose_ms:g} {span} has {room_ns / 1e6:g} ms left, "
                f"{on_time_ns / 1e6:g} are needed"
            )
        return None

    @property
    def longest_us(self) -> int:
        """Its longest on-time, in microseconds."""
        return round(self.limits.max_on_ms * 1000)

    def is_high_by(self, holder: str) -> bool:
        """Return whether it is high because a trigger wanted that."""
        return self.high_until_ns > 0 and self.holder == holder

    def time_left_us(self, at_ns: int) -> int:
        """Return for how long it may stay at a level, from a time on, in microseconds."""
        return 0 if self.command is None else self.command.width_us - (at_ns - self.rise_ns) // 1000

    def level_refusal(self, at_ns: int) -> str | None:
        """Say why no level may begin at a time, or return None if it may."""
        return self.refusal(at_ns, _SHORTEST_LEVEL_NS)

    def longest_level_us(self, at_ns: int) -> int:
        """Return for how long a level may hold it from a time on, in microseconds."""
        room_ns = self.dose.room_ns(at_ns)
        return self.longest_us if room_ns is None else min(self.longest_us, room_ns // 1000)

    def note_high(
        self, command: Command, sent_ns: int, holder: str, *, held: bool, withheld: Withheld | None
    ) -> None:
        """Take note that a command switched it on, or would have."""
        answer_ns = 0 if withheld else _ANSWER_NS
        self.high_until_ns = sent_ns + command.length_us * 1000 + answer_ns
        self.rise_ns = sent_ns
        self.command, self.strength = command, command.level
        self.held, self.holder, self.withheld = held, holder, withheld

    def note_answer(self, ack: Ack, at_ns: int) -> None:
        """Learn from an answer when it really goes low, or went low, at the latest."""
        self.settle(at_ns)
        if ack.command_id == self.off_id:
            late_ns = max(0, ack.ack_ns - ack.command_ns)
            self.free_from_ns += late_ns
            self.dose.correct(late_ns)
        if self.command is None or not self.high_until_ns:
            return
        if ack.command_id != self.command.command_id:
            return
        if ack.ok:
            # It rose before the answer was here.
            self.high_until_ns = ack.ack_ns + self.command.length_us * 1000
        else:
            self.rise_ns = ack.ack_ns  # it never rose
            self.note_low(ack.ack_ns)

    def note_low(self, at_ns: int) -> None:
        """Take note that the line went low, which starts its refractory time."""
        if self.high_until_ns and self.command is not None:
            spent_ns = min(at_ns - self.rise_ns, self.command.on_time_us * 1000)
            self.dose.add(at_ns, max(0, spent_ns))
        self.high_until_ns = 0
        self.held = False
        self.withheld = None
        self.free_from_ns = at_ns + round(self.limits.refractory_ms * 1e6)


class _AtWork:
    """Says while a driver is at work that it is, for the case that it never comes back."""

    def __init__(self, doing: Callable[[bytes], None], output: str) -> None:
        self._doing = doing
        self._words = f"output {output}".encode()

    def __enter__(self) -> None:
        self._doing(self._words)

    def __exit__(self, *_error: object) -> None:
        self._doing(b"")


class Actuator:
    """One output of the rig at work.

    Parameters
    ----------
    entry : OutputEntry
        The output in the rig file.
    output : Output, optional
        What commands go to, instead of the one that the rig file names: for replays.
    doing : callable
        Gets what is at work, and nothing when nothing is.

    Attributes
    ----------
    armed : bool
        Whether commands may reach its lines.
    lines : mapping of str to Line
    all_lines : list of Line
        These, and their shadows.
    """

    def __init__(
        self,
        entry: OutputEntry,
        output: Output | None = None,
        doing: Callable[[bytes], None] = lambda _: None,
    ) -> None:
        self.name = entry.name
        self._at_work = _AtWork(doing, entry.name)
        self.armed = False
        self.info = OutputInfo("not opened", None)
        self.lines: Mapping[str, Line] = {
            line: Line(entry.name, line, limits) for line, limits in entry.settings.lines.items()
        }
        self.all_lines = list(self.lines.values())
        self._output = entry.plugin(entry.settings) if output is None else output
        self._beat_interval_ns = 0
        self._next_beat_ns = 0

    def shadow(self, name: str) -> Line:
        """Return a line with the limits of another, for what never reaches that one."""
        shadow = Line(self.name, name, self.lines[name].limits)
        self.all_lines.append(shadow)
        return shadow

    def open(self) -> None:
        """Open the device; its lines stay low."""
        with self._at_work:
            self.info = self._output.open()
        watchdog_ms = self.info.watchdog_ms
        beat_ms = _DEFAULT_BEAT_MS if watchdog_ms is None else watchdog_ms / _BEATS_PER_WATCHDOG
        self._beat_interval_ns = round(beat_ms * 1e6)

    def arm(self, now: int) -> None:
        """Let commands through."""
        with self._at_work:
            self._output.arm()
        if not self.armed:
            for line in self.all_lines:
                line.settle(now)
                line.dose.forget()
        self.armed = True

    def make_safe(self, now: int) -> None:
        """Drop every line and disarm. Never raises."""
        with self._at_work:
            self._output.safe()
        self.armed = False
        for line in self.all_lines:
            line.settle(now)
            if line.high_until_ns:
                line.note_low(now)

    @property
    def is_safe(self) -> bool:
        """Whether the device confirmed that all its lines are low."""
        return self._output.is_safe

    def switch_on(
        self,
        line: Line,
        command: Command,
        holder: str,
        now: int,
        *,
        held: bool,
        withheld: Withheld | None,
    ) -> int | None:
        """Send what switches a line on, unless it is withheld; return when it was handed over."""
        sent_ns = self._send(command) if withheld is None else None
        at_ns = now if sent_ns is None else sent_ns
        line.note_high(command, at_ns, holder, held=held, withheld=withheld)
        return sent_ns

    def change_level(self, line: Line, command: Command) -> int | None:
        """Give a line that is held high another level, until the end that it has already."""
        line.strength = command.level
        return self._send(command) if line.withheld is None else None

    def switch_off(self, line: Line, command: Command, now: int) -> int | None:
        """Switch a line off; return when that was handed over, None if nothing was ever sent."""
        sent_ns = self._send(command) if line.withheld is None else None
        line.note_low(now if sent_ns is None else sent_ns)
        line.off_id = command.command_id
        return sent_ns

    def _send(self, command: Command) -> int:
        with self._at_work:
            return self._output.send(command)

    def acks(self) -> Sequence[Ack]:
        """Return the answers that came."""
        with self._at_work:
            return self._output.acks()

    def inputs(self) -> Sequence[InputEvent]:
        """Return what happened at the device's inputs."""
        with self._at_work:
            return self._output.inputs()

    def facts(self) -> Mapping[str, Any]:
        """Return what the device has to say of itself that changes."""
        return self._output.facts()

    def beat_if_due(self, now: int) -> None:
        """Tell the device that the host lives, several times per watchdog period."""
        if now >= self._next_beat_ns:
            self._next_beat_ns = now + self._beat_interval_ns
            with self._at_work:
                self._output.beat()

    def close(self) -> None:
        """Make safe and let go of the device."""
        with self._at_work:
            self._output.close()


def make_all_safe(actuators: Iterable[Actuator], now: int) -> None:
    """Drop every line of every output; a driver that raises, against its contract, comes last."""
    with ExitStack() as stack:
        for actuator in actuators:
            stack.callback(actuator.make_safe, now)
