"""Just enough of ZeroMQ's wire protocol (ZMTP 3.0, rfc.zeromq.org/spec/23) to say it wrongly."""

import socket

#: Signature, version 3.0, mechanism NULL, not a server, filler: 64 bytes.
GREETING = b"\xff" + bytes(7) + b"\x01\x7f\x03\0NULL" + bytes(48)


def frame(body: bytes, *, more: bool = False, command: bool = False) -> bytes:
    """Return one frame as it goes over the wire."""
    long = len(body) > 255
    flags = more | long << 1 | command << 2
    size = len(body).to_bytes(8 if long else 1, "big")
    return bytes([flags]) + size + body


def ready(kind: bytes = b"DEALER") -> bytes:
    """Return the command that ends the handshake without encryption."""
    return frame(
        b"\x05READY\x0bSocket-Type" + len(kind).to_bytes(4, "big") + kind,
        command=True,
    )


def request(payload: bytes) -> bytes:
    """Return a message as a client's REQ socket puts it: an empty part, then the payload."""
    return frame(b"", more=True) + frame(payload)


def connect(address: tuple[str, int]) -> socket.socket:
    """Return a connection with its handshake done: from now on messages may follow."""
    connection = socket.create_connection(address, timeout=20)
    connection.sendall(GREETING + ready())
    seen = b""
    while b"Socket-Type" not in seen:  # until the other side is ready, a message is an error
        part = connection.recv(256)
        if not part:
            raise ConnectionError("the handshake was refused")
        seen += part
    return connection
