"""What stands between a condition and a decision: missing poses, dwell, and limits on firing."""

from dataclasses import dataclass, replace
from typing import Literal

Policy = Literal["skip", "hold", "false", "safe"]


class Dwell:
    """A state must hold for a while before it counts.

    Time between two poses counts if the state holds in both. A pose that does not tell does not
    end it, and the time around that pose does not count.

    Parameters
    ----------
    dwell_ns : int
        Holding for exactly this long counts.
    """

    def __init__(self, dwell_ns: int) -> None:
        self._dwell_ns = dwell_ns
        self.reset()

    def reset(self) -> None:
        """Forget every pose."""
        self._held_ns = 0
        self._last_ns: int | None = None

    def update(self, start_ns: int, state: bool | None) -> bool | None:
        """Take the next state."""
        if state is None:
            self._last_ns = None
            return None
        if not state:
            self.reset()
            return False
        if self._last_ns is not None:
            self._held_ns += start_ns - self._last_ns
        self._last_ns = start_ns
        return self._held_ns >= self._dwell_ns


class MissingPolicy:
    """What becomes of a state in a pose that does not tell.

    Parameters
    ----------
    policy : {'skip', 'hold', 'false', 'safe'}
        ``skip``: the pose is passed over. ``hold``: the state holds for at most `hold_ns` after the
        last pose that told, and ends then. ``false`` and ``safe``: it ends. Before the first pose
        that tells there is nothing to end, and the pose is passed over whatever the policy.
    hold_ns : int
        Exactly this long is still held.
    """

    def __init__(self, policy: Policy, hold_ns: int) -> None:
        self._skip = policy == "skip"
        self._hold_ns = hold_ns if policy == "hold" else -1
        self._told_ns: int | None = None

    def reset(self) -> None:
        """Forget every pose."""
        self._told_ns = None

    def told(self, start_ns: int) -> None:
        """Take note of a pose that tells."""
        self._told_ns = start_ns

    def missing(self, start_ns: int) -> Literal["skip", "hold", "end"]:
        """Return what becomes of the state in a pose that does not tell."""
        if self._skip or self._told_ns is None:
            return "skip"
        return "hold" if start_ns - self._told_ns <= self._hold_ns else "end"


@dataclass(frozen=True, slots=True)
class Count:
    """What `Limits` count: actions of the session, whether one was in the trial, when to rest."""

    session: int = 0
    in_trial: bool = False
    quiet_until_ns: int | None = None


class Limits:
    """How often a trigger may begin to act.

    Parameters
    ----------
    refractory_ns : int
        Shortest time from the end of one action to the beginning of the next; exactly that long is
        enough.
    max_fires : int or None
        Per session.
    once_per_trial : bool

    Attributes
    ----------
    count : Count
    """

    def __init__(self, refractory_ns: int, max_fires: int | None, once_per_trial: bool) -> None:
        self._refractory_ns = refractory_ns
        self._max_fires = max_fires
        self._once_per_trial = once_per_trial
        self.count = Count()
        self._undo: Count | None = None

    def allow(self, start_ns: int) -> bool:
        """Return whether an action may begin at a pose."""
        count = self.count
        return (
            (count.quiet_until_ns is None or start_ns >= count.quiet_until_ns)
            and (self._max_fires is None or count.session < self._max_fires)
            and not (self._once_per_trial and count.in_trial)
        )

    def begin(self, start_ns: int) -> None:
        """Count an action that begins, and the refractory time as if it ended at once."""
        count = self._undo = self.count
        self.count = Count(count.session + 1, True, start_ns + self._refractory_ns)

    def end(self, start_ns: int) -> None:
        """Take note that an action that lasted ends."""
        self.count = replace(self.count, quiet_until_ns=start_ns + self._refractory_ns)

    def settle(self) -> None:
        """Let what was counted stand: from now on it is too late to take it back."""
        self._undo = None

    def take_back(self) -> bool:
        """Count out what was counted just now; return whether there was anything."""
        if self._undo is None:
            return False
        self.count, self._undo = self._undo, None
        return True

    def start_session(self) -> None:
        """Count anew; the refractory time goes on."""
        self.settle()
        self.count = Count(quiet_until_ns=self.count.quiet_until_ns)

    def start_trial(self) -> None:
        """Count the trial's actions anew."""
        self.settle()
        self.count = replace(self.count, in_trial=False)

    def time_went_back(self, start_ns: int) -> None:
        """Take the whole refractory time from here on, if anything happened before."""
        if self.count.quiet_until_ns is not None:
            self.end(start_ns)
