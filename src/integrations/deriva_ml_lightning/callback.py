"""Lightning callback that records a Trainer with a `TrainingReporter`."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack
from weakref import ref

from deriva_ml_core.errors import ConfigurationError
from deriva_ml_core.implicit_execution import ExceptionWatch, interruption, resolve_execution
from deriva_ml_core.media.logger import LoggedMedia, MediaLogger
from deriva_ml_core.training import TrainingKwargs, TrainingReporter
from deriva_ml_lightning.checkpoint_io import wait_for_saves
from deriva_ml_lightning.checkpoints import TrainerCheckpoints, add_callback_monitor
from deriva_ml_lightning.compat import callback_classes, find_callbacks, move_callback_last, restore_callback_order
from deriva_ml_lightning.epochs import EpochTracker, StageTracker, find_position
from deriva_ml_lightning.settings import collect_settings
from deriva_ml_lightning.start import DuplicateGuard, StartPolicy
from deriva_ml_lightning.stop_reason import StopReason

if TYPE_CHECKING:
    from typing import Any as Callback  # a type checker then accepts it for both packages

    from lightning.pytorch import LightningModule, Trainer

    from deriva_ml_core.client import DerivaML
    from deriva_ml_core.execution import Execution, ExecutionConfiguration
else:

    class Callback(*callback_classes()):
        """Base class that the Trainers of both packages accept, also of a package imported after this module."""

        def __init__(self) -> None:
            Callback.__bases__ = callback_classes()


__all__ = ["DerivaMLCallback"]

SIGTERM_EXIT_CODE = 128 + 15
"""Exit status of a process that SIGTERM has ended, as shells report it."""

RESET_ATTRIBUTES = frozenset(
    {
        *("_epoch_tracker", "_stage_tracker", "_checkpoints", "_stop_reason", "_outcome", "_duplicate_guard"),
        *("_start_policy", "_watch", "_is_recording", "_original_callbacks", "_find_trainer"),
    }
)
"""Attributes of a callback that belong to the run of a Trainer."""


class DerivaMLCallback(Callback, MediaLogger):  # type: ignore[misc]
    """Records fits, validations, tests and predictions of Lightning in an execution.

    With an execution, the callback records in it, and the user's ``with`` block begins and ends it. Without one, the
    callback creates its own when a Trainer is set up. That execution ends, and its files are uploaded, at the end of
    the fit, or of the ``with`` block in which the callback is used. Later stages are added to it; without ``with``, a
    later fit is a new execution.

    ``log_image``, ``log_figure`` and ``log_table`` record the current fit, epoch and step of the Trainer. They can be
    called from a hook of the module or of another callback.

    Args:
        execution: Execution of the training, entered by ``with``; None to create one.
        ml: Client that creates the execution; ``DerivaML()`` by default.
        configuration: Configuration of the new execution; by default a workflow of type Training for the running
            script or notebook.
        description: Description of the new execution.
        console: Whether the new execution keeps what the program prints; see ``DerivaML.create_execution``.
        checkpoint_io: Whether to replace Lightning's default CheckpointIO by one that writes straight into a file,
            without a copy in memory; any other CheckpointIO stays.
        **options: Fields of ``deriva_ml_core.training.TrainingOptions``. With ``checkpoints``, the Trainer's own
            ModelCheckpoints work unchanged and are not recorded.

    Raises:
        ConfigurationError: An execution is combined with ml, configuration, description or console, or an option is
            unknown or has an invalid value.
        UnknownTable, UnknownTerm: The catalog does not have the asset table or asset type.

    Example:
        ::

            Trainer(max_epochs=10, callbacks=[DerivaMLCallback()]).fit(model, data)
    """

    _is_autolog = False
    """Whether `autolog` added the callback, and not the user."""

    def __init__(
        self,
        execution: Execution | None = None,
        *,
        ml: DerivaML | None = None,
        configuration: ExecutionConfiguration | None = None,
        description: str = "",
        console: bool = False,
        checkpoint_io: bool = True,
        **options: Unpack[TrainingKwargs],
    ) -> None:
        super().__init__()
        if execution is not None and not (ml is None and configuration is None and not description and not console):
            raise ConfigurationError(
                "DerivaMLCallback takes either an execution, or ml, configuration, description and console to create "
                "one."
            )
        self._reporter = TrainingReporter(
            execution or resolve_execution(ml, configuration, description, console=console), **options
        )
        self._writes_directly = checkpoint_io
        self._reset()

    def _reset(self) -> None:
        """Set what belongs to this object and not to its copies."""
        self._epoch_tracker = EpochTracker(self._reporter)
        self._stage_tracker = StageTracker(self._reporter)
        self._checkpoints = TrainerCheckpoints(self._reporter, write_directly=self._writes_directly)
        self._stop_reason = StopReason()
        self._outcome = ""
        self._duplicate_guard = DuplicateGuard(self._reporter, is_autolog=self._is_autolog)
        self._start_policy = StartPolicy(self._reporter, self._checkpoints)
        self._watch = ExceptionWatch(self._reporter.fail)
        self._is_recording = False
        self._original_callbacks: list[Any] = []
        self._find_trainer: Callable[[], Any] = lambda: None

    def __getstate__(self) -> dict[str, object]:
        # a copy is outside of the Trainer's run and of the ``with`` block
        return {name: value for name, value in vars(self).items() if name not in RESET_ATTRIBUTES}

    def __setstate__(self, state: dict[str, object]) -> None:
        super().__init__()
        self.__dict__.update(state)
        self._reset()

    def __enter__(self) -> Self:
        self._reporter.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reporter.__exit__(kind, error, trace)

    @property
    def execution(self) -> Execution:
        """Execution of the training.

        Raises:
            ExecutionNotStarted: The callback creates the execution when a Trainer is set up, and none has been set up.
        """
        return self._reporter.execution

    @property
    def state_key(self) -> str:
        """Key of the callback's state in a checkpoint."""
        return self._duplicate_guard.state_key

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a checkpoint stores about its run."""
        return {} if self._duplicate_guard.is_duplicate else dict(self._reporter.state())

    # Hooks, in the order in which a Trainer calls them

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._find_trainer = ref(trainer)
        self._checkpoints.remember_default_checkpoints(trainer)
        self._is_recording = self._duplicate_guard.check_trainer(
            trainer, [each._duplicate_guard for each in find_callbacks(trainer, DerivaMLCallback)]
        )
        if not self._is_recording:
            return
        if trainer.state.fn == "fit":
            self._watch.report(interruption())  # the exception hook of another callback has failed
        if self._reporter.has_own_execution and not self._reporter.is_in_with_block:
            self._watch.install()
        self._start_policy.set_up(trainer)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._is_recording:
            self._start_policy.load_checkpoint(trainer, checkpoint, self.state_key)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_recording:
            # last, so that the files which ModelCheckpoints save in a hook exist when this callback's hook is called
            self._original_callbacks = move_callback_last(trainer, self)
            if not trainer.strategy.restore_checkpoint_after_setup:
                self._start_policy.ensure_begun(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._is_recording:
            return
        self._start_policy.ensure_begun(trainer)
        self._epoch_tracker.begin(trainer)
        self._stop_reason = StopReason()
        epochs = trainer.max_epochs
        add_callback_monitor(self._reporter, trainer)
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
            self._stage_tracker.end_epoch()
            self._checkpoints.default_checkpoints.end_epoch(trainer, self._epoch_tracker.end_epoch(trainer))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_recording:
            self._report_epoch(trainer)
            self._outcome = self._stop_reason.describe(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_recording:
            self._stage_tracker.begin(trainer)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_recording:
            self._stage_tracker.end_batches(trainer)

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
        self._stage_tracker.report_interrupted(trainer)
        if isinstance(exception, SystemExit) and exception.code is None and trainer.received_sigterm:
            exception.code = SIGTERM_EXIT_CODE  # without a code, the process would exit with 0
        wait_for_saves(trainer.strategy, self._reporter.options.exit_timeout)
        if trainer.is_global_zero:
            self._checkpoints.finish()
        self._reporter.fail(exception)  # on every rank: the failure of any rank fails the run
        self._restore_trainer(trainer)

    def _log_media(self, media: LoggedMedia) -> None:
        trainer = self._find_trainer()
        position = {} if trainer is None else find_position(trainer)
        self._reporter._log_media(media.with_defaults(**position))

    def _report_epoch(self, trainer: Trainer) -> None:
        if (ended := self._epoch_tracker.report(trainer)) is not None:
            epoch, metrics = ended
            self._stop_reason.record_epoch(trainer, epoch)
            self._checkpoints.default_checkpoints.save_deferred(trainer, metrics)

    def _restore_trainer(self, trainer: Trainer) -> None:
        """Undo all changes to the Trainer."""
        self._watch.uninstall()
        self._is_recording = False
        self._checkpoints.end(trainer)
        restore_callback_order(trainer, self._original_callbacks)
