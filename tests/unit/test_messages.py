"""The wire format: what is sent arrives unchanged, and nothing that arrives can do harm."""

import json
import math
from collections.abc import Callable
from typing import Any, get_args

import msgpack
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError

from rtpose.errors import MessageError
from rtpose.messages import (
    MAX_DEPTH,
    MAX_PAYLOAD_BYTES,
    Ack,
    AnyMessage,
    Command,
    EventKind,
    FrameHeader,
    Heartbeat,
    InputEvent,
    Message,
    Pose,
    Reply,
    Request,
    Status,
    TriggerEvent,
    Withheld,
    decode,
    encode,
    encode_direct,
    encode_json,
)

counts = st.integers(0, 2**63 - 1)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=128)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
free = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
free_maps = st.dictionaries(texts, free, max_size=4)
counters = st.dictionaries(texts, counts, max_size=4)
maybe = {name: st.none() | counts for name in ("frame_id", "command_ns", "budget_ns")}
stamps = (
    "arrival_ns",
    "ready_ns",
    "infer_start_ns",
    "infer_end_ns",
    "publish_ns",
    "repeated_ns",
)

commands = st.one_of(
    st.builds(Command, command_id=counts, output=names, line=names, action=st.just("off")),
    st.builds(
        Command,
        command_id=counts,
        output=names,
        line=names,
        action=st.just("pulse"),
        width_us=st.integers(1, 60_000_000),
    ),
    st.builds(
        Command,
        command_id=counts,
        output=names,
        line=names,
        action=st.just("on"),
        width_us=st.integers(1, 60_000_000),
        level=st.floats(0, 1, exclude_min=True),
    ),
    st.builds(
        Command,
        command_id=counts,
        output=names,
        line=names,
        action=st.just("train"),
        width_us=st.integers(1, 1000),
        period_us=st.integers(1001, 2000),
        delay_us=st.integers(0, 400_000_000),
        count=st.integers(1, 65_535),
    ),
)
PLAIN_REQUESTS = (
    "status",
    "arm",
    "disarm",
    "estop",
    "release",
    "trial",
    "end-trial",
    "stop",
)
plain = st.one_of(
    commands,
    st.builds(
        Ack,
        run=names,
        command_id=counts,
        output=names,
        line=names,
        ok=st.booleans(),
        confirmed=st.booleans(),
        command_ns=counts,
        ack_ns=counts,
        device_us=st.none() | counts,
        device_ns=st.none() | counts,
        detail=texts,
    ),
    st.builds(
        InputEvent,
        run=names,
        output=names,
        input=names,
        level=st.booleans(),
        time_ns=st.none() | counts,
        uncertainty_ns=st.none() | counts,
        arrival_ns=counts,
        device_us=st.none() | counts,
        stop=st.booleans(),
        missed=counts,
    ),
    st.builds(
        TriggerEvent,
        run=names,
        seq=counts,
        kind=st.sampled_from(get_args(EventKind)),
        trigger=st.none() | names,
        camera=st.none() | names,
        exposure_ns=st.none() | counts,
        **maybe,
        **{name: st.none() | counts for name in (*stamps, "receive_ns")},
        decide_ns=counts,
        command=st.none() | commands,
        withheld=st.none() | st.sampled_from(get_args(Withheld)),
        draw=st.none() | st.floats(0, 1),
        trial=st.none() | counts,
        asked=st.booleans(),
        forecast_ns=st.none() | counts,
        detail=texts,
    ),
    st.builds(
        Status,
        run=names,
        process=names,
        state=names,
        sent_ns=counts,
        counters=counters,
        info=free_maps,
    ),
    st.builds(
        Heartbeat,
        process=names,
        pid=counts,
        sent_ns=counts,
        ready=st.booleans(),
        finished=st.booleans(),
        stop_requested=st.booleans(),
        failure=texts,
        failure_code=st.integers(0, 255),
        counters=counters,
        info=free_maps,
    ),
    st.builds(Request, action=st.sampled_from(PLAIN_REQUESTS)),
    st.builds(
        Request,
        action=st.just("fire"),
        line=names,
        width_ms=st.floats(0, 60_000, exclude_min=True),
    ),
    st.builds(Request, action=st.just("set"), trigger=names, key=names, value=free),
    st.builds(
        Reply,
        ok=st.booleans(),
        state=names,
        reasons=st.lists(texts, max_size=4),
        status=free_maps,
    ),
)


