"""Control's decisions, with a real output in software and poses made by hand: no processes."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ports import free_ports

from rtpose.bus import DirectReceiver, Inbox, direct_pair
from rtpose.clock import now_ns
from rtpose.config import load_rig
from rtpose.control import Control
from rtpose.errors import OutputError, RecordingError
from rtpose.interfaces import Decision
from rtpose.loop import SPAWN, Link, Loop, new_activity
from rtpose.messages import Ack, Pose, Request, Status, TriggerEvent, encode
from rtpose.pose_log import PoseLog
from rtpose.readiness import Readiness
from rtpose.run_log import RunLog, read_log
from rtpose.skeleton import Skeleton

RIG = """
[cameras.top]
type = "synthetic"
rate_hz = 100.0
[model]
path = "demo"
[latency]
budget_ms = 200.0
max_pose_gap_ms = {max_pose_gap_ms}
{latency}
[stream]
pose_port = {ports[0]}
event_port = {ports[1]}
command_port = {ports[2]}
[outputs.out]
type = "virtual"
watchdog_ms = 1000
[outputs.out.lines.laser]
pin = 0
max_on_ms = {max_on_ms}
refractory_ms = {refractory_ms}
[triggers.zone]
type = "region"
keypoint = "snout"
polygon = [[0.0, 0.0], [10.0, 0.0], [10.0, 10.0], [0.0, 10.0]]
when = "{when}"
output = "out.laser"
{pulse}
{trigger}
"""
SKELETON = Skeleton(("snout", "tail"))
INSIDE, OUTSIDE = (5.0, 5.0), (50.0, 50.0)


class Bench:
    """Control on a bench: poses in by hand, its log out."""

    def __init__(
        self,
        folder: Path,
        when: str = "enter",
        *,
        max_on_ms: float = 1000.0,
        refractory_ms: float = 0.0,
        pulse_ms: float = 1.0,
        max_pose_gap_ms: float = 60_000.0,
        latency: str = "",
        trigger: str = "",
        log: Path | None = None,
    ) -> None:
        path = folder / "rig.toml"
        pulse = "" if when == "inside" else f"pulse_ms = {pulse_ms}"
        path.write_text(
            RIG.format(
                when=when,
                pulse=pulse,
                ports=free_ports(3),
                max_on_ms=max_on_ms,
                refractory_ms=refractory_ms,
                max_pose_gap_ms=max_pose_gap_ms,
                latency=latency,
                trigger=trigger,
            )
        )
        rig = load_rig(path)
        self._inbox = Inbox()
        _, orders = self._pipe = SPAWN.Pipe()
        self.loop = Loop(Link("control", "run", self._inbox.endpoint, orders, new_activity()))
        self.log = RunLog(log or folder / "events.jsonl")
        self._line, ours = direct_pair()
        readiness = Readiness(rig.latency, rate_hz=100.0)
        self.control = Control(
            self.loop, rig, SKELETON, self.log, None, readiness, DirectReceiver(ours)
        )
        self.control.open()
        self._frame_id = -1

    def pose(
        self,
        at: tuple[float, float] = INSIDE,
        *,
        age_ms: float = 0.0,
        valid: bool = True,
        repeated_ms: float = 0.0,
    ) -> None:
        """Give control a pose whose frame arrived some time ago, and let it turn once."""
        self._frame_id += 1
        start = now_ns() - round(age_ms * 1e6)
        points = np.array([[[*at, 0.9], [0, 0, 0.9]]], np.float32)
        flags = np.array([[valid, 1]], np.uint8)
        stamps = (start,) * 5
        counts = self._frame_id, self._frame_id, 0
        repeated_ns = round(repeated_ms * 1e6)
        pose = Pose("run", "top", *counts, None, *stamps, points, flags, repeated_ns)
        self._line.send(encode(pose))
        self.turn()

    def turn(self) -> None:
        self.control.turn()

    def make_ready(
        self, *, verified: bool = True, interval_ms: int = 10, newest_ms: float = 0.0
    ) -> None:
        """Give control all that arming asks for: a verified model, poses at the camera's rate."""
        info = {"verified": verified}
        status = Status(run="run", process="inference", state="running", sent_ns=1, info=info)
        self._line.send(encode(status))
        for age_ms in range(400, 0, -interval_ms):
            self.pose(OUTSIDE, age_ms=age_ms + newest_ms)
        self.pose(OUTSIDE, age_ms=newest_ms)

    def ask(self, action: str) -> list[str]:
        return self.control.answer(Request.model_validate({"action": action})).reasons

    def arm(self) -> None:
        self.make_ready()
        assert self.ask("arm") == []

    def close(self) -> None:
        self.control.close()
        self.let_go()
        self.log.close()

    def let_go(self) -> None:
        self._line.close()
        self.loop.finish()
        self._inbox.close()
        self._pipe[0].close()

    def finish(self) -> list[TriggerEvent | Ack]:
        """Close, and return what was logged."""
        self.close()
        return [m for m in read_log(self.log.path) if isinstance(m, TriggerEvent | Ack)]


