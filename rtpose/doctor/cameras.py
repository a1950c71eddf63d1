"""The cameras that OpenCV finds, each opened in a process of its own."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rtpose.doctor.trial import Trial, Trials
from rtpose.finding import Finding

_DEVICES: Final = Path("/sys/class/video4linux")

#: Where the system does not say which numbers are cameras.
_TRIED: Final = range(3)

#: A camera that has not delivered its second of frames by then hangs.
_PATIENCE_S: Final = 30.0


def try_cameras(devices: Path = _DEVICES) -> Trials:
    """Start opening every camera; `devices` is Linux's folder of them."""
    numbers = _numbers(devices) if sys.platform == "linux" else dict.fromkeys(_TRIED, "")
    trials = [
        Trial("camera", json.dumps({"device": number}), patience_s=_PATIENCE_S)
        for number in numbers
    ]
    # Where the numbers are guessed, one without a camera behind it is nothing to report.
    guessed = sys.platform != "linux"
    return Trials(trials, lambda results: judge_cameras(numbers, results, guessed=guessed))


def _numbers(devices: Path) -> Mapping[int, str]:
    """Return the numbers of the cameras, and what each is called.

    A camera may have several device nodes: its pictures are on the first, index 0.
    """
    found = {}
    for device in devices.glob("video*"):
        index = device / "index"
        if not index.is_file() or index.read_text().strip() == "0":
            name = device / "name"
            number = int(device.name.removeprefix("video"))
            found[number] = name.read_text().strip() if name.is_file() else ""
    return dict(sorted(found.items()))


def judge_cameras(
    names: Mapping[int, str], results: Sequence[Mapping[str, Any]], *, guessed: bool
) -> Sequence[Finding]:
    """Return the findings for cameras that were tried.

    Parameters
    ----------
    names : mapping of int to str
        Number and name of each.
    results : sequence of mapping
        What each trial found, in the same order.
    guessed : bool
        Whether there need not be a camera behind each number.
    """
    findings = []
    for (number, name), found in zip(names.items(), results, strict=True):
        topic = f"camera {number}"
        if "error" not in found:
            text = (
                f"{name + ': ' if name else ''}{found['width_px']}x{found['height_px']} px, "
                f"{found['measured_hz']:.1f} frames/s of {found['nominal_hz']:g}"
            )
            notes = "; ".join(found["notes"])
            findings.append(Finding(topic, "good", text, notes, found))
        elif not guessed:
            text = f"{name + ': ' if name else ''}{found['error']}"
            advice = "is it in use by a rig or another program?"
            findings.append(Finding(topic, "warning", text, advice, found))
    if not findings:
        advice = "plug one in; cameras of other drivers (rtpose list cameras) are not looked for"
        findings.append(Finding("cameras", "warning", "OpenCV finds none", advice))
    return findings
