"""The firmware on an emulated chip. Times are CPU cycles of the chip, never wall time."""

import itertools
import random
import signal
from collections.abc import Callable

import pytest
from board_rig import (
    CYCLES_PER_MS,
    CYCLES_PER_US,
    FIRMWARE_115200,
    PATIENCE_S,
    SESSION,
    EmulatedBoard,
    pulses,
)

from rtpose_hardware import protocol
from rtpose_hardware.answers import BoardStatus, Counters, Done, Hello, Trip
from rtpose_hardware.protocol import Reason, Request, Reset

pytestmark = pytest.mark.hardware

LIMIT_US = 2_000_000


def is_refused(done: Done, reason: Reason) -> bool:
    return done.reason == reason and not done.moved


# ------------------------------------------------------------------------------------- identity


def test_it_says_what_it_is_on_request_and_after_a_reset(
    start_board: Callable[..., EmulatedBoard],
) -> None:
    board = start_board()
    hello = board.connect()
    assert hello.version == protocol.PROTOCOL_VERSION
    assert hello.hash == protocol.PROTOCOL_HASH
    assert (hello.lines, hello.inputs) == (protocol.LINES, protocol.INPUTS)
    assert hello.lines_with_levels == protocol.LINES_WITH_LEVELS
    assert hello.reset_cause == Reset.PIN
    assert hello.firmware.startswith("rtpose-ttl ")
    board.process.send_signal(signal.SIGUSR1)
    boot = board.expect(Hello)
    assert boot.booted
    assert (boot.version, boot.hash, boot.firmware) == (hello.version, hello.hash, hello.firmware)


def test_the_slow_build_speaks_at_115200(start_board: Callable[..., EmulatedBoard]) -> None:
    board = start_board(firmware=FIRMWARE_115200)
    assert board.connect(115_200).version == protocol.PROTOCOL_VERSION
    board.arm(LIMIT_US)
    assert board.order(Request.PULSE, 0, 1000).moved
    board.wait_until_low()
    assert pulses(board.edges, 0) == [1000 * CYCLES_PER_US]


def test_at_another_speed_nothing_is_understood(board: EmulatedBoard) -> None:
    board.arm(LIMIT_US)
    board.port.baudrate = 115_200
    orders = b"".join(protocol.order(Request.ON, 1, line, 1000) for line in range(protocol.LINES))
    board.write(orders)
    board.wait_until_taken(orders)
    board.port.baudrate = 1_000_000
    board.write(b"\xc0")
    assert board.status().levels == 0
    assert board.edges == []
    assert board.ask(Request.COUNTERS, answer=Counters).bad > 0


# ---------------------------------------------------------------------------- on, off and pulse


def test_lines_are_low_from_reset_and_follow_orders(board: EmulatedBoard) -> None:
    status = board.status()
    assert (status.session, status.levels, status.watchdog_ms) == (0, 0, 100)
    board.arm(LIMIT_US)
    dones = []
    for line in range(protocol.LINES):
        dones.append(board.order(Request.ON, line, LIMIT_US))
        assert board.status().levels == 1 << line
        dones.append(board.order(Request.OFF, line))
    assert board.status().levels == 0
    edges = board.edges
    assert [(edge.line, edge.level) for edge in edges] == [
        (line, level) for line in range(protocol.LINES) for level in (1, 0)
    ]
    assert all(done.moved for done in dones)
    # The answer's time is that of the edge: the clocks differ by one constant, to the microsecond.
    offsets = [
        edge.cycle - done.time_us * CYCLES_PER_US for edge, done in zip(edges, dones, strict=True)
    ]
    assert max(offsets) - min(offsets) <= CYCLES_PER_US


@pytest.mark.parametrize("kind", [Request.PULSE, Request.ON])
def test_a_line_is_high_for_exactly_the_width(board: EmulatedBoard, kind: Request) -> None:
    # The shortest; around the border between waiting and timer; bytes that need escaping; more
    # than one and more than four turns of the 16-bit timer.
    widths = [20, 21, 22, 23, 59, 60, 61, 62, 100, 999, 4095, 4096, 4097, 0xC0DB, 20_000]
    board.arm(LIMIT_US)
    for number, width_us in enumerate(widths):
        assert board.order(kind, number % protocol.LINES, width_us).moved
        board.wait_until_low()
    got = sorted(width for line in range(protocol.LINES) for width in pulses(board.edges, line))
    assert got == sorted(width_us * CYCLES_PER_US for width_us in widths)


