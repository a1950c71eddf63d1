"""Settings that every TTL board has."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rtpose.interfaces import OutputSettings
from rtpose_hardware import protocol


class BoardSettings(OutputSettings):
    """Settings of every TTL board.

    Attributes
    ----------
    baud : int
        Speed of the firmware that was flashed; the other one is tried too.
    watchdog_ms : int
        The board drops its lines when it has heard nothing for that long.
    ack_timeout_ms : int
        A command that is not answered for that long is reported as failed.
    """

    baud: Literal[1_000_000, 115_200] = 1_000_000
    watchdog_ms: Annotated[int, Field(ge=protocol.MIN_WATCHDOG_MS, le=protocol.MAX_WATCHDOG_MS)] = (
        protocol.DEFAULT_WATCHDOG_MS
    )
    ack_timeout_ms: Annotated[int, Field(ge=10, le=10_000)] = 500

    @model_validator(mode="after")
    def _lines_fit_the_board(self) -> Self:
        for name, line in self.lines.items():
            if line.pin >= protocol.LINES:
                raise ValueError(f"lines.{name}.pin is {line.pin}, the board has pins 0 to 7")
            if line.max_on_ms * 1000 < protocol.MIN_WIDTH_US:
                raise ValueError(
                    f"lines.{name}.max_on_ms is {line.max_on_ms}, the board's shortest pulse is "
                    f"{protocol.MIN_WIDTH_US / 1000} ms"
                )
        self.require_own_pins()
        return self