def kinds(log: list[TriggerEvent | Ack]) -> list[str]:
    return [m.kind for m in log if isinstance(m, TriggerEvent)]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path


def test_a_fresh_pose_fires_and_is_acknowledged_with_every_stamp(folder: Path) -> None:
    bench = Bench(folder)
    bench.arm()
    bench.pose(INSIDE)
    bench.turn()
    log = bench.finish()
    (fire,) = [m for m in log if isinstance(m, TriggerEvent) and m.kind == "fire"]
    (ack,) = [m for m in log if isinstance(m, Ack)]
    assert fire.command is not None
    assert (fire.command.action, fire.command.width_us) == ("pulse", 1000)
    assert ack.command_id == fire.command.command_id
    assert fire.command_ns == ack.command_ns
    stamps = [fire.arrival_ns, fire.receive_ns, fire.decide_ns, fire.command_ns, ack.ack_ns]
    assert None not in stamps
    assert stamps == sorted(s for s in stamps if s is not None)


def test_a_pose_older_than_the_budget_may_not_fire(folder: Path) -> None:
    bench = Bench(folder)
    bench.arm()
    bench.pose(INSIDE, age_ms=210.0)
    log = bench.finish()
    assert "fire" not in kinds(log)
    (overrun,) = [m for m in log if isinstance(m, TriggerEvent) and m.kind == "overrun"]
    assert overrun.command is None
    assert "budget_ms = 200" in overrun.detail
    assert bench.loop.counters["overruns"] == 1


def test_with_policy_fire_a_late_pose_acts_and_the_event_says_so(folder: Path) -> None:
    bench = Bench(folder, latency='policy = "fire"')
    bench.arm()
    bench.pose(INSIDE, age_ms=210.0)
    log = bench.finish()
    (fire,) = [m for m in log if isinstance(m, TriggerEvent) and m.kind == "fire"]
    assert fire.command is not None
    assert fire.detail.startswith("OVERRUN: the pose is older than budget_ms = 200")
    assert bench.loop.counters["overruns"] == 1


def test_with_policy_disarm_so_many_overruns_in_a_row_disarm(folder: Path) -> None:
    bench = Bench(folder, latency='policy = "disarm"\ndisarm_after = 2', refractory_ms=0.0)
    bench.arm()
    for age_ms in (210.0, 0.0, 210.0, 210.0):
        bench.pose(OUTSIDE)
        bench.pose(INSIDE, age_ms=age_ms)
        end_ns = now_ns() + 5_000_000
        while now_ns() < end_ns:
            bench.turn()  # the pulse ends
    log = bench.finish()
    told = [k for k in kinds(log) if k in ("overrun", "fire", "disarmed")]
    assert told == ["overrun", "fire", "overrun", "overrun", "disarmed"]
    (disarmed,) = [m for m in log if isinstance(m, TriggerEvent) and m.kind == "disarmed"]
    assert disarmed.detail == "2 overruns of the budget in a row"


def test_what_is_refused_does_not_use_up_what_a_trigger_may_do(folder: Path) -> None:
    bench = Bench(folder, trigger="max_fires = 1")
    bench.make_ready()
    bench.pose(INSIDE)  # not armed
    bench.pose(OUTSIDE)
    assert bench.ask("arm") == []
    for _ in range(2):
        bench.pose(INSIDE)
        bench.pose(OUTSIDE)
    told = [k for k in kinds(bench.finish()) if k in ("refused", "fire")]
    assert told == ["refused", "fire"]


def test_arming_begins_a_session_and_a_client_begins_trials(folder: Path) -> None:
    bench = Bench(folder, trigger="once_per_trial = true")
    bench.arm()

    def visit() -> None:
        bench.pose(INSIDE)
        bench.pose(OUTSIDE)
        end_ns = now_ns() + 5_000_000
        while now_ns() < end_ns:
            bench.turn()  # the pulse ends

    visit()
    visit()
    assert bench.ask("trial") == []
    visit()
    bench.ask("disarm")
    assert bench.ask("arm") == []
    visit()
    told = [k for k in kinds(bench.finish()) if k in ("fire", "trial-started", "armed")]
    # Arming begins a session, and that its first trial.
    first = ["armed", "trial-started", "fire"]
    assert told == [*first, "trial-started", "fire", *first]


