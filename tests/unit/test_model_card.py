"""Model cards: what is refused, the way from frame to input and back, the golden frames."""

import hashlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtpose.errors import InputError, ModelError
from rtpose.model_card import METADATA_KEY, InputSpec, ModelCard, golden_frames, place

#: Of two frames of 64x48, three channels, seed 1.
GOLDEN_SHA256 = "17ed69cca33f2a8c86dc82c7ce53b98e76ca4294dba125b3c62bdf2029053d6b"


MAPS = {"width": 16, "height": 12, "stride": 4, "sigma": 1.5}
GOLDEN = {"seed": 1, "count": 1, "cells": [[0, 1, 2], [1, 3, 4]], "values": [[0.5, 0.25]]}


def graph_golden(peaks: list[list[tuple[int, float, float, float]]]) -> dict[str, Any]:
    golden = {"seed": 1, "count": 1, "cells": [], "values": [[]], "peaks": peaks}
    return {"decode": "graph", "golden": golden}


def card_data() -> dict[str, Any]:
    return {
        "card_version": 1,
        "name": "mouse",
        "network": "mobilenetv2-0.35",
        "skeleton": {"names": ["nose", "tail"], "edges": [["nose", "tail"]], "pairs": []},
        "input": {"width_px": 64, "height_px": 48, "colour": "rgb"},
        "maps": MAPS,
        "min_confidence": 0.3,
        "golden": GOLDEN,
    }


def read(data: object) -> ModelCard:
    return ModelCard.from_metadata({METADATA_KEY: json.dumps(data)}, "mouse.onnx")


def test_a_card_survives_the_file() -> None:
    card = read(card_data())
    again = ModelCard.from_metadata({METADATA_KEY: card.to_metadata()}, "mouse.onnx")
    assert again == card
    assert card.keypoints().edges == (("nose", "tail"),)
    assert card.input.shape == (1, 48, 64, 3)


def test_a_card_from_before_there_were_choices_means_what_it_meant() -> None:
    card = read(card_data())
    assert (card.decode, card.precision, card.maps.location_refinement) == ("host", "fp32", None)
    assert card.outputs() == {"maps": (1, 2, 12, 16)}


def test_a_card_says_what_the_graph_ends_in() -> None:
    offsets = {"maps": MAPS | {"location_refinement": 0.91}}
    golden = {"golden": GOLDEN | {"offsets": [[[0.5, 0.25], [0, 0]]]}}
    refined = read(card_data() | offsets | golden)
    assert refined.outputs() == {"maps": (1, 2, 12, 16), "offsets": (1, 4, 12, 16)}
    inside = read(card_data() | offsets | graph_golden([[(1, 1.0, 2.0, 0.5)]]))
    assert inside.outputs() == {"peaks": (1, 2, 2), "peak_vals": (1, 2)}
    again = ModelCard.from_metadata({METADATA_KEY: inside.to_metadata()}, "mouse.onnx")
    assert again == inside


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"card_version": 2}, "version 2, this rtpose reads 1"),
        ({"card_version": None}, "version None"),
        ({"colour": "red"}, "colour"),
        ({"maps": {"width": 16, "height": 12, "stride": 4, "sigma": 0}}, "maps.sigma"),
        ({"maps": {"width": 16, "height": 12, "stride": 4, "sigma": 17}}, "maps.sigma"),
        ({"input": {"width_px": 64, "height_px": 48, "colour": "hsv"}}, "input.colour"),
        ({"min_confidence": 1.5}, "min_confidence"),
        ({"skeleton": {"names": ["nose", "nose"]}}, "doubled: nose"),
        ({"skeleton": {"names": ["nose"], "edges": [["nose", "ear"]]}}, "no keypoint 'ear'"),
        ({"golden": {"seed": 1, "count": 2, "cells": [], "values": [[]]}}, "one value per frame"),
        ({"golden": {"seed": 1, "count": 1, "cells": [], "values": [[0.5]]}}, "one value per"),
        ({"decode": "gpu"}, "decode"),
        ({"precision": "fp8"}, "precision"),
        ({"decode": "graph"}, "golden peaks and no golden cells"),
        (graph_golden([[(2, 1.0, 2.0, 0.5)]]), "keypoints that the skeleton does not have"),
        (graph_golden([[(0, 1.0, 2.0, 0.5)], []]), "one list of peaks per frame"),
        (graph_golden([[]]), "golden peaks and no golden cells"),
        (graph_golden([[(0, 1.0, 2.0, 0.5)]]) | {"decode": "host"}, "no golden peaks are needed"),
        ({"maps": MAPS | {"location_refinement": 0}}, "maps.location_refinement"),
        ({"maps": MAPS | {"location_refinement": 1.0}}, "golden offsets are needed"),
        ({"golden": GOLDEN | {"offsets": [[[0, 0], [0, 0]]]}}, "golden offsets are needed just"),
        ({"golden": GOLDEN | {"offsets": [[[0, 0]]]}}, "one value per frame and cell"),
    ],
)
def test_a_wrong_card_is_refused_with_the_field(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said) as error:
        read(card_data() | change)
    assert "mouse.onnx" in str(error.value)


