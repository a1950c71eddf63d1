"""Tries something in a process of its own, which may hang, crash or change itself."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rtpose.clock import now_ns
from rtpose.finding import Finding

#: From the start of the process, imports included, which take seconds on a cold disk.
_PATIENCE_S = 60.0
_KILL_S = 1.0


class Trial:
    """A running `rtpose.doctor.probe`.

    Parameters
    ----------
    *arguments : str
        What to try.
    patience_s : float
        How long it may take.
    """

    def __init__(self, *arguments: str, patience_s: float = _PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._deadline_ns = now_ns() + round(patience_s * 1e9)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "rtpose.doctor.probe", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def result(self) -> Mapping[str, Any]:
        """Return what it found out; ``{"error": why}`` if it could not."""
        try:
            out, said = self._process.communicate(timeout=self._left_s())
        except subprocess.TimeoutExpired:
            self.close()
            return {"error": f"it hangs: no answer within {self._patience_s:g} s"}
        if self._process.returncode != 0:
            last = said.strip().rpartition("\n")[2]
            return {"error": f"it crashed (exit code {self._process.returncode}): {last}"}
        found: Mapping[str, Any] = json.loads(out.rpartition("\x1e")[2])
        return found

    def close(self) -> None:
        """End the process if it still runs; one that hangs in a driver is left to the system."""
        if self._process.poll() is None:
            self._process.kill()
            try:
                self._process.wait(_KILL_S)
            except subprocess.TimeoutExpired:
                return
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def _left_s(self) -> float:
        return max(0.0, (self._deadline_ns - now_ns()) / 1e9)


class Trials:
    """Trials that run side by side, and how their results read.

    Parameters
    ----------
    trials : sequence of Trial
    judge : callable
        Makes findings out of the results, in the order of the trials.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        judge: Callable[[Sequence[Mapping[str, Any]]], Sequence[Finding]],
    ) -> None:
        self._trials = trials
        self._judge = judge

    def findings(self) -> Sequence[Finding]:
        """Wait for the results and judge them."""
        return self._judge([trial.result() for trial in self._trials])

    def close(self) -> None:
        """End what still runs."""
        for trial in self._trials:
            trial.close()
