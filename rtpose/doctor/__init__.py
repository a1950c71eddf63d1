"""What `rtpose doctor` looks at: everything a new rig needs of this machine, but its boards.

The boards belong to the drivers' package, which reports in the same words.
"""

from contextlib import closing
from pathlib import Path

from rtpose.doctor import cameras, machine, software
from rtpose.finding import Finding


def look(runs: Path) -> list[Finding]:
    """Look at software, machine and cameras.

    Cameras, providers and priorities are tried in processes of their own, side by side, so that
    none can hang or change this one.

    Parameters
    ----------
    runs : Path
        Folder that a rig's recordings go to.
    """
    with (
        closing(software.try_providers()) as providers,
        closing(machine.try_realtime()) as realtime,
        closing(cameras.try_cameras()) as seen,
    ):
        return [
            software.packages(),
            *providers.findings(),
            *machine.look(runs),
            *realtime.findings(),
            *seen.findings(),
        ]
