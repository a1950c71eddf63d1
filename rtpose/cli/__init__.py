"""The command line: verbs that a user would say."""

import sys
from importlib import import_module
from typing import Final

import typer

from rtpose.errors import RtposeError

#: The module of each verb, in the order of the help.
_VERBS: Final = {
    "demo": "run",
    "run": "run",
    "check": "check",
    "watch": "watch",
    "status": "steer",
    "arm": "steer",
    "disarm": "steer",
    "estop": "steer",
    "release": "steer",
    "trial": "steer",
    "end-trial": "steer",
    "stop": "steer",
    "fire": "steer",
    "set": "steer",
    "list": "list",
    "replay": "replay",
    "flash": "flash",
    "doctor": "doctor",
    "train": "train",
    "evaluate": "evaluate",
    "export": "export",
}


def main() -> None:
    """Run the command line; exit 0 done, 1 the work failed, 2 wrong input."""
    try:
        command_line(*sys.argv[1:2])()
    except RtposeError as error:
        from rtpose.cli.console import ERROR

        ERROR.print(f"rtpose: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)


def command_line(verb: str = "") -> typer.Typer:
    """Return the command line; where the verb is known already, with no others.

    Only what the verb needs is imported then: an emergency stop does not wait for what a camera, a
    network and a video would take.
    """
    app = typer.Typer(
        help="Real-time animal pose for closed-loop experiments.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(lambda: None)  # even with a single verb, that has to be named
    for module in dict.fromkeys([_VERBS[verb]] if verb in _VERBS else _VERBS.values()):
        import_module(f"rtpose.cli.{module}").add_to(app)
    return app
