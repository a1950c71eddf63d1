"""What a camera, a trigger and an output must do: three small abstract classes.

A plug-in is a class that derives from one of them, names its settings in a pydantic model called
``Config``, and is found by an entry point (groups ``rtpose.cameras``, ``rtpose.triggers``,
``rtpose.outputs``) or by ``"module:Class"`` in rig.toml. ``tests/contract`` holds the suite that
every one must pass.
"""

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    model_validator,
)

from rtpose.messages import Ack, Command, InputEvent, Pose
from rtpose.skeleton import Skeleton


class Settings(BaseModel):
    """Base of every plug-in's ``Config``: unknown keys and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True)


IDENTIFIER_PATTERN: Final = "^[A-Za-z0-9_-]{1,64}$"


def _beside_the_rig_file(value: str, info: ValidationInfo) -> str:
    folder = (info.context or {}).get("folder", Path())
    return str(folder / Path(value).expanduser())


#: A file or folder in a ``Config``: a relative one is beside the rig file that names it.
RigPath = Annotated[str, Field(min_length=1), AfterValidator(_beside_the_rig_file)]


#: A name in rig.toml: it becomes part of topics, of files and of ``"<output>.<line>"``.
Identifier = Annotated[str, Field(pattern=IDENTIFIER_PATTERN)]


# --------------------------------------------------------------------------------------- cameras


@dataclass(frozen=True, slots=True)
class FrameFormat:
    """What a camera delivers, as it really is after opening.

    Attributes
    ----------
    height_px, width_px : int
        Frame size.
    channels : int
        1 grey, 3 blue-green-red (OpenCV's order).
    rate_hz : float
        Nominal rate; 0 if it delivers as fast as frames are taken.
    notes : tuple of str
        What was asked for and not taken, in words for the user ("asked for 120 fps, got 60").
    """

    height_px: int
    width_px: int
    channels: int
    rate_hz: float
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a frame array: (height, width) for grey, (height, width, 3) for colour."""
        size = (self.height_px, self.width_px)
        return size if self.channels == 1 else (*size, self.channels)


@dataclass(frozen=True, slots=True)
class Captured:
    """One frame was written into the buffer.

    Attributes
    ----------
    arrival_ns : int
        When the driver handed it over, on `clock.now_ns`.
    exposure_ns : int or None
        The camera's own stamp mapped to the same clock; None if the camera has none.
    frame_id : int or None
        The camera's own frame count (must increase; a gap says that the camera lost frames), or
        None to let the core count.
    """

    arrival_ns: int
    exposure_ns: int | None = None
    frame_id: int | None = None


class Camera(ABC):
    """A source of frames. The core owns memory and threads; a camera fills buffers.

    Lifecycle: ``__init__(config)`` does nothing that can fail; `open` once; `frames` once; `close`
    any number of times, at any point.

    Attributes
    ----------
    live : bool
        It films: the noise of a sensor makes no two pictures the same, so that one that comes again
        and again is a camera that hangs. False for what may well deliver the same picture twice.
    """

    Config: ClassVar[type[Settings]]
    live: ClassVar[bool] = True

    @abstractmethod
    def __init__(self, config: Any) -> None:
        """Keep the settings, an instance of ``Config``."""

    @abstractmethod
    def open(self) -> FrameFormat:
        """Open the device and return what it will deliver; raise `CameraError` if it cannot."""

    @abstractmethod
    def frames(self, buffer: Callable[[], NDArray[np.uint8]]) -> Iterator[Captured | None]:
        """Yield once per frame, after writing its pixels into the array that ``buffer()`` returns.

        The array has the shape of `FrameFormat.shape` and is only valid until the yield. Yield
        None if nothing came for about 100 ms, so that the core can stop in time; return when the
        source has ended; raise `CameraError` if it failed or delivered another shape.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the device. Must not raise."""


# -------------------------------------------------------------------------------------- triggers


class Decision(enum.Enum):
    """What a trigger wants after one pose."""

    NOTHING = "nothing"
    FIRE = "fire"  #: one momentary event (an edge): a pulse
    HIGH = "high"  #: the line should be high now (a level); asked for again with every pose
    LOW = "low"  #: the line should be low now


@dataclass(frozen=True, slots=True)
class Scale:
    """How large the arena is in the picture.

    Attributes
    ----------
    px_per_mm : float
        Pixels of the full camera frame per millimetre of the arena's floor, > 0.
    """

    px_per_mm: float


class Trigger(ABC):
    """A condition on poses: a pure function of the poses and times it has seen.

    It never reads a clock, sends nothing, and runs in the control process, so that an offline run
    over the same poses gives the same decisions. `update` is called with every pose of its camera,
    stale ones too; whether a decision may act is not the trigger's business.
    """

    Config: ClassVar[type[Settings]]

    @abstractmethod
    def __init__(self, config: Any) -> None:
        """Keep the settings, an instance of ``Config``."""

    @abstractmethod
    def prepare(self, skeleton: Skeleton) -> None:
        """Look up keypoints by name; raise `SkeletonError` if the model does not have them."""

    @abstractmethod
    def update(self, pose: Pose) -> Decision:
        """Take one pose and say what should happen."""

    def calibrate(self, scale: Scale) -> None:  # noqa: B027 - most know no mm
        """Take note of the arena's scale; called before `prepare`, if the rig has one."""

    def start_session(self) -> None:  # noqa: B027 - most count nothing
        """Begin to count anew what is counted per session; called when the rig is armed."""

    def start_trial(self) -> None:  # noqa: B027 - most know no trials
        """Begin to count anew what is counted per trial. A session begins with a trial."""

    def refused(self) -> None:  # noqa: B027 - most count nothing
        """Take note that the last decision did not raise the line; called right after it.

        Not armed, older than the budget, or against a limit of the line: it does not count. Not
        called where another level was refused to a line that is high.
        """

    def let_go(self) -> None:  # noqa: B027 - most count nothing
        """Take note that the line fell though the last decision was HIGH; called before `update`.

        Control let go of it: no fresh poses came, a trial or a session began. Another HIGH is
        another rise. Not called where the line used up what it may be high: there the next rise
        waits for a LOW.
        """

    def take_over(self, before: "Trigger") -> None:  # noqa: B027 - most count nothing
        """Go on counting where another one of its class stopped, of which a setting was changed.

        Called after `prepare`. What a setting says of a trial or a session holds for all of it.
        """

    def delay_ms(self, rate_hz: float) -> float:
        """Return by how much its filter delays poses at a frame rate, 0 without a filter."""
        return 0.0

    @property
    def gives_levels(self) -> bool:
        """Whether it needs a line that takes levels between low and high."""
        return False

    @property
    def level(self) -> float:
        """How high the line should be with the last HIGH, above 0 to 1, on a line with levels."""
        return 1.0

    @property
    def momentary(self) -> bool | None:
        """Whether it gives FIRE (pulses), not HIGH and LOW (a level); None if it does not say.

        What says so has ``pulse_ms`` in its table checked: needed for pulses, refused for a level.
        """
        return None

    def describe(self) -> str:
        """Say in a few words what the last decision was made on, for the event's ``detail``."""
        return ""


# --------------------------------------------------------------------------------------- outputs


class LineConfig(Settings):
    """One line of an output, under ``[outputs.<name>.lines.<line>]``.

    Attributes
    ----------
    pin : int
        Number of the line on the device (0..7 on the TTL board).
    max_on_ms : float
        Longest time that the line may be high, counted from its rising edge. Enforced in control
        and on the board.
    refractory_ms : float
        Shortest time from the end of one pulse to the start of the next.
    dose_ms : float, optional
        Longest time that the line may be high in all, within any `dose_window_s`. What the drivers
        of devices with a clock of their own say of them tells whether the device enforces it too.
    dose_window_s : float, optional
        Without it, `dose_ms` counts from arming to the next arming.
    levels : bool
        It takes levels between low and high (by pulse width modulation, or analogue), for triggers
        such as ``proportional``. At any level it counts as high.
    """

    pin: Annotated[int, Field(ge=0, le=63)]
    max_on_ms: Annotated[float, Field(ge=0.001, le=60_000)]
    refractory_ms: Annotated[float, Field(ge=0, le=3_600_000)] = 0.0
    dose_ms: Annotated[float, Field(gt=0, le=3_600_000)] | None = None
    dose_window_s: Annotated[float, Field(gt=0, le=3600)] | None = None
    levels: bool = False

    @model_validator(mode="after")
    def _dose_fits(self) -> Self:
        if self.dose_window_s is not None:
            if self.dose_ms is None:
                raise ValueError("dose_window_s has a meaning with dose_ms only")
            if round(self.dose_ms * 1e6) > round(self.dose_window_s * 1e9):
                raise ValueError(
                    f"dose_ms = {self.dose_ms:g} is more than dose_window_s = "
                    f"{self.dose_window_s:g} s has: it would never hold anything up"
                )
        return self


class OutputSettings(Settings):
    """Base of every output's ``Config``.

    Attributes
    ----------
    lines : mapping of str to LineConfig
        The lines by the names that triggers use. Two names must not share a pin.
    level_pins : frozenset of int
        The pins that can have ``levels = true``; a driver says which.
    """

    level_pins: ClassVar[frozenset[int]] = frozenset()
    lines: Annotated[Mapping[Identifier, LineConfig], Field(min_length=1)]

    @model_validator(mode="after")
    def _levels_where_there_are_some(self) -> Self:
        for name, line in self.lines.items():
            if line.levels and line.pin not in self.level_pins:
                pins = ", ".join(map(str, sorted(self.level_pins)))
                raise ValueError(
                    f"line {name!r} cannot take levels: "
                    + (f"pins {pins} can" if pins else "this output only knows on and off")
                )
        return self

    def require_own_pins(self) -> None:
        """Raise `ValueError` if two lines share a pin; for the validator of a driver's settings."""
        names: dict[int, str] = {}
        for name, line in self.lines.items():
            first = names.setdefault(line.pin, name)
            if first != name:
                raise ValueError(f"lines {first!r} and {name!r} share pin {line.pin}")


@dataclass(frozen=True, slots=True)
class OutputInfo:
    """What an opened output says of itself.

    Attributes
    ----------
    device : str
        Model and firmware version in words.
    watchdog_ms : float or None
        After how long without `Output.beat` the device drops its lines; None if it has no
        watchdog, which arming reports.
    facts : mapping
        Anything else worth a place in the run's record.
    """

    device: str
    watchdog_ms: float | None
    facts: Mapping[str, str | int | float | bool] = field(default_factory=dict)


class Output(ABC):
    """A device with lines. Inert until armed; safe first on every way out.

    Lifecycle: ``__init__(config)`` does nothing that can fail; `open`; then `arm` and `safe` any
    number of times; `close` at the end, which makes safe first. No call blocks for longer than
    100 ms, `arm` (in which a device may test itself) for longer than 500 ms, `open` and `close` for
    longer than 5 s.
    """

    Config: ClassVar[type[OutputSettings]]
    #: Whether `send` takes pulse trains, timed by the device.
    takes_trains: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, config: Any) -> None:
        """Keep the settings, an instance of ``Config``."""

    @abstractmethod
    def open(self) -> OutputInfo:
        """Open the device, check its firmware version, set its limits, leave all lines low.

        Raises
        ------
        OutputError
            If it is absent or does not answer.
        BoardVersionError
            If its firmware is not one that this driver may talk to.
        """

    @classmethod
    def misfit(cls, command: Command) -> str:
        """Say why no such device ever takes a command, to end a sentence; empty if one may.

        "osc outputs", for one, "cannot time trains". So that a rig file that asks for it is refused
        before the run, and not every fire in it.
        """
        return "" if cls.takes_trains or command.action != "train" else "cannot time trains"

    @abstractmethod
    def arm(self) -> None:
        """Let `send` reach the lines; raise `OutputError` if the device does not confirm."""

    @abstractmethod
    def send(self, command: Command) -> int:
        """Hand one command to the operating system and return `clock.now_ns` just after that.

        Does not wait for the device's answer. Raises `OutputError` if the device is gone, if it
        is not armed, or if the line is not one of its lines.
        """

    @abstractmethod
    def acks(self) -> Sequence[Ack]:
        """Return the answers that came since the last call, without waiting; oldest first.

        ``run`` is left at its default: control fills it in. Raises `OutputError` if the device is
        gone.
        """

    def inputs(self) -> Sequence[InputEvent]:
        """Return what happened at its inputs since the last call, without waiting; oldest first.

        ``run`` and ``output`` are left at their defaults: control fills them in.
        """
        return ()

    def facts(self) -> Mapping[str, str | int | float | bool]:
        """Return what it has to say of itself that changes while it runs, for the status."""
        return {}

    @abstractmethod
    def beat(self) -> None:
        """Tell the device that the host is alive; called several times per watchdog period.

        Raises `OutputError` if the device is gone.
        """

    @abstractmethod
    def safe(self) -> None:
        """Drop every line and disarm, now. Never raises.

        A device that is gone is safe by its own watchdog; `is_safe` tells whether it confirmed.
        """

    @property
    @abstractmethod
    def is_safe(self) -> bool:
        """Whether the device confirmed, since the last `safe`, that all its lines are low."""

    @abstractmethod
    def close(self) -> None:
        """Make safe and release the device. Must not raise."""
