"""The design of an experiment: what is withheld is drawn, kept, counted, and never sent."""

from pathlib import Path
from typing import Any

import pytest
from engine_rig import FIRE, HIGH, LOW, MS, NOTHING, Bench
from hypothesis import given
from hypothesis import strategies as st

from rtpose.experiment import Experiment
from rtpose.messages import TriggerEvent
from rtpose.rig_tables import ExperimentTable

TABLES = """
[latency]
max_pose_gap_ms = 60000.0
[experiment]
{experiment}
[outputs.out]
type = "virtual"
[outputs.out.lines.laser]
pin = 0
max_on_ms = 50.0
refractory_ms = 20.0
[outputs.out.lines.lamp]
pin = 1
max_on_ms = 10000.0
[triggers.zone]
type = "engine_rig:Scripted"
output = "out.laser"
pulse_ms = 10.0
{trigger}
"""
HOLDER = """
[triggers.holder]
type = "engine_rig:Scripted"
keypoint = "tail"
output = "out.lamp"
"""


def bench(folder: Path, experiment: str = "", trigger: str = "", more: str = "") -> Bench:
    made = Bench(folder, TABLES.format(experiment=experiment, trigger=trigger) + more)
    made.arm()
    return made


def outcomes(it: Bench) -> list[Any]:
    """Return what became of each decision: fired or withheld, why, and in which trial."""
    kinds = ("fire", "withheld", "refused", "line-off")
    return [(e.kind, e.withheld, e.trial) for e in it.events if e.kind in kinds]


# ------------------------------------------------------------------------------ what is withheld

DESIGNS = {
    "sham": ("", "sham = true"),
    "baseline": ("baseline = true", ""),
    "catch": ("catch_probability = 1.0", ""),
    "probability": ("seed = 1", "probability = 1e-12"),
}


def visits(it: Bench) -> tuple[list[str], list[str]]:
    """Return why what was refused, and what the trigger was told, in a row of decisions."""
    del it.events[:], it.trigger().told[:]
    for wait_ms in (0, 5, 10, 20, 30):
        it.wait(wait_ms)
        it.pose(FIRE)
    return [e.detail for e in it.told("refused")], it.trigger().told


@pytest.mark.parametrize("why", DESIGNS)
def test_nothing_is_sent_but_limits_and_counts_are_as_if_it_had_been(
    tmp_path: Path, why: str
) -> None:
    (tmp_path / "sent").mkdir()
    it, sent = bench(tmp_path, *DESIGNS[why]), bench(tmp_path / "sent")
    assert visits(it) == visits(sent)
    assert it.out.sent == []
    assert len(it.told("withheld")) == len(sent.told("fire")) == len(sent.out.sent) == 3
    for event in it.told("withheld"):
        assert (event.withheld, event.command_ns) == (why, None)
        assert event.command is not None
        assert (event.command.action, event.command.width_us) == ("pulse", 10_000)
        assert (event.draw is not None) == (why == "probability")
    assert (it.counters["fires"], it.counters["withheld"]) == (0, 3)


def test_a_withheld_level_is_let_go_and_reaches_its_limit_in_the_record_only(
    tmp_path: Path,
) -> None:
    it = bench(tmp_path, "baseline = true", more=HOLDER)
    it.pose(NOTHING, HIGH)
    it.wait(100)
    it.pose(NOTHING, LOW)
    it.pose(NOTHING, HIGH)
    it.wait(10_001, step_ms=10)
    told = [(e.kind, e.withheld, e.detail) for e in it.events if e.command is not None]
    assert told == [
        ("withheld", "baseline", "at 1"),
        ("line-off", "baseline", "the condition ended"),
        ("withheld", "baseline", "at 1"),
        ("line-off", "baseline", "max_on_ms = 10000 reached"),
    ]
    assert it.out.sent == []
    it.check()


def test_a_sham_beside_the_real_thing(tmp_path: Path) -> None:
    it = bench(tmp_path, "", "sham = true", HOLDER)
    it.pose(FIRE, HIGH)
    assert [c.line for _, c in it.out.sent] == ["lamp"]
    it.check()


