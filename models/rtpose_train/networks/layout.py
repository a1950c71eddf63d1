"""Which channel of a network's output means what."""

from dataclasses import dataclass

from rtpose.skeleton import Skeleton


@dataclass(frozen=True, slots=True)
class HeadLayout:
    """The channels of one head: keypoint maps, then offsets, then the posture graph.

    What the live service needs comes first, so that an export keeps the first `exported` channels
    and drops the rest. Networks know nothing of this: they draw `channels` maps.

    Attributes
    ----------
    keypoints : int
        One map each.
    edges : tuple of (int, int)
        The skeleton's lines, as pairs of keypoint indices.
    location_refinement : bool
        Two offsets per keypoint, x then y, in cells from the cell's centre to the keypoint
        (Insafutdinov et al. 2016, "DeeperCut", section 3.1; Mathis et al. 2018).
    posture_graph : bool
        One map per edge, one per connected part of the skeleton, one of all edges, and one of all
        edges and keypoints (Graving et al. 2019, "Multi-task learning").
    """

    keypoints: int
    edges: tuple[tuple[int, int], ...] = ()
    location_refinement: bool = False
    posture_graph: bool = False

    @classmethod
    def of(
        cls, skeleton: Skeleton, *, location_refinement: bool, posture_graph: bool
    ) -> "HeadLayout":
        """Return the layout for a skeleton."""
        edges = tuple((skeleton.index(a), skeleton.index(b)) for a, b in skeleton.edges)
        return cls(len(skeleton.names), edges, location_refinement, posture_graph)

    @property
    def parts(self) -> tuple[tuple[int, ...], ...]:
        """Edges (as indices into `edges`) of every connected part, in the order of their edges."""
        parts: list[tuple[set[int], list[int]]] = []
        for number, edge in enumerate(self.edges):
            touching = [part for part in parts if part[0] & set(edge)]
            nodes = set(edge).union(*(part[0] for part in touching))
            numbers = sorted([number, *(n for part in touching for n in part[1])])
            parts = [part for part in parts if part not in touching] + [(nodes, numbers)]
        return tuple(sorted(tuple(numbers) for _, numbers in parts))

    @property
    def maps(self) -> slice:
        """Channels of the keypoint maps."""
        return slice(0, self.keypoints)

    @property
    def offsets(self) -> slice:
        """Channels of the offsets: x and y of keypoint 0, x and y of keypoint 1, ...; or none."""
        return slice(self.keypoints, self.exported)

    @property
    def graph(self) -> slice:
        """Channels of the posture graph, or none."""
        return slice(self.exported, self.channels)

    @property
    def exported(self) -> int:
        """Channels that an exported model keeps."""
        return self.keypoints * (3 if self.location_refinement else 1)

    @property
    def channels(self) -> int:
        """Channels in all."""
        graph = len(self.edges) + len(self.parts) + 2 if self.posture_graph else 0
        return self.exported + graph
