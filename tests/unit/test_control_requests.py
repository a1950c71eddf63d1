"""Control against whatever may come to its port: nothing ends it, and what is refused changes
nothing. A real port, a real output in software, poses made by hand."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rtpose.bus import DirectReceiver, Inbox, direct_pair
from rtpose.clock import now_ns
from rtpose.config import load_rig
from rtpose.control import Control
from rtpose.errors import MessageError
from rtpose.events import AT_THE_TERMINAL
from rtpose.loop import SPAWN, Link, Loop, new_activity
from rtpose.messages import Pose, Reply, Request, Status, TriggerEvent, decode, encode
from rtpose.readiness import Readiness
from rtpose.run_log import RunLog, read_log
from rtpose.skeleton import Skeleton
from rtpose.triggers.region import RegionTrigger

RIG = """
[cameras.top]
type = "synthetic"
rate_hz = 100.0
[model]
path = "demo"
[latency]
budget_ms = 10000.0
max_pose_gap_ms = 60000.0
[outputs.out]
type = "virtual"
watchdog_ms = 1000
[outputs.out.lines.light]
pin = 0
max_on_ms = 100.0
[outputs.out.lines.laser]
pin = 1
max_on_ms = 100.0
[triggers.zone]
type = "region"
keypoint = "snout"
circle = { x_px = 320.0, y_px = 240.0, radius_px = 50.0 }
when = "inside"
dwell_ms = 10.0
output = "out.light"
[triggers.runs]
type = "speed"
keypoint = "tail"
above_px_s = 100.0
window_ms = 50.0
when = "starts"
filter = { type = "median", poses = 3 }
output = "out.laser"
pulse_ms = 5.0
[triggers.both]
type = "all"
of = [
    { type = "distance", keypoint = "snout", to_keypoint = "tail", below_px = 40.0 },
    { type = "not", of = { type = "speed", keypoint = "tail", above_px_s = 9, window_ms = 50.0 } },
]
when = "ends"
output = "out.laser"
pulse_ms = 5.0
"""
SKELETON = Skeleton(("snout", "tail"))
PATIENCE_MS = 20_000


class Bench:
    """Control with an open port, turned by hand."""

    def __init__(self, folder: Path) -> None:
        path = folder / "rig.toml"
        # Ports that the system picks: `Control` is told where they are by nobody but the test.
        path.write_text(RIG)
        rig = load_rig(path)
        any_port = rig.stream.model_copy(
            update={"pose_port": "*", "event_port": "*", "command_port": "*"}
        )
        object.__setattr__(rig, "stream", any_port)
        self._inbox = Inbox()
        _, orders = self._pipe = SPAWN.Pipe()
        self.loop = Loop(Link("control", "run", self._inbox.endpoint, orders, new_activity()))
        self.log = RunLog(folder / "events.jsonl")
        self._line, ours = direct_pair()
        self.control = Control(
            self.loop,
            rig,
            SKELETON,
            self.log,
            None,
            Readiness(rig.latency, rate_hz=0.0),
            DirectReceiver(ours),
        )
        self.control.open()
        self._context = zmq.Context()
        self._client = self._context.socket(zmq.DEALER)
        self._client.setsockopt(zmq.LINGER, 0)
        self._client.connect(self.control._requests.endpoint)
        self._frame_id = 0
        status = {"verified": True}
        self._line.send(
            encode(Status(run="run", process="inference", state="running", sent_ns=1, info=status))
        )

    def pose(self, at: tuple[float, float]) -> None:
        """Give control a pose of now, and let it turn once."""
        self._frame_id += 1
        start = now_ns()
        points = np.array([[[*at, 0.9], [9.0, 9.0, 0.9]]], np.float32)
        flags = np.ones((1, 2), np.uint8)
        stamps = (start,) * 5
        pose = Pose("run", "top", self._frame_id, self._frame_id, 0, None, *stamps, points, flags)
        self._line.send(encode(pose))
        self.control.turn()

    def send(self, payload: bytes) -> Reply:
        """Send bytes to the port, and return the answer."""
        self._client.send_multipart([b"", payload])
        assert self.control._requests.raw.poll(PATIENCE_MS)
        self.control.turn()
        assert self._client.poll(PATIENCE_MS)
        reply = decode(self._client.recv_multipart()[-1])
        assert isinstance(reply, Reply)
        return reply

    def do(self, **fields: Any) -> Reply:
        return self.send(encode(Request.from_wire(fields)))

    @contextlib.contextmanager
    def armed(self) -> Iterator[None]:
        """Be an armed rig in a trial; disarmed after it, when nobody beats for the watchdog."""
        self.loop.stop_requested = False
        self.do(action="release")
        self.pose((0.0, 0.0))
        assert self.do(action="arm").ok
        try:
            yield
        finally:
            self.do(action="disarm")

    @property
    def state(self) -> dict[str, Any]:
        """Return everything that a request may change."""
        engine = self.control._engine
        lines = list(engine._switchboard._lines())
        runners = engine._decider.runners.values()
        return {
            "state": self.control.state,
            "stop": self.loop.stop_requested,
            "trial": (engine._experiment.trial, engine._experiment.in_trial),
            "lines": [(line.command, line.held, line.holder) for line in lines],
            "settings": [runner.entry.settings for runner in runners],
            "failures": [runner.failure for runner in runners],
        }

    def close(self) -> None:
        self.control.close()
        self._client.close()
        self._context.term()
        self._line.close()
        self.loop.finish()
        self._inbox.close()
        self._pipe[0].close()
        self.log.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


# One rig for all examples of a test, armed anew for each.
many = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])

plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
anything = st.recursive(
    plain | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(max_size=10) | st.integers(), inner, max_size=5)
    ),
    max_leaves=20,
)
actions = st.sampled_from(
    ["status", "arm", "disarm", "estop", "release", "trial", "end-trial", "fire", "set", "stop"]
)
TRIGGERS = {
    "zone": ["keypoint", "keypoints", "need", "circle", "polygon", "when", "hysteresis_px"],
    "runs": ["keypoint", "above_px_s", "window_ms", "filter", "max_fires", "nonsense"],
    "both": ["of", "missing", "hold_ms", "dwell_ms", "refractory_ms", "once_per_trial"],
}
values = st.one_of(
    anything,
    st.floats(0, 1000),
    st.integers(0, 100),
    st.sampled_from(["snout", "tail", "nose", "enter", "inside", "starts", "while", "safe", "all"]),
    st.lists(st.lists(st.floats(-1000, 1000), min_size=2, max_size=2), max_size=6),
    st.fixed_dictionaries(
        {"x_px": st.floats(), "y_px": st.floats(0, 100), "radius_px": st.floats(-1, 100)}
    ),
    st.fixed_dictionaries({"type": st.sampled_from(["median", "one-euro", "none"])}),
)
settings_of_triggers = st.sampled_from(
    [(trigger, key) for trigger, keys in TRIGGERS.items() for key in keys] + [("none", "key")]
)


def payload_of(data: object) -> bytes:
    """Return what a client could send for a value."""
    try:
        packed: bytes = msgpack.packb(data)
    except (ValueError, OverflowError):  # a lone surrogate, or more than 64 bits: JSON can
        return json.dumps(data, default=repr).encode()
    return packed


def check(bench: Bench, payload: bytes) -> None:
    """Send a payload; whatever is not a request, or is refused, must change nothing."""
    before, malformed = bench.state, bench.loop.counters["malformed"]
    reply = bench.send(payload)
    try:
        message = decode(payload)
    except MessageError:
        message = None
    if not isinstance(message, Request):
        assert (reply.ok, reply.state) == (False, "unchanged")
        assert bench.loop.counters["malformed"] == malformed + 1
    if not reply.ok:
        assert reply.reasons
        assert bench.state == before
    elif isinstance(message, Request) and message.action == "status":
        assert bench.state == before


@many
@given(payload=st.binary(max_size=300))
def test_bytes_change_nothing(bench: Bench, payload: bytes) -> None:
    with bench.armed():
        check(bench, payload)


@many
@given(data=anything)
def test_whatever_is_no_request_changes_nothing(bench: Bench, data: object) -> None:
    payload = payload_of(data)
    with bench.armed():
        check(bench, payload)


@many
@given(
    action=actions | plain,
    fields=st.dictionaries(
        st.sampled_from(["line", "width_ms", "trigger", "key", "value", "v", "type"]),
        anything
        | st.sampled_from(["out.light", "out.laser", "zone", "dwell_ms", 5.0, 1, "request"]),
        max_size=5,
    ),
)
def test_fields_of_wrong_types_change_nothing(
    bench: Bench, action: object, fields: dict[str, object]
) -> None:
    payload = payload_of({"v": 1, "type": "request", "action": action} | fields)
    with bench.armed():
        check(bench, payload)


@many
@given(
    action=st.sampled_from(["arm", "set", "fire"]),
    cuts=st.lists(st.tuples(st.integers(0, 120), st.binary(max_size=3)), min_size=1, max_size=4),
)
def test_a_mutated_request_changes_nothing_that_it_does_not_say(
    bench: Bench, action: str, cuts: list[tuple[int, bytes]]
) -> None:
    fields: dict[str, Any] = {"action": action}
    if action == "set":
        fields |= {"trigger": "zone", "key": "dwell_ms", "value": 10.0}
    elif action == "fire":
        fields |= {"line": "out.light", "width_ms": 5.0}
    payload = encode(Request.from_wire(fields))
    for at, instead in cuts:
        payload = payload[:at] + instead + payload[at + len(instead) :]
    with bench.armed():
        check(bench, payload)


@settings(many, max_examples=400)
@given(target=settings_of_triggers, value=values)
def test_a_setting_is_taken_whole_and_works_or_is_refused(
    bench: Bench, target: tuple[str, str], value: object
) -> None:
    trigger, key = target
    payload = payload_of(
        {"v": 1, "type": "request", "action": "set"}
        | {"trigger": trigger, "key": key, "value": value}
    )
    with bench.armed():
        check(bench, payload)
        for at in ((0.0, 0.0), (320.0, 240.0), (5.0, 5.0), (320.0, 241.0)):
            bench.pose(at)
    assert not any(bench.state["failures"])


def test_a_refusal_that_quotes_a_long_value_is_cut_short(bench: Bench) -> None:
    before = bench.state
    value = "\0" * 3500  # four characters each, where it is quoted
    reply = bench.do(action="set", trigger="zone", key="when", value=value)
    assert not reply.ok
    assert len(reply.reasons[0]) == 1000
    assert bench.state == before


def test_code_of_a_plugin_that_fails_on_a_setting_refuses_it(bench: Bench) -> None:
    class Fails(RegionTrigger):
        def prepare(self, skeleton: Skeleton) -> None:
            raise ZeroDivisionError("the user's own mistake")

    runner = bench.control._engine._decider.runners["zone"]
    runner.entry = replace(runner.entry, plugin=Fails)
    before = bench.state
    reply = bench.do(action="set", trigger="zone", key="dwell_ms", value=1.0)
    assert "ZeroDivisionError: the user's own mistake" in reply.reasons[0]
    assert bench.state == before
    bench.pose((320.0, 240.0))


def test_an_emergency_stop_is_kept_until_it_is_released(bench: Bench) -> None:
    with bench.armed():
        assert bench.do(action="fire", line="out.light", width_ms=50.0).ok
        assert bench.do(action="estop").state == "stopped"
        refused = bench.do(action="arm")
        assert not refused.ok
        assert any("release it first" in reason for reason in refused.reasons)
        assert not bench.do(action="fire", line="out.light", width_ms=50.0).ok
        assert bench.do(action="disarm").state == "stopped"
        assert bench.do(action="release").state == "disarmed"
        bench.pose((0.0, 0.0))
        assert bench.do(action="arm").ok


def test_the_order_of_the_supervisor_stops_before_a_pose_is_looked_at(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    try:
        with bench.armed():
            bench.loop.estop_ordered = True
            bench.pose((320.0, 240.0))
            assert bench.state["state"] == "stopped"
            assert bench.loop.info["state"] == "stopped"
            assert bench.loop.counters["fires"] == 0
    finally:
        bench.close()
    log = read_log(bench.log.path)
    stops = [m.detail for m in log if isinstance(m, TriggerEvent) and m.kind == "estop"]
    assert stops == [AT_THE_TERMINAL]  # by these words a replay knows where it came from
