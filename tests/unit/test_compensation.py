"""Triggers that act on the pose as it will be when their output acts."""

from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import INFERENCE_NS, MS, EngineBench

from rtpose.compensation import LatencyCompensation
from rtpose.forecast import Forecaster
from rtpose.messages import Ack, Command, Pose, TriggerEvent
from rtpose.rig_tables import ForecastTable

#: 300 px/s to the right, at 100 frames/s.
STEP_MS, STEP_PX = 10, 3.0
INFERENCE_MS = INFERENCE_NS / MS

DELAYED = """
[forecast]
output_delay_ms = {delay_ms}
"""
BORDER = """
[triggers.{name}]
type = "region"
keypoint = "snout"
rectangle = {{ x_px = 148.5, y_px = 0.0, width_px = 500.0, height_px = 480.0 }}
when = "enter"
output = "out.{line}"
pulse_ms = 5.0
forecast = {forecast}
"""
WATCHING = """
[triggers.{name}]
type = "scripted:WatchingTrigger"
output = "{output}"
pulse_ms = 5.0
forecast = {forecast}
"""


def run_across(bench: EngineBench, poses: int = 70, first: int = 0) -> None:
    for i in range(first, first + poses):
        bench.pose((STEP_PX * i, 100.0), (50.0, 50.0), at_ms=STEP_MS * i)


def fires(bench: EngineBench, trigger: str) -> list[TriggerEvent]:
    return [e for e in bench.events if e.kind == "fire" and e.trigger == trigger]


def report(bench: EngineBench, output: str = "out") -> dict[str, Any]:
    """Return what the status says of an output's forecasts."""
    found: dict[str, Any] = bench.engine.facts()["forecast"][output]
    return found


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 8])
def test_it_fires_as_many_frames_earlier_as_pass_until_the_output_acts(
    tmp_path: Path, frames: int
) -> None:
    delay_ms = frames * STEP_MS - INFERENCE_MS
    bench = EngineBench(
        tmp_path,
        DELAYED.format(delay_ms=delay_ms)
        + BORDER.format(name="now", line="laser", forecast="false")
        + BORDER.format(name="ahead", line="light", forecast="true"),
    )
    bench.engine.arm(bench.now_ns)
    run_across(bench)
    (now,), (ahead,) = fires(bench, "now"), fires(bench, "ahead")
    assert now.frame_id == 50
    assert ahead.frame_id == 50 - frames
    assert now.forecast_ns is None
    assert ahead.forecast_ns is not None
    assert ahead.publish_ns is not None
    assert ahead.forecast_ns - ahead.publish_ns == delay_ms * MS
    # What it was decided on is in its words: the border was crossed, by half a step.
    assert 148.5 <= float(ahead.detail.split("(")[1].split(",")[0]) <= 148.5 + STEP_PX


def test_a_trigger_sees_the_forecast_for_when_its_own_output_acts(tmp_path: Path) -> None:
    bench = EngineBench(
        tmp_path,
        "[outputs.slow]\ntype = 'scripted:ScriptedOutput'\n"
        "[outputs.slow.lines.valve]\npin = 0\nmax_on_ms = 100.0\n"
        + DELAYED.format(delay_ms=4)
        + WATCHING.format(name="plain", output="out.laser", forecast="false")
        + WATCHING.format(name="quick", output="out.light", forecast="true")
        + WATCHING.format(name="slow", output="slow.valve", forecast="true"),
    )
    bench.engine.arm(bench.now_ns)
    run_across(bench, 10)
    delays_ms = {"quick": 4.0, "slow": 4.0}
    (command,) = bench.outputs["slow"].commands
    (fire,) = fires(bench, "slow")
    assert fire.publish_ns is not None
    bench.answer(command, device_ns=fire.publish_ns + 30 * MS)
    delays_ms["slow"] = 30.0
    run_across(bench, 10, first=10)

    forecaster, points = Forecaster(ForecastTable(), 2), np.empty((2, 3), np.float32)
    for i, pose in enumerate(bench.seen_by("plain")):
        forecaster.update(pose.start_ns, pose.keypoints[0], pose.valid[0])
        for name, delay_ms in delays_ms.items():
            seen = bench.seen_by(name)[i]
            due_ms = delay_ms if i >= 10 or name == "quick" else 4.0
            forecaster.at(pose.publish_ns + round(due_ms * MS), points)
            np.testing.assert_array_equal(seen.keypoints[0], points)
            assert (seen.start_ns, seen.frame_id) == (pose.start_ns, pose.frame_id)
    assert report(bench, "slow")["delay_ms"] == 30.0
    assert report(bench, "out")["delay_ms"] == 4.0


