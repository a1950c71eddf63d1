"""``time-since`` and ``count``: when, and how often, another condition began or ended."""

from collections import deque
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from rtpose.interfaces import Settings
from rtpose.triggers.condition import Condition, ConditionSettings
from rtpose.triggers.logic import Composite
from rtpose.triggers.nested import One
from rtpose.triggers.sample import Sample
from rtpose.triggers.thresholds import BoundSettings, Positive
from rtpose.triggers.trigger import ConditionTrigger, EventTriggerSettings


class EventSettings(ConditionSettings):
    """Another condition, and which of its changes is meant.

    Attributes
    ----------
    of : table
        The other condition, as in `CombinedSettings`.
    event : {'began', 'ended'}
        The pose in which it was first known to be met after it was not, or the other way round. How
        things stand in the first pose that tells is no event.
    """

    of: One
    event: Literal["began", "ended"]


class Events:
    """Finds the events in the answers of a condition."""

    def __init__(self, event: Literal["began", "ended"]) -> None:
        self._after = event == "began"
        self._state: bool | None = None

    def update(self, answer: bool) -> bool:
        """Take the next answer and return whether the event happened."""
        before, self._state = self._state, answer
        return before is not None and before != answer and answer == self._after

    def reset(self) -> None:
        """Forget every answer."""
        self._state = None


class TimeSinceSettings(EventSettings, BoundSettings):
    """An event of another condition (`EventSettings`), and thresholds on the time since the last.

    Attributes
    ----------
    above_ms, below_ms : float, optional
        At least one; both mean between them. The thresholds themselves do not meet it.
    hysteresis_ms : float, optional
        Once met, it stays met until the time is back by more than this: for ``below_ms``, so much
        longer.
    """

    UNITS: ClassVar[tuple[str, ...]] = ("ms",)
    above_ms: Positive | None = None
    below_ms: Annotated[Positive, Field(gt=0)] | None = None
    hysteresis_ms: Positive | None = None


class TimeSince(Composite):
    """The time since another condition began or ended, 0 ms in the pose where it did.

    A pose that does not tell about the other condition leaves the answer open: an animal that is
    lost may be doing it again. Before the first event it is only known to be longer ago than the
    first pose that told: enough for ``above_ms`` to be met, and for ``below_ms`` not to be, once
    that much time has passed; until then the answer is open.
    """

    Config: ClassVar[type[ConditionSettings]] = TimeSinceSettings

    def __init__(self, config: TimeSinceSettings) -> None:
        super().__init__([config.of])
        self._words = f"ms since {config.of.name} {config.event}"
        self._events = Events(config.event)
        self._threshold = config.threshold(None)
        self._above_ms, self._below_ms = config.above_ms, config.below_ms
        self._watched_ns: int | None = None
        self._event_ns: int | None = None
        self._since_ms: float | None = None

    def reset(self) -> None:
        """Forget every sample."""
        super().reset()
        self._events.reset()
        self._threshold.let_go()
        self._watched_ns = self._event_ns = self._since_ms = None

    def let_go(self) -> None:
        """Count as ended."""
        super().let_go()
        self._threshold.let_go()

    def update(self, sample: Sample) -> bool | None:
        """Take the next sample."""
        answer = self._parts[0].update(sample)
        if answer is None:
            return None
        if self._events.update(answer):
            self._event_ns = sample.start_ns
        if self._event_ns is not None:
            self._since_ms = (sample.start_ns - self._event_ns) / 1e6
            return self._threshold.update(self._since_ms)
        if self._watched_ns is None:
            self._watched_ns = sample.start_ns
        at_least_ms = (sample.start_ns - self._watched_ns) / 1e6
        if self._below_ms is not None:
            return False if at_least_ms >= self._below_ms else None
        return True if self._above_ms is not None and at_least_ms > self._above_ms else None

    def describe(self) -> str:
        """Say how long ago it was."""
        since = "no event yet" if self._since_ms is None else f"{self._since_ms:.0f}"
        return f"{since} {self._words}"


class CountSettings(EventSettings):
    """An event of another condition (`EventSettings`), and how often it must have happened.

    Attributes
    ----------
    at_least : int
        So often, or more often.
    window_ms : float, optional
        Only events of the last so many ms count, one exactly as old too; all since the start if
        absent.
    """

    at_least: Annotated[int, Field(ge=1, le=1_000_000)]
    window_ms: Annotated[float, Field(gt=0, le=3_600_000, allow_inf_nan=False)] | None = None


class Count(Composite):
    """How often another condition began or ended.

    A pose that does not tell about the other condition leaves the answer open.
    """

    Config: ClassVar[type[ConditionSettings]] = CountSettings

    def __init__(self, config: CountSettings) -> None:
        super().__init__([config.of])
        self._words = f"times {config.of.name} {config.event}"
        self._events = Events(config.event)
        self._at_least = config.at_least
        self._window_ns = None if config.window_ms is None else round(config.window_ms * 1e6)
        # The latest ones are enough to tell whether there were so many.
        self._stamps_ns: deque[int] = deque(maxlen=config.at_least)

    def reset(self) -> None:
        """Forget every sample."""
        super().reset()
        self._events.reset()
        self._stamps_ns.clear()

    def update(self, sample: Sample) -> bool | None:
        """Take the next sample."""
        answer, stamps_ns = self._parts[0].update(sample), self._stamps_ns
        if answer is None:
            return None
        if self._events.update(answer):
            stamps_ns.append(sample.start_ns)
        if self._window_ns is not None:
            while stamps_ns and sample.start_ns - stamps_ns[0] > self._window_ns:
                stamps_ns.popleft()
        return len(stamps_ns) >= self._at_least

    def describe(self) -> str:
        """Say how often it was, up to what is asked for."""
        return f"{len(self._stamps_ns)} {self._words}"


class TimeSinceTriggerSettings(EventTriggerSettings, TimeSinceSettings):
    """``type = "time-since"``: `TimeSinceSettings` and `EventTriggerSettings`."""


class TimeSinceTrigger(ConditionTrigger):
    """The time since another condition's event as a trigger."""

    Config: ClassVar[type[Settings]] = TimeSinceTriggerSettings
    condition_type: ClassVar[type[Condition]] = TimeSince


class CountTriggerSettings(EventTriggerSettings, CountSettings):
    """``type = "count"``: `CountSettings` and `EventTriggerSettings`."""


class CountTrigger(ConditionTrigger):
    """How often another condition's event happened, as a trigger."""

    Config: ClassVar[type[Settings]] = CountTriggerSettings
    condition_type: ClassVar[type[Condition]] = Count
