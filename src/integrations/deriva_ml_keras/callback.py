"""What ``Model.fit`` of Keras says, told to a `TrainingReporter`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, SupportsFloat

import keras

from deriva_ml_core.training import TrainingReporter

if TYPE_CHECKING:
    from deriva_ml_core.execution import Execution

__all__ = ["DerivaMLCallback"]


class DerivaMLCallback(keras.callbacks.Callback):  # type: ignore[misc]  # Keras publishes no types
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
                model.fit(x, y, epochs=10, callbacks=[DerivaMLCallback(execution)])
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

    def on_train_begin(self, logs: Mapping[str, SupportsFloat] | None = None) -> None:
        self._reporter.begin_fit(epochs=self.params.get("epochs"))

    def on_epoch_end(self, epoch: int, logs: Mapping[str, SupportsFloat] | None = None) -> None:
        self._reporter.save_checkpoint(epoch + 1, ".keras", self.model.save)
        self._reporter.end_epoch(epoch + 1, logs or {}, step=self._steps())

    def on_train_end(self, logs: Mapping[str, SupportsFloat] | None = None) -> None:
        self._reporter.end_fit()

    def _steps(self) -> int | None:
        optimizer = getattr(self.model, "optimizer", None)
        return None if optimizer is None else int(optimizer.iterations)
