"""Clients in other languages follow the real publisher: the protocol is enough to write one."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq.auth

from rtpose.bus import Publisher
from rtpose.clock import now_ns
from rtpose.messages import Pose, Status
from rtpose.skeleton import Skeleton

CLIENT = Path(__file__).parents[2] / "examples" / "clients" / "node"
SKELETON = Skeleton(("snout", "leftear"), (("snout", "leftear"),))
#: Far beyond 2**53: a client that keeps stamps in doubles is wrong here.
START_NS = 2**62 + 1
PATIENCE_NS = 60_000_000_000


@pytest.fixture(scope="module")
def node() -> str:
    """Return node with the client's packages, or skip."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("node is not installed")
    code = "require('zeromq'); require('@msgpack/msgpack')"
    if subprocess.run([program, "-e", code], cwd=CLIENT, capture_output=True).returncode:
        pytest.skip("the client's packages are missing: run npm install in examples/clients/node")
    return program


def pose(seq: int, camera: str = "top") -> Pose:
    start_ns = START_NS + seq * 10_000_000
    keypoints = np.array([[[seq + 0.1, -2.5, 0.9], [np.nan, np.nan, 0.05]]], np.float32)
    return Pose(
        run="run-1",
        camera=camera,
        seq=seq,
        frame_id=2 * seq,
        dropped=1,
        exposure_ns=None if seq % 2 else start_ns,
        arrival_ns=start_ns + 500_000,
        ready_ns=start_ns + 600_000,
        infer_start_ns=start_ns + 700_000,
        infer_end_ns=start_ns + 1_000_000,
        publish_ns=start_ns + 1_250_000,
        keypoints=keypoints,
        valid=np.array([[1, 0]], np.uint8),
    )


def status() -> tuple[str, Status]:
    info = {"skeleton": SKELETON.to_dict()}
    message = Status(run="run-1", process="inference", state="running", sent_ns=now_ns(), info=info)
    return "status.inference", message


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with Publisher("tcp://127.0.0.1:*", greeting=status) as publisher:
        yield publisher


def follow(node: str, publisher: Publisher, *options: str) -> list[dict[str, Any]]:
    """Publish poses, garbage among them, until the client has printed what it was asked for."""
    command = [node, "client.js", "--endpoint", publisher.endpoint, "--timeout-s", "30", *options]
    with subprocess.Popen(
        command, cwd=CLIENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            seq, deadline_ns = 0, now_ns() + PATIENCE_NS
            while process.poll() is None and now_ns() < deadline_ns:
                publisher.serve_subscriptions()
                if seq % 3:  # every third pose gets lost
                    publisher.publish("pose.top", pose(seq))
                    publisher.publish("pose.top2", pose(seq, "top2"))
                for topic in (b"pose.top", b"json.pose.top"):
                    for garbage in (b"\xc1", b'{"v":2,"type":"pose"}', b"\x80", b"null", b"{"):
                        publisher.raw.send_multipart((topic, garbage))
                seq += 1
                publisher.raw.poll(5)  # until somebody subscribes, or a little later
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0, err
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.parametrize("encoding", [(), ("--json-topic",)], ids=["msgpack", "json"])
def test_a_client_in_node_reads_the_stream(
    node: str, publisher: Publisher, encoding: tuple[str, ...]
) -> None:
    lines = follow(node, publisher, "--count", "6", "--camera", "top", *encoding)
    assert len(lines) == 6
    for previous, line in zip([None, *lines], lines, strict=False):
        seq = line["seq"]
        assert line["lost"] == (0 if previous is None else seq - previous["seq"] - 1)
        assert (line["camera"], line["frame_id"], line["dropped"]) == ("top", 2 * seq, 1)
        latency_us = 750 if seq % 2 else 1250
        # JSON's numbers are doubles in JavaScript, which round stamps as large as these.
        assert abs(line["latency_us"] - latency_us) <= (2 if encoding else 0)
        (animal,) = line["individuals"]
        assert animal["leftear"] == {
            "x": None,
            "y": None,
            "confidence": pytest.approx(0.05),
            "valid": False,
        }
        assert animal["snout"] == {
            "x": pytest.approx(seq + 0.1),
            "y": -2.5,
            "confidence": pytest.approx(0.9),
            "valid": True,
        }
    assert any(line["lost"] for line in lines)


def test_a_client_in_node_reads_an_encrypted_stream(node: str, tmp_path: Path) -> None:
    public, secret = zmq.auth.create_certificates(tmp_path, "rig")
    with Publisher("tcp://127.0.0.1:*", secret, greeting=status) as publisher:
        lines = follow(node, publisher, "--count", "2", "--server-key", public)
    assert len(lines) == 2


def test_a_client_says_that_no_rig_is_there(node: str, publisher: Publisher) -> None:
    endpoint = publisher.endpoint
    publisher.raw.unbind(endpoint)
    command = [node, "client.js", "--endpoint", endpoint, "--timeout-s", "0.2"]
    shown = subprocess.run(command, cwd=CLIENT, capture_output=True, text=True, timeout=60)
    assert shown.returncode == 1
    assert f"nothing came from {endpoint}" in shown.stderr