def test_safe_when_missing_cuts_a_pulse(folder: Path) -> None:
    bench = Bench(folder, trigger='missing = "safe"', pulse_ms=500.0)
    bench.arm()
    bench.pose(INSIDE)
    bench.pose(INSIDE, valid=False)
    told = [k for k in kinds(bench.finish()) if k in ("fire", "line-off")]
    assert told == ["fire", "line-off"]


def test_a_level_may_be_given_by_a_later_pose_that_is_in_time(folder: Path) -> None:
    bench = Bench(folder, "inside")
    bench.arm()
    bench.pose(INSIDE, age_ms=300.0)
    bench.pose(INSIDE, age_ms=300.0)
    bench.pose(INSIDE)
    log = bench.finish()
    assert [k for k in kinds(log) if k in ("overrun", "fire")] == ["overrun", "fire"]


def test_an_old_pose_may_always_switch_off(folder: Path) -> None:
    bench = Bench(folder, "inside")
    bench.arm()
    bench.pose(INSIDE)
    bench.pose(OUTSIDE, age_ms=500.0)
    log = bench.finish()
    assert [k for k in kinds(log) if k in ("fire", "line-off")] == ["fire", "line-off"]


def test_a_doubtful_pose_lets_go_of_a_level(folder: Path) -> None:
    bench = Bench(folder, "inside")
    bench.arm()
    bench.pose(INSIDE)
    bench.pose(INSIDE, valid=False)
    assert kinds(bench.finish())[-2:] == ["line-off", "stopped"]


def test_nothing_moves_before_arming_nor_after_disarming(folder: Path) -> None:
    bench = Bench(folder)
    bench.make_ready()
    bench.pose(INSIDE)
    bench.pose(OUTSIDE)
    assert bench.ask("arm") == []
    bench.ask("disarm")
    bench.pose(INSIDE)
    log = bench.finish()
    told = [k for k in kinds(log) if k not in ("stopped", "trial-started")]
    assert told == ["refused", "armed", "disarmed", "refused"]
    assert not [m for m in log if isinstance(m, Ack)]
    assert bench.loop.counters["refusals"] == 2


def test_a_refused_level_is_said_once_not_with_every_pose(folder: Path) -> None:
    bench = Bench(folder, "inside")
    bench.make_ready()
    for _ in range(10):
        bench.pose(INSIDE)
    assert kinds(bench.finish()).count("refused") == 1


def test_a_level_that_used_its_time_up_must_be_let_go_before_it_comes_again(folder: Path) -> None:
    bench = Bench(folder, "inside", max_on_ms=5.0)
    bench.arm()
    bench.pose(INSIDE)
    end_ns = now_ns() + 50_000_000
    while now_ns() < end_ns:
        bench.turn()
    bench.pose(INSIDE)
    bench.pose(OUTSIDE)
    bench.pose(INSIDE)
    log = bench.finish()
    told = [k for k in kinds(log) if k in ("fire", "line-off", "refused")]
    assert told == ["fire", "line-off", "refused", "fire"]
    details = [m.detail for m in log if isinstance(m, TriggerEvent) and m.kind == "refused"]
    assert details == ["max_on_ms = 5 is used up until it is let go"]


def test_pulses_keep_their_refractory_time(folder: Path) -> None:
    bench = Bench(folder, refractory_ms=60_000.0)
    bench.arm()
    bench.pose(INSIDE)
    end_ns = now_ns() + 5_000_000
    while now_ns() < end_ns:
        bench.turn()  # the pulse ends
    bench.pose(OUTSIDE)
    bench.pose(INSIDE)
    log = bench.finish()
    assert [k for k in kinds(log) if k in ("fire", "refused")] == ["fire", "refused"]


def test_a_level_is_let_go_when_no_pose_comes(folder: Path) -> None:
    bench = Bench(folder, "inside", max_pose_gap_ms=30.0)
    bench.arm()
    bench.pose(INSIDE)
    end_ns = now_ns() + 100_000_000
    while now_ns() < end_ns:
        bench.turn()
    assert kinds(bench.finish())[-3:] == ["stale", "line-off", "stopped"]


