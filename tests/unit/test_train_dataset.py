"""Every label lands on its own image, and what cannot be used is named with file and row."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from rtpose.errors import InputError
from rtpose_train.data.dataset import load_frames, read_image, read_project

NAMES = ("snout", "leftear", "rightear")
FULL = ["10", "20", "30.5", "20", "5", "6"]
PARTLY = ["10", "20", "30.5", "20", "", ""]


def _project(
    folder: Path,
    rows: Sequence[tuple[str, Sequence[str]]],
    names: Sequence[str] = NAMES,
    *,
    images: bool = True,
) -> Path:
    """Write a DeepLabCut project; image i is uniformly grey of level i."""
    recording = folder / "labeled-data" / "day1"
    recording.mkdir(parents=True)
    header = [
        ["scorer", *["me"] * (2 * len(names))],
        ["bodyparts", *(name for name in names for _ in "xy")],
        ["coords", *["x", "y"] * len(names)],
    ]
    body = [[f"labeled-data/day1/{image}", *cells] for image, cells in rows]
    text = "\n".join(",".join(row) for row in [*header, *body])
    (recording / "CollectedData_me.csv").write_text(text + "\n", encoding="utf-8")
    (folder / "config.yaml").write_text(
        "Task: t\nscorer: me\ndate: d\nbodyparts:\n"
        + "".join(f"- {name}\n" for name in names)
        + "skeleton:\n- [snout, rightear]\nvideo_sets: {}\nproject_path: x\n",
        encoding="utf-8",
    )
    if images:
        for level, (image, _) in enumerate(rows):
            cv2.imwrite(str(recording / image), np.full((40, 60, 3), level, np.uint8))
    return folder


def test_labels_keep_their_image_order_and_gaps(tmp_path: Path) -> None:
    rows = [
        ("img9.png", ["1", "2", "3", "4", "5", "6"]),
        ("img10.png", PARTLY),
        ("img2.png", ["7", "8", "", "", "9", "10"]),
    ]
    project = read_project(_project(tmp_path / "p", rows))
    assert project.skeleton.names == NAMES  # sleap-io would sort them
    assert project.skeleton.pairs == (("leftear", "rightear"),)
    assert project.skeleton.edges == (("snout", "rightear"),)
    found = {frame.name: frame.points.tolist() for frame in project.frames}
    assert found["labeled-data/day1/img9.png"] == [[1, 2], [3, 4], [5, 6]]
    assert found["labeled-data/day1/img2.png"][0] == [7, 8]
    assert np.isnan(found["labeled-data/day1/img2.png"][1]).all()
    levels, notes = load_frames(project.frames, "gray", lambda pixels, _: int(pixels[0, 0]))
    assert [frame.name.split("/")[-1] for frame in project.frames] == [
        "img9.png",
        "img10.png",
        "img2.png",
    ]
    assert levels == [0, 1, 2]
    assert notes == []


@pytest.mark.parametrize("give", ["", "config.yaml", "labeled-data/day1/CollectedData_me.csv"])
def test_folder_configuration_and_label_file_are_the_same_project(
    tmp_path: Path, give: str
) -> None:
    folder = _project(tmp_path / "p", [("img1.png", FULL)])
    project = read_project(folder / give)
    assert project.frames[0].points[1].tolist() == [30.5, 20.0]
    assert project.frames[0].where.endswith("CollectedData_me.csv row 4")


def test_rows_without_any_label_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [("img1.png", FULL), ("img2.png", [""] * 6)]
    project = read_project(_project(tmp_path / "p", rows))
    assert [frame.name.split("/")[-1] for frame in project.frames] == ["img1.png"]
    assert "1 frames without any label" in project.notes[0]


def test_edges_to_unknown_keypoints_are_reported_and_dropped(tmp_path: Path) -> None:
    folder = _project(tmp_path / "p", [("img1.png", FULL)])
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("[snout, rightear]", "[bodypart1, bodypart2]"))
    project = read_project(folder)
    assert project.skeleton.edges == ()
    assert "bodypart1" in project.notes[0]


@pytest.mark.parametrize("count", [1, 2])
def test_paths_in_three_columns_are_read_or_refused(tmp_path: Path, count: int) -> None:
    folder = _project(tmp_path / "p", [(f"img{n + 1}.png", FULL) for n in range(count)])
    file = folder / "labeled-data" / "day1" / "CollectedData_me.csv"
    header, body = file.read_text().splitlines()[:3], file.read_text().splitlines()[3:]
    header = [line.replace(",", ",,,", 1) for line in header]
    body = [line.replace("labeled-data/day1/", "labeled-data,day1,") for line in body]
    file.write_text("\n".join([*header, *body]) + "\n")
    if count == 1:  # sleap-io takes the only row for a part of the header
        with pytest.raises(InputError, match="1 rows, of which sleap-io reads 0"):
            read_project(folder)
        return
    frame = read_project(folder).frames[0]
    assert (frame.name, frame.points[2].tolist()) == ("labeled-data/day1/img1.png", [5.0, 6.0])


def test_missing_images_are_named_with_their_row_not_skipped(tmp_path: Path) -> None:
    folder = _project(tmp_path / "p", [(f"img{n}.png", PARTLY) for n in range(4)])
    (folder / "labeled-data" / "day1" / "img1.png").unlink()
    with pytest.raises(InputError, match=r"CollectedData_me\.csv row 5: no image .*img1\.png"):
        read_project(folder)


def test_all_bad_rows_are_reported_at_once(tmp_path: Path) -> None:
    rows = [
        ("img1.png", ["1", "two", "3", "4", "5", "6"]),
        ("img2.png", ["1", "2", "3", "", "5", "6"]),
        ("img3.png", ["1", "2", "3", "4", "5"]),
        ("img4.png", ["1", "2", "3", "4", "5", "inf"]),
    ]
    folder = _project(tmp_path / "p", rows)
    file = folder / "labeled-data" / "day1" / "CollectedData_me.csv"
    file.write_text(file.read_text() + file.read_text().splitlines()[3] + "\n")
    with pytest.raises(InputError) as caught:
        read_project(folder)
    lines = str(caught.value).splitlines()
    assert [line.split("row ")[1][0] for line in lines] == ["4", "5", "6", "7", "8", "8"]
    assert "snout" in lines[0]
    assert "leftear" in lines[1]
    assert "5 coordinates, the header has 6" in lines[2]
    assert "labelled in row 4 too" in lines[4]


def test_a_keypoint_that_is_never_labelled_is_refused(tmp_path: Path) -> None:
    folder = _project(tmp_path / "p", [("img1.png", PARTLY), ("img2.png", PARTLY)])
    with pytest.raises(InputError, match="never labelled in 2 frames: rightear"):
        read_project(folder)


def test_unreadable_images_are_all_named(tmp_path: Path) -> None:
    rows = [(f"img{n}.png", FULL) for n in range(3)]
    folder = _project(tmp_path / "p", rows)
    recording = folder / "labeled-data" / "day1"
    whole = (recording / "img0.png").read_bytes()
    (recording / "img1.png").write_bytes(b"\x89PNG no picture")
    (recording / "img2.png").write_bytes(b"")
    (recording / "img0.png").write_bytes(whole)
    project = read_project(folder)
    with pytest.raises(InputError) as caught:
        load_frames(project.frames, "gray", lambda pixels, points: None)
    assert "row 5" in str(caught.value)
    assert "row 6" in str(caught.value)
    assert "row 4" not in str(caught.value)


def test_labels_outside_the_image_are_reported_and_not_used(tmp_path: Path) -> None:
    rows = [("img1.png", ["-0.4", "39.4", "60", "5", "30", "1e9"])]
    project = read_project(_project(tmp_path / "p", rows))
    points, notes = load_frames(project.frames, "gray", lambda _, points: points)
    assert points[0][0].tolist() == [-0.4, 39.4]
    assert np.isnan(points[0][1:]).all()
    assert len(notes) == 2
    assert "row 4" in notes[0]
    assert "60x40" in notes[0]


def test_what_is_not_a_project_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("x")
    _project(tmp_path / "unlabelled", [])
    _project(tmp_path / "none", [])
    (tmp_path / "none" / "labeled-data" / "day1" / "CollectedData_me.csv").unlink()
    for path, words in (
        ("absent", "no such project"),
        ("empty", "empty: no labels; what is read: DeepLabCut"),
        ("file.txt", "not a project of labels; what is read: DeepLabCut"),
        ("unlabelled", "no labelled frame"),
        ("none", "no labels"),
    ):
        with pytest.raises(InputError, match=words):
            read_project(tmp_path / path)


def test_two_label_files_for_the_same_images_are_refused(tmp_path: Path) -> None:
    folder = _project(tmp_path / "p", [("img1.png", PARTLY)])
    file = folder / "labeled-data" / "day1" / "CollectedData_me.csv"
    file.with_name("CollectedData_you.csv").write_text(file.read_text())
    with pytest.raises(InputError, match="two label files"):
        read_project(folder)


def _individuals(folder: Path, *names: str) -> Path:
    """Turn a project into one of several animals, whose columns follow each other."""
    file = folder / "labeled-data" / "day1" / "CollectedData_me.csv"
    scorer, keypoints, coords, *rows = (line.split(",") for line in file.read_text().splitlines())
    owners = ["individuals", *(name for name in names for _ in keypoints[1:])]
    lines = [
        [scorer[0], *scorer[1:] * len(names)],
        owners,
        [keypoints[0], *keypoints[1:] * len(names)],
        [coords[0], *coords[1:] * len(names)],
        *([row[0], *row[1:] * len(names)] for row in rows),
    ]
    file.write_text("\n".join(map(",".join, lines)))
    return folder


def test_one_of_several_individuals_can_be_chosen(tmp_path: Path) -> None:
    rows = [("img1.png", FULL), ("img2.png", FULL), ("img3.png", [""] * 6)]
    folder = _individuals(_project(tmp_path / "p", rows), "one", "two")
    file = folder / "labeled-data" / "day1" / "CollectedData_me.csv"
    lines = file.read_text().splitlines()
    lines[4] = lines[4].replace("10,20", "11,21", 1)  # only the first individual's snout
    file.write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"several individuals.*choose one individual: one, two"):
        read_project(folder)
    with pytest.raises(InputError, match="choose one individual: one, two"):
        read_project(folder, individual="three")
    one, two = (read_project(folder, individual=name) for name in ("one", "two"))
    assert one.skeleton.names == two.skeleton.names == NAMES
    assert [project.frames[0].points[0].tolist() for project in (one, two)] == [[11, 21], [10, 20]]
    assert [frame.name[-8:] for frame in two.frames] == ["img1.png", "img2.png"]
    assert two.notes == ("1 frames without any label of two left out",)


def test_a_single_named_individual_needs_no_choice(tmp_path: Path) -> None:
    folder = _individuals(_project(tmp_path / "p", [("img1.png", FULL)]), "only")
    assert read_project(folder).frames[0].points[1].tolist() == [30.5, 20]


def test_mixed_sizes_and_colours_are_read_as_a_camera_would(tmp_path: Path) -> None:
    folder = _project(tmp_path / "p", [("img1.png", FULL), ("img2.png", FULL)])
    recording = folder / "labeled-data" / "day1"
    cv2.imwrite(str(recording / "img2.png"), np.full((80, 90, 3), (0, 0, 255), np.uint8))
    frames = read_project(folder).frames
    shapes, _ = load_frames(frames, "gray", lambda pixels, _: pixels.shape)
    assert shapes == [(40, 60), (80, 90)]
    assert read_image(frames[1], "rgb")[0, 0].tolist() == [255, 0, 0]
    assert read_image(frames[1], "bgr")[0, 0].tolist() == [0, 0, 255]
    assert read_image(frames[1], "gray")[0, 0] == 76  # OpenCV's weight of red


@pytest.mark.data
def test_the_real_projects_are_read(data: Path) -> None:
    mouse = read_project(data / "dlc-openfield-mouse")
    assert len(mouse.frames) == 93
    assert mouse.skeleton.names == ("snout", "leftear", "rightear", "tailbase")
    first = mouse.frames[0]
    assert (first.name, first.points[0].tolist()) == (
        "labeled-data/m4s1/img0000.png",
        [21.521, 265.428],
    )
    mirror = read_project(data / "lp-mirror-mouse" / "CollectedData.csv")
    points = np.stack([frame.points for frame in mirror.frames])
    assert points.shape == (72, 17, 2)
    assert 0.05 < np.isnan(points[..., 0]).mean() < 0.15
