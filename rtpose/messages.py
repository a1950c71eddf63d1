"""What crosses a process border, and its wire format: enough to write a client from.

Transport
---------
A rig publishes on two ZeroMQ PUB endpoints: poses and the inference status on one (default
``tcp://127.0.0.1:5560``), events, acknowledgements and the control status on the other (5561).
A third endpoint (5562, ROUTER; talk to it with REQ) takes requests. Every published message has two
parts, ``[topic, payload]``. Topics are ``pose.<camera>``, ``event``, ``ack``, ``input`` and
``status.<process>``; subscribe by prefix. The payload is msgpack. The same message in JSON is
published under the topic with ``json.`` in front (``json.pose.top``) as long as somebody subscribes
to it.

Payload
-------
A map. ``v`` is the schema version (this file: 1) and ``type`` the kind of message; a reader drops,
and counts, what has another version. Fields that a reader does not know are to be ignored. All
times end in ``_ns`` and are one monotonic clock of the rig's machine: they compare with each other,
not with a wall clock. ``nil`` means not measured, never zero.

``pose``: ``run`` (id of the run: a change means a restart), ``camera``, ``seq`` (counts poses; a
jump means that *you* lost messages), ``frame_id`` (counts frames of the camera), ``dropped``
(frames passed over since the last pose), the stamps ``exposure_ns`` (nil if the camera has none),
``arrival_ns``, ``ready_ns``, ``infer_start_ns``, ``infer_end_ns``, ``publish_ns``, ``repeated_ns``
(for how long the camera has been delivering this very picture, 0 for a new one), then ``shape`` =
[individuals, keypoints, 3], ``keypoints`` = that many little-endian float32 in C order, the last
axis x, y (pixels of the full camera frame, origin at the centre of the top-left pixel, y down),
confidence; and ``valid`` = one byte per individual and keypoint, 0 where the confidence is too low
to use. In JSON ``keypoints`` and ``valid`` are nested lists, with null for a coordinate that is not
a number.

``event``, ``ack``, ``status``: the fields of the classes below, under the same names. Names travel
in ``status.inference``, which is sent every second and at once after a new subscription: its
``info["skeleton"]`` is a map of ``names`` (in the order of the keypoints), ``edges`` and left/right
``pairs`` (both lists of two names).

``input``: an edge on an input of an output device (a lick, a camera's exposure), `InputEvent`.

Requests: a msgpack map with ``v``, ``type: "request"``, ``action`` and what that action needs, see
`Request`, in at most 4096 bytes; the answer is a ``reply``. What is no request changes nothing, is
counted in ``malformed`` of ``status.control``, and answered with ``ok`` false. Clients take turns
request by request, so that none can hold up another. A connection that has not finished its
handshake within 2 s, or not with the rig's key, is let go and counted in ``failed_handshakes``.
"""

import json
import math
import reprlib
from typing import Annotated, Any, ClassVar, Literal, Self

import msgpack
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from rtpose.errors import MessageError
from rtpose.pose import PACKED_MARK
from rtpose.pose import FrameHeader as FrameHeader
from rtpose.pose import Pose as Pose

_PACKED_MARK = bytes([PACKED_MARK])

SCHEMA_VERSION = 1

#: Nothing that rtpose sends comes near this; a longer payload is refused unread.
MAX_PAYLOAD_BYTES = 1 << 20

#: A longer request is refused: a hundred corners of a polygon are 2 kB, and reading it takes time.
MAX_REQUEST_BYTES = 4096

Ns = Annotated[int, Field(ge=0, lt=1 << 63)]
Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Text = Annotated[str, Field(max_length=4096)]
Name = Annotated[str, Field(min_length=1, max_length=128)]

#: Longest pulse train, from the command to the last fall.
MAX_TRAIN_US = 600_000_000

#: How deeply maps and lists may be nested in a free map.
MAX_DEPTH = 16


def _portable(value: Any, depth: int = MAX_DEPTH, *, exact: bool = False) -> Any:
    """Check that both encodings carry a value, so that whatever was received can be passed on."""
    if depth == 0:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    if isinstance(value, dict):
        return {
            _portable_key(key): _portable(item, depth - 1, exact=exact)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_portable(item, depth - 1, exact=exact) for item in value]
    if isinstance(value, str):
        value.encode()  # a lone surrogate has no UTF-8
    elif isinstance(value, float) and not math.isfinite(value):
        if exact:
            raise ValueError(f"{value} does not exist in both encodings")
        return None  # JSON has no other word for it
    elif isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"{value:#x} needs more than 64 bits")
    elif value is not None and not isinstance(value, int | float):
        raise ValueError(f"{type(value).__name__} does not exist in both encodings")
    return value


