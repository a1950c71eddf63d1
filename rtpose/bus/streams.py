"""Publisher, subscriber, heartbeats, and the direct line from inference to control."""

import socket
import sys
from collections.abc import Callable, Sequence

import zmq
import zmq.error

from rtpose.bus.sockets import Socket
from rtpose.clock import now_ns
from rtpose.errors import MessageError
from rtpose.messages import (
    AnyMessage,
    decode,
    encode,
    encode_direct,
    encode_json,
)

JSON_PREFIX = b"json."

#: A subscriber keeps this many messages before it loses the oldest: seconds, not minutes, of poses.
_QUEUE_MESSAGES = 4096


#: So that a flood of subscriptions cannot hold the loop up.
_SUBSCRIPTIONS_PER_CALL = 16

#: The longest message on a direct line: a status with its counters and skeleton is a few kB.
_DIRECT_BYTES = 1 << 16


def direct_pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a line for whole messages between two processes of a rig.

    The way from inference to control. ZeroMQ hands a message from thread to thread on both sides;
    this is one wake-up instead of three (measured by ``benchmarks/transport.py``).
    """
    if sys.platform == "win32":
        ends = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for end in ends:
            end.bind(("127.0.0.1", 0))
        for end, other in zip(ends, reversed(ends), strict=True):
            end.connect(other.getsockname())  # takes datagrams from nobody else
        return ends[0], ends[1]
    # macOS has no sequenced packets; its datagrams between two ends keep their order as well.
    kind = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM
    return socket.socketpair(socket.AF_UNIX, kind)


class DirectReceiver:
    """The receiving end of a `direct_pair`.

    Attributes
    ----------
    malformed : int
        Messages that were dropped because they are not messages of this version.
    """

    def __init__(self, end: socket.socket) -> None:
        self.raw = end
        self.raw.setblocking(False)
        self.malformed = 0
        # Received into, because recv() would take fresh memory of the size asked for every time.
        self._buffer = bytearray(_DIRECT_BYTES)

    def receive(self) -> AnyMessage | None:
        """Return the next well-formed message, or None if there is none now."""
        while True:
            try:
                size = self.raw.recv_into(self._buffer)
            except BlockingIOError:
                return None
            if not size:
                return None  # the other end is closed
            try:
                return decode(bytes(memoryview(self._buffer)[:size]))
            except MessageError:
                self.malformed += 1

    def close(self) -> None:
        """Close this end."""
        self.raw.close()


class Publisher(Socket):
    """Publishes messages; JSON is made only while somebody subscribes to it.

    Parameters
    ----------
    endpoint : str
        Where to bind, e.g. ``tcp://127.0.0.1:5560``.
    greeting : callable, optional
        Gives (topic, message) to publish when somebody subscribes, so that a late subscriber
        learns at once what it cannot know.
    direct : socket, optional
        One end of a `direct_pair`: gets every message too, before anybody else.

    Attributes
    ----------
    direct_dropped : int
        Messages that the direct line had no room for, because nobody took the earlier ones.
    """

    def __init__(
        self,
        endpoint: str,
        curve_secret_key_file: str | None = None,
        greeting: Callable[[], tuple[str, AnyMessage]] | None = None,
        direct: socket.socket | None = None,
    ) -> None:
        super().__init__(zmq.XPUB)
        self.raw.setsockopt(zmq.XPUB_VERBOSER, 1)
        self.raw.setsockopt(zmq.SNDHWM, _QUEUE_MESSAGES)
        self.endpoint = self.bind(endpoint, curve_secret_key_file)
        self._greeting = greeting
        self._direct = direct
        if direct is not None:
            direct.setblocking(False)
        self.direct_dropped = 0
        self._json_subscriptions: dict[bytes, int] = {}

    def publish(self, topic: str, message: AnyMessage) -> None:
        """Send a message to whoever subscribed to its topic. Never waits."""
        if self._direct is not None:
            self._send_direct(self._direct, encode_direct(message))
        name = topic.encode()
        self.raw.send_multipart((name, encode(message)), zmq.DONTWAIT)
        if self._json_subscriptions:
            json_name = JSON_PREFIX + name
            if any(json_name.startswith(wanted) for wanted in self._json_subscriptions):
                self.raw.send_multipart((json_name, encode_json(message)), zmq.DONTWAIT)

    def _send_direct(self, direct: socket.socket, payload: bytes) -> None:
        try:
            direct.send(payload)
        except OSError:  # full, or its reader is gone: the supervisor sees to that
            self.direct_dropped += 1

    def serve_subscriptions(self) -> None:
        """Take note of who subscribed since the last call, and greet the new ones."""
        greet = False
        for _ in range(_SUBSCRIPTIONS_PER_CALL):
            if not self.raw.poll(0):
                break
            event = self.raw.recv()
            subscribed, topic = event[:1] == b"\x01", event[1:]
            if topic.startswith(JSON_PREFIX[:-1]):
                count = self._json_subscriptions.get(topic, 0) + (1 if subscribed else -1)
                self._json_subscriptions[topic] = count
                if count <= 0:
                    del self._json_subscriptions[topic]
            greet = greet or subscribed
        if greet and self._greeting is not None:
            self.publish(*self._greeting())


class Subscriber(Socket):
    """Receives messages from one or more publishers.

    Attributes
    ----------
    malformed : int
        Messages that were dropped because they are not messages of this version.
    last_error : str
        Why the last one was dropped.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        topics: Sequence[str],
        server_public_key: bytes | None = None,
        queue_messages: int = _QUEUE_MESSAGES,
    ) -> None:
        super().__init__(zmq.SUB)
        self.raw.setsockopt(zmq.RCVHWM, queue_messages)
        for topic in topics:
            self.raw.subscribe(topic)
        for endpoint in endpoints:
            self.connect(endpoint, server_public_key)
        self.malformed = 0
        self.last_error = ""

    def receive(self, timeout_s: float) -> AnyMessage | None:
        """Return the next well-formed message, or None if none came in time."""
        deadline_ns = now_ns() + round(timeout_s * 1e9)
        while True:
            wait_ms = max(0, -((now_ns() - deadline_ns) // 1_000_000))
            if not self.raw.poll(wait_ms):
                return None
            message = self._take()
            if message is not None:
                return message

    def _take(self) -> AnyMessage | None:
        parts = self.raw.recv_multipart(zmq.DONTWAIT)
        try:
            if len(parts) != 2:
                raise MessageError(f"{len(parts)} parts, expected topic and payload")
            return decode(parts[1])
        except MessageError as error:
            self.malformed += 1
            self.last_error = str(error)
            return None


class Inbox(Socket):
    """Collects heartbeats from child processes (PULL, loopback, a free port)."""

    def __init__(self) -> None:
        super().__init__(zmq.PULL)
        self.raw.setsockopt(zmq.RCVHWM, _QUEUE_MESSAGES)
        self.endpoint = self.bind("tcp://127.0.0.1:*")
        self.malformed = 0

    def receive(self, timeout_s: float) -> AnyMessage | None:
        """Return the next well-formed message, or None if none came in time."""
        if not self.raw.poll(max(0, round(timeout_s * 1000))):
            return None
        try:
            return decode(self.raw.recv(zmq.DONTWAIT))
        except MessageError:
            self.malformed += 1
            return None


class Outbox(Socket):
    """Sends to an `Inbox`; drops what cannot be sent at once, since the next beat follows."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(zmq.PUSH)
        self.raw.setsockopt(zmq.SNDHWM, _QUEUE_MESSAGES)
        self.connect(endpoint)
        self.dropped = 0

    def send(self, message: AnyMessage) -> None:
        """Send without waiting."""
        try:
            self.raw.send(encode(message), zmq.DONTWAIT)
        except zmq.error.Again:
            self.dropped += 1

    def close(self) -> None:
        """Give the last message half a second to leave, then close."""
        self.raw.setsockopt(zmq.LINGER, 500)
        super().close()


class Poller:
    """Waits for any of several sockets."""

    def __init__(self, *sources: Socket | DirectReceiver) -> None:
        self._poller = zmq.Poller()
        for source in sources:
            self._poller.register(source.raw, zmq.POLLIN)

    def wait(self, timeout_ms: int) -> None:
        """Return as soon as one of them has something, or the time is up."""
        self._poller.poll(timeout_ms)
