"""A reward task, as a rig controller: trials, a staircase of the hold time, a table of the session.

    rtpose run examples/07_reward_task.toml
    python reward_task.py examples/07_reward_task.toml --trials 20 --table session.csv

A trial begins when the animal is outside of the zone. It must enter and hold; the rig then opens
the valve by itself, within its latency budget. After a reward the hold gets longer, after a miss
shorter. This program is not on the way from the pose to the valve: slow or dead, it only delays the
next trial. It never arms after an emergency stop, and leaves the rig disarmed.
"""

import argparse
import csv
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from rtpose.client import Commands, EventStream, PoseStream
from rtpose.clock import now_ns
from rtpose.config import load_rig
from rtpose.errors import NoReplyError, RtposeError
from rtpose.messages import Ack, Reply, Status, TriggerEvent

TRIGGER = "reward"
STEP, SHORTEST_MS, LONGEST_MS = 1.25, 100.0, 2000.0  # of the staircase
SILENCE_S, ANSWER_S = 3.0, 3.0


@dataclass(frozen=True)
class Row:
    """One line of the session's table; times are the rig's own stamps."""

    run: str
    trial: int  # as the rig counts it in the run's events.jsonl
    hold_ms: float
    outcome: str = "missed"  # or rewarded; or void: stopped, or the rig went away
    reaction_s: float | None = None  # from the beginning of the trial to the rig's decision
    acknowledged: bool = False  # the board said that the valve opened


class SessionOverError(Exception):
    """Somebody stopped or disarmed the rig, or it refused: no more trials."""


class RigGoneError(Exception):
    """The rig ended, fell silent, or was restarted: another one must be armed anew."""