def _exact(value: Any) -> Any:
    """Check that both encodings carry a value as it is: a setting must not become another one."""
    return _portable(value, exact=True)


def _portable_key(key: object) -> str:
    if not isinstance(key, str):
        raise ValueError(f"key {reprlib.repr(key)} is not text")
    key.encode()
    return key


Info = Annotated[dict[str, Any], AfterValidator(_portable)]
Value = Annotated[Any, AfterValidator(_exact)]
Counters = Annotated[dict[Text, Count], Field(max_length=4096)]


class Message(BaseModel):
    """Base of all messages but the pose: checked strictly on construction and on receipt."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")
    type_name: ClassVar[str]

    def to_wire(self) -> dict[str, Any]:
        """Return the fields of the payload map."""
        return self.model_dump(mode="python")

    def to_json_wire(self) -> dict[str, Any]:
        """Return the fields of the payload map for JSON."""
        return self.to_wire()

    @classmethod
    def from_wire(cls, data: dict[str, Any]) -> Self:
        """Check a payload map and build the message; raise `MessageError` if it is malformed."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            path = ".".join(map(str, first["loc"])) or "message"
            raise MessageError(
                f"malformed {cls.type_name}: {error.error_count()} wrong, "
                f"first {reprlib.repr(path)}: {first['msg']}"
            ) from error


class Command(Message):
    """One absolute, bounded order to an output line. There is no toggle.

    Attributes
    ----------
    command_id : int
        Counts the commands of a run; the acknowledgement carries it back.
    output, line : str
        Which device, which of its lines.
    action : {'on', 'off', 'pulse', 'train'}
        ``on`` holds the line high for at most `width_us`, which the board enforces; ``pulse`` holds
        it for exactly `width_us`, timed on the board; ``train`` is `count` such pulses.
    width_us : int
        Microseconds; 0 for ``off``.
    level : float
        With ``on``: how much of its full power the line gives, above 0 to 1. Below 1 only on lines
        that take levels.
    delay_us, period_us, count : int
        With ``train``: from the command to the first rise, from one rise to the next, and how many.
    """

    type_name: ClassVar[str] = "command"
    command_id: Count
    output: Name
    line: Name
    action: Literal["on", "off", "pulse", "train"]
    width_us: Annotated[int, Field(ge=0, le=60_000_000)] = 0
    level: Annotated[float, Field(gt=0, le=1)] = 1.0
    delay_us: Annotated[int, Field(ge=0, le=MAX_TRAIN_US)] = 0
    period_us: Annotated[int, Field(ge=0, le=MAX_TRAIN_US)] = 0
    count: Annotated[int, Field(ge=1, le=65_535)] = 1

    def model_post_init(self, _context: Any) -> None:
        """Refuse numbers that contradict the action."""
        if (self.action == "off") != (self.width_us == 0):
            raise ValueError(f"{self.action!r} with width_us={self.width_us}")
        if self.action != "on" and self.level != 1.0:
            raise ValueError(f"{self.action!r} with level={self.level}")
        if self.action != "train":
            if (self.delay_us, self.period_us, self.count) != (0, 0, 1):
                raise ValueError(f"{self.action!r} with delay_us, period_us or count")
        elif self.count > 1 and self.period_us <= self.width_us:
            raise ValueError(f"pulses of {self.width_us} us every {self.period_us} us never end")
        elif self.length_us > MAX_TRAIN_US:
            raise ValueError(f"a train of {self.length_us} us, at most {MAX_TRAIN_US}")

    @property
    def length_us(self) -> int:
        """From the command to the last fall, in microseconds."""
        return self.delay_us + (self.count - 1) * self.period_us + self.width_us

    @property
    def on_time_us(self) -> int:
        """How long the line is high in all, at most, in microseconds."""
        return self.count * self.width_us


class Ack(Message):
    """A board's answer to one command.

    Attributes
    ----------
    command_id : int
        The command that is answered.
    ok : bool
        False if the board refused; `detail` says why.
    confirmed : bool
        False if nothing on the other side answers: `ok` then says no more than that the bytes were
        handed over, and `ack_ns` repeats when. Such an ack is no latency.
    command_ns, ack_ns : int
        When the bytes were handed to the operating system; when the answer was read.
    device_us : int or None
        The board's own clock when the pin moved; None if the device has no clock.
    device_ns : int or None
        The same on the host's clock; None if the two clocks were not compared yet.
    receive_ns : int or None
        When control took the answer from its driver.
    """

    type_name: ClassVar[str] = "ack"
    run: Name = "none"
    command_id: Count
    output: Name
    line: Name
    ok: bool
    confirmed: bool = True
    command_ns: Ns
    ack_ns: Ns
    device_us: Count | None = None
    device_ns: Ns | None = None
    receive_ns: Ns | None = None
    detail: Text = ""


