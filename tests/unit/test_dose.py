"""How long a line may be high in all: never more than its dose in any window, and said in words."""

from pathlib import Path
from typing import Any

import pytest
from engine_rig import FIRE, HIGH, LOW, MS, Bench
from hypothesis import given
from hypothesis import strategies as st

from rtpose.actuators import Dose

TABLES = """
[latency]
max_pose_gap_ms = 60000.0
[outputs.out]
type = "virtual"
[outputs.out.lines.laser]
pin = 0
max_on_ms = {max_on_ms}
{line}
[triggers.zone]
type = "engine_rig:Scripted"
output = "out.laser"
{trigger}
"""


def bench(
    folder: Path, line: str, trigger: str = "pulse_ms = 10.0", max_on_ms: float = 100.0
) -> Bench:
    made = Bench(folder, TABLES.format(max_on_ms=max_on_ms, line=line, trigger=trigger))
    made.arm()
    return made


# --------------------------------------------------------------------------------- the account

uses = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 20)), max_size=30)


@given(uses, st.integers(1, 40), st.none() | st.integers(1, 60))
def test_it_never_gives_more_than_the_dose_in_any_window(
    script: list[tuple[int, int]], limit: int, window: int | None
) -> None:
    dose = Dose(limit, window)
    high: list[bool] = []  # in every ns so far
    for wait, wanted in script:
        high += [False] * wait
        room = dose.room_ns(len(high))
        assert room is not None
        spent = sum(high) if window is None else sum(high[-window:])
        assert 0 <= room <= max(0, limit - spent), "more than a slow count has left"
        on = min(room, wanted)
        if on:
            high += [True] * on
            dose.add(len(high), on)
    span = len(high) if window is None else window
    assert all(sum(high[i : i + span]) <= limit for i in range(len(high)))


@given(uses, st.integers(1, 40), st.integers(1, 60))
def test_after_a_window_of_rest_the_whole_dose_is_back(
    script: list[tuple[int, int]], limit: int, window: int
) -> None:
    dose = Dose(limit, window)
    now = 0
    for wait, on in script:
        now += wait + on
        dose.add(now, on)
    assert dose.room_ns(now + window + 1) == limit


def test_without_a_limit_it_says_nothing() -> None:
    dose = Dose(None, None)
    dose.add(5, 5)
    assert dose.room_ns(6) is None


# ------------------------------------------------------------------------------ on the lines


def most_in_a_window(spans: list[tuple[int, int]], window: int) -> int:
    """Return the longest on-time within any so long time, slowly: every window that matters."""
    begins = [start for start, _ in spans] + [end - window for _, end in spans]
    return max(
        (
            sum(max(0, min(end, at + window) - max(start, at)) for start, end in spans)
            for at in begins
        ),
        default=0,
    )


steps = st.lists(
    st.tuples(
        st.integers(1, 60),
        st.sampled_from(["pose", "pose", "pose", "rearm", "test"]),
        st.sampled_from([FIRE, HIGH, LOW]),
    ),
    max_size=60,
)


@given(steps, st.sampled_from([25.0, 40.0, 100.0]), st.sampled_from([0.1, 0.2]))
def test_a_line_is_never_high_for_more_than_its_dose_in_any_window(
    tmp_path_factory: pytest.TempPathFactory, script: Any, dose_ms: float, window_s: float
) -> None:
    line = f"dose_ms = {dose_ms}\ndose_window_s = {window_s}"
    it = bench(tmp_path_factory.mktemp("rig"), line, max_on_ms=50.0)
    for wait_ms, action, decision in script:
        it.wait(wait_ms)
        if action == "pose":
            it.pose(decision)
        elif action == "test":
            it.engine.fire_test("out.laser", 7.0, it.now)
        else:
            it.engine.disarm("asked for", it.now)
            it.arm()
    it.engine.disarm("the end", it.now)
    assert most_in_a_window(it.out.highs("laser"), round(window_s * 1000 * MS)) <= dose_ms * MS
    it.check()


def test_a_pulse_beyond_the_dose_is_refused_with_what_is_left(tmp_path: Path) -> None:
    it = bench(tmp_path, "dose_ms = 25.0\ndose_window_s = 10.0")
    for _ in range(3):
        it.pose(FIRE)
        it.wait(100)
    assert it.kinds("fire", "refused") == ["fire", "fire", "refused"]
    (refused,) = it.told("refused")
    assert refused.detail == ("dose_ms = 25 within dose_window_s = 10 has 5 ms left, 10 are needed")
    assert it.trigger().told[-1] == "refused"
    it.wait(10_000)
    it.pose(FIRE)
    assert it.kinds("fire", "refused")[-1] == "fire"


