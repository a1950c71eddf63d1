"""Ports for the servers of a test."""

import random
import socket
import threading
from typing import Final

#: Below those that systems give to whoever asks for any, clients included: one of them could
#: take a port between the moment when it was found free and that when it is bound.
_RANGE: Final = range(20_000, 32_000)
_handed_out: set[int] = set()
_handing_out = threading.Lock()


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback that are free, none of them twice in this process."""
    ports: list[int] = []
    with _handing_out:
        while len(ports) < count:
            port = random.SystemRandom().choice(_RANGE)
            if port not in _handed_out and _is_free(port):
                _handed_out.add(port)
                ports.append(port)
    return ports


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
