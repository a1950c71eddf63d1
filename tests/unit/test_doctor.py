"""What `rtpose doctor` makes of what it sees."""

import socket
from pathlib import Path
from typing import Any

import pytest

from rtpose.bus import Publisher
from rtpose.doctor import cameras, machine, software
from rtpose.finding import Finding
from rtpose.rig_tables import StreamTable


def _free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
        return port


# ------------------------------------------------------------------------------- the machine


def _governors(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        cpu = folder / f"cpu{number}" / "cpufreq"
        cpu.mkdir(parents=True)
        (cpu / "scaling_governor").write_text(f"{name}\n")
    (folder / "cpufreq").mkdir(parents=True)  # Linux has one beside the CPUs as well
    return folder


def test_one_cpu_that_saves_power_is_enough_for_a_warning(tmp_path: Path) -> None:
    mixed = _governors(tmp_path / "mixed", "performance", "powersave", "performance")
    (found,) = machine.governor(mixed)
    assert (found.grade, found.found) == ("warning", "performance, powersave")
    assert "cpupower frequency-set -g performance" in found.advice
    (found,) = machine.governor(_governors(tmp_path / "fast", "performance", "performance"))
    assert (found.grade, found.advice) == ("good", "")
    assert machine.governor(_governors(tmp_path / "virtual")) == []


@pytest.mark.parametrize(
    ("source", "grade"),
    [("tsc", "good"), ("kvm-clock", "good"), ("hpet", "warning"), ("acpi_pm", "warning")],
)
def test_a_slow_clock_is_warned_of(source: str, grade: str, tmp_path: Path) -> None:
    file = tmp_path / "current_clocksource"
    file.write_text(f"{source}\n")
    found = machine.clock(file)
    assert found.grade == grade
    assert found.facts["source"] == source
    assert machine.clock(tmp_path / "absent").grade == "good"  # another system


@pytest.mark.parametrize(
    ("free_mb", "grade"), [(1, "problem"), (64, "warning"), (255, "warning"), (256, "good")]
)
def test_shared_memory_must_hold_some_frames(free_mb: int, grade: str) -> None:
    found = machine.shared_memory(free_mb * 1_000_000)
    assert found.grade == grade
    assert ("--shm-size" in found.advice) == (grade != "good")  # what Docker gives is 64 MB


def test_a_port_that_a_rig_uses_is_named() -> None:
    stream = StreamTable(pose_port=_free_port(), event_port=_free_port(), command_port=_free_port())
    assert machine.stream_ports(stream).grade == "good"
    publisher = Publisher(stream.endpoint(stream.event_port))
    try:
        found = machine.stream_ports(stream)
    finally:
        publisher.close()
    assert found.grade == "warning"
    assert found.found == f"in use: event_port = {stream.event_port}"
    assert "[stream]" in found.advice


def test_recordings_need_a_folder_that_can_be_written(tmp_path: Path) -> None:
    found = machine.disk(tmp_path / "not" / "yet" / "there")
    assert "no recording" not in found.advice
    assert found.facts["free_bytes"] > 0
    (tmp_path / "file").touch()
    found = machine.disk(tmp_path / "file" / "runs")
    assert found.grade == "problem"
    assert str(tmp_path / "file") in found.advice


def test_missing_priority_is_a_warning_in_the_words_of_a_rig() -> None:
    found = machine.judge_realtime({"notes": ["no right to real-time priority"]})
    assert (found.grade, found.found) == ("warning", "no right to real-time priority")
    assert machine.judge_realtime({"notes": []}).grade == "good"
    assert machine.judge_realtime({"error": "it hangs"}).grade == "warning"


# ------------------------------------------------------------------------------ the software


def test_packages_that_overwrite_each_other_are_a_problem() -> None:
    both = {"onnxruntime": "1.20", "onnxruntime-gpu": "1.20"}
    found = software.judge_packages(both, "shown")
    assert found.grade == "problem"
    assert "pip uninstall onnxruntime-gpu onnxruntime" in found.advice
    assert software.judge_packages({"onnxruntime-gpu": "1.20"}, "shown").grade == "good"


def test_the_versions_are_those_that_run() -> None:
    found = software.packages()
    assert found.facts["rtpose"] in found.found
    assert f"numpy {found.facts['numpy']}" in found.found


_NAMES = {"providers": ["CUDAExecutionProvider", "CPUExecutionProvider"]}
_WORKS = {"median_ms": 1.0}
_FAILS = {"error": "provider 'cuda' was asked for, and only CPU would run: libcudnn is missing"}


@pytest.mark.parametrize(
    ("cpu", "cuda", "has_gpu", "grades"),
    [
        (_WORKS, _WORKS, True, ["good", "good"]),
        (_WORKS, _FAILS, True, ["good", "problem"]),
        (_WORKS, _FAILS, False, ["good", "good"]),
        (_FAILS, _FAILS, False, ["problem"]),
    ],
    ids=["both", "CUDA is broken", "no GPU", "no model runs"],
)
def test_cuda_that_does_not_load_is_a_problem_where_there_is_a_gpu(
    cpu: dict[str, Any], cuda: dict[str, Any], has_gpu: bool, grades: list[str]
) -> None:
    findings = software.judge_providers(_NAMES, cpu, cuda, has_gpu=has_gpu)
    assert [finding.grade for finding in findings] == grades
    if "problem" in grades:
        assert findings[-1].found == _FAILS["error"]


# ------------------------------------------------------------------------------- the cameras

_SEEN = {"width_px": 640, "height_px": 480, "nominal_hz": 30.0, "measured_hz": 29.9, "notes": []}


def _judged(results: dict[int, dict[str, Any]], *, guessed: bool) -> list[Finding]:
    names = {number: f"cam {number}" for number in results}
    return list(cameras.judge_cameras(names, list(results.values()), guessed=guessed))


def test_each_camera_is_said_with_its_size_and_rate() -> None:
    first, second = _judged({0: _SEEN, 2: {"error": "no frame came"}}, guessed=False)
    assert (first.topic, first.grade) == ("camera 0", "good")
    assert first.found == "cam 0: 640x480 px, 29.9 frames/s of 30"
    assert (second.topic, second.grade) == ("camera 2", "warning")
    assert second.found == "cam 2: no frame came"


def test_a_number_that_was_only_guessed_is_no_missing_camera() -> None:
    (found,) = _judged({0: {"error": "cannot be opened"}, 1: _SEEN}, guessed=True)
    assert found.topic == "camera 1"
    (found,) = _judged({0: {"error": "cannot be opened"}}, guessed=True)
    assert (found.grade, found.found) == ("warning", "OpenCV finds none")
