"""The reward task of the examples: what its table says is what the rig's record says."""

import contextlib
import csv
import itertools
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq.auth

from rtpose.client import Commands
from rtpose.messages import Ack, TriggerEvent
from rtpose.run_log import read_log

EXAMPLES = Path(__file__).parents[2] / "examples"


def rig_text(**changes: str) -> str:
    text = (EXAMPLES / "07_reward_task.toml").read_text()
    for old, new in {'folder = "../runs"': 'folder = "runs"', **changes}.items():
        assert old in text
        text = text.replace(old, new)
    return text


@contextlib.contextmanager
def task(folder: Path, *options: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, str(EXAMPLES / "clients" / "reward_task.py")]
    command += [str(folder / "rig.toml"), "--table", str(folder / "session.csv"), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def rows(folder: Path) -> list[dict[str, str]]:
    path = folder / "session.csv"
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def rewards(folder: Path) -> dict[tuple[str, int], tuple[TriggerEvent, bool]]:
    """Return every reward that the records tell of, by run and trial, and if it was acknowledged.

    More than one in a trial is an error.
    """
    found = {}
    for path in folder.glob("runs/*/events.jsonl"):
        log = read_log(path)
        acks = {m.command_id: m for m in log if isinstance(m, Ack)}
        for event in log:
            if isinstance(event, TriggerEvent) and event.kind == "fire":
                assert event.command is not None
                key = (event.run, event.trial or 0)
                assert key not in found
                ack = acks.get(event.command.command_id)
                found[key] = (event, ack is not None and ack.ok)
    return found


def assert_table_matches(folder: Path) -> None:
    told = rewards(folder)
    rewarded = [row for row in rows(folder) if row["outcome"] == "rewarded"]
    assert {(row["run"], int(row["trial"])) for row in rewarded} == set(told)
    for row in rewarded:
        _, acknowledged = told[row["run"], int(row["trial"])]
        assert row["acknowledged"] == str(acknowledged)


@pytest.mark.hardware
def test_every_reward_of_the_table_is_in_the_record_and_on_the_chip(
    rig: Any, emulated_board: Path
) -> None:
    edges = rig.folder / "edges.log"
    rig.start(
        rig_text(**{"watchdog_ms = 100": f'watchdog_ms = 100\nedge_log = "{edges}"'}),
        seconds=110.0,
    )
    rig.manifest()
    with task(rig.folder, "--trials", "4", "--pause-s", "0.2", "--trial-s", "30") as process:
        _, said = process.communicate(timeout=100)
    assert process.returncode == 0, said
    table = rows(rig.folder)
    assert [row["trial"] for row in table] == ["1", "2", "3", "4"]
    assert sum(row["outcome"] == "rewarded" for row in table) >= 2
    assert all(row["acknowledged"] == "True" for row in table if row["outcome"] == "rewarded")
    # Longer after a reward, shorter after a miss; and what the rig was told, it held to.
    for row, following in itertools.pairwise(table):
        longer = float(following["hold_ms"]) > float(row["hold_ms"])
        assert longer == (row["outcome"] == "rewarded")
    rig.running.send_signal(signal.SIGINT)
    assert rig.end()[0] == 0
    assert_table_matches(rig.folder)
    told = [m for m in rig.log() if isinstance(m, TriggerEvent)]
    assert [m.kind for m in told].count("parameter-set") == 4
    assert next(m for m in told if m.kind == "disarmed").asked
    rises = [line.split() for line in edges.read_text().splitlines() if line.endswith(" 0 1")]
    assert len(rises) == len(rewards(rig.folder))


def test_a_restarted_rig_is_said_and_the_session_goes_on(rig: Any) -> None:
    text = rig_text(**{'"emulated-ttl"\nwatchdog_ms = 100': '"virtual"'})
    rig.start(text, seconds=110.0)
    rig.manifest()
    with task(rig.folder, "--trials", "3", "--pause-s", "0.2", "--trial-s", "20") as process:
        rig.wait_for(lambda: rows(rig.folder), "the first trial")
        rig.running.send_signal(signal.SIGINT)
        assert rig.end()[0] == 0
        rig.start(text, seconds=110.0)
        _, said = process.communicate(timeout=100)
    assert process.returncode == 0, said
    assert "of 3 trials done, going on when a rig is there" in said
    rig.running.send_signal(signal.SIGINT)
    assert rig.end()[0] == 0
    table = rows(rig.folder)
    assert len({row["run"] for row in table}) == 2
    assert len([row for row in table if row["outcome"] != "void"]) == 3
    assert_table_matches(rig.folder)


def test_a_rig_that_encrypts_is_steered_with_its_key(rig: Any) -> None:
    _, secret = zmq.auth.create_certificates(rig.folder, "rig")
    rig.ports = {"curve_secret_key_file": f'"{secret}"', **rig.ports}
    rig.start(rig_text(**{'"emulated-ttl"\nwatchdog_ms = 100': '"virtual"'}), seconds=110.0)
    rig.manifest()
    with task(rig.folder, "--trials", "1", "--pause-s", "0.2", "--trial-s", "20") as process:
        _, said = process.communicate(timeout=100)
    assert process.returncode == 0, said
    rig.running.send_signal(signal.SIGINT)
    assert rig.end()[0] == 0
    assert len(rows(rig.folder)) == 1
    assert_table_matches(rig.folder)


def test_an_emergency_stop_ends_the_session_and_is_not_armed_away(rig: Any) -> None:
    rig.start(rig_text(**{'"emulated-ttl"\nwatchdog_ms = 100': '"virtual"'}), seconds=110.0)
    rig.manifest()
    endpoint = f"tcp://127.0.0.1:{rig.ports['command_port']}"
    with task(rig.folder, "--trials", "50", "--pause-s", "0.1") as process:
        rig.wait_for(lambda: rows(rig.folder), "the first trial")
        with Commands(endpoint) as commands:
            assert commands.emergency_stop().state == "stopped"
            _, said = process.communicate(timeout=60)
            assert commands.status().state == "stopped"
    assert process.returncode == 1
    assert "the session is over: " in said
    rig.running.send_signal(signal.SIGINT)
    assert rig.end()[0] == 0
    kinds = [m.kind for m in rig.log() if isinstance(m, TriggerEvent)]
    assert "armed" not in kinds[kinds.index("estop") :]
    assert "fire" not in kinds[kinds.index("estop") :]
    assert_table_matches(rig.folder)
