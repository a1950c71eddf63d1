"""The estimator, with graphs whose maps are the frame itself: no trained net, exact truth."""

import hashlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from rtpose.errors import InputError, ModelError, ProviderError
from rtpose.estimator import Estimator, read_card
from rtpose.model_card import METADATA_KEY, Golden, InputSpec, MapsSpec, ModelCard, golden_frames

Colour = Literal["gray", "rgb", "bgr"]
U8 = NDArray[np.uint8]

STRIDE, SIGMA = 4, 1.5
WIDTH, HEIGHT = 96, 64
NAMES = {"gray": ["blob"], "rgb": ["red", "green", "blue"], "bgr": ["blue", "green", "red"]}


def sampling_graph(spec: InputSpec, maps_shape: tuple[int, ...]) -> onnx.GraphProto:
    """Every fourth pixel of every channel, 0..1: a bright Gaussian in the frame is one in a map."""
    ints = {
        "starts": [0, 0],
        "ends": [spec.height_px, spec.width_px],
        "axes": [1, 2],
        "steps": [STRIDE, STRIDE],
    }
    constants = [
        helper.make_tensor(name, TensorProto.INT64, [2], values) for name, values in ints.items()
    ]
    constants.append(helper.make_tensor("white", TensorProto.FLOAT, [], [255.0]))
    nodes = [
        helper.make_node("Slice", ["image", *ints], ["samples"]),
        helper.make_node("Cast", ["samples"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["floats", "white"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["maps"], perm=[0, 3, 1, 2]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, spec.shape)
    maps = helper.make_tensor_value_info("maps", TensorProto.FLOAT, maps_shape)
    return helper.make_graph(nodes, "sampling", [image], [maps], constants)


def sampling_card(colour: Colour = "gray") -> ModelCard:
    spec = InputSpec(width_px=WIDTH, height_px=HEIGHT, colour=colour)
    frames = golden_frames(spec, 1, 2)
    cells = [(spec.channels - 1, 2, 3), (0, 15, 23), (0, 0, 0)]
    values = [[float(f[r * STRIDE, c * STRIDE, k] / 255) for k, r, c in cells] for f in frames]
    return ModelCard(
        name="sampling",
        network="none",
        skeleton={"names": NAMES[colour]},
        input=spec,
        maps=MapsSpec(width=WIDTH // STRIDE, height=HEIGHT // STRIDE, stride=STRIDE, sigma=SIGMA),
        min_confidence=0.3,
        golden=Golden(seed=1, count=2, cells=cells, values=values),
    )


def write(path: Path, graph: onnx.GraphProto, card: ModelCard | None) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if card is not None:
        helper.set_model_props(model, {METADATA_KEY: card.to_metadata()})
    onnx.save(model, str(path))
    return path


def write_sampling(path: Path, card: ModelCard) -> Path:
    shape = (1, len(card.keypoints().names), card.maps.height, card.maps.width)
    return write(path, sampling_graph(card.input, shape), card)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    colours: tuple[Colour, ...] = ("gray", "rgb", "bgr")
    return {c: write_sampling(folder / f"{c}.onnx", sampling_card(c)) for c in colours}


def blob(height: int, width: int, x: float, y: float, sigma_x: float, sigma_y: float) -> U8:
    rows, columns = np.mgrid[:height, :width]
    exponent = ((columns - x) / sigma_x) ** 2 + ((rows - y) / sigma_y) ** 2
    drawn: U8 = np.round(255 * np.exp(-exponent / 2)).astype(np.uint8)
    return drawn


# ------------------------------------------------------------------------------ frame to keypoints


@given(data=st.data(), colour=st.sampled_from(["gray", "rgb", "bgr"]), grey_camera=st.booleans())
def test_a_blob_is_found_at_its_pixel_of_the_full_frame(
    models: dict[str, Path], data: st.DataObject, colour: str, grey_camera: bool
) -> None:
    # Not so long that the blob is cut off by the bars of the letterbox.
    seen_height = data.draw(st.integers(40, 200))
    seen_width = round(seen_height * data.draw(st.floats(0.7, 2.3)))
    left, right, top, bottom = (data.draw(st.integers(0, 50)) for _ in range(4))
    height, width = top + seen_height + bottom, left + seen_width + right
    crop = (left, top, seen_width, seen_height)
    frame = (height, width, 1 if grey_camera else 3)
    estimator = Estimator(models[colour], frame=frame, crop=crop)
    placement = estimator.placement
    # As large in the frame as the model's Gaussian is in its input, and whole in the crop.
    sigma_x, sigma_y = (SIGMA * STRIDE * scale for scale in (placement.scale_x, placement.scale_y))
    room_x, room_y = seen_width / 2 - 3 * sigma_x, seen_height / 2 - 3 * sigma_y
    x = left + (seen_width - 1) / 2 + room_x * data.draw(st.floats(-1, 1))
    y = top + (seen_height - 1) / 2 + room_y * data.draw(st.floats(-1, 1))
    pixels = blob(height, width, x, y, sigma_x, sigma_y)
    keypoints, valid = estimator.estimate(pixels if grey_camera else np.dstack([pixels] * 3))
    assert valid.all()
    # A few hundredths of a cell: eight bits, and whole pixels where the frame is scaled.
    tolerance = 0.05 * STRIDE * max(placement.scale_x, placement.scale_y)
    for found in keypoints:
        assert found[:2] == pytest.approx((x, y), abs=tolerance)
        assert found[2] > 0.6


@pytest.mark.parametrize("colour", ["rgb", "bgr"])
@pytest.mark.parametrize("scale", [1, 2])
def test_colours_arrive_in_the_order_of_the_model(
    models: dict[str, Path], colour: Colour, scale: int
) -> None:
    height, width, sigma = HEIGHT * scale, WIDTH * scale, SIGMA * STRIDE * scale
    places = {"blue": (30.0, 31.0), "green": (50.0, 33.0), "red": (70.0, 35.0)}
    planes = [blob(height, width, x * scale, y * scale, sigma, sigma) for x, y in places.values()]
    estimator = Estimator(models[colour], frame=(height, width, 3))
    keypoints, valid = estimator.estimate(np.dstack(planes))
    assert valid.all()
    found = dict(zip(estimator.card.keypoints().names, keypoints[:, :2] / scale, strict=True))
    for name, place in places.items():
        assert found[name] == pytest.approx(place, abs=0.3)


def test_a_grey_model_weighs_colours_as_eyes_do(models: dict[str, Path]) -> None:
    estimator = Estimator(models["gray"], frame=(HEIGHT, WIDTH, 3), min_confidence=0)
    confidences = []
    for channel in range(3):
        pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        pixels[..., channel] = blob(HEIGHT, WIDTH, 48, 32, 6, 6)
        confidences.append(estimator.estimate(pixels)[0][0, 2])
    assert confidences == pytest.approx([0.114, 0.587, 0.299], abs=0.01)  # blue, green, red


def test_a_frame_of_the_input_size_goes_in_unchanged(models: dict[str, Path]) -> None:
    estimator = Estimator(models["bgr"], frame=(HEIGHT, WIDTH, 3))
    pixels = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    estimator.load(pixels)
    assert np.array_equal(estimator._input[0], pixels)


def test_the_bars_beside_a_frame_stay_black(models: dict[str, Path]) -> None:
    estimator = Estimator(models["gray"], frame=(200, 200, 1))
    estimator.verify()
    estimator.load(np.full((200, 200), 255, np.uint8))
    row = estimator._input[0, HEIGHT // 2, :, 0]
    assert row[: (WIDTH - HEIGHT) // 2].max() == 0
    assert row[-((WIDTH - HEIGHT) // 2) :].max() == 0
    assert row[(WIDTH - HEIGHT) // 2 : -((WIDTH - HEIGHT) // 2)].min() == 255


def test_a_view_into_a_larger_array_is_read_right(models: dict[str, Path]) -> None:
    whole = np.random.default_rng(2).integers(0, 256, (150, 200, 3), np.uint8)
    view = whole[10:130, 20:180]
    estimator = Estimator(models["rgb"], frame=(120, 160, 3), min_confidence=0)
    from_view = estimator.estimate(view)[0]
    np.testing.assert_array_equal(from_view, estimator.estimate(view.copy())[0])


def test_frames_do_not_mix(models: dict[str, Path]) -> None:
    estimator = Estimator(models["gray"], frame=(HEIGHT, WIDTH, 1))
    first, second = blob(HEIGHT, WIDTH, 20, 30, 6, 6), blob(HEIGHT, WIDTH, 70.5, 33, 6, 6)
    found = [estimator.estimate(pixels)[0] for pixels in (first, second, first)]
    assert found[1][0, :2] == pytest.approx((70.5, 33), abs=0.1)
    np.testing.assert_array_equal(found[0], found[2])


def test_the_threshold_is_the_cards_unless_one_is_given(models: dict[str, Path]) -> None:
    faint = (blob(HEIGHT, WIDTH, 48, 32, 6, 6) * 0.4).astype(np.uint8)
    frame = (HEIGHT, WIDTH, 1)
    assert Estimator(models["gray"], frame=frame).estimate(faint)[1].tolist() == [1]
    stricter = Estimator(models["gray"], frame=frame, min_confidence=0.5)
    keypoints, valid = stricter.estimate(faint)
    assert valid.tolist() == [0]
    assert keypoints[0] == pytest.approx([48, 32, 0.4], abs=0.05)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((HEIGHT, WIDTH, 3), np.uint8),
        np.zeros((HEIGHT, WIDTH, 1), np.uint8),
        np.zeros((WIDTH, HEIGHT), np.uint8),
        np.zeros((HEIGHT, WIDTH), np.float32),
    ],
)
def test_a_frame_of_another_kind_is_refused(models: dict[str, Path], pixels: Any) -> None:
    estimator = Estimator(models["gray"], frame=(HEIGHT, WIDTH, 1))
    with pytest.raises(InputError, match=rf"expected uint8 \({HEIGHT}, {WIDTH}\)"):
        estimator.load(pixels)


# ---------------------------------------------------------------------------------------- requests


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"frame": (64, 96, 2)}, "1 or 3 channels"),
        ({"frame": (0, 96, 1)}, "at least 1x1"),
        ({"threads": 0}, "threads is 0"),
        ({"provider": "tensorrt"}, "provider is 'tensorrt', allowed: cpu, cuda"),
        ({"crop": (90, 0, 20, 20)}, "does not lie inside the 96x64 frame"),
        ({"min_confidence": 2.0}, "min_confidence is 2.0"),
    ],
)
def test_senseless_requests_are_refused(
    models: dict[str, Path], change: dict[str, Any], said: str
) -> None:
    request: dict[str, Any] = {"frame": (64, 96, 1)} | change
    with pytest.raises(InputError, match=said):
        Estimator(models["gray"], **request)


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a GPU: CUDA may well start")
def test_cuda_is_never_replaced_by_the_cpu(models: dict[str, Path]) -> None:
    with pytest.raises(ProviderError, match=r'pip install "rtpose\[cuda\]"'):
        Estimator(models["gray"], frame=(64, 96, 1), provider="cuda")


# ------------------------------------------------------------------------------------- model files


def test_the_card_is_read_and_the_file_is_identified(models: dict[str, Path]) -> None:
    estimator = Estimator(models["rgb"], frame=(64, 96, 3))
    assert estimator.card == read_card(models["rgb"]) == sampling_card("rgb")
    assert estimator.model_hash == hashlib.sha256(models["rgb"].read_bytes()).hexdigest()
    assert estimator.provider == "cpu"


def refused(model: Path, said: str) -> None:
    for use in (read_card, lambda path: Estimator(path, frame=(64, 96, 1))):
        with pytest.raises(ModelError, match=said) as error:
            use(model)
        assert str(model) in str(error.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none.onnx", "No such file")
    refused(tmp_path, "Is a directory|Permission denied")


@pytest.mark.parametrize("keep", [0, 1, 100, -20])
def test_a_damaged_file_is_refused(models: dict[str, Path], tmp_path: Path, keep: int) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(models["gray"].read_bytes()[:keep])
    refused(damaged, "rtpose export RUN_FOLDER")


def test_bytes_that_are_no_model_are_refused(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.onnx"
    garbage.write_bytes(np.random.default_rng(0).bytes(5000))
    refused(garbage, "not a model that ONNX Runtime can run")


def test_a_model_without_a_card_is_refused(tmp_path: Path) -> None:
    card = sampling_card()
    graph = sampling_graph(card.input, (1, 1, HEIGHT // STRIDE, WIDTH // STRIDE))
    refused(write(tmp_path / "bare.onnx", graph, None), "no rtpose model card inside")


def test_a_graph_that_its_card_does_not_describe_is_refused(tmp_path: Path) -> None:
    card = sampling_card()
    shape = (1, 1, HEIGHT // STRIDE, WIDTH // STRIDE)
    other_input = card.model_copy(
        update={"input": InputSpec(width_px=WIDTH, height_px=HEIGHT + 4, colour="gray")}
    )
    two_keypoints = card.model_copy(update={"skeleton": {"names": ["nose", "tail"]}})
    graph = sampling_graph(card.input, shape)
    refused(write(tmp_path / "a.onnx", graph, other_input), r"input is .*\[1, 64, 96, 1\]")
    refused(write(tmp_path / "b.onnx", graph, two_keypoints), r"output is .*\[1, 1, 16, 24\]")

    renamed = sampling_graph(card.input, shape)
    renamed.node[-1].output[0] = renamed.output[0].name = "heatmaps"
    refused(write(tmp_path / "c.onnx", renamed, card), "output is 'heatmaps'")

    floats = sampling_graph(card.input, shape)
    floats.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    refused(write(tmp_path / "d.onnx", floats, card), r"input is 'image' tensor\(float\)")


@pytest.mark.parametrize("cells", [[], [(0, 0, 24)], [(0, -1, 0)], [(1, 0, 0)]])
def test_golden_cells_outside_the_maps_are_refused(
    tmp_path: Path, cells: list[tuple[int, int, int]]
) -> None:
    golden = Golden(seed=1, count=1, cells=cells, values=[[0.5] * len(cells)])
    card = sampling_card().model_copy(update={"golden": golden})
    refused(write_sampling(tmp_path / "golden.onnx", card), "golden cells")


def test_a_model_that_answers_as_when_it_was_exported_is_verified(models: dict[str, Path]) -> None:
    for path in models.values():
        assert Estimator(path, frame=(64, 96, 1)).verify() < 1e-3


@pytest.mark.parametrize(("wrong_by", "accepted"), [(5e-4, True), (0.01, False)])
def test_a_model_that_answers_otherwise_is_refused(
    tmp_path: Path, wrong_by: float, accepted: bool
) -> None:
    card = sampling_card()
    card.golden.values[1][2] += wrong_by
    estimator = Estimator(write_sampling(tmp_path / "other.onnx", card), frame=(64, 96, 1))
    if accepted:
        assert estimator.verify() == pytest.approx(wrong_by / 1e-3, rel=1e-3)
    else:
        with pytest.raises(ModelError, match=r"maps differ by 0\.01, allowed 0\.001"):
            estimator.verify()


def test_a_model_that_answers_nan_is_refused(tmp_path: Path) -> None:
    card = sampling_card()
    graph = sampling_graph(card.input, (1, 1, HEIGHT // STRIDE, WIDTH // STRIDE))
    graph.initializer[-1].float_data[0] = np.nan
    estimator = Estimator(write(tmp_path / "nan.onnx", graph, card), frame=(64, 96, 1))
    with pytest.raises(ModelError, match="maps differ by inf"):
        estimator.verify()
    keypoints, valid = estimator.estimate(np.full((64, 96), 99, np.uint8))
    assert valid.tolist() == [0]
    assert np.isnan(keypoints[0, :2]).all()


# -------------------------------------------------------- offsets, and decoders inside the graph


def with_outputs(outputs: dict[str, NDArray[np.float32]], spec: InputSpec) -> onnx.GraphProto:
    """Return a graph that answers the same to every image."""
    constants = [numpy_helper.from_array(value, f"{name}_") for name, value in outputs.items()]
    nodes = [helper.make_node("Identity", [f"{name}_"], [name]) for name in outputs]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, spec.shape)
    found = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape)
        for name, value in outputs.items()
    ]
    return helper.make_graph(nodes, "constant", [image], found, constants)


def graph_card(**changes: Any) -> ModelCard:
    """Return the card of a grey model that decodes inside; its second keypoint is nowhere."""
    golden = Golden(
        seed=1,
        count=2,
        cells=[],
        values=[[], []],
        peaks=[[(0, 20.5, 30.25, 0.75)], [(0, 20.5, 30.25, 0.75), (2, 50.0, 8.0, 0.2)]],
    )
    given = sampling_card().model_dump() | {
        "skeleton": {"names": ["nose", "ear", "tail"]},
        "decode": "graph",
        "golden": golden.model_dump(),
    }
    return ModelCard.model_validate(given | changes)


PEAKS = np.array([[[20.5, 30.25], [np.nan, np.nan], [50.0, 8.0]]], np.float32)
VALUES = np.array([[0.75, 0.0, 0.2]], np.float32)


def test_keypoints_that_the_graph_found_come_back_in_the_frame(tmp_path: Path) -> None:
    card = graph_card()
    model = write(
        tmp_path / "graph.onnx",
        with_outputs({"peaks": PEAKS, "peak_vals": VALUES}, card.input),
        card,
    )
    estimator = Estimator(model, frame=(200, 200, 3), crop=(10, 20, 150, 100))
    assert estimator.verify() < 1e-3
    keypoints, valid = estimator.estimate(np.zeros((200, 200, 3), np.uint8))
    ax, bx, ay, by = estimator.placement.to_frame
    assert keypoints[0] == pytest.approx((ax * 20.5 + bx, ay * 30.25 + by, 0.75))
    assert np.isnan(keypoints[1, :2]).all()
    assert keypoints[2] == pytest.approx((ax * 50 + bx, ay * 8 + by, 0.2))
    assert keypoints[1, 2] == 0
    assert valid.tolist() == [1, 0, 0]
    stricter = Estimator(model, frame=(64, 96, 1), min_confidence=0.1)
    assert stricter.estimate(np.zeros((64, 96), np.uint8))[1].tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (0.2, 0.0, r"places differ by 0\.2 px, allowed 0\.05 px"),
        (np.nan, 0.0, "places differ by inf"),
        (0.0, 0.01, r"confidences differ by 0\.01, allowed 0\.001"),
    ],
)
def test_a_graph_that_finds_keypoints_elsewhere_is_refused(
    tmp_path: Path, place: float, value: float, said: str
) -> None:
    card, values = graph_card(), VALUES.copy()
    values[0, 2] += value
    graph = with_outputs({"peaks": PEAKS + np.float32(place), "peak_vals": values}, card.input)
    estimator = Estimator(write(tmp_path / "graph.onnx", graph, card), frame=(64, 96, 1))
    with pytest.raises(ModelError, match=said):
        estimator.verify()


def test_a_card_that_names_the_other_kind_of_decoding_is_refused(tmp_path: Path) -> None:
    maps = sampling_card()
    shape = (1, 1, maps.maps.height, maps.maps.width)
    refused(
        write(tmp_path / "a.onnx", sampling_graph(maps.input, shape), graph_card()),
        r"output is 'maps' .* its card says 'peaks'",
    )
    peaks = with_outputs({"peaks": PEAKS[:, :1], "peak_vals": VALUES[:, :1]}, maps.input)
    refused(write(tmp_path / "b.onnx", peaks, maps), r"output is 'peaks'.* its card says 'maps'")


OFFSETS_SCALE = 7.2801 / 8  # DeepLabCut's unit of px, over its stride


def refined_model(path: Path, wrong_by: float = 0.0) -> Path:
    """Write a model with offsets of a quarter cell to the right, half a cell up."""
    card = sampling_card()
    shape = (1, 1, card.maps.height, card.maps.width)
    graph = sampling_graph(card.input, shape)
    offsets = np.empty((1, 2, *shape[2:]), np.float32)
    offsets[0, 0], offsets[0, 1] = 0.25 / OFFSETS_SCALE, -0.5 / OFFSETS_SCALE
    graph.initializer.append(numpy_helper.from_array(offsets, "drawn"))
    graph.node.append(helper.make_node("Identity", ["drawn"], ["offsets"]))
    graph.output.append(helper.make_tensor_value_info("offsets", TensorProto.FLOAT, offsets.shape))
    pair = (float(offsets[0, 0, 0, 0]) + wrong_by, float(offsets[0, 1, 0, 0]))
    golden = card.golden.model_copy(update={"offsets": [[pair] * 3] * 2})
    maps = card.maps.model_copy(update={"location_refinement": OFFSETS_SCALE, "offset_px": 2.0})
    return write(path, graph, card.model_copy(update={"golden": golden, "maps": maps}))


def test_offsets_move_the_keypoint_from_the_largest_cell(tmp_path: Path) -> None:
    estimator = Estimator(refined_model(tmp_path / "model.onnx"), frame=(HEIGHT, WIDTH, 1))
    assert estimator.verify() < 1
    keypoints, valid = estimator.estimate(blob(HEIGHT, WIDTH, 41, 30, 6, 6))
    # The cell nearest to (41, 30) is (10, 7) or (10, 8); its middle is at offset_px + stride * i.
    x, y = 2 + STRIDE * (10 + 0.25), [2 + STRIDE * (row - 0.5) for row in (7, 8)]
    assert keypoints[0, 0] == pytest.approx(x, abs=1e-4)
    assert min(abs(keypoints[0, 1] - y)) < 1e-4
    assert valid.tolist() == [1]


def test_offsets_that_differ_from_the_golden_ones_are_refused(tmp_path: Path) -> None:
    model = refined_model(tmp_path / "model.onnx", wrong_by=0.1)
    with pytest.raises(ModelError, match=r"offsets differ by 0\.364 px, allowed 0\.05 px"):
        Estimator(model, frame=(HEIGHT, WIDTH, 1)).verify()


def test_warming_up_leaves_the_next_frame_alone(models: dict[str, Path]) -> None:
    estimator = Estimator(models["gray"], frame=(HEIGHT, WIDTH, 1), threads=2)
    estimator.warm_up(3)
    keypoints, _ = estimator.estimate(blob(HEIGHT, WIDTH, 40.25, 30.5, 6, 6))
    assert keypoints[0, :2] == pytest.approx((40.25, 30.5), abs=0.1)
