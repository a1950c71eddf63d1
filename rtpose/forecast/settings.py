"""What a user may set of the forecast."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class ForecastSettings(BaseModel):
    """``[forecast]``: how keypoints are thought to move, and how well they are measured.

    The default noises are those of constant velocity for one mouse at 640x480 px and 30 frames/s
    (``python -m benchmarks forecast``); `rtpose.forecast.tune` finds those of another animal,
    camera and model in a recording.

    Attributes
    ----------
    model : {'constant-velocity', 'constant-acceleration'}
        What a keypoint goes on with. On recorded mouse motion constant velocity errs less.
    noise_px : float
        Standard deviation of the estimator's error, per axis, at a confidence of 1.
    confidence_power : float
        The standard deviation is ``noise_px / confidence ** confidence_power``, with the confidence
        taken as 0.1 to 1. On recorded poses error times confidence was the same within 5 % over all
        confidences; 0 trusts all keypoints alike.
    manoeuvre_px : float
        How far, as a standard deviation per axis, a keypoint strays within 100 ms from the course
        that the model foresees. Larger follows turns faster and smooths less.
    start_speed_px_s : float
        Standard deviation of the speed per axis that is expected of a keypoint of which only one
        pose is known. With constant acceleration, that of the acceleration is this in 100 ms.
    max_gap_ms : float
        A keypoint that was last seen this long before the time that is asked for has no forecast.
    gate : float
        Largest squared innovation, divided by its variance, of a measurement that is believed. Were
        the model exact, 13.8 would refuse one in a thousand. Animals start and stop more abruptly:
        on recorded poses 13.8 refused one in sixty, and made the forecast worse.
    max_outliers : int
        After this many refused measurements in a row the keypoint is believed to be there, and its
        track starts again.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True)

    model: Literal["constant-velocity", "constant-acceleration"] = "constant-velocity"
    noise_px: Annotated[float, Field(ge=1e-3, le=1e3, allow_inf_nan=False)] = 0.45
    confidence_power: Annotated[float, Field(ge=0, le=4, allow_inf_nan=False)] = 1.0
    manoeuvre_px: Annotated[float, Field(ge=1e-3, le=1e4, allow_inf_nan=False)] = 3.3
    start_speed_px_s: Annotated[float, Field(ge=1e-3, le=1e6, allow_inf_nan=False)] = 200.0
    max_gap_ms: Annotated[float, Field(ge=1, le=10_000, allow_inf_nan=False)] = 200.0
    gate: Annotated[float, Field(ge=4, le=1e6, allow_inf_nan=False)] = 100.0
    max_outliers: Annotated[int, Field(ge=1, le=1000)] = 3