@st.composite
def poses(draw: st.DrawFn) -> Pose:
    individuals, keypoints = draw(st.integers(0, 3)), draw(st.integers(0, 5))
    return Pose(
        run=draw(names),
        camera=draw(names),
        seq=draw(counts),
        frame_id=draw(counts),
        dropped=draw(counts),
        exposure_ns=draw(st.none() | counts),
        keypoints=draw(
            hnp.arrays(np.float32, (individuals, keypoints, 3), elements=st.floats(width=32))
        ),
        valid=draw(hnp.arrays(np.uint8, (individuals, keypoints), elements=st.integers(0, 1))),
        **{name: draw(counts) for name in stamps},
    )


messages = plain | poses()
encodings = st.sampled_from([encode, encode_json])


def pose_map(**changes: Any) -> dict[str, Any]:
    """A right pose in the JSON layout, with something changed."""
    right = {
        "v": 1,
        "type": "pose",
        "run": "r",
        "camera": "top",
        "seq": 1,
        "frame_id": 2,
        "dropped": 0,
        "exposure_ns": None,
        **dict.fromkeys(stamps, 5),
        "shape": [1, 2, 3],
        "keypoints": [[[1, 2.5, 0.5], [None, None, 0]]],
        "valid": [[1, 0]],
    }
    return {**right, **changes}


def status_map(**changes: Any) -> dict[str, Any]:
    right = {"v": 1, "type": "status", "run": "r", "process": "p", "state": "s", "sent_ns": 1}
    return {**right, **changes}


def assert_same(got: AnyMessage, sent: AnyMessage, exact: bool) -> None:
    if isinstance(sent, Pose):
        assert isinstance(got, Pose)
        scalars = [name for name in Pose.__slots__ if name not in ("keypoints", "valid")]
        assert all(getattr(got, name) == getattr(sent, name) for name in scalars)
        keypoints = sent.keypoints
        if not exact:  # JSON has one word for all that is not a number
            keypoints = np.where(np.isfinite(keypoints), keypoints, np.float32(np.nan))
        np.testing.assert_array_equal(got.keypoints, keypoints, strict=True)
        np.testing.assert_array_equal(got.valid, sent.valid, strict=True)
    else:
        assert got == sent


@given(messages)
def test_msgpack_round_trip(message: AnyMessage) -> None:
    assert_same(decode(encode(message)), message, exact=True)


@given(messages)
def test_direct_round_trip(message: AnyMessage) -> None:
    assert_same(decode(encode_direct(message)), message, exact=True)


