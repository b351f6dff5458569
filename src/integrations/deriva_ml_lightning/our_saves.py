"""The checkpoints that our own policy asks for: saved by every rank alike, where and when rank zero says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, SupportsFloat

from deriva_ml_core.training import TrainingReporter

__all__ = ["DefaultCheckpoints"]


class DefaultCheckpoints:
    """Saves checkpoints of one Trainer.

    Args:
        reporter: What decides, on rank zero.
    """

    def __init__(self, reporter: TrainingReporter) -> None:
        self._reporter = reporter
        self._is_enabled = False
        self._deferred_epoch: int | None = None
        self._pending_paths: set[Path] = set()

    def begin(self, *, is_enabled: bool) -> None:
        """A fit begins, in which this policy saves or does not."""
        self._is_enabled, self._deferred_epoch = is_enabled, None

    def claim(self, path: Path) -> bool:
        """Whether a checkpoint is ours and nobody has begun to write it; whoever asks does now."""
        is_ours = path in self._pending_paths
        self._pending_paths.discard(path)
        return is_ours

    def end_step(self, trainer: Any, step: int) -> None:
        """Save within an epoch, where that is asked for: on every rank."""
        every = self._reporter.options.save_every_n_steps
        if every is not None and self._is_enabled and step % every == 0:
            self._save(trainer, trainer.current_epoch + 1, {}, in_step=True)

    def end_epoch(self, trainer: Any, metrics: Mapping[str, SupportsFloat]) -> None:
        """Save after an epoch, or when its metrics are complete, where the one that decides is not there yet."""
        options, epoch = self._reporter.options, trainer.current_epoch + 1
        if not self._is_enabled or epoch % options.save_every_n_epochs:
            return
        late = options.monitor is not None and options.monitor not in metrics
        if _broadcast(trainer, late):
            self._deferred_epoch = epoch
        else:
            self._save(trainer, epoch, metrics)

    def save_deferred(self, trainer: Any, metrics: Mapping[str, SupportsFloat]) -> None:
        """Save what `end_epoch` left for later: on every rank."""
        if self._deferred_epoch is not None:
            epoch, self._deferred_epoch = self._deferred_epoch, None
            self._save(trainer, epoch, metrics)

    def _save(self, trainer: Any, epoch: int, metrics: Mapping[str, SupportsFloat], *, in_step: bool = False) -> None:
        """Save on every rank, to the path that rank zero registered."""
        path = None
        if trainer.is_global_zero and (in_step or self._reporter.is_checkpoint_due(epoch)):
            step = trainer.global_step
            path = self._reporter.checkpoint_path(epoch, ".ckpt", metrics, step=step, in_step=in_step)
        path = _broadcast(trainer, path)
        if path is None:
            return
        self._pending_paths.add(path)
        try:
            trainer.save_checkpoint(path, weights_only=self._reporter.options.weights_only)
        except Exception:
            if trainer.world_size > 1:  # a rank that swallowed its failure would leave the others waiting
                raise
            self.claim(path)
            with self._reporter.writing_checkpoint(path):
                raise
        if trainer.is_global_zero and path.exists() and self.claim(path):
            with self._reporter.writing_checkpoint(path):  # by a strategy that needs no CheckpointIO
                pass


def _broadcast(trainer: Any, value: Any) -> Any:
    """What rank zero says, on every rank."""
    return value if trainer.world_size == 1 else trainer.strategy.broadcast(value)
