"""What a run left in its folder, read back: settings, manifest, log and poses."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtpose.config import load_settings
from rtpose.errors import InputError, MessageError
from rtpose.messages import AnyMessage, TriggerEvent
from rtpose.pose_log import TakenPose, read_poses
from rtpose.rig import Rig
from rtpose.run_log import read_log
from rtpose.skeleton import Skeleton


@dataclass(frozen=True)
class RunRecord:
    """The record of one run.

    Attributes
    ----------
    run : str
        Its id.
    rig : Rig
        What it ran with.
    skeleton : Skeleton
        Of its model.
    seed : int
        Of its random draws.
    messages : sequence of messages
        Its log: requests, answers and inputs, and the events that came of them and of the poses.
    pose_file : Path
    poses_taken : int or None
        How many poses control took, if it lived to say so.
    """

    run: str
    rig: Rig
    skeleton: Skeleton
    seed: int
    messages: Sequence[AnyMessage]
    pose_file: Path
    poses_taken: int | None

    @property
    def events(self) -> list[TriggerEvent]:
        """What control told of itself."""
        return [message for message in self.messages if isinstance(message, TriggerEvent)]

    def poses(self) -> Iterator[TakenPose]:
        """Yield the poses in order; a last one that was cut off is left out.

        Raises
        ------
        MessageError
            If the file is damaged.
        """
        return read_poses(self.pose_file)

    def is_whole(self, poses: int) -> bool:
        """Return whether control ended by itself and nothing is missing, given what it holds."""
        events = self.events
        ended = bool(events) and events[-1].kind == "stopped"
        # A pose on which an output failed before any trigger saw it is recorded, and not counted.
        return ended and (self.poses_taken is None or poses >= self.poses_taken)


def read_run(folder: Path) -> RunRecord:
    """Read the record of a run.

    Parameters
    ----------
    folder : Path
        The run's own folder, as ``rtpose run`` prints it.

    Raises
    ------
    InputError
        If it is not the folder of a run, or one that recorded no poses.
    ConfigError
        If a plug-in or a file that its settings name is not there any more.
    """
    manifest = _manifest(folder / "manifest.json")
    rig = load_settings(folder / "settings.json")
    pose_file = folder / "poses.bin"
    if not pose_file.is_file():
        why = "" if rig.recording.poses else ": it ran with [recording] poses = false"
        raise InputError(f"{folder} has no poses.bin, so there is nothing to run through{why}")
    try:
        messages = read_log(folder / "events.jsonl")
    except OSError as error:
        raise InputError(f"{folder / 'events.jsonl'}: {error.strerror}") from error
    except MessageError as error:
        raise InputError(f"the run's log is damaged: {error}") from error
    try:
        counters = manifest["counters"].get("control", {})
        return RunRecord(
            manifest["run"],
            rig,
            Skeleton.from_dict(manifest["info"]["inference"]["skeleton"]),
            manifest["info"]["control"]["seed"],
            messages,
            pose_file,
            counters.get("poses") if manifest["ended"] else None,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder / 'manifest.json'} lacks {error}: the run never started") from (
            error
        )


def _manifest(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror}; give the folder of one run, as rtpose run prints it"
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from error
