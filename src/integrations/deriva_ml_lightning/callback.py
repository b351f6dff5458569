"""What a Lightning Trainer says, told to a `TrainingReporter`."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from deriva_ml_core.errors import ConfigurationError
from deriva_ml_core.training import OptionWords, TrainingReporter
from deriva_ml_core.unattended import opening
from deriva_ml_lightning.beginning import Beginning
from deriva_ml_lightning.checkpoint_io import wait_for_saves
from deriva_ml_lightning.checkpointing import Checkpointing
from deriva_ml_lightning.epochs import Epochs
from deriva_ml_lightning.packages import callback_classes, callbacks_of, put_back, put_last
from deriva_ml_lightning.settings import settings_of
from deriva_ml_lightning.speaking import Voice
from deriva_ml_lightning.stages import Stages
from deriva_ml_lightning.stops import Stops

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

SIGTERM_CODE = 128 + 15
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

    added = False
    """Whether autolog added it, and not the user."""

    def __init__(
        self,
        execution: Execution | None = None,
        *,
        ml: DerivaML | None = None,
        configuration: ExecutionConfiguration | None = None,
        description: str = "",
        checkpoint_io: bool = True,
        **options: Unpack[OptionWords],
    ) -> None:
        super().__init__()
        if execution is not None and not (ml is None and configuration is None and not description):
            raise ConfigurationError(
                "Give DerivaMLCallback either an execution, or ml=, configuration= and description= to make one of."
            )
        self._reporter = TrainingReporter(execution or opening(ml, configuration, description), **options)
        self._epochs = Epochs(self._reporter)
        self._stages = Stages(self._reporter)
        self._checkpointing = Checkpointing(self._reporter, direct=checkpoint_io)
        self._stops = Stops()
        self._outcome = ""
        self._voice = Voice(self._reporter, added=self.added)
        self._beginning = Beginning(self._reporter, self._checkpointing)
        self._is_on = False
        self._order: list[Any] = []

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
            ExecutionNotBegun: The callback makes its own when a Trainer is set up, and none has been.
        """
        return self._reporter.execution

    @property
    def state_key(self) -> str:
        """What its state is called in a checkpoint."""
        return self._voice.key

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint tells of the run that made it."""
        return {} if self._voice.is_silent else dict(self._reporter.state())

    # The hooks, in the order in which a Trainer calls them

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._checkpointing.note_undirected(trainer)
        self._is_on = self._voice.set_up(trainer, [each._voice for each in callbacks_of(trainer, DerivaMLCallback)])
        if self._is_on:
            self._beginning.set_up(trainer)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._is_on:
            self._beginning.load(trainer, checkpoint, self.state_key)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_on:
            self._order = put_last(trainer, self)  # what ModelCheckpoints save in a hook is there when ours is called
            if not trainer.strategy.restore_checkpoint_after_setup:
                self._beginning.make_sure(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._is_on:
            return
        self._beginning.make_sure(trainer)
        self._epochs.begin(trainer)
        self._stops = Stops()
        epochs = trainer.max_epochs
        if trainer.is_global_zero:
            self._reporter.begin_fit(
                epochs=epochs if epochs and epochs > 0 else None,
                settings=settings_of(trainer, pl_module),
                managed=self._checkpointing.managed,
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_on:
            self._complete_epoch(trainer)
            self._epochs.begin_epoch(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._is_on and (step := self._epochs.end_batch(trainer, batch)) is not None:
            self._checkpointing.ours.end_step(trainer, step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_on:
            self._complete_epoch(trainer)
            self._checkpointing.ours.end_epoch(trainer, self._epochs.end_epoch(trainer))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_on:
            self._complete_epoch(trainer)
            self._outcome = self._stops.outcome(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_on:
            self._stages.begin(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_on:
            self._stages.end(trainer, "validate")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_on:
            self._stages.begin(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_on:
            self._stages.end(trainer, "test")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_on:
            self._stages.begin(trainer)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_on:
            self._stages.end(trainer, "predict")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_on and trainer.is_global_zero:
            self._checkpointing.finish()
            self._reporter.end_fit(self._outcome)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._is_on:
            self._leave(trainer)
            self._stages.tell(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if not self._is_on:
            return
        self._epochs.report(trainer, complete=False)
        if isinstance(exception, SystemExit) and exception.code is None and trainer.received_sigterm:
            exception.code = SIGTERM_CODE  # the Trainer's own exception would end the process with 0
        wait_for_saves(trainer.strategy, self._reporter.options.drain)
        if trainer.is_global_zero:
            self._checkpointing.finish()
        self._reporter.fail(exception)  # a failure of any rank is the run's
        self._leave(trainer)

    def _complete_epoch(self, trainer: Trainer) -> None:
        if (told := self._epochs.report(trainer)) is not None:
            self._stops.note_epoch(trainer, told[0])
            self._checkpointing.ours.complete_epoch(trainer, told[1])

    def _leave(self, trainer: Trainer) -> None:
        """Leave the Trainer as it was."""
        self._is_on = False
        self._checkpointing.end(trainer)
        put_back(trainer, self._order)
