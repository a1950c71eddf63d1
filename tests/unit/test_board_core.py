"""The portable core of the TTL board's firmware: what it does with single requests."""

import pytest
from core_rig import LIMIT_US, SESSION, WATCHDOG_US, Core
from hypothesis import given, settings
from hypothesis import strategies as st

from rtpose_hardware import protocol
from rtpose_hardware.answers import (
    BoardStatus,
    Counters,
    Done,
    Hello,
    InputEdge,
    SelfTest,
    Stopped,
    Trip,
)
from rtpose_hardware.protocol import Fault, InputMode, Reason, Request, Reset, StopMode, StopState


def test_it_introduces_itself_at_reset(core: Core) -> None:
    core.reset()
    (boot,) = core.sent()
    assert isinstance(boot, Hello)
    assert boot.booted
    assert (boot.version, boot.hash) == (protocol.PROTOCOL_VERSION, protocol.PROTOCOL_HASH)
    assert (boot.lines, boot.reset_cause) == (protocol.LINES, Reset.POWER)
    answer = core.ask(Request.HELLO)
    assert isinstance(answer, Hello)
    assert not answer.booted


def test_it_shows_that_it_is_armed(core: Core) -> None:
    core.reset()
    core.sent()
    core.arm()
    assert core.shows_armed
    core.ask(Request.SAFE)
    assert not core.shows_armed
    core.arm()
    core.advance_us(WATCHDOG_US)
    assert not core.shows_armed


def test_the_answers_clock_wraps_at_32_bits(core: Core) -> None:
    core.reset()
    core.sent()
    total_us = 0
    for _ in range(50):
        step_us = 100_000_000
        core.advance_us(step_us)
        total_us += step_us
        beat = core.ask(Request.BEAT)
        assert isinstance(beat, Done)
        assert beat.time_us == total_us % 2**32


def test_the_watchdog_trips_once_and_at_its_time(core: Core) -> None:
    core.reset()
    core.sent()
    core.arm()
    core.order(Request.ON, 0, LIMIT_US)
    assert core.advance_us(LIMIT_US - 1) == []
    assert core.high == 1
    core.order(Request.OFF, 0)
    core.order(Request.ON, 1, LIMIT_US)
    (trip,) = core.advance_us(WATCHDOG_US)
    assert isinstance(trip, Trip)
    assert (trip.session, trip.time_us) == (SESSION, LIMIT_US - 1 + WATCHDOG_US)
    assert core.advance_us(10 * WATCHDOG_US) == []
    counters = core.ask(Request.COUNTERS)
    assert isinstance(counters, Counters)
    assert counters.trips == 1


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=80), max_size=10), st.booleans())
def test_garbage_never_moves_a_line(core: Core, chunks: list[bytes], armed: bool) -> None:
    core.reset()
    core.sent()
    if armed:
        core.arm()
        core.order(Request.ON, 2, LIMIT_US)
    for chunk in chunks:
        core.take(chunk)
        assert core.high == (1 << 2 if armed else 0)
    core.take(b"\xc0")
    status = core.ask(Request.STATUS)
    assert isinstance(status, BoardStatus)
    assert status.levels == core.high


@settings(max_examples=200)
@given(st.integers(0, 255), st.binary(max_size=10))
def test_every_sound_frame_is_answered_exactly_once(core: Core, kind: int, data: bytes) -> None:
    core.reset()
    core.sent()
    answers = core.take(protocol.encode(bytes((kind, 99)) + data))
    if len(data) + 2 > protocol.FRAME_MAX_REQUEST:
        assert answers == []
    else:
        (answer,) = answers
        assert answer.sequence == 99
    assert core.high == 0


def test_wrong_stuffing_and_trailing_bytes_spoil_a_frame(core: Core) -> None:
    core.reset()
    core.sent()
    body = protocol.order(Request.OFF, 1, 0)[:-1]
    limit = protocol.request(Request.LIMIT, 1, protocol.limit_data(0, LIMIT_US))[:-1]
    longest = protocol.encode(bytes(protocol.FRAME_MAX_REQUEST))[:-1]
    for sound in (body, limit, longest):
        assert len(core.take(sound + b"\xc0")) == 1
        for spoilt in (b"\xdb" + sound, sound + b"\xdb", sound + b"\x00", sound + b"\xdb\xdb"):
            assert core.take(spoilt + b"\xc0") == []
    escaped = protocol.order(Request.PULSE, 1, 0, protocol.FRAME_END)
    assert len(core.take(escaped)) == 1
    assert core.take(escaped.replace(b"\xdb", b"\xdb\xdb")) == []


