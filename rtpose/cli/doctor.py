"""`rtpose doctor`."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from rtpose import doctor as diagnosis
from rtpose.cli.console import OUT, hardware
from rtpose.finding import Finding

_STYLES = {"good": "green", "warning": "yellow", "problem": "red"}


def doctor(
    port: Annotated[
        list[str] | None,
        typer.Option(help="Also open this serial port and ask what is on it; resets an Arduino."),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder that recordings go to.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Look at everything that a rig needs here, and say what to do about what is missing.

    Opens and thereby resets each Arduino Uno that no rig uses. Exit code 1 if there is a problem.
    """
    with OUT.status("looking (cameras and a GPU take some seconds)"):
        findings = [*diagnosis.look(runs), *hardware("doctor").look(port or [])]
    problems = sum(finding.grade == "problem" for finding in findings)
    if as_json:
        shown = [asdict(finding) for finding in findings]
        OUT.print_json(json.dumps({"problems": problems, "findings": shown}))
    else:
        OUT.print(_table(findings))
    if problems:
        raise typer.Exit(1)


def _table(findings: Sequence[Finding]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in ("grade", "topic", "found"):
        table.add_column(overflow="fold")  # a path is not cut off
    for finding in findings:
        style = _STYLES[finding.grade]
        advice = f"\n[{style}]{escape(finding.advice)}[/]" if finding.advice else ""
        table.add_row(
            f"[{style}]{finding.grade}[/]", escape(finding.topic), escape(finding.found) + advice
        )
    return table


def add_to(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command()(doctor)
