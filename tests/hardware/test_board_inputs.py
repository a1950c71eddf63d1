"""Inputs, stop input and self-test on an emulated chip. Times are CPU cycles, never wall time."""

import random
import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from board_rig import CYCLES_PER_MS, CYCLES_PER_US, FIRMWARE, SESSION, Change, EmulatedBoard, pulses

from rtpose_hardware import protocol
from rtpose_hardware.answers import BoardStatus, Counters, Done, InputEdge, SelfTest, Stopped, Trip
from rtpose_hardware.protocol import Fault, InputMode, Reason, Request, StopMode, StopState

pytestmark = pytest.mark.hardware

LIMIT_US = 2_000_000
PINS = ("D8", "A0", "A1", "A2", "A3")


def watch(board: EmulatedBoard, index: int, mode: InputMode, holdoff_us: int = 0) -> None:
    data = protocol.input_data(index, mode, holdoff_us=holdoff_us)
    assert board.ask(Request.INPUT, data).moved


def clock_offset(board: EmulatedBoard) -> int:
    """Return the cycle at which the board's clock was 0, up to 1 us too early."""
    board.order(Request.ON, 5, LIMIT_US)
    done = board.order(Request.OFF, 5)
    fall = [edge for edge in board.edges if edge.line == 5][-1]
    return fall.cycle - done.time_us * CYCLES_PER_US - CYCLES_PER_US


def late(offset: int, reports: Sequence[InputEdge], changes: Sequence[Change]) -> list[int]:
    """Return by how many cycles the stamps are late, up to 1 us more."""
    return [
        offset + (report.time_us + 1) * CYCLES_PER_US - change.cycle
        for report, change in zip(reports, changes, strict=True)
    ]


# --------------------------------------------------------------------------------------- inputs


@pytest.mark.parametrize("index", range(protocol.INPUTS))
def test_edges_are_reported_with_their_time(board: EmulatedBoard, index: int) -> None:
    pin = PINS[index]
    board.drive(f"{pin} 0")
    board.wait_for_change(1)
    watch(board, index, InputMode.BOTH)
    board.arm(LIMIT_US)
    offset = clock_offset(board)
    board.drive(*(f"{pin} {number % 2} @{5000 + 37 * number}" for number in range(1, 41)))
    changes = board.wait_for_change(41)[1:]
    reports = board.reports(40)
    assert [(report.input, report.level) for report in reports] == [
        (index, change.level) for change in changes
    ]
    assert all(report.unreported == 0 for report in reports)
    errors = late(offset, reports, changes)
    slack = 2 * CYCLES_PER_US + (0 if index == 0 else 400)
    assert -4 * CYCLES_PER_US <= min(errors) <= max(errors) <= slack
    assert board.status().inputs >> index & 1 == changes[-1].level


def test_only_the_edges_that_are_looked_for_are_reported(board: EmulatedBoard) -> None:
    board.drive(*(f"{pin} 0" for pin in PINS))
    board.wait_for_change(5)
    modes = (InputMode.FALLING, InputMode.RISING, InputMode.FALLING, InputMode.BOTH, InputMode.OFF)
    for index, mode in enumerate(modes):
        watch(board, index, mode)
    for pin in PINS:
        board.drive(f"{pin} 1 @1000", f"{pin} 0 @8000")
    board.wait_for_change(15)
    reports = sorted((report.input, report.level) for report in board.reports(5))
    assert reports == [(0, 0), (1, 1), (2, 0), (3, 0), (3, 1)]


def test_edges_within_the_hold_off_are_counted(board: EmulatedBoard) -> None:
    board.drive("A1 0")
    board.wait_for_change(1)
    watch(board, 2, InputMode.BOTH, holdoff_us=5000)
    board.drive("A1 1 @100", "A1 0 @16000", "A1 1 @16000", "A1 0 @16000", "A1 1 @64000")
    board.wait_for_change(6)
    first, second = board.reports(2)
    assert (first.level, first.unreported) == (1, 0)
    assert (second.level, second.unreported) == (1, 3)
    assert second.time_us - first.time_us == pytest.approx(7000, abs=10)


def test_a_pull_up_holds_an_open_input_high(board: EmulatedBoard) -> None:
    for index in range(protocol.INPUTS):
        board.ask(Request.INPUT, protocol.input_data(index, InputMode.BOTH, pull_up=True))
    assert board.status().inputs == 0x1F
    assert board.events(InputEdge) == []
    board.drive("A3 0")
    board.wait_for_change(1)
    assert [(e.input, e.level) for e in board.reports(1)] == [(4, 0)]
    assert board.status().inputs == 0x0F


