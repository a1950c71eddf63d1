"""A condition as a trigger: gates and a filter before it; policies, dwell and limits after it."""

from abc import abstractmethod
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from rtpose.errors import TriggerError
from rtpose.interfaces import Decision, Scale, Settings, Trigger
from rtpose.messages import Pose
from rtpose.skeleton import Skeleton
from rtpose.triggers.condition import Condition, ConditionSettings, Milliseconds
from rtpose.triggers.gates import GateSettings, Paths
from rtpose.triggers.sample import Sample, unpacked
from rtpose.triggers.timing import Count, Dwell, Limits

_LONGEST_WORDS = 200
# Looked up once: members of an enumeration cost a call each time.
_FIRE, _HIGH, _LOW, _NOTHING = Decision.FIRE, Decision.HIGH, Decision.LOW, Decision.NOTHING


class TriggerSettings(GateSettings, ConditionSettings):
    """What every trigger made of a condition has in ``[triggers.<name>]``, beside the condition.

    Attributes
    ----------
    when : str
        ``starts``: a pulse at the pose where the condition begins to be met; ``ends``: a pulse
        where it ceases; ``while``: a high line as long as it is met; ``unless``: as long as it is
        not. For a region these are ``enter``, ``leave``, ``inside`` and ``outside``.
    min_confidence, max_jump_px_s, filter : optional
        See `GateSettings`.
    missing : {'skip', 'hold', 'false', 'safe'}
        A pose that does not tell whether the condition is met: ``skip`` passes over it, only a high
        line goes low, and its next rise counts as another one; ``hold`` goes on as in the last pose
        that told, for at most `hold_ms`; ``false`` counts what `when` waits for as ended; ``safe``
        does too, and asks for a low line also where the trigger gives pulses. No such pose ever
        fires or raises a line.
    hold_ms : float, optional
        Given with ``missing = "hold"`` only.
    dwell_ms : float
        What `when` waits for must hold for this long: with ``leave``, being outside.
    refractory_ms : float
        Shortest time from a pulse to the next, or from the end of a high line to its next rise.
        What begins within it is passed over by ``starts`` and ``ends``, and delayed by ``while``
        and ``unless``.
    once_per_trial : bool
        At most once between two starts of trials. The session begins with a trial.
    max_fires : int, optional
        At most so many pulses, or rises of the line, per session.

    Where a client changes a setting, these three go on counting; all else begins anew.
    """

    when: str
    refractory_ms: Milliseconds = 0.0
    once_per_trial: bool = False
    max_fires: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None


class EventTriggerSettings(TriggerSettings):
    """`TriggerSettings` of a condition without words of its own for `when`."""

    when: Literal["starts", "ends", "while", "unless"]


#: What `when` waits for: the condition, or that it is not met.
_OPPOSITE = frozenset({"ends", "unless", "leave", "outside"})
_LEVEL = frozenset({"while", "unless", "inside", "outside"})


class SampleTrigger(Trigger):
    """A trigger that sees the keypoints of one animal through gates and a filter.

    Time is `Pose.start_ns` alone; where it goes back or stands still, all that was timed begins
    afresh.

    Parameters
    ----------
    gates : GateSettings
        The settings.
    """

    def __init__(self, gates: GateSettings) -> None:
        self._gates = gates
        self._scale: Scale | None = None
        self._keypoints = 0
        self._paths: Paths | None = None
        self._last_ns: int | None = None
        self._between_ns = 0

    @abstractmethod
    def _decide(self, sample: Sample) -> Decision:
        """Take what the next pose shows, later than those before, and say what should happen."""

    @abstractmethod
    def _start_afresh(self, start_ns: int) -> None:
        """Forget what was timed: the next sample is not later than the one before."""

    @abstractmethod
    def _words(self) -> str:
        """Say what the last decision was made on."""

    def calibrate(self, scale: Scale) -> None:
        """Take note of the arena's scale."""
        self._scale = scale

    def _look_at(self, skeleton: Skeleton, keypoints: Iterable[str]) -> None:
        """Look up the keypoints that it needs; the end of `prepare`."""
        self._paths = self._gates.paths(skeleton, keypoints)
        self._keypoints = len(skeleton.names)

    def update(self, pose: Pose) -> Decision:
        """Take one pose and say what should happen."""
        if not self._keypoints:
            raise TriggerError("update before prepare: the keypoints' places are not known yet")
        seen = unpacked(pose, self._keypoints)
        start_ns = seen.sample.start_ns
        if self._last_ns is not None:
            if start_ns <= self._last_ns:
                self._start_afresh(start_ns)
                if self._paths is not None:
                    self._paths.reset()
            self._between_ns = start_ns - self._last_ns
        self._last_ns = start_ns
        return self._decide(seen.sample if self._paths is None else self._paths.update(seen))

    def delay_ms(self, rate_hz: float) -> float:
        """Return by how much its filter delays poses at a frame rate, 0 without a filter."""
        chosen = self._gates.filter
        return 0.0 if chosen is None else chosen.delay_ms(rate_hz)

    def describe(self) -> str:
        """Say what the last decision was made on, and how late the filter made it."""
        words = self._words()
        chosen = self._gates.filter
        if chosen is not None and self._between_ns > 0:
            words += f"; {chosen.type} filter: {self.delay_ms(1e9 / self._between_ns):.1f} ms late"
        return words if len(words) <= _LONGEST_WORDS else words[: _LONGEST_WORDS - 3] + "..."


