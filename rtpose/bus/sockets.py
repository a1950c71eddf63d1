"""What all ZeroMQ sockets of rtpose share: their context, limits, encryption."""

import errno
from pathlib import Path
from typing import Final, Self

import zmq
import zmq.auth
import zmq.error

from rtpose.errors import InputError
from rtpose.messages import MAX_PAYLOAD_BYTES

#: A client that has not said who it is by then is let go.
_HANDSHAKE_MS: Final = 2000
#: After so long a silence the system asks whether the other machine is still there.
_KEEPALIVE_S: Final = 30


class Socket:
    """A ZeroMQ socket of its own context, closed without lingering."""

    def __init__(self, kind: int) -> None:
        self._context = zmq.Context(io_threads=1)
        self.raw = self._context.socket(kind)
        self.raw.setsockopt(zmq.LINGER, 0)
        self.raw.setsockopt(zmq.MAXMSGSIZE, MAX_PAYLOAD_BYTES)

    def bind(self, endpoint: str, curve_secret_key_file: str | None = None) -> str:
        """Bind and return the endpoint, with its port if the given one left it open (``:*``)."""
        # Connections that say nothing, and those of machines that vanished, must not pile up.
        self.raw.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
        self.raw.setsockopt(zmq.TCP_KEEPALIVE, 1)
        self.raw.setsockopt(zmq.TCP_KEEPALIVE_IDLE, _KEEPALIVE_S)
        try:
            if curve_secret_key_file is not None:
                self._encrypt(curve_secret_key_file)
            self.raw.bind(endpoint)
        except zmq.error.ZMQError as error:
            self.close()
            what_to_do = (
                "is another rig running? Give other ports in [stream]"
                if error.errno == errno.EADDRINUSE
                else "give an IPv4 address of this machine as [stream] host"
            )
            raise InputError(f"cannot bind {endpoint}: {error}; {what_to_do}") from error
        except InputError:
            self.close()
            raise
        return self.raw.getsockopt_string(zmq.LAST_ENDPOINT)

    def _encrypt(self, secret_key_file: str) -> None:
        public, secret = load_key(secret_key_file)
        if secret is None:
            raise InputError(f"{secret_key_file}: holds no secret key")
        self.raw.setsockopt(zmq.CURVE_PUBLICKEY, public)
        self.raw.setsockopt(zmq.CURVE_SECRETKEY, secret)
        self.raw.setsockopt(zmq.CURVE_SERVER, 1)

    def connect(self, endpoint: str, server_public_key: bytes | None = None) -> None:
        """Connect; with a key, only to the server that owns it, and encrypted."""
        if server_public_key is not None:
            public, secret = zmq.curve_keypair()
            self.raw.setsockopt(zmq.CURVE_PUBLICKEY, public)
            self.raw.setsockopt(zmq.CURVE_SECRETKEY, secret)
            self.raw.setsockopt(zmq.CURVE_SERVERKEY, server_public_key)
        try:
            self.raw.connect(endpoint)
        except zmq.error.ZMQError as error:
            self.close()
            raise InputError(f"cannot connect to {endpoint!r}: {error}") from error

    def close(self) -> None:
        """Close the socket and its context."""
        self.raw.close()
        self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def load_key(path: str) -> tuple[bytes, bytes | None]:
    """Return the public key in a certificate file, and the secret one if it has that."""
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    try:
        return zmq.auth.load_certificate(Path(path))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a ZeroMQ certificate: {error}") from error


def public_key(path: Path) -> bytes:
    """Return the public key in a ZeroMQ certificate file."""
    return load_key(str(path))[0]
