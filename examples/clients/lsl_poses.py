"""Passes the poses of a running rig on to Lab Streaming Layer, stamped with when they were true.

    pip install "rtpose[lsl]"
    python lsl_poses.py --insecure

Run it on the rig's machine: a sample's time is when its frame was exposed (or arrived, if the
camera does not tell), moved from the rig's clock to LSL's. A channel is x, y (pixels of the full
camera frame, NaN where the keypoint is not valid) or the confidence of one keypoint. It only
listens to the rig: slow or dead, it changes nothing there.
"""

import argparse
from typing import Any

import numpy as np

from rtpose.client import NamedPose, PoseStream
from rtpose_hardware.lsl import load, lsl_time


class PoseOutlet:
    """An LSL stream with the poses of one camera, made anew when their layout changes."""

    def __init__(self, pylsl: Any, stream: str) -> None:
        self._pylsl = pylsl
        self._stream = stream
        self._layout: tuple[Any, ...] = ()
        self._outlet: Any = None

    def push(self, pose: NamedPose) -> None:
        layout = (pose.skeleton.names, pose.keypoints.shape, pose.pose.exposure_ns is None)
        if layout != self._layout:
            self._outlet = None  # ends the old stream before another of its name begins
            self._outlet = self._pylsl.StreamOutlet(self._describe(pose))
            self._layout = layout
        sample = pose.keypoints.astype(np.float32)
        sample[pose.pose.valid == 0, :2] = np.nan
        stamp = lsl_time(pose.pose.start_ns, self._pylsl.local_clock)
        self._outlet.push_sample(sample.ravel().tolist(), stamp)

    def _describe(self, pose: NamedPose) -> Any:
        individuals, keypoints, _ = pose.keypoints.shape
        info = self._pylsl.StreamInfo(
            self._stream,
            "MoCap",
            individuals * keypoints * 3,
            self._pylsl.IRREGULAR_RATE,
            self._pylsl.cf_float32,
            f"rtpose-poses-{self._stream}-{pose.pose.camera}",
        )
        description = info.desc()
        description.append_child_value("run", pose.pose.run)
        description.append_child_value("camera", pose.pose.camera)
        stamped = "arrival" if pose.pose.exposure_ns is None else "exposure"
        description.append_child_value("time_stamp", stamped)
        channels = description.append_child("channels")
        for individual in range(individuals):
            for name in pose.skeleton.names:
                for kind, unit in (("x", "px"), ("y", "px"), ("confidence", "")):
                    channel = channels.append_child("channel")
                    channel.append_child_value("label", f"{individual}.{name}.{kind}")
                    channel.append_child_value("type", kind)
                    channel.append_child_value("unit", unit)
        return info


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pose-port", type=int, default=5560, help="of the rig, on this machine")
    parser.add_argument("--camera", help="which of several cameras")
    parser.add_argument("--stream", default="rtpose-poses", help="name of the LSL stream")
    parser.add_argument("--scope", choices=["machine", "link", "site"], default="machine")
    parser.add_argument(
        "--insecure",
        action="store_true",
        help="needed: LSL listens on every network interface, without a password",
    )
    options = parser.parse_args()
    if not options.insecure:
        parser.error("LSL listens on every network interface: say --insecure if that is all right")
    outlet = PoseOutlet(load(options.scope), options.stream)
    endpoint = f"tcp://127.0.0.1:{options.pose_port}"
    with PoseStream(endpoint, camera=options.camera) as stream:
        for pose in stream:
            outlet.push(pose)


if __name__ == "__main__":
    main()