def test_inputs_are_told_beside_trains_and_orders(board: EmulatedBoard) -> None:
    board.drive(*(f"{pin} 0" for pin in PINS))
    board.wait_for_change(5)
    for index in range(protocol.INPUTS):
        watch(board, index, InputMode.BOTH)
    board.arm(LIMIT_US)
    offset = clock_offset(board)
    for line in range(4):
        assert board.train(line, 300, 3000 + 11 * line, 100).moved
    chance = random.Random(8)
    board.drive(
        *(f"{chance.choice(PINS)} ~1/1 @{chance.randrange(4000, 40_000)}" for _ in range(200))
    )
    reports: list[InputEdge] = []
    while len(board.changes) < 205:
        reports += board.events(InputEdge)
    changes = board.changes[5:]
    reports += board.reports(len(changes) - len(reports))
    for index, pin in enumerate(PINS):
        told = [report for report in reports if report.input == index]
        own = [change for change in changes if change.pin == pin]
        assert [report.level for report in told] == [change.level for change in own]
        errors = late(offset, told, own)
        assert min(errors) >= -4 * CYCLES_PER_US
        assert max(errors) <= 2 * CYCLES_PER_US + (0 if index == 0 else 1000)
    assert board.ask(Request.COUNTERS, answer=Counters).edges_lost == 0


# Where the edges of input and lines meet differs from try to try.
@pytest.mark.parametrize("attempt", range(20))
@pytest.mark.parametrize("pin", ["D8", "A2"])
def test_an_input_that_oscillates_does_not_keep_the_board_from_its_work(
    board: EmulatedBoard, pin: str, attempt: int
) -> None:
    board.drive(f"{pin} 0")
    board.wait_for_change(1)
    watch(board, PINS.index(pin), InputMode.BOTH)
    board.arm(LIMIT_US, watchdog_ms=100)
    board.drive(f"{pin} ~60000/40")  # 400 kHz for 150 ms
    board.wait_for_change(2)
    board.write(
        b"".join(
            protocol.order(Request.PULSE, line, line, 3000 + 700 * line)
            for line in range(protocol.LINES)
        )
    )
    taken = 0
    while taken < protocol.LINES:
        frame = board.receive()
        taken += isinstance(frame, Done)
    assert len(board.changes) < 60_000, "all was ordered while it still oscillated"
    while not isinstance(board.receive(), Trip):
        pass
    for line in range(protocol.LINES):
        (width,) = pulses(board.edges, line)
        assert 0 <= width - (3000 + 700 * line) * CYCLES_PER_US <= 100
    counters = board.insist(Request.COUNTERS, Counters)
    assert counters.edges_lost > 0
    assert (counters.trips, counters.bad, counters.wire_errors) == (1, 0, 0)


def test_the_watchdog_is_exact_beside_an_oscillating_input(board: EmulatedBoard) -> None:
    board.drive("A0 0", "D8 0")
    board.wait_for_change(2)
    watch(board, 0, InputMode.BOTH)
    watch(board, 1, InputMode.BOTH)
    board.set_up(LIMIT_US, watchdog_ms=50)
    board.drive("A0 ~40000/45", "D8 ~40000/47")
    board.wait_for_change(4)
    board.write(
        protocol.request(Request.ARM, 1, protocol.arm_data(SESSION))
        + protocol.order(Request.ON, 2, 6, LIMIT_US)
    )
    while not isinstance(board.receive(), Trip):
        pass
    (width,) = pulses(board.edges, 6)
    assert 50 * CYCLES_PER_MS <= width <= 50 * CYCLES_PER_MS + 400 * CYCLES_PER_US


# ------------------------------------------------------------------------------------ stop input


def set_stop(board: EmulatedBoard, mode: StopMode) -> None:
    assert board.ask(Request.STOP_INPUT, protocol.stop_input_data(mode)).moved


@pytest.mark.parametrize(
    ("mode", "well", "stop"),
    [(StopMode.CLOSED, "D2 0", "D2 1"), (StopMode.CLOSED, "D2 0", "D2 z"),
     (StopMode.HIGH, "D2 1", "D2 0")],
)  # fmt: skip
def test_the_stop_input_drops_all_lines_at_once(
    board: EmulatedBoard, mode: StopMode, well: str, stop: str
) -> None:
    board.drive(well)
    board.wait_for_change(1)
    set_stop(board, mode)
    board.arm(LIMIT_US)
    assert board.status().stop == StopState.WELL
    for line in range(protocol.LINES):
        assert board.order(Request.ON, line, LIMIT_US).moved
    board.drive(stop)
    stopped = board.expect(Stopped)
    assert stopped.session == SESSION
    change = board.changes[-1]
    falls = [edge for edge in board.edges if not edge.level]
    assert len(falls) == protocol.LINES
    assert all(0 <= fall.cycle - change.cycle <= 100 for fall in falls)
    status = board.status()
    assert (status.session, status.levels, status.stop) == (0, 0, StopState.STOP)
    refused: Done = board.ask(Request.ARM, protocol.arm_data(SESSION))
    assert refused.reason == Reason.STOPPED
    board.drive(well)
    board.wait_for_change(3)
    assert board.status().session == 0, "it stays disarmed until the host arms it"
    board.arm(LIMIT_US)
    assert board.order(Request.ON, 0, 1000).moved
    assert board.ask(Request.COUNTERS, answer=Counters).stops == 1


