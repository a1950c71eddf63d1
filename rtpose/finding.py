"""What `rtpose doctor` says of one thing that a rig needs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Grade = Literal["good", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    topic : str
        What was looked at, in a word or two.
    grade : {'good', 'warning', 'problem'}
        A problem keeps rigs of that kind from running; a warning makes them worse, or is a matter
        of what the rig is for.
    found : str
        What was found.
    advice : str
        What to do or to type; empty if nothing has to be done.
    facts : mapping
        The same for programs, where there is more to say.
    """

    topic: str
    grade: Grade
    found: str
    advice: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
