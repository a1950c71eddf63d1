"""LEAP labels; nothing here writes them, so the files are made from the format's description."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
from labelled_files import NAMES

from rtpose.errors import InputError
from rtpose_train.data.dataset import read_image, read_project


def _leap(folder: Path, positions: np.ndarray[Any, Any], **more: Any) -> Path:
    """Write LEAP's files: a box that holds a ramp, as MATLAB would store it, and its labels."""
    frames = 1 if positions.ndim == 2 else positions.shape[2]
    box = np.zeros((frames, 1, 64, 48), np.uint8)  # frames, channels, width, height
    box += np.arange(64, dtype=np.uint8)[None, None, :, None]
    box += 100 * np.arange(frames, dtype=np.uint8)[:, None, None, None]
    with h5py.File(folder / "mouse.h5", "w") as stored:
        stored["box"] = box
    skeleton = {"nodes": np.array(NAMES, object), "edges": np.array([[1, 2], [1, 3]])}
    content = {"positions": positions, "skeleton": skeleton, "boxPath": "D:\\data\\mouse.h5"}
    file = folder / "mouse.labels.mat"
    scipy.io.savemat(file, {**content, **more})
    return file


def _leap_as_matlab_saves_it(folder: Path, positions: np.ndarray[Any, Any]) -> Path:
    """Write the labels as MATLAB's ``save -v7.3`` does: HDF5 behind a header, axes turned round."""
    file = _leap(folder, positions)
    with h5py.File(file, "w", userblock_size=512) as stored:

        def add(name: str, value: Any, kind: str, group: Any = stored) -> Any:
            dataset = group.create_dataset(name, data=value)
            dataset.attrs["MATLAB_class"] = np.bytes_(kind)
            return dataset

        def text(name: str, value: str) -> Any:
            characters = np.frombuffer(value.encode("utf-16-le"), np.uint16)[:, None]
            dataset = add(name, characters, "char")
            dataset.attrs["MATLAB_int_decode"] = np.int32(2)
            return dataset

        add("positions", positions.T.astype(np.float32), "single")
        text("boxPath", "D:\\data\\mouse.h5")
        skeleton = stored.create_group("skeleton")
        skeleton.attrs["MATLAB_class"] = np.bytes_("struct")
        add("edges", np.array([[1, 2], [1, 3]], float).T, "double", skeleton)
        texts = [text(f"#refs#/{number}", name).ref for number, name in enumerate(NAMES)]
        add("nodes", np.array([texts], h5py.ref_dtype), "cell", skeleton)
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    with file.open("r+b") as whole:
        whole.write(header)
    return file


def test_leap_labels_as_matlab_saves_them(tmp_path: Path) -> None:
    positions = np.arange(12.0).reshape(3, 2, 2) + 1
    project = read_project(_leap_as_matlab_saves_it(tmp_path, positions))
    assert project.skeleton.names == NAMES
    assert project.skeleton.edges == (("snout", "leftear"), ("snout", "rightear"))
    assert [frame.points.tolist() for frame in project.frames] == [
        [[0, 2], [4, 6], [8, 10]],
        [[1, 3], [5, 7], [9, 11]],
    ]


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_leap_labels_are_read_with_pixels_counted_from_0(tmp_path: Path, frames: int) -> None:
    # (keypoints, 2, frames); the snout of frame i lies on MATLAB's pixel (11 + i, 21).
    positions = np.full((3, 2, frames), 5.0)
    positions[0] = [11 + np.arange(frames), np.full(frames, 21)]
    positions[1, :, 1:] = np.nan
    project = read_project(_leap(tmp_path, positions[..., 0] if frames == 1 else positions))
    assert project.skeleton.names == NAMES
    assert project.skeleton.edges == (("snout", "leftear"), ("snout", "rightear"))
    assert [frame.name for frame in project.frames] == [f"mouse.h5#{i}" for i in range(frames)]
    for index, frame in enumerate(project.frames):
        assert frame.points[0].tolist() == [10 + index, 20]
        assert np.isnan(frame.points[1]).any() == (index > 0)
        pixels = read_image(frame, "gray")
        assert pixels.shape == (48, 64)
        x, y = frame.points[0].astype(int)
        assert pixels[y, x] == 10 + index + 100 * index


def test_leap_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"positions of shape \(4, 2, 3\); \(3 keypoints, 2"):
        read_project(_leap(tmp_path, np.ones((4, 2, 3))))
    file = _leap(tmp_path, np.ones((3, 2, 3)), skeleton={"other": 1})
    with pytest.raises(InputError, match="not LEAP labels"):
        read_project(file)
    file = _leap(tmp_path, np.ones((3, 2, 3)))
    (tmp_path / "mouse.h5").unlink()
    with pytest.raises(InputError, match=r"no frames: boxPath is .*D:.*mouse\.h5"):
        read_project(file)
