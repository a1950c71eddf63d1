"""Real sockets on loopback: publisher, subscriber, requests, encryption, garbage."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq
import zmq.auth

from rtpose.bus import Inbox, Outbox, Publisher, Requester, RequestServer, Subscriber
from rtpose.client import Commands, PoseStream
from rtpose.errors import InputError, NoReplyError, SkeletonError
from rtpose.messages import Heartbeat, Pose, Reply, Request, Status, encode
from rtpose.skeleton import Skeleton

ANY_PORT = "tcp://127.0.0.1:*"
SKELETON = Skeleton(("snout", "tail"))


def pose(seq: int, run: str = "run1", camera: str = "top") -> Pose:
    points = np.array([[[seq, 2 * seq, 0.9], [np.nan, np.nan, 0.1]]], np.float32)
    valid = np.array([[1, 0]], np.uint8)
    return Pose(run, camera, seq, seq * 2, 1, None, 10, 20, 30, 40, 50, points, valid)


def status(run: str = "run1") -> Status:
    info = {"skeleton": SKELETON.to_dict(), "model": "m"}
    return Status(run=run, process="inference", state="running", sent_ns=1, info=info)


class Source:
    """A publisher that behaves as the inference process does."""

    def __init__(self, endpoint: str = ANY_PORT, run: str = "run1") -> None:
        self.run = run
        self.publisher = Publisher(
            endpoint, greeting=lambda: ("status.inference", status(self.run))
        )

    def wait_for_subscriber(self) -> None:
        assert self.publisher.raw.poll(5000), "nobody subscribed"
        self.publisher.serve_subscriptions()

    def send(self, *numbers: int, camera: str = "top") -> None:
        for seq in numbers:
            self.publisher.publish(f"pose.{camera}", pose(seq, self.run, camera))

    def close(self) -> None:
        self.publisher.close()


@pytest.fixture
def source() -> Iterator[Source]:
    source = Source()
    yield source
    source.close()


def receive(stream: PoseStream) -> tuple[int, float]:
    named = stream.receive(timeout_s=5)
    assert named is not None
    return named.pose.seq, named["snout"].x_px


def test_a_late_subscriber_learns_names_at_once(source: Source) -> None:
    source.send(0, 1)  # nobody listens yet
    with PoseStream(source.publisher.endpoint) as stream:
        source.wait_for_subscriber()
        source.send(2, 3)
        assert [receive(stream), receive(stream)] == [(2, 2.0), (3, 3.0)]
        assert stream.lost == 0 or stream.lost == 2


def test_keypoints_come_by_name_with_their_validity(source: Source) -> None:
    with PoseStream(source.publisher.endpoint) as stream:
        source.wait_for_subscriber()
        source.send(5)
        named = stream.receive(timeout_s=5)
    assert named is not None
    assert named["snout"].xy == (5.0, 10.0)
    assert named["snout"].valid
    assert not named["tail"].valid
    with pytest.raises(SkeletonError, match="did you mean 'snout'"):
        named["snoot"]


def test_lost_messages_show(source: Source) -> None:
    with PoseStream(source.publisher.endpoint) as stream:
        source.wait_for_subscriber()
        source.send(0, 1, 5)
        for _ in range(3):
            receive(stream)
        assert stream.lost == 3


def test_a_restarted_publisher_shows_and_is_followed(source: Source) -> None:
    endpoint = source.publisher.endpoint
    with PoseStream(endpoint) as stream:
        source.wait_for_subscriber()
        source.send(7)
        receive(stream)
        source.close()
        second = Source(endpoint, run="run2")
        # A subscription is renewed by the subscriber's own thread, in `receive`.
        while not second.publisher.raw.poll(0):
            assert stream.receive(timeout_s=0.05) is None
        second.publisher.serve_subscriptions()
        second.send(0)
        assert receive(stream) == (0, 0.0)
        assert (stream.restarts, stream.lost) == (1, 0)
        second.close()


def test_newest_only_skips_to_the_last(source: Source) -> None:
    with PoseStream(source.publisher.endpoint, newest_only=True) as stream:
        source.wait_for_subscriber()
        source.send(*range(50))
        seen: list[int] = []
        while not seen or seen[-1] != 49:
            seen.append(receive(stream)[0])
        assert stream.skipped + len(seen) == 50
        assert stream.lost == 0


def test_one_camera_is_not_mistaken_for_one_with_a_longer_name(source: Source) -> None:
    with PoseStream(source.publisher.endpoint, camera="top") as stream:
        source.wait_for_subscriber()
        source.send(1, camera="top2")
        source.send(2, camera="top")
        assert receive(stream)[0] == 2


def test_poses_without_a_status_are_an_error() -> None:
    publisher = Publisher(ANY_PORT)
    with PoseStream(publisher.endpoint) as stream:
        assert publisher.raw.poll(5000)
        publisher.publish("pose.top", pose(0))
        with pytest.raises(NoReplyError, match=r"no status\.inference"):
            stream.receive(timeout_s=10)
    publisher.close()


def test_json_is_published_only_while_somebody_wants_it(source: Source) -> None:
    with Subscriber([source.publisher.endpoint], ["pose."]) as binary:
        source.wait_for_subscriber()
        with Subscriber([source.publisher.endpoint], ["json.pose."]) as text:
            source.wait_for_subscriber()
            source.send(3)
            topic, payload = text.raw.recv_multipart()
            assert topic == b"json.pose.top"
            assert payload.startswith(b'{"v":1,"type":"pose"')
            assert b"null" in payload  # NaN is not JSON
            assert isinstance(binary.receive(5), Pose)


def test_garbage_and_other_versions_are_counted_and_dropped(source: Source) -> None:
    with Subscriber([source.publisher.endpoint], ["pose."]) as subscriber:
        source.wait_for_subscriber()
        raw = source.publisher.raw
        raw.send_multipart([b"pose.top", b"\xff\x00garbage"])
        raw.send_multipart([b"pose.top"])
        raw.send_multipart([b"pose.top", encode(pose(1)).replace(b"\xa1v\x01", b"\xa1v\x07")])
        source.send(2)
        message = subscriber.receive(5)
        assert isinstance(message, Pose)
        assert (message.seq, subscriber.malformed) == (2, 3)


def test_a_slow_subscriber_loses_messages_and_slows_nobody(source: Source) -> None:
    with Subscriber([source.publisher.endpoint], ["pose."], queue_messages=1) as slow:
        source.wait_for_subscriber()
        source.send(*range(60_000))  # would block here if it waited
        received = 0
        while slow.receive(0.5) is not None:
            received += 1
        assert 0 < received < 60_000


def test_a_flood_of_subscriptions_is_served_in_small_portions(source: Source) -> None:
    with Subscriber([source.publisher.endpoint], [f"pose.{n}" for n in range(100)]):
        source.wait_for_subscriber()
        calls = 1
        while source.publisher.raw.poll(200):
            source.publisher.serve_subscriptions()
            calls += 1
    assert calls >= 100 / 16


def test_an_address_that_cannot_be_bound_is_not_blamed_on_another_rig() -> None:
    with pytest.raises(InputError, match=r"cannot bind tcp://::1:.*give an IPv4 address"):
        Publisher("tcp://::1:5560")


def test_two_publishers_on_one_port_are_refused(source: Source) -> None:
    with pytest.raises(InputError, match=r"is another rig running.*\[stream\]"):
        Publisher(source.publisher.endpoint)


class Rig:
    """Answers every request with what it was asked."""

    def __init__(self) -> None:
        self.server = RequestServer(ANY_PORT)
        self.asked: list[str] = []

    def answer(self, request: Request) -> Reply:
        self.asked.append(request.action)
        return Reply(ok=True, state="armed")

    def serve(self, raw: "zmq.Socket[bytes]", *parts: bytes) -> list[bytes]:
        raw.send_multipart(parts)
        assert self.server.raw.poll(5000)
        self.server.serve(self.answer)
        return raw.recv_multipart() if raw.poll(200) else []


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.server.close()


def test_requests_are_answered(rig: Rig) -> None:
    with Requester(rig.server.endpoint) as requester:
        requester.raw.send(encode(Request(action="arm")))
        assert rig.server.raw.poll(5000)
        rig.server.serve(rig.answer)
        assert requester.raw.poll(5000)
    assert rig.asked == ["arm"]


def test_garbage_requests_change_nothing_and_are_counted(rig: Rig) -> None:
    context = zmq.Context()
    raw = context.socket(zmq.DEALER)
    raw.setsockopt(zmq.LINGER, 0)
    raw.connect(rig.server.endpoint)
    for parts in (
        [b"", b"garbage"],
        [b"", encode(status())],
        [b"", encode(Request(action="arm")).replace(b"arm", b"hug")],
        [b"no delimiter"],
        [b"", b"", b"", b"", b"too many"],
        [b"", secrets.token_bytes(1000)],
    ):
        rig.serve(raw, *parts)
    assert rig.asked == []
    assert rig.server.malformed == 6
    assert rig.serve(raw, b"", encode(Request(action="status"))) != []
    raw.close()
    context.term()


def test_no_rig_means_no_reply() -> None:
    with (
        Commands("tcp://127.0.0.1:9", timeout_s=0.05) as commands,
        pytest.raises(NoReplyError, match="is the rig running"),
    ):
        commands.arm()


def test_heartbeats_reach_the_inbox() -> None:
    with Inbox() as inbox:
        outbox = Outbox(inbox.endpoint)
        beat = Heartbeat(process="capture", pid=1, sent_ns=2, counters={"frames": 3})
        outbox.send(beat)
        assert inbox.receive(5) == beat
        outbox.raw.send(b"garbage")
        assert inbox.receive(5) is None
        assert inbox.malformed == 1
        outbox.close()


def test_an_encrypted_stream_needs_the_rigs_key(tmp_path: Path) -> None:
    public, secret = zmq.auth.create_certificates(tmp_path, "rig")
    other, _ = zmq.auth.create_certificates(tmp_path, "other")
    publisher = Publisher(ANY_PORT, secret, greeting=lambda: ("status.inference", status()))
    try:
        with (
            PoseStream(publisher.endpoint) as plain,
            PoseStream(publisher.endpoint, server_key_file=Path(other)) as wrong,
            PoseStream(publisher.endpoint, server_key_file=Path(public)) as right,
        ):
            assert publisher.raw.poll(5000)
            publisher.serve_subscriptions()
            publisher.publish("pose.top", pose(4))
            named = right.receive(timeout_s=5)
            assert named is not None
            assert plain.receive(timeout_s=0) is None
            assert wrong.receive(timeout_s=0) is None
    finally:
        publisher.close()


def test_what_is_no_certificate_is_said(tmp_path: Path) -> None:
    path = tmp_path / "rig.key"
    with pytest.raises(InputError, match=r"rig\.key: no such file"):
        Publisher(ANY_PORT, str(path))
    path.write_text("nonsense")
    with pytest.raises(InputError, match="not a ZeroMQ certificate"):
        Publisher(ANY_PORT, str(path))
