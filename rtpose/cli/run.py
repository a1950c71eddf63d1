"""`rtpose run` and `rtpose demo`: a rig from start to end, its figures live and as a report."""

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final, cast

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from rtpose import plugins, report
from rtpose.cli.console import ERROR, OUT, JsonFile, RigFile, check_writable, say, write_json
from rtpose.cli.keys import WHAT_KEYS_DO, StopKey
from rtpose.cli.steer import DEFAULT_PORT
from rtpose.clock import now_ns
from rtpose.config import load_rig
from rtpose.errors import InputError, OutputError
from rtpose.interfaces import Output
from rtpose.recorder import RecorderTask
from rtpose.rig import OutputEntry, Rig
from rtpose.rig_tables import OutputCommon
from rtpose.supervisor import Supervisor

Seconds = Annotated[
    float | None, typer.Option(help="End after this many seconds.", min=0.1, max=1e6)
]
SaveFile = Annotated[Path | None, typer.Option("--save", help="Write an annotated video (.mp4).")]
SnapshotFile = Annotated[
    Path | None, typer.Option("--snapshot", help="Write an annotated picture (.png).")
]
_DEMO_RIG: Final = Path(__file__).parents[1] / "demo" / "rig.toml"
_REFRESH_NS: Final = 200_000_000


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
            ERROR.print(words, markup=False, highlight=False, soft_wrap=True)
            plugin = cast("type[Output]", plugins.load("outputs", "virtual"))
            shared = entry.settings.model_dump(include=set(plugin.Config.model_fields))
            settings = plugin.Config.model_validate(shared)
            outputs[name] = OutputEntry(name, OutputCommon(type="virtual"), plugin, settings)
        finally:
            board.close()
    return outputs


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
                ERROR.print(WHAT_KEYS_DO, highlight=False)
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


def add_to(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command()(demo)
    app.command()(run)
