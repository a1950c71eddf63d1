"""Two lists of events of one run, side by side."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from rtpose.messages import TriggerEvent


@dataclass(frozen=True)
class Difference:
    """A place where two lists of events part: one has an event, or both have it differently."""

    recorded: TriggerEvent | None
    replayed: TriggerEvent | None


def differences(
    recorded: Sequence[TriggerEvent], replayed: Sequence[TriggerEvent]
) -> list[Difference]:
    """Return every event that only one of two lists has, or that they have differently, by time.

    So the first is where they part; the others may be its consequences. Events are numbered, and so
    are commands: after one that is missing, all others have another number, which is no difference
    of their own.
    """
    if list(recorded) == list(replayed):
        return []
    matcher = SequenceMatcher(
        None, [*map(identity, recorded)], [*map(identity, replayed)], autojunk=False
    )
    found = []
    for tag, begin, end, other_begin, other_end in matcher.get_opcodes():
        ours, theirs = recorded[begin:end], replayed[other_begin:other_end]
        if tag == "equal":
            pairs = zip(ours, theirs, strict=True)
            found += [Difference(a, b) for a, b in pairs if _unnumbered(a) != _unnumbered(b)]
        else:
            found += [Difference(event, None) for event in ours]
            found += [Difference(None, event) for event in theirs]
    if found:
        return sorted(found, key=_time_ns)
    pairs = zip(recorded, replayed, strict=True)
    return [Difference(a, b) for a, b in pairs if a != b]  # nothing but the numbers


def _time_ns(difference: Difference) -> int:
    events = difference.recorded, difference.replayed
    return min(event.decide_ns for event in events if event is not None)


def identity(event: TriggerEvent) -> tuple[object, ...]:
    """Return by what an event is found again in another list of the same run."""
    return event.kind, event.trigger, event.frame_id, event.decide_ns


def _unnumbered(event: TriggerEvent) -> TriggerEvent:
    command = event.command and event.command.model_copy(update={"command_id": 0})
    return event.model_copy(update={"seq": 0, "command": command})


@dataclass(frozen=True)
class TriggerRow:
    """What one trigger did, in two lists.

    Attributes
    ----------
    trigger, kind : str
        Whose events, and which.
    recorded, replayed, common : int
        How many each list has, and how many of the same frame both have. Those without a frame,
        which the clock brought about, are common as far as both have as many.
    only_recorded, only_replayed : tuple of int
        Frames of those that only one list has.
    """

    trigger: str
    kind: str
    recorded: int
    replayed: int
    common: int
    only_recorded: tuple[int, ...]
    only_replayed: tuple[int, ...]


def by_trigger(
    recorded: Sequence[TriggerEvent], replayed: Sequence[TriggerEvent]
) -> Iterator[TriggerRow]:
    """Yield, for every trigger and every kind of its events, what two lists have of them."""
    ours, theirs = _frames(recorded), _frames(replayed)
    for trigger, kind in sorted({*ours, *theirs}):
        here = ours.get((trigger, kind), Counter())
        there = theirs.get((trigger, kind), Counter())
        yield TriggerRow(
            trigger,
            kind,
            here.total(),
            there.total(),
            (here & there).total(),
            _known(here - there),
            _known(there - here),
        )


def _frames(events: Sequence[TriggerEvent]) -> dict[tuple[str, str], Counter[int | None]]:
    frames: dict[tuple[str, str], Counter[int | None]] = {}
    for event in events:
        if event.trigger is not None:
            frames.setdefault((event.trigger, event.kind), Counter())[event.frame_id] += 1
    return frames


def _known(frames: Counter[int | None]) -> tuple[int, ...]:
    return tuple(sorted(frame for frame in frames.elements() if frame is not None))
