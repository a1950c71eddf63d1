"""What is exported: the decoder inside the graph, dropped channels, precisions, sizes, refusals."""

import csv
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from rtpose.errors import ConfigError, InputError, ModelError
from rtpose.estimator import Estimator, read_card
from rtpose.model_card import InputSpec, MapsSpec, golden_frames
from rtpose.peaks import decode_reference
from rtpose_train.export import export
from rtpose_train.exporting.deploy import drop_channels
from rtpose_train.exporting.graph_decoder import GraphDecoder
from rtpose_train.exporting.onnx_graph import to_graph
from rtpose_train.exporting.parity import disagreement, run_graph, run_network
from rtpose_train.networks.layout import HeadLayout
from rtpose_train.networks.macs import count_macs
from rtpose_train.networks.network import run_heads
from rtpose_train.networks.registry import build_network
from rtpose_train.training.settings import RunRecord, TrainSettings

ZOO = Path(__file__).parents[2] / "models" / "zoo"
MOUSE = ZOO / "openfield-mouse-mobilenetv2-0.35.pt"
F32 = NDArray[np.float32]


# --------------------------------------------------------------------- the decoder inside the graph


def gaussian(height: int, width: int, sigma: float, x: float, y: float) -> F32:
    rows, columns = np.mgrid[:height, :width]
    squared = (columns - x) ** 2 + (rows - y) ** 2
    plane: F32 = np.exp(-squared / (2 * sigma**2)).astype(np.float32)
    return plane


@st.composite
def scenes(draw: Callable[..., Any]) -> tuple[F32, float]:
    """Several maps of any small size: a peak anywhere, two, none, flat, spoiled, in any noise."""
    height, width = draw(st.integers(1, 30)), draw(st.integers(1, 30))
    sigma = draw(st.floats(0.4, 5.0))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    maps = []
    for tops in ((), (1.0,), (1.0,), (0.8, 0.7), (1e-4,), (1e6,)):
        plane = rng.normal(rng.choice([-0.2, 0, 0.3]), 1, (height, width))
        plane *= rng.choice([0.0, 1e-3, 0.02, 0.1, 0.5])
        for top in tops:
            x, y = rng.uniform(-1, width), rng.uniform(-1, height)
            plane += top * gaussian(height, width, sigma, x, y)
        maps.append(plane)
    spoiled = maps[1].copy()
    spoiled[rng.integers(height), rng.integers(width)] = draw(
        st.sampled_from([math.nan, math.inf, -math.inf])
    )
    return np.stack([*maps, spoiled]).astype(np.float32), sigma


def geometry(maps: F32, sigma: float, refinement: float | None = None) -> MapsSpec:
    height, width = maps.shape[1:]
    return MapsSpec(
        width=width,
        height=height,
        stride=4,
        offset_px=1.5,
        sigma=sigma,
        location_refinement=refinement,
    )


def assert_equals_reference(
    peaks: torch.Tensor, values: torch.Tensor, maps: F32, spec: MapsSpec, offsets: F32 | None = None
) -> None:
    expected, _ = decode_reference(maps, spec, offsets)
    cells = (expected[:, :2] - spec.offset_px) / spec.stride
    # Confidence is that of the nearest cell: between two, rounding decides in single precision.
    assume(offsets is not None or not (np.abs(cells % 1 - 0.5) < 1e-3).any())
    np.testing.assert_allclose(peaks[0].numpy(), expected[:, :2], atol=4 * 4e-3)
    np.testing.assert_allclose(values[0].numpy(), expected[:, 2], rtol=1e-5, atol=1e-6)


@given(scenes())
@settings(max_examples=200)
def test_the_graph_decodes_as_the_plain_reference(scene: tuple[F32, float]) -> None:
    maps, sigma = scene
    spec = geometry(maps, sigma)
    peaks, values = GraphDecoder(spec)(torch.from_numpy(maps)[None])
    assert_equals_reference(peaks, values, maps, spec)