class InputEvent(Message):
    """An edge on an input of an output device: a lick, a camera's exposure, a sync pulse.

    Attributes
    ----------
    output, input : str
        Which device (control fills it in: a driver does not know its name), which of its inputs.
    level : bool
        High after the edge.
    time_ns, uncertainty_ns : int or None
        When it was, on the host's clock, and how wrong that may be; None if the device has no clock
        or it was not compared yet.
    arrival_ns : int
        When the host heard of it.
    device_us : int or None
        When it was, on the device's clock.
    stop : bool
        It is the emergency stop: the device has dropped its lines and disarmed.
    missed : int
        Edges of this input that were not reported since the last one, being too many or too close.
    receive_ns : int or None
        When control took it from its driver.
    """

    type_name: ClassVar[str] = "input"
    run: Name = "none"
    output: Name = "none"
    input: Name
    level: bool
    time_ns: Ns | None = None
    uncertainty_ns: Ns | None = None
    arrival_ns: Ns
    device_us: Count | None = None
    stop: bool = False
    missed: Count = 0
    receive_ns: Ns | None = None


EventKind = Literal[
    "fire",  # a trigger decided and the command was handed over
    "overrun",  # a trigger decided, on a pose older than the budget: nothing was sent
    "refused",  # a trigger decided, and a limit or the disarmed state forbade it
    "armed",
    "disarmed",
    "safe",  # outputs were made safe; detail says why
    "line-off",  # control switched a line off on its own clock
    "trigger-failed",  # a trigger raised and is disabled
    "output-failed",
    "level-set",  # a line that is held high got another level
    "withheld",  # a trigger decided, and the experiment's design let nothing be sent
    "estop",  # emergency stop: outputs safe, and no arming before it is released
    "released",  # the emergency stop was released
    "trial-started",
    "trial-ended",
    "parameter-set",  # a client changed a trigger's parameter; detail has old and new
    "stale",  # no fresh pose for longer than allowed
    "started",
    "stopped",
]


Withheld = Literal["sham", "baseline", "catch", "probability", "between-trials", "yoked"]


class TriggerEvent(Message):
    """Something that control decided, with every stamp that led to it.

    Attributes
    ----------
    command, command_ns : Command or None, int or None
        What was sent, and when it was handed over; with `withheld`, what would have been sent, but
        for ``between-trials``, where nothing would.
    withheld : str or None
        Why the experiment's design let nothing be sent.
    draw : float or None
        The random number, 0 to 1, that this was decided by.
    trial : int or None
        Number of the trial in which it happened, from 1.
    asked : bool
        A client asked for it.
    forecast_ns : int or None
        The time for which the pose was forecast, if the trigger acts on the forecast.
    """

    type_name: ClassVar[str] = "event"
    run: Name
    seq: Count
    kind: EventKind
    trigger: Name | None = None
    camera: Name | None = None
    frame_id: Count | None = None
    exposure_ns: Ns | None = None
    arrival_ns: Ns | None = None
    ready_ns: Ns | None = None
    infer_start_ns: Ns | None = None
    infer_end_ns: Ns | None = None
    publish_ns: Ns | None = None
    receive_ns: Ns | None = None
    decide_ns: Ns
    command_ns: Ns | None = None
    budget_ns: Ns | None = None
    command: Command | None = None
    withheld: Withheld | None = None
    draw: Annotated[float, Field(ge=0, le=1)] | None = None
    trial: Count | None = None
    asked: bool = False
    forecast_ns: Ns | None = None
    detail: Text = ""


class Status(Message):
    """What one process says of itself, every second and on request.

    Attributes
    ----------
    process : str
        ``capture.<camera>``, ``inference``, ``control`` or ``recorder``.
    state : str
        One word, e.g. ``starting``, ``running``, ``armed``, ``disarmed``, ``failed``.
    counters : dict of str to int
        Everything counted since the start.
    info : dict
        What does not change in a run: camera, skeleton, model name and hash, provider, limits.
    """

    type_name: ClassVar[str] = "status"
    run: Name
    process: Name
    state: Name
    sent_ns: Ns
    counters: Counters = Field(default_factory=dict)
    info: Info = Field(default_factory=dict)


class Heartbeat(Message):
    """Sign of life from a process to its supervisor, with its counters.

    Attributes
    ----------
    ready : bool
        The process finished its start-up.
    failure, failure_code : str, int
        Set in the last heartbeat of a process that ends by an error: the error's text for the user,
        and the exit code it stands for.
    finished : bool
        Set in the last heartbeat of a process that ended because its work was done.
    stop_requested : bool
        A client asked for the rig to stop.
    """

    type_name: ClassVar[str] = "heartbeat"
    process: Name
    pid: Count
    sent_ns: Ns
    ready: bool = False
    finished: bool = False
    stop_requested: bool = False
    failure: Text = ""
    failure_code: Annotated[int, Field(ge=0, le=255)] = 0
    counters: Counters = Field(default_factory=dict)
    info: Info = Field(default_factory=dict)


