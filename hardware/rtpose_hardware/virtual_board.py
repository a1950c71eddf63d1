"""A board in software: lines under the same rules as the TTL board's, as a function of time.

`virtual` is nothing else; outputs on devices without a clock take their deadlines from it.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from rtpose.interfaces import LineConfig
from rtpose.messages import Command
from rtpose_hardware.protocol import (
    MAX_TRAIN_EDGES_HZ,
    MAX_WIDTH_US,
    MIN_DELAY_US,
    MIN_WIDTH_US,
)

#: Older edges are forgotten: enough for hours of an experiment.
MAX_EDGES: Final = 100_000

_MIN_WIDTH_NS: Final = MIN_WIDTH_US * 1000


class Edge(NamedTuple):
    """A line changed.

    Attributes
    ----------
    at_ns : int
        When, on `clock.now_ns`.
    line : str
    high : bool
        Whether it is high from then on.
    """

    at_ns: int
    line: str
    high: bool


@dataclass(slots=True)
class _Pulse:
    """A time for which a line is high, or is to be, and those that follow it in a train.

    Attributes
    ----------
    rise_ns, fall_ns : int
        Its edges.
    latest_ns : int
        Its limits let it fall no later, whatever is ordered.
    period_ns, left : int
        How many equal ones follow, so much later each.
    train : bool
        It is one of a train: only "off" is obeyed until that ends.
    """

    rise_ns: int
    fall_ns: int
    latest_ns: int
    period_ns: int = 0
    left: int = 0
    train: bool = False

    def follow(self) -> None:
        """Become the next pulse of the train."""
        self.rise_ns += self.period_ns
        self.fall_ns += self.period_ns
        self.left -= 1


class _Line:
    """One line: what it does, and what its limits let it do."""

    def __init__(self, config: LineConfig) -> None:
        self.level = 0.0
        self.pulse: _Pulse | None = None
        self._config = config
        self._strength = 1.0  # the level of the next rise
        self._max_on_ns = round(config.max_on_ms * 1e6)
        self._refractory_ns = round(config.refractory_ms * 1e6)
        self._dose_ns = None if config.dose_ms is None else round(config.dose_ms * 1e6)
        window_s = config.dose_window_s
        self._window_ns = None if window_s is None else round(window_s * 1e9)
        self._fell_ns: int | None = None
        self._past: deque[tuple[int, int]] = deque()  # rises and falls that the dose counts

    @property
    def next_edge_ns(self) -> int | None:
        """When it changes next, if nothing is ordered."""
        if self.pulse is None:
            return None
        return self.pulse.fall_ns if self.level else self.pulse.rise_ns

    @property
    def train_period_ns(self) -> int:
        """From rise to rise of the train that is under way; 0 if there is none."""
        return self.pulse.period_ns if self.pulse is not None and self.pulse.train else 0

    def step(self) -> None:
        """Do the next edge."""
        pulse = self.pulse
        if pulse is None:
            return
        if not self.level:
            self.level = self._strength
            return
        self._fall(pulse, pulse.fall_ns)
        if pulse.left:
            pulse.follow()
        else:
            self.pulse = None

    def drop(self, at_ns: int) -> bool:
        """Go low and forget what was to come; return whether it was high."""
        pulse, self.pulse = self.pulse, None
        if pulse is None or not self.level:
            return False
        self._fall(pulse, at_ns)
        return True

    def _fall(self, pulse: _Pulse, at_ns: int) -> None:
        self.level = 0.0
        self._fell_ns = at_ns
        if self._dose_ns is not None:
            self._past.append((pulse.rise_ns, at_ns))

    def forget_dose(self) -> None:
        """Count a dose without a window anew."""
        if self._window_ns is None:
            self._past.clear()

    def order(self, command: Command, at_ns: int) -> str:
        """Carry out anything but "off"; return why it was refused, or an empty string."""
        refusal = self._misfit(command) or self._hindrance(command, at_ns)
        if refusal:
            return refusal
        width_ns = command.width_us * 1000
        rise_ns = at_ns + command.delay_us * 1000
        self._strength = command.level
        if self.pulse is None:
            self.pulse = _Pulse(rise_ns, 0, rise_ns + self._longest_ns(at_ns))
            if command.action == "train":
                self.pulse.train = True
                self.pulse.left = command.count - 1
                self.pulse.period_ns = command.period_us * 1000 if self.pulse.left else 0
        self.pulse.fall_ns = min(rise_ns + width_ns, self.pulse.latest_ns)
        if rise_ns <= at_ns:
            self.level = self._strength
        return ""

    def _misfit(self, command: Command) -> str:
        """Say why the line never takes a command, or nothing."""
        longest_us = self._max_on_ns // 1000
        if not MIN_WIDTH_US <= command.width_us <= longest_us:
            return f"{command.width_us} us, allowed: {MIN_WIDTH_US} to {longest_us} us"
        if command.level < 1 and not self._config.levels:
            return f"level {command.level:g}, but the line's settings do not say levels = true"
        if command.action != "train":
            return ""
        if 0 < command.delay_us < MIN_DELAY_US:
            return f"a delay of {command.delay_us} us, allowed: 0, or at least {MIN_DELAY_US} us"
        low_us = command.period_us - command.width_us
        least_us = max(MIN_WIDTH_US, self._refractory_ns / 1000)
        if command.count > 1 and low_us < least_us:
            return f"{low_us} us between the pulses of a train, allowed: at least {least_us:g} us"
        longest_us = max(command.delay_us, command.period_us)
        if longest_us > MAX_WIDTH_US:
            return f"a delay or period of {longest_us} us, allowed: at most {MAX_WIDTH_US} us"
        return ""

    def _hindrance(self, command: Command, at_ns: int) -> str:
        """Say why the line does not take a command now, or nothing."""
        if self.pulse is not None:
            if self.pulse.train:
                return "a train is under way: only off is obeyed"
            if command.action != "on":
                return f"the line is high: a {command.action} would not be one"
            return ""
        rise_ns = at_ns + command.delay_us * 1000
        if self._fell_ns is not None and rise_ns < self._fell_ns + self._refractory_ns:
            return f"within refractory_ms = {self._config.refractory_ms:g} of its last fall"
        room_ns = self._room_ns(at_ns)
        # "on" says for how long at most, the others for how long.
        needed_ns = _MIN_WIDTH_NS if command.action == "on" else command.on_time_us * 1000
        if room_ns is not None and needed_ns > room_ns:
            within = f" in {self._config.dose_window_s:g} s" if self._window_ns else ""
            return f"it would be on for more than dose_ms = {self._config.dose_ms:g}{within}"
        return ""

    def _longest_ns(self, at_ns: int) -> int:
        room_ns = self._room_ns(at_ns)
        return self._max_on_ns if room_ns is None else min(self._max_on_ns, room_ns)

    def _room_ns(self, at_ns: int) -> int | None:
        """Return how much of its dose a low line has left; None without a dose."""
        if self._dose_ns is None:
            return None
        since_ns = 0 if self._window_ns is None else at_ns - self._window_ns
        while self._past and self._past[0][1] <= since_ns:
            self._past.popleft()
        return self._dose_ns - sum(fall - max(rise, since_ns) for rise, fall in self._past)


class VirtualBoard:
    """The lines, their deadlines and the watchdog: a pure function of commands and times.

    A line changes when it is due and all lines fall when the heartbeat is overdue, at that very
    nanosecond, whenever somebody looks: every method first lets happen what was due by then. The
    rules are those of the TTL board (``hardware/firmware/protocol.h``), with an exact window for
    the dose: "on" beyond what is left of it is cut short, a pulse or a train is refused.

    Parameters
    ----------
    lines : mapping of str to LineConfig
        The lines and their limits.
    watchdog_ns : int
        After how long without a beat or a command every line falls and the board disarms.

    Attributes
    ----------
    edges : deque of Edge
        What the lines did, oldest first, at most `MAX_EDGES`.
    """

    def __init__(self, lines: Mapping[str, LineConfig], watchdog_ns: int) -> None:
        self._lines = {name: _Line(config) for name, config in lines.items()}
        self._watchdog_ns = watchdog_ns
        self._beat_ns: int | None = None  # the last sign of life; None while disarmed
        self.edges: deque[Edge] = deque(maxlen=MAX_EDGES)

    def settle(self, at_ns: int) -> None:
        """Let everything happen that is due by `at_ns`."""
        trip_ns = None if self._beat_ns is None else self._beat_ns + self._watchdog_ns
        if trip_ns is None or trip_ns > at_ns:
            self._run(at_ns)
        else:
            self._run(trip_ns - 1)
            self._drop_all(trip_ns)

    def _run(self, at_ns: int) -> None:
        while (due := self._next_edge()) is not None and due[0] <= at_ns:
            edge_ns, name = due
            self._lines[name].step()
            self.edges.append(Edge(edge_ns, name, self._lines[name].level > 0))

    def _next_edge(self) -> tuple[int, str] | None:
        due = [(line.next_edge_ns, name) for name, line in self._lines.items()]
        return min(((at, name) for at, name in due if at is not None), default=None)

    def next_edge_ns(self) -> int | None:
        """Return when a line changes next if nobody says anything; None if all stay low."""
        due = self._next_edge()
        if due is None:
            return None
        return due[0] if self._beat_ns is None else min(due[0], self._beat_ns + self._watchdog_ns)

    def is_armed(self, at_ns: int) -> bool:
        """Return whether commands are accepted."""
        self.settle(at_ns)
        return self._beat_ns is not None

    def arm(self, at_ns: int) -> None:
        """Accept commands from now on; counts as a heartbeat."""
        self.settle(at_ns)
        if self._beat_ns is None:
            for line in self._lines.values():
                line.forget_dose()
        self._beat_ns = at_ns

    def beat(self, at_ns: int) -> None:
        """Take a sign of life of the host. It does not arm again what the watchdog disarmed."""
        self.settle(at_ns)
        if self._beat_ns is not None:
            self._beat_ns = at_ns

    def execute(self, command: Command, at_ns: int) -> str:
        """Carry out one command; return why it was refused, or an empty string."""
        self.settle(at_ns)
        if self._beat_ns is None:
            return "not armed"
        self._beat_ns = at_ns  # whoever commands is alive
        if command.action == "off":
            self._drop(command.line, at_ns)
            return ""
        line = self._lines[command.line]
        was_high = line.level > 0
        refusal = self._too_many_edges(command) or line.order(command, at_ns)
        if line.level and not was_high:
            self.edges.append(Edge(at_ns, command.line, True))
        return refusal

    def _too_many_edges(self, command: Command) -> str:
        """Say why a train is too much beside those that run, or nothing."""
        if command.action != "train" or command.count == 1:
            return ""
        periods_ns = [line.train_period_ns for line in self._lines.values()]
        periods_ns.append(command.period_us * 1000)
        # Each as the board rounds it.
        edges_hz = sum(-(-2_000_000_000 // period) for period in periods_ns if period)
        if edges_hz <= MAX_TRAIN_EDGES_HZ:
            return ""
        return f"{edges_hz} edges/s of all trains together, allowed: {MAX_TRAIN_EDGES_HZ}"

    def safe(self, at_ns: int) -> None:
        """Drop every line and disarm."""
        self.settle(at_ns)
        self._drop_all(at_ns)

    def levels(self, at_ns: int) -> dict[str, float]:
        """Return how high each line is, 0 to 1."""
        self.settle(at_ns)
        return {name: line.level for name, line in self._lines.items()}

    def _drop_all(self, at_ns: int) -> None:
        for name in sorted(self._lines):
            self._drop(name, at_ns)
        self._beat_ns = None

    def _drop(self, name: str, at_ns: int) -> None:
        if self._lines[name].drop(at_ns):
            self.edges.append(Edge(at_ns, name, False))
