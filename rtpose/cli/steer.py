"""The verbs that steer a running rig, each one request to it."""

import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Final

import typer

from rtpose.cli.console import OUT, say
from rtpose.client import Commands
from rtpose.errors import InputError, NotReadyError, RefusedError
from rtpose.messages import Reply

Host = Annotated[str, typer.Option(help="Where the rig runs.")]
CommandPort = Annotated[int, typer.Option(help="The rig's stream.command_port.")]
ServerKey = Annotated[
    Path | None, typer.Option("--server-key", help="The rig's public ZeroMQ certificate.")
]
TimeoutS = Annotated[
    float, typer.Option(help="How long to wait for the rig's answer.", min=0.1, max=600)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the rig's answer for programs.")]

DEFAULT_PORT: Final = 5562

#: What the user reads after the rig's new state.
_THEN: Final = {
    "estop": "every output is safe, and stays so until: rtpose release, then rtpose arm",
    "release": "rtpose arm lets triggers reach the outputs again",
}


def _ask(
    verb: str,
    call: Callable[[Commands], Reply],
    where: tuple[str, int, Path | None, float],
    *,
    as_json: bool,
) -> None:
    host, port, server_key, timeout_s = where
    with Commands(
        f"tcp://{host}:{port}", server_key_file=server_key, timeout_s=timeout_s
    ) as commands:
        reply = call(commands)
    if as_json:
        OUT.print_json(reply.model_dump_json())
    elif reply.ok:
        for line in _words(verb, reply):
            say(line)
    if not reply.ok:
        raise (
            NotReadyError(reply.reasons)
            if verb == "arm"
            else RefusedError(f"{verb}: refused; the rig is {reply.state}", reply.reasons)
        )


def _words(verb: str, reply: Reply) -> Iterator[str]:
    """Yield what a user reads about something that was done."""
    if verb == "status":
        hindered = "; arming would be refused:" if reply.reasons else ""
        yield f"the rig is {reply.state}{hindered}"
        yield from (f"  - {reason}" for reason in reply.reasons)
        return
    yield f"{verb}: done; the rig is {reply.state}"
    if verb in _THEN:
        yield _THEN[verb]


def _plain(verb: str, call: Callable[[Commands], Reply]) -> Callable[..., None]:
    def command(
        host: Host = "127.0.0.1",
        port: CommandPort = DEFAULT_PORT,
        server_key: ServerKey = None,
        timeout_s: TimeoutS = 3.0,
        as_json: AsJson = False,
    ) -> None:
        _ask(verb, call, (host, port, server_key, timeout_s), as_json=as_json)

    return command


_PLAIN: Final[dict[str, tuple[Callable[[Commands], Reply], str]]] = {
    "status": (Commands.status, "Say whether a rig is armed, and what would hinder arming."),
    "arm": (
        Commands.arm,
        "Let a running rig's triggers reach its outputs; refused while anything is not ready.",
    ),
    "disarm": (Commands.disarm, "Make every output of a running rig safe, and keep it so."),
    "estop": (
        Commands.emergency_stop,
        "Emergency stop: make every output safe, and refuse arming until `rtpose release`.",
    ),
    "release": (Commands.release, "Allow arming again after an emergency stop."),
    "trial": (Commands.start_trial, "Begin the next trial of a running rig."),
    "end-trial": (Commands.end_trial, "End the trial: nothing acts until the next one."),
    "stop": (Commands.stop, "Make every output of a running rig safe and end it."),
}


def fire(
    line: Annotated[str, typer.Argument(metavar="OUTPUT.LINE", help="Which line of the rig.")],
    width_ms: Annotated[float, typer.Argument(metavar="MS", help="Width of the pulse, in ms.")],
    host: Host = "127.0.0.1",
    port: CommandPort = DEFAULT_PORT,
    server_key: ServerKey = None,
    timeout_s: TimeoutS = 3.0,
    as_json: AsJson = False,
) -> None:
    """Give one pulse on a line of a running, armed rig, within the line's limits."""
    where = (host, port, server_key, timeout_s)
    _ask("fire", lambda commands: commands.fire(line, width_ms), where, as_json=as_json)


def set_parameter(
    trigger: Annotated[str, typer.Argument(help="A trigger's name in the rig file.")],
    key: Annotated[str, typer.Argument(help="One of the settings of its type.")],
    value: Annotated[
        str, typer.Argument(help="As in the rig file: 250.0, true, [1, 2], '\"enter\"'; or null.")
    ],
    host: Host = "127.0.0.1",
    port: CommandPort = DEFAULT_PORT,
    server_key: ServerKey = None,
    timeout_s: TimeoutS = 3.0,
    as_json: AsJson = False,
) -> None:
    """Change a setting of a trigger of a running rig, until the run ends."""
    setting = _value(value)
    where = (host, port, server_key, timeout_s)
    _ask("set", lambda c: c.set_parameter(trigger, key, setting), where, as_json=as_json)


def _value(text: str) -> object:
    """Return what a rig file would say with a value, or None for ``null``."""
    if text == "null":
        return None
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError as error:
        raise InputError(
            f"VALUE {text!r} is not TOML: {error}; text needs quotes that the shell leaves: "
            "'\"enter\"'"
        ) from error
    if set(table) != {"value"}:
        raise InputError(f"VALUE {text!r} is more than one value")
    value: object = table["value"]
    return value


def add_to(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    for verb, (call, words) in _PLAIN.items():
        app.command(name=verb, help=words)(_plain(verb, call))
    app.command(name="fire")(fire)
    # So that a negative number is no option.
    app.command(name="set", context_settings={"ignore_unknown_options": True})(set_parameter)