# ------------------------------------------------------------------------------------- draws


def draws(it: Bench, count: int, *said: int) -> list[TriggerEvent]:
    del it.events[:]
    for _ in range(count):
        it.pose(*said)
        it.now += 100 * MS
        it.turn()
    return [e for e in it.events if e.trigger == "zone"]


def test_draws_come_from_the_seed_and_from_nothing_else(tmp_path: Path) -> None:
    other = HOLDER + "probability = 0.3\npulse_ms = 1.0\n"
    made = {}
    for name, experiment, more, said in [
        ("first", "seed = 7", "", (FIRE,)),
        ("again", "seed = 7", "", (FIRE,)),
        ("beside another", "seed = 7", other, (FIRE, FIRE)),
        ("another seed", "seed = 8", "", (FIRE,)),
    ]:
        (tmp_path / name).mkdir()
        it = bench(tmp_path / name, experiment, "probability = 0.5", more)
        made[name] = [(e.kind, e.draw) for e in draws(it, 60, *said)]
    assert made["first"] == made["again"] == made["beside another"]
    assert made["first"] != made["another seed"]
    assert len({draw for _, draw in made["first"]}) == 60


def test_what_is_drawn_for_one_says_nothing_of_what_is_drawn_for_another(tmp_path: Path) -> None:
    other = HOLDER + "probability = 0.5\npulse_ms = 1.0\n"
    it = bench(tmp_path, "seed = 7\ncatch_probability = 1e-12", "probability = 0.5", other)
    (trial,) = [event.draw for event in it.told("trial-started")]
    zone = [event.draw for event in draws(it, 20, FIRE, FIRE)]
    holder = [event.draw for event in it.events if event.trigger == "holder"]
    assert len(zone) == len(holder) == 20
    assert not set(zone) & {*holder, trial}


def test_the_seed_is_drawn_and_recorded_where_none_is_given(tmp_path: Path) -> None:
    it = bench(tmp_path, "", "probability = 0.5")
    drawn = [(e.kind, e.draw) for e in draws(it, 30, FIRE)]
    seed = it.engine.seed
    (tmp_path / "again").mkdir()
    again = bench(tmp_path / "again", f"seed = {seed}", "probability = 0.5")
    assert again.told("armed")[0].detail == f"seed {seed}"
    assert [(e.kind, e.draw) for e in draws(again, 30, FIRE)] == drawn


@pytest.mark.parametrize("probability", [0.05, 0.5, 0.9])
def test_the_share_of_fires_is_the_probability(tmp_path: Path, probability: float) -> None:
    count = 2000
    it = bench(tmp_path, "seed = 3", f"probability = {probability}")
    told = draws(it, count, FIRE)
    assert all((e.kind == "fire") == ((e.draw or 0) < probability) for e in told)
    fires = sum(e.kind == "fire" for e in told)
    # Six standard deviations of the binomial distribution; the seed is fixed.
    assert abs(fires - count * probability) < 6 * (count * probability * (1 - probability)) ** 0.5
    assert it.counters["fires"] == len(it.out.sent) == fires


def test_the_probability_of_a_level_is_drawn_once_per_rise(tmp_path: Path) -> None:
    it = bench(tmp_path, "seed = 5", more=HOLDER + "probability = 0.5\n")
    for _ in range(40):
        for said in (HIGH, HIGH, HIGH, LOW):
            it.pose(NOTHING, said)
            it.wait(10, step_ms=10)
    told = it.kinds("fire", "withheld", "line-off")
    assert len(told) == 80
    assert set(told[::2]) == {"fire", "withheld"}
    assert set(told[1::2]) == {"line-off"}
    assert it.out.commands() == ["on", "off"] * told.count("fire")
    it.check()