def test_a_card_with_a_missing_field_is_refused() -> None:
    data = card_data()
    del data["golden"]
    with pytest.raises(ModelError, match=r"golden: Field required"):
        read(data)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", "7"])
def test_what_is_no_card_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match=r"mouse\.onnx"):
        ModelCard.from_metadata({METADATA_KEY: text}, "mouse.onnx")


def test_a_file_without_a_card_says_how_to_get_one() -> None:
    with pytest.raises(ModelError, match="rtpose export RUN_FOLDER"):
        ModelCard.from_metadata({}, "mouse.onnx")


sizes = st.integers(1, 3000)


@given(st.data(), sizes, sizes, st.integers(8, 1024), st.integers(8, 1024))
def test_the_edges_of_the_crop_come_back_from_the_edges_of_the_placement(
    data: st.DataObject, width: int, height: int, input_width: int, input_height: int
) -> None:
    x = data.draw(st.integers(0, width - 1))
    y = data.draw(st.integers(0, height - 1))
    crop = (x, y, data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y)))
    spec = InputSpec(width_px=input_width, height_px=input_height, colour="gray")
    placement = place(spec, width, height, crop)
    ax, bx, ay, by = placement.to_frame
    # A pixel's centre is its coordinate: an edge is half a pixel from it.
    left, right = placement.left_px - 0.5, placement.left_px + placement.width_px - 0.5
    top, bottom = placement.top_px - 0.5, placement.top_px + placement.height_px - 0.5
    assert (ax * left + bx, ax * right + bx) == pytest.approx((x - 0.5, x + crop[2] - 0.5))
    assert (ay * top + by, ay * bottom + by) == pytest.approx((y - 0.5, y + crop[3] - 0.5))
    # It is inside, in the middle, as large as can be, and hardly distorted.
    assert min(placement.left_px, placement.top_px) >= 0
    assert abs(input_width - placement.width_px - 2 * placement.left_px) <= 1
    assert abs(input_height - placement.height_px - 2 * placement.top_px) <= 1
    assert placement.width_px == input_width or placement.height_px == input_height
    scale = min(input_width / crop[2], input_height / crop[3])
    assert abs(placement.width_px - crop[2] * scale) <= 1
    assert abs(placement.height_px - crop[3] * scale) <= 1


def test_a_frame_of_the_input_size_is_not_touched() -> None:
    placement = place(InputSpec(width_px=64, height_px=48, colour="gray"), 64, 48)
    assert placement.to_frame == (1, 0, 1, 0)


@pytest.mark.parametrize(
    "crop", [(-1, 0, 10, 10), (0, -1, 10, 10), (60, 0, 10, 10), (0, 40, 10, 10), (0, 0, 0, 5)]
)
def test_a_crop_outside_the_frame_is_refused(crop: tuple[int, int, int, int]) -> None:
    with pytest.raises(InputError, match="does not lie inside the 64x48 frame"):
        place(InputSpec(width_px=32, height_px=32, colour="gray"), 64, 48, crop)


def test_golden_frames_are_the_same_bytes_everywhere() -> None:
    spec = InputSpec(width_px=64, height_px=48, colour="rgb")
    frames = golden_frames(spec, 1, 2)
    assert frames.shape == (2, 48, 64, 3)
    assert hashlib.sha256(frames.tobytes()).hexdigest() == GOLDEN_SHA256
    assert not np.array_equal(frames[0], frames[1])
    assert not np.array_equal(frames, golden_frames(spec, 2, 2))
    assert frames.std() > 10
