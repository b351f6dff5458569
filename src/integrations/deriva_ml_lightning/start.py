"""Start of a Trainer's run: at setup, or when a checkpoint is loaded that names the run to resume."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deriva_ml_core.distributed import current_rank
from deriva_ml_core.training import TrainingReporter
from deriva_ml_core.user_warnings import warn
from deriva_ml_lightning.checkpoint_io import is_local
from deriva_ml_lightning.checkpoints import TrainerCheckpoints

__all__ = ["DuplicateGuard", "StartPolicy", "is_tuner_checkpoint"]


class StartPolicy:
    """Decides when the execution is created, and passes its folder to Lightning's default ModelCheckpoint.

    Args:
        reporter: Reporter of the training, which creates the execution.
        checkpoints: Checkpoints of the Trainer.
    """

    def __init__(self, reporter: TrainingReporter, checkpoints: TrainerCheckpoints) -> None:
        self._reporter = reporter
        self._checkpoints = checkpoints
        self._has_begun = False

    def set_up(self, trainer: Any) -> None:
        """Set up a Trainer, on every rank, before its ModelCheckpoints are set up."""
        self._has_begun = False
        if trainer.state.fn == "fit":
            self._checkpoints.begin(trainer)
        if trainer.state.fn != "fit" or not self._is_deferred:
            self.ensure_begun(trainer)

    def ensure_begun(self, trainer: Any) -> None:
        """Begin the execution, on every rank, unless that is done."""
        if self._has_begun:
            return
        self._has_begun = True
        # a rank above 0 that only the Trainer knows would create an execution of its own, so it does not begin
        if trainer.is_global_zero or current_rank(os.environ):
            self._reporter.begin(for_fit=trainer.state.fn == "fit")
        if trainer.state.fn == "fit":
            self._checkpoints.set_dirpaths(self._reporter.checkpoint_folder if trainer.is_global_zero else None)
            if self._is_deferred:
                self._checkpoints.share_dirpaths(trainer)

    def load_checkpoint(self, trainer: Any, checkpoint: dict[str, Any], key: str) -> None:
        """Resume the run of a loaded checkpoint, on every rank.

        Args:
            trainer: Trainer that loads the checkpoint.
            checkpoint: Content of the checkpoint.
            key: Key of the callback's state in it.
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
        """Whether the execution is created only after a checkpoint is loaded."""
        return self._reporter.has_own_execution and self._reporter.options.resume == "same"


STATE_KEY = "DerivaMLCallback"

TUNER_CHECKPOINT_PREFIXES = (".lr_find_", ".scale_batch_size_")
"""Prefixes of the checkpoints that a Tuner restores after a search: tuner/lr_finder.py, tuner/batch_size_scaling.py."""


class DuplicateGuard:
    """Decides whether a callback records or duplicates another one, and the key of its state in checkpoints.

    Args:
        reporter: Reporter of the callback.
        is_autolog: Whether `autolog` added the callback, and not the user.
    """

    def __init__(self, reporter: TrainingReporter, *, is_autolog: bool) -> None:
        self._reporter = reporter
        self._is_autolog = is_autolog
        self._is_duplicate = False
        self.state_key = f"{STATE_KEY} {id(self)}"  # unique until the Trainer is known, which refuses equal keys

    @property
    def is_duplicate(self) -> bool:
        """Whether another callback of the last Trainer records the same execution."""
        return self._is_duplicate

    def check_trainer(self, trainer: Any, guards: Sequence[DuplicateGuard]) -> bool:
        """Return whether the callback records a Trainer.

        Args:
            trainer: The Trainer.
            guards: Guards of all DerivaMLCallbacks of the Trainer, in call order.

        Returns:
            False if `autolog` added the callback and the user passed one; if an earlier callback has the same
            execution, or both create their own; and during a Tuner's search before a training.
        """
        index = next(number for number, each in enumerate(guards) if each is self)
        was_duplicate, self._is_duplicate = self._is_duplicate, self._is_superseded(guards)
        if not self._is_duplicate:
            earlier = sum(not each._is_superseded(guards) for each in guards[:index])
            self.state_key = f"{STATE_KEY} {earlier + 1}" if earlier else STATE_KEY
        elif not (was_duplicate or self._is_autolog) and trainer.is_global_zero:
            warn("The Trainer has two DerivaMLCallbacks for one execution; only the first records it.")
        return not self._is_duplicate and not _is_tuner_search(trainer)

    def _is_superseded(self, guards: Sequence[DuplicateGuard]) -> bool:
        is_before = True
        for each in guards:
            if each is self:
                is_before = False
            elif self._is_superseded_by(each, is_before=is_before):
                return True
        return False

    def _is_superseded_by(self, other: DuplicateGuard, *, is_before: bool) -> bool:
        if self._is_autolog != other._is_autolog:
            return self._is_autolog
        return is_before and self._user_execution() is other._user_execution()

    def _user_execution(self) -> object | None:
        return None if self._reporter.has_own_execution else self._reporter.execution


def _is_tuner_search(trainer: Any) -> bool:
    """Whether a Tuner runs the Trainer for a search before the training."""
    return any(getattr(each, "_early_exit", False) for each in trainer.callbacks)


def is_tuner_checkpoint(path: Any) -> bool:
    """Whether a file is the checkpoint that a Tuner restores after a search."""
    return path is not None and Path(path).name.startswith(TUNER_CHECKPOINT_PREFIXES)
