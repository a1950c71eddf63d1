"""What a rig controller imports: `PoseStream` and `EventStream` to follow, `Commands` to steer.

from rtpose.client import PoseStream

with PoseStream() as stream:
    for pose in stream:
        x, y = pose["snout"].xy
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rtpose.bus import Requester, Subscriber, public_key
from rtpose.clock import now_ns
from rtpose.errors import InputError, MessageError, NoReplyError
from rtpose.messages import (
    Ack,
    AnyMessage,
    InputEvent,
    Pose,
    Reply,
    Request,
    Status,
    TriggerEvent,
)
from rtpose.skeleton import Skeleton

#: A publisher sends its status at once to a new subscriber, and every second.
_STATUS_WAIT_S = 3.0


@dataclass(frozen=True, slots=True)
class Keypoint:
    """One keypoint of one pose.

    Attributes
    ----------
    x_px, y_px : float
        In the full camera frame; NaN where the model gave nothing.
    valid : bool
        False where the confidence is below the rig's threshold: do not act on it.
    """

    x_px: float
    y_px: float
    confidence: float
    valid: bool

    @property
    def xy(self) -> tuple[float, float]:
        """Both coordinates, in px."""
        return self.x_px, self.y_px


@dataclass(frozen=True, slots=True)
class NamedPose:
    """A pose with the names of its keypoints.

    Attributes
    ----------
    pose : Pose
        The message as it came, with every stamp.
    received_ns : int
        When this client took it, on the rig's clock if it runs on the rig's machine.
    """

    pose: Pose
    skeleton: Skeleton
    received_ns: int

    def __getitem__(self, name: str) -> Keypoint:
        """Return a keypoint of the first individual; raise `SkeletonError` if there is no such."""
        return self.keypoint(name)

    def keypoint(self, name: str, individual: int = 0) -> Keypoint:
        """Return a keypoint by name."""
        index = self.skeleton.index(name)
        x, y, confidence = (float(v) for v in self.pose.keypoints[individual, index])
        return Keypoint(x, y, confidence, bool(self.pose.valid[individual, index]))

    @property
    def frame_id(self) -> int:
        """The camera frame that this is the pose of."""
        return self.pose.frame_id

    @property
    def keypoints(self) -> NDArray[np.float32]:
        """All keypoints, shape (individuals, keypoints, 3): x, y in px, confidence."""
        return self.pose.keypoints

    @property
    def age_ms(self) -> float:
        """From exposure (or arrival) until this client took the pose."""
        return (self.received_ns - self.pose.start_ns) / 1e6


class PoseStream:
    """The pose stream of a running rig, as an iterator.

    Parameters
    ----------
    endpoint : str
        The rig's pose endpoint.
    camera : str, optional
        Only this camera; all if absent.
    newest_only : bool
        Skip to the newest pose each time, for a consumer that is slower than the stream.
    server_key_file : Path, optional
        Certificate with the rig's public key, if the rig encrypts.

    Attributes
    ----------
    lost : int
        Poses that this client missed, seen by jumps in ``seq``.
    skipped : int
        Poses passed over because of `newest_only`.
    restarts : int
        How often another run of the rig took over the endpoint.
    """

    def __init__(
        self,
        endpoint: str = "tcp://127.0.0.1:5560",
        *,
        camera: str | None = None,
        newest_only: bool = False,
        server_key_file: Path | None = None,
    ) -> None:
        key = None if server_key_file is None else public_key(server_key_file)
        # Topics match by prefix, so "pose.top" would also bring "pose.top2": `_keep` looks closer.
        topics = [f"pose.{camera or ''}", "status.inference"]
        self._subscriber = Subscriber([endpoint], topics, key)
        self._endpoint = endpoint
        self._camera = camera
        self._newest_only = newest_only
        self._waiting: deque[tuple[Pose, int]] = deque(maxlen=4096)
        self._skeletons: dict[str, Skeleton] = {}
        self._run: str | None = None
        self._seq = -1
        self.lost = 0
        self.skipped = 0
        self.restarts = 0

    @property
    def malformed(self) -> int:
        """Messages dropped because they are not of this schema version."""
        return self._subscriber.malformed

    def receive(self, timeout_s: float | None = None) -> NamedPose | None:
        """Return the next pose, or None if none came in time; without a limit, wait for one.

        Raises
        ------
        NoReplyError
            If poses come, but the rig does not say what they are poses of.
        """
        deadline_ns = None if timeout_s is None else now_ns() + round(timeout_s * 1e9)
        status_deadline_ns: int | None = None
        while True:
            ready = self._pop()
            if ready is not None:
                return ready
            if self._waiting and status_deadline_ns is None:
                status_deadline_ns = now_ns() + round(_STATUS_WAIT_S * 1e9)
            if status_deadline_ns is not None and now_ns() > status_deadline_ns:
                raise NoReplyError(f"poses come from {self._endpoint}, but no status.inference")
            if deadline_ns is not None and now_ns() >= deadline_ns:
                return None
            wait_s = 0.2 if deadline_ns is None else min(0.2, (deadline_ns - now_ns()) / 1e9)
            self._keep(self._subscriber.receive(max(0.0, wait_s)))
            if self._newest_only:
                self._drain()

    def _drain(self) -> None:
        while (message := self._subscriber.receive(0.0)) is not None:
            self._keep(message)
        while len(self._waiting) > 1:
            self._count(self._waiting.popleft()[0])
            self.skipped += 1

    def _keep(self, message: AnyMessage | None) -> None:
        if isinstance(message, Status) and "skeleton" in message.info:
            self._skeletons[message.run] = Skeleton.from_dict(message.info["skeleton"])
        elif isinstance(message, Pose) and self._camera in (None, message.camera):
            self._waiting.append((message, now_ns()))

    def _pop(self) -> NamedPose | None:
        if not self._waiting:
            return None
        pose, received_ns = self._waiting[0]
        skeleton = self._skeletons.get(pose.run)
        if skeleton is None:
            return None
        self._waiting.popleft()
        self._count(pose)
        return NamedPose(pose, skeleton, received_ns)

    def _count(self, pose: Pose) -> None:
        if pose.run != self._run:
            self.restarts += self._run is not None
            self._run = pose.run
        elif pose.seq > self._seq + 1:
            self.lost += pose.seq - self._seq - 1
        self._seq = pose.seq

    def __iter__(self) -> Iterator[NamedPose]:
        while True:
            pose = self.receive()
            if pose is not None:
                yield pose

    def close(self) -> None:
        """Stop receiving."""
        self._subscriber.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


class EventStream:
    """What a running rig decides, sends, and is answered, as an iterator.

    Parameters
    ----------
    endpoint : str
        The rig's event endpoint.
    server_key_file : Path, optional
        Certificate with the rig's public key, if the rig encrypts.

    Attributes
    ----------
    lost : int
        Events that this client missed, seen by jumps in ``seq``.
    run : str or None
        Id of the run that the last of them came from: another one means that the rig was restarted.
    """

    def __init__(
        self, endpoint: str = "tcp://127.0.0.1:5561", *, server_key_file: Path | None = None
    ) -> None:
        key = None if server_key_file is None else public_key(server_key_file)
        self._subscriber = Subscriber([endpoint], ["event", "ack", "input", "status.control"], key)
        self._seq = -1
        self.lost = 0
        self.run: str | None = None

    @property
    def malformed(self) -> int:
        """Messages dropped because they are not of this schema version."""
        return self._subscriber.malformed

    def receive(self, timeout_s: float) -> TriggerEvent | Ack | InputEvent | Status | None:
        """Return what comes next, or None if nothing came in time.

        A `TriggerEvent` for what the rig decided, an `Ack` for an output's answer, an `InputEvent`
        for what happened at an output's inputs, and every second a `Status`.
        """
        message = self._subscriber.receive(timeout_s)
        if not isinstance(message, TriggerEvent | Ack | InputEvent | Status):
            return None
        if message.run != self.run:
            self.run, self._seq = message.run, -1
        if isinstance(message, TriggerEvent):
            if self._seq >= 0:
                self.lost += max(0, message.seq - self._seq - 1)
            self._seq = message.seq
        return message

    def close(self) -> None:
        """Stop receiving."""
        self._subscriber.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


class Commands:
    """Steers a running rig.

    Every method returns the rig's `Reply`: ``ok``, its ``state`` (``armed``, ``disarmed``, or
    ``stopped`` after an emergency stop), every reason in ``reasons`` if it refused, and in
    ``status`` what ``status.control`` says. One that raises `NoReplyError` may have been carried
    out all the same, unless no rig was there: ask for the `status`. Not for use by several threads
    at once; a thread may have `Commands` of its own.

    with Commands() as commands:
        reply = commands.arm()
        if not reply.ok:
            print(reply.reasons)

    Parameters
    ----------
    endpoint : str
        The rig's command endpoint.
    server_key_file : Path, optional
        Certificate with the rig's public key, if the rig encrypts.
    timeout_s : float
        How long to wait for each answer.

    Raises
    ------
    NoReplyError
        From every method, if no answer came in time.
    InputError
        From every method, if what it was given makes no request.
    """

    def __init__(
        self,
        endpoint: str = "tcp://127.0.0.1:5562",
        *,
        server_key_file: Path | None = None,
        timeout_s: float = 3.0,
    ) -> None:
        key = None if server_key_file is None else public_key(server_key_file)
        self._requester = Requester(endpoint, key)
        self._timeout_s = timeout_s

    def status(self) -> Reply:
        """Return the rig's state, and in ``reasons`` what would hinder arming."""
        return self._ask("status")

    def arm(self) -> Reply:
        """Let triggers reach the outputs, and begin a session with its first trial."""
        return self._ask("arm")

    def disarm(self) -> Reply:
        """Make every output safe and keep it so until `arm`."""
        return self._ask("disarm")

    def emergency_stop(self) -> Reply:
        """Make every output safe; arming is refused until `release`."""
        return self._ask("estop")

    def release(self) -> Reply:
        """Allow arming again after an emergency stop."""
        return self._ask("release")

    def start_trial(self) -> Reply:
        """Begin the next trial: triggers with ``once_per_trial`` may act again."""
        return self._ask("trial")

    def end_trial(self) -> Reply:
        """End the trial: until the next one, triggers decide and are recorded, but do not act."""
        return self._ask("end-trial")

    def fire(self, line: str, width_ms: float) -> Reply:
        """Give one pulse on a line, within its limits; the rig must be armed.

        Parameters
        ----------
        line : str
            ``"<output>.<line>"``, e.g. ``"board.valve"``.
        width_ms : float
        """
        return self._ask("fire", line=line, width_ms=width_ms)

    def set_parameter(self, trigger: str, key: str, value: object) -> Reply:
        """Change a setting of a trigger until the run ends.

        The trigger begins anew, but for what `refractory_ms`, `once_per_trial` and `max_fires`
        count.

        Parameters
        ----------
        trigger : str
            Its name in the rig file.
        key : str
            One of the settings in ``[triggers.<name>]`` that belong to its type.
        value : object
            What the rig file could say there: number, text, bool, list, dict; None for a setting
            that may be absent.
        """
        return self._ask("set", trigger=trigger, key=key, value=value)

    def stop(self) -> Reply:
        """Make every output safe and end the run."""
        return self._ask("stop")

    def _ask(self, action: str, **fields: object) -> Reply:
        try:
            request = Request.from_wire({"action": action, **fields})
        except MessageError as error:
            raise InputError(f"{action}: {error}") from error
        return self._requester.ask(request, self._timeout_s)

    def close(self) -> None:
        """Let go of the connection."""
        self._requester.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
