"""Whether a callback has to speak at all: of several on one Trainer, and in fits that only try something out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deriva_ml_core.notices import warn
from deriva_ml_core.training import TrainingReporter

__all__ = ["Voice", "is_trial_checkpoint"]

NAME = "DerivaMLCallback"

TRIALS = (".lr_find_", ".scale_batch_size_")
"""How the checkpoints begin to which a search goes back: tuner/lr_finder.py and tuner/batch_size_scaling.py."""


class Voice:
    """Whether one callback speaks, and by what name its state is known in checkpoints.

    Args:
        reporter: What it would tell.
        added: Whether autolog added the callback, and not the user.
    """

    def __init__(self, reporter: TrainingReporter, *, added: bool) -> None:
        self._reporter = reporter
        self._added = added
        self._is_silent = False
        self.key = f"{NAME} {id(self)}"  # until the Trainer is known: it refuses two that are called alike

    @property
    def is_silent(self) -> bool:
        """Whether another one says the same on the Trainer that it was set up with last."""
        return self._is_silent

    def set_up(self, trainer: Any, voices: Sequence[Voice]) -> bool:
        """Find out whether to speak on a Trainer.

        Args:
            trainer: The Trainer.
            voices: Those of all our callbacks on it, in the order in which they are called.

        Returns:
            Whether it does: not beside what the user gave, where autolog added it; not after one that has the same
            execution, or that makes its own where this one would, too; and not in a Tuner's search before a training.
        """
        place = next(number for number, each in enumerate(voices) if each is self)
        was_silent, self._is_silent = self._is_silent, self._has_rival(voices)
        if not self._is_silent:
            before = sum(not each._has_rival(voices) for each in voices[:place])
            self.key = f"{NAME} {before + 1}" if before else NAME
        elif not (was_silent or self._added) and trainer.is_global_zero:
            warn("The Trainer has two DerivaMLCallbacks for one execution: the second records nothing.")
        return not self._is_silent and not _is_trial(trainer)

    def _has_rival(self, voices: Sequence[Voice]) -> bool:
        is_before = True
        for each in voices:
            if each is self:
                is_before = False
            elif self._yields_to(each, is_before=is_before):
                return True
        return False

    def _yields_to(self, other: Voice, *, is_before: bool) -> bool:
        if self._added != other._added:
            return self._added
        return is_before and self._given() is other._given()

    def _given(self) -> object | None:
        return None if self._reporter.own else self._reporter.execution


def _is_trial(trainer: Any) -> bool:
    """Whether a Tuner runs the Trainer, for a search that ends before any training."""
    return any(getattr(each, "_early_exit", False) for each in trainer.callbacks)


def is_trial_checkpoint(path: Any) -> bool:
    """Whether a file is what a search wrote to go back to."""
    return path is not None and Path(path).name.startswith(TRIALS)
