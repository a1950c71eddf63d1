"""What happened at the TTL board's inputs, by name and on the host's clock. Touches no port."""

from rtpose.messages import InputEvent
from rtpose_hardware.answers import InputEdge, Stopped
from rtpose_hardware.board_clock import ClockMapping
from rtpose_hardware.board_settings import STOP_NAME, BoardSettings


class InputEvents:
    """Edges and stops that nobody has taken yet."""

    def __init__(self, settings: BoardSettings, clock: ClockMapping) -> None:
        self._names = {item.number: name for name, item in settings.inputs.items()}
        self._stop_level = settings.stop_level
        self._clock = clock
        self._events: list[InputEvent] = []

    def edge(self, edge: InputEdge, arrival_ns: int) -> None:
        """Note an edge; one of an input that has no name is that of an earlier host."""
        name = self._names.get(edge.input)
        if name is not None:
            self._add(name, bool(edge.level), edge.time_us, arrival_ns, missed=edge.unreported)

    def stopped(self, stopped: Stopped | None, arrival_ns: int) -> None:
        """Note that the stop input dropped all lines; without the board's word, not when."""
        time_us = None if stopped is None else stopped.time_us
        self._add(STOP_NAME, self._stop_level, time_us, arrival_ns, stop=True)

    def take(self) -> tuple[InputEvent, ...]:
        """Return the events since the last call, oldest first."""
        events = tuple(self._events)
        self._events.clear()
        return events

    def _add(
        self,
        name: str,
        level: bool,
        time_us: int | None,
        arrival_ns: int,
        *,
        stop: bool = False,
        missed: int = 0,
    ) -> None:
        device_us = None if time_us is None else self._clock.extend(time_us, arrival_ns)
        mapped = None if device_us is None else self._clock.host_time(device_us)
        self._events.append(
            InputEvent(
                input=name,
                level=level,
                time_ns=None if mapped is None else mapped.time_ns,
                uncertainty_ns=None if mapped is None else mapped.uncertainty_ns,
                arrival_ns=arrival_ns,
                device_us=device_us,
                stop=stop,
                missed=missed,
            )
        )
