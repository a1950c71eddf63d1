"""Names, edges and pairs: what contradicts itself is refused, and names lead to places."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtpose.errors import SkeletonError
from rtpose.skeleton import Skeleton

names = st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=8, unique=True)


@st.composite
def skeletons(draw: st.DrawFn) -> Skeleton:
    keypoints = draw(names)
    couples = st.tuples(st.sampled_from(keypoints), st.sampled_from(keypoints))
    edges = draw(st.lists(couples.filter(lambda couple: couple[0] != couple[1]), max_size=5))
    shuffled = draw(st.permutations(keypoints))
    pairs = list(zip(shuffled[::2], shuffled[1::2], strict=False))
    return Skeleton(tuple(keypoints), tuple(edges), tuple(pairs))


@given(skeletons())
def test_it_survives_the_way_through_a_message(skeleton: Skeleton) -> None:
    assert Skeleton.from_dict(skeleton.to_dict()) == skeleton


@given(skeletons())
def test_every_name_leads_to_its_place(skeleton: Skeleton) -> None:
    assert [skeleton.index(name) for name in skeleton.names] == list(range(len(skeleton.names)))


def test_edges_and_pairs_may_be_left_out() -> None:
    assert Skeleton.from_dict({"names": ["a", "b"]}) == Skeleton(("a", "b"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((),), "must not be empty"),
        ((("a", ""),), "must not be empty"),
        ((("a", "b", "a"),), "doubled: a"),
        ((("a", "b"), (("a", "c"),)), "no keypoint 'c'"),
        ((("a", "b"), (("a", "a"),)), "the edge 'a'-'a' joins one to itself"),
        ((("a", "b"), (), (("b", "b"),)), "the pair 'b'-'b' joins one to itself"),
        ((("a", "b", "c"), (), (("a", "b"), ("c", "a"))), "more than one left/right partner"),
    ],
)
def test_a_contradiction_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(SkeletonError, match=message):
        Skeleton(*arguments)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"names": None},
        {"names": 5},
        {"names": [["a"]]},
        {"names": ["a", 1]},
        {"names": "ab"},
        {"names": ["a", "b"], "edges": ["ab"]},
        {"names": ["a", "b"], "edges": [["a"]]},
        {"names": ["a", "b"], "edges": [["a", "b", "a"]]},
        {"names": ["a", "b"], "edges": 3},
        {"names": ["a", "b"], "pairs": None},
        {"names": ["a", "b"], "edges": [[["a"], "b"]]},
    ],
)
def test_what_is_no_skeleton_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(SkeletonError):
        Skeleton.from_dict(data)


def test_an_unknown_name_is_answered_with_the_nearest_and_all() -> None:
    skeleton = Skeleton(("snout", "leftear", "rightear"))
    with pytest.raises(SkeletonError, match="no keypoint 'lefteer'; did you mean 'leftear'") as e:
        skeleton.index("lefteer")
    assert "snout, leftear, rightear" in str(e.value)
    with pytest.raises(SkeletonError, match=r"no keypoint 'zzz' \(keypoints"):
        skeleton.index("zzz")
