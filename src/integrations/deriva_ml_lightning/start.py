"""When a Trainer's run begins: at once, or when the checkpoint is loaded that names the run to go on with."""

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


STATE_KEY = "DerivaMLCallback"

TUNER_CHECKPOINT_PREFIXES = (".lr_find_", ".scale_batch_size_")
"""How the checkpoints begin to which a search goes back: tuner/lr_finder.py and tuner/batch_size_scaling.py."""


class DuplicateGuard:
    """Whether one callback speaks, and by what name its state is known in checkpoints.

    Args:
        reporter: What it would tell.
        is_autolog: Whether autolog added the callback, and not the user.
    """

    def __init__(self, reporter: TrainingReporter, *, is_autolog: bool) -> None:
        self._reporter = reporter
        self._is_autolog = is_autolog
        self._is_duplicate = False
        self.state_key = f"{STATE_KEY} {id(self)}"  # until the Trainer is known: it refuses two that are called alike

    @property
    def is_duplicate(self) -> bool:
        """Whether another one says the same on the Trainer that it was set up with last."""
        return self._is_duplicate

    def check_trainer(self, trainer: Any, guards: Sequence[DuplicateGuard]) -> bool:
        """Find out whether to speak on a Trainer.

        Args:
            trainer: The Trainer.
            guards: Those of all our callbacks on it, in the order in which they are called.

        Returns:
            Whether it does: not beside what the user gave, where autolog added it; not after one that has the same
            execution, or that makes its own where this one would, too; and not in a Tuner's search before a training.
        """
        place = next(number for number, each in enumerate(guards) if each is self)
        was_silent, self._is_duplicate = self._is_duplicate, self._is_superseded(guards)
        if not self._is_duplicate:
            before = sum(not each._is_superseded(guards) for each in guards[:place])
            self.state_key = f"{STATE_KEY} {before + 1}" if before else STATE_KEY
        elif not (was_silent or self._is_autolog) and trainer.is_global_zero:
            warn("The Trainer has two DerivaMLCallbacks for one execution: the second records nothing.")
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
        return is_before and self._given_execution() is other._given_execution()

    def _given_execution(self) -> object | None:
        return None if self._reporter.has_own_execution else self._reporter.execution


def _is_tuner_search(trainer: Any) -> bool:
    """Whether a Tuner runs the Trainer, for a search that ends before any training."""
    return any(getattr(each, "_early_exit", False) for each in trainer.callbacks)


def is_tuner_checkpoint(path: Any) -> bool:
    """Whether a file is what a search wrote to go back to."""
    return path is not None and Path(path).name.startswith(TUNER_CHECKPOINT_PREFIXES)
