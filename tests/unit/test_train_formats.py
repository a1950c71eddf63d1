"""SLEAP and NWB labels, as sleap-io writes them: every label lands on its own frame."""

from pathlib import Path

import av
import h5py
import numpy as np
import pytest
import sleap_io
from labelled_files import LEVELS, NAMES, grey_of, make_labels, write_pictures, write_video

from rtpose.errors import InputError
from rtpose_train.data.dataset import load_frames, read_image, read_project

# ------------------------------------------------------------------------------------------ SLEAP


@pytest.fixture
def slp(tmp_path: Path) -> Path:
    file = tmp_path / "labels.slp"
    labels = make_labels(sleap_io.load_video(str(write_video(tmp_path / "clip.avi"))))
    labels.save(str(file), embed=False, verbose=False)
    return file


@pytest.mark.parametrize("embed", [False, True])
def test_sleap_labels_keep_their_frames(tmp_path: Path, slp: Path, embed: bool) -> None:
    if embed:
        file = tmp_path / "labels.pkg.slp"
        sleap_io.load_slp(str(slp)).save(str(file), embed="user", verbose=False)
        (tmp_path / "clip.avi").unlink()
        slp.unlink()
        slp = file
    project = read_project(slp)
    assert project.skeleton.names == NAMES
    assert project.skeleton.edges == (("snout", "leftear"),)
    assert project.skeleton.pairs == (("leftear", "rightear"),)
    assert project.notes == ()
    found = {frame.name.split("#")[1]: frame.points.tolist() for frame in project.frames}
    assert found["1"] == [[1, 2], [7, 8], [5.5, 6]]
    assert found["3"][0] == [3, 6]
    assert np.isnan(found["3"][1]).all()
    assert {frame.video for frame in project.frames} == (
        {"labels.pkg.slp/video0/video"} if embed else {"clip.avi"}
    )
    at = {frame.name.split("#")[1]: place for place, frame in enumerate(project.frames)}
    grey = grey_of(project.frames)
    assert abs(grey[at["1"]] - LEVELS[1]) <= 2
    assert abs(grey[at["3"]] - LEVELS[3]) <= 2


def test_frames_of_a_video_are_read_right_in_any_order(slp: Path) -> None:
    clip = slp.with_name("clip.avi")
    labels = make_labels(sleap_io.load_video(str(clip)), (0, 1, 2, 3, 4))
    labels.save(str(slp), embed=False, verbose=False)
    frames = {int(frame.name.split("#")[1]): frame for frame in read_project(slp).frames}
    for order in ((0, 1, 2, 3, 4), (4, 0, 3, 3, 1)):
        levels = grey_of([frames[index] for index in order])
        assert np.abs(np.subtract(levels, [LEVELS[index] for index in order])).max() <= 2


def test_frames_far_apart_in_a_compressed_video_are_the_right_ones(
    tmp_path: Path, slp: Path
) -> None:
    # One key frame in 600, and frames that are stored out of order: the hard case for seeking.
    clip = tmp_path / "clip.mp4"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("libx264", 25, options={"g": "600", "bf": "3", "crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(600):
            pixels = np.zeros((48, 64, 3), np.uint8)
            for bit in range(10):  # the index in black and white bars
                pixels[:, 6 * bit : 6 * bit + 6] = 255 * (index >> bit & 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "bgr24")))
        container.mux(stream.encode())
    wanted = (599, 3, 300, 301, 20, 0, 270, 598)
    labels = make_labels(sleap_io.load_video(str(clip)), wanted)
    labels.save(str(slp), embed=False, verbose=False)
    frames = {frame.name: frame for frame in read_project(slp).frames}
    seen, _ = load_frames(
        [frames[f"clip.mp4#{index}"] for index in wanted],
        "gray",
        lambda pixels, _: sum((pixels[24, 6 * bit + 3] > 127) << bit for bit in range(10)),
    )
    assert seen == list(wanted)