def test_pulses_on_all_lines_at_once_do_not_disturb_each_other(board: EmulatedBoard) -> None:
    chance = random.Random(1)
    board.arm(LIMIT_US)
    asked: list[list[int]] = [[] for _ in range(protocol.LINES)]
    for _ in range(40):
        for line in range(protocol.LINES):
            width_us = chance.randrange(protocol.MIN_WIDTH_US, 3000)
            if board.order(Request.PULSE, line, width_us).moved:
                asked[line].append(width_us * CYCLES_PER_US)
    board.wait_until_low()
    edges = board.edges
    falls = sorted(edge.cycle for edge in edges if not edge.level)
    after = {late: late - early for early, late in itertools.pairwise(falls)}
    late = []
    for line, widths in enumerate(asked):
        own_falls = [edge.cycle for edge in edges if edge.line == line and not edge.level]
        for fall, got, want in zip(own_falls, pulses(edges, line), widths, strict=True):
            if got != want:
                # Exact to the cycle, but for ends that nearly coincide: the later one may wait.
                assert want < got <= want + 400
                assert after[fall] < 700
                late.append(got - want)
    assert sum(map(len, asked)) > 100
    assert len(late) < sum(map(len, asked)) / 10


def test_an_order_without_effect_says_so(board: EmulatedBoard) -> None:
    board.arm(LIMIT_US)
    low = board.order(Request.OFF, 3)
    assert (low.moved, low.reason) == (False, None)
    assert board.order(Request.ON, 3, LIMIT_US).moved
    high = board.order(Request.ON, 3, LIMIT_US)
    assert (high.moved, high.reason) == (False, None)
    assert len(board.edges) == 1


def test_off_cuts_a_pulse_short_and_it_stays_low(board: EmulatedBoard) -> None:
    board.arm(LIMIT_US)
    assert board.order(Request.PULSE, 2, 30_000).moved
    assert board.order(Request.OFF, 2).moved
    board.pass_time(35_000)
    (width,) = pulses(board.edges, 2)
    assert width < 30_000 * CYCLES_PER_US


def test_a_new_on_moves_the_end(board: EmulatedBoard) -> None:
    board.arm(LIMIT_US)
    for line, first_us, then_us in ((0, LIMIT_US, 5000), (1, 60_000, 100_000)):
        assert board.order(Request.ON, line, first_us).moved
        while board.order(Request.ON, line, then_us).moved:  # it came too late: once more
            board.wait_until_low()
            board.order(Request.ON, line, first_us)
        board.wait_until_low()
    shortened, extended = pulses(board.edges, 0)[-1], pulses(board.edges, 1)[-1]
    assert 5000 * CYCLES_PER_US <= shortened < LIMIT_US * CYCLES_PER_US
    assert extended > 100_000 * CYCLES_PER_US


# --------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize("kind", [Request.ON, Request.PULSE])
def test_longer_than_the_limit_is_refused(board: EmulatedBoard, kind: Request) -> None:
    board.arm(limit_us=5000)
    for width_us in (5001, 1_000_000, protocol.MAX_WIDTH_US, 0xFFFFFFFF):
        assert is_refused(board.order(kind, 0, width_us), Reason.WIDTH)
    assert board.edges == []
    assert board.order(kind, 0, 5000).moved
    board.wait_until_low()
    assert pulses(board.edges, 0) == [5000 * CYCLES_PER_US]


def test_retriggering_cannot_keep_a_line_high_beyond_its_limit(board: EmulatedBoard) -> None:
    limit_us = 50_000
    board.arm(limit_us)
    assert board.order(Request.ON, 0, limit_us).moved
    retriggered = 0
    while not board.order(Request.ON, 0, limit_us).moved:  # until it has fallen and can rise again
        board.order(Request.PULSE, 0, limit_us)
        retriggered += 1
    board.wait_until_low()
    assert retriggered > 2
    assert set(pulses(board.edges, 0)) == {limit_us * CYCLES_PER_US}


