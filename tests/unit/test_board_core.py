"""The portable core of the TTL board's firmware, stepped on this machine."""

import ctypes
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtpose_hardware import protocol
from rtpose_hardware.answers import (
    BoardStatus,
    Counters,
    Done,
    Hello,
    InputEdge,
    Received,
    SelfTest,
    Stopped,
    Trip,
    parse,
)
from rtpose_hardware.protocol import (
    Fault,
    FrameReader,
    InputMode,
    Reason,
    Request,
    Reset,
    StopMode,
    StopState,
)

FIRMWARE = Path(__file__).resolve().parents[2] / "hardware" / "firmware"

TICKS_PER_US = 16
SESSION = 7
WATCHDOG_US = 50_000
LIMIT_US = 20_000


class Core:
    """The board's core, compiled for this machine; its clock stands until it is told to go on."""

    def __init__(self, library: Path) -> None:
        self._lib = ctypes.CDLL(str(library))
        self._lib.host_sent.argtypes = [ctypes.c_char_p]
        self._lib.host_high.restype = ctypes.c_uint8
        self._lib.host_duty.restype = ctypes.c_uint8
        self._lib.host_shows_armed.restype = ctypes.c_bool
        self._lib.host_stop.argtypes = [ctypes.c_bool]
        self._lib.host_move.restype = ctypes.c_uint64
        self._lib.host_set_health.argtypes = [
            ctypes.c_uint16,
            ctypes.c_uint16,
            ctypes.c_bool,
            ctypes.c_uint8,
        ]
        self.reset()

    def reset(self) -> None:
        self._lib.host_reset(int(Reset.POWER))
        self._reader = FrameReader()
        self._sequence = 0

    def take(self, data: bytes) -> list[Received]:
        """Let the board receive bytes; return what it sends."""
        self._lib.host_take(data, len(data))
        return self.sent()

    def advance_us(self, time_us: int) -> list[Received]:
        """Let board time pass; return what it sends."""
        self._lib.host_advance(time_us * TICKS_PER_US)
        return self.sent()

    def sent(self) -> list[Received]:
        buffer = ctypes.create_string_buffer(1 << 16)
        count = self._lib.host_sent(buffer)
        return [parse(payload) for payload in self._reader.feed(buffer.raw[:count])]

    @property
    def high(self) -> int:
        return int(self._lib.host_high())

    @property
    def shows_armed(self) -> bool:
        return bool(self._lib.host_shows_armed())

    def duty(self, line: int) -> int:
        """How a line switches; 0 if it is low or high all the time."""
        return int(self._lib.host_duty(line))

    def drive(self, index: int, level: int) -> None:
        """Drive an input."""
        self._lib.host_input(index, level)

    def stop(self, *, well: bool) -> None:
        """Drive the stop input."""
        self._lib.host_stop(well)

    def set_health(self, checksum: int, free_stack: int, clock_runs: bool, held: int) -> None:
        """Say what the chip finds when it examines itself."""
        self._lib.host_set_health(checksum, free_stack, clock_runs, held)

    def spans_us(self, line: int) -> list[tuple[int, int]]:
        """When the line was high since the reset."""
        high, rise_us, spans = ctypes.c_uint8(), None, []
        for number in range(1 << 16):
            tick = self._lib.host_move(number, ctypes.byref(high))
            if tick == 2**64 - 1:
                break
            is_high = bool(high.value >> line & 1)
            if is_high and rise_us is None:
                rise_us = tick // TICKS_PER_US
            elif not is_high and rise_us is not None:
                spans.append((rise_us, tick // TICKS_PER_US))
                rise_us = None
        assert rise_us is None
        return [(rise, fall) for rise, fall in spans if fall > rise]

    def status(self) -> BoardStatus:
        status = self.ask(Request.STATUS)
        assert isinstance(status, BoardStatus)
        return status

    def ask(self, kind: Request, data: bytes = b"") -> Received:
        self._sequence = (self._sequence + 1) % 256
        (answer,) = self.take(protocol.request(kind, self._sequence, data))
        assert answer.sequence == self._sequence
        return answer

    def order(self, kind: Request, line: int, width_us: int = 0) -> Done:
        self._sequence = (self._sequence + 1) % 256
        return self._order(protocol.order(kind, self._sequence, line, width_us))

    def _order(self, frame: bytes) -> Done:
        (answer,) = self.take(frame)
        assert isinstance(answer, Done)
        assert answer.sequence == self._sequence
        return answer

    def level(self, line: int, duty: int, width_us: int) -> Done:
        self._sequence = (self._sequence + 1) % 256
        return self._order(protocol.level_order(self._sequence, line, duty, width_us))

    def train(self, line: int, delay_us: int, width_us: int, period_us: int, count: int) -> Done:
        self._sequence = (self._sequence + 1) % 256
        frame = protocol.train_order(
            self._sequence,
            line,
            delay_us=delay_us,
            width_us=width_us,
            period_us=period_us,
            count=count,
        )
        return self._order(frame)

    def arm(self) -> None:
        for line in range(protocol.LINES):
            self.ask(Request.LIMIT, protocol.limit_data(line, LIMIT_US))
        self.ask(Request.WATCHDOG, protocol.watchdog_data(WATCHDOG_US // 1000))
        self.ask(Request.ARM, protocol.arm_data(SESSION))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    missing = [name for name, tool in (("gcc", "cc"), ("make", "make")) if not shutil.which(tool)]
    if missing:
        message = f"the firmware's core cannot be built, packages missing: {', '.join(missing)}"
        if os.environ.get("RTPOSE_REQUIRE_HARDWARE") == "1":
            pytest.fail(message)
        pytest.skip(message)
    folder = tmp_path_factory.mktemp("firmware")
    command = ["make", "-s", "-C", str(FIRMWARE), f"BUILD={folder}", "host"]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "libboard.so"


@pytest.fixture(scope="module")
def core(library: Path) -> Iterator[Core]:
    core = Core(library)
    yield core
    core.reset()


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


# ------------------------------------------------------- everything, compared with a slow model


@dataclass
class Use:
    """An order that was carried out: when it is on, and whether it was cut."""

    rise_us: int
    width_us: int
    period_us: int
    count: int
    is_train: bool
    cut_us: int = 2**63

    @property
    def planned_end_us(self) -> int:
        return self.rise_us + self.width_us + (self.count - 1) * self.period_us

    def spans(self) -> list[tuple[int, int]]:
        rises = [self.rise_us + number * self.period_us for number in range(self.count)]
        return [(r, min(r + self.width_us, self.cut_us)) for r in rises if r < self.cut_us]


@dataclass
class Line:
    """What a line may do, and has done."""

    longest_us: int
    refractory_us: int = 0
    dose_us: int = 0
    window_us: int = 0
    uses: list[Use] = field(default_factory=list)

    def running(self, now_us: int) -> Use | None:
        for use in self.uses:
            if now_us < min(use.planned_end_us, use.cut_us):
                return use
        return None

    def spans(self) -> list[tuple[int, int]]:
        return [span for use in self.uses for span in use.spans()]

    def last_fall_us(self, now_us: int) -> int:
        return max((fall for _, fall in self.spans() if fall <= now_us), default=-(2**63))

    def charged_us(self, since_us: int) -> int:
        """On-time of the uses that ended, by themselves or cut, after a time."""
        return sum(
            fall - rise
            for use in self.uses
            if not self.window_us or min(use.planned_end_us, use.cut_us) > since_us
            for rise, fall in use.spans()
        )

    def on_us(self, since_us: int) -> int:
        """On-time of the uses that were on after a time."""
        uses = [use.spans() for use in self.uses]
        return sum(
            fall - rise
            for spans in uses
            if spans and (not self.window_us or spans[-1][1] > since_us)
            for rise, fall in spans
        )

    def drop(self, now_us: int) -> bool:
        use = self.running(now_us)
        if use is not None:
            use.cut_us = now_us
        return use is not None


class Model:
    """What the board promises, without any of its economies."""

    def __init__(self, lines: list[Line], watchdog_us: int = WATCHDOG_US) -> None:
        self.now_us = self.heard_us = 0
        self.armed = True
        self.well = True
        self.lines = lines
        self.watchdog_us = watchdog_us

    def pass_time(self, us: int) -> None:
        self.now_us += us
        if self.armed and self.now_us - self.heard_us >= self.watchdog_us:
            self.disarm(self.heard_us + self.watchdog_us)

    def disarm(self, at_us: int) -> None:
        self.armed = False
        for line in self.lines:
            line.drop(at_us)

    @property
    def high(self) -> int:
        now_us = self.now_us
        return sum(
            1 << number
            for number, line in enumerate(self.lines)
            if any(rise <= now_us < fall for rise, fall in line.spans())
        )

    def refusals(self, line: Line, delay_us: int, on_us: int) -> set[int | None]:
        """What the board may answer: None is yes. It may give dose back a quarter late."""
        if self.now_us + delay_us - line.last_fall_us(self.now_us) < line.refractory_us:
            return {Reason.REFRACTORY}
        if not line.dose_us:
            return {None}
        window_us = line.window_us
        may = line.on_us(self.now_us - window_us) + on_us <= line.dose_us
        late_us = window_us + window_us // 4 + 1
        must = line.charged_us(self.now_us - late_us) + on_us <= line.dose_us
        return {None} if must else {Reason.DOSE, None} if may else {Reason.DOSE}

    def on(self, kind: Request, number: int, width_us: int, done: Done) -> None:
        line = self.lines[number]
        use = line.running(self.now_us)
        if not self.armed:
            assert done.reason == Reason.DISARMED
        elif not protocol.MIN_WIDTH_US <= width_us <= line.longest_us:
            assert done.reason == Reason.WIDTH
        elif use and (use.is_train or kind == Request.PULSE):
            assert done.reason == Reason.BUSY
        elif use:
            assert (done.moved, done.reason) == (False, None)
            longest_us = line.longest_us
            if line.dose_us:
                spent_us = line.charged_us(0) - use.width_us
                longest_us = min(longest_us, line.dose_us - spent_us)
            elapsed_us = self.now_us - use.rise_us
            if elapsed_us + protocol.MIN_DELAY_US <= longest_us:
                new_us = elapsed_us + max(width_us, protocol.MIN_DELAY_US)
                use.width_us = min(new_us, longest_us)
        else:
            assert done.reason in self.refusals(line, 0, width_us)
            if done.moved:
                line.uses.append(Use(self.now_us, width_us, 0, 1, False))

    def train(self, number: int, figures: tuple[int, int, int, int], done: Done) -> None:
        delay_us, width_us, period_us, count = figures
        line = self.lines[number]
        if not self.armed:
            assert done.reason == Reason.DISARMED
        elif count > 1 and period_us - width_us < max(line.refractory_us, protocol.MIN_WIDTH_US):
            assert done.reason in (Reason.VALUE, Reason.REFRACTORY)
        elif line.running(self.now_us):
            assert done.reason == Reason.BUSY
        elif done.reason != Reason.RATE:
            assert done.reason in self.refusals(line, delay_us, width_us * count)
            if done.moved:
                use = Use(self.now_us + delay_us, width_us, period_us, count, True)
                assert done.time_us == use.rise_us
                line.uses.append(use)


#: Steps (what is asked, of which line or input, with which figures), each with a pause after it.
Script = list[tuple[tuple[Request, int | None, object], int]]

numbers = st.integers(0, 3)
widths_us = st.one_of(
    st.integers(protocol.MIN_WIDTH_US, LIMIT_US),
    st.sampled_from([1, protocol.MIN_WIDTH_US, LIMIT_US, LIMIT_US + 1, 2 * LIMIT_US]),
)
trains = st.tuples(
    st.sampled_from([0, 100, 4000]),
    st.integers(20, 4000),
    st.integers(1000, 9000),
    st.integers(1, 8),
)
steps = st.one_of(
    st.tuples(st.sampled_from([Request.ON, Request.PULSE, Request.LEVEL]), numbers, widths_us),
    st.tuples(st.just(Request.TRAIN), numbers, trains),
    st.tuples(st.just(Request.OFF), numbers, st.none()),
    st.tuples(
        st.sampled_from([Request.BEAT, Request.SAFE, Request.ARM, Request.ARM]),
        st.none(),
        st.none(),
    ),
    st.tuples(st.just(Request.STOP_INPUT), st.booleans(), st.none()),
    st.tuples(st.just(Request.LIMIT), numbers, st.none()),
)
pauses_us = st.one_of(
    st.integers(0, LIMIT_US // 2), st.integers(0, WATCHDOG_US * 3 // 2), st.sampled_from([0, 3000])
)


def start_like(model: Model, core: Core) -> None:
    core.reset()
    core.sent()
    for number, line in enumerate(model.lines):
        core.ask(Request.LIMIT, limit_of(number, line))
    core.ask(Request.STOP_INPUT, protocol.stop_input_data(StopMode.HIGH))
    core.ask(Request.WATCHDOG, protocol.watchdog_data(model.watchdog_us // 1000))
    core.ask(Request.ARM, protocol.arm_data(SESSION))


def limit_of(number: int, line: Line) -> bytes:
    return protocol.limit_data(
        number, line.longest_us, line.refractory_us, line.dose_us, line.window_us
    )


def do(model: Model, core: Core, kind: Request, what: int | None, figures: object) -> None:
    """Do one step on the board and on the model, and compare the answers."""
    if kind == Request.STOP_INPUT:
        model.well = bool(what)
        core.stop(well=model.well)
        core.advance_us(0)
        if model.armed and not model.well:
            model.disarm(model.now_us)
        return
    if kind == Request.ARM:
        answer = core.ask(kind, protocol.arm_data(SESSION))
        assert isinstance(answer, Done)
        assert answer.moved == model.well
        model.armed = model.armed or model.well
    elif kind == Request.SAFE:
        core.ask(kind)
        model.disarm(model.now_us)
    elif kind == Request.BEAT:
        core.ask(kind)
    elif what is not None:
        order(model, core, kind, what, figures)
    model.heard_us = model.now_us


def order(model: Model, core: Core, kind: Request, number: int, figures: object) -> None:
    line = model.lines[number]
    if kind == Request.OFF:
        assert core.order(kind, number).moved == line.drop(model.now_us)
    elif kind == Request.LIMIT:  # the same limit once more, while disarmed: nothing changes
        core.ask(kind, limit_of(number, line))
    elif isinstance(figures, tuple):
        model.train(number, figures, core.train(number, *figures))
    elif isinstance(figures, int):
        running = line.running(model.now_us)
        if line.window_us and running and not running.is_train and kind != Request.PULSE:
            return  # how far it may be extended depends on what is given back by then
        if kind == Request.LEVEL and number in (1, 2):
            model.on(kind, number, figures, core.level(number, 50, figures))
        elif kind != Request.LEVEL:
            model.on(kind, number, figures, core.order(kind, number, figures))


def most_on_us(spans: list[tuple[int, int]], window_us: int) -> int:
    """The on-time in the worst window: it may be taken to begin or end at an edge."""
    starts = [rise for rise, _ in spans] + [fall - window_us for _, fall in spans]
    return max(
        (
            sum(max(0, min(fall, start + window_us) - max(rise, start)) for rise, fall in spans)
            for start in starts
        ),
        default=0,
    )


def run(model: Model, core: Core, script: Script) -> None:
    """Do all steps on the board and on the model, and compare every edge."""
    start_like(model, core)
    for (kind, what, figures), pause_us in script:
        do(model, core, kind, what, figures)
        assert core.high == model.high
        core.advance_us(pause_us)
        model.pass_time(pause_us)
        assert core.high == model.high
    core.advance_us(2 * model.watchdog_us)
    model.pass_time(2 * model.watchdog_us)
    for number, line in enumerate(model.lines):
        spans = core.spans_us(number)
        assert spans == [span for span in line.spans() if span[0] < span[1]]
        for (_, fall), (rise, _) in itertools.pairwise(spans):
            assert rise - fall >= line.refractory_us
        assert all(fall - rise <= line.longest_us for rise, fall in spans)
        if line.dose_us:
            assert most_on_us(spans, line.window_us or 2**62) <= line.dose_us


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(steps, pauses_us), max_size=40))
def test_the_lines_do_what_was_ordered_within_every_limit(core: Core, script: Script) -> None:
    """Whatever is ordered whenever, compare the board with a model of what it promises."""
    lines = [
        Line(LIMIT_US),
        Line(LIMIT_US, refractory_us=3000),
        Line(LIMIT_US, refractory_us=100, dose_us=30_000, window_us=100_000),
        Line(LIMIT_US, dose_us=60_000),
    ]
    run(Model(lines), core, script)


#: Around the borders of `near_limits`, where a wrong unit or comparison shows.
near_widths_us = st.sampled_from([20, 500, 999, 1000, 2000, 3999, 4000, 4001])
near_pauses_us = st.sampled_from([0, 1, 499, 500, 501, 1000, 1999, 2000, 2001, 4000, 7999, 8000])
near_steps = st.one_of(
    st.tuples(st.just(Request.PULSE), st.just(0), near_widths_us),
    st.tuples(st.just(Request.ON), st.just(0), near_widths_us),
    st.tuples(
        st.just(Request.TRAIN),
        st.just(0),
        st.tuples(
            st.sampled_from([0, 100, 499, 500, 8000]),
            st.sampled_from([100, 500, 2000]),
            st.sampled_from([1000, 2500, 10_000]),
            st.integers(1, 5),
        ),
    ),
    st.tuples(st.just(Request.OFF), st.just(0), st.none()),
)
near_limits = st.sampled_from(
    [(500, 0, 0), (0, 4000, 8000), (0, 4001, 8002), (0, 20_000, 0), (500, 4000, 8000)]
)


@settings(max_examples=800, deadline=None)
@given(near_limits, st.lists(st.tuples(near_steps, near_pauses_us), min_size=5, max_size=40))
def test_refractory_time_and_dose_hold_to_the_microsecond(
    core: Core,
    limit: tuple[int, int, int],
    script: Script,
) -> None:
    run(Model([Line(LIMIT_US, *limit)], 1_000_000), core, script)


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
