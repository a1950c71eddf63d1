"""One pose from process to process: over ZeroMQ, and over the direct line that control uses.

    python -m benchmarks transport

Both carry the same encoded pose at the same pace, in turn, in one run; the time is from just before
the encoding to just after the decoding. The pace leaves the cores idle between two poses, as a
camera does: a loop without pauses would measure how fast a core that never sleeps can be.
"""

import multiprocessing.connection
import socket
from typing import Any, Final

import numpy as np

from benchmarks import PERCENTILES, summary_us, table
from rtpose.bus import DirectReceiver, Poller, Publisher, Subscriber, direct_pair
from rtpose.clock import RateKeeper, now_ns
from rtpose.loop import SPAWN, go_realtime
from rtpose.messages import Pose

_POSES: Final = 600
_RATE_HZ: Final = 100.0
_WAIT_MS: Final = 1000


def receive(
    endpoint: str | None,
    direct: socket.socket | None,
    result: "multiprocessing.connection.Connection[Any, Any]",
) -> None:
    """Take poses from one of the two ways, and send back how long each was under way, in ns."""
    go_realtime(55)
    source: Subscriber | DirectReceiver
    if endpoint is not None:
        source = Subscriber([endpoint], ["pose."])
    elif direct is not None:
        source = DirectReceiver(direct)
    poller = Poller(source)
    taken_ns: list[int] = []
    result.send("ready")
    while len(taken_ns) < _POSES:
        poller.wait(_WAIT_MS)
        message = source.receive(0.0) if isinstance(source, Subscriber) else source.receive()
        if isinstance(message, Pose):
            taken_ns.append(now_ns() - message.publish_ns)
    result.send(taken_ns)
    source.close()


def _pose(seq: int) -> Pose:
    points, valid = np.zeros((1, 8, 3), np.float32), np.ones((1, 8), np.uint8)
    return Pose("run", "top", seq, seq, 0, None, 1, 2, 3, 4, now_ns(), points, valid)


def _measure(way: str) -> dict[str, float]:
    ours, theirs = direct_pair()
    publisher = Publisher("tcp://127.0.0.1:*", direct=ours if way == "direct" else None)
    result, child_end = SPAWN.Pipe()
    arguments = (
        publisher.endpoint if way == "zeromq" else None,
        theirs if way == "direct" else None,
        child_end,
    )
    process = SPAWN.Process(target=receive, args=arguments)
    process.start()
    try:
        result.recv()
        if way == "zeromq":
            publisher.raw.poll(_WAIT_MS)
        pace = RateKeeper(_RATE_HZ)
        for seq in range(_POSES):
            pace.wait()
            publisher.publish("pose.top", _pose(seq))
        taken_ns = result.recv()
    finally:
        publisher.close()
        process.join()
        ours.close()
        theirs.close()
    return summary_us(np.array(taken_ns))


def run() -> dict[str, Any]:
    """Return percentiles of both ways, in microseconds, and the ratio of their medians."""
    go_realtime(45)
    zeromq, direct = _measure("zeromq"), _measure("direct")
    return {
        "zeromq_us": zeromq,
        "direct_us": direct,
        "zeromq_over_direct_p50": zeromq["p50"] / direct["p50"],
    }


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    rows = {
        name: {p: round(v) for p, v in result[f"{name}_us"].items()}
        for name in ("zeromq", "direct")
    }
    table("one pose, us", rows, list(PERCENTILES))
    print(f"ratio of the medians: {result['zeromq_over_direct_p50']:.1f}")


if __name__ == "__main__":
    show(run())