def test_a_line_without_limit_is_unusable(board: EmulatedBoard) -> None:
    assert is_refused(board.ask(Request.ARM, protocol.arm_data(SESSION)), Reason.NO_LIMIT)
    board.ask(Request.LIMIT, protocol.limit_data(3, 1000))
    board.ask(Request.ARM, protocol.arm_data(SESSION))
    assert is_refused(board.order(Request.ON, 2, 1000), Reason.NO_LIMIT)
    assert board.order(Request.ON, 3, 1000).moved


@pytest.mark.parametrize(
    ("kind", "data", "reason"),
    [
        (Request.LIMIT, protocol.limit_data(8, 1000), Reason.LINE),
        (Request.LIMIT, protocol.limit_data(0, protocol.MAX_WIDTH_US + 1), Reason.VALUE),
        (Request.LIMIT, protocol.limit_data(0, protocol.MIN_WIDTH_US - 1), Reason.VALUE),
        (Request.LIMIT, b"\x00\x01", Reason.LENGTH),
        (Request.WATCHDOG, protocol.watchdog_data(19), Reason.VALUE),
        (Request.WATCHDOG, protocol.watchdog_data(1001), Reason.VALUE),
        (Request.WATCHDOG, b"", Reason.LENGTH),
        (Request.ARM, protocol.arm_data(0), Reason.VALUE),
        (Request.ARM, b"\x01\x02\x03", Reason.LENGTH),
        (Request.BEAT, b"\x00", Reason.LENGTH),
        (Request.OFF, b"\x00", Reason.LENGTH),
        (Request.ON, b"", Reason.LENGTH),
        (Request.PULSE, b"\x01\x02\x03\x04\x05", Reason.LENGTH),
    ],
)
def test_a_request_that_is_wrong_is_refused_with_its_reason(
    board: EmulatedBoard, kind: Request, data: bytes, reason: Reason
) -> None:
    assert is_refused(board.ask(kind, data), reason)


def test_unknown_requests_and_lines_are_refused(board: EmulatedBoard) -> None:
    board.arm(LIMIT_US)
    for line in range(protocol.LINES, 16):
        for kind in (Request.ON, Request.OFF, Request.PULSE):
            width_us = 0 if kind == Request.OFF else 1000
            assert is_refused(board.order(kind, line, width_us), Reason.LINE)
    for unknown in (0x00, 0x0C, 0x60, 0x80, 0xFF):
        board.write(protocol.encode(bytes((unknown, 1))))
        assert is_refused(board.expect(Done), Reason.TYPE)
    assert board.edges == []


# ------------------------------------------------------------------------- arming and watchdog


def test_disarmed_there_is_no_edge_whatever_is_sent(board: EmulatedBoard) -> None:
    for line in range(protocol.LINES):
        board.ask(Request.LIMIT, protocol.limit_data(line, LIMIT_US))
    for line in range(protocol.LINES):
        assert is_refused(board.order(Request.ON, line, 1000), Reason.DISARMED)
        assert is_refused(board.order(Request.PULSE, line, 1000), Reason.DISARMED)
        assert board.order(Request.OFF, line).reason is None
    board.ask(Request.ARM, protocol.arm_data(SESSION))
    board.ask(Request.SAFE, answer=BoardStatus)
    for line in range(protocol.LINES):
        assert is_refused(board.order(Request.ON, line, 1000), Reason.DISARMED)
    assert board.edges == []


def test_safe_drops_all_lines_at_once_and_disarms(board: EmulatedBoard) -> None:
    board.arm(LIMIT_US)
    for line in range(protocol.LINES):
        board.order(Request.ON, line, LIMIT_US)
    assert board.status().levels == 0xFF
    status = board.ask(Request.SAFE, answer=BoardStatus)
    assert (status.levels, status.session) == (0, 0)
    falls = [edge.cycle for edge in board.edges if not edge.level]
    assert len(falls) == protocol.LINES
    assert max(falls) - min(falls) <= 1


def test_settings_cannot_be_changed_while_armed(board: EmulatedBoard) -> None:
    board.arm(limit_us=1000)
    for kind, data in (
        (Request.LIMIT, protocol.limit_data(0, LIMIT_US)),
        (Request.WATCHDOG, protocol.watchdog_data(1000)),
    ):
        assert is_refused(board.ask(kind, data), Reason.ARMED)
    assert is_refused(board.order(Request.ON, 0, 1001), Reason.WIDTH)


