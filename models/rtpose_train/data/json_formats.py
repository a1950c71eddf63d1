"""COCO keypoints and Label Studio (.json), read by sleap-io.

What it would pass over in silence is checked here first. COCO: it leaves out images that it does
not find and what is labelled on images that are not listed, looks for an image of the same name
in any other folder, and drops edges that count keypoints from 0. Label Studio: it takes the first
of several annotations, also if that was cancelled, the last of several points with one label, and
its keypoints in another order every time.
"""

import json
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import sleap_io
from sleap_io.io import labelstudio

from rtpose.errors import InputError, Problem
from rtpose_train.data.images import ImageFile, name_of
from rtpose_train.data.labels import Entry, Labels, noting, raise_problems
from rtpose_train.data.sleap_formats import from_sleap_io, individuals_of

_COCO_TABLES = ("images", "annotations", "categories")
#: Where sleap-io looks for an image before it takes one of that name from anywhere.
_IMAGE_FOLDERS = ("", "images", "imgs", "data/images")


def read_json(file: Path) -> Any:
    """Return a JSON file's content; raise `InputError` if it has none."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read: {error}") from error


def is_coco(file: Path) -> bool:
    """Return whether a JSON file has COCO's three tables."""
    data = _read_or_none(file)
    return isinstance(data, dict) and all(isinstance(data.get(t), list) for t in _COCO_TABLES)


def is_label_studio(file: Path) -> bool:
    """Return whether a JSON file is a list of Label Studio tasks."""
    data = _read_or_none(file)
    return (
        isinstance(data, list)
        and bool(data)
        and all(isinstance(t, dict) and {"annotations", "completions"} & set(t) for t in data)
    )


def _read_or_none(file: Path) -> Any:
    try:
        return read_json(file)
    except InputError:
        return None


# ------------------------------------------------------------------------------------------- COCO


def read_coco(file: Path) -> Labels:
    """Read COCO keypoints; visibility 0 is a missing keypoint, 1 and 2 are labels.

    Raises
    ------
    InputError
        If an image is not found, or anything in the file contradicts itself: every problem found.
    """
    data = read_json(file)
    category, root, paths = _check_coco(file, data)
    try:
        load = partial(sleap_io.load_coco, str(file), str(root), segmentation_format="roi")
        read, notes = noting(file, load)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InputError(f"{file}: cannot be read as COCO keypoints: {error!r}") from error
    if len(read.labeled_frames) != len(paths):
        raise InputError(
            f"{file}: {len(paths)} images, of which sleap-io reads {len(read.labeled_frames)}"
        )
    labels = Labels(file.parent, tuple(category["keypoints"]), [], notes=notes)
    for number, (path, labelled) in enumerate(zip(paths, read.labeled_frames, strict=True)):
        name = name_of(path, file.parent)
        where = f"{file} images[{number}]"
        animals = individuals_of(labelled.instances)
        folder = Path(name).parent.as_posix()
        labels.entries.append(Entry(name, ImageFile(path), folder, where, animals))
    edges = category.get("skeleton") or []
    if all(1 <= end <= len(labels.names) for edge in edges for end in edge):
        labels.edges += [(labels.names[a - 1], labels.names[b - 1]) for a, b in edges]
    else:
        labels.notes.append(
            f"{file}: its skeleton does not count keypoints from 1 to {len(labels.names)}; "
            "no edges are taken"
        )
    return labels


def _check_coco(file: Path, data: Any) -> tuple[dict[str, Any], Path, list[Path]]:
    """Return the category with keypoints, the images' folder and the images."""
    try:
        used = {a["category_id"] for a in data["annotations"] if a.get("keypoints")}
        categories = [c for c in data["categories"] if c.get("keypoints") and c["id"] in used]
        if len(categories) != 1:
            raise InputError(
                f"{file}: keypoints of {len(categories)} categories are labelled "
                f"({', '.join(str(c.get('name')) for c in categories) or 'none'}); one is needed"
            )
        root, paths, problems = _check_images(file, data["images"])
        images = {image["id"] for image in data["images"]}
        count = len(categories[0]["keypoints"])
        for number, annotation in enumerate(data["annotations"]):
            where = f"{file} annotations[{number}]"
            if annotation["image_id"] not in images:
                what = f"image_id {annotation['image_id']!r} is not under 'images'"
                problems.append(Problem(where, what))
            if annotation.get("keypoints"):
                problems += _check_keypoints(where, annotation["keypoints"], count)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file}: not COCO keypoints: {error!r}") from error
    raise_problems(problems)
    return categories[0], root, paths


def _check_images(
    file: Path, images: Sequence[dict[str, Any]]
) -> tuple[Path, list[Path], list[Problem]]:
    """Return where the images lie, each of them, and what is wrong with them."""
    # The tables often lie in a folder "annotations" beside the images.
    roots = [file.parent, file.parent.parent]
    found = [[_find_image(root, image["file_name"]) for image in images] for root in roots]
    best = 0 if any(found[0]) or not any(found[1]) else 1
    problems, paths = [], []
    identities = Counter(image["id"] for image in images)
    for number, (image, path) in enumerate(zip(images, found[best], strict=True)):
        where = f"{file} images[{number}]"
        if path is None:
            looked = f"looked in {roots[0]} and {roots[1]}, and in images/, imgs/, data/images/"
            problems.append(Problem(where, f"no image {image['file_name']}", looked))
        else:
            paths.append(path)
        if identities[image["id"]] > 1:
            problems.append(Problem(where, f"id {image['id']!r} is that of another image too"))
    return roots[best], paths, problems