def test_without_a_window_a_dose_counts_from_one_arming_to_the_next(tmp_path: Path) -> None:
    it = bench(tmp_path, "dose_ms = 15.0")
    it.pose(FIRE)
    it.wait(1_000_000, step_ms=100_000)
    it.pose(FIRE)
    assert it.told("refused")[-1].detail == (
        "dose_ms = 15 since arming has 5 ms left, 10 are needed"
    )
    it.engine.disarm("asked for", it.now)
    it.arm()
    it.pose(FIRE)
    assert it.kinds("fire", "refused") == ["fire", "refused", "fire"]


def test_arming_what_is_armed_gives_no_second_dose(tmp_path: Path) -> None:
    it = bench(tmp_path, "dose_ms = 15.0")
    it.pose(FIRE)
    it.wait(100)
    it.arm()
    it.pose(FIRE)
    assert it.kinds("fire", "refused") == ["fire", "refused"]


def test_a_train_is_charged_whole_when_it_begins_and_what_is_cut_off_is_given_back(
    tmp_path: Path,
) -> None:
    trigger = "pulse_ms = 10.0\ntrain = { count = 4, period_ms = 20.0 }"
    it = bench(tmp_path, "dose_ms = 60.0\ndose_window_s = 10.0", trigger)
    it.pose(FIRE)
    it.wait(15)
    it.pose(LOW)  # 15 ms from the first rise: no more than that was given
    it.wait(1)
    it.pose(FIRE)  # 40 of 45
    it.wait(200)
    it.pose(FIRE)
    assert it.kinds("fire", "line-off", "refused") == ["fire", "line-off", "fire", "refused"]
    assert "has 5 ms left, 40 are needed" in it.told("refused")[0].detail


def test_a_level_is_cut_when_the_dose_is_used_up_and_the_words_say_so(tmp_path: Path) -> None:
    it = bench(tmp_path, "dose_ms = 30.0\ndose_window_s = 10.0", trigger="")
    it.pose(HIGH)
    for _ in range(10):
        it.wait(10)
        it.pose(HIGH)
    assert it.out.highs("laser") == [(it.out.sent[0][0], it.out.sent[0][0] + 30 * MS)]
    assert it.out.sent[0][1].width_us == 30_000, "the device is told to end it too"
    assert it.told("line-off")[0].detail == "dose_ms = 30 reached"
    assert [e.detail for e in it.told("refused")] == ["dose_ms = 30 is used up until it is let go"]
    it.pose(LOW)
    it.pose(HIGH)
    assert "has 0 ms left, 1 are needed" in it.told("refused")[-1].detail


def test_a_level_takes_what_a_dose_has_left(tmp_path: Path) -> None:
    it = bench(tmp_path, "dose_ms = 30.0\ndose_window_s = 10.0", trigger="")
    it.pose(HIGH)
    it.wait(12)
    it.pose(LOW)
    it.pose(HIGH)
    it.wait(100)
    assert [c.width_us for _, c in it.out.sent if c.action == "on"] == [30_000, 18_000]
    assert it.told("line-off")[-1].detail == "dose_ms = 30 reached"


def test_a_line_is_charged_until_its_device_has_let_it_fall(tmp_path: Path) -> None:
    it = bench(tmp_path, "dose_ms = 30.0\nrefractory_ms = 5.0", trigger="")
    it.pose(HIGH)
    it.wait(10)
    it.out.answers = False
    it.pose(LOW)
    off_ns, off = it.out.sent[-1]
    it.now += 2 * MS
    it.out.answers = True
    it.out.answer(off, off_ns)
    it.turn()
    it.now = off_ns + 6 * MS
    it.pose(HIGH)
    assert it.told("refused")[-1].detail == "within refractory_ms = 5", "of the fall, not the order"
    it.now = off_ns + 7 * MS
    it.pose(HIGH)
    assert it.out.sent[-1][1].width_us == 18_000


def test_what_is_withheld_uses_its_dose_up_as_if_it_had_been_sent(tmp_path: Path) -> None:
    it = bench(tmp_path, "dose_ms = 15.0", "pulse_ms = 10.0\nsham = true")
    it.pose(FIRE)
    it.wait(50)
    it.pose(FIRE)
    assert it.kinds("withheld", "refused") == ["withheld", "refused"]
    assert it.out.sent == []


def test_a_refused_command_is_not_charged(tmp_path: Path) -> None:
    it = bench(tmp_path, "dose_ms = 15.0")
    it.out.refuses = "the board says no"
    it.pose(FIRE)
    it.out.refuses = ""
    it.wait(1)
    it.pose(FIRE)
    assert it.out.commands() == ["pulse", "pulse"]
    assert it.counters["refused_by_output"] == 1
