"""Keypoint names, the edges between them, and which are left/right partners."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rtpose.errors import SkeletonError


@dataclass(frozen=True, slots=True)
class Skeleton:
    """The keypoints that a model finds, in the order of its output.

    Parameters
    ----------
    names : tuple of str
        One name per keypoint, all different, none empty.
    edges : tuple of (str, str)
        Lines to draw between keypoints.
    pairs : tuple of (str, str)
        Left/right partners, which a mirrored image swaps.

    Raises
    ------
    SkeletonError
        If a name is empty or doubled, or an edge or pair names a keypoint that is not there.
    """

    names: tuple[str, ...]
    edges: tuple[tuple[str, str], ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not self.names or not all(isinstance(name, str) and name for name in self.names):
            raise SkeletonError(
                f"keypoint names must be text and must not be empty, got {self.names!r}"
            )
        if len(set(self.names)) != len(self.names):
            doubled = sorted({name for name in self.names if self.names.count(name) > 1})
            raise SkeletonError(f"keypoint names must differ, doubled: {', '.join(doubled)}")
        for kind, couples in (("edge", self.edges), ("pair", self.pairs)):
            for first, second in couples:
                self.index(first)
                self.index(second)
                if first == second:
                    raise SkeletonError(f"the {kind} {first!r}-{second!r} joins one to itself")
        paired = [name for pair in self.pairs for name in pair]
        if len(set(paired)) != len(paired):
            raise SkeletonError("a keypoint has more than one left/right partner")

    def index(self, name: str) -> int:
        """Return the place of a keypoint, or raise `SkeletonError` naming the nearest matches."""
        try:
            return self.names.index(name)
        except ValueError:
            close = difflib.get_close_matches(name, self.names, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise SkeletonError(
                f"no keypoint {name!r}{hint} (keypoints: {', '.join(self.names)})"
            ) from None

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, for messages and model cards."""
        return {
            "names": list(self.names),
            "edges": [list(edge) for edge in self.edges],
            "pairs": [list(pair) for pair in self.pairs],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Skeleton":
        """Rebuild a skeleton from `to_dict`'s result."""

        def listed(value: object) -> Sequence[Any]:
            if not isinstance(value, list | tuple):  # a text is a sequence of texts, too
                raise TypeError(f"{value!r} is not a list")
            return value

        def couples(value: object) -> tuple[tuple[str, str], ...]:
            return tuple((first, second) for first, second in map(listed, listed(value)))

        try:
            return cls(
                tuple(listed(data["names"])),
                couples(data.get("edges", ())),
                couples(data.get("pairs", ())),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise SkeletonError(f"not a skeleton: {error!r}") from error