def test_names_do_not_depend_on_how_the_project_is_given(
    slp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(slp.parent)
    given = (slp, slp.parent, Path("labels.slp"), Path())
    assert {read_project(path).frames[0].name for path in given} == {"clip.avi#3"}


def test_a_video_that_was_moved_with_its_labels_is_found_and_else_named(
    tmp_path: Path, slp: Path
) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (tmp_path / "clip.avi").rename(there / "clip.avi")
    with pytest.raises(InputError, match=r"no video .*clip\.avi .*put it beside the label file"):
        read_project(slp)
    slp = slp.rename(there / "labels.slp")
    assert abs(grey_of(read_project(slp).frames)[0] - LEVELS[3]) <= 2


def test_image_lists_are_found_by_the_end_of_their_path(tmp_path: Path) -> None:
    files = write_pictures(tmp_path / "old", "day1/a.png", "day2/a.png")
    labels = make_labels(sleap_io.Video.from_filename([str(file) for file in files]), (1, 0))
    (tmp_path / "old").rename(tmp_path / "new")
    labels.save(str(tmp_path / "new" / "labels.slp"), embed=False, verbose=False)
    project = read_project(tmp_path / "new")
    assert {(frame.name, frame.video) for frame in project.frames} == {
        ("day1/a.png", "day1"),
        ("day2/a.png", "day2"),
    }
    by_name = sorted(project.frames, key=lambda frame: frame.name)
    assert grey_of(by_name) == [20, 60]
    assert [frame.points[0].tolist() for frame in by_name] == [[0, 0], [1, 2]]
    (tmp_path / "new" / "day2" / "a.png").unlink()
    with pytest.raises(InputError, match=r"no image .*old/day2/a\.png"):
        read_project(tmp_path / "new")


def test_one_track_is_chosen_by_name(tmp_path: Path, slp: Path) -> None:
    video = sleap_io.load_video(str(tmp_path / "clip.avi"))
    tracks = [sleap_io.Track("female"), sleap_io.Track("male")]
    make_labels(video, tracks=tracks).save(str(slp), embed=False, verbose=False)
    with pytest.raises(InputError) as caught:
        read_project(slp)
    assert "several individuals in 2 of 2 frames (clip.avi#" in str(caught.value)
    assert "choose one individual: female, male" in str(caught.value)
    with pytest.raises(InputError, match="no individual 'Male'; there are: female, male"):
        read_project(slp, individual="Male")
    # The left ear is labelled in the female only.
    female = read_project(slp, individual="female")
    assert sorted(frame.points[0, 0] for frame in female.frames) == [1, 3]
    with pytest.raises(InputError, match="never labelled in 2 frames: leftear"):
        read_project(slp, individual="male")


def test_without_tracks_an_individual_is_chosen_by_its_place(tmp_path: Path, slp: Path) -> None:
    video = sleap_io.load_video(str(tmp_path / "clip.avi"))
    make_labels(video, tracks=(None, None)).save(str(slp), embed=False, verbose=False)
    with pytest.raises(InputError, match="choose one individual: 0, 1"):
        read_project(slp)
    first = read_project(slp, individual="0")
    assert sorted(frame.points[0, 0] for frame in first.frames) == [1, 3]


def test_predictions_are_not_labels(tmp_path: Path, slp: Path) -> None:
    labels = sleap_io.load_slp(str(slp))
    guess = sleap_io.PredictedInstance.from_numpy(np.ones((3, 2)), skeleton=labels.skeletons[0])
    labels[0].instances.append(guess)
    labels.save(str(slp), embed=False, verbose=False)
    project = read_project(slp)
    assert len(project.frames) == 2
    assert "1 predicted instances left out" in project.notes[0]
    for frame in labels.labeled_frames:
        frame.instances = [guess]
    labels.save(str(slp), embed=False, verbose=False)
    with pytest.raises(InputError, match="2 predicted instances and no label by hand"):
        read_project(slp)


def test_labels_of_two_skeletons_are_refused(tmp_path: Path, slp: Path) -> None:
    labels = sleap_io.load_slp(str(slp))
    other = sleap_io.Skeleton(["wing"])
    labels[0].instances = [sleap_io.Instance.from_numpy(np.ones((1, 2)), skeleton=other)]
    labels.skeletons.append(other)
    labels.save(str(slp), embed=False, verbose=False)
    with pytest.raises(InputError, match="labels of 2 skeletons"):
        read_project(slp)


def test_a_cropped_view_is_read_as_it_was_labelled(tmp_path: Path, slp: Path) -> None:
    picture = np.arange(64, dtype=np.uint8)[None, :, None] * np.ones((48, 1, 3), np.uint8)
    with h5py.File(tmp_path / "frames.h5", "w") as stored:
        stored["box"] = np.stack([picture] * 4)
    video = sleap_io.Video.from_filename(str(tmp_path / "frames.h5"), dataset="box")
    make_labels(video.crop((10, 5, 30, 40))).save(str(slp), embed=False, verbose=False)
    pixels = read_image(read_project(slp).frames[0], "gray")
    assert pixels.shape == (35, 20)
    assert pixels[0].tolist() == list(range(10, 30))


def test_a_frame_that_the_video_has_not_is_named(tmp_path: Path, slp: Path) -> None:
    video = sleap_io.load_video(str(tmp_path / "clip.avi"))
    make_labels(video, (1, 700)).save(str(slp), embed=False, verbose=False)
    project = read_project(slp)
    with pytest.raises(InputError, match=r"clip\.avi#700: .*frame 700 cannot be read; it has 5"):
        load_frames(project.frames, "gray", lambda pixels, points: None)


def test_one_frame_labelled_twice_is_refused(tmp_path: Path, slp: Path) -> None:
    video = sleap_io.load_video(str(tmp_path / "clip.avi"))
    make_labels(video, (1, 3, 1)).save(str(slp), embed=False, verbose=False)
    with pytest.raises(InputError, match=r"clip\.avi#1 is labelled in .* too"):
        read_project(slp)


@pytest.mark.parametrize("suffix", ["slp", "nwb", "mat", "json", "h5"])
def test_damaged_files_are_refused_by_name(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"labels.{suffix}"
    for content in (b"", b"\x89HDF\r\n\x1a\n damaged", b"no labels at all " * 20):
        file.write_bytes(content)
        with pytest.raises(InputError, match=f"labels.{suffix}: "):
            read_project(file)
    with h5py.File(file, "w"):
        pass
    with pytest.raises(InputError, match=f"labels.{suffix}: "):
        read_project(file)


def test_a_folder_with_two_label_files_is_refused(slp: Path) -> None:
    slp.with_name("more.slp").write_bytes(slp.read_bytes())
    with pytest.raises(InputError, match=r"several label files \(labels.slp, more.slp\)"):
        read_project(slp.parent)


# -------------------------------------------------------------------------------------------- NWB


def test_nwb_labels_keep_their_frames(tmp_path: Path) -> None:
    file = tmp_path / "labels.nwb"
    labels = make_labels(sleap_io.load_video(str(write_video(tmp_path / "clip.avi"))))
    sleap_io.save_nwb(labels, str(file), nwb_format="annotations")
    project = read_project(file)
    assert project.skeleton.names == NAMES
    assert project.skeleton.pairs == (("leftear", "rightear"),)  # by name: NWB has none
    assert project.notes == ()
    by_name = {frame.name: frame for frame in project.frames}
    assert set(by_name) == {"clip.avi#1", "clip.avi#3"}
    assert by_name["clip.avi#1"].points.tolist() == [[1, 2], [7, 8], [5.5, 6]]
    assert abs(grey_of([by_name["clip.avi#3"]])[0] - LEVELS[3]) <= 2
    (tmp_path / "clip.avi").unlink()
    with pytest.raises(InputError, match=r"labels\.nwb: no video .*clip\.avi"):
        read_project(file)


# What sleap-io writes is not yet what pynwb wants.
@pytest.mark.filterwarnings("ignore:.* is deprecated:DeprecationWarning")
def test_nwb_predictions_are_not_labels(tmp_path: Path) -> None:
    labels = make_labels(sleap_io.load_video(str(write_video(tmp_path / "clip.avi"))), (0, 1))
    for frame in labels.labeled_frames:
        points = np.ones((3, 2))
        frame.instances = [
            sleap_io.PredictedInstance.from_numpy(
                points, skeleton=labels.skeletons[0], point_scores=np.ones(3), score=1.0
            )
        ]
    sleap_io.save_nwb(labels, str(tmp_path / "poses.nwb"), nwb_format="predictions")
    with pytest.raises(InputError, match=r"no PoseTraining in it; .* are no labels"):
        read_project(tmp_path)


def test_nwb_labels_of_pictures(tmp_path: Path) -> None:
    files = write_pictures(tmp_path, "a.png", "b.png")
    labels = make_labels(sleap_io.Video.from_filename([str(file) for file in files]), (1, 0))
    sleap_io.save_nwb(labels, str(tmp_path / "labels.nwb"), nwb_format="annotations")
    frames = sorted(read_project(tmp_path).frames, key=lambda frame: frame.name)
    assert [frame.name for frame in frames] == ["a.png", "b.png"]
    assert [frame.points[0].tolist() for frame in frames] == [[0, 0], [1, 2]]
    assert grey_of(frames) == [20, 60]


@pytest.mark.data
def test_real_sleap_labels_of_two_flies(data: Path) -> None:
    folder = data / "sleap-two-flies"
    with pytest.raises(InputError, match="several individuals in 1500 of 1500 frames"):
        read_project(folder)
    male = read_project(folder, individual="male")
    assert len(male.frames) == 1500
    assert ("eyeL", "eyeR") in male.skeleton.pairs
    chosen = [male.frames[index] for index in (0, 40, 20)]
    shapes, _ = load_frames(chosen, "gray", lambda pixels, _: pixels.shape)
    assert shapes == [(1024, 1024)] * 3
