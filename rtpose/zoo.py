"""The models that come with rtpose, by name: from a checkout and from an installed wheel alike."""

from pathlib import Path
from typing import Final

from rtpose.errors import ModelError

#: The bundled small model of the demo, which finds the drawn animal.
DEMO: Final = "demo"

_PACKAGE: Final = Path(__file__).parent
_DEMO_FILE: Final = _PACKAGE / "demo" / "synthetic-animal.onnx"

#: In a wheel the zoo lies inside the package; in a checkout it lies beside its trainer.
_FOLDERS: Final = (_PACKAGE / "zoo", _PACKAGE.parent / "models" / "zoo")


def zoo_models() -> dict[str, Path]:
    """Return the file of every model that comes with rtpose, by name, in alphabetical order."""
    files = {DEMO: _DEMO_FILE}
    for folder in _FOLDERS:
        files |= {file.stem: file for file in sorted(folder.glob("*.onnx"))}
    return dict(sorted(files.items()))


def find_model(name: str, folder: Path) -> Path:
    """Return the file that a user means.

    Parameters
    ----------
    name : str
        Name of a model that comes with rtpose, else the path of an ONNX file.
    folder : Path
        What a relative path starts from.

    Raises
    ------
    ModelError
        If there is neither.
    """
    models = zoo_models()
    file = models.get(name) or folder / Path(name).expanduser()
    if not file.is_file():
        raise ModelError(
            f"{file}: no such model file; give the path of an exported .onnx file, or one of: "
            f"{', '.join(models)}"
        )
    return file
