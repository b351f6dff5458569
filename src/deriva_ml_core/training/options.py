"""Options of a recorded training, shared by the reporter, the callbacks and the autologs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal, TypedDict

from pydantic import AfterValidator, Field, ValidationError, model_validator

from deriva_ml_core._deprecation import warn_deprecated
from deriva_ml_core.errors import ConfigurationError
from deriva_ml_core.media.recorder import DEFAULT_MAX_MEDIA
from deriva_ml_core.models import FrozenModel

__all__ = ["TrainingKwargs", "TrainingOptions"]

CheckpointPolicy = Literal["best", "last", "best+last", "all", "none"]
MonitorMode = Literal["min", "max"]
UploadPolicy = Literal["stream", "end", "never"]
ResumePolicy = Literal["linked", "same"]
PositiveInt = Annotated[int, Field(ge=1)]


class TrainingKwargs(TypedDict, total=False):
    """Keyword arguments of `TrainingReporter` and of the callbacks; `TrainingOptions` documents each."""

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
    live: bool
    exit_timeout: float
    max_media: int


class TrainingOptions(FrozenModel):
    """Options for recording a training.

    Args:
        checkpoints: Checkpoints to keep: the best by `monitor`, the last, both, all or none. None keeps those of the
            framework's own checkpoint callbacks if there are any, else the best and the last.
        monitor: Metric that decides which checkpoint is the best; None for the one that a ModelCheckpoint or
            EarlyStopping monitors, else the first validation metric, such as ``val_loss`` or ``valid/acc``, else the
            loss. Until a validation metric is logged, the loss decides provisionally; then the choice is final.
        mode: Whether smaller or larger values of the metric are better; None for what the framework states, else by
            the names of known metrics. If the direction is unknown, a warning asks for it, and the checkpoints with
            the smallest and with the largest value are kept.
        save_every_n_epochs: Interval between checkpoints, in epochs.
        save_every_n_steps: Interval between checkpoints within an epoch, in optimizer steps; None for none.
        weights_only: Whether a checkpoint holds only the weights, so that training cannot be resumed from it.
        filename: Template for checkpoint names without suffix, with ``{epoch}``, ``{step}``, ``{fit}`` and metrics,
            such as ``"{epoch:03d}-{val_loss:.2f}"``; None for ``epoch-0003``, or ``step-00001200`` within an epoch.
            Equal names are made unique: by the prefix ``fit-2-`` in a further fit, by ``-last`` or the epoch at the
            end within one fit.
        checkpoint_table: Asset table for checkpoints.
        checkpoint_types: Asset types of checkpoints, terms of the vocabulary Asset_Type.
        every_n_epochs: Interval between status updates, in epochs; the last epoch always has one.
        every_n_steps: Interval between status updates within an epoch, in optimizer steps; None for none.
        min_interval: Minimum seconds between status updates; the last epoch is always reported.
        log_every_n_steps: Interval between logged step metrics, in optimizer steps; None to log epoch metrics only.
        upload: When to upload checkpoints: during training, as soon as they are final (``"stream"``), at the end of
            each fit (``"end"``), or when the user calls ``upload_execution_outputs`` (``"never"``). None means
            ``"end"`` on an embedded catalog and ``"stream"`` on a server.
        resume: How to record a fit that resumes from a checkpoint of an earlier run: as a new execution with that
            checkpoint as its input (``"linked"``), or in the same execution (``"same"``, if the callback creates its
            own).
        curves: Whether to draw ``training_curves.png`` at the end of a fit, if matplotlib is installed.
        live: Whether to draw the metrics in the notebook's cell while the fit runs, at most once a second. Outside a
            notebook it has no effect.
        exit_timeout: Maximum seconds to wait for background work at the end of a fit.
        max_media: Maximum number of logged images, figures and tables that a run keeps; further ones are counted.
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
    live: bool = False
    exit_timeout: float = Field(default=30.0, ge=0)
    max_media: PositiveInt = DEFAULT_MAX_MEDIA

    _renamed_fields: ClassVar[Mapping[str, str]] = MappingProxyType({"drain": "exit_timeout"})

    @model_validator(mode="before")
    @classmethod
    def _rename_drain(cls, values: object) -> object:
        if not isinstance(values, Mapping) or "drain" not in values or "exit_timeout" in values:
            return values
        warn_deprecated("The option 'drain'", "'exit_timeout'")
        return {"exit_timeout" if name == "drain" else name: value for name, value in values.items()}

    @classmethod
    def from_kwargs(cls, kwargs: TrainingKwargs) -> TrainingOptions:
        """Validate keyword arguments.

        Raises:
            ConfigurationError: An option is unknown or has an invalid value; the message names it.
        """
        try:
            return cls.model_validate(kwargs)
        except ValidationError as error:
            wrong = "; ".join(f"{fault['loc'][0]}={fault['input']!r}: {fault['msg']}" for fault in error.errors())
            raise ConfigurationError(f"{wrong}. The options are {', '.join(cls.model_fields)}.") from error
