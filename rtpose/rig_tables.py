"""The tables of rig.toml that are not a plug-in's own: their keys, ranges and defaults."""

from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rtpose.forecast import ForecastSettings
from rtpose.interfaces import RigPath, Scale

Pixels = Annotated[int, Field(ge=0, le=100_000, strict=True)]
Port = Annotated[int, Field(ge=1024, le=65535)]
_DISARM_AFTER: Final = 3


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True)


class ModelTable(_Table):
    """``[model]``: which network, and how it runs.

    Attributes
    ----------
    path : str
        An ONNX file exported by rtpose, relative to the rig file, or the name of a model that comes
        with rtpose, see ``rtpose list models``.
    provider : {'cpu', 'cuda'}
        Where it runs. Never silently elsewhere.
    threads : int
        CPU threads of one inference; fewer than the machine has cores.
    min_confidence : float, optional
        Below it a keypoint is not valid; the model card's suggestion if absent.
    crop : list of int, optional
        [x, y, width, height] of the part of the frame to look at, in px.
    """

    path: str
    provider: Literal["cpu", "cuda"] = "cpu"
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    min_confidence: Annotated[float, Field(ge=0, le=1)] | None = None
    # TOML has arrays, not tuples.
    crop: Annotated[tuple[Pixels, Pixels, Pixels, Pixels], Field(strict=False)] | None = None


class StreamTable(_Table):
    """``[stream]``: where the rig publishes and takes requests.

    Attributes
    ----------
    host : str
        Address to bind to. Anything but loopback needs `curve_secret_key_file` or `insecure`.
    curve_secret_key_file : str, optional
        ZeroMQ certificate of the rig (``zmq.auth.create_certificates``); clients then need the
        rig's public key.
    insecure : bool
        Bind beyond loopback without encryption, knowingly.
    """

    host: str = "127.0.0.1"
    pose_port: Port = 5560
    event_port: Port = 5561
    command_port: Port = 5562
    curve_secret_key_file: RigPath | None = None
    insecure: bool = False

    def endpoint(self, port: int) -> str:
        """Return the ZeroMQ address to bind a port to."""
        return f"tcp://{self.host}:{port}"

    def local_endpoint(self, port: int) -> str:
        """Return the ZeroMQ address under which this machine reaches a port."""
        return f"tcp://{'127.0.0.1' if self.host == '0.0.0.0' else self.host}:{port}"


class LatencyTable(_Table):
    """``[latency]``: the budget, from exposure (or arrival) to the command.

    Attributes
    ----------
    budget_ms : float
        A pose older than this when the trigger has decided may not act, nor may one that is stamped
        so far ahead of the clock.
    policy : {'skip', 'fire', 'disarm'}
        What happens then; the decision is counted, published and recorded in any case. ``skip``:
        nothing is sent. ``fire``: it acts all the same, and the event says so. ``disarm``: nothing
        is sent, and after `disarm_after` such decisions in a row the rig is disarmed.
    disarm_after : int
        See `policy`.
    max_pose_gap_ms : float
        After this long without a pose within the budget, or with poses of one and the same picture,
        control switches every line off and nothing fires.
    realtime : bool
        Ask for real-time priority; where the system refuses, it is said and the rig runs without.
    """

    budget_ms: Annotated[float, Field(gt=0, le=10_000)] = 50.0
    policy: Literal["skip", "fire", "disarm"] = "skip"
    disarm_after: Annotated[int, Field(ge=1, le=1_000_000)] = _DISARM_AFTER
    max_pose_gap_ms: Annotated[float, Field(gt=0, le=60_000)] = 250.0
    realtime: bool = True

    @model_validator(mode="after")
    def _would_disarm(self) -> Self:
        if self.policy != "disarm" and self.disarm_after != _DISARM_AFTER:
            raise ValueError(
                f'disarm_after = {self.disarm_after} has a meaning with policy = "disarm" only'
            )
        return self


class ArenaTable(_Table):
    """``[arena]``: how large things are.

    Attributes
    ----------
    px_per_mm : float, optional
        Pixels of the full camera frame per millimetre of the arena's floor; triggers with
        thresholds in mm need it.
    """

    px_per_mm: Annotated[float, Field(gt=0, le=10_000, allow_inf_nan=False)] | None = None

    @property
    def scale(self) -> Scale | None:
        """The scale for triggers, if there is one."""
        return None if self.px_per_mm is None else Scale(self.px_per_mm)


class ForecastTable(ForecastSettings):
    """``[forecast]``: for triggers with ``forecast = true``; `ForecastSettings` and one more.

    Attributes
    ----------
    output_delay_ms : float
        How long after a pose was published an output acts, until that was measured on the
        acknowledgements of the first commands.
    """

    output_delay_ms: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] = 1.0

    @model_validator(mode="after")
    def _reaches_that_far(self) -> Self:
        if self.output_delay_ms >= self.max_gap_ms:
            raise ValueError(
                f"output_delay_ms = {self.output_delay_ms:g} is beyond max_gap_ms = "
                f"{self.max_gap_ms:g}: no keypoint would have a forecast"
            )
        return self


Seconds = Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)]


