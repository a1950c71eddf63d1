"""Every exception that rtpose raises, and the exit code that each stands for."""

from collections.abc import Sequence
from dataclasses import dataclass


class RtposeError(Exception):
    """Base of all rtpose errors: the work failed.

    Attributes
    ----------
    exit_code : int
        What the command line exits with: 1 the work failed, 2 the input was wrong.
    """

    exit_code = 1


class InputError(RtposeError):
    """What the user gave (file, option, setting) cannot be used."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with an input, said completely.

    Attributes
    ----------
    where : str
        File and full key path, e.g. ``rig.toml: triggers.laser.radius_px``.
    what : str
        What is wrong, with the value that was found.
    fix : str
        What is allowed, or what to type.
    """

    where: str
    what: str
    fix: str = ""

    def __str__(self) -> str:
        """Return the problem on one line."""
        return f"{self.where}: {self.what}" + (f" ({self.fix})" if self.fix else "")


class ConfigError(InputError):
    """A configuration is wrong; carries every problem found, not only the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class MissingExtraError(InputError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str, needed_for: str) -> None:
        super().__init__(
            f"{needed_for} needs the package {package!r}, which is not installed; "
            f'type: pip install "rtpose[{extra}]"'
        )


class SkeletonError(InputError):
    """A skeleton contradicts itself, or a keypoint is not in it."""


class ModelError(InputError):
    """A model file is missing, damaged, or not what its card says."""


class ProviderError(InputError):
    """The execution provider that was asked for is not the one that would run."""


class CameraError(RtposeError):
    """A camera cannot be opened, stopped delivering, or delivered something unusable."""


class RingError(RtposeError):
    """A frame ring cannot be created, attached or read."""


class MessageError(RtposeError):
    """Received bytes are not a message of this schema version."""


class OutputError(RtposeError):
    """An output device cannot be opened, refused a command, or went away."""


class PortInUseError(OutputError):
    """Another program has the port open."""


class BoardVersionError(OutputError, InputError):
    """A board answers, with firmware that this host must not drive."""

    exit_code = 2


class TriggerError(RtposeError):
    """A trigger raised or hung while it looked at a pose."""


class RefusedError(RtposeError):
    """A running rig did not do what it was asked for; carries every reason."""

    def __init__(self, what: str, reasons: Sequence[str]) -> None:
        self.reasons = tuple(reasons)
        super().__init__(f"{what}:\n" + "\n".join(f"  - {reason}" for reason in self.reasons))


class NotReadyError(RefusedError):
    """Arming was refused; carries every reason."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__("not armed", reasons)


class ProcessFailedError(RtposeError):
    """One process of the rig died, hung or reported an error."""


class NoReplyError(RtposeError):
    """A running rig did not answer in time."""


class RecordingError(RtposeError):
    """Something could not be written completely (disk full, folder not writable)."""


class StoppedError(RtposeError):
    """The user stopped long work (Ctrl-C); says what was kept and how to go on."""

    exit_code = 130
