"""A training that is killed, or stopped by its user, goes on as if nothing had happened."""

import csv
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from labelled_spots import write_spots
from rich.console import Console

from rtpose.errors import (
    ConfigError,
    InputError,
    ModelError,
    RecordingError,
    RtposeError,
    StoppedError,
)
from rtpose_train.train import train
from rtpose_train.training.module import PoseModule
from rtpose_train.training.settings import read_record

QUIET = Console(quiet=True)
TINY: dict[str, Any] = {
    "model": "mobilenetv2-0.1",
    "size": (64, 48),
    "batch": 2,
    "threads": 1,
    "tensorboard": False,
}
#: The same as a file, with more steps than a test waits for if nobody stops it.
CONFIG = """
model = "mobilenetv2-0.1"
width_px = 64
height_px = 48
batch = 2
steps = {steps}
checks = {checks}
threads = 1
tensorboard = false
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_spots(tmp_path_factory.mktemp("data") / "spots", 20)


def _start(project: Path, out: Path, *options: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "rtpose", "train", str(project), "--out", str(out), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )


def _wait_until(process: "subprocess.Popen[str]", condition: Callable[[], bool]) -> None:
    """Wait for what a running process will do; fail if it ends before."""
    while not condition():
        try:
            process.wait(timeout=0.01)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(f"ended too early: {process.communicate()[0]}")


def _same(first: Path, second: Path) -> bool:
    """Whether two runs kept the same weights, bit by bit, and logged the same."""
    one, other = (torch.load(run / "best.pt", weights_only=True) for run in (first, second))
    return (
        one.keys() == other.keys()
        and all(torch.equal(value, other[name]) for name, value in one.items())
        and (first / "log.csv").read_text() == (second / "log.csv").read_text()
    )


def test_killed_then_stopped_then_resumed_is_the_same_as_uninterrupted(
    project: Path, tmp_path: Path
) -> None:
    config = tmp_path / "train.toml"
    config.write_text(CONFIG.format(steps=120, checks=24))
    out = tmp_path / "run"
    checkpoint = out / "last.ckpt"

    process = _start(project, out, "--config", str(config))
    _wait_until(process, checkpoint.is_file)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    saved = checkpoint.stat().st_mtime_ns

    process = _start(project, out, "--config", str(config), "--resume")
    _wait_until(process, lambda: checkpoint.stat().st_mtime_ns > saved)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130, output
    stopped = re.search(r"stopped at step (\d+)", output)
    assert stopped is not None and "the same command and --resume" in output
    state = torch.load(checkpoint, weights_only=True)
    assert state["global_step"] == int(stopped[1]) < 120
    assert not read_record(out).finished

    train(project, out, config=config, resume=True, console=QUIET)
    whole = tmp_path / "whole"
    train(project, whole, config=config, console=QUIET)
    assert _same(out, whole)
    resumed, never_stopped = read_record(out), read_record(whole)
    assert resumed.finished and never_stopped.finished
    assert resumed.validation_px == never_stopped.validation_px
    assert resumed.best_step == never_stopped.best_step


class _Killed(BaseException):
    """What nobody catches, as little as a kill."""


def _killed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    take = PoseModule.training_step

    def training_step(self: PoseModule, batch: Any, batch_idx: int) -> Any:
        if self.trainer.global_step == step:
            raise _Killed
        return take(self, batch, batch_idx)

    monkeypatch.setattr(PoseModule, "training_step", training_step)


@pytest.mark.parametrize(
    "options",
    [
        # A rate this low learns nothing, so that it drops; 7 steps lie between two checks.
        {"schedule": "plateau", "plateau_patience": 1, "learning_rate": 1e-7},
        {"schedule": "plateau", "patience": 2, "learning_rate": 1e-8, "steps": 37},
        {"precision": "bf16-mixed", "location_refinement": True, "posture_graph": True},
    ],
    ids=["plateau", "early-stop", "bf16-two-heads"],
)
def test_every_kind_of_training_goes_on_exactly(
    project: Path, tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {**TINY, "steps": 35, "checks": 5, "console": QUIET, **options}
    train(project, tmp_path / "whole", **given)
    for step in (9, 16):
        with monkeypatch.context() as patch:
            _killed_at(step, patch)
            with pytest.raises(_Killed):
                train(project, tmp_path / "cut", resume=step > 9, **given)
    record = train(project, tmp_path / "cut", resume=True, **given)
    assert _same(tmp_path / "whole", tmp_path / "cut")
    with (tmp_path / "cut" / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    rates = {float(row["learning_rate"]) for row in rows}
    last_step = int(rows[-1]["step"])
    if "plateau_patience" in options:
        assert any(rate == pytest.approx(2e-8) for rate in rates)
    assert last_step == (21 if "patience" in options else 35)
    assert record.finished


def test_what_a_run_began_with_is_what_it_goes_on_with(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    given: dict[str, Any] = {**TINY, "steps": 20, "checks": 4, "console": QUIET}
    with monkeypatch.context() as patch:
        _killed_at(8, patch)
        with pytest.raises(_Killed):
            train(project, out, **given)
    with pytest.raises(InputError, match=r"exists; .* or --resume"):
        train(project, out, **given)
    with pytest.raises(ConfigError) as caught:
        train(project, out, resume=True, **{**given, "steps": 40, "batch": 4})
    assert {problem.where for problem in caught.value.problems} == {"steps", "batch"}
    other = write_spots(tmp_path / "other", 21)
    with pytest.raises(InputError, match=r"not labelled|others than this project"):
        train(other, out, resume=True, edges=[("dark", "bright")], **given)
    checkpoint, whole = out / "last.ckpt", (out / "last.ckpt").read_bytes()
    checkpoint.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"last\.ckpt: damaged"):
        train(project, out, resume=True, **given)
    checkpoint.write_bytes(whole)
    before = train(project, out, resume=True, **given)
    assert train(project, out, resume=True, **given) == before
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no run to go on with"):
        train(project, tmp_path / "empty", resume=True, **given)


def test_ctrl_c_within_python_stops_after_the_step(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = signal.getsignal(signal.SIGINT)
    take = PoseModule.training_step

    def training_step(self: PoseModule, batch: Any, batch_idx: int) -> Any:
        if self.trainer.global_step == 5:
            signal.raise_signal(signal.SIGINT)
        return take(self, batch, batch_idx)

    given: dict[str, Any] = {**TINY, "steps": 20, "checks": 2, "console": QUIET}
    with monkeypatch.context() as patch:
        patch.setattr(PoseModule, "training_step", training_step)
        with pytest.raises(StoppedError, match="stopped at step 6") as caught:
            train(project, tmp_path / "run", **given)
    assert caught.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is handler
    train(project, tmp_path / "run", resume=True, **given)
    train(project, tmp_path / "whole", **given)
    assert _same(tmp_path / "run", tmp_path / "whole")


def test_a_full_disk_ends_a_training_with_a_word_about_it(project: Path, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(RecordingError, match=r"best\.pt: cannot be written"):
            train(project, tmp_path / "run", steps=20, checks=2, console=QUIET, **TINY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_too_little_memory_is_answered_with_what_to_lower(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def training_step(self: PoseModule, batch: Any, batch_idx: int) -> Any:
        return torch.empty(1 << 50)

    monkeypatch.setattr(PoseModule, "training_step", training_step)
    with pytest.raises(RtposeError, match=r"out of memory with batches of 2 .* 64x48 px: lower"):
        train(project, tmp_path / "run", steps=20, console=QUIET, **TINY)
