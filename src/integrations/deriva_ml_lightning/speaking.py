"""Whether a callback has to speak at all: of several on one Trainer, and in fits that only try something out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

__all__ = ["Speaker", "is_trial", "is_trial_checkpoint", "rival_of"]

TRIALS = (".lr_find_", ".scale_batch_size_")
"""How the checkpoints begin to which a search goes back: tuner/lr_finder.py and tuner/batch_size_scaling.py."""


class Speaker(Protocol):
    """A callback that records."""

    added: bool
    """Whether autolog added it, and not the user."""

    @property
    def given(self) -> object | None:
        """The execution that the user gave it; None where it makes its own."""


def rival_of(callback: Speaker, callbacks: Sequence[Speaker]) -> Speaker | None:
    """The callback that records what another one would record, too, and so in its place.

    Args:
        callback: The one that may have to be silent.
        callbacks: All of our kind on its Trainer, in the order in which they are called.

    Returns:
        What the user gave, for one that autolog added; an earlier one, where both have the same execution or both would
        make their own; None for one that speaks.
    """
    place = next(number for number, each in enumerate(callbacks) if each is callback)
    for number, each in enumerate(callbacks):
        if callback.added and not each.added:
            return each
        if number < place and each.added == callback.added and each.given is callback.given:
            return each
    return None


def is_trial(trainer: Any) -> bool:
    """Whether a Tuner runs the Trainer, for a search that ends before any training."""
    return any(getattr(each, "_early_exit", False) for each in trainer.callbacks)


def is_trial_checkpoint(path: Any) -> bool:
    """Whether a file is what a search wrote to go back to."""
    return path is not None and Path(path).name.startswith(TRIALS)
