"""Bad input and faults in mid-run: each with a clear error, outputs safe, and nothing lost."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
import zmq

from rtpose.messages import Ack, TriggerEvent

DATA = Path(__file__).parents[1] / "data"

RIG = """
[cameras.arena]
type = "synthetic"
width_px = 320
height_px = 240
rate_hz = 100.0
{camera}

[model]
path = "demo"

[latency]
budget_ms = 1000.0

[outputs.out]
type = "{output}"
{output_settings}

[outputs.out.lines.laser]
pin = 0
max_on_ms = 60_000.0

[triggers.everywhere]
output = "out.laser"
{trigger}
"""
EVERYWHERE = """
type = "region"
keypoint = "tailbase"
polygon = [[-9000, -9000], [9000, -9000], [9000, 9000], [-9000, 9000]]
when = "inside"
"""


def toml(
    camera: str = "",
    output: str = "virtual",
    output_settings: str = "",
    trigger: str = EVERYWHERE,
) -> str:
    return RIG.format(
        camera=camera, output=output, output_settings=output_settings, trigger=trigger
    )


def events(rig: Any, kind: str) -> list[TriggerEvent]:
    return [m for m in rig.log() if isinstance(m, TriggerEvent) and m.kind == kind]


def assert_record_is_whole(rig: Any) -> None:
    """Assert that the log has every event in order, and an answer to every command."""
    log = rig.log()
    told = [m for m in log if isinstance(m, TriggerEvent)]
    assert [m.seq for m in told] == list(range(len(told)))
    assert told[0].kind == "started"
    assert told[-1].kind == "stopped"
    commands = [m.command.command_id for m in told if m.command is not None]
    assert [m.command_id for m in log if isinstance(m, Ack)] == commands


def test_camera_that_stops_ends_the_run_with_the_outputs_safe(rig: Any) -> None:
    rig.start(toml("freeze_after = 100\nmax_silence_ms = 300.0"), "--arm")
    code, _, error = rig.end()
    assert code == 1
    assert "camera 'arena' delivered no frame for 0.3 s" in error
    assert events(rig, "stopped")[-1].detail == "outputs safe"
    assert_record_is_whole(rig)
    # Control let go on its own clock, before the camera was given up.
    assert [e.detail for e in events(rig, "line-off")] == ["no pose to hold it on"]


def test_camera_that_repeats_one_picture_is_one_that_stopped(rig: Any) -> None:
    camera = "repeat_after = 150\nmax_silence_ms = 900.0"
    rig.start(toml(camera), "--arm")
    code, _, error = rig.end()
    assert code == 1
    assert "camera 'arena' delivered nothing but one and the same picture for 0.9 s" in error
    assert_record_is_whole(rig)
    # Its poses came to the end, and held no line for longer than poses may fail to come.
    assert [e.detail for e in events(rig, "stale")] == ["no fresh pose for max_pose_gap_ms"]
    assert [e.detail for e in events(rig, "line-off")] == ["no pose to hold it on"]
    why = "the camera has repeated one picture for more than max_pose_gap_ms"
    (refused,) = [e for e in events(rig, "refused") if e.detail != "not armed"]
    assert refused.detail == why
    off, last = events(rig, "line-off")[0], events(rig, "stopped")[0]
    assert off.decide_ns < refused.decide_ns < last.decide_ns


def test_a_video_may_stand_still(rig: Any) -> None:
    path = rig.folder / "still.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30, (320, 240))
    for _ in range(45):
        writer.write(np.full((240, 320, 3), 90, np.uint8))
    writer.release()
    camera = f'type = "video"\npath = "{path}"\nmax_silence_ms = 300.0\n'
    synthetic = 'type = "synthetic"\nwidth_px = 320\nheight_px = 240\nrate_hz = 100.0\n'
    rig.start(toml().replace(synthetic, camera), "--arm")
    code, _, error = rig.end()
    assert (code, error) == (0, "")
    assert rig.report()["frames"] == 45
    assert not events(rig, "stale")


def test_camera_that_fails_ends_the_run_with_its_reason(rig: Any) -> None:
    rig.start(toml("fail_after = 50"))
    code, _, error = rig.end()
    assert code == 1
    assert "capture: " in error
    assert_record_is_whole(rig)


def test_camera_that_ends_ends_the_run_well_and_every_frame_is_accounted_for(rig: Any) -> None:
    rig.start(toml("frames = 150"))
    code, _, error = rig.end()
    assert (code, error) == (0, "")
    report = rig.report()
    assert report["frames"] == 150
    assert report["poses"] + report["dropped"] == 150
    assert report["torn"] == 0
    assert_record_is_whole(rig)


def test_source_without_a_rate_goes_as_fast_as_frames_are_taken(rig: Any) -> None:
    rig.start(toml("rate_hz = 0.0\nframes = 200").replace("rate_hz = 100.0\n", ""))
    code, _, error = rig.end()
    assert (code, error) == (0, "")
    report = rig.report()
    assert (report["frames"], report["poses"], report["dropped"]) == (200, 200, 0)


def test_trigger_that_raises_is_disabled_and_the_stream_goes_on(
    rig: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(DATA))
    rig.start(toml("frames = 200", trigger='type = "bad_triggers:Raises"'), "--arm")
    code, _, error = rig.end()
    assert (code, error) == (0, "")
    (failed,) = events(rig, "trigger-failed")
    assert "ZeroDivisionError: the animal was divided by zero" in failed.detail
    assert "output out made safe" in failed.detail
    assert failed.frame_id is not None
    assert rig.report()["poses"] + rig.report()["dropped"] == 200
    assert_record_is_whole(rig)


def test_trigger_that_returns_no_decision_is_disabled_and_moves_nothing(
    rig: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(DATA))
    rig.start(toml("frames = 100", trigger='type = "bad_triggers:ReturnsTrue"'))
    code, _, error = rig.end()
    assert (code, error) == (0, "")
    (failed,) = events(rig, "trigger-failed")
    assert "update() returned True, which is not a Decision" in failed.detail
    assert not events(rig, "fire")


def test_trigger_that_cannot_describe_itself_still_works(
    rig: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(DATA))
    rig.start(toml("frames = 200", trigger='type = "bad_triggers:DescribesBadly"'), "--arm")
    code, _, error = rig.end()
    assert (code, error) == (0, "")
    assert events(rig, "fire")[0].detail == "describe() failed: KeyError: 'words'"
    assert_record_is_whole(rig)


@pytest.mark.hardware
def test_trigger_that_hangs_is_named_and_the_board_drops_the_line_by_itself(
    rig: Any, monkeypatch: pytest.MonkeyPatch, emulated_board: Path
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(DATA))
    log = rig.folder / "edges.log"
    settings = f'watchdog_ms = 100\nedge_log = "{log}"'
    rig.start(toml("", "emulated-ttl", settings, 'type = "bad_triggers:Hangs"'), "--arm")
    code, _, error = rig.end()
    assert code == 1
    assert "control hung in 'everywhere'" in error
    levels = [line.split()[3] for line in log.read_text().splitlines()]
    assert levels[-1] == "0"
    assert "1" in levels


@pytest.mark.parametrize("call", ["acks", "beat", "send"])
def test_driver_that_hangs_is_named(rig: Any, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    monkeypatch.setenv("PYTHONPATH", str(DATA))
    cue = rig.folder / "output.cue"
    settings = f'cue = "{cue}"\nthen = "hang"\nwhere = "{call}"'
    rig.start(toml("", "fault_plugins:CueOutput", settings), "--arm")
    rig.manifest()
    cue.touch()
    code, _, error = rig.end()
    assert code == 1
    assert "control hung in 'output out'" in error


def test_driver_that_cannot_make_safe_is_told_in_the_record_to_its_end(
    rig: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(DATA))
    cue = rig.folder / "output.cue"
    settings = f'cue = "{cue}"\nthen = "raise"\nwhere = "safe"'
    rig.start(toml("", "fault_plugins:CueOutput", settings), "--arm", seconds=2.0)
    rig.manifest()
    cue.touch()
    code, _, error = rig.end()
    assert code == 1
    assert "RuntimeError: the driver came apart" in error
    (stopped,) = events(rig, "stopped")
    assert stopped.detail == "NOT CONFIRMED low: out"


@pytest.mark.hardware
def test_board_that_vanishes_in_mid_run_ends_it_with_its_name(
    rig: Any, emulated_board: Path
) -> None:
    log = rig.folder / "edges.log"
    rig.start(toml("", "emulated-ttl", f'edge_log = "{log}"'), "--arm")
    rig.manifest()
    rig.wait_for(lambda: log.exists() and log.read_text().endswith(" 1\n"), "the laser goes on")
    for process in psutil.process_iter(["cmdline"]):
        if str(log) in (process.info["cmdline"] or []):
            process.kill()
    code, _, error = rig.end()
    assert code == 1
    assert "control: " in error
    assert events(rig, "output-failed")
    assert "NOT CONFIRMED low: out" in events(rig, "stopped")[-1].detail


def test_absent_port_names_the_ports_that_are_there(rig: Any) -> None:
    pytest.importorskip("serial", reason="needs the extra 'serial'")
    rig.start(toml("", "ttl", 'port = "/dev/rtpose-absent"'))
    code, _, error = rig.end()
    assert code in (1, 2)
    assert "/dev/rtpose-absent" in error


def test_garbage_on_every_socket_changes_nothing(rig: Any) -> None:
    rig.start(toml("frames = 600"), "--arm")
    rig.manifest()
    rig.wait_for(lambda: any(e.kind == "fire" for e in rig.log() if hasattr(e, "kind")), "a fire")
    context = zmq.Context()
    for port in rig.ports.values():
        with socket.create_connection(("127.0.0.1", port)) as raw:
            raw.sendall(os.urandom(4096))
        for kind in (zmq.DEALER, zmq.XSUB, zmq.REQ):
            peer = context.socket(kind)
            peer.setsockopt(zmq.LINGER, 200)
            peer.connect(f"tcp://127.0.0.1:{port}")
            for payload in (b"", b"\x80", b'{"v":0,"type":"request","action":"disarm"}'):
                peer.send(payload)
                if kind == zmq.REQ:
                    break
            peer.close()
    context.term()
    code, _, error = rig.end()
    assert (code, error) == (0, "")
    report = rig.report()
    assert report["malformed"] > 0
    assert report["poses"] + report["dropped"] == 600
    assert not events(rig, "disarmed")
    assert_record_is_whole(rig)


def test_ports_in_use_are_named(rig: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", rig.ports["pose_port"]))
        taken.listen()
        rig.start(toml())
        code, _, error = rig.end()
    assert code == 2
    assert f"cannot bind tcp://127.0.0.1:{rig.ports['pose_port']}" in error
    assert "is another rig running" in error


def test_video_for_which_the_disk_is_too_small(rig: Any, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)],
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"this user may not mount a small disk: {mounted.stderr.strip()}")
    try:
        rig.start(toml("frames = 200"), "--save", str(disk / "out.mp4"))
        code, _, error = rig.end()
        assert code == 1
        assert "disk full" in error
        assert rig.report()["poses"] + rig.report()["dropped"] == 200
        assert_record_is_whole(rig)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_recorder_killed_changes_nothing_in_the_loop_and_is_reported(
    rig: Any, tmp_path: Path
) -> None:
    rig.start(toml("frames = 400"), "--arm", "--save", str(tmp_path / "out.mp4"))
    os.kill(rig.manifest()["pids"]["recorder"], signal.SIGKILL)
    code, _, error = rig.end()
    assert code == 1
    assert "recorder was killed by SIGKILL" in error
    report = rig.report()
    assert report["frames"] == 400
    assert report["poses"] + report["dropped"] == 400
    assert_record_is_whole(rig)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("absent.onnx", "absent.onnx"),
        ("rig.toml", "rig.toml"),  # a file, but no model
    ],
)
def test_missing_or_corrupt_model(rig: Any, model: str, words: str) -> None:
    rig.start(toml().replace('path = "demo"', f'path = "{model}"'))
    code, _, error = rig.end()
    assert code == 2
    assert words in error


def test_trigger_on_a_keypoint_that_the_model_does_not_know(rig: Any) -> None:
    rig.start(toml(trigger=EVERYWHERE.replace("tailbase", "tailbone")))
    code, _, error = rig.end()
    assert code == 2
    assert "triggers.everywhere: no keypoint 'tailbone'; did you mean 'tailbase'?" in error
    assert not (rig.folder / "runs").exists()  # nothing ran


def test_millimetres_need_the_scale_of_the_arena(rig: Any) -> None:
    trigger = """