def test_retriggering_does_not_keep_a_line_high(core: Core) -> None:
    core.reset()
    core.sent()
    core.arm()
    assert core.order(Request.ON, 0, LIMIT_US).moved
    for _ in range(LIMIT_US // 1000):
        assert core.high
        assert not core.order(Request.ON, 0, LIMIT_US).moved
        core.advance_us(1000)
    assert not core.high


# --------------------------------------------------------------------- settings and self-test


@pytest.mark.parametrize(
    ("kind", "data", "reason"),
    [
        (Request.LIMIT, protocol.limit_data(8, 1000), Reason.LINE),
        (Request.LIMIT, protocol.limit_data(0, protocol.MAX_WIDTH_US + 1), Reason.VALUE),
        (Request.LIMIT, protocol.limit_data(0, 1000, protocol.MAX_SPAN_US + 1), Reason.VALUE),
        (Request.LIMIT, protocol.limit_data(0, 1000, 0, 19, 0), Reason.VALUE),
        (Request.LIMIT, protocol.limit_data(0, 1000, 0, 1001, 1000), Reason.VALUE),
        (Request.LIMIT, protocol.limit_data(0, 1000, 0, 0, 1000), Reason.VALUE),
        (Request.LIMIT, protocol.limit_data(0, 1000)[:-1], Reason.LENGTH),
        (Request.INPUT, protocol.input_data(5, InputMode.BOTH), Reason.INPUT),
        (Request.INPUT, b"\x00\x04\x00\x00\x00", Reason.VALUE),
        (Request.INPUT, b"\x00\x03\x02\x00\x00", Reason.VALUE),
        (Request.INPUT, b"\x00\x03", Reason.LENGTH),
        (Request.STOP_INPUT, b"\x03", Reason.VALUE),
        (Request.STOP_INPUT, b"", Reason.LENGTH),
        (Request.SELF_TEST, b"\x00", Reason.LENGTH),
    ],
)
def test_a_wrong_setting_is_refused(core: Core, kind: Request, data: bytes, reason: Reason) -> None:
    core.reset()
    core.sent()
    answer = core.ask(kind, data)
    assert isinstance(answer, Done)
    assert answer.reason == reason


def test_settings_cannot_be_changed_while_armed(core: Core) -> None:
    core.reset()
    core.sent()
    core.arm()
    for kind, data in (
        (Request.LIMIT, protocol.limit_data(0, 1000)),
        (Request.WATCHDOG, protocol.watchdog_data(100)),
        (Request.INPUT, protocol.input_data(0, InputMode.OFF)),
        (Request.STOP_INPUT, protocol.stop_input_data(StopMode.OFF)),
        (Request.SELF_TEST, b""),
    ):
        answer = core.ask(kind, data)
        assert isinstance(answer, Done)
        assert answer.reason == Reason.ARMED


def test_the_self_test_names_what_is_wrong(core: Core) -> None:
    for health, faults in (
        ((0, 500, True, 0), Fault(0)),
        ((1, 500, True, 0), Fault.FLASH),
        ((0, 10, True, 0), Fault.STACK),
        ((0, 500, False, 0), Fault.CLOCK),
        ((0, 500, True, 0x80), Fault.PIN),
        ((1, 10, False, 0x01), Fault.FLASH | Fault.STACK | Fault.CLOCK | Fault.PIN),
    ):
        core.reset()
        core.sent()
        core.set_health(*health)
        test = core.ask(Request.SELF_TEST)
        assert isinstance(test, SelfTest)
        checksum, free_stack, _, held = health
        assert (test.faults, test.levels) == (faults, held)
        assert (test.flash_checksum, test.free_stack_bytes) == (checksum, free_stack)


# ----------------------------------------------------------------------------- inputs and stop

edges = st.tuples(
    st.integers(0, protocol.INPUTS - 1), st.integers(0, 1), st.sampled_from([0, 1, 900, 5000])
)


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.sampled_from(InputMode), st.sampled_from([0, 1000, 65535])), max_size=5),
    st.lists(edges, max_size=60),
)
def test_every_edge_that_is_looked_for_is_reported_or_counted(
    core: Core, modes: list[tuple[InputMode, int]], script: list[tuple[int, int, int]]
) -> None:
    core.reset()
    core.sent()
    for index, (mode, holdoff_us) in enumerate(modes):
        answer = core.ask(Request.INPUT, protocol.input_data(index, mode, holdoff_us=holdoff_us))
        assert isinstance(answer, Done)
        assert answer.moved
    now_us, level = 0, [0] * protocol.INPUTS
    last_us: dict[int, int] = {}
    missed = [0] * protocol.INPUTS
    expected, got = [], []
    for index, new, pause_us in script:
        core.drive(index, new)
        mode, holdoff_us = modes[index] if index < len(modes) else (InputMode.OFF, 0)
        if new != level[index] and mode & (InputMode.RISING if new else InputMode.FALLING):
            if index in last_us and now_us - last_us[index] < holdoff_us:
                missed[index] += 1
            else:
                expected.append((now_us, index, new, missed[index]))
                last_us[index], missed[index] = now_us, 0
        level[index] = new
        got += core.advance_us(pause_us)
        now_us += pause_us
    for _ in script:
        got += core.advance_us(0)
    reported = [frame for frame in got if isinstance(frame, InputEdge)]
    assert len(reported) == len(got)
    assert [(e.time_us, e.input, e.level, e.unreported) for e in reported] == expected
    status = core.ask(Request.STATUS)
    assert isinstance(status, BoardStatus)
    assert status.inputs == sum(bit << index for index, bit in enumerate(level))