class ConditionTrigger(SampleTrigger):
    """A trigger made of a condition: a class that derives from it names its two parts.

    The first pose that tells only says where things stand: an animal that starts inside has not
    entered. A pose that does not tell never fires and never raises a line. Where time goes back,
    windows, filters, dwell and refractory times, and high lines begin afresh.

    Parameters
    ----------
    config : TriggerSettings
        The settings, of the trigger and of its condition.
    """

    Config: ClassVar[type[Settings]]
    condition_type: ClassVar[type[Condition]]

    def __init__(self, config: Any) -> None:
        settings: TriggerSettings = config
        super().__init__(settings)
        self._condition = self.condition_type(settings)
        self._opposite = settings.when in _OPPOSITE
        self._level = settings.when in _LEVEL
        self._policy = settings.policy()
        self._dwell = Dwell(_ns(settings.dwell_ms))
        self._limits = Limits(
            _ns(settings.refractory_ms), settings.max_fires, settings.once_per_trial
        )
        self._idle = _LOW if self._level else _NOTHING
        self._without = _LOW if settings.missing == "safe" else self._idle
        self._wanted = False  # whether what `when` waits for held in the last pose that told
        self._open = False  # whether it did not hold at some time before, so that it may begin
        self._on = False  # whether a level is high, as far as this trigger knows
        self._was_let_go = False  # by control, since the last pose

    # ----------------------------------------------------------------------------- the contract

    def prepare(self, skeleton: Skeleton) -> None:
        """Look up keypoints, and turn mm into px."""
        self._condition.prepare(skeleton, self._scale)
        self._look_at(skeleton, self._condition.keypoints)

    def _decide(self, sample: Sample) -> Decision:
        start_ns = sample.start_ns
        self._limits.settle()
        if self._was_let_go:
            self._was_let_go = False
            self._end(start_ns)
        met = self._condition.update(sample)
        if met is None:
            return self._on_missing(start_ns)
        self._policy.told(start_ns)
        self._wanted = met != self._opposite
        return self._on_wanted(start_ns) if self._wanted else self._on_unwanted(start_ns)

    def refused(self) -> None:
        """Count out what the last decision began; a level is asked for again by the next pose."""
        if self._limits.take_back():
            self._on = False

    def let_go(self) -> None:
        """Count the next high level as another one."""
        self._was_let_go = True

    def start_session(self) -> None:
        """Count `max_fires` and `once_per_trial` anew."""
        self._limits.start_session()

    def start_trial(self) -> None:
        """Count `once_per_trial` anew."""
        self._limits.start_trial()

    @property
    def counted(self) -> tuple[int | None, Count, bool]:
        """Time of the last pose, what the limits count, and whether a level is high."""
        return self._last_ns, self._limits.count, self._on

    def take_over(self, before: Trigger) -> None:
        """Go on with the counts and the refractory time of another one."""
        if isinstance(before, ConditionTrigger):
            self._last_ns, self._limits.count, self._on = before.counted
            self._was_let_go = self._on

    @property
    def momentary(self) -> bool:
        """Whether it gives pulses: for all values of `when` but those that last."""
        return not self._level

    def _words(self) -> str:
        return self._condition.describe()

    # --------------------------------------------------------------------------- the three cases

    def _on_wanted(self, start_ns: int) -> Decision:
        if not self._dwell.update(start_ns, True):
            return self._idle
        if self._level:
            if self._on:
                return _HIGH
        elif not self._open:
            return _NOTHING
        self._open = False
        if not self._limits.allow(start_ns):
            return self._idle
        self._limits.begin(start_ns)
        self._on = self._level
        return _HIGH if self._level else _FIRE

    def _on_unwanted(self, start_ns: int) -> Decision:
        self._open = True
        self._dwell.reset()
        self._end(start_ns)
        return self._idle

    def _end(self, start_ns: int) -> None:
        if self._on:
            self._on = False
            self._limits.end(start_ns)

    def _on_missing(self, start_ns: int) -> Decision:
        match self._policy.missing(start_ns):
            case "skip":
                self._dwell.update(start_ns, None)
                self._end(start_ns)  # the line goes low, and its next rise is another one
            case "hold":
                self._dwell.update(start_ns, self._wanted)
                if self._on:
                    return _NOTHING  # which leaves a high line high, and raises none
            case "end":
                self._on_unwanted(start_ns)
                if not self._opposite:
                    self._condition.let_go()
        return self._without

    def _start_afresh(self, start_ns: int) -> None:
        # What stays is whether an end was seen: an animal seen outside, then inside, has entered.
        self._on = False
        self._policy.reset()
        self._dwell.reset()
        self._limits.time_went_back(start_ns)
        self._condition.reset()


def _ns(milliseconds: float) -> int:
    return round(milliseconds * 1e6)
