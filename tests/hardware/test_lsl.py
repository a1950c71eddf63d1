"""The LSL outlets against a pylsl inlet in a process of its own, found on this machine."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from counterpart import PATIENCE_S, Counterpart, until
from pydantic import ValidationError
from test_output_contract import LINES, Edges, HostTimedContract, command, pause

from rtpose.bus import Publisher
from rtpose.clock import now_ns
from rtpose.errors import InputError, MissingExtraError, OutputError
from rtpose.interfaces import Output
from rtpose.messages import Pose, Status
from rtpose.skeleton import Skeleton
from rtpose_hardware.lsl import LslOutput, LslSettings, load, lsl_time

CLIENT = Path(__file__).parents[2] / "examples" / "clients" / "lsl_poses.py"
PATIENCE_NS = 30_000_000_000


@pytest.fixture
def stream() -> str:
    """Return a name that no other test run has."""
    return f"rtpose-test-{os.getpid()}-{now_ns()}"


@pytest.fixture
def inlet(stream: str) -> Iterator[Counterpart]:
    inlet = Counterpart("lsl", "markers", stream)
    yield inlet
    inlet.stop()


def make(stream: str, **settings: Any) -> LslOutput:
    given = {"lines": LINES, "stream": stream, "insecure": True, **settings}
    return LslOutput(LslSettings.model_validate(given))


def edges_of(inlet: Counterpart) -> Edges:
    return [(name, high) for name, high in inlet.edges() if name in LINES]


def arm_when_connected(output: Output) -> None:
    """Arm as soon as the inlet is there; `require_inlet` says when."""
    deadline_ns = now_ns() + PATIENCE_NS
    while True:
        try:
            output.arm()
        except OutputError:
            assert now_ns() < deadline_ns
            pause(5)
        else:
            return


class TestContract(HostTimedContract):
    plugin = LslOutput
    settings: ClassVar[dict[str, Any]] = {"insecure": True}
    confirms = False
    acknowledges = False

    @pytest.fixture
    def make_output(self, stream: str) -> Callable[[], LslOutput]:
        return lambda: make(stream)

    @pytest.fixture
    def armed(self, stream: str, output: Output, inlet: Counterpart) -> Iterator[Output]:
        armed = make(stream, require_inlet=True)
        armed.open()
        arm_when_connected(armed)
        yield armed
        armed.close()

    @pytest.fixture
    def edges(self, inlet: Counterpart) -> Callable[[], Edges]:
        return lambda: edges_of(inlet)

    def test_unplugged_in_mid_command_it_raises_until_it_is_back(self) -> None:  # type: ignore[override]
        pytest.skip("LSL does not tell whether anybody receives: there is nothing to unplug")


def test_a_marker_has_the_time_of_its_command_on_lsls_clock(
    stream: str, inlet: Counterpart
) -> None:
    output = make(stream, require_inlet=True)
    output.open()
    with pytest.raises(OutputError, match="no program receives"):
        output.arm()
    arm_when_connected(output)
    clock = load("machine").local_clock
    before = clock()
    sent_ns = output.send(command(1, "laser", "on", 100_000))
    after = clock()
    output.send(command(2, "laser", "on", 100_000))  # no change: no marker
    output.close()
    until(lambda: edges_of(inlet) == [("laser", True), ("laser", False)], "two markers")
    stamps = [float.fromhex(text.split()[1]) for text in inlet.lines if text.startswith("stamp ")]
    assert len(stamps) == 2
    assert before <= stamps[0] <= after
    assert stamps[0] <= lsl_time(sent_ns, clock) + 1e-3


def test_a_stamp_keeps_its_distance_to_now_on_the_other_clock() -> None:
    stamp_ns = now_ns()
    assert lsl_time(stamp_ns - 250_000_000, lambda: 1000.0) == pytest.approx(999.75, abs=0.2)
    assert lsl_time(stamp_ns, lambda: 1000.0) <= 1000.0


def test_that_anybody_may_connect_must_be_known(stream: str) -> None:
    with pytest.raises(ValidationError, match="insecure = true"):
        LslSettings.model_validate({"lines": LINES, "stream": stream})


def test_two_scopes_in_one_process_are_refused(stream: str) -> None:
    load("machine")
    with pytest.raises(InputError, match="scope = 'machine'"):
        make(stream, scope="site").open()


def test_without_pylsl_it_says_what_to_type(stream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pylsl", None)
    with pytest.raises(MissingExtraError, match=r'pip install "rtpose\[lsl\]"'):
        make(stream).open()


# ---------------------------------------------------------------------------- the client for poses

SKELETON = Skeleton(("snout", "tail"), (("snout", "tail"),))


def pose(seq: int, exposure_ns: int) -> Pose:
    return Pose(
        run="run-1",
        camera="top",
        seq=seq,
        frame_id=seq,
        dropped=0,
        exposure_ns=exposure_ns,
        arrival_ns=exposure_ns + 1,
        ready_ns=exposure_ns + 2,
        infer_start_ns=exposure_ns + 3,
        infer_end_ns=exposure_ns + 4,
        publish_ns=exposure_ns + 5,
        keypoints=np.array([[[seq + 0.5, 2.25, 0.75], [7.0, 8.0, 0.125]]], np.float32),
        valid=np.array([[1, 0]], np.uint8),
    )


def greeting() -> tuple[str, Status]:
    info = {"skeleton": SKELETON.to_dict()}
    message = Status(run="run-1", process="inference", state="running", sent_ns=now_ns(), info=info)
    return "status.inference", message


def test_poses_arrive_in_lsl_with_the_time_of_their_exposure(stream: str) -> None:
    inlet = Counterpart("lsl", "poses", stream)
    exposures: dict[int, int] = {}
    with Publisher("tcp://127.0.0.1:*", greeting=greeting) as publisher:
        port = publisher.endpoint.rsplit(":", 1)[1]
        options = ["--insecure", "--pose-port", port, "--stream", stream]
        client = subprocess.Popen([sys.executable, str(CLIENT), *options])
        try:
            deadline_ns = now_ns() + PATIENCE_NS
            while len(inlet.lines) < 12 and now_ns() < deadline_ns:
                publisher.serve_subscriptions()
                seq = len(exposures)
                exposures[seq] = now_ns() - 30_000_000
                publisher.publish("pose.top", pose(seq, exposures[seq]))
                pause(5)
                inlet.edges()
        finally:
            client.kill()
            client.wait(PATIENCE_S)
            inlet.stop()
    _, listening, *samples = inlet.lines
    clock = load("machine").local_clock
    for text in samples:
        stamp, *numbers = map(float.fromhex, text.split())
        seq = int(numbers[0])
        assert stamp == pytest.approx(lsl_time(exposures[seq], clock), abs=5e-3)
        assert numbers[:3] == [seq + 0.5, 2.25, 0.75]
        assert np.isnan(numbers[3:5]).all() and numbers[5] == 0.125
    xml = ET.fromstring(bytes.fromhex(listening.split()[1]).decode())
    labels = [label.text for label in xml.iter("label")]
    assert labels[:4] == ["0.snout.x", "0.snout.y", "0.snout.confidence", "0.tail.x"]
    assert [stamp.text for stamp in xml.iter("time_stamp")] == ["exposure"]


def test_the_client_needs_to_be_told_that_lsl_is_open() -> None:
    done = subprocess.run([sys.executable, str(CLIENT)], capture_output=True, text=True)
    assert done.returncode == 2
    assert "--insecure" in done.stderr