@given(poses(), st.data())
def test_a_damaged_packed_pose_is_refused_or_whole(pose: Pose, data: st.DataObject) -> None:
    payload = bytearray(pose.pack())
    for _ in range(data.draw(st.integers(0, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    check_harmless(bytes(payload))
    with pytest.raises(MessageError):
        decode(pose.pack()[: data.draw(st.integers(0, len(pose.pack()) - 1))])
    with pytest.raises(MessageError):
        decode(pose.pack() + b"x")


@pytest.mark.parametrize("shape", [(0, 10_001, 3), (10_001, 0, 3)])
def test_a_packed_pose_of_more_than_any_holds_is_refused(shape: tuple[int, int, int]) -> None:
    stamps = (1, 2, 3, None, 5, 6, 7, 8, 9)
    pose = Pose("r", "top", *stamps, np.empty(shape, np.float32), np.empty(shape[:2], np.uint8))
    with pytest.raises(MessageError, match="more than any pose holds"):
        decode(pose.pack())


@given(messages)
def test_json_round_trip(message: AnyMessage) -> None:
    assert_same(decode(encode_json(message)), message, exact=False)


def test_a_client_can_rely_on_this_layout_of_a_pose() -> None:
    keypoints = np.array([[[1.5, -2, 0.25], [np.nan, np.inf, 0]]], np.float32)
    pose = Pose(
        "r", "top", 1, 2, 3, None, 5, 6, 7, 8, 9, keypoints, np.array([[1, 0]], np.uint8), 10
    )
    common = {
        "v": 1,
        "type": "pose",
        "run": "r",
        "camera": "top",
        "seq": 1,
        "frame_id": 2,
        "dropped": 3,
        "exposure_ns": None,
        "arrival_ns": 5,
        "ready_ns": 6,
        "infer_start_ns": 7,
        "infer_end_ns": 8,
        "publish_ns": 9,
        "repeated_ns": 10,
        "shape": [1, 2, 3],
    }
    packed = bytes.fromhex("0000c03f 000000c0 0000803e 0000c07f 0000807f 00000000")
    assert msgpack.unpackb(encode(pose)) == {**common, "keypoints": packed, "valid": b"\x01\x00"}
    assert json.loads(encode_json(pose)) == {
        **common,
        "keypoints": [[[1.5, -2.0, 0.25], [None, None, 0.0]]],
        "valid": [[1, 0]],
    }


def test_big_endian_arrays_are_sent_little_endian() -> None:
    keypoints = np.array([[[1, 2, 3]]], ">f4")
    pose = Pose("r", "c", 1, 1, 0, None, 1, 1, 1, 1, 1, keypoints, np.ones((1, 1), np.uint8))
    received = decode(encode(pose))
    assert isinstance(received, Pose)
    assert received.keypoints.tolist() == [[[1, 2, 3]]]


@given(messages, encodings)
def test_unknown_fields_are_ignored(
    message: AnyMessage, encoding: Callable[[AnyMessage], bytes]
) -> None:
    read, write = (
        (json.loads, lambda m: json.dumps(m).encode())
        if encoding is encode_json
        else (msgpack.unpackb, msgpack.packb)
    )
    assert_same(
        decode(write({**read(encoding(message)), "field_of_a_later_release": [1]})),
        message,
        exact=encoding is encode,
    )


@given(
    messages,
    st.one_of(
        st.integers().filter(lambda v: v != 1), st.sampled_from([None, "1", 1.0, True, [1], {}])
    ),
)
def test_another_schema_version_is_refused(message: AnyMessage, version: object) -> None:
    payload = json.dumps({**message.to_json_wire(), "v": version}).encode()
    with pytest.raises(MessageError, match=r"schema version .*this reader has 1"):
        decode(payload)


@pytest.mark.parametrize("name", ["posee", "", None, 1, [], {}])
def test_an_unknown_type_is_refused(name: object) -> None:
    with pytest.raises(MessageError, match="unknown message type"):
        decode(json.dumps({"v": 1, "type": name}).encode())


def nested(depth: int, as_json: bool) -> bytes:
    return b"[" * depth + b"]" * depth if as_json else b"\x91" * (depth - 1) + b"\x90"


def check_harmless(payload: bytes) -> None:
    """Refused in words, or a message that can be passed on in both encodings."""
    try:
        message = decode(payload)
    except MessageError as error:
        assert 0 < len(str(error)) < 2000
    else:
        again = decode(encode(message))
        decode(encode_json(again))


@given(st.binary(max_size=300))
@example(b"")
@example(b"{")
@example(b"{}")
@example(b"\xc1")
@example(b"\x81\xc0\x01")
@example("{}".encode("utf-16"))
@example(b"\xdf\xff\xff\xff\xff")
@example(b"\xdd\xff\xff\xff\xff" * 60)
def test_arbitrary_bytes(payload: bytes) -> None:
    check_harmless(payload)


mutations = st.lists(
    st.tuples(
        st.sampled_from(["set", "insert", "cut"]), st.integers(0, 10_000), st.integers(0, 255)
    ),
    min_size=1,
    max_size=6,
)


@given(messages, encodings, mutations)
@settings(max_examples=300)
def test_damaged_payloads(
    message: AnyMessage,
    encoding: Callable[[AnyMessage], bytes],
    damage: list[tuple[str, int, int]],
) -> None:
    payload = bytearray(encoding(message))
    for kind, place, value in damage:
        place %= len(payload) or 1
        if kind == "set" and payload:
            payload[place] = value
        elif kind == "insert":
            payload.insert(place, value)
        else:
            del payload[place : place + 1 + value % 4]
    check_harmless(bytes(payload))


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=24),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(messages, st.data())
@settings(max_examples=300)
def test_any_value_in_any_field(message: AnyMessage, data: st.DataObject) -> None:
    wire = message.to_wire()
    for name in data.draw(st.lists(st.sampled_from(sorted(wire)), min_size=1, max_size=3)):
        wire[name] = data.draw(anything)
    check_harmless(msgpack.packb(wire))


@given(messages, st.data())
def test_missing_fields(message: AnyMessage, data: st.DataObject) -> None:
    wire = message.to_json_wire()
    del wire[data.draw(st.sampled_from(sorted(wire)))]
    check_harmless(json.dumps(wire).encode())


@pytest.mark.parametrize("depth", [17, 60, 900, 1020, 100_000])
@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("field", [*pose_map(), "info", "process", "counters", "later"])
def test_deep_nesting_in_any_field(field: str, as_json: bool, depth: int) -> None:
    right = pose_map() if field in pose_map() else status_map()
    right.pop(field, None)
    if as_json:
        start = json.dumps(right)[:-1].encode()
        payload = start + f', "{field}": '.encode() + nested(depth, True) + b"}"
    else:
        head, body = 0x80 | (len(right) + 1), msgpack.packb(right)
        body = body[3:] if body[0] == 0xDE else body[1:]
        start = bytes([head]) if head < 0x90 else b"\xde" + (len(right) + 1).to_bytes(2, "big")
        payload = start + body + msgpack.packb(field) + nested(depth, False)
    check_harmless(payload)


@pytest.mark.parametrize(
    "payload",
    [
        b"{" + b" " * MAX_PAYLOAD_BYTES,
        encode(Status(run="r", process="p", state="s", sent_ns=1, info={"x": "y" * 2**20})),
    ],
)
def test_longer_than_any_message_is_refused_unread(payload: bytes) -> None:
    with pytest.raises(MessageError, match=f"at most {MAX_PAYLOAD_BYTES} are read"):
        decode(payload)


@pytest.mark.parametrize(
    "wire",
    [
        {"v": 1, "type": "reply", "ok": True, "state": "s", "reasons": [1] * 500_000},
        status_map(counters={str(i): "x" for i in range(50_000)}),
        status_map(counters={str(i): i for i in range(50_000)}),
        status_map(run="x" * 900_000),
        pose_map(shape=[1] * 300_000),
        pose_map(run="x" * 900_000),
        pose_map(shape=[10_000, 10_000, 3]),
        pose_map(keypoints=[1] * 300_000),
    ],
    ids=lambda wire: f"{wire['type']}",
)
def test_an_error_about_a_huge_message_is_short(wire: dict[str, Any]) -> None:
    with pytest.raises(MessageError) as caught:
        decode(msgpack.packb(wire))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [1, 2, 2]},
        {"shape": [2, 3]},
        {"shape": [1, 2.0, 3]},
        {"shape": [True, 2, 3]},
        {"shape": [-1, -2, 3]},
        {"shape": [2, 1, 3]},
        {"keypoints": [1, 2.5, 0.5, 1, 1, 1]},
        {"keypoints": [[["1", 2.5, 0.5], [1, 1, 1]]]},
        {"keypoints": [[[True, 2.5, 0.5], [1, 1, 1]]]},
        {"keypoints": [[[1, 2.5], [1, 1, 1]]]},
        {"keypoints": [[[10**400, 2.5, 0.5], [1, 1, 1]]]},
        {"keypoints": None},
        {"keypoints": "1.0"},
        {"valid": [1, 0]},
        {"valid": [[1.7, 0]]},
        {"valid": [["1", 0]]},
        {"valid": [[-1, 0]]},
        {"valid": [[256, 0]]},
        {"valid": [[None, 0]]},
        {"seq": -1},
        {"seq": 2**63},
        {"seq": 1.0},
        {"seq": True},
        {"arrival_ns": None},
        {"exposure_ns": "1"},
        {"run": ""},
        {"run": "\ud800"},
        {"camera": "x" * 129},
        {"camera": None},
    ],
    ids=str,
)
def test_a_malformed_pose_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(MessageError, match="malformed pose"):
        decode(json.dumps(pose_map(**changes)).encode())


