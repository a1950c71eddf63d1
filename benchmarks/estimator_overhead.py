"""What rtpose adds to the bare model call: scaling a frame in, and decoding the maps.

    python -m benchmarks estimator_overhead

Every frame goes through the bare call (``session.run`` on a ready input, as anybody would write it,
with the same number of threads) and through `Estimator.load`, `infer`, `decode`, in turn; what
rtpose adds is ``load`` + ``decode`` of the same frame. The model is the mouse model; for frames of
256x256 the same network with its input made that size. Frames are those of the mouse video where
the data is (see RTPOSE_DATA), else generated ones without a mouse: then every map is noise, which
is the decoder's worst case.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

from benchmarks import PERCENTILES, summary_us, table
from rtpose.clock import now_ns
from rtpose.estimator import Estimator, read_card
from rtpose.model_card import INPUT_NAME, MAPS_NAME, METADATA_KEY, Golden, InputSpec, golden_frames

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "models" / "zoo" / "openfield-mouse-mobilenetv2-0.35.onnx"
VIDEO = "dlc-openfield-mouse/videos/m3v1mp4.mp4"
FRAMES, ROUNDS, WARM_UP = 60, 8, 20
STAGES = ("bare session.run", "load", "infer", "decode", "load + decode")

U8 = NDArray[np.uint8]


def resized(model: Path, width: int, height: int, out: Path) -> Path:
    """Write the same network with another input size."""
    card = read_card(model)
    cells = (round(width / card.maps.stride), round(height / card.maps.stride))
    changed = card.model_copy(
        update={
            "input": card.input.model_copy(update={"width_px": width, "height_px": height}),
            "maps": card.maps.model_copy(update={"width": cells[0], "height": cells[1]}),
        }
    )
    graph = onnx.load(str(model))
    del graph.graph.value_info[:]
    _set_shape(graph.graph.input[0], changed.input.shape)
    _set_shape(graph.graph.output[0], (1, len(card.keypoints().names), cells[1], cells[0]))
    for tensor in graph.graph.initializer:  # the one shape that the exporter wrote as a constant
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.int64 and values.tolist()[-2:] == [
            card.input.height_px,
            card.input.width_px,
        ]:
            values = np.array([*values[:-2], height, width])
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    golden = _golden(graph.SerializeToString(), changed.input)
    card = changed.model_copy(update={"golden": golden})
    onnx.helper.set_model_props(graph, {METADATA_KEY: card.to_metadata()})
    onnx.save(graph, str(out))
    return out


def _golden(graph: bytes, spec: InputSpec) -> Golden:
    """Ask the resized network for its own answer, which the rig verifies when it starts."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    maps = session.run([MAPS_NAME], {INPUT_NAME: golden_frames(spec, 1, 1)})[0]
    row, column = np.unravel_index(maps[0, 0].argmax(), maps[0, 0].shape)
    cell = (0, int(row), int(column))
    return Golden(seed=1, count=1, cells=[cell], values=[[float(maps[0][cell])]])


def _set_shape(value: Any, shape: tuple[int, ...]) -> None:
    for dimension, size in zip(value.type.tensor_type.shape.dim, shape, strict=True):
        dimension.dim_value = size


def frames(width: int, height: int) -> tuple[list[U8], str]:
    """Return colour frames as a camera gives them, and where they come from."""
    video = Path(os.environ.get("RTPOSE_DATA", ROOT.parent / "shared" / "data")) / VIDEO
    if video.exists():
        capture = cv2.VideoCapture(str(video))
        read = [capture.read()[1] for _ in range(FRAMES)]
        capture.release()
        return [np.asarray(cv2.resize(f, (width, height)), np.uint8) for f in read], "mouse video"
    spec = InputSpec(width_px=width, height_px=height, colour="bgr")
    return list(golden_frames(spec, 1, FRAMES)), "generated, no mouse"


def measure(
    model: Path, pixels: list[U8], crop: tuple[int, int, int, int] | None = None
) -> dict[str, dict[str, float]]:
    """Time every stage on every frame, `ROUNDS` times."""
    shape = pixels[0].shape
    estimator = Estimator(
        model,
        frame=(shape[0], shape[1], 1 if len(shape) == 2 else 3),
        crop=crop,
        threads=1,
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    bare = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    ready = golden_frames(estimator.card.input, 1, 1)
    count = len(estimator.card.keypoints().names)
    keypoints, valid = np.empty((count, 3), np.float32), np.empty(count, np.uint8)
    estimator.warm_up(WARM_UP)
    stamps = []
    for frame in pixels * ROUNDS:
        bare_start_ns = now_ns()
        bare.run([MAPS_NAME], {INPUT_NAME: ready})
        bare_ns = now_ns() - bare_start_ns
        start_ns = now_ns()
        estimator.load(frame)
        loaded_ns = now_ns()
        estimator.infer()
        inferred_ns = now_ns()
        estimator.decode(keypoints, valid)
        end_ns = now_ns()
        load_ns, decode_ns = loaded_ns - start_ns, end_ns - inferred_ns
        stamps.append((bare_ns, load_ns, inferred_ns - loaded_ns, decode_ns, load_ns + decode_ns))
    return dict(zip(STAGES, map(summary_us, np.array(stamps).T), strict=True))


def run() -> dict[str, Any]:
    """Return percentiles in microseconds per stage and frame size."""
    large, origin = frames(640, 480)
    square, _ = frames(256, 256)

    def grey(colour: list[U8]) -> list[U8]:
        return [np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), np.uint8) for frame in colour]

    with tempfile.TemporaryDirectory() as folder:
        small = resized(MODEL, 256, 256, Path(folder) / "256.onnx")
        cases = {
            "256x256 grey to 256x256": measure(small, grey(square)),
            "256x256 colour to 256x256 grey": measure(small, square),
            "640x480 grey to 320x240": measure(MODEL, grey(large)),
            "640x480 colour to 320x240 grey": measure(MODEL, large),
            "640x480 colour to 256x192 grey": measure(small, large),
        }
    return {"frames": origin, "threads": 1, "us": cases}


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    print(f"frames: {result['frames']}; threads: {result['threads']}")
    for case, rows in result["us"].items():
        table(f"{case}, us", rows, list(PERCENTILES))


if __name__ == "__main__":
    show(run())
