"""Left/right partners by the names of keypoints."""

import re
from collections.abc import Sequence

#: How a side is written. A single letter counts only where it stands alone: between other signs
#: (``L_ear``, ``ear.l``, ``l1``), after a small letter and before no small one (``wingL``,
#: ``legL4``, ``pawLF``), or before a capitalised word (``LEar``, ``lEar``); so that neither
#: "Lear" and "Rear" nor "LED" and "RED" make a pair.
_SIDES = (
    (r"left", "right"),
    (r"Left", "Right"),
    (r"LEFT", "RIGHT"),
    (r"(?<![A-Z])L(?=[^A-Za-z]|$|[A-Z](?![A-Z]))", "R"),
    (r"(?<![A-Za-z])l(?=[^a-z]|$)", "r"),
)


def mirror_pairs(names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return the left/right partners among keypoint names, the left one first.

    Two names are partners if they differ in one place only, where one has *left* (``left``,
    ``Left``, ``LEFT``, or a lone ``L`` or ``l``) and the other *right* in the same writing. A
    name that would get two partners gets none.
    """
    known = set(names)
    pairs = []
    for name in names:
        partners = {
            name[: found.start()] + right + name[found.end() :]
            for left, right in _SIDES
            for found in re.finditer(left, name)
        }
        pairs += [(name, partner) for partner in sorted(partners & known)]
    paired = [name for pair in pairs for name in pair]
    return tuple(pair for pair in pairs if all(paired.count(name) == 1 for name in pair))
