"""`rtpose watch`: the poses of a running rig."""

import json
import sys
from math import isfinite
from typing import Annotated

import typer

from rtpose.cli.steer import Host, ServerKey
from rtpose.client import NamedPose, PoseStream
from rtpose.errors import NoReplyError


def watch(
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The rig's stream.pose_port.")] = 5560,
    count: Annotated[int | None, typer.Option(help="End after this many poses.", min=1)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line per pose.")] = False,
    server_key: ServerKey = None,
) -> None:
    """Show the poses of a running rig."""
    with PoseStream(f"tcp://{host}:{port}", server_key_file=server_key) as stream:
        seen = 0
        while count is None or seen < count:
            pose = stream.receive(timeout_s=3.0)
            if pose is None:
                raise NoReplyError(
                    f"no pose from {host}:{port} for 3 s: is the rig running there, and is this "
                    "its pose_port, and its key if it has one?"
                )
            seen += 1
            sys.stdout.write(_pose_line(pose, stream, as_json) + "\n")
            sys.stdout.flush()  # a program that reads it wants each pose when it comes


def _pose_line(pose: NamedPose, stream: PoseStream, as_json: bool) -> str:
    points = {name: pose[name] for name in pose.skeleton.names}
    if as_json:
        return json.dumps(
            {
                "frame_id": pose.frame_id,
                "age_ms": round(pose.age_ms, 3),
                "lost": stream.lost,
                "restarts": stream.restarts,
                "keypoints": {
                    name: [*(v if isfinite(v) else None for v in (p.x_px, p.y_px)), p.confidence]
                    for name, p in points.items()
                    if p.valid
                },
            }
        )
    shown = "  ".join(
        f"{name} {p.x_px:6.1f} {p.y_px:6.1f}" if p.valid else f"{name}      -      -"
        for name, p in points.items()
    )
    return f"{pose.frame_id:8d}  {pose.age_ms:6.2f} ms  {shown}  lost {stream.lost}"


def add_to(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command()(watch)