def test_only_one_session_can_arm_at_a_time(board: EmulatedBoard) -> None:
    board.arm()
    assert is_refused(board.ask(Request.ARM, protocol.arm_data(SESSION + 1)), Reason.SESSION)
    assert board.ask(Request.ARM, protocol.arm_data(SESSION)).moved
    assert board.status().session == SESSION


@pytest.mark.parametrize("watchdog_ms", [20, 100, 1000])
def test_without_a_frame_the_watchdog_drops_the_lines_in_time(
    board: EmulatedBoard, watchdog_ms: int
) -> None:
    board.set_up(protocol.MAX_WIDTH_US, watchdog_ms)
    lines = (0, 7)
    board.write(  # at once, since the watchdog runs from the first on
        protocol.request(Request.ARM, 1, protocol.arm_data(SESSION))
        + b"".join(protocol.order(Request.ON, 2, line, protocol.MAX_WIDTH_US) for line in lines)
    )
    assert board.expect(Done).moved
    rises = [board.expect(Done) for _ in lines]
    trip = board.expect(Trip)
    assert trip.session == SESSION
    silence_us = trip.time_us - rises[-1].time_us
    assert watchdog_ms * 1000 <= silence_us <= watchdog_ms * 1000 + 200  # from the end of the order
    falls = {edge.line: edge for edge in board.edges if not edge.level}
    rise = next(edge for edge in board.edges if edge.line == lines[-1] and edge.level)
    assert set(falls) == set(lines)
    for fall in falls.values():
        high = fall.cycle - rise.cycle
        assert (
            watchdog_ms * CYCLES_PER_MS <= high <= watchdog_ms * CYCLES_PER_MS + 200 * CYCLES_PER_US
        )
    assert is_refused(board.order(Request.ON, 0, 1000), Reason.DISARMED)
    assert board.ask(Request.COUNTERS, answer=Counters).trips == 1


