"""The TTL board without hardware: its own firmware on an emulated chip, started and ended here."""

import os
import secrets
import select
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from rtpose.errors import OutputError
from rtpose_hardware.board_output import BoardOutput
from rtpose_hardware.board_settings import BoardSettings

_HARDWARE = Path(__file__).resolve().parents[1]

_START_TIMEOUT_S = 3.0
_END_TIMEOUT_S = 1.0

#: A host that was killed leaves the emulator behind, long enough to see the board's watchdog drop
#: the lines (at most 1 s); then it ends by itself.
_LINGER_MS = 1500


class EmulatedTtlOutput(BoardOutput):
    """Drive an emulated TTL board (Linux only).

    Every edge of its lines is logged: ``CLOCK_MONOTONIC in ns, CPU cycle (16 MHz), line, level``.
    """

    class Config(BoardSettings):
        """Settings of an emulated board.

        Attributes
        ----------
        edge_log, wire_log, level_log, input_log : str
            Files for the edges of the lines, the bytes of both directions, the levels of the lines
            that have some, and what drives the inputs. Without, the edges go to a new file in the
            system's temporary folder (see ``facts['edge_log']``), the others nowhere.
        inputs_fifo : str
            A FIFO to be made, through which the chip's pins are driven: ``D8 1``, ``A0 0``, one to
            a line; ``hardware/emulator/inputs.c`` says what else. A pin that nobody drives follows
            its pull-up: with ``stop_input = "closed-is-well"`` the board is stopped until ``D2 0``
            closes the contact.
        emulator, firmware : str
            What to run; where a checkout builds them, if not given.
        """

        edge_log: Annotated[str, Field(min_length=1)] | None = None
        wire_log: Annotated[str, Field(min_length=1)] | None = None
        level_log: Annotated[str, Field(min_length=1)] | None = None
        input_log: Annotated[str, Field(min_length=1)] | None = None
        inputs_fifo: Annotated[str, Field(min_length=1)] | None = None
        emulator: str = str(_HARDWARE / "emulator" / "build" / "emulator")
        firmware: str = str(_HARDWARE / "firmware" / "build" / "board.elf")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._emulated = config
        self._process: subprocess.Popen[bytes] | None = None
        self._edge_log = ""

    def close(self) -> None:
        """Make safe, close the port, end the emulator."""
        super().close()
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()

    def _more_facts(self) -> Mapping[str, str]:
        return {"edge_log": self._edge_log}

    def _find_port(self) -> str:
        for what in (self._emulated.emulator, self._emulated.firmware):
            if not Path(what).is_file():
                raise OutputError(
                    f"the emulated board is not built: {what} is missing; in a checkout of rtpose "
                    "type: make hardware"
                )
        name = f"rtpose-{os.getpid()}-{secrets.token_hex(4)}"
        folder = Path(tempfile.gettempdir())
        port = str(folder / f"{name}.tty")
        self._edge_log = self._emulated.edge_log or str(folder / f"{name}-edges.log")
        command = [self._emulated.emulator, self._emulated.firmware, port, self._edge_log]
        command += ["--linger-ms", str(_LINGER_MS), "--realtime"]
        for option, file in (
            ("--wire-log", self._emulated.wire_log),
            ("--level-log", self._emulated.level_log),
            ("--input-log", self._emulated.input_log),
            ("--inputs", self._emulated.inputs_fifo),
        ):
            command += [] if file is None else [option, file]
        # A session of its own: what kills the host's process group must not kill the board.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._await_ready(self._process)
        return port

    def _await_ready(self, process: subprocess.Popen[bytes]) -> None:
        if process.stdout is None or process.stderr is None:
            raise OutputError("the emulator was started without pipes")
        ready, _, _ = select.select([process.stdout], [], [], _START_TIMEOUT_S)
        line = process.stdout.readline() if ready else b""
        if not line.startswith(b"ready "):
            process.kill()
            said = process.stderr.read().decode(errors="replace").strip()
            raise OutputError(f"the emulated board did not start: {said or 'it said nothing'}")