def fail_trigger(bench: Bench) -> None:
    """Let the trigger raise with the next pose."""

    def update(pose: Pose) -> Decision:
        raise ZeroDivisionError("the animal was divided by zero")

    bench.control._engine._decider.runners["zone"]._trigger.update = update  # type: ignore[method-assign]
    bench.pose(age_ms=1000.0)


def fail_to_arm(bench: Bench) -> None:
    """Let the output refuse to be armed."""

    def arm() -> None:
        raise OutputError("pin 3 reads high")

    bench.control._actuators["out"]._output.arm = arm  # type: ignore[method-assign]


class FullLog(PoseLog):
    """A record of poses on a disk that is full."""

    def __init__(self) -> None:
        self.failure = "No space left on device"

    def append(self, *_what: object) -> None:
        pass


def lose_record(bench: Bench) -> None:
    bench.control._pose_log = FullLog()


HINDRANCES: dict[str, tuple[dict[str, Any], Callable[[Bench], Any], str]] = {
    "model": (
        {"verified": False},
        lambda bench: None,
        "the model is not verified yet on its provider",
    ),
    "stale": (
        {"newest_ms": 1000.0},
        lambda bench: None,
        "no pose within budget_ms = 200 for 60000 ms",
    ),
    "repeating": (
        {},
        lambda bench: bench.pose(repeated_ms=60_001.0),
        "the camera hangs: it has delivered one and the same picture for 60001 ms",
    ),
    "slow": (
        {"interval_ms": 40},
        lambda bench: None,
        "the camera delivers 25 of 100 frames/s",
    ),
    "trigger": (
        {},
        fail_trigger,
        "trigger 'zone' failed: ZeroDivisionError: the animal was divided by zero",
    ),
    "stopped": (
        {},
        lambda bench: bench.ask("estop"),
        "the emergency stop was used: release it first (rtpose release)",
    ),
    "record": (
        {},
        lose_record,
        "the run's record cannot be written: No space left on device",
    ),
    "output": ({}, fail_to_arm, "output 'out': pin 3 reads high"),
}


def rounded(reason: str) -> str:
    """Return a reason without the rate, which depends on when exactly the last poses came."""
    return re.sub(r"delivers \d+ of", "delivers 25 of", reason)


@pytest.mark.parametrize("name", HINDRANCES)
def test_arming_is_refused_with_its_reason(folder: Path, name: str) -> None:
    options, hinder, reason = HINDRANCES[name]
    bench = Bench(folder)
    bench.make_ready(**options)
    hinder(bench)
    assert [rounded(said) for said in bench.ask("arm")] == [reason]
    assert bench.control.state == ("stopped" if name == "stopped" else "disarmed")
    bench.pose(OUTSIDE)
    bench.pose(INSIDE)
    log = bench.finish()
    assert "armed" not in kinds(log)
    assert not [m for m in log if isinstance(m, TriggerEvent) and m.command is not None]
    assert not [m for m in log if isinstance(m, Ack)]


def test_arming_is_refused_with_every_reason_at_once(folder: Path) -> None:
    bench = Bench(folder)
    bench.make_ready(verified=False, interval_ms=40, newest_ms=1000.0)
    fail_trigger(bench)
    bench.ask("estop")
    lose_record(bench)
    reasons = bench.ask("arm")
    status = bench.ask("status")
    bench.close()
    # The output is asked last, when nothing else hinders; poses are stale for one reason.
    others = ("output", "repeating")
    expected = {reason for name, (_, _, reason) in HINDRANCES.items() if name not in others}
    assert status == reasons
    assert set(map(rounded, reasons)) == expected


def test_what_is_put_right_no_longer_hinders(folder: Path) -> None:
    bench = Bench(folder)
    assert len(bench.ask("arm")) == 3, "nothing has come yet"
    bench.ask("estop")
    bench.make_ready()
    assert len(bench.ask("arm")) == 1
    bench.ask("release")
    assert bench.ask("arm") == []
    bench.close()


def test_a_log_that_cannot_be_written_forbids_arming_and_is_reported(folder: Path) -> None:
    bench = Bench(folder, log=Path("/dev/full"))
    bench.make_ready()
    bench.pose(INSIDE)  # its refusal is the first line of the log
    end_ns = now_ns() + 5_000_000_000
    while not bench.log.failure and now_ns() < end_ns:
        bench.turn()
    bench.make_ready()
    reasons = bench.ask("arm")
    assert any("the run's record cannot be written" in reason for reason in reasons)
    with pytest.raises(RecordingError, match="No space left"):
        bench.close()
