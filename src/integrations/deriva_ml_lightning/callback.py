"""What a Lightning Trainer says, told to a `TrainingReporter`."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from deriva_ml_core.errors import ConfigurationError
from deriva_ml_core.notices import warn
from deriva_ml_core.ranks import present_rank
from deriva_ml_core.training import OptionWords, TrainingReporter
from deriva_ml_core.unattended import opening
from deriva_ml_lightning.checkpoint_io import is_local, wait_for_saves
from deriva_ml_lightning.checkpointing import Checkpointing
from deriva_ml_lightning.epochs import Epochs
from deriva_ml_lightning.packages import callback_classes, put_back, put_last
from deriva_ml_lightning.settings import settings_of
from deriva_ml_lightning.speaking import is_trial, is_trial_checkpoint, rival_of
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

NAME = "DerivaMLCallback"
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
        self._is_on = self._is_silent = self._is_begun = False
        self._order: list[Any] = []
        self._key = f"{NAME} {id(self)}"  # until the Trainer is known: it refuses two that are called alike

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
    def given(self) -> Execution | None:
        """The execution that the user gave; None where the callback makes its own."""
        return None if self._reporter.own else self._reporter.execution

    @property
    def state_key(self) -> str:
        """What its state is called in a checkpoint."""
        return self._key

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint tells of the run that made it."""
        return {} if self._is_silent else dict(self._reporter.state())

    # The hooks, in the order in which a Trainer calls them

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._checkpointing.note_undirected(trainer)
        self._is_on, self._is_begun = self._speaks(trainer) and not is_trial(trainer), False
        if not self._is_on:
            return
        if stage == "fit":
            self._checkpointing.begin(trainer)
        if stage != "fit" or not self._is_late:
            self._begin(trainer)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        path = trainer.ckpt_path
        if not self._is_on or is_trial_checkpoint(path):
            return
        state = checkpoint["callbacks"].get(self.state_key, {})
        self._reporter.resume_from(state, Path(path) if path and is_local(path) else None)
        if trainer.state.fn == "fit":
            self._begin(trainer)
            self._checkpointing.accept_folders(checkpoint)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_on:
            self._order = put_last(trainer, self)  # what ModelCheckpoints save in a hook is there when ours is called
            if not trainer.strategy.restore_checkpoint_after_setup:
                self._begin(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._is_on:
            return
        self._begin(trainer)
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
            self._checkpointing.end_step(trainer, step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_on:
            self._complete_epoch(trainer)
            self._checkpointing.end_epoch(trainer, self._epochs.end_epoch(trainer))

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

    @property
    def _is_late(self) -> bool:
        """Whether the run is not known before the checkpoint is loaded."""
        return self._reporter.own and self._reporter.options.resume == "same"

    def _begin(self, trainer: Trainer) -> None:
        """Make the execution where that is to be done, and show it to the ModelCheckpoints: on every rank, once."""
        if self._is_begun:
            return
        self._is_begun = True
        # the others follow; one whose rank only the Trainer knows would begin a run of its own
        if trainer.is_global_zero or present_rank(os.environ):
            self._reporter.begin()
        if trainer.state.fn == "fit":
            self._checkpointing.direct_theirs(self._reporter.checkpoint_folder if trainer.is_global_zero else None)
            if self._is_late:
                self._checkpointing.share_folders(trainer, trainer.lightning_module)

    def _speaks(self, trainer: Any) -> bool:
        """Whether none of the Trainer's other callbacks says the same."""
        all_of_us = [each for each in trainer.callbacks if isinstance(each, DerivaMLCallback)]
        rival = rival_of(self, all_of_us)
        if rival is None:
            before = sum(rival_of(each, all_of_us) is None for each in all_of_us[: all_of_us.index(self)])
            self._key = NAME if not before else f"{NAME} {before + 1}"
        elif not (self._is_silent or self.added) and trainer.is_global_zero:
            warn("The Trainer has two DerivaMLCallbacks for one execution: the second records nothing.")
        self._is_silent = rival is not None
        return rival is None

    def _complete_epoch(self, trainer: Trainer) -> None:
        if (told := self._epochs.report(trainer)) is not None:
            self._stops.note_epoch(trainer, told[0])
            self._checkpointing.complete_epoch(trainer, told[1])

    def _leave(self, trainer: Trainer) -> None:
        """Leave the Trainer as it was."""
        self._is_on = False
        self._checkpointing.end(trainer)
        put_back(trainer, self._order)
