"""`rtpose check`: everything that is wrong in a rig file, at once."""

import json
from typing import Annotated, Final

import typer

from rtpose.cli.console import OUT, RigFile, say
from rtpose.config import load_rig
from rtpose.estimator import Estimator
from rtpose.supervisor import check, model_path

#: Frame rates for which the delay of filters is stated.
_RATES_HZ: Final = (30.0, 100.0)


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


def add_to(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(name="check")(check_command)
