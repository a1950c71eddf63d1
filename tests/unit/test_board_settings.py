"""What the TTL board's drivers say to settings that cannot work, before any port is opened."""

import sys
from typing import Any

import pytest
from pydantic import ValidationError

from rtpose.errors import MissingExtraError, OutputError
from rtpose.messages import Command
from rtpose_hardware.emulated_ttl import EmulatedTtlOutput
from rtpose_hardware.ttl import TtlOutput

LASER = {"pin": 0, "max_on_ms": 100}
GOOD = {"port": "/dev/ttyACM0", "lines": {"laser": LASER}}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            {"lines": {"laser": {**LASER, "pin": 8}}},
            "lines.laser.pin is 8, the board has pins 0 to 7",
        ),
        ({"lines": {"laser": LASER, "valve": LASER}}, "'laser' and 'valve' share pin 0"),
        ({"lines": {"laser": {**LASER, "max_on_ms": 0.019}}}, "shortest pulse is 0.02 ms"),
        ({"baud": 9600}, "1000000 or 115200"),
        ({"watchdog_ms": 19}, "greater than or equal to 20"),
        ({"watchdog_ms": 1001}, "less than or equal to 1000"),
        ({"ack_timeout_ms": 0}, "greater than or equal to 10"),
        ({"port": ""}, "at least 1 character"),
        ({"prot": "COM3"}, "prot"),
    ],
)
def test_wrong_settings_are_refused_with_their_reason(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TtlOutput.Config.model_validate({**GOOD, **wrong})


def test_without_pyserial_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "serial", None)
    with pytest.raises(MissingExtraError, match=r'pip install "rtpose\[serial\]"'):
        TtlOutput(TtlOutput.Config.model_validate(GOOD)).open()


def test_nothing_works_before_it_is_open() -> None:
    output = TtlOutput(TtlOutput.Config.model_validate(GOOD))
    order = Command(command_id=1, output="board", line="laser", action="off")
    for call in (output.arm, output.acks, output.beat, lambda: output.send(order)):
        with pytest.raises(OutputError, match="not open"):
            call()
    output.safe()
    output.close()
    assert not output.is_safe


def test_the_emulated_board_needs_no_port() -> None:
    EmulatedTtlOutput.Config.model_validate({"lines": {"laser": LASER}})
    with pytest.raises(ValidationError, match="port"):
        EmulatedTtlOutput.Config.model_validate(GOOD)
