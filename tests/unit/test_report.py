"""The report's figures."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import rtpose
from rtpose.bus import Publisher
from rtpose.config import load_rig
from rtpose.messages import Pose
from rtpose.report import PERCENTILES, Collector, Histogram, build, render
from rtpose.skeleton import Skeleton

DEMO = Path(rtpose.__file__).parent / "demo" / "rig.toml"
SKELETON = Skeleton(("snout",))


def pose(run: str, infer_us: int) -> Pose:
    points, valid = np.ones((1, 1, 3), np.float32), np.ones((1, 1), np.uint8)
    end_ns = infer_us * 1000
    return Pose(run, "arena", 0, 0, 0, None, 0, 0, 0, end_ns, end_ns, points, valid)


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with Publisher("tcp://127.0.0.1:*") as publisher:
        yield publisher


def test_what_another_rig_on_the_same_ports_does_is_not_in_the_report(
    publisher: Publisher,
) -> None:
    port = int(publisher.endpoint.rpartition(":")[2])
    rig = load_rig(DEMO)
    stream = rig.stream.model_copy(update={"pose_port": port, "event_port": port})
    collector = Collector(replace(rig, stream=stream), SKELETON, "ours")
    try:
        assert publisher.raw.poll(5000), "the collector did not subscribe"
        publisher.publish("pose.arena", pose("theirs", infer_us=9))
        publisher.publish("pose.arena", pose("ours", infer_us=1))
        while not collector.latency_us():
            assert collector._subscriber.raw.poll(5000)
            collector.drain()
        assert collector.latency_us()["infer"]["max"] == 1.0
    finally:
        collector.close()


def test_what_was_withheld_or_nothing_confirmed_is_said() -> None:
    rig, control = load_rig(DEMO), {"fires": 4, "withheld": 3, "unconfirmed": 2}
    collector = Collector(rig, SKELETON, "ours")
    report = build(collector, {"control": control}, {}, rig, "ours", [])
    collector.close()
    console = Console(width=200)
    with console.capture() as shown:
        console.print(render(report))
    assert "4 fires, 3 withheld by design, 0 acknowledged commands, 2 that nothing confirmed" in (
        shown.get()
    )
    assert "latency" not in shown.get()  # nothing was measured


def test_the_path_in_a_problem_is_not_cut_off() -> None:
    rig, path = load_rig(DEMO), "/a/long/way/to/a/folder/" + 9 * "that-is-deep/" + "manifest.json"
    collector = Collector(rig, SKELETON, "ours")
    report = build(collector, {}, {}, rig, "ours", [f"cannot write {path}"])
    collector.close()
    console = Console(width=80)
    with console.capture() as shown:
        console.print(render(report))
    assert path in "".join(line.strip() for line in shown.get().splitlines())


@given(st.lists(st.floats(0.01, 1e8), min_size=1, max_size=300))
def test_percentiles_are_right_to_half_a_percent_and_the_maximum_exactly(
    values: list[float],
) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    found = histogram.percentiles()
    for name, q in PERCENTILES.items():
        exact = float(np.percentile(values, q, method="inverted_cdf"))
        assert found[name] == pytest.approx(exact, rel=0.0051)
    assert found["max"] == max(values)
    assert histogram.n == len(values)
    assert histogram.mean == pytest.approx(float(np.mean(values)))


def test_memory_does_not_grow_with_the_run() -> None:
    histogram = Histogram()
    for value in (0.0, -1.0, 1e30):
        histogram.add(value)  # whatever comes, it is counted
    assert histogram.n == 3
    assert histogram.percentiles()["max"] == 1e30
