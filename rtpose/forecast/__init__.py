"""Where keypoints will be when an output acts, and how wrong that turned out to be.

Each keypoint has a Kalman filter of its own, x and y independent of each other, with the continuous
white noise acceleration or Wiener process acceleration model of Bar-Shalom, Li & Kirubarajan,
"Estimation with Applications to Tracking and Navigation" (Wiley 2001), sections 6.2.2 and 6.2.3:
the velocity, or the acceleration, is a random walk. They are made discrete over the time that
really passed between two poses, so that dropped and uneven frames cost nothing but knowledge.

* A confident keypoint is believed more than a doubtful one (`ForecastSettings.noise_px`,
  `confidence_power`); one that is not valid, or not a finite number, is not there.
* A measurement whose normalised innovation squared (section 5.4 of the book) is beyond `gate` is
  refused and counted. After `max_outliers` refusals in a row the track starts again there.
* A keypoint has no forecast (NaN) from `max_gap_ms` after it was last believed.
* After a pose that is not later than the one before, all tracks start again.

`Forecaster` is the filter, `ForecastErrors` compares forecasts with what came true, and `tune`
finds the settings that make a recording most likely. All are functions of poses and times alone.
"""

from rtpose.forecast.accuracy import ForecastErrors
from rtpose.forecast.filter import Forecaster
from rtpose.forecast.settings import ForecastSettings
from rtpose.forecast.tuning import tune

__all__ = ["ForecastErrors", "ForecastSettings", "Forecaster", "tune"]
