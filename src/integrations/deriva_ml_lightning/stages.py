"""Validations, tests and predictions: those beside the fits, and validations within an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import Any, SupportsFloat

from deriva_ml_core.training import TrainingReporter
from deriva_ml_lightning.epochs import drop_step_and_epoch_duplicates

__all__ = ["StageTracker"]


class StageTracker:
    """Follows the stages of one Trainer. Metrics are read on every rank, since that may make them meet.

    Args:
        reporter: What is told, on rank zero.
    """

    def __init__(self, reporter: TrainingReporter) -> None:
        self._reporter = reporter
        self._previous_metrics: Mapping[str, object] = {}
        self._started_at = 0.0
        self._ended_stage: tuple[str, float, dict[str, SupportsFloat]] | None = None

    def begin(self, trainer: Any) -> None:
        """A stage begins."""
        self._previous_metrics, self._started_at, self._ended_stage = dict(trainer.callback_metrics), monotonic(), None

    def end(self, trainer: Any, stage: str) -> None:
        """A stage has ended: ``validate``, ``test`` or ``predict``; the sanity check is none."""
        if trainer.sanity_checking:
            return
        metrics = trainer.callback_metrics
        fresh = drop_step_and_epoch_duplicates(
            {name: value for name, value in metrics.items() if value is not self._previous_metrics.get(name)}
        )
        if trainer.state.fn != "fit":
            self._ended_stage = (stage, monotonic() - self._started_at, fresh)
        elif trainer.is_global_zero and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            # the epoch's own line will have the last of its validations alone
            self._reporter.end_validation(trainer.global_step, trainer.current_epoch + 1, fresh)

    def report(self, trainer: Any) -> None:
        """Tell the stage that ended beside the fits, if one did."""
        ended, self._ended_stage = self._ended_stage, None
        if ended is not None and trainer.is_global_zero:
            stage, seconds, metrics = ended
            self._reporter.end_stage(stage, metrics, seconds=seconds, step=trainer.global_step or None)
