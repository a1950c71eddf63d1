"""The TTL board's wire format, and the portable core of its firmware stepped on this machine."""

import contextlib
import enum
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtpose.errors import MessageError
from rtpose_hardware import protocol
from rtpose_hardware.answers import (
    BoardClock,
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
