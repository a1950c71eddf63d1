"""The inference process: the newest frame to a published pose."""

import socket
from pathlib import Path

import numpy as np

from rtpose.bus import Publisher
from rtpose.clock import now_ns
from rtpose.errors import CameraError
from rtpose.estimator import Estimator
from rtpose.interfaces import FrameFormat
from rtpose.loop import Loop, go_realtime
from rtpose.messages import Pose, Status
from rtpose.rig import Rig
from rtpose.ring import RingAddress, RingReader, Taken, WriterState

_PRIORITY = 45
_WAIT_S = 0.02
_STATUS_INTERVAL_NS = 1_000_000_000
_WARM_UP_RUNS = 20


def inference(
    loop: Loop,
    rig: Rig,
    model: Path,
    frame_format: FrameFormat,
    address: RingAddress,
    to_control: socket.socket,
) -> None:
    """Estimate and publish the pose of the newest frame until the camera ends or told to stop."""
    table = rig.model
    estimator = Estimator(
        model,
        frame=(frame_format.height_px, frame_format.width_px, frame_format.channels),
        provider=table.provider,
        threads=table.threads,
        crop=table.crop,
        min_confidence=table.min_confidence,
    )
    estimator.verify()
    estimator.warm_up(_WARM_UP_RUNS)
    _Inference(loop, rig, estimator, frame_format, address, to_control).run()


class _Inference:
    def __init__(
        self,
        loop: Loop,
        rig: Rig,
        estimator: Estimator,
        frame_format: FrameFormat,
        address: RingAddress,
        to_control: socket.socket,
    ) -> None:
        self._loop = loop
        self._camera = rig.camera.name
        self._topic = f"pose.{rig.camera.name}"
        self._estimator = estimator
        self._reader = RingReader(address)
        keypoints = len(estimator.card.keypoints().names)
        self._keypoints = np.zeros((1, keypoints, 3), np.float32)
        self._valid = np.zeros((1, keypoints), np.uint8)
        # The decoder checks an array that it does not know; so it gets the same two every time.
        self._first = (self._keypoints[0], self._valid[0])
        self._next_status_ns = 0
        self._seq = 0
        notes = go_realtime(_PRIORITY).notes if rig.latency.realtime else ()
        loop.counters.update(poses=0, dropped=0, torn=0, writer_restarts=0)
        loop.info.update(
            camera=self._camera,
            rate_hz=frame_format.rate_hz,
            skeleton=estimator.card.keypoints().to_dict(),
            model=estimator.card.name,
            model_hash=estimator.model_hash,
            provider=estimator.provider,
            verified=True,
            budget_ms=rig.latency.budget_ms,
            notes=list(notes),
        )
        self._publisher = Publisher(
            rig.stream.endpoint(rig.stream.pose_port),
            rig.stream.curve_secret_key_file,
            greeting=lambda: ("status.inference", self._status()),
            direct=to_control,
        )

    def run(self) -> None:
        self._loop.ready({})
        with self._publisher:
            while self._loop.turn():
                taken = self._reader.newest(self._estimator.load, _WAIT_S)
                if taken is not None:
                    self._publish(taken)
                elif self._source_ended():
                    break
                self._keep_house()
        self._reader.close()

    def _publish(self, taken: Taken[None]) -> None:
        start_ns = now_ns()
        self._estimator.infer()
        end_ns = now_ns()
        self._estimator.decode(*self._first)
        header = taken.header
        pose = Pose(
            run=self._loop.run,
            camera=self._camera,
            seq=self._seq,
            frame_id=header.frame_id,
            dropped=taken.passed_over,
            exposure_ns=header.exposure_ns,
            arrival_ns=header.arrival_ns,
            ready_ns=header.ready_ns,
            infer_start_ns=start_ns,
            infer_end_ns=end_ns,
            publish_ns=now_ns(),
            keypoints=self._keypoints,
            valid=self._valid,
            repeated_ns=header.repeated_ns,
        )
        self._publisher.publish(self._topic, pose)
        self._seq += 1
        self._loop.counters["poses"] += 1
        self._loop.counters["dropped"] += taken.passed_over

    def _source_ended(self) -> bool:
        state = self._reader.writer_state
        if state is WriterState.FAILED:
            raise CameraError(f"camera {self._camera!r} failed")
        return state is WriterState.ENDED

    def _keep_house(self) -> None:
        self._publisher.serve_subscriptions()
        now = now_ns()
        if now >= self._next_status_ns:
            self._next_status_ns = now + _STATUS_INTERVAL_NS
            self._publisher.publish("status.inference", self._status())

    def _status(self) -> Status:
        counters = self._loop.counters
        counters.update(
            torn=self._reader.torn,
            writer_restarts=self._reader.restarts,
            missed_by_control=self._publisher.direct_dropped,
        )
        return Status(
            run=self._loop.run,
            process="inference",
            state="running",
            sent_ns=now_ns(),
            counters=counters,
            info=self._loop.info,
        )