def test_a_keypoint_without_a_forecast_is_missing_and_so_is_one_that_was_not_found(
    tmp_path: Path,
) -> None:
    bench = EngineBench(
        tmp_path,
        "[forecast]\nmax_gap_ms = 20.0\noutput_delay_ms = 14.0\n"
        + WATCHING.format(name="ahead", output="out.laser", forecast="true"),
    )
    for i, places in enumerate([(None, None), ((1.0, 1.0), None), (None, (2.0, 2.0))]):
        bench.pose(*places, at_ms=STEP_MS * i)
    assert [pose.valid[0].tolist() for pose in bench.seen_by("ahead")] == [[0, 0], [1, 0], [0, 1]]
    # There the output acts 19 ms after the exposure, here 21 ms.
    far = EngineBench(
        tmp_path,
        "[forecast]\nmax_gap_ms = 20.0\noutput_delay_ms = 16.0\n"
        + WATCHING.format(name="ahead", output="out.laser", forecast="true"),
    )
    far.pose((1.0, 1.0), (2.0, 2.0), at_ms=0)
    assert far.seen_by("ahead")[0].valid[0].tolist() == [0, 0]


def test_a_pose_without_an_animal_has_no_forecast_either() -> None:
    compensation = LatencyCompensation(ForecastTable(), 2, ["out"])
    empty = Pose(
        *("r", "top", 0, 0, 0, 0, 0, 0, 0, 0, 5 * MS),
        np.empty((0, 2, 3), np.float32),
        np.empty((0, 2), np.uint8),
    )
    compensation.update(empty)
    seen, _ = compensation.pose_for("out", empty)
    assert not seen.valid.any()


def test_where_time_goes_back_forecasts_begin_anew(tmp_path: Path) -> None:
    bench = EngineBench(
        tmp_path,
        DELAYED.format(delay_ms=20)
        + WATCHING.format(name="a", output="out.laser", forecast="true"),
    )
    run_across(bench, 20)
    bench.pose((400.0, 100.0), (50.0, 50.0), at_ms=0)
    # One pose alone: the animal is where it was seen, at rest.
    assert bench.seen_by("a")[-1].keypoints[0, 0, :2].tolist() == [400.0, 100.0]


# ------------------------------------------------------------------------------ the delay is learnt


def command(number: int, output: str = "out") -> Command:
    return Command(command_id=number, output=output, line="laser", action="pulse", width_us=1)


def ack(number: int, acted_ns: int, **fields: Any) -> Ack:
    common: dict[str, Any] = {"output": "out", "line": "laser", "ok": True, "command_ns": 0}
    return Ack(command_id=number, **{**common, "ack_ns": acted_ns, **fields})


def test_the_delay_is_when_the_device_acted_or_else_when_it_answered() -> None:
    compensation = LatencyCompensation(ForecastTable(output_delay_ms=7.0), 1, ["out"])
    assert compensation.report()["out"]["delay_ms"] == 7.0
    compensation.take_command(command(1), publish_ns=100 * MS)
    compensation.take_ack(ack(1, 112 * MS, device_ns=109 * MS))
    assert compensation.report()["out"]["delay_ms"] == 9.0
    compensation.take_command(command(2), publish_ns=200 * MS)
    compensation.take_ack(ack(2, 205 * MS))
    assert compensation.report()["out"]["delay_ms"] == 7.0  # the median of 9 and 5
    assert compensation.report()["out"]["delays_measured"] == 2


def test_the_delay_that_a_train_was_given_is_not_the_outputs_own() -> None:
    compensation = LatencyCompensation(ForecastTable(output_delay_ms=7.0), 1, ["out"])
    train = command(1).model_copy(
        update={"action": "train", "count": 2, "period_us": 1000, "delay_us": 500_000}
    )
    compensation.take_command(train, publish_ns=100 * MS)
    compensation.take_ack(ack(1, 101 * MS, device_ns=609 * MS))
    assert compensation.report()["out"]["delay_ms"] == 9.0


