"""Training: labelled frames in, a run folder with the best weights out."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from rtpose.errors import InputError, RecordingError, RtposeError
from rtpose_train.files import write_file
from rtpose_train.training import contact_sheet
from rtpose_train.training.callbacks import Bar, RunFolder, WholeFiles, stop_on_interrupt
from rtpose_train.training.config import build_settings, read_config
from rtpose_train.training.prepare import Prepared, check_same, prepare
from rtpose_train.training.samples import training_loader, validation_loader
from rtpose_train.training.settings import (
    CHECKPOINT_FILE,
    SETTINGS_FILE,
    SPLIT_FILE,
    TENSORBOARD_FOLDER,
    RunRecord,
    TrainSettings,
    read_record,
)

#: Batches of a picture of samples.
_SHOWN = 2
#: In PyTorch's words, on GPUs and on CPUs.
_NO_MEMORY = ("out of memory", "allocate memory", "enough memory")

# Which devices there are, and advertisements: the progress bar says what matters.
for _name in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(_name).setLevel(logging.WARNING)


def train(
    project: Path,
    out: Path,
    *,
    size: tuple[int, int] | None = None,
    weights: Path | str | None = None,
    split: Path | None = None,
    edges: Sequence[tuple[str, str]] = (),
    config: Path | None = None,
    resume: bool = False,
    console: Console | None = None,
    **settings: Any,
) -> RunRecord:
    """Train a model on a project of labelled frames.

    Parameters
    ----------
    project : Path
        Anything that `dataset.read_project` reads.
    out : Path
        Run folder to create: record, split, log, best weights, state to resume from.
    size : (width, height), optional
        Model input, px.
    weights : Path or str, optional
        The setting `pretrained`.
    split : Path, optional
        JSON file that says which frames train, validate and test; drawn with the seed if absent.
    edges : sequence of (str, str)
        Lines of the skeleton, if the project does not name them.
    config : Path, optional
        TOML file of settings; what is given here goes before it.
    resume : bool
        Go on with a run that was interrupted, with the same settings; one that is finished is left
        as it is.
    console : Console, optional
        Where notes and the progress bar go; standard error if absent.
    **settings
        Other fields of `TrainSettings`; None stands for the default, which is the network's own
        where `registry.default_settings` has one.

    Raises
    ------
    InputError
        If the project, a setting or the run folder cannot be used.
    ModelError
        If the weights do not fit the network.
    RecordingError
        If the run folder cannot be written.
    StoppedError
        If the user stopped it (Ctrl-C).
    RtposeError
        If the loss diverged, or memory did not suffice.
    """
    console = console or Console(stderr=True)
    chosen = _choose(size, weights, config, settings)
    goes_on = (resume or not _is_first()) and (out / SETTINGS_FILE).is_file()
    if out.exists() and not goes_on:
        hint = "no run to go on with" if resume else "name another folder, delete it, or --resume"
        raise InputError(f"{out}: exists; {hint}")
    _use_threads(chosen)
    prepared = prepare(project, chosen, split=out / SPLIT_FILE if goes_on else split, edges=edges)
    if goes_on:
        before = read_record(out)
        check_same(before, prepared.record, out)
        if before.finished:
            console.print(f"{out}: finished already", markup=False)
            return before
    else:
        _create(out, prepared)
    for note in prepared.notes if _is_first() else ():
        console.print(note, style="yellow", markup=False)
    return _fit(prepared, chosen, out, console)


def show_augmented(
    project: Path,
    picture: Path,
    *,
    size: tuple[int, int] | None = None,
    split: Path | None = None,
    config: Path | None = None,
    **settings: Any,
) -> None:
    """Draw the samples that a training with these settings would begin with, and do not train.

    Parameters
    ----------
    project, size, split, config, **settings
        See `train`.
    picture : Path
        The file to write, ``.png``.
    """
    chosen = _choose(size, None, config, settings)
    prepared = prepare(project, chosen.model_copy(update={"pretrained": None}), split=split)
    batches = [prepared.samples[number] for number in range(_SHOWN)]
    images, points = (torch.cat(list(parts)) for parts in zip(*batches, strict=True))
    skeleton = prepared.skeleton
    contact_sheet.draw(images, points, skeleton, picture, colour=chosen.colour)


def _choose(
    size: tuple[int, int] | None,
    weights: Path | str | None,
    config: Path | None,
    settings: dict[str, Any],
) -> TrainSettings:
    given = {name: value for name, value in settings.items() if value is not None}
    if size is not None:
        given |= {"width_px": size[0], "height_px": size[1]}
    if weights is not None:
        given["pretrained"] = str(weights)
    return build_settings(given, read_config(config) if config else {}, str(config))


def _is_first() -> bool:
    """Whether no other process trains this run: Lightning starts one for every further device."""
    return bool(getattr(rank_zero_only, "rank", 0) == 0)


def _use_threads(settings: TrainSettings) -> None:
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
        cv2.setNumThreads(settings.threads)


def _create(folder: Path, prepared: Prepared) -> None:
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise RecordingError(f"{folder}: cannot be created: {error.strerror}") from error
    write_file(folder / SPLIT_FILE, prepared.parts.model_dump_json(indent=1))
    write_file(folder / SETTINGS_FILE, prepared.record.model_dump_json(indent=1))


def _fit(prepared: Prepared, settings: TrainSettings, out: Path, console: Console) -> RunRecord:
    """Take all steps that are still to be taken."""
    folder = RunFolder(out, prepared.record)
    progress = Progress(
        *Progress.get_default_columns(),
        MofNCompleteColumn(),
        console=console,
        disable=console.quiet or not _is_first(),
    )
    callbacks: list[Callback] = [folder, Bar(progress, folder)]
    if settings.patience is not None:
        callbacks.append(EarlyStopping("validation_px", patience=settings.patience))
    checkpoint = out / CHECKPOINT_FILE
    asked = folder.interrupted
    with progress, _quiet(), _explained(settings, out), stop_on_interrupt(asked):
        trainer = Trainer(
            accelerator="auto",
            devices=settings.devices,
            strategy="ddp" if settings.devices > 1 else "auto",
            precision=settings.precision,
            max_epochs=1,
            val_check_interval=settings.check_every,
            num_sanity_val_steps=0,
            log_every_n_steps=settings.check_every,
            callbacks=callbacks,
            plugins=[WholeFiles()],
            logger=TensorBoardLogger(out, name=None, version=TENSORBOARD_FOLDER)
            if settings.tensorboard
            else False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=out,
        )
        trainer.fit(
            prepared.module,
            training_loader(prepared.samples, trainer, settings.steps, settings.workers),
            validation_loader(prepared.module.seen),
            ckpt_path=checkpoint if checkpoint.is_file() else None,
            weights_only=True,
        )
    if not trainer.is_global_zero:
        raise SystemExit(0)  # Lightning started this process to help; the first one reports
    return folder.record


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what Lightning warns of in vain."""
    with warnings.catch_warnings():
        # The setting `workers` says how many are wanted.
        warnings.filterwarnings("ignore", ".*does not have many workers", PossibleUserWarning)
        # The loader begins at the trainer's step, which Lightning cannot know.
        warnings.filterwarnings("ignore", ".*ended before the epoch ended", PossibleUserWarning)
        # Its own call into torch, which has deprecated that name.
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
        yield


@contextmanager
def _explained(settings: TrainSettings, out: Path) -> Iterator[None]:
    """Say in our words what can go wrong outside of us."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        text = str(error)
        if isinstance(error, RuntimeError) and not any(sign in text for sign in _NO_MEMORY):
            raise
        raise RtposeError(
            f"out of memory with batches of {settings.batch} pictures of "
            f"{settings.width_px}x{settings.height_px} px: lower the batch or the size "
            f"({text.splitlines()[0] if text else 'no memory'})"
        ) from error
    except OSError as error:
        raise RecordingError(f"{out}: cannot be written: {error}") from error
