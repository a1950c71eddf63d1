"""The TTL board's wire format, and the portable core of its firmware stepped on this machine."""

import contextlib
import ctypes
import enum
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtpose.errors import MessageError
from rtpose_hardware import protocol
from rtpose_hardware.answers import (
    BoardClock,
    BoardStatus,
    Counters,
    Done,
    Hello,
    Received,
    Trip,
    parse,
)
from rtpose_hardware.protocol import (
    Answer,
    Event,
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

payloads = st.binary(min_size=2, max_size=protocol.FRAME_MAX_ANSWER)


def definitions() -> dict[str, int]:
    """Return the numbers that protocol.h defines."""
    text = (FIRMWARE / "protocol.h").read_text()
    found = re.findall(r"^#define (\w+) (\w+)", text, re.MULTILINE)
    return {name: int(value, 0) for name, value in found}


def posix_cksum(data: bytes) -> int:
    """Return the CRC of the POSIX utility cksum."""
    length = len(data)
    data += length.to_bytes((length.bit_length() + 7) // 8, "little")
    crc = 0
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1) ^ (0x104C11DB7 if crc & 0x80000000 else 0)
    return crc ^ 0xFFFFFFFF


# ------------------------------------------------------------------------- the same as the board


def test_every_constant_is_that_of_the_board() -> None:
    board = definitions()
    enums: dict[str, type[enum.IntEnum] | type[enum.IntFlag]] = {
        "REQUEST": Request,
        "ANSWER": Answer,
        "EVENT": Event,
        "INPUT": InputMode,
        "STOP_MODE": StopMode,
        "STOP_STATE": StopState,
        "FAULT": Fault,
        "REASON": Reason,
        "RESET": Reset,
    }
    checked = set()
    for prefix, kind in enums.items():
        for member in kind:
            name = f"{prefix}_{member.name}"
            assert member.value == board[name], name
            checked.add(name)
    for name in set(board) - checked:
        assert getattr(protocol, name) == board[name], name
    assert set(protocol.REFUSALS) == set(Reason)
    assert set(protocol.RESETS) == set(Reset)
    assert set(protocol.FAULTS) == set(Fault)


def test_the_hash_is_that_of_the_definitions() -> None:
    kept = []
    for line in (FIRMWARE / "protocol.h").read_text().splitlines():
        if line.startswith("#define "):
            kept.append(" ".join(line.split("/*")[0].split()[1:]) + "\n")
    assert posix_cksum("".join(kept).encode()) == protocol.PROTOCOL_HASH, (
        "protocol.h has changed: change PROTOCOL_VERSION where the format has, and PROTOCOL_HASH"
    )


# -------------------------------------------------------------------------------------- framing


def test_the_checksum_is_the_known_one() -> None:
    # CRC-16/GENIBUS in the Catalogue of parametrised CRC algorithms.
    assert protocol.checksum(b"123456789") == 0xD64E


@given(payloads)
def test_a_payload_comes_back_and_only_its_last_byte_is_the_end(payload: bytes) -> None:
    frame = protocol.encode(payload)
    assert frame.index(protocol.FRAME_END) == len(frame) - 1
    assert protocol.decode(frame[:-1]) == payload


@given(st.lists(payloads, max_size=8), st.binary(max_size=30), st.data())
def test_frames_are_found_however_the_stream_is_cut(
    sent: list[bytes], noise: bytes, data: st.DataObject
) -> None:
    stream = noise + b"\xc0" + b"".join(map(protocol.encode, sent))
    reader, received = FrameReader(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        received += reader.feed(stream[:size])
        stream = stream[size:]
    assert received[len(received) - len(sent) :] == sent


@given(payloads, st.data())
def test_one_wrong_bit_is_noticed(payload: bytes, data: st.DataObject) -> None:
    body = bytearray(protocol.encode(payload)[:-1])
    bit = data.draw(st.integers(0, 8 * len(body) - 1))
    body[bit // 8] ^= 1 << bit % 8
    assert payload not in FrameReader().feed(bytes(body) + b"\xc0")


@given(payloads, st.integers(1, 4))
def test_zeros_behind_a_frame_are_noticed(payload: bytes, count: int) -> None:
    body = protocol.encode(payload)[:-1] + bytes(count)
    with pytest.raises(MessageError):
        protocol.decode(body)


@given(st.binary(max_size=2000))
def test_noise_is_never_kept_for_long(noise: bytes) -> None:
    reader = FrameReader()
    for start in range(0, len(noise), 10):
        reader.feed(noise[start : start + 10].replace(b"\xc0", b""))
    reader.feed(b"\xc0")
    assert reader.feed(protocol.encode(b"\x80\x01")) == [b"\x80\x01"]


@given(st.binary(min_size=2, max_size=60))
def test_a_payload_is_parsed_or_refused_as_a_message_error(payload: bytes) -> None:
    with contextlib.suppress(MessageError):
        parse(payload)


@pytest.mark.parametrize("payload", [b"\x80\x01\x02", b"\x83\x01", b"\x84\x00\x00", b"\x77\x00"])
def test_what_is_no_answer_is_refused(payload: bytes) -> None:
    with pytest.raises(MessageError):
        parse(payload)


# ------------------------------------------------------------------------------ the board's clock


@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(0, 2**33), max_size=20),
    st.floats(-0.005, 0.005),
)
def test_the_clock_goes_on_over_its_wrap(start: int, steps_us: list[int], drift: float) -> None:
    clock, true_us, host_ns = BoardClock(), start, 10**15
    assert clock.extend(start, host_ns) == start
    for step_us in steps_us:
        true_us += step_us
        host_ns += int(step_us * 1000 * (1 + drift))
        assert clock.extend(true_us % 2**32, host_ns) == true_us


def test_answers_that_overtake_each_other_by_a_little_do_not_jump_by_a_wrap() -> None:
    clock = BoardClock()
    clock.extend(2**32 - 5, 1_000_000)
    assert clock.extend(3, 1_001_000) == 2**32 + 3
    assert clock.extend(2**32 - 1, 1_002_000) == 2**32 - 1


# ----------------------------------------------------------------- the firmware's portable core


class Core:
    """The board's core, compiled for this machine; its clock stands until it is told to go on."""

    def __init__(self, library: Path) -> None:
        self._lib = ctypes.CDLL(str(library))
        self._lib.host_sent.argtypes = [ctypes.c_char_p]
        self._lib.host_high.restype = ctypes.c_uint8
        self._lib.host_shows_armed.restype = ctypes.c_bool
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

    def ask(self, kind: Request, data: bytes = b"") -> Received:
        self._sequence = (self._sequence + 1) % 256
        (answer,) = self.take(protocol.request(kind, self._sequence, data))
        assert answer.sequence == self._sequence
        return answer

    def order(self, kind: Request, line: int, width_us: int = 0) -> Done:
        self._sequence = (self._sequence + 1) % 256
        (answer,) = self.take(protocol.order(kind, self._sequence, line, width_us))
        assert isinstance(answer, Done)
        assert answer.sequence == self._sequence
        return answer

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


few = st.integers(0, 2)
widths_us = st.one_of(
    st.integers(protocol.MIN_WIDTH_US, LIMIT_US),
    st.sampled_from([1, LIMIT_US, LIMIT_US + 1, 2 * LIMIT_US]),
)
steps = st.one_of(
    st.tuples(st.sampled_from([Request.ON, Request.PULSE]), few, widths_us),
    st.tuples(st.just(Request.OFF), few, st.just(0)),
    st.tuples(st.sampled_from([Request.BEAT, Request.SAFE, Request.ARM]), st.just(0), st.just(0)),
)
pauses_us = st.one_of(st.integers(0, LIMIT_US // 2), st.integers(0, WATCHDOG_US * 3 // 2))


@settings(max_examples=300)
@given(st.lists(st.tuples(steps, pauses_us), max_size=40))
def test_no_order_keeps_a_line_high_beyond_its_limit_or_the_watchdog(
    core: Core, script: list[tuple[tuple[Request, int, int], int]]
) -> None:
    """Whatever is ordered whenever, compare the board with a model of what it promises."""
    core.reset()
    core.sent()
    core.arm()
    now_us, heard_us, armed = 0, 0, True
    rise_us: dict[int, int] = {}
    fall_us: dict[int, int] = {}

    def settle() -> None:
        nonlocal armed
        if armed and now_us - heard_us >= WATCHDOG_US:
            armed = False
            rise_us.clear()
        for line in [line for line in rise_us if fall_us[line] <= now_us]:
            del rise_us[line]

    for (kind, line, width_us), pause_us in script:
        settle()
        fits = armed and protocol.MIN_WIDTH_US <= width_us <= LIMIT_US
        if kind in (Request.ON, Request.PULSE):
            done = core.order(kind, line, width_us)
            assert done.moved == (fits and line not in rise_us)
            if done.moved:
                rise_us[line], fall_us[line] = now_us, now_us + width_us
            elif fits and kind == Request.ON:
                fall_us[line] = min(now_us + width_us, rise_us[line] + LIMIT_US)
        elif kind == Request.OFF:
            assert core.order(kind, line).moved == (line in rise_us)
            rise_us.pop(line, None)
        elif kind == Request.SAFE:
            core.ask(kind)
            armed = False
            rise_us.clear()
        else:
            core.ask(kind, protocol.arm_data(SESSION) if kind == Request.ARM else b"")
            armed = armed or kind == Request.ARM
        heard_us = now_us
        assert core.high == sum(1 << line for line in rise_us)
        core.advance_us(pause_us)
        now_us += pause_us
        settle()
        assert core.high == sum(1 << line for line in rise_us)
