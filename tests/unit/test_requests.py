"""The port for requests under what anybody may send to it: real sockets on loopback."""

import math
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import msgpack
import pytest
import zmq
import zmq.auth
import zmtp
from zmtp import GREETING

from rtpose.bus import RequestServer
from rtpose.client import Commands
from rtpose.clock import now_ns
from rtpose.errors import InputError, NoReplyError
from rtpose.messages import Reply, Request, decode, encode

ANY_PORT = "tcp://127.0.0.1:*"
PATIENCE_NS = 20_000_000_000


class Rig:
    """Answers every request, and keeps what it was asked."""

    def __init__(self, key_file: str | None = None, endpoint: str = ANY_PORT) -> None:
        self.server = RequestServer(endpoint, key_file)
        self.asked: list[Request] = []
        self.reply = Reply(ok=True, state="armed")
        self._context = zmq.Context()
        self._clients: list[zmq.Socket[bytes]] = []

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.server.endpoint.removeprefix("tcp://").split(":")
        return host, int(port)

    @property
    def actions(self) -> list[str]:
        return [request.action for request in self.asked]

    def answer(self, request: Request) -> Reply:
        self.asked.append(request)
        return self.reply

    def turn(self) -> None:
        self.server.raw.poll(5)
        self.server.serve(self.answer, within_ns=PATIENCE_NS)

    def client(self) -> "zmq.Socket[bytes]":
        client = self._context.socket(zmq.DEALER)
        self._clients.append(client)
        client.setsockopt(zmq.LINGER, 0)
        client.setsockopt(zmq.SNDHWM, 0)
        client.connect(self.server.endpoint)
        return client

    def turn_until(self, done: Callable[[], object], what: str) -> int:
        """Let it turn until something holds; return how many turns that took."""
        end_ns, turns = now_ns() + PATIENCE_NS, 0
        while not done():
            assert now_ns() < end_ns, what
            self.turn()
            turns += 1
        return turns

    def assert_it_serves(self) -> None:
        client = self.client()
        client.send_multipart([b"", encode(Request(action="status"))])
        self.turn_until(lambda: client.poll(0), "a good client is answered")
        client.close()

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self._context.term()
        self.server.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.close()


def connected(rig: Rig, said: bytes = b"") -> socket.socket:
    raw = socket.create_connection(rig.address)
    raw.sendall(said)
    return raw


# ------------------------------------------------------------------------------------- fairness


def test_an_emergency_stop_waits_for_one_request_of_every_flooding_client(rig: Rig) -> None:
    flooding = [rig.client() for _ in range(40)]
    status = encode(Request(action="status"))
    for client in flooding:
        for _ in range(1000):
            client.send_multipart([b"", status])
    # Both come in at once: when the first is served, the second is there too.
    two = [zmtp.request(encode(Request(action=action))) for action in ("release", "estop")]
    person = zmtp.connect(rig.address)
    person.sendall(b"".join(two))
    rig.turn_until(lambda: "release" in rig.actions, "the flood is served")
    turns = rig.turn_until(lambda: "estop" in rig.actions, "the emergency stop is served")
    assert turns <= math.ceil((len(flooding) + 1) / 16) + 1
    assert len(rig.actions) < 40_000
    person.close()


def test_nothing_is_begun_when_the_time_of_a_turn_is_over(rig: Rig) -> None:
    client = rig.client()
    for _ in range(5):
        client.send_multipart([b"", encode(Request(action="status"))])
    rig.turn_until(lambda: rig.asked, "the first is served")
    before = len(rig.asked)
    end_ns = now_ns() + PATIENCE_NS
    while len(rig.asked) < 5 and now_ns() < end_ns:
        rig.server.raw.poll(5)
        rig.server.serve(rig.answer, within_ns=0)
        assert len(rig.asked) <= before + 1
        before = len(rig.asked)
    assert len(rig.asked) == 5


# ------------------------------------------------------------------------------------- what is sent


def test_a_message_without_end_is_read_in_portions_and_counted_once(rig: Rig) -> None:
    client = rig.client()
    client.send_multipart([b""] * 5000)
    client.send_multipart([b"", encode(Request(action="disarm"))])
    turns = rig.turn_until(lambda: rig.asked, "the message after it is served")
    assert turns > 5000 / 64
    assert rig.server.malformed == 1
    assert rig.actions == ["disarm"]


@pytest.mark.parametrize("size", [4097, 60_000])
def test_a_request_that_takes_long_to_read_is_not_read(rig: Rig, size: int) -> None:
    request = {"v": 1, "type": "request", "action": "set", "trigger": "a", "key": "b"}
    payload = msgpack.packb(request | {"value": "x" * size})
    client = rig.client()
    client.send_multipart([b"", payload])
    rig.turn_until(lambda: client.poll(0), "it is answered")
    reply = decode(client.recv_multipart()[-1])
    assert isinstance(reply, Reply)
    assert (reply.ok, rig.asked, rig.server.malformed) == (False, [], 1)
    assert "a request has at most 4096" in reply.reasons[0]


def test_what_no_client_would_send_ends_its_connection(rig: Rig) -> None:
    client = rig.client()
    client.send_multipart([b"", b"x" * 100_000])
    client.send_multipart([b"", encode(Request(action="disarm"))])
    rig.assert_it_serves()
    assert rig.actions.count("status") == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, [1.0, -math.inf], {"x": [math.nan]}])
