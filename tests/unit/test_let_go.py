"""Control lets go of a line while its trigger asks for it: the next rise is another one."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import MS, EngineBench

IN, OUT = (0.0, 0.0), (500.0, 0.0)
ZONE = """
[triggers.zone]
type = "region"
keypoint = "snout"
circle = { x_px = 0.0, y_px = 0.0, radius_px = 50.0 }
when = "inside"
output = "out.laser"
"""
DIMMER = """
[triggers.light]
type = "proportional"
quantity = { type = "distance", keypoint = "snout", point = { x_px = 0.0, y_px = 0.0 } }
from_px = [0.0, 100.0]
slew_per_s = 1.0
min_level = 0.05
output = "out.light"
"""


def bench(folder: Path, triggers: str) -> EngineBench:
    made = EngineBench(folder, triggers)
    made.engine.arm(made.now_ns)
    return made


def rises(it: EngineBench) -> list[tuple[str, int | None]]:
    return [(e.kind, e.trial) for e in it.events if e.kind in ("fire", "line-off")]


def test_a_line_held_into_the_next_trial_is_that_trials_one_rise(tmp_path: Path) -> None:
    it = bench(tmp_path, ZONE + "once_per_trial = true\n")
    for i in range(2):
        it.pose(IN, at_ms=10 * i)
    it.engine.start_trial(it.now_ns)
    for i, place in enumerate([IN, IN, OUT, IN, IN]):
        it.pose(place, at_ms=20 + 10 * i)
    assert rises(it) == [("fire", 1), ("line-off", 1), ("fire", 2), ("line-off", 2)]


def test_a_line_let_go_for_want_of_poses_rises_within_its_limits(tmp_path: Path) -> None:
    it = bench(tmp_path, ZONE + "max_fires = 2\nrefractory_ms = 100.0\n")
    for at_ms in (0, 10, 1000, 1090, 1100, 2000, 2100, 2200):
        it.pose(IN, at_ms=at_ms)
    assert rises(it) == [("fire", 1), ("line-off", 1), ("fire", 1), ("line-off", 1)]
    fires = [e.exposure_ns for e in it.events if e.kind == "fire"]
    assert fires == [1000 * MS, 2100 * MS]


def test_a_session_counts_a_line_that_was_asked_for_all_along(tmp_path: Path) -> None:
    it = bench(tmp_path, ZONE + "max_fires = 1\n")
    it.pose(IN, at_ms=0)
    it.engine.disarm("asked for", it.now_ns)
    it.pose(IN, at_ms=10)
    it.engine.arm(it.now_ns)
    for i, place in enumerate([IN, OUT, IN, OUT, IN]):
        it.pose(place, at_ms=20 + 10 * i)
    assert rises(it) == [("fire", 1), ("fire", 1), ("line-off", 1)]


def test_what_is_used_up_waits_for_the_animal_to_leave_also_in_the_next_trial(
    tmp_path: Path,
) -> None:
    it = bench(tmp_path, ZONE + "refractory_ms = 50.0\n")
    for i in range(120):  # max_on_ms is 1000, and nobody answers for another 100
        it.pose(IN, at_ms=10 * i)
    it.engine.start_trial(it.now_ns)
    for i in range(120, 140):
        it.pose(IN, at_ms=10 * i)
    assert rises(it) == [("fire", 1), ("line-off", 1)]
    for at_ms, place in [(1400, OUT), (1440, IN), (1450, IN)]:
        it.pose(place, at_ms=at_ms)
    assert rises(it)[2:] == [("fire", 2)]
    assert it.events[-1].exposure_ns == 2450 * MS


@pytest.mark.parametrize("why", ["stale", "trial"])
def test_a_level_that_was_let_go_begins_at_its_least_again(tmp_path: Path, why: str) -> None:
    it = bench(tmp_path, DIMMER)
    for i in range(50):
        it.pose((100, 0), at_ms=10 * i)
    if why == "trial":
        it.engine.start_trial(it.now_ns)
    else:
        it.now_ns += 300 * MS
        it.engine.tick(it.now_ns)
    it.pose((100, 0), at_ms=900)
    it.pose((100, 0), at_ms=910)
    levels = [0.0 if c.action == "off" else round(c.level, 3) for c in it.output.commands]
    assert levels[-4:] == [0.54, 0.0, 0.05, 0.06]


@pytest.mark.parametrize(
    ("limit", "fires"),
    [
        ("once_per_trial = true\n", [1]),
        ("max_fires = 2\n", [1, 3]),
        ("refractory_ms = 500.0\n", [1, 5]),
    ],
)
def test_a_changed_setting_does_not_begin_to_count_anew(
    tmp_path: Path, limit: str, fires: list[int]
) -> None:
    enter = ZONE.replace('when = "inside"', 'when = "enter"\npulse_ms = 1.0')
    it = bench(tmp_path, enter + limit)
    for i in range(6):
        it.pose(IN if i % 2 else OUT, at_ms=200 * i)
        if i % 2:
            assert it.engine.set_parameter("zone", "hysteresis_px", float(i), it.now_ns) == []
    assert [e.frame_id for e in it.events if e.kind == "fire"] == fires


def test_a_level_let_go_by_a_change_keeps_its_refractory_time(tmp_path: Path) -> None:
    it = bench(tmp_path, ZONE + "refractory_ms = 25.0\n")
    it.pose(IN, at_ms=0)
    assert it.engine.set_parameter("zone", "hysteresis_px", 5.0, it.now_ns) == []
    for i in range(1, 6):
        it.pose(IN, at_ms=10 * i)
    assert [e.frame_id for e in it.events if e.kind == "fire"] == [0, 4]


story = st.lists(
    st.tuples(
        st.sampled_from([10, 10, 10, 20, 270]),  # ms since the pose before
        st.sampled_from([IN, IN, IN, OUT, None]),
        st.sampled_from(["", "", "", "", "trial", "end", "disarm", "arm", "late", "set"]),
    ),
    max_size=40,
)


@given(
    story,
    st.booleans(),
    st.none() | st.integers(1, 3),
    st.sampled_from([0, 25, 100]),
    st.sampled_from(["skip", "false", "safe"]),
)
def test_no_rise_is_more_than_the_trigger_may(
    walk: list[tuple[int, tuple[float, float] | None, str]],
    once: bool,
    most: int | None,
    refractory_ms: int,
    missing: str,
) -> None:
    settings = f'missing = "{missing}"\nrefractory_ms = {refractory_ms}.0\n'
    settings += "once_per_trial = true\n" if once else ""
    settings += "" if most is None else f"max_fires = {most}\n"
    with tempfile.TemporaryDirectory() as folder:
        it = bench(Path(folder), ZONE + settings)
    at_ms = 0
    for step_ms, place, then in walk:
        at_ms += step_ms
        it.now_ns += step_ms * MS
        it.engine.tick(it.now_ns)
        match then:
            case "trial":
                it.engine.start_trial(it.now_ns)
            case "end":
                it.engine.end_trial(it.now_ns)
            case "disarm":
                it.engine.disarm("", it.now_ns)
            case "set":
                assert it.engine.set_parameter("zone", "hysteresis_px", 9.0, it.now_ns) == []
            case "arm" if not it.engine.armed:
                it.engine.arm(it.now_ns)
        it.pose(place, at_ms=at_ms, late_ms=50.0 if then == "late" else 0.0)
    falls_and_fires(it, refractory_ms)
    for fires in sessions(it):
        assert most is None or len(fires) <= most
        assert not once or len(set(fires)) == len(fires)


def falls_and_fires(it: EngineBench, refractory_ms: int) -> None:
    """Assert that every rise is late enough after the fall before it, by the poses' stamps."""
    seen_ns, fell_ns = 0, -(10**12)
    for event in it.events:
        seen_ns = max(seen_ns, event.exposure_ns or 0)
        if event.kind == "line-off":
            fell_ns = seen_ns
        elif event.kind == "fire":
            assert seen_ns - fell_ns >= refractory_ms * MS


def sessions(it: EngineBench) -> list[list[int | None]]:
    """Return the trial of every rise, session by session."""
    found: list[list[int | None]] = []
    for event in it.events:
        if event.kind == "armed":
            found.append([])
        elif event.kind == "fire":
            found[-1].append(event.trial)
    return found
