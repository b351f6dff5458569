"""When a Trainer's run begins: at once, or when the checkpoint is loaded that names the run to go on with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from deriva_ml_core.ranks import current_rank
from deriva_ml_core.training import TrainingReporter
from deriva_ml_lightning.checkpoint_io import is_local
from deriva_ml_lightning.checkpointing import TrainerCheckpoints
from deriva_ml_lightning.speaking import is_tuner_checkpoint

__all__ = ["StartPolicy"]


class StartPolicy:
    """Makes the execution where that is to be done, and shows it to the Trainer's ModelCheckpoints.

    Args:
        reporter: What makes it, or follows it.
        checkpoints: Who shows it.
    """

    def __init__(self, reporter: TrainingReporter, checkpoints: TrainerCheckpoints) -> None:
        self._reporter = reporter
        self._checkpoints = checkpoints
        self._has_begun = False

    def set_up(self, trainer: Any) -> None:
        """A Trainer is set up: on every rank, before the ModelCheckpoints are."""
        self._has_begun = False
        if trainer.state.fn == "fit":
            self._checkpoints.begin(trainer)
        if trainer.state.fn != "fit" or not self._is_deferred:
            self.ensure_begun(trainer)

    def ensure_begun(self, trainer: Any) -> None:
        """Begin, where that is not done: on every rank."""
        if self._has_begun:
            return
        self._has_begun = True
        # the others follow; one whose rank only the Trainer knows would begin a run of its own
        if trainer.is_global_zero or current_rank(os.environ):
            self._reporter.begin()
        if trainer.state.fn == "fit":
            self._checkpoints.set_dirpaths(self._reporter.checkpoint_folder if trainer.is_global_zero else None)
            if self._is_deferred:
                self._checkpoints.share_dirpaths(trainer)

    def load_checkpoint(self, trainer: Any, checkpoint: dict[str, Any], key: str) -> None:
        """A checkpoint is loaded: on every rank.

        Args:
            trainer: What loads it.
            checkpoint: All that is in it.
            key: What our state is called there.
        """
        path = trainer.ckpt_path
        if is_tuner_checkpoint(path):
            return
        state = checkpoint["callbacks"].get(key, {})
        self._reporter.resume_from(state, Path(path) if path and is_local(path) else None)
        if trainer.state.fn == "fit":
            self.ensure_begun(trainer)
            self._checkpoints.update_loaded_dirpaths(checkpoint)

    @property
    def _is_deferred(self) -> bool:
        """Whether the run is not known before a checkpoint is loaded."""
        return self._reporter.has_own_execution and self._reporter.options.resume == "same"