class ExperimentTable(_Table):
    """``[experiment]``: sessions, trials, and when nothing may act by design.

    Attributes
    ----------
    seed : int, optional
        Of every random draw. One is drawn and recorded if absent.
    baseline : bool
        Decide and record as ever, but send nothing.
    session_s : float, optional
        So long after arming the rig disarms itself.
    trial_s : float, optional
        Length of a trial. Without it a trial lasts until a client ends it or begins the next.
    inter_trial_s : list of float, optional
        ``[least, most]`` seconds from the end of a trial to the next one, drawn evenly; twice the
        same for a fixed time. Without it clients begin every trial but the first.
    max_trials : int, optional
        After the last one the rig disarms itself.
    catch_probability : float
        Share of the trials in which nothing is sent, drawn for each.
    """

    seed: Annotated[int, Field(ge=0, lt=1 << 63)] | None = None
    baseline: bool = False
    session_s: Seconds | None = None
    trial_s: Seconds | None = None
    # TOML has arrays, not tuples.
    inter_trial_s: Annotated[tuple[Seconds, Seconds], Field(strict=False)] | None = None
    max_trials: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    catch_probability: Annotated[float, Field(ge=0, le=1)] = 0.0

    @model_validator(mode="after")
    def _intervals_make_sense(self) -> Self:
        if self.inter_trial_s is not None:
            if self.trial_s is None:
                raise ValueError("inter_trial_s needs trial_s: when a trial ends")
            if self.inter_trial_s[0] > self.inter_trial_s[1]:
                raise ValueError(f"inter_trial_s = {list(self.inter_trial_s)} must be least, most")
        return self


class RecordingTable(_Table):
    """``[recording]``: where each run leaves its folder, and what it holds.

    Attributes
    ----------
    folder : str
        Gets one folder per run: manifest, settings, events.
    poses : bool
        Record every pose that control took, as ``poses.bin``; ``rtpose replay`` needs it.
    """

    folder: RigPath = "runs"
    poses: bool = True


class CameraCommon(_Table):
    """What ``[cameras.<name>]`` has beside the camera's own settings.

    Attributes
    ----------
    type : str
        A camera plug-in (``rtpose list cameras``) or ``"module:Class"``.
    ring_slots : int
        Frames that shared memory holds.
    max_silence_ms : float
        After this long without a frame, or with one and the same picture from a camera that films,
        the camera counts as stopped, and the run ends.
    """

    type: str
    ring_slots: Annotated[int, Field(ge=3, le=1024)] = 8
    max_silence_ms: Annotated[float, Field(gt=0, le=600_000)] = 2000.0


class OutputCommon(_Table):
    """What ``[outputs.<name>]`` has beside the output's own settings: its plug-in."""

    type: str


class TrainTable(_Table):
    """``train = { ... }`` of a trigger: see `TriggerCommon`."""

    count: Annotated[int, Field(ge=1, le=65_535)]
    period_ms: Annotated[float, Field(ge=0, le=600_000)] = 0.0
    delay_ms: Annotated[float, Field(ge=0, le=600_000)] = 0.0


class TriggerCommon(_Table):
    """What ``[triggers.<name>]`` has beside the condition's own settings.

    Attributes
    ----------
    type : str
        A trigger plug-in (``rtpose list triggers``) or ``"module:Class"``.
    output : str
        ``"<output>.<line>"``, e.g. ``"board.laser"``.
    pulse_ms : float, optional
        Width of the pulse that a momentary decision gives; the line's `max_on_ms` bounds it. For a
        trigger that does not say whether it gives pulses, the line's `max_on_ms` if absent.
    train : table, optional
        Several pulses of `pulse_ms` instead of one, timed by the output: ``count``, ``period_ms``
        (from rise to rise), ``delay_ms`` (before the first).
    forecast : bool
        Decide on where the keypoints will be when the output acts, see ``[forecast]``.
    probability : float
        Of acting, drawn for every decision to fire and every rise of a level.
    sham : bool
        Decide and record as ever, keep every limit, but send nothing.
    yoked_to : str, optional
        ``events.jsonl`` of another run: what a trigger sent there is sent here again, at the same
        times after arming; this trigger's own decisions are only recorded.
    yoked_trigger : str, optional
        The trigger's name there; its own name if absent.
    """

    type: str
    output: str
    pulse_ms: Annotated[float, Field(ge=0.001, le=60_000)] | None = None
    train: TrainTable | None = None
    forecast: bool = False
    probability: Annotated[float, Field(gt=0, le=1)] = 1.0
    sham: bool = False
    yoked_to: RigPath | None = None
    yoked_trigger: str | None = None

    @model_validator(mode="after")
    def _train_makes_sense(self) -> Self:
        if self.train is not None:
            if self.pulse_ms is None:
                raise ValueError("train needs pulse_ms: how long is each of its pulses?")
            # In whole microseconds, as it is sent.
            low_us = round(self.train.period_ms * 1000) - round(self.pulse_ms * 1000)
            if self.train.count > 1 and low_us <= 0:
                raise ValueError(
                    f"train.period_ms = {self.train.period_ms:g} must be more than "
                    f"pulse_ms = {self.pulse_ms:g}"
                )
        return self

    @model_validator(mode="after")
    def _one_design(self) -> Self:
        if self.yoked_trigger is not None and self.yoked_to is None:
            raise ValueError("yoked_trigger needs yoked_to: in which run")
        if self.yoked_to is not None and (self.sham or self.probability < 1):
            raise ValueError("a yoked trigger cannot be a sham or have a probability too")
        return self