type = "speed"
keypoint = "tailbase"
above_mm_s = 10.0
window_ms = 100.0
when = "while"
"""
    rig.start(toml(trigger=trigger))
    code, _, error = rig.end()
    assert code == 2
    assert "triggers.everywhere" in error
    assert "px_per_mm" in error


@pytest.mark.parametrize(
    ("trigger", "words"),
    [
        (EVERYWHERE + "pulse_ms = 5.0\n", "pulse_ms: has no meaning for a level"),
        (EVERYWHERE.replace("inside", "enter"), "pulse_ms: missing: how long is a pulse?"),
    ],
)
def test_pulse_width_must_fit_the_kind_of_trigger(rig: Any, trigger: str, words: str) -> None:
    rig.start(toml(trigger=trigger))
    code, _, error = rig.end()
    assert code == 2
    assert words in error


def test_check_reports_every_problem_and_exits_2(tmp_path: Path) -> None:
    path = tmp_path / "rig.toml"
    path.write_text(toml().replace("rate_hz", "rat_hz").replace("when", "wen"))
    command = [sys.executable, "-m", "rtpose", "check", str(path)]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 2
    for words in ("cameras.arena.rat_hz", "triggers.everywhere.wen", "triggers.everywhere.when"):
        assert words in checked.stderr
