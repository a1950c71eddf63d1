"""The modem-lines output: what a pseudo-terminal without modem lines shows, and the rest in a shim.

Pseudo-terminals have no DTR and RTS. `modem_shim.c` gives them some, in a process that it was
loaded into before anything else, so the suite on it runs there.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from test_output_contract import LINES

from rtpose.errors import MissingExtraError, OutputError
from rtpose_hardware.modem_lines import ModemLinesOutput, ModemLinesSettings

HERE = Path(__file__).parent


def make(port: str, **settings: Any) -> ModemLinesOutput:
    given = {"lines": LINES, "port": port, **settings}
    return ModemLinesOutput(ModemLinesSettings.model_validate(given))


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for the modem lines of a pseudo-terminal")
    library = tmp_path_factory.mktemp("shim") / "modem_shim.so"
    options = ["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"]
    subprocess.run([compiler, *options, library, HERE / "modem_shim.c", "-ldl"], check=True)
    return library


def test_the_suite_passes_where_a_terminal_has_modem_lines(shim: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "LD_PRELOAD": str(shim), "MODEM_SHIM": str(tmp_path / "lines")}
    suite = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*suite, str(HERE / "modem_lines_suite.py")],
        cwd=HERE.parents[1],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout and "skipped" not in done.stdout


def test_a_port_without_modem_lines_is_said_to_be_one() -> None:
    master, slave = os.openpty()
    try:
        with pytest.raises(OutputError, match="has no modem lines"):
            make(os.ttyname(slave)).open()
    finally:
        os.close(master)
        os.close(slave)


def test_an_absent_port_is_named() -> None:
    with pytest.raises(OutputError, match="/dev/no-such-port"):
        make("/dev/no-such-port").open()


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ({"a": {"pin": 2, "max_on_ms": 1}}, "0 for DTR or 1 for RTS"),
        (
            {"a": {"pin": 1, "max_on_ms": 1}, "b": {"pin": 1, "max_on_ms": 1}},
            "'a' and 'b' share pin 1",
        ),
    ],
)
def test_there_are_two_lines(lines: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        ModemLinesSettings.model_validate({"port": "p", "lines": lines})


def test_without_pyserial_it_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "serial", None)
    with pytest.raises(MissingExtraError, match=r'pip install "rtpose\[serial\]"'):
        make("/dev/ttyUSB0").open()
