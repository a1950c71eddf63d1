"""What a training wrote down about its course."""

import csv
from pathlib import Path

from rtpose.errors import InputError
from rtpose_train.training.settings import LOG_FILE

#: By column, pairs of step and value.
TrainingLog = dict[str, list[tuple[float, float]]]

_COLUMNS = ("loss", "validation_px")


def read_log(run: Path | None, beside: Path) -> TrainingLog:
    """Return loss and validation error of a training, as pairs of step and value.

    Parameters
    ----------
    run : Path or None
        Run folder that a user named.
    beside : Path
        Folder to look into otherwise; without a log there, nothing is returned.

    Raises
    ------
    InputError
        If the folder that was named has no log, or a log is damaged.
    """
    file = (run or beside) / LOG_FILE
    if run is None and not file.is_file():
        return {}
    columns: TrainingLog = {}
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                for column in _COLUMNS:
                    if row.get(column):
                        pair = float(row["step"]), float(row[column])
                        columns.setdefault(column, []).append(pair)
    except OSError as error:
        raise InputError(f"--run {run}: no {LOG_FILE} there: {error.strerror}") from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(
            f"{file}: not the log of a training: {error!r}; columns step, {', '.join(_COLUMNS)}"
        ) from error
    return columns