def test_the_same_setting_of_an_input_once_more_forgets_nothing(core: Core) -> None:
    core.reset()
    core.sent()
    setting = protocol.input_data(2, InputMode.BOTH, holdoff_us=1000)
    core.ask(Request.INPUT, setting)
    core.drive(2, 1)
    core.advance_us(500)
    core.drive(2, 0)
    core.advance_us(100)
    core.ask(Request.INPUT, setting)
    core.drive(2, 1)
    assert core.advance_us(500) == []
    core.drive(2, 0)
    (report,) = core.advance_us(0)
    assert isinstance(report, InputEdge)
    assert (report.time_us, report.level, report.unreported) == (1100, 0, 2)
    core.drive(2, 1)
    core.advance_us(0)
    core.ask(Request.INPUT, protocol.input_data(2, InputMode.BOTH))  # another one
    core.drive(2, 0)
    (report,) = core.advance_us(0)
    assert isinstance(report, InputEdge)
    assert report.unreported == 0


def test_the_stop_input_drops_the_lines_and_keeps_the_board_disarmed(core: Core) -> None:
    core.reset()
    core.sent()
    assert core.status().stop == StopState.UNUSED
    core.ask(Request.STOP_INPUT, protocol.stop_input_data(StopMode.CLOSED))
    core.arm()
    assert core.status().stop == StopState.WELL
    core.order(Request.ON, 0, LIMIT_US)
    core.train(1, 0, 1000, 3000, 5)
    core.advance_us(500)
    core.stop(well=False)
    assert core.high == 0
    (stopped,) = core.advance_us(0)
    assert isinstance(stopped, Stopped)
    assert (stopped.session, stopped.time_us) == (SESSION, 500)
    assert core.advance_us(20_000) == []
    assert core.high == 0
    assert (core.status().session, core.status().stop) == (0, StopState.STOP)
    assert core.order(Request.ON, 0, 1000).reason == Reason.DISARMED
    refused = core.ask(Request.ARM, protocol.arm_data(SESSION))
    assert isinstance(refused, Done)
    assert refused.reason == Reason.STOPPED
    core.stop(well=True)
    core.arm()
    assert core.order(Request.ON, 0, 1000).moved
    counters = core.ask(Request.COUNTERS)
    assert isinstance(counters, Counters)
    assert (counters.stops, counters.trips) == (1, 0)


# ---------------------------------------------------------------------------- levels and trains


