"""What a network learns to draw is what the live service reads."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rtpose.model_card import MapsSpec, Placement
from rtpose_train.decode import decode, errors_px
from rtpose_train.targets import draw_targets, masked_loss

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
