"""Camera frame to acknowledged pulse through the emulated board, beside the bare network call.

    python -m benchmarks loop_latency

A rig of its own runs at 256x256 with a trigger that fires on every pose, on every provider that
works here. Before and after it, the
same model runs alone in this process at the same pace: what the loop adds is the difference. The
board is the firmware on an emulated chip, so its serial line and its interrupt code are part of the
figure, and it needs a core of its own while it answers.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmarks import PERCENTILES, summary_us, table
from benchmarks.estimator_overhead import resized
from rtpose.cameras.synthetic import SyntheticConfig
from rtpose.clock import RateKeeper, now_ns
from rtpose.config import load_rig
from rtpose.errors import ProviderError
from rtpose.estimator import Estimator, Provider
from rtpose.interfaces import Decision, Settings, Trigger
from rtpose.loop import go_realtime
from rtpose.messages import Pose
from rtpose.report import Collector
from rtpose.skeleton import Skeleton
from rtpose.supervisor import Supervisor

_ROOT = Path(__file__).parents[1]
_MODEL = _ROOT / "models" / "zoo" / "openfield-mouse-mobilenetv2-0.35.onnx"
_SECONDS = 10.0
_RATE_HZ = 60.0

_RIG = """
[cameras.arena]
type = "synthetic"
width_px = 256
height_px = 256
rate_hz = {rate_hz}

[model]
path = "{model}"
provider = "{provider}"
min_confidence = 0.0

[latency]
budget_ms = 1000.0

[recording]
folder = "{folder}"

[outputs.board]
type = "emulated-ttl"
edge_log = "{folder}/edges.log"

[outputs.board.lines.ttl]
pin = 0
max_on_ms = 10.0

[triggers.every]
type = "benchmarks.loop_latency:EveryPose"
output = "board.ttl"
pulse_ms = 1.0
"""


class _NoSettings(Settings):
    pass


class EveryPose(Trigger):
    """Fires on every pose."""

    Config: ClassVar[type[Settings]] = _NoSettings

    def __init__(self, config: Settings) -> None:
        """Take no settings."""

    def prepare(self, skeleton: Skeleton) -> None:
        """Need no keypoint."""

    def update(self, pose: Pose) -> Decision:
        """Fire."""
        return Decision.FIRE


def _bare(model: Path, provider: Provider, seconds: float) -> list[int]:
    """Return the times of the bare network call, in nanoseconds, at the rig's pace."""
    arena = SyntheticConfig(width_px=256, height_px=256, rate_hz=_RATE_HZ).arena()
    frame = np.empty((256, 256), np.uint8)
    estimator = Estimator(model, frame=(256, 256, 1), provider=provider)
    estimator.warm_up(20)
    pace = RateKeeper(_RATE_HZ)
    times_ns = []
    for frame_id in range(round(seconds * _RATE_HZ)):
        pace.wait()
        arena.draw(frame_id, frame)
        estimator.load(frame)
        start_ns = now_ns()
        estimator.infer()
        times_ns.append(now_ns() - start_ns)
    return times_ns


def _loop(
    model: Path, provider: Provider, folder: Path, seconds: float
) -> Mapping[str, Mapping[str, float]]:
    rig_file = folder / "rig.toml"
    rig_file.write_text(
        _RIG.format(rate_hz=_RATE_HZ, model=model, provider=provider, folder=folder)
    )
    rig = load_rig(rig_file)
    supervisor = Supervisor(rig)
    collector = Collector(rig, supervisor.card.keypoints(), supervisor.run)
    try:
        with supervisor:
            supervisor.arm()
            end_ns = now_ns() + round(seconds * 1e9)
            while now_ns() < end_ns and not supervisor.stopping:
                supervisor.step(0.1)
                collector.drain()
        supervisor.raise_for_problems()
        return collector.latency_us()
    finally:
        collector.close()


def _works(provider: Provider) -> bool:
    try:
        Estimator(_MODEL, frame=(256, 256, 1), provider=provider)
    except ProviderError:
        return False
    return True


def _measure(provider: Provider) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = resized(_MODEL, 256, 256, folder / "256.onnx")
        before = _bare(model, provider, _SECONDS / 2)
        stages = _loop(model, provider, folder, _SECONDS)
        after = _bare(model, provider, _SECONDS / 2)
    bare = summary_us(np.array(before + after))
    return {
        "rate_hz": _RATE_HZ,
        "bare_session_run_us": bare,
        "stages_us": stages,
        "arrival_to_ack_minus_bare_p50_us": stages["arrival_to_ack"]["p50"] - bare["p50"],
        "arrival_to_publish_minus_infer_p50_us": (
            stages["arrival_to_publish"]["p50"] - stages["infer"]["p50"]
        ),
    }


def run() -> dict[str, Any]:
    """Return percentiles, in microseconds, of the bare call and of the loop's stages."""
    go_realtime(45)
    providers: tuple[Provider, ...] = ("cpu", "cuda")
    return {provider: _measure(provider) for provider in providers if _works(provider)}


def show(result: dict[str, Any]) -> None:
    """Print a table for each provider."""
    for provider, measured in result.items():
        rows = {"bare session.run": measured["bare_session_run_us"], **measured["stages_us"]}
        rounded = {name: {p: round(v) for p, v in row.items()} for name, row in rows.items()}
        title = f"{provider}, at {measured['rate_hz']:g} frames/s, us"
        table(title, rounded, [*PERCENTILES, "n"])
