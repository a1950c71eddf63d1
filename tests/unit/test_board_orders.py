"""Commands as the TTL board's frames."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtpose.errors import OutputError
from rtpose.messages import Command
from rtpose_hardware import protocol
from rtpose_hardware.answers import Done
from rtpose_hardware.board_orders import detail_of, duty_of, frame_of
from rtpose_hardware.board_settings import BoardLine
from rtpose_hardware.protocol import Reason, Request

LINE = BoardLine(pin=2, max_on_ms=100, levels=True)


def command(action: str, width_us: int = 0, **more: Any) -> Command:
    return Command.model_validate(
        {
            "command_id": 1,
            "output": "board",
            "line": "laser",
            "action": action,
            "width_us": width_us,
            **more,
        }
    )


@pytest.mark.parametrize(
    ("ordered", "frame"),
    [
        (command("on", 500), protocol.order(Request.ON, 9, 2, 500)),
        (command("off"), protocol.order(Request.OFF, 9, 2)),
        (command("pulse", 500), protocol.order(Request.PULSE, 9, 2, 500)),
        (command("on", 500, level=0.5), protocol.level_order(9, 2, 127, 500)),
        (
            command("train", 500, delay_us=30, period_us=2000, count=7),
            protocol.train_order(9, 2, delay_us=30, width_us=500, period_us=2000, count=7),
        ),
    ],
)
def test_each_action_has_its_frame(ordered: Command, frame: bytes) -> None:
    assert frame_of(ordered, LINE, 9) == frame


def test_a_level_on_a_line_without_levels_is_an_error() -> None:
    line = BoardLine(pin=2, max_on_ms=100)
    with pytest.raises(OutputError, match=r"line 'laser' .* level 0\.5.* levels = true"):
        frame_of(command("on", 500, level=0.5), line, 9)
    assert frame_of(command("on", 500, level=1.0), line, 9) == protocol.order(Request.ON, 9, 2, 500)


@given(st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_the_duty_is_the_nearest_that_the_board_has(level: float) -> None:
    def share(duty: int) -> float:
        return (duty + 1) / 256

    duty = duty_of(level)
    assert 1 <= duty <= 255
    assert abs(share(duty) - level) == min(abs(share(d) - level) for d in range(1, 256))


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (Reason.VALUE, r"delay is 0 or 100 to 60000000 us; .* at least 20 of them low"),
        (Reason.REFRACTORY, r"refractory_ms = 0 before it or between its pulses"),
        (Reason.RATE, r"more edges per second"),
    ],
)
def test_a_refused_train_says_what_a_train_may_be(reason: Reason, said: str) -> None:
    train = command("train", 500, delay_us=30, period_us=510, count=2)
    assert re.search(said, detail_of(Done(1, 0, False, reason), train, LINE))
