"""All lines of a rig: what is switched, for how long, and what is told of it."""

from collections.abc import Iterator, Mapping
from typing import Final

from rtpose.actuators import Actuator, Line, make_all_safe
from rtpose.errors import OutputError
from rtpose.events import EventRecord, Moment
from rtpose.messages import Ack, Command, Withheld

#: A change of a level that is smaller is not sent: no 8-bit output would show it.
LEVEL_STEP: Final = 1 / 255


class Switchboard:
    """Switches lines and keeps their time limits.

    Parameters
    ----------
    actuators : mapping of str to Actuator
        The outputs, opened.
    record : EventRecord
        Is told of every command.
    """

    def __init__(self, actuators: Mapping[str, Actuator], record: EventRecord) -> None:
        self._actuators = actuators
        self._record = record
        self._last_command_id = 0

    def next_command_id(self) -> int:
        """Return the number of a new command."""
        self._last_command_id += 1
        return self._last_command_id

    @property
    def names(self) -> list[str]:
        """Every line as ``"<output>.<line>"``."""
        return [f"{a.name}.{line}" for a in self._actuators.values() for line in a.lines]

    def _lines(self) -> Iterator[Line]:
        """Yield every line, those too that are only in the record."""
        for actuator in self._actuators.values():
            yield from actuator.all_lines

    def find(self, name: str) -> tuple[Actuator, Line] | None:
        """Return a line by ``"<output>.<line>"``, or None."""
        output, _, line = name.partition(".")
        actuator = self._actuators.get(output)
        found = None if actuator is None else actuator.lines.get(line)
        return None if actuator is None or found is None else (actuator, found)

    def arm(self, now: int) -> None:
        """Let commands through; raise `OutputError` naming the output that does not arm."""
        for actuator in self._actuators.values():
            try:
                actuator.arm(now)
            except OutputError as error:
                raise OutputError(f"output {actuator.name!r}: {error}") from error

    def take_ack(self, ack: Ack, now: int) -> None:
        """Learn from an answer when its line really goes low."""
        self._actuators[ack.output].lines[ack.line].note_answer(ack, now)

    def make_safe(self, now: int) -> None:
        """Drop every line of every output and disarm them; none is left out if a driver raises."""
        make_all_safe(self._actuators.values(), now)

    # ------------------------------------------------------------------------------------ switching

    def switch_on(
        self,
        line: Line,
        command: Command,
        now: int,
        moment: Moment | None = None,
        *,
        trigger: str | None,
        held: bool,
        withheld: Withheld | None = None,
        draw: float | None = None,
        asked: bool = False,
        detail: str,
    ) -> None:
        """Send what makes a line rise, unless it is withheld, and tell of it."""
        command_ns = self._actuators[line.output].switch_on(
            line, command, trigger or "a client", now, held=held, withheld=withheld
        )
        self._record.tell(
            "fire" if withheld is None else "withheld",
            now,
            moment,
            trigger=trigger,
            command=command,
            command_ns=command_ns,
            withheld=withheld,
            draw=draw,
            asked=asked,
            detail=detail,
        )

    def change_level(
        self,
        line: Line,
        command: Command,
        now: int,
        moment: Moment | None = None,
        *,
        trigger: str,
        detail: str,
    ) -> None:
        """Give a line that is held high another level, and tell of it."""
        command_ns = self._actuators[line.output].change_level(line, command)
        self._record.tell(
            "level-set",
            now,
            moment,
            trigger=trigger,
            command=command,
            command_ns=command_ns,
            withheld=line.withheld,
            detail=detail,
        )

    def switch_off(
        self,
        line: Line,
        why: str,
        now: int,
        moment: Moment | None = None,
        *,
        trigger: str | None = None,
    ) -> None:
        """Switch a line off, and tell of it."""
        withheld = line.withheld
        command = Command(
            command_id=self.next_command_id(), output=line.output, line=line.name, action="off"
        )
        command_ns = self._actuators[line.output].switch_off(line, command, now)
        self._record.tell(
            "line-off",
            now,
            moment,
            trigger=trigger,
            command=command,
            command_ns=command_ns,
            withheld=withheld,
            detail=why,
        )

    def was_switched_off_by(self, ack: Ack) -> bool:
        """Return whether an answer is to what switched its line off last."""
        return self._actuators[ack.output].lines[ack.line].off_id == ack.command_id

    def let_go(self, why: str, now: int, held_by: str | None = None) -> None:
        """Switch off what is held high, or only what one trigger holds."""
        for line in self._lines():
            if line.held and line.high_until_ns and held_by in (None, line.holder):
                self.switch_off(line, why, now)

    # -------------------------------------------------------------------------------------- limits

    def keep_limits(self, now: int, *, poses_are_fresh: bool) -> None:
        """Switch off what was high for long enough, or has no pose to hold it on."""
        for line in self._lines():
            line.settle(now)
            if not line.high_until_ns:
                continue
            if now >= line.high_until_ns:
                self._time_is_up(line, now)
            elif line.held and not poses_are_fresh:
                why = "no fresh pose for max_pose_gap_ms"
                self._record.tell("stale", now, detail=why)
                self.switch_off(line, "no pose to hold it on", now)

    def _time_is_up(self, line: Line, now: int) -> None:
        limits = line.limits
        shorter = line.command is not None and line.command.width_us < line.longest_us
        if not shorter:
            line.used_up = f"max_on_ms = {limits.max_on_ms:g}"
        elif limits.dose_ms is not None:
            line.used_up = f"dose_ms = {limits.dose_ms:g}"
        else:  # it is repeated from a run in which it was not longer
            self.switch_off(line, "its time is over", now)
            return
        self.switch_off(line, f"{line.used_up} reached", now)
