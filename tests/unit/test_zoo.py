"""Models by name: from a checkout, and from an installed wheel."""

from pathlib import Path

import pytest

from rtpose.errors import ModelError
from rtpose.estimator import read_card
from rtpose.zoo import find_model, zoo_models

LARGEST_BYTES = 15_000_000


@pytest.mark.parametrize("name", zoo_models())
def test_every_model_has_a_card_that_fits_its_graph(name: str) -> None:
    file = zoo_models()[name]
    card = read_card(file)
    assert card.species
    assert card.provenance["unseen_frames"]["error_px"]["mean"] > 0
    assert file.stat().st_size < LARGEST_BYTES
    if name != "demo":
        assert card.name == name


def test_a_name_is_looked_up_before_a_path(tmp_path: Path) -> None:
    assert find_model("demo", tmp_path).name == "synthetic-animal.onnx"
    own = tmp_path / "mine.onnx"
    own.write_bytes(b"")
    assert find_model("mine.onnx", tmp_path) == own
    assert find_model(str(own), Path("elsewhere")) == own


def test_what_is_neither_names_every_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model file") as caught:
        find_model("mause", tmp_path)
    for name in zoo_models():
        assert name in str(caught.value)
