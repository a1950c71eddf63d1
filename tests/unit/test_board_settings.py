"""What the TTL board's drivers say to settings that cannot work, before any port is opened."""

import sys
from typing import Any

import pytest
from pydantic import ValidationError

from rtpose.errors import MissingExtraError, OutputError
from rtpose.messages import Command
from rtpose_hardware import protocol
from rtpose_hardware.answers import SelfTest
from rtpose_hardware.board_opening import check_self_test, limits_of, settings_of
from rtpose_hardware.emulated_ttl import EmulatedTtlOutput
from rtpose_hardware.protocol import Fault, InputMode, Request, StopMode
from rtpose_hardware.ttl import TtlOutput

LASER = {"pin": 0, "max_on_ms": 100}
GOOD = {"port": "/dev/ttyACM0", "lines": {"laser": LASER}}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            {"lines": {"laser": {**LASER, "pin": 8}}},
            r"lines.laser.pin\n  Input should be less than 8",
        ),
        ({"lines": {"laser": LASER, "valve": LASER}}, "'laser' and 'valve' share pin 0"),
        ({"lines": {"laser": {**LASER, "max_on_ms": 0.019}}}, "greater than or equal to 0.02"),
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


LICK = {"pin": "D8", "edges": "both", "pull_up": True, "hold_off_ms": 1.5}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"inputs": {"lick": {**LICK, "pin": "A4"}}}, "inputs.lick.pin"),
        ({"inputs": {"lick": {**LICK, "pin": 8}}}, "inputs.lick.pin"),
        ({"inputs": {"lick": {"edges": "both"}}}, "inputs.lick.pin"),
        ({"inputs": {"lick": {**LICK, "edges": "up"}}}, "'rising', 'falling' or 'both'"),
        ({"inputs": {"lick": {**LICK, "hold_off_ms": 66}}}, "less than or equal to 65.535"),
        ({"inputs": {"lick": LICK, "sync": LICK}}, "'lick' and 'sync' share pin D8"),
        ({"inputs": {"stop": LICK}}, "'stop' is the name of stop_input's events"),
        ({"inputs": {"a b": LICK}}, "pattern"),
        ({"stop_input": "open-is-well"}, "'closed-is-well' or 'high-is-well'"),
        ({"lines": {"laser": {**LASER, "levels": True}}}, "'laser' cannot take levels: pins 1, 2"),
        ({"lines": {"laser": {**LASER, "dose_ms": 0.01}}}, "greater than or equal to 0.02"),
        ({"lines": {"laser": {**LASER, "dose_window_s": 1}}}, "with dose_ms only"),
    ],
)
def test_wrong_inputs_levels_and_doses_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TtlOutput.Config.model_validate({**GOOD, **wrong})


def test_every_wrong_field_is_told_at_once() -> None:
    wrong = {
        "port": "",
        "lines": {"laser": {**LASER, "pin": 9}, "valve": {"pin": 1, "max_on_ms": 0}},
        "inputs": {"lick": {"pin": "D9"}, "sync": {"pin": "A0", "hold_off_ms": -1}},
        "stop_input": "yes",
    }
    with pytest.raises(ValidationError) as caught:
        TtlOutput.Config.model_validate(wrong)
    paths = {".".join(map(str, error["loc"])) for error in caught.value.errors()}
    assert paths == {
        "port",
        "lines.laser.pin",
        "lines.valve.max_on_ms",
        "inputs.lick.pin",
        "inputs.sync.hold_off_ms",
        "stop_input",
    }


def test_the_board_is_told_the_limits_as_they_are_written() -> None:
    settings = TtlOutput.Config.model_validate(
        {
            "port": "COM3",
            "lines": {
                "laser": {
                    "pin": 1,
                    "max_on_ms": 1.001,  # 1000.9999999999999 when multiplied
                    "refractory_ms": 2.0009,
                    "dose_ms": 250.0,
                    "dose_window_s": 60,
                    "levels": True,
                },
                "valve": {"pin": 5, "max_on_ms": 60_000, "dose_ms": 3_600_000},
            },
        }
    )
    told = [data for kind, data in limits_of(settings) if kind == Request.LIMIT]
    unusable = {number: protocol.limit_data(number, 0) for number in range(protocol.LINES)}
    valve = protocol.limit_data(5, 60_000_000, 0, 3_600_000_000)
    laser = protocol.limit_data(1, 1001, 2000, 250_000, 60_000_000)
    without_dose = protocol.limit_data(5, 60_000_000)
    assert told[0] == without_dose, "a dose per arming begins anew"
    assert told[1:] == list((unusable | {1: laser, 5: valve}).values())


def test_every_input_is_told_what_to_report() -> None:
    settings = TtlOutput.Config.model_validate(
        {
            **GOOD,
            "inputs": {"lick": LICK, "sync": {"pin": "A3"}},
            "stop_input": "closed-is-well",
            "watchdog_ms": 250,
        }
    )
    inputs = [protocol.input_data(n, InputMode.OFF) for n in range(protocol.INPUTS)]
    inputs[0] = protocol.input_data(0, InputMode.BOTH, pull_up=True, holdoff_us=1500)
    inputs[4] = protocol.input_data(4, InputMode.RISING)
    assert list(settings_of(settings)) == [
        (Request.WATCHDOG, protocol.watchdog_data(250)),
        *((Request.INPUT, data) for data in inputs),
        (Request.STOP_INPUT, protocol.stop_input_data(StopMode.CLOSED)),
    ]


def test_a_self_test_that_found_something_says_what_to_look_at() -> None:
    check_self_test(SelfTest(1, Fault(0), 0, 0xABCD, 500), "COM3")
    found = SelfTest(1, Fault.PIN | Fault.FLASH, 0b100100, 0xABCD, 500)
    with pytest.raises(OutputError) as caught:
        check_self_test(found, "COM3")
    said = str(caught.value)
    for part in ("COM3", "pin 2, 5", "short circuit", "not the one that was built", "flash it"):
        assert part in said
