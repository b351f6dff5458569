"""What a Lightning Trainer says, told to a `TrainingReporter`."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from deriva_ml_core.errors import ConfigurationError
from deriva_ml_core.implicit_execution import resolve_execution
from deriva_ml_core.training import TrainingKwargs, TrainingReporter
from deriva_ml_lightning.checkpoint_io import wait_for_saves
from deriva_ml_lightning.checkpoints import TrainerCheckpoints
from deriva_ml_lightning.compat import callback_classes, find_callbacks, move_callback_last, restore_callback_order
from deriva_ml_lightning.epochs import EpochTracker, StageTracker
from deriva_ml_lightning.settings import collect_settings
from deriva_ml_lightning.start import DuplicateGuard, StartPolicy
from deriva_ml_lightning.stop_reason import StopReason

if TYPE_CHECKING:
    from typing import Any as Callback  # so that a type checker takes it for either package's

    from lightning.pytorch import LightningModule, Trainer

    from deriva_ml_core.client import DerivaML
    from deriva_ml_core.execution import Execution, ExecutionConfiguration
else:

    class Callback(*callback_classes()):
        """A callback to the Trainers of both packages, also of one that is imported after this module."""

        def __init__(self) -> None:
            Callback.__bases__ = callback_classes()


__all__ = ["DerivaMLCallback"]

SIGTERM_EXIT_CODE = 128 + 15
"""The exit status by which shells tell of SIGTERM."""


class DerivaMLCallback(Callback):  # type: ignore[misc]
    """Records fits, and validations, tests and predictions beside them, in an execution.

    Given an execution, it records into that one, which the user's ``with`` begins and ends. Given none, it makes its
    own when a Trainer is set up, and ends and uploads it at the end of the first fit, or of the ``with`` in which it is
    used itself; what the same callback sees later is added to it.

    Args:
        execution: The execution that the training belongs to, entered by ``with``; None to make one.
        ml: Where to make one; ``DerivaML()`` by default.
        configuration: What it is to be; by default of the script or notebook that runs, as a workflow of type Training.
        description: What the run is for.
        checkpoint_io: Whether checkpoints are written by our own CheckpointIO where the Trainer has Lightning's
            default; another one stays in any case.
        **options: The fields of ``deriva_ml_core.training.TrainingOptions``. With ``checkpoints=...`` the Trainer's own
            ModelCheckpoints stay as they are, and are not recorded.

    Raises:
        ConfigurationError: Both an execution and what to make one of are given, or an option is wrong.
        UnknownTable, UnknownTerm: The execution's catalog has no such asset table or asset type.

    Example:
        ::

            Trainer(max_epochs=10, callbacks=[DerivaMLCallback()]).fit(model, data)
    """

    _is_autolog = False
    """Whether autolog added it, and not the user."""

    def __init__(
        self,
        execution: Execution | None = None,
        *,
        ml: DerivaML | None = None,
        configuration: ExecutionConfiguration | None = None,
        description: str = "",
        checkpoint_io: bool = True,
        **options: Unpack[TrainingKwargs],
    ) -> None:
        super().__init__()
        if execution is not None and not (ml is None and configuration is None and not description):
            raise ConfigurationError(
                "Give DerivaMLCallback either an execution, or ml=, configuration= and description= to make one of."
            )
        self._reporter = TrainingReporter(execution or resolve_execution(ml, configuration, description), **options)
        self._epoch_tracker = EpochTracker(self._reporter)
        self._stage_tracker = StageTracker(self._reporter)
        self._checkpoints = TrainerCheckpoints(self._reporter, write_directly=checkpoint_io)
        self._stop_reason = StopReason()
        self._outcome = ""
        self._duplicate_guard = DuplicateGuard(self._reporter, is_autolog=self._is_autolog)
        self._start_policy = StartPolicy(self._reporter, self._checkpoints)
        self._is_recording = False
        self._original_callbacks: list[Any] = []

    def __enter__(self) -> Self:
        self._reporter.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reporter.__exit__(kind, error, trace)

    @property
    def execution(self) -> Execution:
        """The execution.

        Raises:
            ExecutionNotStarted: The callback makes its own when a Trainer is set up, and none has been.
        """
        return self._reporter.execution

    @property
    def state_key(self) -> str:
        """What its state is called in a checkpoint."""
        return self._duplicate_guard.state_key

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint tells of the run that made it."""
        return {} if self._duplicate_guard.is_duplicate else dict(self._reporter.state())

    # The hooks, in the order in which a Trainer calls them

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._checkpoints.remember_missing_dirpaths(trainer)
        self._is_recording = self._duplicate_guard.check_trainer(
            trainer, [each._duplicate_guard for each in find_callbacks(trainer, DerivaMLCallback)]
        )
        if self._is_recording:
            self._start_policy.set_up(trainer)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._is_recording:
            self._start_policy.load_checkpoint(trainer, checkpoint, self.state_key)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_recording:
            self._original_callbacks = move_callback_last(
                trainer, self
            )  # what ModelCheckpoints save in a hook is there when ours is called
            if not trainer.strategy.restore_checkpoint_after_setup:
                self._start_policy.ensure_begun(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._is_recording:
            return
        self._start_policy.ensure_begun(trainer)
        self._epoch_tracker.begin(trainer)
        self._stop_reason = StopReason()
        epochs = trainer.max_epochs
        if trainer.is_global_zero:
            self._reporter.begin_fit(
                epochs=epochs if epochs and epochs > 0 else None,
                settings=collect_settings(trainer, pl_module),
                managed=self._checkpoints.is_managed,
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_recording:
            self._report_epoch(trainer)
            self._epoch_tracker.begin_epoch(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._is_recording and (step := self._epoch_tracker.end_batch(trainer, batch)) is not None:
            self._checkpoints.default_checkpoints.end_step(trainer, step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_recording:
            self._report_epoch(trainer)
            self._checkpoints.default_checkpoints.end_epoch(trainer, self._epoch_tracker.end_epoch(trainer))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_recording:
            self._report_epoch(trainer)
            self._outcome = self._stop_reason.describe(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_recording:
            self._stage_tracker.begin(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_recording:
            self._stage_tracker.end(trainer, "validate")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_recording:
            self._stage_tracker.begin(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_recording:
            self._stage_tracker.end(trainer, "test")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_recording:
            self._stage_tracker.begin(trainer)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_recording:
            self._stage_tracker.end(trainer, "predict")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_recording and trainer.is_global_zero:
            self._checkpoints.finish()
            self._reporter.end_fit(self._outcome)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._is_recording:
            self._restore_trainer(trainer)
            self._stage_tracker.report(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if not self._is_recording:
            return
        self._epoch_tracker.report(trainer, read_late_metrics=False)
        if isinstance(exception, SystemExit) and exception.code is None and trainer.received_sigterm:
            exception.code = SIGTERM_EXIT_CODE  # the Trainer's own exception would end the process with 0
        wait_for_saves(trainer.strategy, self._reporter.options.exit_timeout)
        if trainer.is_global_zero:
            self._checkpoints.finish()
        self._reporter.fail(exception)  # a failure of any rank is the run's
        self._restore_trainer(trainer)

    def _report_epoch(self, trainer: Trainer) -> None:
        if (told := self._epoch_tracker.report(trainer)) is not None:
            self._stop_reason.record_epoch(trainer, told[0])
            self._checkpoints.default_checkpoints.save_deferred(trainer, told[1])

    def _restore_trainer(self, trainer: Trainer) -> None:
        """Leave the Trainer as it was."""
        self._is_recording = False
        self._checkpoints.end(trainer)
        restore_callback_order(trainer, self._original_callbacks)
