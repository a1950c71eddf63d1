"""Read a ring while its writer goes flat out; check every byte of every frame that is handed out.

    python -m benchmarks ring_torture
    python -m benchmarks.ring_torture --reads 1000000 --mode next

A frame is torn if its bytes are not all those of the frame that its header names. None may be
handed out; `caught` counts those that the ring itself threw away.
"""

import argparse
import json
import secrets
from multiprocessing.synchronize import Semaphore

import numpy as np
from numpy.typing import NDArray

from rtpose import ring
from rtpose.clock import now_ns
from rtpose.loop import SPAWN
from rtpose.ring import RingAddress, RingReader, RingWriter, WriterState

_SHAPE = (64, 64)
_SLOTS = 4
_GIVE_UP_S = 5.0


def write_flat_out(name: str, wake: Semaphore, stop: Semaphore) -> None:
    """Publish frames as fast as possible until told to stop."""
    writer = RingWriter(name, _SHAPE, _SLOTS, {"reader": wake})
    frame_id = 0
    while not stop.acquire(block=False):
        writer.buffer().fill(frame_id & 255)
        writer.publish(frame_id, arrival_ns=now_ns(), exposure_ns=None)
        frame_id += 1
    writer.finish(WriterState.ENDED)
    writer.close()


def _bytes(pixels: NDArray[np.uint8]) -> bytes:
    return pixels.tobytes()


def run(reads: int = 200_000, mode: str = "newest") -> dict[str, float]:
    """Return how many frames were read, torn, caught, and how long one read took."""
    name = f"rtpose-torture-{secrets.token_hex(4)}"
    wake, stop = SPAWN.Semaphore(0), SPAWN.Semaphore(0)
    # The geometry exists before the writer's process does, so that the reader can attach.
    first = RingWriter(name, _SHAPE, _SLOTS, {})
    reader = RingReader(RingAddress(name, wake))
    process = SPAWN.Process(target=write_flat_out, args=(name, wake, stop))
    whole = [bytes([value]) * int(np.prod(_SHAPE)) for value in range(256)]
    read = getattr(reader, mode)
    torn = done = passed_over = 0
    process.start()
    try:
        start_ns = now_ns()
        while done < reads:
            taken = read(_bytes, _GIVE_UP_S)
            if taken is None:
                break
            done += 1
            passed_over += taken.passed_over
            torn += taken.result != whole[taken.header.frame_id & 255]
        elapsed_ns = now_ns() - start_ns
    finally:
        stop.release()
        process.join()
        caught = reader.torn
        reader.close()
        first.close()
        ring.unlink(name)
    return {
        "reads": done,
        "torn": torn,
        "caught": caught,
        "passed_over": passed_over,
        "us_per_read": elapsed_ns / 1000 / max(done, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reads", type=int, default=200_000)
    parser.add_argument("--mode", choices=["newest", "next"], default="newest")
    options = parser.parse_args()
    print(json.dumps(run(options.reads, options.mode)))


if __name__ == "__main__":
    main()
