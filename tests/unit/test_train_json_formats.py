"""COCO and Label Studio: every label lands on its own image, or is named.

The files are written by hand from the formats' descriptions; one is written by sleap-io.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sleap_io
from labelled_files import LEVELS, NAMES, grey_of, make_labels, write_pictures, write_video

from rtpose.errors import InputError
from rtpose_train.data.dataset import load_frames, read_project

# ------------------------------------------------------------------------------------------- COCO


def _coco(folder: Path, **changes: Any) -> Path:
    """Write pictures and a COCO file; the second is labelled first."""
    write_pictures(folder, "a.png", "images/b.png")
    data: dict[str, Any] = {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 64, "height": 48},
            {"id": 3, "file_name": "b.png", "width": 64, "height": 48},
        ],
        "categories": [
            {"id": 1, "name": "mouse", "keypoints": list(NAMES), "skeleton": [[1, 2], [1, 3]]},
            {"id": 2, "name": "box"},
        ],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 1, "keypoints": [1, 2, 2, 3, 4, 1, 9, 9, 0]},
            {"id": 2, "image_id": 7, "category_id": 1, "keypoints": [0, 0, 0, 5, 6, 2, 7.5, 8, 2]},
            {"id": 3, "image_id": 7, "category_id": 2, "bbox": [1, 2, 3, 4]},
        ],
    }
    for key, value in changes.items():
        data[key] = value(data[key])
    file = folder / "coco.json"
    file.write_text(json.dumps(data))
    return file


def test_coco_keypoints_keep_their_images_and_gaps(tmp_path: Path) -> None:
    project = read_project(_coco(tmp_path))
    assert project.skeleton.names == NAMES
    assert project.skeleton.edges == (("snout", "leftear"), ("snout", "rightear"))
    assert [frame.name for frame in project.frames] == ["a.png", "images/b.png"]
    a, b = (frame.points for frame in project.frames)
    assert np.isnan(a[0]).all()
    assert a[1:].tolist() == [[5, 6], [7.5, 8]]
    assert b[:2].tolist() == [[1, 2], [3, 4]]
    assert np.isnan(b[2]).all()  # visibility 0, whatever the coordinates
    assert grey_of(project.frames) == [20, 60]
    assert project.notes == ()


def test_coco_images_beside_the_folder_of_annotations(tmp_path: Path) -> None:
    file = _coco(tmp_path)
    (tmp_path / "annotations").mkdir()
    file = file.rename(tmp_path / "annotations" / "coco.json")
    frames = read_project(file).frames
    assert grey_of(frames) == [20, 60]
    assert len({frame.name for frame in frames}) == 2


def test_all_that_is_wrong_with_coco_is_said_at_once(tmp_path: Path) -> None:
    def images(given: list[dict[str, Any]]) -> list[dict[str, Any]]:
        # A picture of that name lies elsewhere: it is another one.
        (tmp_path / "other").mkdir()
        (tmp_path / "a.png").rename(tmp_path / "other" / "a.png")
        return [*given, {**given[1], "file_name": "images/b.png"}]

    def annotations(given: list[dict[str, Any]]) -> list[dict[str, Any]]:
        given[0]["keypoints"] = [1, 2, 2]
        given[1]["keypoints"] = [0, 0, 3, "x", 6, 2, 7.5, 8, 2]
        given[2]["image_id"] = 99
        return given

    with pytest.raises(InputError) as caught:
        read_project(_coco(tmp_path, images=images, annotations=annotations))
    lines = str(caught.value).splitlines()
    assert [line.split("coco.json ")[1].split(":")[0] for line in lines] == [
        "images[0]",
        "images[1]",
        "images[2]",
        "annotations[0]",
        "annotations[1]",
        "annotations[1]",
        "annotations[2]",
    ]
    assert "no image a.png" in lines[0]
    assert "id 3 is that of another image too" in lines[1]
    assert "3 numbers (x, y, visibility of 3 keypoints)" in lines[3]
    assert "image_id 99" in lines[6]


def test_coco_edges_that_count_from_0_are_reported_not_shifted(tmp_path: Path) -> None:
    def from_0(given: list[dict[str, Any]]) -> list[dict[str, Any]]:
        given[0]["skeleton"] = [[0, 1], [0, 2]]
        return given

    project = read_project(_coco(tmp_path, categories=from_0))
    assert project.skeleton.edges == ()
    assert "does not count keypoints from 1 to 3" in project.notes[0]


def test_coco_individuals_by_track(tmp_path: Path) -> None:
    def two(given: list[dict[str, Any]]) -> list[dict[str, Any]]:
        more = [{**a, "track_id": 2} for a in given[:2]]
        more[1]["keypoints"] = [30, 30, 2, 5, 6, 2, 7.5, 8, 2]
        return [{**a, "track_id": 1} for a in given] + more

    file = _coco(tmp_path, annotations=two)
    with pytest.raises(InputError, match="choose one individual: track_1, track_2"):
        read_project(file)
    chosen = read_project(file, individual="track_2")
    assert chosen.frames[0].points[0].tolist() == [30, 30]


# ----------------------------------------------------------------------------------- Label Studio


def _point(label: str, x: float, y: float, **more: Any) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": 0.5, "keypointlabels": [label]}
    size = {"original_width": 64, "original_height": 48, "image_rotation": 0}
    return {"id": f"id-{label}-{x}", "type": "keypointlabels", "value": value, **size, **more}


def _task(number: int, image: str, *points: dict[str, Any], **more: Any) -> dict[str, Any]:
    annotation = {"result": list(points), "was_cancelled": False}
    return {"id": number, "data": {"image": image}, "annotations": [annotation], **more}


def _tasks(folder: Path, *tasks: dict[str, Any]) -> Path:
    file = folder / "export.json"
    file.write_text(json.dumps(tasks))
    return file


def test_label_studio_exports_keep_their_images(tmp_path: Path) -> None:
    write_pictures(tmp_path, "a.png", "day 2/b.png")
    box = {"id": "b", "type": "rectanglelabels", "value": {"x": 1, "y": 1}, "original_width": 64}
    file = _tasks(
        tmp_path,
        _task(4, "/data/local-files/?d=day%202%2Fb.png", _point("tail", 50, 25), box),
        _task(9, "/data/upload/1/a.png", _point("snout", 25, 50), _point("tail", 75, 100 / 3)),
        {"id": 11, "data": {"image": "/data/upload/1/c.png"}, "annotations": []},
    )
    project = read_project(file)
    assert project.skeleton.names == ("tail", "snout")  # as they come, the same every time
    assert [frame.name for frame in project.frames] == ["day 2/b.png", "a.png"]
    assert project.frames[1].points.tolist() == [[48, 16], [16, 24]]
    assert np.isnan(project.frames[0].points[1]).all()
    assert grey_of(project.frames) == [60, 20]
    assert "1 tasks without any annotation" in project.notes[0]


def test_label_studio_as_sleap_io_writes_it(tmp_path: Path) -> None:
    labels = make_labels(sleap_io.load_video(str(write_video(tmp_path / "clip.avi"))))
    sleap_io.save_labelstudio(labels, str(tmp_path / "tasks.json"))
    by_name = {frame.name: frame for frame in read_project(tmp_path).frames}
    order = [read_project(tmp_path).skeleton.names.index(name) for name in NAMES]
    np.testing.assert_allclose(
        by_name["clip.avi#1"].points[order], [[1.0, 2.0], [7.0, 8.0], [5.5, 6.0]]
    )
    assert abs(grey_of([by_name["clip.avi#3"]])[0] - LEVELS[3]) <= 2


def test_all_that_is_wrong_with_label_studio_tasks_is_said_at_once(tmp_path: Path) -> None:
    write_pictures(tmp_path, "a.png")
    twice = _task(1, "a.png", _point("snout", 1, 1), _point("snout", 2, 2))
    two = _task(2, "a.png", _point("snout", 1, 1))
    two["annotations"] *= 2
    turned = _task(3, "a.png", _point("snout", 1, 1, image_rotation=90))
    bare = _task(4, "a.png", {"type": "keypointlabels", "id": "x", "value": {}})
    unclear = _task(5, "a.png", _point("snout", 1, 1), data={"left": "a.png", "right": "b.png"})
    with pytest.raises(InputError) as caught:
        read_project(_tasks(tmp_path, twice, two, turned, bare, unclear))
    lines = str(caught.value).splitlines()
    assert [line.split("task ")[1].split(":")[0] for line in lines] == ["1", "2", "3", "4", "5"]
    assert "'snout' is labelled twice" in lines[0]
    assert "2 annotations; keep one" in lines[1]
    assert "turned by 90" in lines[2]
    assert "has no field 'keypointlabels'" in lines[3]
    assert "which of left, right" in lines[4]
    with pytest.raises(InputError, match=r"no image /data/upload/1/gone\.png"):
        read_project(_tasks(tmp_path, _task(1, "/data/upload/1/gone.png", _point("snout", 1, 1))))


@pytest.mark.data
@pytest.mark.parametrize(("animal", "keypoints"), [("fly", 32), ("locust", 35), ("zebra", 9)])
def test_real_coco_files(data: Path, animal: str, keypoints: int) -> None:
    project = read_project(data / "mmpose-tiny-animals" / animal)
    assert len(project.frames) == 2
    assert len(project.skeleton.names) == keypoints
    points, notes = load_frames(project.frames, "rgb", lambda _, points: points)
    assert notes == []
    assert np.stack(points).shape == (2, keypoints, 2)
