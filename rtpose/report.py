"""What a run did, in figures: collected from the rig's own streams, shown live and at the end."""

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from rtpose.bus import Subscriber, public_key
from rtpose.cameras.synthetic import SyntheticConfig
from rtpose.messages import Ack, Pose, TriggerEvent
from rtpose.rig import Rig
from rtpose.skeleton import Skeleton

PERCENTILES: Final = {"p50": 50.0, "p95": 95.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}

#: Stages of every pose, then of every fire; each from one stamp to another.
_POSE_STAGES: Final = {
    "arrival_to_ready": ("arrival_ns", "ready_ns"),
    "ready_to_infer": ("ready_ns", "infer_start_ns"),
    "infer": ("infer_start_ns", "infer_end_ns"),
    "infer_to_publish": ("infer_end_ns", "publish_ns"),
    "arrival_to_publish": ("arrival_ns", "publish_ns"),
    "exposure_to_publish": ("exposure_ns", "publish_ns"),
}
_FIRE_STAGES: Final = {
    "publish_to_receive": ("publish_ns", "receive_ns"),
    "receive_to_decide": ("receive_ns", "decide_ns"),
    "decide_to_command": ("decide_ns", "command_ns"),
    "arrival_to_command": ("arrival_ns", "command_ns"),
    "exposure_to_command": ("exposure_ns", "command_ns"),
}
_MOST_UNANSWERED: Final = 1024
_ACK_STAGES: Final = ("command_to_ack", "arrival_to_ack")


class Histogram:
    """Percentiles of positive numbers in a fixed amount of memory, however long a run lasts.

    Buckets grow by half a percent each, so a percentile is right to that; the maximum is exact.
    """

    _GROWTH: Final = 1.005
    _SMALLEST: Final = 1e-3
    _BUCKETS: Final = 6000  # reaches to 10^10

    def __init__(self) -> None:
        self._counts = np.zeros(self._BUCKETS, np.int64)
        self._sum = 0.0
        self.max = 0.0
        self.n = 0

    def add(self, value: float) -> None:
        """Take one number; what is not positive counts as the smallest."""
        bucket = round(math.log(max(value, self._SMALLEST) / self._SMALLEST, self._GROWTH))
        self._counts[min(bucket, self._BUCKETS - 1)] += 1
        self._sum += value
        self.max = max(self.max, value)
        self.n += 1

    @property
    def mean(self) -> float:
        """Arithmetic mean."""
        return self._sum / self.n

    def percentiles(self) -> dict[str, float]:
        """Return p50, p95, p99, p99.9 and max."""
        reached = np.cumsum(self._counts)
        found = {}
        for name, q in PERCENTILES.items():
            bucket = int(np.searchsorted(reached, max(1, math.ceil(self.n * q / 100))))
            found[name] = min(self._SMALLEST * self._GROWTH**bucket, self.max)
        return {**found, "max": self.max}


class Collector:
    """Follows a rig's streams and keeps what a report needs, in bounded memory.

    Parameters
    ----------
    rig : Rig
    skeleton : Skeleton
        Of the model.
    run : str
        Id of the run to follow: another rig may have the ports still, or already.

    Attributes
    ----------
    lost : int
        Poses that the collector itself missed.
    """

    def __init__(self, rig: Rig, skeleton: Skeleton, run: str) -> None:
        stream = rig.stream
        key_file = stream.curve_secret_key_file
        self._subscriber = Subscriber(
            [stream.local_endpoint(port) for port in (stream.pose_port, stream.event_port)],
            [f"pose.{rig.camera.name}", "event", "ack"],
            None if key_file is None else public_key(Path(key_file)),
            queue_messages=0,
        )
        self._truth = _truth(rig, skeleton)
        self._run = run
        self._stages = {name: Histogram() for name in (*_POSE_STAGES, *_FIRE_STAGES, *_ACK_STAGES)}
        self._errors_px = Histogram()
        self._fired_from_ns: dict[int, int] = {}
        self._last_seq = -1
        self.lost = 0

    def drain(self) -> None:
        """Take in everything that came."""
        while (message := self._subscriber.receive(0.0)) is not None:
            if isinstance(message, Pose | TriggerEvent | Ack) and message.run == self._run:
                self._take(message)

    def _take(self, message: Pose | TriggerEvent | Ack) -> None:
        if isinstance(message, Pose):
            self._take_pose(message)
        elif isinstance(message, TriggerEvent):
            self._take_event(message)
        else:
            self._take_ack(message)

    def _take_pose(self, pose: Pose) -> None:
        self.lost += max(0, pose.seq - self._last_seq - 1)
        self._last_seq = pose.seq
        self._measure(pose, _POSE_STAGES)
        if self._truth is not None:
            valid = pose.valid[0].astype(bool)
            offsets = pose.keypoints[0, valid, :2] - self._truth(pose.frame_id)[valid]
            for x, y in offsets:
                self._errors_px.add(math.hypot(x, y))

    def _take_event(self, event: TriggerEvent) -> None:
        if event.kind == "fire" and event.command is not None and event.arrival_ns is not None:
            self._measure(event, _FIRE_STAGES)
            self._fired_from_ns[event.command.command_id] = event.arrival_ns
            if len(self._fired_from_ns) > _MOST_UNANSWERED:  # an output that never answers
                del self._fired_from_ns[next(iter(self._fired_from_ns))]

    def _take_ack(self, ack: Ack) -> None:
        arrival_ns = self._fired_from_ns.pop(ack.command_id, None)
        if ack.ok and ack.confirmed:
            self._stages["command_to_ack"].add((ack.ack_ns - ack.command_ns) / 1000)
            if arrival_ns is not None:
                self._stages["arrival_to_ack"].add((ack.ack_ns - arrival_ns) / 1000)

    def _measure(self, message: Pose | TriggerEvent, stages: Mapping[str, tuple[str, str]]) -> None:
        for name, (start, end) in stages.items():
            start_ns, end_ns = getattr(message, start), getattr(message, end)
            if start_ns is not None and end_ns is not None:
                self._stages[name].add((end_ns - start_ns) / 1000)

    def latency_us(self) -> dict[str, dict[str, float]]:
        """Return p50, p95, p99, p99.9, max and n of every stage that was seen, in microseconds."""
        return {
            name: {**stage.percentiles(), "n": stage.n}
            for name, stage in self._stages.items()
            if stage.n
        }

    def error_px(self) -> dict[str, float] | None:
        """Return the distance to the known truth, or None where there is none."""
        errors = self._errors_px
        return {"mean": errors.mean, **errors.percentiles(), "n": errors.n} if errors.n else None

    def close(self) -> None:
        """Stop following."""
        self._subscriber.close()