def test_a_value_that_json_has_no_word_for_is_refused_not_changed(rig: Rig, value: object) -> None:
    request = {"v": 1, "type": "request", "action": "set", "trigger": "a", "key": "b"}
    client = rig.client()
    client.send_multipart([b"", msgpack.packb(request | {"value": value})])
    rig.turn_until(lambda: client.poll(0), "it is answered")
    assert (rig.asked, rig.server.malformed) == ([], 1)
    with Commands(rig.server.endpoint) as commands, pytest.raises(InputError, match="set: "):
        commands.set_parameter("a", "b", value)


# ------------------------------------------------------------------------------------- who sends it


def test_a_client_that_never_reads_its_answers_holds_nobody_up(rig: Rig) -> None:
    deaf = rig.client()
    deaf.setsockopt(zmq.RCVHWM, 1)
    deaf.disconnect(rig.server.endpoint)
    deaf.connect(rig.server.endpoint)
    status = encode(Request(action="status"))
    rig.reply = Reply(ok=True, state="armed", reasons=["x" * 4000] * 10)

    def ask() -> bool:
        for _ in range(10):
            deaf.send_multipart([b"", status])
        rig.turn()
        return rig.server.unanswered > 0

    rig.turn_until(ask, "its answers pile up")
    rig.assert_it_serves()


def test_a_client_that_dies_over_its_request_changes_nothing_for_others(rig: Rig) -> None:
    client = rig.client()
    client.send_multipart([b"", encode(Request(action="status"))])
    rig.turn_until(lambda: rig.asked, "it is served")
    for _ in range(20):
        client.send_multipart([b"", encode(Request(action="status"))])
    client.close()
    rig.assert_it_serves()


@pytest.mark.parametrize(
    "said",
    [b"GET / HTTP/1.1\r\n\r\n", GREETING[:5], GREETING[:40], GREETING + b"\x04\x05"],
    ids=["another protocol", "a cut mark", "a cut greeting", "a cut handshake"],
)
def test_a_handshake_that_fails_is_counted(rig: Rig, said: bytes) -> None:
    connected(rig, said).close()
    rig.turn_until(lambda: rig.server.failed_handshakes, "it is counted")
    assert (rig.server.failed_handshakes, rig.asked) == (1, [])
    rig.assert_it_serves()


def test_connections_that_say_nothing_are_let_go_and_counted(rig: Rig) -> None:
    silent = [connected(rig, GREETING[: n % 60]) for n in range(200)]
    rig.assert_it_serves()
    rig.turn_until(lambda: rig.server.failed_handshakes >= 200, "they are let go")
    for one in silent:
        one.close()
    rig.assert_it_serves()
    assert rig.server.failed_handshakes == 200


# ------------------------------------------------------------------------------------- encryption


def test_without_the_right_key_nothing_is_asked_and_that_is_counted(tmp_path: Path) -> None:
    public, secret = zmq.auth.create_certificates(tmp_path, "rig")
    other, _ = zmq.auth.create_certificates(tmp_path, "other")
    rig = Rig(secret)
    try:
        for key in (None, Path(other)):
            rig.server.failed_handshakes = 0
            with Commands(rig.server.endpoint, server_key_file=key, timeout_s=0.2) as commands:
                with pytest.raises(NoReplyError, match="its key"):
                    commands.disarm()
                rig.turn_until(lambda: rig.server.failed_handshakes, "it is counted")
        assert rig.asked == []
        with Commands(rig.server.endpoint, server_key_file=Path(public), timeout_s=0) as right:
            with pytest.raises(NoReplyError):
                right.disarm()  # nobody serves while it waits: it only has to get there

            def ask() -> bool:
                with pytest.raises(NoReplyError):
                    right.disarm()
                rig.turn()
                return "disarm" in rig.actions

            rig.turn_until(ask, "the right key opens")
    finally:
        rig.close()


# ------------------------------------------------------------------------------------- the client


def test_what_was_asked_while_no_rig_was_there_does_not_reach_a_later_one() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    with Commands(endpoint, timeout_s=0.05) as commands:
        for ask in (commands.arm, commands.disarm, commands.stop):
            with pytest.raises(NoReplyError, match="is the rig running"):
                ask()
        rig = Rig(endpoint=endpoint)
        try:

            def ask_again() -> bool:
                with pytest.raises(NoReplyError):
                    commands.status()
                rig.turn()
                return bool(rig.asked)

            rig.turn_until(ask_again, "the client finds the rig")
            assert set(rig.actions) == {"status"}
        finally:
            rig.close()


@pytest.mark.parametrize(("line", "width_ms"), [("", 5.0), ("out.light", 0.0), ("out.light", 1e9)])
def test_a_fire_that_cannot_be_is_said_before_anything_is_sent(line: str, width_ms: float) -> None:
    with (
        Commands("tcp://127.0.0.1:9") as commands,
        pytest.raises(InputError, match="fire: malformed request"),
    ):
        commands.fire(line, width_ms)


def test_a_setting_that_is_too_long_is_said_before_anything_is_sent() -> None:
    corners = [[float(n), 0.0] for n in range(1000)]
    with (
        Commands("tcp://127.0.0.1:9") as commands,
        pytest.raises(InputError, match="at most 4096 are read"),
    ):
        commands.set_parameter("zone", "polygon", corners)