class Request(Message):
    """A rig controller's request to a running rig; what it changes is recorded as an event.

    Attributes
    ----------
    action : str
        ``status``; ``arm`` and ``disarm``; ``estop`` (outputs safe, and no arming until
        ``release``); ``trial`` and ``end-trial``; ``fire`` (one pulse, to test an output; the rig
        must be armed); ``set`` (change a trigger's parameter); ``stop`` (end the run).
    line : str, optional
        With ``fire``: ``"<output>.<line>"``.
    width_ms : float, optional
        With ``fire``: width of the pulse, within the line's limits.
    trigger, key, value : optional
        With ``set``: the trigger's name, one of its settings as in ``[triggers.<name>]``, and what
        that is to be until the run ends: what TOML can say and JSON too, or nil for a setting that
        may be absent. Not ``output``, ``pulse_ms`` and what else every trigger has.
    receive_ns : int or None
        When control took it; in the run's log only, where it stands before what came of it.
    """

    type_name: ClassVar[str] = "request"
    action: Literal[
        "status",
        "arm",
        "disarm",
        "estop",
        "release",
        "trial",
        "end-trial",
        "fire",
        "set",
        "stop",
    ]
    line: Name | None = None
    width_ms: Annotated[float, Field(gt=0, le=60_000)] | None = None
    trigger: Name | None = None
    key: Name | None = None
    value: Value = None
    receive_ns: Ns | None = None

    def model_post_init(self, _context: Any) -> None:
        """Refuse an action without what it needs, and what an action does not need."""
        needed = _NEEDED.get(self.action, ())
        for name in ("line", "width_ms", "trigger", "key"):
            if (getattr(self, name) is not None) != (name in needed):
                verb = "needs" if name in needed else "takes no"
                raise ValueError(f"{self.action!r} {verb} {name}")
        if self.value is not None and "value" not in needed:
            raise ValueError(f"{self.action!r} takes no value")


_NEEDED: dict[str, tuple[str, ...]] = {
    "fire": ("line", "width_ms"),
    "set": ("trigger", "key", "value"),
}


class Reply(Message):
    """The answer to a `Request`; `reasons` says why something was refused."""

    type_name: ClassVar[str] = "reply"
    ok: bool
    state: Name
    reasons: Annotated[list[Text], Field(max_length=1024)] = Field(default_factory=list)
    status: Info = Field(default_factory=dict)


AnyMessage = Pose | Message

_TYPES: dict[str, type[Pose] | type[Message]] = {
    kind.type_name: kind
    for kind in (Pose, Command, Ack, InputEvent, TriggerEvent, Status, Heartbeat, Request, Reply)
}


def encode(message: AnyMessage) -> bytes:
    """Return the msgpack payload of a message."""
    packed: bytes = msgpack.packb(_envelope(message) | message.to_wire())
    return packed


def encode_direct(message: AnyMessage) -> bytes:
    """Return the payload of a message for the line between two processes of one rig."""
    return message.pack() if isinstance(message, Pose) else encode(message)


def _envelope(message: AnyMessage) -> dict[str, Any]:
    return {"v": SCHEMA_VERSION, "type": message.type_name}


def encode_json(message: AnyMessage) -> bytes:
    """Return the JSON payload of a message."""
    fields = _envelope(message) | message.to_json_wire()
    return json.dumps(fields, separators=(",", ":"), allow_nan=False).encode()


def decode(payload: bytes) -> AnyMessage:
    """Return the message in a payload of any encoding.

    Raises
    ------
    MessageError
        If the bytes are too long, not a map, of another schema version, of an unknown type, or do
        not have the fields of their type.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise MessageError(f"{len(payload)} bytes, at most {MAX_PAYLOAD_BYTES} are read")
    if payload[:1] == _PACKED_MARK:
        return Pose.unpack(payload)
    try:
        data = json.loads(payload) if payload[:1] == b"{" else msgpack.unpackb(payload)
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise MessageError(f"neither msgpack nor JSON: {error!r}") from error
    if not isinstance(data, dict):
        raise MessageError(f"not a map: {type(data).__name__}")
    version, name = data.get("v"), data.get("type")
    if type(version) is not int or version != SCHEMA_VERSION:
        raise MessageError(
            f"schema version {reprlib.repr(version)}, this reader has {SCHEMA_VERSION}"
        )
    kind = _TYPES.get(name) if isinstance(name, str) else None
    if kind is None:
        raise MessageError(f"unknown message type {reprlib.repr(name)}")
    return kind.from_wire(data)
