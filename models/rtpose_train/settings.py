"""What a training run is told, and what it records about itself."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rtpose.errors import ConfigError, InputError, Problem
from rtpose.model_card import InputSpec, MapsSpec

SETTINGS_FILE = "run.json"
SPLIT_FILE = "split.json"
WEIGHTS_FILE = "best.pt"
LOG_FILE = "log.csv"

#: The deepest features are at stride 16, and every deconvolution doubles exactly.
SIZE_MULTIPLE = 16

Positive = Annotated[int, Field(gt=0)]


class TrainSettings(BaseModel):
    """How a model is trained; the defaults suit a few dozen frames of one animal seen from above.

    Attributes
    ----------
    model : str
        Network, see `registry.build_network`.
    width_px, height_px : int
        Model input, multiples of 16.
    colour : {'gray', 'rgb', 'bgr'}
        Channels of the input.
    stride : int
        Input pixels per map cell, see `registry.build_network`.
    sigma : float
        Width of the drawn Gaussians, in cells; below 1.25 their sampled peaks grow uneven.
    steps, batch : int
        Optimiser steps (at least 20, for the rate to rise and fall), samples in each.
    learning_rate, weight_decay : float
        Of AdamW; the rate rises over the first tenth and falls as a cosine to nothing.
    averaging : float
        The weights that are kept are a running mean over about ``1 / (1 - averaging)`` steps.
    checks : int
        How often the validation error is taken.
    seed : int
        Start weights, split and samples.
    rotation_deg, scale, shift, flip, contrast, brightness, noise, blur_px
        How far samples are changed, see `augment.Augmenter`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = "mobilenetv2-0.35"
    width_px: Positive = 320
    height_px: Positive = 240
    colour: Literal["gray", "rgb", "bgr"] = "gray"
    stride: Positive = 4
    sigma: Annotated[float, Field(ge=1.25, le=16)] = 1.5
    steps: Annotated[int, Field(ge=20)] = 4000
    batch: Positive = 8
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    averaging: Annotated[float, Field(ge=0, lt=1)] = 0.995
    checks: Positive = 40
    seed: Annotated[int, Field(ge=0)] = 0

    rotation_deg: Annotated[float, Field(ge=0, le=180)] = 180.0
    scale: Annotated[float, Field(ge=1, le=4)] = 1.25
    shift: Annotated[float, Field(ge=0, le=1)] = 0.2
    flip: bool = True
    contrast: Annotated[float, Field(ge=0, le=1)] = 0.3
    brightness: Annotated[float, Field(ge=0, le=255)] = 30.0
    noise: Annotated[float, Field(ge=0, le=255)] = 6.0
    blur_px: Annotated[float, Field(ge=0, le=16)] = 1.0

    @model_validator(mode="after")
    def _size_fits(self) -> "TrainSettings":
        if self.width_px % SIZE_MULTIPLE or self.height_px % SIZE_MULTIPLE:
            raise ValueError(
                f"size {self.width_px}x{self.height_px}: width and height must be multiples of "
                f"{SIZE_MULTIPLE}"
            )
        return self

    @property
    def input(self) -> InputSpec:
        """The model's input."""
        return InputSpec(width_px=self.width_px, height_px=self.height_px, colour=self.colour)

    @property
    def maps(self) -> MapsSpec:
        """The model's output."""
        return MapsSpec(
            width=self.width_px // self.stride,
            height=self.height_px // self.stride,
            stride=self.stride,
            sigma=self.sigma,
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


def build_settings(values: dict[str, Any]) -> TrainSettings:
    """Check settings; raise `ConfigError` with everything that is wrong."""
    try:
        return TrainSettings.model_validate(values)
    except ValidationError as error:
        raise ConfigError(
            [
                Problem(
                    ".".join(map(str, wrong["loc"])) or "settings",
                    wrong["msg"].removeprefix("Value error, "),
                )
                for wrong in error.errors()
            ]
        ) from error


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