class RewardTask:
    """The session: `wait_for_rig` once, then `trial` after trial."""

    def __init__(self, rig_file: Path, trial_s: float, pause_s: float) -> None:
        rig = load_rig(rig_file)
        stream, trigger = rig.stream, rig.triggers[TRIGGER].settings.model_dump()
        self._hold_ms, self._keypoint = trigger["dwell_ms"], trigger["keypoint"]
        self._circle = trigger["circle"]
        poses, events, commands = (
            stream.local_endpoint(port)
            for port in (stream.pose_port, stream.event_port, stream.command_port)
        )
        # A rig that encrypts has its public key in the same file as its secret one.
        key_file = stream.curve_secret_key_file
        key = None if key_file is None else Path(key_file)
        self._poses = PoseStream(poses, newest_only=True, server_key_file=key)
        self._events = EventStream(events, server_key_file=key)
        self._commands = Commands(commands, server_key_file=key)
        self._trial_s, self._pause_s = trial_s, pause_s
        self._run, self._former_runs = "", set[str]()
        self._armed = self._in_trial = False
        self._heard_ns = self._began_ns = self._command_id = 0
        self.row: Row | None = None  # of the trial that goes on, or went on last

    def wait_for_rig(self) -> None:
        """Wait until there is a rig that can be armed."""
        self._former_runs.add(self._run)
        self._armed = self._in_trial = False
        said: list[str] = []
        while True:
            try:
                reply = self._commands.status()
            except NoReplyError as error:
                reply = Reply(ok=False, state="absent", reasons=[str(error)])
            if reply.state == "stopped":
                raise SessionOverError("the emergency stop was used: type rtpose release")
            if not reply.reasons:
                self._run, self._heard_ns = reply.status["run"], now_ns()
                return
            if reply.reasons != said:
                said = reply.reasons
                say("waiting for the rig: " + "; ".join(said))
            self._events.receive(0.5)

    def trial(self) -> Row:
        """Run one trial, with the pause after it, and return its line of the table."""
        self.row = None
        self._wait_until_outside()
        self._do(self._commands.set_parameter(TRIGGER, "dwell_ms", self._hold_ms))
        # Arming begins a session with its first trial.
        self._do(self._commands.start_trial() if self._armed else self._commands.arm())
        self._armed = True
        self._follow(ANSWER_S, lambda: self._in_trial)
        self._follow(self._trial_s, lambda: self._result.outcome == "rewarded")
        self._do(self._commands.end_trial())
        self._follow(ANSWER_S, lambda: not self._in_trial)  # it may have come at the last moment
        rewarded = self._result.outcome == "rewarded"
        self._follow(ANSWER_S, lambda: self._result.acknowledged or not rewarded)
        step = STEP if rewarded else 1 / STEP
        self._hold_ms = round(min(max(self._hold_ms * step, SHORTEST_MS), LONGEST_MS), 1)
        self._follow(self._pause_s)
        return self._result

    @property
    def _result(self) -> Row:
        if self.row is None:
            raise RigGoneError("the rig did not tell that the trial began")
        return self.row

    def _do(self, reply: Reply) -> None:
        if not reply.ok:
            raise SessionOverError("; ".join(reply.reasons))

    def _wait_until_outside(self) -> None:
        zone = self._circle
        while True:
            self._follow(0.0)
            pose = self._poses.receive(timeout_s=0.1)
            if pose is not None and pose[self._keypoint].valid:
                x_px, y_px = pose[self._keypoint].xy
                if math.hypot(x_px - zone["x_px"], y_px - zone["y_px"]) > zone["radius_px"]:
                    return

    def _follow(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Take in what the rig tells, for so long or until something is so."""
        end_ns = now_ns() + round(seconds * 1e9)
        while not until():
            left_s = max(0.0, (end_ns - now_ns()) / 1e9)
            message = self._events.receive(min(left_s, 0.2))
            if message is None:
                if now_ns() - self._heard_ns > SILENCE_S * 1e9:
                    raise RigGoneError(f"nothing from the rig for {SILENCE_S:g} s")
                if not left_s:
                    return
            elif message.run not in self._former_runs:
                self._heard_ns = now_ns()
                if message.run != self._run:
                    raise RigGoneError("the rig was restarted")
                self._note(message)

    def _note(self, message: object) -> None:
        if isinstance(message, Ack) and message.command_id == self._command_id:
            self.row = replace(self._result, acknowledged=message.ok and message.confirmed)
        elif isinstance(message, Status) and self._in_trial and message.state != "armed":
            raise SessionOverError(f"the rig is {message.state}")
        elif isinstance(message, TriggerEvent):
            self._note_event(message)

    def _note_event(self, event: TriggerEvent) -> None:
        if event.kind == "stopped":
            raise RigGoneError("the rig ended")
        if event.kind in ("estop", "disarmed") and self._armed:
            raise SessionOverError(f"{event.kind}: {event.detail}")
        if event.kind == "trial-started" and self._armed:
            self.row = Row(event.run, event.trial or 0, self._hold_ms)
            self._in_trial, self._began_ns, self._command_id = True, event.decide_ns, 0
        elif event.kind == "trial-ended":
            self._in_trial = False
        elif event.kind == "fire" and event.trigger == TRIGGER and event.command is not None:
            reaction_s = (event.decide_ns - self._began_ns) / 1e9
            self._command_id = event.command.command_id
            self.row = replace(self._result, outcome="rewarded", reaction_s=round(reaction_s, 4))

    def close(self) -> None:
        """Leave the rig disarmed."""
        if self._armed:
            try:
                self._commands.disarm()
            except NoReplyError as error:
                say(str(error))
        for connection in (self._poses, self._events, self._commands):
            connection.close()


def say(words: str) -> None:
    sys.stderr.write(f"{words}\n")


def run(task: RewardTask, trials: int, table: Path) -> None:
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()

        def write(row: Row) -> None:
            writer.writerow(asdict(row))
            file.flush()
            say(f"trial {row.trial}: {row.outcome}, hold {row.hold_ms:g} ms")

        def write_void() -> None:
            if task.row is not None:
                rewarded = task.row.outcome == "rewarded"
                write(task.row if rewarded else replace(task.row, outcome="void"))

        task.wait_for_rig()
        done = 0
        while done < trials:
            try:
                write(task.trial())
                done += 1
            except (RigGoneError, NoReplyError) as error:
                write_void()
                say(f"{error}: {done} of {trials} trials done, going on when a rig is there")
                task.wait_for_rig()
            except SessionOverError:
                write_void()
                raise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rig", type=Path, help="the rig file that rtpose runs")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--trial-s", type=float, default=15.0, help="longest trial")
    parser.add_argument("--pause-s", type=float, default=2.0, help="from a trial to the next")
    parser.add_argument("--table", type=Path, default=Path("session.csv"))
    options = parser.parse_args()
    try:
        task = RewardTask(options.rig, options.trial_s, options.pause_s)
        try:
            run(task, options.trials, options.table)
        finally:
            task.close()
    except KeyboardInterrupt:
        sys.exit(130)
    except (SessionOverError, RtposeError) as error:
        say(f"the session is over: {error}")
        sys.exit(1)


if __name__ == "__main__":
    main()
