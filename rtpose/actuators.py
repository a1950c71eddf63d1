"""An output device and its lines as control sees them: limits, holders, commands, beats."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from rtpose.clock import now_ns
from rtpose.interfaces import LineConfig, OutputInfo
from rtpose.messages import Ack, Command
from rtpose.rig import OutputEntry

_BEATS_PER_WATCHDOG: Final = 4
#: How often a device without a watchdog is told that the host lives.
_DEFAULT_BEAT_MS: Final = 250.0
#: No answer takes longer; until it is here, nobody knows when a line rose.
_ANSWER_NS: Final = 100_000_000


@dataclass
class Line:
    """What control knows of one output line.

    Attributes
    ----------
    high_until_ns : int
        Latest end of the current pulse or of the longest allowed on-time; 0 when the line is low.
    command_id, width_us : int
        The command that switched it on last, and its width.
    level : bool
        Held by a level decision rather than by a pulse that the board times.
    used_up : bool
        A level reached the longest on-time: it must be asked to go low before it may go high again.
    holder : str
        Name of the trigger that last switched it on.
    """

    output: str
    name: str
    limits: LineConfig
    high_until_ns: int = 0
    command_id: int = -1
    width_us: int = 0
    free_from_ns: int = 0
    level: bool = False
    used_up: bool = False
    holder: str = ""

    @property
    def max_on_us(self) -> int:
        """Longest on-time, in microseconds."""
        return round(self.limits.max_on_ms * 1000)

    def refusal(self, at_ns: int) -> str | None:
        """Say why the line may not go high at a time, or return None if it may."""
        if self.high_until_ns:
            return f"{self.output}.{self.name} is high already ({self.holder})"
        if self.used_up:
            return f"max_on_ms = {self.limits.max_on_ms:g} is used up until it is let go"
        if at_ns < self.free_from_ns:
            return f"within refractory_ms = {self.limits.refractory_ms:g}"
        return None

    def note_low(self, at_ns: int) -> None:
        """Take note that the line went low, which starts its refractory time."""
        self.high_until_ns = 0
        self.level = False
        self.free_from_ns = at_ns + round(self.limits.refractory_ms * 1e6)


class Actuator:
    """One output of the rig at work.

    Attributes
    ----------
    armed : bool
        Whether commands may reach its lines.
    lines : mapping of str to Line
    """

    def __init__(self, entry: OutputEntry) -> None:
        self.name = entry.name
        self.armed = False
        self.info = OutputInfo("not opened", None)
        self.lines: Mapping[str, Line] = {
            line: Line(entry.name, line, limits) for line, limits in entry.settings.lines.items()
        }
        self._output = entry.plugin(entry.settings)
        self._beat_interval_ns = 0
        self._next_beat_ns = 0

    def open(self) -> None:
        """Open the device; its lines stay low."""
        self.info = self._output.open()
        watchdog_ms = self.info.watchdog_ms
        beat_ms = _DEFAULT_BEAT_MS if watchdog_ms is None else watchdog_ms / _BEATS_PER_WATCHDOG
        self._beat_interval_ns = round(beat_ms * 1e6)

    def arm(self) -> None:
        """Let commands through."""
        self._output.arm()
        self.armed = True

    def make_safe(self) -> None:
        """Drop every line and disarm. Never raises."""
        self._output.safe()
        self.armed = False
        now = now_ns()
        for line in self.lines.values():
            if line.high_until_ns:
                line.note_low(now)

    @property
    def is_safe(self) -> bool:
        """Whether the device confirmed that all its lines are low."""
        return self._output.is_safe

    def switch_on(
        self, command_id: int, line: Line, width_us: int, holder: str, *, level: bool
    ) -> tuple[Command, int]:
        """Send a pulse, or a bounded level; return the command and when it was handed over."""
        sent = self._send(command_id, line, "on" if level else "pulse", width_us)
        line.high_until_ns = sent[1] + width_us * 1000 + _ANSWER_NS
        line.command_id, line.width_us = command_id, width_us
        line.level, line.holder = level, holder
        return sent

    def switch_off(self, command_id: int, line: Line) -> tuple[Command, int]:
        """Switch a line off; return the command and when it was handed over."""
        sent = self._send(command_id, line, "off", 0)
        line.note_low(sent[1])
        return sent

    def _send(
        self, command_id: int, line: Line, action: Literal["on", "off", "pulse"], width_us: int
    ) -> tuple[Command, int]:
        command = Command(
            command_id=command_id,
            output=self.name,
            line=line.name,
            action=action,
            width_us=width_us,
        )
        return command, self._output.send(command)

    def acks(self) -> Sequence[Ack]:
        """Return the answers that came, having learnt from them when lines really go low."""
        acks = self._output.acks()
        for ack in acks:
            line = self.lines[ack.line]
            if line.high_until_ns and line.command_id == ack.command_id:
                if ack.ok:
                    # It rose before the answer was here.
                    line.high_until_ns = ack.ack_ns + line.width_us * 1000
                else:
                    line.note_low(ack.ack_ns)
        return acks

    def beat_if_due(self, now: int) -> None:
        """Tell the device that the host lives, several times per watchdog period."""
        if now >= self._next_beat_ns:
            self._next_beat_ns = now + self._beat_interval_ns
            self._output.beat()

    def close(self) -> None:
        """Make safe and let go of the device."""
        self._output.close()
