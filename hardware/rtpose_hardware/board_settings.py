"""Settings that every TTL board has."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from rtpose.interfaces import Identifier, LineConfig, OutputSettings, Settings
from rtpose_hardware import protocol
from rtpose_hardware.answers import lines_of
from rtpose_hardware.protocol import InputMode, StopMode

#: The inputs by what is printed on the board, in the order of their numbers.
INPUT_PINS = ("D8", "A0", "A1", "A2", "A3")

#: Name of the events of the stop input, which has a pin of its own.
STOP_NAME = "stop"

_EDGES: Mapping[str, InputMode] = {
    "rising": InputMode.RISING,
    "falling": InputMode.FALLING,
    "both": InputMode.BOTH,
}
_STOP_INPUTS: Mapping[str | None, StopMode] = {
    None: StopMode.OFF,
    "closed-is-well": StopMode.CLOSED,
    "high-is-well": StopMode.HIGH,
}


def _us(ms: float) -> int:
    return round(ms * 1000)


class BoardLine(LineConfig):
    """One line of a board; it holds every limit itself too, in whole microseconds of its clock.

    A refractory time is rounded down, the others to the nearest: a board whose clock is right
    refuses nothing that keeps the limits as they are written.
    """

    pin: Annotated[int, Field(ge=0, lt=protocol.LINES)]
    max_on_ms: Annotated[
        float, Field(ge=protocol.MIN_WIDTH_US / 1000, le=protocol.MAX_WIDTH_US / 1000)
    ]
    dose_ms: Annotated[float, Field(ge=protocol.MIN_WIDTH_US / 1000, le=3_600_000)] | None = None

    def limit(self, *, dose: bool = True) -> bytes:
        """Return what tells the board its limits, with or without its dose."""
        return protocol.limit_data(
            self.pin,
            _us(self.max_on_ms),
            int(self.refractory_ms * 1000),
            _us(self.dose_ms or 0.0) if dose else 0,
            _us((self.dose_window_s or 0.0) * 1000) if dose else 0,
        )


class BoardInput(Settings):
    """One input of a board, under ``[outputs.<name>.inputs.<input>]``.

    Attributes
    ----------
    pin : str
        As printed on the board. ``D8`` stamps to the cycle, the others within microseconds.
    edges : {'rising', 'falling', 'both'}
        What is reported.
    pull_up : bool
        Switch on the chip's resistor to 5 V: for a contact, or an open collector, to ground.
    hold_off_ms : float
        For how long after a reported edge others are only counted: a contact bounces.
    """

    pin: Literal["D8", "A0", "A1", "A2", "A3"]
    edges: Literal["rising", "falling", "both"] = "rising"
    pull_up: bool = False
    hold_off_ms: Annotated[float, Field(ge=0, le=65.535)] = 0.0

    @property
    def number(self) -> int:
        """The input's number on the board."""
        return INPUT_PINS.index(self.pin)

    @property
    def request(self) -> bytes:
        """What tells the board to report it."""
        return protocol.input_data(
            self.number,
            _EDGES[self.edges],
            pull_up=self.pull_up,
            holdoff_us=_us(self.hold_off_ms),
        )


class BoardSettings(OutputSettings):
    """Settings of every TTL board.

    Attributes
    ----------
    inputs : mapping of str to BoardInput
        What is reported, by the names that the events carry.
    stop_input : {'closed-is-well', 'high-is-well'}, optional
        What the emergency stop on D2 means; without it, D2 is not looked at. ``closed-is-well`` is
        a contact to ground, and a broken wire stops; ``high-is-well`` is a signal of 5 V.
    baud : int
        Speed of the firmware that was flashed; the other one is tried too.
    watchdog_ms : int
        The board drops its lines when it has heard nothing for that long.
    ack_timeout_ms : int
        A command that is not answered for that long is reported as failed.
    """

    level_pins: ClassVar[frozenset[int]] = frozenset(lines_of(protocol.LINES_WITH_LEVELS))
    lines: Annotated[Mapping[Identifier, BoardLine], Field(min_length=1)]
    inputs: Mapping[Identifier, BoardInput] = Field(default_factory=dict)
    stop_input: Literal["closed-is-well", "high-is-well"] | None = None
    baud: Literal[1_000_000, 115_200] = 1_000_000
    watchdog_ms: Annotated[int, Field(ge=protocol.MIN_WATCHDOG_MS, le=protocol.MAX_WATCHDOG_MS)] = (
        protocol.DEFAULT_WATCHDOG_MS
    )
    ack_timeout_ms: Annotated[int, Field(ge=10, le=10_000)] = 500

    @field_validator("inputs")
    @classmethod
    def _inputs_are_apart(cls, inputs: Mapping[str, BoardInput]) -> Mapping[str, BoardInput]:
        names: dict[str, str] = {}
        problems = []
        if STOP_NAME in inputs:
            problems.append(f"{STOP_NAME!r} is the name of stop_input's events, take another")
        for name, item in inputs.items():
            first = names.setdefault(item.pin, name)
            if first != name:
                problems.append(f"inputs {first!r} and {name!r} share pin {item.pin}")
        if problems:
            raise ValueError("; ".join(problems))
        return inputs

    @model_validator(mode="after")
    def _pins_are_apart(self) -> Self:
        self.require_own_pins()
        return self

    @property
    def stop_request(self) -> bytes:
        """What tells the board what its stop input means."""
        return protocol.stop_input_data(_STOP_INPUTS[self.stop_input])

    @property
    def stop_level(self) -> bool:
        """Whether the stop input is high when it says stop."""
        return self.stop_input == "closed-is-well"