@given(st.integers(0, 2**63 - 1), st.floats(0, 1), st.floats(0.1, 5), st.floats(0, 5))
def test_trials_of_a_session_are_within_what_was_asked_for(
    seed: int, catch: float, least: float, more: float
) -> None:
    table = ExperimentTable(
        seed=seed,
        trial_s=2.0,
        inter_trial_s=(least, least + more),
        max_trials=5,
        catch_probability=catch,
    )

    def session() -> list[Any]:
        experiment = Experiment(table)
        now, told = 0, [(0, experiment.start_session(0))]
        while told[-1][1].step != "session-over":
            assert experiment.next_ns is not None
            now = experiment.next_ns
            assert list(experiment.tick(now - 1)) == []
            told += [(now, happening) for happening in experiment.tick(now)]
        return told

    told = session()
    assert told == session(), "the same seed gave another session"
    steps = [happening.step for _, happening in told]
    assert steps == ["trial-started", "trial-ended"] * 5 + ["session-over"]
    for (start, first), (end, _) in zip(told[:-1:2], told[1::2], strict=True):
        assert end - start == 2_000_000_000
        assert first.draw is None or ("a catch" in first.words) == (first.draw < catch)
    for (end, _), (start, _) in zip(told[1:-2:2], told[2:-1:2], strict=True):
        assert least - 1e-9 <= (start - end) / 1e9 <= least + more + 1e-9


def test_catch_trials_are_drawn_once_each_and_withhold_the_whole_trial(tmp_path: Path) -> None:
    it = bench(tmp_path, "seed = 11\ncatch_probability = 0.4")
    for _ in range(60):
        it.pose(FIRE)
        it.wait(50, step_ms=50)
        it.pose(FIRE)
        it.wait(50, step_ms=50)
        it.engine.start_trial(it.now)
    started = it.told("trial-started")
    catch = {e.trial: (e.draw or 0) < 0.4 for e in started}
    assert 0 < sum(catch.values()) < len(catch)
    for event in it.told("fire") + it.told("withheld"):
        assert (event.withheld == "catch") is catch[event.trial]
        assert event.draw is None, "it belongs to the trial"
    for event in started:
        assert ("a catch trial" in event.detail) is catch[event.trial]
    assert len(it.out.sent) == 2 * sum(not catch[n] for n in range(1, 61))


# ------------------------------------------------------------------------------------- trials


def times(it: Bench, start: int) -> list[tuple[str, float, int | None]]:
    kinds = ("trial-started", "trial-ended", "disarmed")
    return [(e.kind, (e.decide_ns - start) / MS, e.trial) for e in it.events if e.kind in kinds]


def test_timed_trials_begin_and_end_by_the_clock_and_the_last_disarms(tmp_path: Path) -> None:
    it = bench(tmp_path, "trial_s = 1.0\ninter_trial_s = [0.5, 0.5]\nmax_trials = 2")
    start = it.now
    it.wait(4000, step_ms=5)
    assert times(it, start) == [
        ("trial-started", 0, 1),
        ("trial-ended", 1000, 1),
        ("trial-started", 1500, 2),
        ("trial-ended", 2500, 2),
        ("disarmed", 2500, None),
    ]
    assert it.told("disarmed")[0].detail == "max_trials = 2 are over"
    assert not it.out.armed
    it.pose(FIRE)
    assert it.told("refused")[0].detail == "not armed"


def test_a_session_is_over_by_the_clock_in_the_middle_of_anything(tmp_path: Path) -> None:
    it = bench(tmp_path, "session_s = 0.75\ntrial_s = 0.5\ninter_trial_s = [0.1, 0.1]", "", HOLDER)
    start = it.now
    it.wait(700)
    it.pose(NOTHING, HIGH)
    it.wait(100)
    assert times(it, start)[-2:] == [("trial-started", 600, 2), ("disarmed", 750, None)]
    assert it.told("disarmed")[0].detail == "session_s = 0.75 is over"
    assert it.out.highs("lamp") == [(start + 700 * MS, start + 750 * MS)]
    assert not it.engine.armed
    it.arm()
    it.wait(100)
    assert it.kinds()[-2:] == ["armed", "trial-started"], "a new session has its own time"
    assert it.told("trial-started")[-1].trial == 1


