"""When a Trainer's run begins: at once, or when the checkpoint is loaded that names the run to go on with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from deriva_ml_core.ranks import present_rank
from deriva_ml_core.training import TrainingReporter
from deriva_ml_lightning.checkpoint_io import is_local
from deriva_ml_lightning.checkpointing import Checkpointing
from deriva_ml_lightning.speaking import is_trial_checkpoint

__all__ = ["Beginning"]


class Beginning:
    """Makes the execution where that is to be done, and shows it to the Trainer's ModelCheckpoints.

    Args:
        reporter: What makes it, or follows it.
        checkpointing: Who shows it.
    """

    def __init__(self, reporter: TrainingReporter, checkpointing: Checkpointing) -> None:
        self._reporter = reporter
        self._checkpointing = checkpointing
        self._is_done = False

    def set_up(self, trainer: Any) -> None:
        """A Trainer is set up: on every rank, before the ModelCheckpoints are."""
        self._is_done = False
        if trainer.state.fn == "fit":
            self._checkpointing.begin(trainer)
        if trainer.state.fn != "fit" or not self._is_late:
            self.make_sure(trainer)

    def make_sure(self, trainer: Any) -> None:
        """Begin, where that is not done: on every rank."""
        if self._is_done:
            return
        self._is_done = True
        # the others follow; one whose rank only the Trainer knows would begin a run of its own
        if trainer.is_global_zero or present_rank(os.environ):
            self._reporter.begin()
        if trainer.state.fn == "fit":
            self._checkpointing.direct_theirs(self._reporter.checkpoint_folder if trainer.is_global_zero else None)
            if self._is_late:
                self._checkpointing.share_folders(trainer)

    def load(self, trainer: Any, checkpoint: dict[str, Any], key: str) -> None:
        """A checkpoint is loaded: on every rank.

        Args:
            trainer: What loads it.
            checkpoint: All that is in it.
            key: What our state is called there.
        """
        path = trainer.ckpt_path
        if is_trial_checkpoint(path):
            return
        state = checkpoint["callbacks"].get(key, {})
        self._reporter.resume_from(state, Path(path) if path and is_local(path) else None)
        if trainer.state.fn == "fit":
            self.make_sure(trainer)
            self._checkpointing.accept_folders(checkpoint)

    @property
    def _is_late(self) -> bool:
        """Whether the run is not known before a checkpoint is loaded."""
        return self._reporter.own and self._reporter.options.resume == "same"