def test_a_level_is_set_changed_and_ended_as_a_line_is(core: Core) -> None:
    core.reset()
    core.sent()
    core.arm()
    assert core.level(0, 100, 1000).reason == Reason.LEVEL
    assert core.level(1, 0, 1000).reason == Reason.VALUE
    assert core.level(1, 100, LIMIT_US + 1).reason == Reason.WIDTH
    assert core.level(1, 100, 5000).moved
    assert core.duty(1) == 100
    assert not core.level(1, 7, 3000).moved
    assert core.duty(1) == 7
    assert core.order(Request.PULSE, 1, 1000).reason == Reason.BUSY
    assert not core.order(Request.ON, 1, 3000).moved
    assert (core.high, core.duty(1)) == (2, 0)
    core.level(1, 9, 3000)
    core.advance_us(2999)
    assert core.high == 2
    core.advance_us(1)
    assert core.high == 0


@pytest.mark.parametrize(
    ("delay_us", "width_us", "period_us", "count", "reason"),
    [
        (0, 19, 1000, 2, Reason.WIDTH),
        (0, LIMIT_US + 1, 100_000, 2, Reason.WIDTH),
        (0, 1000, 1019, 2, Reason.VALUE),
        (0, 1000, 500, 2, Reason.VALUE),
        (0, 1000, 0, 2, Reason.VALUE),
        (0, 1000, protocol.MAX_WIDTH_US + 1, 2, Reason.VALUE),
        (0, 1000, 2000, 0, Reason.VALUE),
        (protocol.MIN_DELAY_US - 1, 1000, 2000, 2, Reason.VALUE),
        (protocol.MAX_WIDTH_US + 1, 1000, 2000, 2, Reason.VALUE),
        (0, 1000, protocol.MAX_WIDTH_US, 11, Reason.VALUE),
        (0, 1000, 10_000, 60_001, Reason.VALUE),
        (0, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFF, Reason.WIDTH),
        (0, 100, 499, 2, Reason.RATE),
    ],
)
def test_a_train_that_cannot_be_made_is_refused(
    core: Core, delay_us: int, width_us: int, period_us: int, count: int, reason: Reason
) -> None:
    core.reset()
    core.sent()
    core.arm()
    assert core.train(0, delay_us, width_us, period_us, count).reason == reason
    assert core.train(0, 0, 1000, 0, 1).moved, "with one pulse the period is not looked at"


def test_all_trains_together_have_a_highest_rate(core: Core) -> None:
    core.reset()
    core.sent()
    core.arm()
    assert core.train(0, 0, 100, 1000, 20).moved
    assert core.train(1, 0, 100, 1000, 20).moved
    assert core.train(2, 0, 100, 50_000, 20).reason == Reason.RATE
    core.order(Request.OFF, 0)
    assert core.train(2, 0, 100, 50_000, 20).moved


# ---------------------------------------------------------------------------------- dose


def test_the_dose_comes_back_after_its_window(core: Core) -> None:
    core.reset()
    core.sent()
    core.ask(Request.LIMIT, protocol.limit_data(0, LIMIT_US, 0, 10_000, 40_000))
    core.ask(Request.WATCHDOG, protocol.watchdog_data(1000))
    core.ask(Request.ARM, protocol.arm_data(SESSION))
    assert core.order(Request.PULSE, 0, 10_000).moved
    core.advance_us(10_000)
    assert core.order(Request.PULSE, 0, 20).reason == Reason.DOSE
    core.advance_us(39_999)
    assert core.order(Request.PULSE, 0, 20).reason == Reason.DOSE
    core.advance_us(10_001)
    assert core.order(Request.PULSE, 0, 10_000).moved


def test_a_new_limit_does_not_give_the_dose_back(core: Core) -> None:
    core.reset()
    core.sent()

    def set_limit(*figures: int) -> None:
        core.ask(Request.SAFE)
        core.ask(Request.LIMIT, protocol.limit_data(0, LIMIT_US, *figures))
        core.ask(Request.ARM, protocol.arm_data(SESSION))

    set_limit(0, 10_000, 1_000_000)
    assert core.order(Request.PULSE, 0, 10_000).moved
    core.advance_us(10_000)
    for figures in ((0, 10_000, 1_000_000), (0, 10_000, 500_000), (10, 10_000, 900_000)):
        set_limit(*figures)
        assert core.order(Request.PULSE, 0, 20).reason == Reason.DOSE
    set_limit(0, 10_000, 0)
    assert core.order(Request.PULSE, 0, 10_000).moved
    core.advance_us(10_000)
    set_limit(0, 10_000, 0)
    assert core.order(Request.PULSE, 0, 20).reason == Reason.DOSE