def _truth(rig: Rig, skeleton: Skeleton) -> Callable[[int], NDArray[np.float64]] | None:
    """Return where the keypoints of a frame really are, if the camera is the synthetic one."""
    settings = rig.camera.settings
    if not isinstance(settings, SyntheticConfig):
        return None
    arena = settings.arena()
    if not set(skeleton.names) <= set(arena.skeleton.names):
        return None
    order = [arena.skeleton.index(name) for name in skeleton.names]
    return lambda frame_id: arena.keypoints(frame_id)[order]


def build(
    collector: Collector,
    counters: Mapping[str, Mapping[str, int]],
    info: Mapping[str, Mapping[str, Any]],
    rig: Rig,
    run: str,
    problems: Iterable[str],
) -> dict[str, Any]:
    """Return the report of a run as plain data, as ``--json`` writes it."""
    inference, control = counters.get("inference", {}), counters.get("control", {})
    report: dict[str, Any] = {
        "run": run,
        "rig": rig.source.name,
        "frames": counters.get("capture", {}).get("frames", 0),
        "camera_gaps": counters.get("capture", {}).get("camera_gaps", 0),
        "poses": inference.get("poses", 0),
        "dropped": inference.get("dropped", 0),
        "torn": inference.get("torn", 0),
        "events": control.get("events", 0),
        "fires": control.get("fires", 0),
        "withheld": control.get("withheld", 0),
        "acks": control.get("acks", 0),
        "unconfirmed": control.get("unconfirmed", 0),
        "overruns": control.get("overruns", 0),
        "refusals": control.get("refusals", 0),
        "refused_by_output": control.get("refused_by_output", 0),
        "malformed": control.get("malformed", 0),
        "budget_ms": rig.latency.budget_ms,
        "latency_us": collector.latency_us(),
        "error_px": collector.error_px(),
        "missed_by_report": collector.lost,
        "outputs": info.get("control", {}).get("outputs", {}),
        "model": info.get("inference", {}).get("model"),
        "provider": info.get("inference", {}).get("provider"),
        "notes": sorted({note for part in info.values() for note in part.get("notes", ())}),
        "problems": list(problems),
    }
    return report


def render(report: Mapping[str, Any]) -> Group:
    """Return a report as tables for a terminal."""
    return Group(*([latency(report)] if report["latency_us"] else []), counts(report))


def latency(report: Mapping[str, Any]) -> Table:
    """Return the percentiles of every stage as a table."""
    table = Table(title="latency of every stage, in microseconds", title_justify="left")
    table.add_column("stage")
    for name in (*PERCENTILES, "n"):
        table.add_column(name, justify="right")
    for stage, row in report["latency_us"].items():
        table.add_row(
            stage.replace("_", " "), *(f"{row[name]:,.0f}" for name in (*PERCENTILES, "n"))
        )
    return table


def counts(report: Mapping[str, Any]) -> Table:
    """Return what happened, how often, and what went wrong, as a table."""
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_column()
    table.add_column(overflow="fold")  # a path is not cut off
    for label, value in _counts(report):
        table.add_row(label, escape(value))
    return table


def _counts(report: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    yield (
        "frames",
        f"{report['frames']} ({report['dropped']} dropped, {report['camera_gaps']} lost by the "
        f"camera, {report['torn']} torn and discarded)",
    )
    yield "poses", str(report["poses"])
    happened = [f"{report['fires']} fires"]
    if report["withheld"]:
        happened.append(f"{report['withheld']} withheld by design")
    happened.append(f"{report['acks']} acknowledged commands")
    if report["unconfirmed"]:
        happened.append(f"{report['unconfirmed']} that nothing confirmed")
    happened.append(f"{report['refusals']} refused, {report['refused_by_output']} by the output")
    yield "events", f"{report['events']} ({', '.join(happened)})"
    yield "overruns", f"{report['overruns']} of budget {report['budget_ms']:g} ms"
    if report["error_px"]:
        error = report["error_px"]
        yield (
            "error",
            f"mean {error['mean']:.2f}, p95 {error['p95']:.2f}, max {error['max']:.2f} px",
        )
    for name, output in report["outputs"].items():
        yield f"output {name}", str(output["device"])
    for note in report["notes"]:
        yield "note", note
    for problem in report["problems"]:
        yield "PROBLEM", problem