def test_a_frame_at_the_moment_of_the_trip_does_not_change_when_that_was(
    board: EmulatedBoard,
) -> None:
    """Its time and the refractory time count from the fall, whatever is being answered then."""
    byte_us, watchdog_us, meanwhile = 10, 20_000, 0
    board.set_up(LIMIT_US, watchdog_us // 1000)
    for line in range(protocol.LINES):
        board.set_limit(line, LIMIT_US, protocol.MAX_WIDTH_US)
    for line in range(protocol.LINES):
        assert board.ask(Request.ARM, protocol.arm_data(SESSION)).moved
        # Noise keeps the wire busy for as long as the watchdog waits: so the chip's own clock says
        # when the frame behind it comes, which takes some 250 us to be answered.
        noise = b"\x55" * (watchdog_us // byte_us - 10 * line)
        on = protocol.order(Request.ON, 1, line, LIMIT_US)
        board.write(on + noise + b"\xc0" + protocol.request(Request.HELLO, 2))
        rise = board.expect(Done)
        frames = [board.receive(), board.receive()]
        (trip,) = (frame for frame in frames if isinstance(frame, Trip))
        up, down = (edge for edge in board.edges if edge.line == line)
        assert abs(trip.time_us - rise.time_us - (down.cycle - up.cycle) // CYCLES_PER_US) <= 1
        meanwhile += isinstance(frames[0], Hello) and down.cycle - up.cycle < 21 * CYCLES_PER_MS
        assert board.ask(Request.ARM, protocol.arm_data(SESSION)).moved
        assert is_refused(board.order(Request.PULSE, line, 1000), Reason.REFRACTORY)
        board.ask(Request.SAFE, answer=BoardStatus)
    assert meanwhile, "no frame came at the moment of the trip"


def test_heartbeats_keep_it_armed(board: EmulatedBoard) -> None:
    board.arm(LIMIT_US, watchdog_ms=200)
    board.order(Request.ON, 0, LIMIT_US)
    board.pass_time(700_000)
    assert board.status().session == SESSION
    assert [edge.level for edge in board.edges] == [1]


# ------------------------------------------------------------------------------ faults and noise


def test_garbage_moves_nothing_and_is_counted(board: EmulatedBoard) -> None:
    board.arm(LIMIT_US)
    board.order(Request.ON, 4, LIMIT_US)
    chance = random.Random(2)
    for _ in range(40):
        board.write(chance.randbytes(100) + b"\xc0")
        assert board.status().levels == 1 << 4
    assert board.ask(Request.COUNTERS, answer=Counters).bad >= 40
    assert len(board.edges) == 1


def test_a_frame_with_any_wrong_bit_moves_nothing(board: EmulatedBoard) -> None:
    board.arm(LIMIT_US)
    frame = protocol.order(Request.ON, 1, 0, 1000)[:-1]
    for bit in range(8 * len(frame)):
        damaged = bytearray(frame)
        damaged[bit // 8] ^= 1 << bit % 8
        board.write(bytes(damaged) + b"\xc0")
        assert board.status().levels == 0
    assert board.edges == []


def test_more_than_it_can_take_is_counted_and_survived(board: EmulatedBoard) -> None:
    for sequence in range(250):  # short questions with long answers: its buffers must overflow
        board.write(protocol.request(Request.HELLO, sequence))
    counters = board.insist(Request.COUNTERS, Counters)
    assert counters.good < 250
    assert counters.wire_errors > 0
    assert counters.bad > 0
    board.arm(LIMIT_US)
    assert board.order(Request.PULSE, 0, 1000).moved


def test_a_thousand_orders_are_answered_in_order(board: EmulatedBoard) -> None:
    board.arm(LIMIT_US)
    count, window = 1000, 16
    answered: list[Done] = []
    for number in range(count):
        if number - len(answered) == window:
            answered.append(board.expect(Done))
        kind, width_us = ((Request.ON, LIMIT_US), (Request.OFF, 0))[number % 2]
        board.write(protocol.order(kind, number % 256, 5, width_us))
    while len(answered) < count:
        answered.append(board.expect(Done))
    assert [done.sequence for done in answered] == [number % 256 for number in range(count)]
    assert all(done.moved for done in answered)
    edges = board.edges
    assert [edge.level for edge in edges] == [1, 0] * (count // 2)
    offsets = [
        edge.cycle - done.time_us * CYCLES_PER_US
        for edge, done in zip(edges, answered, strict=True)
    ]
    assert max(offsets) - min(offsets) <= CYCLES_PER_US
    counters = board.ask(Request.COUNTERS, answer=Counters)
    assert (counters.bad, counters.wire_errors) == (0, 0)


def test_a_hung_firmware_is_reset_by_the_hardware_watchdog(board: EmulatedBoard) -> None:
    board.arm(LIMIT_US, watchdog_ms=1000)
    board.order(Request.ON, 6, LIMIT_US)
    board.process.send_signal(signal.SIGUSR1)
    boot = board.expect(Hello)
    assert boot.booted
    assert boot.reset_cause == Reset.WATCHDOG
    (rise, fall) = board.edges
    hang, reset = board.wait_for("hang"), board.wait_for("reset")
    assert rise.cycle < hang.cycle < reset.cycle == fall.cycle
    assert fall.cycle - hang.cycle <= 70 * CYCLES_PER_MS
    assert board.status().session == 0
    assert is_refused(board.ask(Request.ARM, protocol.arm_data(SESSION)), Reason.NO_LIMIT)


def test_opening_the_port_resets_the_board_and_drops_its_lines(board: EmulatedBoard) -> None:
    board.arm(LIMIT_US, watchdog_ms=1000)
    board.order(Request.ON, 1, LIMIT_US)
    board.disconnect()
    board.wait_for("closed")
    assert board.connect().reset_cause == Reset.PIN
    assert [edge.level for edge in board.edges] == [1, 0]
    assert board.status().session == 0


def test_the_emulator_outlives_its_user_and_then_ends(
    start_board: Callable[..., EmulatedBoard],
) -> None:
    board = start_board("--linger-ms", "300")
    board.connect()
    board.arm(LIMIT_US, watchdog_ms=100)
    board.order(Request.ON, 0, LIMIT_US)
    board.disconnect()
    assert board.process.wait(PATIENCE_S) == 0
    (high,) = pulses(board.edges, 0)
    assert 100 * CYCLES_PER_MS <= high <= 101 * CYCLES_PER_MS
    assert not board.tty.exists()
    assert not board.tty.is_symlink()