def _find_image(root: Path, written: str) -> Path | None:
    places = (root / folder / written for folder in _IMAGE_FOLDERS)
    return next((place for place in places if place.is_file()), None)


def _check_keypoints(where: str, numbers: Any, count: int) -> list[Problem]:
    if not isinstance(numbers, list) or len(numbers) != 3 * count:
        have = f"{len(numbers)} numbers" if isinstance(numbers, list) else repr(numbers)
        return [Problem(where, f"keypoints: {have}", f"x, y, visibility of {count} keypoints")]
    problems = []
    for k in range(count):
        point = numbers[3 * k : 3 * k + 3]
        is_number = all(isinstance(n, int | float) and np.isfinite(n) for n in point)
        if not is_number or point[2] not in (0, 1, 2):
            what = f"keypoint {k} is {point!r}"
            problems.append(Problem(where, what, "x, y, and visibility 0, 1 or 2"))
    return problems


# ---------------------------------------------------------------------------------- Label Studio


def read_label_studio(file: Path) -> Labels:
    """Read keypoint labels of Label Studio, of image tasks or, as sleap-io writes them, of videos.

    Raises
    ------
    InputError
        If an image is not found, or a task cannot be used: every problem found.
    """
    tasks, problems, unlabelled = [], [], 0
    for number, task in enumerate(read_json(file)):
        where = f"{file} task {task.get('id', number)}"
        try:
            cleaned = _clean(task)
        except KeyError as error:
            problems.append(Problem(where, f"has no field {error}"))
            continue
        except (TypeError, ValueError, AttributeError) as error:
            problems.append(Problem(where, f"cannot be read: {error}"))
            continue
        if cleaned is None:
            unlabelled += 1
        else:
            tasks.append((where, cleaned))
    raise_problems(problems)
    # Dictionaries, as sets that keep their order.
    names = dict.fromkeys(
        label
        for _, task in tasks
        for item in task["annotations"][0]["result"]
        if item["type"] == "keypointlabels"
        for label in item["value"]["keypointlabels"]
    )
    if not names:
        raise InputError(f"{file}: no labelled frame: no task has keypoint labels")
    skeleton = sleap_io.Skeleton(list(names))
    frames = []
    for where, task in tasks:
        try:
            frames.append(labelstudio.task_to_labeled_frame(task, skeleton))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            problems.append(Problem(where, f"cannot be read by sleap-io: {error!r}"))
    raise_problems(problems)
    labels = from_sleap_io(file, sleap_io.Labels(frames, skeletons=[skeleton]), [])
    if unlabelled:
        labels.notes.append(f"{unlabelled} tasks without any annotation left out")
    return labels


def _clean(task: dict[str, Any]) -> dict[str, Any] | None:
    """Return a task with its one annotation and its picture where sleap-io looks for them."""
    annotations = [
        annotation
        for annotation in task["annotations" if "annotations" in task else "completions"]
        if not annotation.get("was_cancelled") and annotation["result"]
    ]
    if not annotations:
        return None
    if len(annotations) > 1:
        raise ValueError(f"{len(annotations)} annotations; keep one")
    result = annotations[0]["result"]
    ends = {end for item in result if item["type"] == "relation" for end in _ends(item)}
    # A box that no keypoint is related to tells of no individual.
    kept = [i for i in result if i["type"] != "rectanglelabels" or i["id"] in ends]
    _check_points(kept)
    video = task.get("meta", {}).get("video")
    if video is None:
        video = {"filename": [_picture(task["data"])], "frame_idx": 0}
    # The shape would be taken for something else, and is not needed.
    video = {**video, "shape": None}
    return {"annotations": [{"result": kept}], "meta": {"video": video}}


def _ends(relation: dict[str, Any]) -> tuple[str, str]:
    return relation["from_id"], relation["to_id"]


def _check_points(result: Sequence[dict[str, Any]]) -> None:
    owners = dict(_ends(item) for item in result if item["type"] == "relation")
    seen = set()
    for item in result:
        if item["type"] != "keypointlabels":
            continue
        (label,) = item["value"]["keypointlabels"]
        owner = owners.get(item["id"])
        if (label, owner) in seen:
            raise ValueError(f"{label!r} is labelled twice")
        seen.add((label, owner))
        if item.get("image_rotation"):
            raise ValueError(f"the image is turned by {item['image_rotation']}; label it upright")
        _ = item["original_width"], item["original_height"], item["value"]["x"], item["value"]["y"]


def _picture(data: dict[str, Any]) -> str:
    """Return the path of a task's image out of its address."""
    addresses = [value for value in data.values() if isinstance(value, str)]
    if len(addresses) != 1:
        addresses = [data[key] for key in ("image", "img") if key in data]
    if len(addresses) != 1:
        raise ValueError(f"which of {', '.join(data) or 'no data'} is the image cannot be told")
    address = urlsplit(addresses[0])
    # Files that Label Studio serves from a folder: /data/local-files/?d=path
    return parse_qs(address.query).get("d", [unquote(address.path)])[0]
