"""Whether a callback has to speak at all: of several on one Trainer, and in fits that only try something out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deriva_ml_core.notices import warn
from deriva_ml_core.training import TrainingReporter

__all__ = ["DuplicateGuard", "is_tuner_checkpoint"]

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
