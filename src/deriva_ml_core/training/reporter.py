"""The face that every training sees: what to say, what to keep, and when."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, SupportsFloat

from deriva_ml_core.definitions import Status
from deriva_ml_core.models import Progress
from deriva_ml_core.training.checkpoints import Checkpoints
from deriva_ml_core.training.metrics import FitMetrics, as_floats
from deriva_ml_core.training.wording import epoch_message

if TYPE_CHECKING:
    from deriva_ml_core.execution import Execution

__all__ = ["TrainingReporter"]

log = logging.getLogger(__name__)


class TrainingReporter:
    """Tells an execution how a training goes: a status, metrics and a checkpoint an epoch, an upload at the end.

    Until the fit has ended, whatever goes wrong with any of these is logged as a warning and the training goes on; an
    upload that fails then raises, and leaves everything staged.

    Args:
        execution: The execution that the training belongs to, entered by ``with``.
        checkpoint_table: The asset table for checkpoints.
        checkpoint_types: Their terms in the vocabulary Asset_Type.
        save_every_n_epochs: How many epochs apart checkpoints are; 0 keeps none.
        upload: Whether the end of a fit uploads all that is staged; otherwise it waits for
            ``execution.upload_execution_outputs()``.

    Raises:
        ConfigurationError: `save_every_n_epochs` is negative.
        UnknownTable, UnknownTerm: The catalog has no such asset table or asset type.

    Example:
        A loop written by hand; epochs count from 1::

            def save(path: Path) -> None:
                with path.open("wb") as file:
                    torch.save(model.state_dict(), file)

            with ml.create_execution(configuration) as execution:
                reporter = TrainingReporter(execution)
                reporter.begin_fit(epochs=10)
                for epoch in range(1, 11):
                    loss = train_epoch(model, data)
                    reporter.save_checkpoint(epoch, ".pt", save)
                    reporter.end_epoch(epoch, {"loss": loss})
                reporter.end_fit()
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
        self._execution = execution
        self._checkpoints = Checkpoints(execution, checkpoint_table, tuple(checkpoint_types), save_every_n_epochs)
        self._upload = upload
        self.begin_fit()

    def begin_fit(self, epochs: int | None = None) -> None:
        """Begin a fit; one execution may have several.

        Args:
            epochs: The number of its last epoch; None where nobody knows.
        """
        self._epochs = epochs
        self._done = 0
        self._began = self._mark = monotonic()
        self._metrics: FitMetrics | None = None

    def end_epoch(self, epoch: int, metrics: Mapping[str, SupportsFloat], *, step: int | None = None) -> None:
        """Tell how an epoch went: a status, and a line in the metrics file.

        Args:
            epoch: Its number, from 1.
            metrics: Its values by name: floats, or tensors and arrays of one element; others are left out.
            step: Optimizer steps since training began; None where nobody counts.
        """
        seconds, left = self._times(epoch)
        values, others = as_floats(metrics)
        if others:
            log.warning("Epoch %d: %s left out, for they are no single numbers.", epoch, ", ".join(others))
        progress = Progress(epoch=epoch, epochs=self._epochs, step=step, metrics=values)
        with _spared(f"keep the metrics of epoch {epoch}"):
            self._kept_metrics().append(progress, seconds)
        with _spared(f"tell the status of epoch {epoch}"):
            self._execution.update_status(Status.running, epoch_message(progress, seconds, left), progress=progress)

    def save_checkpoint(self, epoch: int, suffix: str, write: Callable[[Path], object]) -> Path | None:
        """Keep a checkpoint of an epoch, if one is due.

        Args:
            epoch: The epoch's number, from 1.
            suffix: How the file's name ends, such as ``.pt``.
            write: Writes the model to the path that it is given, whose name ends so; when it returns, the file is
                renamed to its place.

        Returns:
            Where the checkpoint is; None where none was due, or it could not be written.
        """
        path = self.checkpoint_path(epoch, suffix)
        if path is not None:
            with self.writing_checkpoint(path):
                self._checkpoints.write(path, write)
                return path
        return None

    def checkpoint_due(self, epoch: int) -> bool:
        """Whether an epoch, from 1, leaves a checkpoint; every process of a training answers alike."""
        return self._checkpoints.due(epoch)

    def checkpoint_path(self, epoch: int, suffix: str) -> Path | None:
        """Register a checkpoint that the framework itself writes.

        Args:
            epoch: The epoch's number, from 1.
            suffix: How the file's name ends, such as ``.ckpt``.

        Returns:
            Where to write it; None where none is due, or it could not be registered.
        """
        if not self.checkpoint_due(epoch):
            return None
        with _spared(f"register the checkpoint of epoch {epoch}"):
            return self._checkpoints.register(self._kept_metrics().fit, epoch, suffix)
        return None

    @contextmanager
    def writing_checkpoint(self, path: Path) -> Iterator[None]:
        """Drop the checkpoint if its writing fails, so that half a file is never uploaded; the training goes on.

        Args:
            path: What `checkpoint_path` gave.
        """
        with _spared(f"write the checkpoint {path}"):
            whole = False
            try:
                yield
                whole = True
            finally:
                if not whole:
                    with _spared(f"forget the checkpoint {path}"):
                        self._checkpoints.drop(path)

    def end_fit(self) -> None:
        """End a fit, and upload all that is staged where that was asked for.

        Raises:
            UploadFailed, MissingFiles: Something is still staged; the same call sends it later.
        """
        if self._upload:
            self._execution.upload_execution_outputs()

    def _times(self, epoch: int) -> tuple[float, float | None]:
        """Seconds since the last epoch ended, and seconds until the last one ends, if anyone can tell."""
        now = monotonic()
        seconds, self._mark, self._done = now - self._mark, now, self._done + 1
        if self._epochs is None or epoch >= self._epochs:
            return seconds, None
        return seconds, (now - self._began) / self._done * (self._epochs - epoch)

    def _kept_metrics(self) -> FitMetrics:
        if self._metrics is None:  # not before the first epoch: a fit without epochs leaves no file
            self._metrics = FitMetrics.begin(self._execution)
        return self._metrics


@contextmanager
def _spared(task: str) -> Iterator[None]:
    """Log what goes wrong instead of raising it."""
    try:
        yield
    except Exception:
        log.warning("Could not %s; the training goes on.", task, exc_info=True)
