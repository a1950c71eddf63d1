"""Requests and their answers: a rig controller's way into a running rig.

Whoever reaches the port can send anything, so that what one turn of the loop does for it is bounded
in number, in time and in bytes. Connections take turns with each other message by message, as
ZeroMQ's fair queue hands them out: a flood on some cannot hold up one on another, such as that of
an emergency stop, by more than one request of each.
"""

from collections.abc import Callable
from typing import Final

import zmq
import zmq.error

from rtpose.bus.sockets import Socket
from rtpose.clock import now_ns
from rtpose.errors import InputError, MessageError, NoReplyError
from rtpose.messages import MAX_REQUEST_BYTES, Reply, Request, decode, encode

#: The sender's identity, perhaps a request id of its own (REQ_CORRELATE), an empty part, the rest.
_MOST_PARTS: Final = 4
#: A longer part ends the connection before it is read.
_LONGEST_PART_BYTES: Final = 1 << 16
#: No request is begun later in a turn.
_TURN_NS: Final = 500_000
#: Of what is of no use: read in one turn at most.
_JUNK_PER_TURN: Final = 64

_FAILED_HANDSHAKES: Final = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)


class RequestServer(Socket):
    """Answers requests from any number of clients, without ever waiting for one (ROUTER).

    Attributes
    ----------
    malformed : int
        Messages that are no requests of this version; they changed nothing.
    unanswered : int
        Answers that nobody was there to take, or that a client left lying for too long.
    failed_handshakes : int
        Connections that were let go before they could say anything: they spoke no ZeroMQ, not to
        the end, not in time, or not with the rig's key.
    """

    def __init__(self, endpoint: str, curve_secret_key_file: str | None = None) -> None:
        super().__init__(zmq.ROUTER)
        self.raw.setsockopt(zmq.RCVHWM, 64)
        self.raw.setsockopt(zmq.SNDHWM, 64)
        self.raw.setsockopt(zmq.MAXMSGSIZE, _LONGEST_PART_BYTES)
        self.raw.setsockopt(zmq.ROUTER_MANDATORY, 1)  # otherwise what cannot be sent is not told
        self._monitor = self._watch_handshakes()
        self._in_junk = False
        self.malformed = 0
        self.unanswered = 0
        self.failed_handshakes = 0
        try:
            self.endpoint = self.bind(endpoint, curve_secret_key_file)
        except BaseException:
            self._monitor.close()
            raise

    def _watch_handshakes(self) -> "zmq.Socket[bytes]":
        address = "inproc://handshakes"
        self.raw.monitor(address, _FAILED_HANDSHAKES)
        monitor = self._context.socket(zmq.PAIR)
        # ZeroMQ's thread waits for room here, so there must always be some.
        monitor.setsockopt(zmq.RCVHWM, 0)
        monitor.setsockopt(zmq.LINGER, 0)
        monitor.connect(address)
        return monitor

    def serve(
        self, answer: Callable[[Request], Reply], at_most: int = 16, within_ns: int = _TURN_NS
    ) -> None:
        """Answer what has come in; only a few, so that a flood cannot hold the loop up.

        Parameters
        ----------
        answer : callable
            Does what a request asks for.
        at_most : int
            So many requests.
        within_ns : int
            None is begun later; one is answered in any case.
        """
        self._count_failed_handshakes()
        end_ns = now_ns() + within_ns
        for _ in range(at_most):
            parts = self._receive()
            if parts is None:
                return
            *envelope, payload = parts
            if len(envelope) in (2, 3) and not envelope[-1]:
                self._reply(envelope, self._answer(payload, answer))
            else:
                self.malformed += 1
            if now_ns() >= end_ns:
                return

    def _receive(self) -> list[bytes] | None:
        """Return the parts of the next message; None if there is none to be had in this turn."""
        if self._in_junk and not self._pass_over_junk():
            return None
        parts: list[bytes] = []
        try:
            while len(parts) <= _MOST_PARTS:
                parts.append(self.raw.recv(zmq.DONTWAIT))
                if not self.raw.getsockopt(zmq.RCVMORE):
                    return parts
        except zmq.error.Again:
            return None
        self._in_junk = True
        return parts

    def _pass_over_junk(self) -> bool:
        """Read on in a message of too many parts; return whether it is over."""
        for _ in range(_JUNK_PER_TURN):
            self.raw.recv(zmq.DONTWAIT)
            if not self.raw.getsockopt(zmq.RCVMORE):
                self._in_junk = False
                return True
        return False

    def _reply(self, envelope: list[bytes], reply: Reply) -> None:
        try:
            self.raw.send_multipart([*envelope, encode(reply)], zmq.DONTWAIT)
        except zmq.error.ZMQError:
            self.unanswered += 1

    def _answer(self, payload: bytes, answer: Callable[[Request], Reply]) -> Reply:
        try:
            if len(payload) > MAX_REQUEST_BYTES:
                raise MessageError(
                    f"{len(payload)} bytes, a request has at most {MAX_REQUEST_BYTES}"
                )
            message = decode(payload)
            if not isinstance(message, Request):
                raise MessageError(f"a {message.type_name} is not a request")
        except MessageError as error:
            self.malformed += 1
            return Reply(ok=False, state="unchanged", reasons=[str(error)[:1000]])
        return answer(message)

    def _count_failed_handshakes(self) -> None:
        for _ in range(_JUNK_PER_TURN):
            try:
                self._monitor.recv_multipart(zmq.DONTWAIT)
            except zmq.error.Again:
                return
            self.failed_handshakes += 1

    def close(self) -> None:
        """Close the socket and its context."""
        self.raw.disable_monitor()
        self._monitor.close()
        super().close()


class Requester(Socket):
    """Asks a running rig (REQ)."""

    def __init__(self, endpoint: str, server_public_key: bytes | None = None) -> None:
        super().__init__(zmq.REQ)
        self._endpoint = endpoint
        self.raw.setsockopt(zmq.REQ_RELAXED, 1)
        self.raw.setsockopt(zmq.REQ_CORRELATE, 1)
        # What is asked while no rig is there must not reach one that is started later.
        self.raw.setsockopt(zmq.IMMEDIATE, 1)
        self.connect(endpoint, server_public_key)

    def ask(self, request: Request, timeout_s: float) -> Reply:
        """Send a request and return its answer.

        Raises
        ------
        NoReplyError
            If no answer came in time: no rig is running there, or it does not answer.
        InputError
            If the request is longer than a rig reads.
        """
        payload = encode(request)
        if len(payload) > MAX_REQUEST_BYTES:
            raise InputError(
                f"{request.action}: {len(payload)} bytes, at most {MAX_REQUEST_BYTES} are read"
            )
        deadline_ns = now_ns() + round(timeout_s * 1e9)
        try:
            self._wait(zmq.POLLOUT, deadline_ns)
            self.raw.send(payload, zmq.DONTWAIT)
            self._wait(zmq.POLLIN, deadline_ns)
            reply = decode(self.raw.recv(zmq.DONTWAIT))
        except zmq.error.Again:
            raise NoReplyError(
                f"no answer from {self._endpoint} within {timeout_s:g} s: is the rig running, "
                "and are these its ports, and its key if it has one?"
            ) from None
        if not isinstance(reply, Reply):
            raise MessageError(f"{self._endpoint} answered with a {reply.type_name}")
        return reply

    def _wait(self, flag: int, deadline_ns: int) -> None:
        self.raw.poll(max(0, -((now_ns() - deadline_ns) // 1_000_000)), flag)