def test_between_trials_nothing_is_sent_and_levels_are_let_go_at_both_ends(tmp_path: Path) -> None:
    it = bench(tmp_path, "trial_s = 1.0\ninter_trial_s = [1.0, 1.0]", "", HOLDER)
    start = it.now
    for _ in range(250):
        it.pose(NOTHING, HIGH)
        it.wait(10, step_ms=10)
    assert outcomes(it) == [
        ("fire", None, 1),
        ("line-off", None, 1),
        ("withheld", "between-trials", 1),  # once, though it asks with every pose
        ("fire", None, 2),
    ]
    spans = [((a - start) / MS, (b - start) / MS) for a, b in it.out.highs("lamp")]
    assert spans == [(0, 1000), (2000, 2500)]
    it.check()


def test_what_is_decided_between_trials_uses_nothing_up(tmp_path: Path) -> None:
    """Neither the trigger's own limits nor the line's, and no dose."""
    enters = """
[triggers.enters]
type = "region"
keypoint = "tail"
circle = { x_px = 100, y_px = 100, radius_px = 20 }
when = "enter"
pulse_ms = 10.0
refractory_ms = 1000.0
max_fires = 1
output = "out.valve"
[outputs.out.lines.valve]
pin = 2
max_on_ms = 10.0
refractory_ms = 1000.0
dose_ms = 10.0
"""
    it = bench(tmp_path, more=enters)
    inside, outside = (100.0, 100.0), (0.0, 0.0)
    it.engine.end_trial(it.now)
    for place in (outside, inside, outside, inside, outside):
        it.wait(10)
        it.pose(NOTHING, place)
    assert it.engine.start_trial(it.now) == []
    it.wait(10)
    it.pose(NOTHING, inside)
    told = [(e.kind, e.withheld) for e in it.events if e.trigger == "enters"]
    assert told == [("withheld", "between-trials")] * 2 + [("fire", None)]
    assert [c.line for _, c in it.out.sent] == ["valve"]
    assert (it.counters["withheld"], it.counters["fires"], it.counters["refusals"]) == (2, 1, 0)
    it.check()


def test_clients_begin_and_end_trials_and_each_is_told_to_the_triggers(tmp_path: Path) -> None:
    it = bench(tmp_path, "max_trials = 2")
    assert it.engine.end_trial(it.now) == []
    assert it.engine.end_trial(it.now) == ["there is no trial to end"]
    it.pose(FIRE)
    assert it.engine.start_trial(it.now) == []
    it.wait(50)
    it.pose(FIRE)
    assert it.engine.start_trial(it.now) == ["max_trials = 2 are begun"]
    assert [e[1:] for e in outcomes(it)] == [("between-trials", 1), (None, 2)]
    assert it.trigger().told.count("start_trial") == 2
    assert all(e.asked for e in it.told("trial-ended"))
    assert it.engine.end_trial(it.now) == []
    assert it.told("disarmed")[0].detail == "max_trials = 2 are over"
    assert not it.engine.armed
    assert it.engine.start_trial(it.now) == ["trials begin with arming: the rig is not armed"]


def test_a_client_may_begin_the_next_trial_before_its_time(tmp_path: Path) -> None:
    it = bench(tmp_path, "trial_s = 1.0\ninter_trial_s = [10.0, 10.0]")
    start = it.now
    it.wait(1500, step_ms=5)
    assert it.engine.start_trial(it.now) == []
    it.wait(1500, step_ms=5)
    assert times(it, start) == [
        ("trial-started", 0, 1),
        ("trial-ended", 1000, 1),
        ("trial-started", 1500, 2),
        ("trial-ended", 2500, 2),
    ]


def test_every_event_of_a_trial_carries_its_number(tmp_path: Path) -> None:
    it = bench(tmp_path)
    it.pose(FIRE)
    it.pose(FIRE)
    it.engine.start_trial(it.now)
    it.pose(FIRE)
    it.engine.disarm("asked for", it.now)
    told = [(e.kind, e.trial) for e in it.events]
    assert told == [
        ("armed", None),
        ("trial-started", 1),
        ("fire", 1),
        ("refused", 1),
        ("trial-started", 2),
        ("refused", 2),
        ("disarmed", None),
    ]