def test_a_stop_in_the_midst_of_edges_leaves_nothing_high(board: EmulatedBoard) -> None:
    """Stop at many moments of trains, levels and short pulses: no edge comes later."""
    chance = random.Random(11)
    board.drive("D2 1")
    board.wait_for_change(1)
    set_stop(board, StopMode.HIGH)
    worst = 0
    for number in range(40):
        board.arm(LIMIT_US)
        for line in range(5):
            assert board.train(line, 200, 2600 + 90 * line, 1000).moved
        board.drive(f"D2 0 @{chance.randrange(1, 60_000)}")
        while True:
            board.write(protocol.order(Request.PULSE, board.sequence(), 6, 40))
            if isinstance(board.receive(), Stopped):
                break
        board.events(InputEdge)  # the answer that is still to come
        change = board.changes[-1]
        last = board.edges[-1]
        assert board.status().levels == 0
        worst = max(worst, last.cycle - change.cycle)
        board.drive("D2 1")
        board.wait_for_change(3 + 2 * number)
        board.pass_time(5000)
        assert board.edges[-1] == last
        levels: dict[int, int] = {edge.line: edge.level for edge in board.edges}
        assert not any(levels.values())
    assert worst <= 60 * CYCLES_PER_US


def test_without_a_contact_a_stop_input_in_use_forbids_arming(board: EmulatedBoard) -> None:
    board.set_up(LIMIT_US, 100)
    set_stop(board, StopMode.CLOSED)
    assert board.status().stop == StopState.STOP
    assert board.ask(Request.ARM, protocol.arm_data(SESSION)).reason == Reason.STOPPED
    set_stop(board, StopMode.OFF)
    assert board.status().stop == StopState.UNUSED
    assert board.ask(Request.ARM, protocol.arm_data(SESSION)).moved


# ------------------------------------------------------------------------------------- self-test


def test_the_self_test_is_good_and_moves_no_line(board: EmulatedBoard) -> None:
    board.arm(LIMIT_US)
    assert board.ask(Request.SELF_TEST).reason == Reason.ARMED
    board.ask(Request.SAFE, answer=BoardStatus)
    test = board.ask(Request.SELF_TEST, answer=SelfTest)
    assert (test.faults, test.levels) == (Fault(0), 0)
    assert test.free_stack_bytes > 100
    assert board.edges == []


@pytest.mark.parametrize(("pin", "line"), [("D4", 0), ("D5", 1), ("D12", 7)])
def test_a_line_that_is_held_high_is_found(board: EmulatedBoard, pin: str, line: int) -> None:
    board.drive(f"{pin} 1")
    board.wait_for_change(1)
    test = board.ask(Request.SELF_TEST, answer=SelfTest)
    assert (test.faults, test.levels) == (Fault.PIN, 1 << line)
    board.drive(f"{pin} z")
    board.wait_for_change(2)
    assert board.ask(Request.SELF_TEST, answer=SelfTest).faults == Fault(0)


def test_a_damaged_program_is_found(
    start_board: Callable[..., EmulatedBoard], tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.elf"
    shutil.copy(FIRMWARE, damaged)
    text = bytearray(damaged.read_bytes())
    name = b"rtpose-ttl "
    assert text.count(name) == 1
    text[text.index(name)] ^= 0x01
    damaged.write_bytes(text)
    board = start_board(firmware=damaged)
    board.connect()
    assert board.ask(Request.SELF_TEST, answer=SelfTest).faults == Fault.FLASH


def test_the_checksum_is_that_of_the_program(board: EmulatedBoard, tmp_path: Path) -> None:
    """The checksum that the chip finds is the CRC of what would be flashed, itself left out."""
    binary = tmp_path / "board.bin"
    subprocess.run(["avr-objcopy", "-O", "binary", FIRMWARE, binary], check=True)
    found = board.ask(Request.SELF_TEST, answer=SelfTest).flash_checksum
    program = binary.read_bytes()
    stored = struct.pack("<H", found)
    assert any(
        protocol.checksum(program[:at] + b"\0\0" + program[at + 2 :]) ^ 0xFFFF == found
        for at in range(len(program) - 1)
        if program[at : at + 2] == stored
    )
