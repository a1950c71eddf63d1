"""`rtpose flash`."""

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rtpose.cli.console import OUT, hardware, say
from rtpose.errors import InputError


class Board(StrEnum):
    """Which boot loader the board has."""

    UNO = "uno"
    NANO = "nano"
    NANO_OLD = "nano-old-bootloader"


class LinkBaud(StrEnum):
    """How fast the firmware talks."""

    FAST = "1000000"
    SLOW = "115200"


def flash(
    port: Annotated[
        str | None, typer.Option(help="Serial port of the board; the only Uno if absent.")
    ] = None,
    board: Annotated[Board | None, typer.Option(help="What it is; uno if absent.")] = None,
    baud_of_link: Annotated[
        LinkBaud, typer.Option(help="Speed of the firmware; 115200 for bridges that need it.")
    ] = LinkBaud.FAST,
    firmware: Annotated[
        Path | None, typer.Option(help="Intel HEX file to upload instead of building one.")
    ] = None,
    build_only: Annotated[
        bool, typer.Option("--build-only", help="Write the .hex into this folder, upload nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Build the TTL board's firmware, upload it, and check that the board answers with it.

    The board's lines float for some seconds meanwhile: switch off what they drive. Needs the extra
    'serial', avr-gcc and avrdude.
    """
    tool = hardware("flash")
    baud = int(baud_of_link)
    if build_only:
        unused = {"--port": port, "--board": board, "--firmware": firmware}
        given = [name for name, value in unused.items() if value is not None]
        if given:
            raise InputError(f"--build-only uploads nothing: it cannot go with {', '.join(given)}")
        with OUT.status("building"):
            file = tool.build(Path.cwd(), baud)
        if as_json:
            OUT.print_json(json.dumps({"firmware_file": str(file), "baud": baud}))
        else:
            say(f"{file}")
        return
    place = port or tool.find_port()
    kind = (board or Board.UNO).value
    with OUT.status(f"flashing the {kind} on {place}"):
        flashed = tool.flash(place, board=kind, baud=baud, firmware=firmware)
    if as_json:
        OUT.print_json(json.dumps(asdict(flashed)))
        return
    say(
        f"{flashed.port}: {flashed.firmware} answers at {flashed.baud} baud, protocol version "
        f"{flashed.protocol_version} ({flashed.protocol_hash:08x}) as this rtpose"
    )


def add_to(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command()(flash)
