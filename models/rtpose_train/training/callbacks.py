"""What happens around the steps: the run folder, the progress bar, Ctrl-C."""

import csv
import io
import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251 - what torch.load raises; nothing is unpickled
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO
from rich.progress import Progress

from rtpose.clock import now_ns
from rtpose.errors import ModelError, StoppedError
from rtpose_train.files import write_file
from rtpose_train.training.module import PoseModule
from rtpose_train.training.settings import (
    CHECKPOINT_FILE,
    LOG_FILE,
    SETTINGS_FILE,
    WEIGHTS_FILE,
    RunRecord,
)

_NS_PER_MINUTE = 60e9
_COLUMNS = ("step", "loss", "validation_px", "validation_loss", "learning_rate")


class WholeFiles(TorchCheckpointIO):
    """Writes checkpoints completely or not at all, whenever the process is killed."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint; raise `RecordingError` if that is not possible."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_file(Path(path), content.getvalue())

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a checkpoint; raise `ModelError` if it is damaged."""
        try:
            return super().load_checkpoint(path, *args, **kwargs)
        except (RuntimeError, ValueError, EOFError, UnpicklingError) as error:
            raise ModelError(
                f"{path}: damaged; delete the run folder and train again: {error}"
            ) from error


class RunFolder(Callback):
    """Keeps the run folder: log, record, best weights after every check; the state to resume from.

    Parameters
    ----------
    folder : Path
        The run folder.
    record : RunRecord
        As it was before the first step.
    """

    def __init__(self, folder: Path, record: RunRecord) -> None:
        self.folder, self.record = folder, record
        self.rows: list[list[float]] = []
        self.best_px = math.inf
        self._losses: list[float] = []
        self._minutes_before = 0.0
        self._start_ns = now_ns()
        self._saved_step = 0
        self._rate = 0.0
        self.interrupted = threading.Event()

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run must know."""
        return {
            "rows": self.rows,
            "best_px": self.best_px,
            "losses": self._losses,
            "minutes": self._minutes(),
            "best_step": self.record.best_step,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.rows, self._losses = state_dict["rows"], state_dict["losses"]
        self.best_px = state_dict["best_px"]
        self._minutes_before = state_dict["minutes"]
        best = {"best_step": state_dict["best_step"], "minutes": state_dict["minutes"]}
        if self.rows:
            best["validation_px"] = self.best_px
        self.record = self.record.model_copy(update=best)

    def _minutes(self) -> float:
        return self._minutes_before + (now_ns() - self._start_ns) / _NS_PER_MINUTE

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save after a check, when all that belongs to the last step is done; stop if asked to."""
        step = trainer.global_step
        self._rate = float(trainer.optimizers[0].param_groups[0]["lr"])
        # All devices stop together: one that goes on would wait for the others for ever.
        is_asked = trainer.strategy.reduce_boolean_decision(self.interrupted.is_set(), all=False)
        if (self.rows and self.rows[-1][0] == step != self._saved_step) or is_asked:
            self._save(trainer)
        if is_asked:
            raise StoppedError(
                f"stopped at step {step}, which {self.folder} holds; "
                "go on with the same command and --resume"
            )

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.folder / CHECKPOINT_FILE)
        self._saved_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the loss; see to it that the last step is followed by a check."""
        self._losses.append(float(outputs["loss"]))
        if trainer.global_step == self.record.settings.steps:
            trainer.should_stop = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the check, and keep the weights if they are the best so far."""
        step = trainer.global_step
        error_px = round(float(trainer.callback_metrics["validation_px"]), 4)
        values = {
            "loss": float(np.mean(self._losses)),
            "validation_px": error_px,
            "validation_loss": float(trainer.callback_metrics["validation_loss"]),
            "learning_rate": self._rate,
        }
        self._losses.clear()
        self.rows.append([step, *(values[name] for name in _COLUMNS[1:])])
        for logger in trainer.loggers:
            logger.log_metrics(values, step)
        table = io.StringIO()
        csv.writer(table).writerows([_COLUMNS, *self.rows])
        self._write(trainer, LOG_FILE, table.getvalue())
        update: dict[str, float] = {"minutes": round(self._minutes(), 2)}
        if error_px <= self.best_px:
            self.best_px = error_px
            update |= {"validation_px": error_px, "best_step": step}
            weights = io.BytesIO()
            torch.save(cast("PoseModule", pl_module).best_state(), weights)
            self._write(trainer, WEIGHTS_FILE, weights.getvalue())
        self._update(trainer, update)

    def _update(self, trainer: Trainer, update: dict[str, float]) -> None:
        self.record = self.record.model_copy(update=update)
        self._write(trainer, SETTINGS_FILE, self.record.model_dump_json(indent=1))

    def _write(self, trainer: Trainer, name: str, content: str | bytes) -> None:
        if trainer.is_global_zero:
            write_file(self.folder / name, content)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that the run is finished."""
        self._save(trainer)
        self._update(trainer, {"minutes": round(self._minutes(), 2), "finished": True})


@contextmanager
def stop_on_interrupt(asked: threading.Event) -> Iterator[None]:
    """Let the first Ctrl-C ask for a stop after the step; the second one ends at once."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(_number: int, _frame: object) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Bar(Callback):
    """Shows all steps on a progress bar, with the last and the best validation error."""

    def __init__(self, progress: Progress, folder: RunFolder) -> None:
        self.progress, self.folder = progress, folder
        self.task = progress.add_task("training", total=folder.record.settings.steps)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move on."""
        self.progress.update(self.task, completed=trainer.global_step)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the errors."""
        last_px, best_px = self.folder.rows[-1][2], self.folder.best_px
        self.progress.update(
            self.task, description=f"validation {last_px:.2f} px, best {best_px:.2f} px"
        )
