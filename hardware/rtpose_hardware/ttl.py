"""The TTL board on a serial port: eight lines on an Arduino Uno or Nano with rtpose's firmware.

``hardware/README.md`` says how to buy, wire, flash and test it.
"""

from typing import Annotated

from pydantic import Field

from rtpose_hardware.board_output import BoardOutput
from rtpose_hardware.board_settings import BoardSettings


class TtlOutput(BoardOutput):
    """Drive a TTL board.

    Examples
    --------
    In rig.toml::

        [outputs.board]
        type = "ttl"
        port = "/dev/ttyACM0"
        stop_input = "closed-is-well"
        lines.laser = { pin = 0, max_on_ms = 100, refractory_ms = 50 }
        lines.lamp = { pin = 1, max_on_ms = 500, levels = true, dose_ms = 5000, dose_window_s = 60 }
        inputs.lick = { pin = "A0", edges = "both", pull_up = true, hold_off_ms = 5 }
    """

    class Config(BoardSettings):
        """Settings of a board on a serial port.

        Attributes
        ----------
        port : str
            Its name, e.g. ``/dev/ttyACM0`` or ``COM3``.
        """

        port: Annotated[str, Field(min_length=1)]

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._port = config.port

    def _find_port(self) -> str:
        return self._port
