"""`rtpose replay`: a recorded run through the engine again."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from rtpose.cli.console import OUT, JsonFile, check_writable, say, write_json
from rtpose.comparison import Difference, TriggerRow, by_trigger, differences
from rtpose.config import load_rig
from rtpose.messages import TriggerEvent
from rtpose.replay import Replayed, replay
from rtpose.run_folder import RunRecord, read_run

#: Differences, and frames in a cell, that are shown; the report for programs has all.
_SHOWN = 10

RunFolder = Annotated[
    Path, typer.Argument(help="The folder of one run, as rtpose run prints it.", show_default=False)
]
OtherRig = Annotated[
    Path | None, typer.Option("--rig", help="Try this rig on the recorded poses and requests.")
]


def replay_command(run_folder: RunFolder, rig: OtherRig = None, json_file: JsonFile = None) -> None:
    """Run a recorded run again, to the same events, or through another rig.

    Nothing is sent to any device. Without --rig, exit 0 says that every event came out the same.
    With --rig, what each trigger did is set beside what it would have done; the animal and the
    clients do what they did.
    """
    check_writable(json_file)
    record = read_run(run_folder)
    if rig is None:
        _same_rig(record, json_file)
    else:
        _other_rig(record, rig, json_file)


def _same_rig(record: RunRecord, json_file: Path | None) -> None:
    result = replay(record)
    found = differences(result.recorded, result.replayed)
    if json_file is not None:
        rows = [{"record": _dumped(one.recorded), "replay": _dumped(one.replayed)} for one in found]
        report = {"identical": not found, "events": len(result.recorded), "differences": rows}
        write_json(json_file, _about(record, result) | report)
    _print_notes(result.notes)
    if not found:
        say(f"{len(result.recorded)} events identical, over {result.poses} poses")
        return
    OUT.print(_differences(found, record))
    raise typer.Exit(1)


def _other_rig(record: RunRecord, path: Path, json_file: Path | None) -> None:
    result = replay(record, load_rig(path))
    rows = list(by_trigger(result.recorded, result.replayed))
    if json_file is not None:
        report = {
            "rig": str(path),
            "events_in_record": len(result.recorded),
            "events_in_replay": len(result.replayed),
            "triggers": [asdict(row) for row in rows],
        }
        write_json(json_file, _about(record, result) | report)
    _print_notes(result.notes)
    OUT.print(_triggers(rows, result.poses))


def _about(record: RunRecord, result: Replayed) -> dict[str, Any]:
    return {"run": record.run, "poses": result.poses, "notes": list(result.notes)}


def _dumped(event: TriggerEvent | None) -> dict[str, Any] | None:
    return None if event is None else event.model_dump()


def _print_notes(notes: Sequence[str]) -> None:
    for words in notes:
        say(f"note: {words}")


def _triggers(rows: Sequence[TriggerRow], poses: int) -> Table:
    table = Table(title=f"over {poses} poses", title_justify="left")
    table.add_column("trigger")
    table.add_column("event")
    for column in ("in the record", "in the replay", "in both"):
        table.add_column(column, justify="right")
    table.add_column("frames only in the record")
    table.add_column("frames only in the replay")
    for row in rows:
        counts = (str(n) for n in (row.recorded, row.replayed, row.common))
        only = (_frames(row.only_recorded), _frames(row.only_replayed))
        table.add_row(row.trigger, row.kind, *counts, *only)
    return table


def _frames(frames: Sequence[int]) -> str:
    more = f" and {len(frames) - _SHOWN} more" if len(frames) > _SHOWN else ""
    return " ".join(map(str, frames[:_SHOWN])) + more


def _differences(found: Sequence[Difference], record: RunRecord) -> Table:
    start_ns = record.events[0].decide_ns if record.events else 0
    more = f", the first {_SHOWN} of" if len(found) > _SHOWN else ""
    table = Table(
        "in the record",
        "in the replay",
        title=f"NOT identical{more}: {len(found)} differences",
        title_justify="left",
        show_lines=True,
    )
    for one in found[:_SHOWN]:
        table.add_row(*map(Text, _side_by_side(one, start_ns)))
    return table


def _side_by_side(one: Difference, start_ns: int) -> tuple[str, str]:
    """Return an event as both sides have it: what it is, and the fields that differ."""
    recorded, replayed = _dumped(one.recorded), _dumped(one.replayed)
    if one.recorded is None or one.replayed is None or recorded is None or replayed is None:
        return _said(one.recorded, start_ns), _said(one.replayed, start_ns)
    fields = [key for key in recorded if recorded[key] != replayed[key]]
    sides = ((one.recorded, recorded), (one.replayed, replayed))
    first, second = (
        "\n".join([_said(event, start_ns), *(f"{key} = {fields_of[key]}" for key in fields)])
        for event, fields_of in sides
    )
    return first, second


def _said(event: TriggerEvent | None, start_ns: int) -> str:
    if event is None:
        return "-"
    trigger = f" {event.trigger}" if event.trigger else ""
    frame = "" if event.frame_id is None else f", frame {event.frame_id}"
    at_s = (event.decide_ns - start_ns) / 1e9
    return f"#{event.seq} at {at_s:.6f} s: {event.kind}{trigger}{frame}\n{event.detail}"


def add_to(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(name="replay")(replay_command)