@given(scenes(), st.integers(0, 99), st.sampled_from([0.0, math.nan, -math.inf]))
@settings(max_examples=50)
def test_the_graph_refines_as_the_plain_reference(
    scene: tuple[F32, float], seed: int, spoiled: float
) -> None:
    maps, sigma = scene
    spec = geometry(maps, sigma, 0.91)
    rng = np.random.default_rng(seed)
    offsets = rng.normal(0, 2, (2 * len(maps), *maps.shape[1:])).astype(np.float32)
    offsets[1] += np.float32(spoiled)
    peaks, values = GraphDecoder(spec)(
        torch.from_numpy(maps)[None], torch.from_numpy(offsets)[None]
    )
    assert_equals_reference(peaks, values, maps, spec, offsets)


@pytest.mark.parametrize(("height", "width"), [(48, 64), (2, 30)])
def test_onnx_runtime_decodes_as_the_plain_reference(height: int, width: int) -> None:
    rng = np.random.default_rng(0)
    places = itertools.product((0.0, width / 3 + 0.2, width - 0.8), (0.1, height / 2, height - 1))
    planes = [gaussian(height, width, 1.5, x, y) for x, y in places]
    planes += [planes[0] * 0, planes[0] * np.nan, planes[0] * 0 + 0.5, planes[0] - 2]
    maps = np.stack(planes) + rng.normal(0, 0.01, (len(planes), 1, 1)).astype(np.float32)
    spec = geometry(maps, 1.5)
    inputs = {"maps": torch.from_numpy(maps)[None]}
    graph = to_graph(GraphDecoder(spec), inputs, ("peaks", "peak_vals"))
    # Nothing but what execution providers for GPUs have.
    assert {node.domain for node in graph.graph.node} == {""}
    assert not {node.op_type for node in graph.graph.node} & {"Loop", "If", "NonZero", "Scan"}
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    peaks, values = session.run(None, {"maps": maps[None]})
    expected, _ = decode_reference(maps, spec)
    np.testing.assert_allclose(peaks[0], expected[:, :2], atol=0.01)
    np.testing.assert_allclose(values[0], expected[:, 2], atol=1e-5)


# --------------------------------------------------------------------------------- dropped channels

LAYOUTS = [
    HeadLayout(3, ((0, 1), (1, 2)), posture_graph=True),
    HeadLayout(3, ((0, 1),), location_refinement=True, posture_graph=True),
]
NETWORKS = [
    ("mobilenetv2-0.35", 4),
    ("stacked-densenet-8x2", 4),
    ("hourglass-8x2", 4),
    ("leap", 1),
    ("resnet50", 8),
]