@pytest.mark.parametrize(
    "changes",
    [
        {"keypoints": bytes(23), "valid": bytes(2)},
        {"keypoints": bytes(20), "valid": bytes(2)},
        {"keypoints": bytes(24), "valid": bytes(1)},
        {"keypoints": bytes(24), "valid": [[1, 1]]},
        {"valid": bytes(2)},
    ],
    ids=str,
)
def test_a_malformed_binary_pose_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(MessageError, match="malformed pose"):
        decode(msgpack.packb(pose_map(**changes)))


def test_null_nan_and_numbers_beyond_float32_are_no_coordinates() -> None:
    wire = json.dumps(pose_map(keypoints=[[[math.nan, None, 0.5], [1e300, -math.inf, 1]]]))
    pose = decode(wire.encode())
    assert isinstance(pose, Pose)
    assert np.isfinite(pose.keypoints).tolist() == [[[False, False, True], [False, False, True]]]


def test_what_is_not_a_number_is_null_in_a_free_map() -> None:
    status = Status(run="r", process="p", state="s", sent_ns=1, info={"rate_hz": math.nan})
    for encoding in (encode, encode_json):
        received = decode(encoding(status))
        assert isinstance(received, Status)
        assert received.info == {"rate_hz": None}


@pytest.mark.parametrize(
    "value",
    [
        b"bytes",
        {1: 2},
        2**63,
        "\ud800",
        {"\ud800": 1},
        pytest.param(object(), id="an object"),
        msgpack.Timestamp(1),
    ],
    ids=repr,
)
def test_what_one_encoding_cannot_carry_is_refused_by_the_sender_too(value: object) -> None:
    with pytest.raises(ValidationError, match="info"):
        Status(run="r", process="p", state="s", sent_ns=1, info={"x": value})


