"""What a training run is told, and what it records about itself."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rtpose.errors import InputError
from rtpose.model_card import InputSpec, MapsSpec
from rtpose.skeleton import Skeleton
from rtpose_train.networks.layout import HeadLayout
from rtpose_train.training.augment import AugmentSettings

SETTINGS_FILE = "run.json"
SPLIT_FILE = "split.json"
WEIGHTS_FILE = "best.pt"
CHECKPOINT_FILE = "last.ckpt"
LOG_FILE = "log.csv"
TENSORBOARD_FOLDER = "tensorboard"

Positive = Annotated[int, Field(gt=0)]
#: Smaller pictures would be less than one cell at the lowest resolution of some network.
Side = Annotated[int, Field(ge=16, le=8192)]


class TrainSettings(BaseModel):
    """How a model is trained; the defaults suit a few dozen frames of one animal seen from above.

    `example.toml` beside this file says the same for people.

    Attributes
    ----------
    model : str
        Network, see `registry.build_network`.
    width_px, height_px : int
        Model input; any size, networks pad inside.
    colour : {'gray', 'rgb', 'bgr'}
        Channels of the input.
    stride : int
        Input pixels per map cell, see `registry.build_network`.
    sigma : float
        Width of the drawn Gaussians, in cells; below 1.25 their sampled peaks grow uneven.
    location_refinement, location_refinement_weight, location_refinement_radius
        Also learn the offset from each cell to its keypoint, its part of the loss, and how far
        around the keypoint, in cells; see `targets.draw_offsets`.
    posture_graph, posture_graph_weight
        Also learn to draw the skeleton's edges, and their part of the loss; see `posture_graph`.
    pretrained : str or None
        Start of the features: a file, or "imagenet", see `weights`; random numbers if absent.
    pretrained_input : {'symmetric', 'imagenet'}
        What the weights in a file were trained on: pixels scaled to -1..1, or torchvision's (mean
        and deviation of ImageNet's colours).
    individual : str or None
        Which animal, where frames show several.
    split_by : {'frame', 'video'}
        What is divided between training, validation and test.
    steps, batch : int
        Optimiser steps (at least 20, for the rate to rise and fall); samples in each, per device.
    schedule : {'one-cycle', 'plateau'}
        One rise over the first tenth and a cosine to nothing; or, as Graving et al. 2019, a fifth
        of the rate whenever the validation loss has not fallen for `plateau_patience` checks.
    learning_rate, weight_decay : float
        Of AdamW.
    plateau_patience : int
        See `schedule`.
    patience : int or None
        Stop after so many checks without a better validation error; never if absent.
    averaging : float
        The weights that are kept are a running mean over about ``1 / (1 - averaging)`` steps.
    checks : int
        How often the validation error is taken.
    precision : {'32-true', 'bf16-mixed', '16-mixed'}
        Of the training steps; the validation error is always taken in single precision.
    seed : int
        Start weights, split and samples.
    devices, threads, workers : int
        GPUs (or processes on the CPU), CPU threads (PyTorch's choice if absent), and processes that
        prepare samples beside the one that trains.
    tensorboard : bool
        Also log for TensorBoard.
    augment : AugmentSettings
        How samples are changed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = "mobilenetv2-0.35"
    width_px: Side = 320
    height_px: Side = 240
    colour: Literal["gray", "rgb", "bgr"] = "gray"
    stride: Positive = 4
    sigma: Annotated[float, Field(ge=1.25, le=16)] = 1.5
    location_refinement: bool = False
    location_refinement_weight: Annotated[float, Field(gt=0, le=100)] = 0.05
    location_refinement_radius: Annotated[float, Field(ge=1, le=16)] = 2.0
    posture_graph: bool = False
    posture_graph_weight: Annotated[float, Field(gt=0, le=100)] = 0.01
    pretrained: Annotated[str, Field(min_length=1)] | None = None
    pretrained_input: Literal["symmetric", "imagenet"] = "symmetric"
    individual: Annotated[str, Field(min_length=1)] | None = None
    split_by: Literal["frame", "video"] = "frame"
    steps: Annotated[int, Field(ge=20)] = 4000
    batch: Positive = 8
    schedule: Literal["one-cycle", "plateau"] = "one-cycle"
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    plateau_patience: Positive = 10
    patience: Positive | None = None
    averaging: Annotated[float, Field(ge=0, lt=1)] = 0.995
    checks: Positive = 40
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    seed: Annotated[int, Field(ge=0)] = 0
    devices: Positive = 1
    threads: Positive | None = None
    workers: Annotated[int, Field(ge=0, le=64)] = 0
    tensorboard: bool = True
    augment: AugmentSettings = AugmentSettings()

    @model_validator(mode="after")
    def _options_have_an_effect(self) -> Self:
        if self.schedule == "one-cycle" and self.patience is not None:
            raise ValueError(
                f"patience is {self.patience}: a cycle that is cut short never reaches its low "
                'rates; take schedule = "plateau", or leave out patience'
            )
        return self

    @property
    def input(self) -> InputSpec:
        """The model's input."""
        return InputSpec(width_px=self.width_px, height_px=self.height_px, colour=self.colour)

    @property
    def maps(self) -> MapsSpec:
        """The model's output; it covers the input, rounded up."""
        return MapsSpec(
            width=-(-self.width_px // self.stride),
            height=-(-self.height_px // self.stride),
            stride=self.stride,
            sigma=self.sigma,
            location_refinement=1.0 if self.location_refinement else None,
        )

    @property
    def check_every(self) -> int:
        """Steps between two validations."""
        return max(1, self.steps // self.checks)

    def layout(self, skeleton: Skeleton) -> HeadLayout:
        """Return what the network draws for a skeleton."""
        return HeadLayout.of(
            skeleton,
            location_refinement=self.location_refinement,
            posture_graph=self.posture_graph,
        )


class RunRecord(BaseModel):
    """What a run folder says about itself: all that export needs besides the weights.

    Attributes
    ----------
    skeleton : dict
        `Skeleton.to_dict`.
    labels : dict
        Project, number of frames in each part, and the SHA-256 of names and coordinates.
    start_weights : str
        File name and SHA-256, or "random".
    trained_on : dict
        Device, threads and versions.
    minutes, best_step, validation_px
        How long it took, when the validation error was least, and how large it was; None before
        the first check.
    finished : bool
        All steps are taken.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    settings: TrainSettings
    skeleton: dict[str, Any]
    labels: dict[str, str | int]
    start_weights: str
    trained_on: dict[str, str | int]
    minutes: float = 0.0
    best_step: int = 0
    validation_px: float | None = None
    finished: bool = False

    def layout(self) -> HeadLayout:
        """Return what the channels of the network's heads mean."""
        return self.settings.layout(Skeleton.from_dict(self.skeleton))


def read_record(run: Path) -> RunRecord:
    """Read a run folder's record; raise `InputError` if it is not one."""
    file = run / SETTINGS_FILE
    try:
        return RunRecord.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(
            f"{run}: not a run folder of rtpose train: {file.name}: {error.strerror}"
        ) from error
    except ValueError as error:
        raise InputError(f"{file}: damaged: {error}") from error
