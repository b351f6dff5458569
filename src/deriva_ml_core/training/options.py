"""What a user may choose of a training's record: the same words for the reporter, both callbacks and both autologs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, TypedDict

from pydantic import AfterValidator, Field, ValidationError

from deriva_ml_core.errors import ConfigurationError
from deriva_ml_core.models import FrozenModel

__all__ = ["TrainingKwargs", "TrainingOptions"]

CheckpointPolicy = Literal["best", "last", "best+last", "all", "none"]
MonitorMode = Literal["min", "max"]
UploadPolicy = Literal["stream", "end", "never"]
ResumePolicy = Literal["linked", "same"]
PositiveInt = Annotated[int, Field(ge=1)]


class TrainingKwargs(TypedDict, total=False):
    """The keywords of `TrainingReporter` and of the callbacks; `TrainingOptions` says what each means."""

    checkpoints: CheckpointPolicy | None
    monitor: str | None
    mode: MonitorMode | None
    save_every_n_epochs: int
    save_every_n_steps: int | None
    weights_only: bool
    filename: str | None
    checkpoint_table: str
    checkpoint_types: Sequence[str]
    every_n_epochs: int
    every_n_steps: int | None
    min_interval: float
    log_every_n_steps: int | None
    upload: UploadPolicy | None
    resume: ResumePolicy
    curves: bool
    exit_timeout: float


class TrainingOptions(FrozenModel):
    """How a training is recorded.

    Args:
        checkpoints: Which checkpoints are kept: the best by `monitor`, the last, both, all, or none. None means those
            of the framework's own checkpoint callbacks where the training has some, else the best and the last.
        monitor: The metric that tells the best; None for ``val_loss`` where it is logged, else ``loss``.
        mode: Whether its smaller or its larger values are better; None to tell by the name: larger for accuracies and
            other scores, else smaller.
        save_every_n_epochs: How many epochs apart checkpoints may be.
        save_every_n_steps: Checkpoints within an epoch, this many optimizer steps apart; None for none.
        weights_only: Whether a checkpoint holds the weights alone, and no state to resume from.
        filename: The checkpoints' names without suffix, with ``{epoch}``, ``{step}``, ``{fit}`` and metrics as in
            ``"{epoch:03d}-{val_loss:.2f}"``; None for ``epoch-0003``, or ``step-00001200`` within an epoch. Where it
            would call two alike that are both kept, they are told apart: by ``fit-2-`` before those of a further fit,
            by ``-last`` or the epoch after those of one fit.
        checkpoint_table: The asset table for checkpoints.
        checkpoint_types: Their terms in the vocabulary Asset_Type.
        every_n_epochs: How many epochs apart statuses are; the last epoch always has one.
        every_n_steps: Statuses within an epoch, this many optimizer steps apart; None for none.
        min_interval: Seconds that statuses are apart at least; the last is told whenever it comes.
        log_every_n_steps: Metrics of steps, this many optimizer steps apart; None for those of epochs alone.
        upload: Whether checkpoints are sent while the training goes on as soon as nothing can supersede them
            (``"stream"``), all at the end of each fit (``"end"``), or when the user calls ``upload_execution_outputs``
            (``"never"``). None means ``"end"`` on an embedded catalog and ``"stream"`` on a server.
        resume: What a fit that goes on from a checkpoint of an earlier run is: a new execution with that checkpoint as
            its input (``"linked"``), or the same execution going on (``"same"``, where the callback makes its own).
        curves: Whether ``training_curves.png`` is drawn at the end of a fit, where matplotlib is installed.
        exit_timeout: Seconds that the end of a fit waits at most for what is done beside the training.
    """

    checkpoints: CheckpointPolicy | None = None
    monitor: str | None = None
    mode: MonitorMode | None = None
    save_every_n_epochs: PositiveInt = 1
    save_every_n_steps: PositiveInt | None = None
    weights_only: bool = False
    filename: str | None = None
    checkpoint_table: str = "Model"
    checkpoint_types: Annotated[Sequence[str], AfterValidator(tuple)] = ("Model_File",)
    every_n_epochs: PositiveInt = 1
    every_n_steps: PositiveInt | None = None
    min_interval: float = Field(default=0.0, ge=0)
    log_every_n_steps: PositiveInt | None = None
    upload: UploadPolicy | None = None
    resume: ResumePolicy = "linked"
    curves: bool = True
    exit_timeout: float = Field(default=30.0, ge=0)

    @classmethod
    def from_kwargs(cls, kwargs: TrainingKwargs) -> TrainingOptions:
        """Check what a user wrote.

        Raises:
            ConfigurationError: There is no such option, or its value cannot be meant; it says which.
        """
        try:
            return cls.model_validate(kwargs)
        except ValidationError as error:
            wrong = "; ".join(f"{fault['loc'][0]}={fault['input']!r}: {fault['msg']}" for fault in error.errors())
            raise ConfigurationError(f"{wrong}. The options are {', '.join(cls.model_fields)}.") from error
