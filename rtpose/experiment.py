"""The design of an experiment: sessions, trials, and when a decision must not act.

Time is told to it, and every random number comes from the seed: the same seed, poses and requests
give the same experiment again.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from rtpose.messages import Withheld
from rtpose.rig import TriggerEntry
from rtpose.rig_tables import ExperimentTable

_SEED_BITS: Final = 32

Step = Literal["trial-started", "trial-ended", "session-over"]


@dataclass(frozen=True, slots=True)
class Happening:
    """A step of the experiment that the clock or a client brought about.

    Attributes
    ----------
    step : str
    draw : float or None
        The random number behind it, 0 to 1.
    words : str
        What it means, for the record.
    """

    step: Step
    draw: float | None
    words: str


class Experiment:
    """Where an experiment stands.

    Parameters
    ----------
    table : ExperimentTable
        ``[experiment]``.

    Attributes
    ----------
    seed : int
        That of the table, or the one that was drawn.
    trial : int
        Number of the trial, from 1; 0 before the first.
    in_trial : bool
        It has begun and not ended.
    """

    def __init__(self, table: ExperimentTable) -> None:
        self.seed = (
            random.SystemRandom().getrandbits(_SEED_BITS) if table.seed is None else table.seed
        )
        self._table = table
        self.trial = 0
        self._draws: dict[str, random.Random] = {}
        self._session_end_ns: int | None = None
        self._next_ns: int | None = None
        self.in_trial = False
        self._catch = False

    def _draw(self, purpose: str) -> float:
        """Return the next number of one purpose, whatever is drawn for others in between."""
        if purpose not in self._draws:
            # Seeding with text hashes it in a way that is the same in every version of Python.
            self._draws[purpose] = random.Random(f"{self.seed} {purpose}")
        return self._draws[purpose].random()

    # --------------------------------------------------------------------------- what happens when

    def start_session(self, now: int) -> Happening:
        """Begin a session, and its first trial: the rig was armed."""
        session_s = self._table.session_s
        self._session_end_ns = None if session_s is None else now + _ns(session_s)
        self.trial = 0
        return self.start_trial(now)

    def end_session(self) -> None:
        """Stop the clock: the rig was disarmed."""
        self._session_end_ns = self._next_ns = None
        self.in_trial = False

    def start_trial(self, now: int) -> Happening:
        """Begin the next trial."""
        self.trial += 1
        self.in_trial = True
        trial_s = self._table.trial_s
        self._next_ns = None if trial_s is None else now + _ns(trial_s)
        if not self._table.catch_probability:
            return Happening("trial-started", None, f"trial {self.trial}")
        draw = self._draw("catch")
        self._catch = draw < self._table.catch_probability
        kind = "a catch trial: nothing is sent" if self._catch else "no catch trial"
        return Happening("trial-started", draw, f"trial {self.trial}, {kind}")

    def end_trial(self, now: int) -> Iterator[Happening]:
        """End the trial; the next begins after the drawn interval, or when a client begins it.

        With the last trial the session is over.
        """
        self.in_trial = False
        self._next_ns = None
        words, draw = f"trial {self.trial}", None
        interval = self._table.inter_trial_s
        if interval is not None and not self.is_last:
            draw = self._draw("interval")
            wait_s = interval[0] + draw * (interval[1] - interval[0])
            self._next_ns = now + _ns(wait_s)
            words += f", the next in {wait_s:.3f} s"
        yield Happening("trial-ended", draw, words)
        if self.is_last:
            yield Happening("session-over", None, f"max_trials = {self.trial} are over")

    @property
    def is_last(self) -> bool:
        """Whether no trial may follow this one."""
        return self.trial == self._table.max_trials

    def tick(self, now: int) -> Iterator[Happening]:
        """Do what is due, and yield it."""
        if self._session_end_ns is not None and now >= self._session_end_ns:
            yield Happening("session-over", None, f"session_s = {self._table.session_s:g} is over")
            return
        if self._next_ns is None or now < self._next_ns:
            return
        if not self.in_trial:
            yield self.start_trial(now)
            return
        yield from self.end_trial(now)

    @property
    def next_ns(self) -> int | None:
        """When `tick` has something to do next, if that is known."""
        times = [at for at in (self._session_end_ns, self._next_ns) if at is not None]
        return min(times, default=None)

    # ------------------------------------------------------------------------- what may act

    def withheld(self, entry: TriggerEntry) -> tuple[Withheld | None, float | None]:
        """Say whether a decision in a trial must not act, and why; and what was drawn for it."""
        common = entry.common
        if common.yoked_to is not None:
            return "yoked", None
        if self._table.baseline:
            return "baseline", None
        if self._catch:
            return "catch", None
        if common.sham:
            return "sham", None
        if common.probability == 1:
            return None, None
        draw = self._draw(f"trigger {entry.name}")
        return (None if draw < common.probability else "probability"), draw

    @property
    def repeats_withheld(self) -> Withheld | None:
        """Why what is repeated from another run must not act now, or None if it may."""
        if self._table.baseline:
            return "baseline"
        return "catch" if self.in_trial and self._catch else None


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
