"""The command line: verbs that a user would say."""

import contextlib
import json
import sys
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from rtpose import plugins, report
from rtpose.cli import steer
from rtpose.cli.console import OUT, JsonFile, check_writable, say, write_json
from rtpose.cli.doctor import doctor
from rtpose.cli.evaluate import evaluate
from rtpose.cli.export import export
from rtpose.cli.flash import flash
from rtpose.cli.keys import WHAT_KEYS_DO, StopKey
from rtpose.cli.list import list_command
from rtpose.cli.replay import replay_command
from rtpose.cli.steer import DEFAULT_PORT, Host, ServerKey
from rtpose.cli.train import train
from rtpose.client import NamedPose, PoseStream
from rtpose.clock import now_ns
from rtpose.config import load_rig
from rtpose.errors import (
    InputError,
    NoReplyError,
    OutputError,
    RtposeError,
)
from rtpose.estimator import Estimator
from rtpose.interfaces import Output
from rtpose.recorder import RecorderTask
from rtpose.rig import OutputEntry, Rig
from rtpose.rig_tables import OutputCommon
from rtpose.supervisor import Supervisor, check, model_path

app = typer.Typer(
    help="Real-time animal pose for closed-loop experiments.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_err = Console(stderr=True)

RigFile = Annotated[Path, typer.Argument(help="The rig.toml to use.", show_default=False)]
Seconds = Annotated[
    float | None, typer.Option(help="End after this many seconds.", min=0.1, max=1e6)
]
SaveFile = Annotated[Path | None, typer.Option("--save", help="Write an annotated video (.mp4).")]
SnapshotFile = Annotated[
    Path | None, typer.Option("--snapshot", help="Write an annotated picture (.png).")
]
_DEMO_RIG = Path(__file__).parents[1] / "demo" / "rig.toml"
_REFRESH_NS = 200_000_000
#: Frame rates for which `rtpose check` states the delay of filters.
_RATES_HZ = (30.0, 100.0)


def main() -> None:
    """Run the command line; exit 0 done, 1 the work failed, 2 wrong input."""
    try:
        app()
    except RtposeError as error:
        _err.print(f"rtpose: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)


# ------------------------------------------------------------------------------------ run a rig


@app.command()
def demo(
    seconds: Annotated[float, typer.Option(help="How long.", min=1.0, max=1e6)] = 30.0,
    json_file: JsonFile = None,
    save: SaveFile = None,
    snapshot: SnapshotFile = None,
) -> None:
    """Run a whole closed loop without any hardware, and report every stage's latency."""
    rig = load_rig(_DEMO_RIG)
    here = rig.recording.model_copy(update={"folder": str(Path.cwd() / "runs")})
    rig = replace(rig, recording=here, outputs=_board_or_virtual(rig))
    _run(rig, seconds, json_file, RecorderTask(save, snapshot), arm=True)


def _board_or_virtual(rig: Rig) -> dict[str, OutputEntry]:
    """Return the demo's outputs, in software where its emulated board is not built."""
    outputs = {}
    for name, entry in rig.outputs.items():
        board = entry.plugin(entry.settings)
        try:
            board.open()
            outputs[name] = entry
        except (OutputError, InputError) as error:
            words = f"output {name!r} in software: {error}"
            _err.print(words, markup=False, highlight=False, soft_wrap=True)
            plugin = cast("type[Output]", plugins.load("outputs", "virtual"))
            shared = entry.settings.model_dump(include=set(plugin.Config.model_fields))
            settings = plugin.Config.model_validate(shared)
            outputs[name] = OutputEntry(name, OutputCommon(type="virtual"), plugin, settings)
        finally:
            board.close()
    return outputs


@app.command()
def run(
    rig_file: RigFile,
    seconds: Seconds = None,
    arm: Annotated[bool, typer.Option("--arm", help="Arm the outputs once ready.")] = False,
    json_file: JsonFile = None,
    save: SaveFile = None,
    snapshot: SnapshotFile = None,
) -> None:
    """Run a rig until its camera ends, or Ctrl-C. Outputs stay inert until armed.

    In a terminal the space bar is an emergency stop.
    """
    _run(load_rig(rig_file), seconds, json_file, RecorderTask(save, snapshot), arm=arm)


def _run(
    rig: Rig, seconds: float | None, json_file: Path | None, task: RecorderTask, *, arm: bool
) -> None:
    check_writable(json_file, task.video, task.snapshot)
    recording = task if task.video or task.snapshot else None
    supervisor = Supervisor(rig, recording)
    collector = report.Collector(rig, supervisor.card.keypoints(), supervisor.run)
    try:
        with contextlib.ExitStack() as stack:
            key = stack.enter_context(StopKey(supervisor.emergency_stop))
            if key.active and not OUT.is_terminal:
                _err.print(WHAT_KEYS_DO, highlight=False)
            with OUT.status("starting (the first start on a machine compiles its kernels)"):
                stack.enter_context(supervisor)
                if arm:
                    supervisor.arm()
            _follow(supervisor, collector, seconds, WHAT_KEYS_DO if key.active else "")
        collector.drain()
    finally:
        collector.close()
        final = report.build(
            collector,
            supervisor.status(),
            supervisor.info(),
            rig,
            supervisor.run,
            supervisor.problems,
        )
        OUT.print(report.render(final))
        say(f"run folder: {supervisor.folder}")
        if json_file is not None:
            write_json(json_file, final)
    supervisor.raise_for_problems()


def _follow(
    supervisor: Supervisor, collector: report.Collector, seconds: float | None, keys: str
) -> None:
    end_ns = None if seconds is None else now_ns() + round(seconds * 1e9)
    next_look_ns = 0
    with Live(console=OUT, transient=True, auto_refresh=False) as live:
        while not supervisor.stopping and (end_ns is None or now_ns() < end_ns):
            supervisor.step(0.05)
            collector.drain()
            if OUT.is_terminal and now_ns() >= next_look_ns:
                next_look_ns = now_ns() + _REFRESH_NS
                found = _interim(supervisor, collector)
                # What matters most comes first: a small screen cuts off the end.
                shown = (_state(supervisor), keys, report.counts(found), report.latency(found))
                live.update(Group(*shown), refresh=True)


def _state(supervisor: Supervisor) -> Text:
    """Return what may happen now, and after an emergency stop how to go on."""
    state = supervisor.state
    if state != "stopped":
        return Text(f"the rig is {state or 'starting'}")
    port = supervisor.rig.stream.command_port
    option = "" if port == DEFAULT_PORT else f" --port {port}"
    words = (
        "EMERGENCY STOP: every output is safe, and stays so. "
        f"To go on, type elsewhere: rtpose release{option}, then rtpose arm{option}"
    )
    return Text(words, style="bold red")


def _interim(supervisor: Supervisor, collector: report.Collector) -> dict[str, Any]:
    return report.build(
        collector,
        supervisor.status(),
        supervisor.info(),
        supervisor.rig,
        supervisor.run,
        supervisor.problems,
    )


# ------------------------------------------------------------------------------- look and check


@app.command(name="check")
def check_command(
    rig_file: RigFile,
    defaults: Annotated[
        bool, typer.Option("--defaults", help="Print every setting, defaults filled in.")
    ] = False,
) -> None:
    """Check a rig file: every problem at once, each with its key, value and what is allowed."""
    rig = load_rig(rig_file)
    card = check(rig)
    if defaults:
        OUT.print_json(json.dumps(rig.to_dict()))
        return
    say(f"{rig_file}: good")
    say(
        f"model {card.name} ({card.input.width_px}x{card.input.height_px}, "
        f"keypoints {', '.join(card.keypoints().names)}), from {model_path(rig)}"
    )
    for name, entry in rig.triggers.items():
        trigger = entry.build(card.keypoints(), rig.arena.scale)
        delays = " or ".join(f"{trigger.delay_ms(hz):.1f} ms at {hz:g} Hz" for hz in _RATES_HZ)
        if trigger.delay_ms(_RATES_HZ[0]):
            say(f"trigger {name}: its filter delays it by {delays}")
    table = rig.model
    estimator = Estimator(
        model_path(rig), frame=card.input.shape[1:], provider=table.provider, threads=table.threads
    )
    say(f"golden frames on {table.provider}: {estimator.verify():.0%} of the allowed difference")


@app.command()
def watch(
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The rig's stream.pose_port.")] = 5560,
    count: Annotated[int | None, typer.Option(help="End after this many poses.", min=1)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line per pose.")] = False,
    server_key: ServerKey = None,
) -> None:
    """Show the poses of a running rig."""
    with PoseStream(f"tcp://{host}:{port}", server_key_file=server_key) as stream:
        seen = 0
        while count is None or seen < count:
            pose = stream.receive(timeout_s=3.0)
            if pose is None:
                raise NoReplyError(
                    f"no pose from {host}:{port} for 3 s: is the rig running there, and is this "
                    "its pose_port, and its key if it has one?"
                )
            seen += 1
            sys.stdout.write(_pose_line(pose, stream, as_json) + "\n")
            sys.stdout.flush()  # a program that reads it wants each pose when it comes


def _pose_line(pose: NamedPose, stream: PoseStream, as_json: bool) -> str:
    points = {name: pose[name] for name in pose.skeleton.names}
    if as_json:
        return json.dumps(
            {
                "frame_id": pose.frame_id,
                "age_ms": round(pose.age_ms, 3),
                "lost": stream.lost,
                "restarts": stream.restarts,
                "keypoints": {
                    name: [*(v if isfinite(v) else None for v in (p.x_px, p.y_px)), p.confidence]
                    for name, p in points.items()
                    if p.valid
                },
            }
        )
    shown = "  ".join(
        f"{name} {p.x_px:6.1f} {p.y_px:6.1f}" if p.valid else f"{name}      -      -"
        for name, p in points.items()
    )
    return f"{pose.frame_id:8d}  {pose.age_ms:6.2f} ms  {shown}  lost {stream.lost}"


# -------------------------------------------------------------------------------------- the rest


steer.add_to(app)
app.command(name="list")(list_command)
app.command(name="replay")(replay_command)
app.command()(flash)
app.command()(doctor)
for _verb_of_models in (train, evaluate, export):
    app.command()(_verb_of_models)