def test_free_maps_have_a_depth() -> None:
    def deep(levels: int) -> dict[str, Any]:
        return {"x": deep(levels - 1)} if levels else {}

    Status(run="r", process="p", state="s", sent_ns=1, info=deep(MAX_DEPTH - 1))
    with pytest.raises(ValidationError, match=f"more than {MAX_DEPTH} deep"):
        Status(run="r", process="p", state="s", sent_ns=1, info=deep(MAX_DEPTH))


@pytest.mark.parametrize(
    ("action", "width_us"),
    [("off", 1), ("on", 0), ("pulse", 0), ("pulse", -1), ("on", 60_000_001), ("toggle", 5)],
)
def test_a_command_is_absolute_and_bounded(action: Any, width_us: int) -> None:
    wire = {"command_id": 1, "output": "o", "line": "l", "action": action, "width_us": width_us}
    with pytest.raises(ValidationError):
        Command(**wire)
    with pytest.raises(MessageError, match="malformed command"):
        decode(json.dumps({"v": 1, "type": "command", **wire}).encode())


@given(plain)
def test_messages_cannot_be_changed(message: Message) -> None:
    field = next(iter(type(message).model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(message, field, None)


def test_latency_counts_from_the_exposure_where_there_is_one() -> None:
    assert FrameHeader(1, None, 20, 30).start_ns == 20
    assert FrameHeader(1, 10, 20, 30).start_ns == 10
    for exposure_ns, start_ns in ((None, 5), (0, 0), (3, 3)):
        pose = decode(json.dumps(pose_map(exposure_ns=exposure_ns)).encode())
        assert isinstance(pose, Pose)
        assert pose.start_ns == start_ns


@pytest.mark.parametrize("action", PLAIN_REQUESTS)
@pytest.mark.parametrize("extra", ["line", "width_ms", "trigger", "key", "value"])
def test_a_request_takes_nothing_that_its_action_does_not_need(action: str, extra: str) -> None:
    given = {"action": action, extra: 1.0 if extra == "width_ms" else "x"}
    with pytest.raises(MessageError, match=f"takes no {extra}"):
        Request.from_wire(given)


@pytest.mark.parametrize(
    ("wire", "words"),
    [
        ({"action": "fire", "line": "a.b"}, "needs width_ms"),
        ({"action": "fire", "width_ms": 1.0}, "needs line"),
        ({"action": "fire", "line": "a.b", "width_ms": 0.0}, "width_ms"),
        ({"action": "fire", "line": "a.b", "width_ms": math.nan}, "width_ms"),
        ({"action": "set", "trigger": "a", "value": 1}, "needs key"),
        ({"action": "set", "key": "a", "value": 1}, "needs trigger"),
        ({"action": "toggle"}, "action"),
    ],
)
def test_a_request_without_what_its_action_needs_is_malformed(
    wire: dict[str, Any], words: str
) -> None:
    with pytest.raises(MessageError, match=words):
        Request.from_wire(wire)


@pytest.mark.parametrize(
    "wrong",
    [
        {"action": "off", "width_us": 1},
        {"action": "on"},
        {"action": "pulse", "width_us": 1, "level": 0.5},
        {"action": "on", "width_us": 1, "level": 0.0},
        {"action": "on", "width_us": 1, "count": 2},
        {"action": "pulse", "width_us": 1, "delay_us": 2},
        {"action": "train", "width_us": 10, "count": 2, "period_us": 10},
        {"action": "train", "width_us": 10, "count": 0, "period_us": 20},
        {"action": "train", "width_us": 10, "count": 65_535, "period_us": 10_000},
        {"action": "toggle", "width_us": 10},
    ],
)
def test_a_command_that_contradicts_itself_does_not_exist(wrong: dict[str, Any]) -> None:
    with pytest.raises(MessageError, match="malformed command"):
        Command.from_wire({"command_id": 1, "output": "o", "line": "l", **wrong})
