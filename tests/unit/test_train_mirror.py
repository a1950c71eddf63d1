"""Left and right are found in the ways labs write them, and nowhere else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtpose.skeleton import Skeleton
from rtpose_train.data.dataset import mirror_pairs


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("leftear", "rightear"),
        ("left_ear", "right_ear"),
        ("earLeft", "earRight"),
        ("LEFT EYE", "RIGHT EYE"),
        ("L_ear", "R_ear"),
        ("l-ear", "r-ear"),
        ("ear_l", "ear_r"),
        ("ear.L", "ear.R"),
        ("l1", "r1"),
        ("LEar", "REar"),
        ("lEar", "rEar"),
        ("wingL", "wingR"),
        ("forelegL4", "forelegR4"),
        ("pawLF_top", "pawRF_top"),
        ("LF", "RF"),
        ("hindLPaw", "hindRPaw"),
        ("L", "R"),
    ],
)
def test_these_are_partners(left: str, right: str) -> None:
    assert mirror_pairs(["nose", right, left, "tail"]) == ((left, right),)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Lear", "Rear"),
        ("LED", "RED"),
        ("lump", "rump"),
        ("tail", "tair"),
        ("leftover", "over"),
        ("left_ear", "right_eye"),
        ("left_ear", "Right_ear"),
        ("wingL1", "wingR2"),
        ("bol", "bor"),
        ("paw1LH", "paw4RH"),
    ],
)
def test_these_are_not(one: str, other: str) -> None:
    assert mirror_pairs([one, other]) == ()


def test_a_name_with_two_candidates_gets_no_partner() -> None:
    assert mirror_pairs(["left_L", "right_L", "left_R", "nose"]) == ()


_SYLLABLES = st.lists(
    st.sampled_from(["left", "right", "L", "R", "l", "r", "_", "ear", "Paw", "1", "Left", "Right"]),
    min_size=1,
    max_size=4,
).map("".join)


@given(names=st.lists(_SYLLABLES, min_size=1, max_size=8, unique=True), data=st.data())
def test_pairs_make_a_skeleton_in_any_order(names: list[str], data: st.DataObject) -> None:
    pairs = mirror_pairs(names)
    Skeleton(tuple(names), pairs=pairs)  # refuses a name with two partners
    assert set(mirror_pairs(data.draw(st.permutations(names)))) == set(pairs)