@pytest.mark.parametrize(
    "answer",
    [
        ack(1, 150 * MS, ok=False),
        ack(1, 150 * MS, confirmed=False),
        ack(2, 150 * MS),
        ack(1, 150 * MS, output="other"),
    ],
    ids=["refused", "nobody answered", "of another command", "of another output"],
)
def test_what_tells_nothing_of_the_delay_is_not_learnt_from(answer: Ack) -> None:
    compensation = LatencyCompensation(ForecastTable(output_delay_ms=7.0), 1, ["out"])
    compensation.take_command(command(1), publish_ns=100 * MS)
    compensation.take_command(command(2, output="other"), publish_ns=100 * MS)
    compensation.take_ack(answer)
    assert compensation.report()["out"]["delay_ms"] == 7.0
    assert compensation.report()["out"]["delays_measured"] == 0


@given(st.lists(st.tuples(st.integers(-5, 60), st.booleans()), max_size=120), st.data())
def test_it_is_the_median_of_the_last_answers_in_whatever_order_they_come(
    answers: list[tuple[int, bool]], data: st.DataObject
) -> None:
    compensation = LatencyCompensation(ForecastTable(output_delay_ms=7.0), 1, ["out"])
    waiting: list[int] = []
    learnt_ms: list[int] = []

    def hear() -> None:
        number = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
        delay_ms, by_clock = answers[number]
        acted_ns = number * 1000 * MS + 10 * MS + delay_ms * MS
        stamps = {"device_ns": acted_ns} if by_clock else {}
        compensation.take_ack(ack(number, acted_ns + 3 * MS * by_clock, **stamps))
        learnt_ms.append(max(0, delay_ms))

    for number in range(len(answers)):
        compensation.take_command(command(number), number * 1000 * MS + 10 * MS)
        waiting.append(number)
        while len(waiting) > 3:
            hear()
    while waiting:
        hear()
    expected = median(learnt_ms[-51:]) if learnt_ms else 7.0
    assert compensation.report()["out"]["delay_ms"] == pytest.approx(expected, abs=1e-6)
    assert compensation.report()["out"]["delays_measured"] == len(learnt_ms)


def test_what_was_withheld_is_not_waited_for(tmp_path: Path) -> None:
    bench = EngineBench(
        tmp_path,
        DELAYED.format(delay_ms=7)
        + WATCHING.format(name="a", output="out.laser", forecast="true")
        + "sham = true\n",
    )
    bench.engine.arm(bench.now_ns)
    run_across(bench, 10)
    assert bench.kinds == ["withheld"]
    assert bench.output.commands == []
    assert report(bench)["delays_measured"] == 0


# ------------------------------------------------------------------------ what forecasts were worth


def test_the_status_says_what_forecasts_and_last_poses_erred_by(tmp_path: Path) -> None:
    bench = EngineBench(
        tmp_path,
        DELAYED.format(delay_ms=15)
        + WATCHING.format(name="a", output="out.laser", forecast="true"),
    )
    assert report(bench)["judged"] == 0
    run_across(bench, 60)
    found = report(bench)
    # Each reaches two frames ahead: the last two have not come true yet.
    assert found["horizon_ms"]["p50"] == 20.0
    assert (found["judged"], found["unjudged"]) == (58, 0)
    snout, tailbase = found["keypoints"]
    assert snout["last_pose_px"]["p50"] == pytest.approx(2 * STEP_PX, abs=1e-3)
    assert snout["forecast_px"]["p50"] < 0.05
    assert tailbase["forecast_px"]["p95"] == tailbase["last_pose_px"]["p95"] == 0.0


def test_without_a_forecast_there_is_nothing_to_say(tmp_path: Path) -> None:
    bench = EngineBench(tmp_path, WATCHING.format(name="a", output="out.laser", forecast="false"))
    run_across(bench, 3)
    assert bench.engine.facts()["forecast"] == {}


def test_a_forecast_is_made_once_per_pose_and_output_whoever_asks_for_it() -> None:
    compensation = LatencyCompensation(ForecastTable(), 1, ["out"])
    poses = list(_walk(5))
    for pose in poses:
        compensation.update(pose)
        first, act_ns = compensation.pose_for("out", pose)
        again, same_ns = compensation.pose_for("out", pose)
        assert first is again
        assert act_ns == same_ns == pose.publish_ns + 1 * MS


def _walk(count: int) -> Iterator[Pose]:
    for i in range(count):
        stamps = (i * 10 * MS,) * 5
        points = np.array([[[3.0 * i, 0.0, 1.0]]], np.float32)
        yield Pose(
            *("r", "top", i, i, 0), *stamps, i * 10 * MS + 5 * MS, points, np.ones((1, 1), np.uint8)
        )
