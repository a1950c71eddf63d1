"""Break a running rig in every way, many times, and judge what it left behind: ``make faults``.

Every run is drawn from its own seed: ``--only SEED`` repeats it. The table has, per kind of fault,
the runs, how late a line fell at most after the last frame and the watchdog's period (in cycles of
62.5 ns; the promise is 16,000), and what is wrong. Exit code 1 if anything is; the folders of such
runs are kept.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from fault_judge import Verdict, judge
from fault_kinds import KINDS
from fault_plan import Plan, make_plan
from fault_rig import EMULATOR, FIRMWARE, carry_out, may_mount
from rich.console import Console
from rich.table import Table

_ATTEMPTS: Final = 3
_OUT: Final = Console(highlight=False, width=160)


def run_one(plan: Plan, root: Path) -> Verdict:
    """Carry out and judge one run; keep its folder if anything is wrong.

    One in which nothing could be judged, as it happens on a machine that is far too busy, is
    carried out again.
    """
    for attempt in range(_ATTEMPTS):
        verdict = _run_once(plan, root / f"{plan.name}{'-again' * attempt}")
        verdict.attempts = attempt + 1
        if not verdict.void:
            break
    return verdict


def _run_once(plan: Plan, folder: Path) -> Verdict:
    try:
        verdict = judge(carry_out(plan, folder))
    except RuntimeError as error:
        verdict = Verdict(plan.name, tuple(kind.name for kind in plan.kinds), plan.seed)
        verdict.violations.append(str(error))
        verdict.void = True
    if verdict.violations:
        (folder / "verdict.json").write_text(json.dumps(verdict.to_dict(), indent=2))
    else:
        shutil.rmtree(folder)
    return verdict


def table(verdicts: Iterable[Verdict]) -> Table:
    """Return the verdicts as a table, one row per kind of fault."""
    rows: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        rows.setdefault(" + ".join(verdict.kinds[:1]), []).append(verdict)
    shown = Table(title="fault runs", title_justify="left")
    shown.add_column("fault")
    for name in ("runs", "of these two faults", "fell late", "beyond max_on", "commands"):
        shown.add_column(name, justify="right")
    for name in (
        "events",
        "cut off",
        "stalled",
        "again",
        "unaccounted",
        "wrong record",
        "violations",
    ):
        shown.add_column(name, justify="right")
    for kind in [*sorted(rows), ""]:
        some = rows[kind] if kind else [v for row in rows.values() for v in row]
        shown.add_row(kind or "all", *_cells(some), style="bold" if not kind else "")
    return shown


def _cells(some: Sequence[Verdict]) -> list[str]:
    def worst(values: Iterable[int | None]) -> str:
        known = [value for value in values if value is not None]
        return f"{max(known):,}" if known else "-"

    return [
        str(len(some)),
        str(sum(len(v.kinds) > 1 for v in some)),
        worst(v.watchdog_cycles for v in some),
        worst(v.width_cycles for v in some),
        f"{sum(v.commands for v in some):,}",
        f"{sum(v.events for v in some):,}",
        str(max(v.cut_off for v in some)),
        str(sum(v.stalled for v in some)),
        str(sum(v.attempts - 1 for v in some)),
        str(sum(v.unaccounted for v in some)),
        str(sum(v.wrong_record for v in some)),
        str(sum(len(v.violations) for v in some)),
    ]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1, help="of the first run; the others follow")
    parser.add_argument("--only", type=int, metavar="SEED", help="repeat this run alone")
    parser.add_argument("--kind", choices=sorted(KINDS), help="this kind of fault, and no second")
    parser.add_argument("--jobs", type=int, default=2, choices=(1, 2))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every verdict here")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="for the runs' folders")
    return parser.parse_args()


def _plans(options: argparse.Namespace, root: Path) -> list[Plan]:
    """Return the runs, without those that cannot be made here, which is said."""
    seeds = (
        [options.only]
        if options.only is not None
        else range(options.seed, options.seed + options.runs)
    )
    plans = [make_plan(seed, options.kind) for seed in seeds]
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as folder:
        why = may_mount(Path(folder))
    if why:
        left_out = [plan.name for plan in plans if plan.needs("-disk")]
        _OUT.print(f"not run, because this user may not mount a disk ({why}): {left_out}")
        plans = [plan for plan in plans if plan.name not in left_out]
    return plans


def main() -> int:
    """Run what the options ask for; return the exit code."""
    options = _options()
    for what in (EMULATOR, FIRMWARE):
        if not what.is_file():
            _OUT.print(f"{what} is missing; type: make hardware")
            return 2
    root = options.keep or Path(tempfile.mkdtemp(prefix="rtpose-faults-"))
    plans = _plans(options, root)
    verdicts: list[Verdict] = []
    pool = ThreadPoolExecutor(options.jobs)
    try:
        for verdict in pool.map(lambda plan: run_one(plan, root), plans):
            verdicts.append(verdict)
            _OUT.print(f"{len(verdicts):4d}/{len(plans)}  {verdict.name}")
            for violation in verdict.violations:
                _OUT.print(f"           VIOLATION {violation}", markup=False, soft_wrap=True)
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C waits for the runs that are going on
    _OUT.print(table(verdicts))
    if options.json:
        data = [verdict.to_dict() for verdict in verdicts]
        options.json.write_text(json.dumps(data, indent=2) + "\n")
    bad = [verdict.name for verdict in verdicts if verdict.violations]
    if bad:
        _OUT.print(f"kept in {root}: {', '.join(bad)}", markup=False, soft_wrap=True)
        return 1
    root.rmdir()
    return 0


if __name__ == "__main__":
    sys.exit(main())