def _weights(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("layout", LAYOUTS, ids=["graph", "offsets and graph"])
@pytest.mark.parametrize(("model", "stride"), NETWORKS, ids=[name for name, _ in NETWORKS])
def test_what_nobody_reads_costs_nothing_and_the_rest_stays(
    model: str, stride: int, layout: HeadLayout
) -> None:
    torch.manual_seed(0)
    # A size that networks must pad, so that their maps are cut out of larger ones.
    spec = InputSpec(width_px=72, height_px=40, colour="gray")
    network = build_network(model, layout.channels, 1, stride).eval()
    image = torch.rand(1, 1, 40, 72) * 2 - 1
    with torch.no_grad():
        heads = run_heads(network, image)
        before = _weights(network), count_macs(network, 1, 40, 72)
        drop_channels(network, layout, spec)
        kept = run_heads(network, image)
    torch.testing.assert_close(kept[-1], heads[-1][:, : layout.exported], rtol=1e-4, atol=1e-6)
    for one, other in zip(kept[:-1], heads[:-1], strict=True):
        torch.testing.assert_close(one, other)
    assert _weights(network) < before[0]
    assert count_macs(network, 1, 40, 72) < before[1]


# ------------------------------------------------------------------------------------ whole exports


def _write_run(folder: Path, network: nn.Module, settings: TrainSettings, names: int) -> Path:
    """Write a run folder as training leaves it, with these weights."""
    folder.mkdir()
    skeleton = {"names": [f"k{n}" for n in range(names)], "edges": [["k0", "k1"]]}
    record = RunRecord(
        settings=settings,
        skeleton=skeleton,
        labels={"project": "p"},
        start_weights="random",
        trained_on={"device": "cpu"},
    )
    (folder / "run.json").write_text(record.model_dump_json())
    torch.save(network.state_dict(), folder / "best.pt")
    return folder


@pytest.fixture(scope="module")
def mouse_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed mouse network as a run for small inputs."""
    network = build_network("mobilenetv2-0.35", 4, 1, 4)
    network.load_state_dict(torch.load(MOUSE, weights_only=True))
    settings = TrainSettings(width_px=160, height_px=128)
    return _write_run(tmp_path_factory.mktemp("runs") / "mouse", network, settings, 4)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, mouse_run: Path) -> Path:
    """Generated frames as a project, and the run's split of it."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    recording = folder / "labeled-data" / "shapes"
    recording.mkdir(parents=True)
    (folder / "config.yaml").write_text(
        "Task: shapes\nscorer: me\ndate: d\nbodyparts:\n- k0\n- k1\n- k2\n- k3\nskeleton: []\n"
        "video_sets: {}\nproject_path: x\n"
    )
    parts = [f"k{n}" for n in range(4) for _ in "xy"]
    rows = [["scorer", *["me"] * 8], ["bodyparts", *parts], ["coords", *["x", "y"] * 4]]
    frames = golden_frames(InputSpec(width_px=160, height_px=128, colour="gray"), 1, 12)
    for number, frame in enumerate(frames):
        cv2.imwrite(str(recording / f"img{number:02d}.png"), frame)
        rows.append([f"labeled-data/shapes/img{number:02d}.png", *["20"] * 8])
    with (recording / "CollectedData_me.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    names = [row[0] for row in rows[3:]]
    split = {"train": names[:6], "validation": names[6:10], "test": names[10:]}
    (mouse_run / "split.json").write_text(json.dumps(split))
    return folder


@pytest.mark.parametrize(
    ("precision", "decode"), [("fp32", "graph"), ("fp16", "host"), ("int8", "host")]
)
def test_every_precision_runs_live_and_says_how_far_it_is_off(
    mouse_run: Path, project: Path, tmp_path: Path, precision: str, decode: str
) -> None:
    out = tmp_path / "model.onnx"
    # What a float network sees in drawn shapes is often weak, and integers blur it.
    limit: dict[str, Any] = {"max_disagreement_px": 20.0} if precision == "int8" else {}
    export(mouse_run, out, precision=precision, decode=decode, calibrate=project, **limit)  # type: ignore[arg-type] # parametrised
    live = Estimator(out, frame=(128, 160, 1))
    assert (live.card.precision, live.card.decode) == (precision, decode)
    assert live.verify() <= 1
    stated = live.card.provenance["disagreement_with_torch"]
    assert stated["on"] == "validation frames"
    assert stated["frames"] == 4
    network = build_network("mobilenetv2-0.35", 4, 1, 4)
    network.load_state_dict(torch.load(mouse_run / "best.pt", weights_only=True))
    frames = golden_frames(live.card.input, 1, 12)[6:10]
    expected = run_network(network, HeadLayout(4), frames)
    beside = disagreement(run_graph(str(out), frames), expected, live.card.maps, 0.3)
    assert beside.keypoints == stated["keypoints"] > 0
    assert beside.mean_px == pytest.approx(stated["mean_px"], abs=1e-3)
    if precision == "fp32":
        assert stated["max_px"] <= 0.05
    for frame in frames:  # through the live service, as it ran here
        found = live.estimate(frame[..., 0])[0]
        offline = run_graph(str(out), frame[None])
        if decode == "graph":
            np.testing.assert_array_equal(found[:, :2], offline["peaks"][0])


def test_int8_weighs_less_and_needs_frames(mouse_run: Path, project: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--calibrate PROJECT"):
        export(mouse_run, tmp_path / "a.onnx", precision="int8")
    with pytest.raises(ModelError, match=r"off torch's by .* allowed 1e-06.*--max-disagreement-px"):
        export(
            mouse_run,
            tmp_path / "b.onnx",
            precision="int8",
            calibrate=project,
            max_disagreement_px=1e-6,
        )
    assert list(tmp_path.iterdir()) == []


def test_another_size_is_exported_with_its_own_maps(mouse_run: Path, tmp_path: Path) -> None:
    model = export(mouse_run, tmp_path / "small.onnx", size=(96, 64))
    card = read_card(model)
    assert (card.input.width_px, card.input.height_px) == (96, 64)
    assert (card.maps.width, card.maps.height) == (24, 16)
    Estimator(model, frame=(480, 640, 3)).verify()
    with pytest.raises(ConfigError, match="width_px"):
        export(mouse_run, tmp_path / "none.onnx", size=(0, 64))


def test_all_senseless_requests_are_said_at_once(mouse_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "there.onnx"
    out.touch()
    with pytest.raises(InputError) as caught:
        export(
            mouse_run,
            out,
            min_confidence=2,
            precision="fp8",  # type: ignore[arg-type]
            decode="gpu",  # type: ignore[arg-type]
            max_disagreement_px=-1,
        )
    for said in ("exists", "min_confidence is 2", "'fp8'", "'gpu'", "is for int8", "above 0"):
        assert said in str(caught.value)


@pytest.mark.parametrize("decode", ["host", "graph"])
def test_location_refinement_and_posture_graph_end_up_where_they_belong(
    tmp_path: Path, decode: str
) -> None:
    torch.manual_seed(1)
    settings = TrainSettings(
        model="stacked-densenet-8x2",
        width_px=64,
        height_px=48,
        colour="rgb",
        location_refinement=True,
        posture_graph=True,
    )
    layout = HeadLayout(2, ((0, 1),), location_refinement=True, posture_graph=True)
    network = build_network(settings.model, layout.channels, 3, 4)
    head = list(network.modules())[-1]
    assert isinstance(head, nn.Conv2d)
    with torch.no_grad():  # so that random maps are as high as trained ones
        head.weight *= 255
    run = _write_run(tmp_path / "run", network, settings, 2)
    model = export(run, decode=decode)  # type: ignore[arg-type] # parametrised
    live = Estimator(model, frame=(48, 64, 3))
    assert live.verify() <= 1
    assert live.card.maps.location_refinement == 1
    graph = onnx.load(model).graph
    shapes = {
        output.name: [d.dim_value for d in output.type.tensor_type.shape.dim]
        for output in graph.output
    }
    raw = {"maps": [1, 2, 12, 16], "offsets": [1, 4, 12, 16]}
    assert shapes == (raw if decode == "host" else {"peaks": [1, 2, 2], "peak_vals": [1, 2]})
    frame = golden_frames(live.card.input, 3, 1)
    frame[..., 0] //= 2  # colours that differ
    expected = run_network(network.eval(), layout, frame)
    reference, _ = decode_reference(expected["maps"][0], live.card.maps, expected["offsets"][0])
    np.testing.assert_allclose(live.estimate(frame[0, ..., ::-1].copy())[0], reference, atol=1e-3)


def test_a_graph_whose_places_nobody_could_check_is_refused(tmp_path: Path) -> None:
    network = build_network("mobilenetv2-0.35", 2, 1, 4)  # draws nearly nothing yet
    settings = TrainSettings(width_px=32, height_px=32)
    run = _write_run(tmp_path / "run", network, settings, 2)
    with pytest.raises(ModelError, match="export with --decode host"):
        export(run, decode="graph")
