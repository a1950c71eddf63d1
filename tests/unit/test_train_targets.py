"""What a network learns to draw is what the live service reads."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rtpose.model_card import MapsSpec, Placement
from rtpose_train.decode import decode, errors_px
from rtpose_train.networks.layout import HeadLayout
from rtpose_train.training.module import pose_loss
from rtpose_train.training.posture_graph import draw_graph
from rtpose_train.training.settings import TrainSettings
from rtpose_train.training.targets import draw_offsets, draw_targets, masked_huber_loss, masked_loss

HEIGHT, WIDTH = 24, 32


def test_golden_values_of_the_closed_form() -> None:
    # Reference: DeepPoseKit's targets for a 192x192 image at stride 4, sigma 5 px.
    maps, _ = draw_targets(torch.tensor([[[100.0, 62.0]]]), 48, 48, stride=4, sigma=1.25)
    found = [float(maps[0, 0, row, column]) for row, column in ((15, 25), (16, 25), (15, 24))]
    assert found == pytest.approx([0.923116, 0.923116, 0.670320], abs=1e-6)
    assert float(maps[0, 0, 20, 25]) == pytest.approx(0.00153381, abs=1e-7)


@settings(deadline=None)  # the first call compiles the decoder
@given(
    x=st.floats(0, WIDTH - 1, width=32),
    y=st.floats(0, HEIGHT - 1, width=32),
    stride=st.sampled_from([4, 8]),
    sigma=st.floats(1.25, 3.0),
    crop=st.integers(0, 100),
    enlarged=st.integers(1, 4),
)
def test_drawn_points_are_read_back(
    x: float, y: float, stride: int, sigma: float, crop: int, enlarged: int
) -> None:
    points = torch.tensor([[[x * stride, y * stride]]])
    maps, _ = draw_targets(points, HEIGHT, WIDTH, stride, sigma)
    spec = MapsSpec(width=WIDTH, height=HEIGHT, stride=stride, sigma=sigma)
    width, height = WIDTH * stride, HEIGHT * stride
    placement = Placement(crop, 2 * crop, width * enlarged, height * enlarged, 0, 0, width, height)
    keypoint = decode(maps[0].numpy(), spec, placement)[0]
    expected = [
        (x * stride + 0.5) * enlarged - 0.5 + crop,
        (y * stride + 0.5) * enlarged - 0.5 + 2 * crop,
    ]
    # 0.02 cells; the frame's pixels are that much smaller than the input's.
    assert keypoint[:2] == pytest.approx(expected, abs=0.02 * stride * enlarged)
    assert keypoint[2] > 0.8


def test_a_missing_keypoint_teaches_nothing() -> None:
    points = torch.tensor([[[40.0, 30.0], [float("nan"), 30.0]]])
    targets, labelled = draw_targets(points, HEIGHT, WIDTH, 4, 1.5)
    assert labelled.flatten().tolist() == [1.0, 0.0]
    maps = torch.rand(targets.shape, requires_grad=True)
    (gradient,) = torch.autograd.grad(masked_loss(maps, targets, labelled), [maps])
    assert bool(gradient[0, 0].any())
    assert not bool(gradient[0, 1].any())


def test_no_label_at_all_is_no_error() -> None:
    points = torch.full((2, 1, 2), float("nan"))
    targets, labelled = draw_targets(points, HEIGHT, WIDTH, 4, 1.5)
    assert float(masked_loss(torch.ones_like(targets), targets, labelled)) == 0.0


def test_a_point_far_outside_draws_nothing() -> None:
    maps, labelled = draw_targets(torch.tensor([[[-60.0, 30.0]]]), HEIGHT, WIDTH, 4, 1.5)
    assert float(labelled) == 1.0
    assert float(maps.max()) < 1e-6


def test_errors_tell_a_missing_label_from_a_missed_keypoint() -> None:
    nan = float("nan")
    found = [np.array([[3.0, 4.0, 0.9], [nan, nan, 0.0], [1.0, 1.0, 0.5]], np.float32)]
    labelled = [np.array([[0.0, 0.0], [5.0, 5.0], [nan, nan]])]
    errors = errors_px(found, labelled)
    assert errors[0, 0] == pytest.approx(5.0)
    assert np.isinf(errors[0, 1])
    assert np.isnan(errors[0, 2])


NAN = float("nan")
PLACES = st.tuples(st.floats(-20, 150, width=32), st.floats(-20, 120, width=32))
FEW = settings(max_examples=40, deadline=None)


def test_golden_offsets() -> None:
    # At stride 8 a keypoint at (42, 21) px lies at cell (5.25, 2.625).
    offsets, inside = draw_offsets(torch.tensor([[[42.0, 21.0]]]), 6, 9, 8, radius=2.0)
    assert offsets.shape == inside.shape == (1, 2, 6, 9)
    assert offsets[0, :, 3, 5].tolist() == pytest.approx([0.25, -0.375])
    assert offsets[0, :, 2, 4].tolist() == pytest.approx([1.25, 0.625])
    assert inside[0, 0].tolist() == inside[0, 1].tolist()
    # The row of the keypoint's own cell: 4, 5, 6 and 7 lie within 2 cells, 3 and 8 do not.
    assert inside[0, 0, 3].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 0]


@FEW
@given(place=PLACES, stride=st.sampled_from([1, 4, 8]), radius=st.floats(1, 4))
def test_a_cell_and_its_offset_are_the_keypoint(
    place: tuple[float, float], stride: int, radius: float
) -> None:
    offsets, inside = draw_offsets(torch.tensor([[place]]), HEIGHT, WIDTH, stride, radius)
    for row, column in inside[0, 0].nonzero().tolist():
        x, y = offsets[0, :, row, column].tolist()
        assert ((column + x) * stride, (row + y) * stride) == pytest.approx(place, abs=1e-3)
        assert np.hypot(x, y) <= radius + 1e-5
    nearest = round(place[1] / stride), round(place[0] / stride)
    if 0 <= nearest[0] < HEIGHT and 0 <= nearest[1] < WIDTH:
        assert inside[0, 0, nearest[0], nearest[1]] == 1


def test_a_missing_keypoint_teaches_no_offset() -> None:
    offsets, inside = draw_offsets(torch.tensor([[[NAN, NAN], [40.0, 30.0]]]), 12, 16, 4, 2.0)
    assert not inside[0, :2].any() and inside[0, 2:].any()
    assert not offsets.isnan().any()
    drawn = torch.rand(offsets.shape, requires_grad=True)
    (gradient,) = torch.autograd.grad(masked_huber_loss(drawn, offsets, inside), [drawn])
    assert not gradient[0, :2].any() and gradient[0, 2:].any()
    assert gradient[inside == 0].eq(0).all()


def test_golden_values_of_an_edge() -> None:
    # A ridge along row 3 from column 2 to column 6, sigma 1.5 cells: exp(-d^2 / 4.5).
    points = torch.tensor([[[8.0, 12.0], [24.0, 12.0]]])
    maps, known = draw_graph(points, HeadLayout(2, ((0, 1),), posture_graph=True), 8, 10, 4, 1.5)
    edge = maps[0, 0]
    assert edge[3, 2:7].tolist() == pytest.approx([1.0] * 5)
    assert [float(edge[at]) for at in ((4, 4), (1, 4), (3, 0), (3, 8), (5, 8))] == pytest.approx(
        [np.exp(-d2 / 4.5) for d2 in (1, 4, 4, 4, 8)], rel=1e-5
    )
    assert known.flatten().tolist() == [1.0] * 4
    torch.testing.assert_close(maps[0, 1], edge)
    torch.testing.assert_close(maps[0, 2], edge)
    keypoints, _ = draw_targets(points, 8, 10, 4, 1.5)
    torch.testing.assert_close(maps[0, 3], edge + keypoints[0].sum(dim=0))


@FEW
@given(
    ends=st.tuples(PLACES, PLACES),
    size=st.tuples(st.integers(5, 33), st.integers(5, 33)),
    stride=st.sampled_from([1, 4, 8]),
    sigma=st.floats(1.25, 3),
)
def test_an_edge_is_highest_along_its_segment_and_the_same_from_either_end(
    ends: tuple[tuple[float, float], tuple[float, float]],
    size: tuple[int, int],
    stride: int,
    sigma: float,
) -> None:
    points = torch.tensor([ends])
    there, back = (
        draw_graph(points, HeadLayout(2, (edge,), posture_graph=True), *size, stride, sigma)[0]
        for edge in ((0, 1), (1, 0))
    )
    torch.testing.assert_close(there, back, rtol=1e-3, atol=1e-4)
    rows, columns = np.mgrid[: size[0], : size[1]]
    steps = np.linspace(0, 1, 400)[:, None, None]
    start, end = (np.array(place) / stride for place in ends)
    x, y = (start[n] + steps * (end[n] - start[n]) for n in (0, 1))
    distance2 = ((columns - x) ** 2 + (rows - y) ** 2).min(axis=0)
    expected = np.exp(-distance2 / (2 * sigma**2))
    np.testing.assert_allclose(there[0, 0].numpy(), expected, atol=0.02)
    assert float(there[0, 0].max()) <= 1.0


@FEW
@given(data=st.data(), count=st.integers(2, 7))
def test_a_missing_end_is_neither_drawn_nor_counted(data: st.DataObject, count: int) -> None:
    """In any graph, in any order of edges: the root need not come first."""
    couples = [(a, b) for a in range(count) for b in range(count) if a != b]
    edges = tuple(
        data.draw(st.lists(st.sampled_from(couples), min_size=1, max_size=8, unique=True))
    )
    missing = data.draw(st.integers(0, count - 1))
    points = torch.rand(1, count, 2) * 60
    points[0, missing] = NAN
    layout = HeadLayout(count, edges, posture_graph=True)
    maps, known = draw_graph(points, layout, 16, 16, 4, 1.5)
    assert maps.shape[1] == known.shape[1] == layout.channels - layout.exported
    assert not maps.isnan().any()
    is_whole = [missing not in edge for edge in edges]
    assert known[0, : len(edges), 0, 0].tolist() == [float(whole) for whole in is_whole]
    assert not any(maps[0, n].any() for n, whole in enumerate(is_whole) if not whole)
    parts = [all(is_whole[n] for n in part) for part in layout.parts]
    rest = [float(part) for part in parts] + [float(all(is_whole)), 0.0]
    assert known[0, len(edges) :, 0, 0].tolist() == rest
    for at, part in enumerate(layout.parts):
        torch.testing.assert_close(
            maps[0, len(edges) + at], maps[0, list(part)].sum(dim=0), rtol=1e-5, atol=1e-6
        )


def test_two_keypoints_in_one_place_still_have_an_edge() -> None:
    points = torch.tensor([[[20.0, 20.0], [20.0, 20.0]]], requires_grad=True)
    maps, _ = draw_graph(points, HeadLayout(2, ((0, 1),), posture_graph=True), 12, 12, 4, 1.5)
    torch.testing.assert_close(maps[:, :1], draw_targets(points[:, :1], 12, 12, 4, 1.5)[0])


def test_the_loss_is_least_at_its_targets_and_sums_heads() -> None:
    chosen = TrainSettings(location_refinement=True, posture_graph=True)
    layout = HeadLayout(3, ((2, 0), (0, 1)), location_refinement=True, posture_graph=True)
    points = torch.tensor([[[40.0, 30.0], [60.0, 20.0], [21.0, 43.0]]])
    size = (HEIGHT, WIDTH, chosen.stride)
    perfect = torch.cat(
        [
            draw_targets(points, *size, chosen.sigma)[0],
            draw_offsets(points, *size, chosen.location_refinement_radius)[0],
            draw_graph(points, layout, *size, chosen.sigma)[0],
        ],
        dim=1,
    )
    assert perfect.shape[1] == layout.channels
    assert float(pose_loss([perfect], points, layout, chosen)) == 0.0
    drawn = perfect.clone()
    for channels in (layout.maps, layout.offsets, layout.graph):
        drawn[:, channels] += 0.5
        one = float(pose_loss([drawn], points, layout, chosen))
        both = float(pose_loss([drawn, drawn], points, layout, chosen))
        assert both == pytest.approx(2 * one) and one > 0
        drawn = perfect.clone()
