"""Fits that only try something out: those in which a Tuner looks for a learning rate or a batch size."""

from __future__ import annotations

from typing import Any

__all__ = ["is_trial", "is_trial_checkpoint"]

TRIALS = (".lr_find_", ".scale_batch_size_")
"""How the checkpoints begin to which a search goes back: tuner/lr_finder.py and tuner/batch_size_scaling.py."""


def is_trial(trainer: Any) -> bool:
    """Whether a Tuner runs the Trainer, for a search that ends before any training."""
    return any(getattr(each, "_early_exit", False) for each in trainer.callbacks)


def is_trial_checkpoint(name: str) -> bool:
    """Whether a file is what a search wrote to go back to."""
    return name.startswith(TRIALS)
