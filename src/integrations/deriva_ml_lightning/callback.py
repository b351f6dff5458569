"""What a Lightning Trainer says, told to a `TrainingReporter`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, SupportsFloat

from deriva_ml_core.training import TrainingReporter
from deriva_ml_lightning.packages import callback_classes

if TYPE_CHECKING:
    from typing import Any as Callback  # so that a type checker takes it for either package's

    from lightning.pytorch import LightningModule, Trainer

    from deriva_ml_core.execution import Execution
else:

    class Callback(*callback_classes()):
        """A callback to the Trainers of both packages, also of one that is imported after this module."""

        def __init__(self) -> None:
            Callback.__bases__ = callback_classes()


__all__ = ["DerivaMLCallback"]


@dataclass(frozen=True)
class _Epoch:
    """An epoch that has ended; the module's own ``on_train_epoch_end`` may still add to its metrics."""

    number: int
    step: int
    metrics: Mapping[str, SupportsFloat]


class DerivaMLCallback(Callback):  # type: ignore[misc]
    """Records a fit in an execution: each epoch a status, its metrics and a checkpoint, and an upload at the end.

    Args:
        execution: The execution that the training belongs to, entered by ``with``.
        checkpoint_table: The asset table for checkpoints.
        checkpoint_types: Their terms in the vocabulary Asset_Type.
        save_every_n_epochs: How many epochs apart checkpoints are; 0 keeps none.
        upload: Whether the end of the fit uploads all that is staged; otherwise it waits for
            ``execution.upload_execution_outputs()``.

    Example:
        ::

            with ml.create_execution(configuration) as execution:
                trainer = Trainer(max_epochs=10, callbacks=[DerivaMLCallback(execution)])
                trainer.fit(model, data)
    """

    def __init__(
        self,
        execution: Execution,
        *,
        checkpoint_table: str = "Model",
        checkpoint_types: Sequence[str] = ("Model_File",),
        save_every_n_epochs: int = 1,
        upload: bool = True,
    ) -> None:
        super().__init__()
        self._reporter = TrainingReporter(
            execution,
            checkpoint_table=checkpoint_table,
            checkpoint_types=checkpoint_types,
            save_every_n_epochs=save_every_n_epochs,
            upload=upload,
        )
        self._ended: _Epoch | None = None
        self._told: Mapping[str, object] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._ended, self._told = None, {}
        epochs = trainer.max_epochs
        self._reporter.begin_fit(epochs=epochs if epochs and epochs > 0 else None)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._report(trainer)
        number = trainer.current_epoch + 1
        self._save_checkpoint(trainer, number)
        # reading the metrics makes all ranks meet, so every rank does
        self._ended = _Epoch(number, trainer.global_step, dict(trainer.callback_metrics))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._report(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._report(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._report(trainer, complete=False)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self._reporter.end_fit()

    def _report(self, trainer: Trainer, *, complete: bool = True) -> None:
        """Report the epoch that has ended, if it is not reported yet.

        Args:
            trainer: Whose.
            complete: Whether metrics that were logged since may be read; after a failure another rank may be gone.
        """
        if (ended := self._ended) is None:
            return
        metrics = {**ended.metrics, **trainer.callback_metrics} if complete else ended.metrics
        # the Trainer goes on telling the last value of a metric that this epoch did not log
        fresh = {name: value for name, value in metrics.items() if value is not self._told.get(name)}
        self._ended, self._told = None, metrics
        if trainer.is_global_zero:
            self._reporter.end_epoch(ended.number, _once(fresh), step=ended.step)

    def _save_checkpoint(self, trainer: Trainer, epoch: int) -> None:
        """Save on every rank, to the path that rank zero registered."""
        if not self._reporter.checkpoint_due(epoch):
            return
        path = self._reporter.checkpoint_path(epoch, ".ckpt") if trainer.is_global_zero else None
        path = trainer.strategy.broadcast(path)
        if path is None:
            return
        if trainer.world_size > 1:  # a rank that swallowed its failure would leave the others waiting
            trainer.save_checkpoint(path, weights_only=False)
            return
        with self._reporter.writing_checkpoint(path):
            trainer.save_checkpoint(path, weights_only=False)


def _once(metrics: Mapping[str, SupportsFloat]) -> dict[str, SupportsFloat]:
    """Leave out ``loss_step`` and ``loss_epoch`` beside ``loss``: Lightning's other names for the same metric."""
    twins = {f"{name}{suffix}" for name in metrics for suffix in ("_step", "_epoch")}
    return {name: value for name, value in metrics.items() if name not in twins}
