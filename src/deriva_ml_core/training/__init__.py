"""What a training says to its execution, whatever framework trains."""

from __future__ import annotations

from deriva_ml_core.training.checkpoint_download import fetch_checkpoint
from deriva_ml_core.training.checkpoints import Checkpoints
from deriva_ml_core.training.execution_handle import ExecutionFactory
from deriva_ml_core.training.options import TrainingKwargs, TrainingOptions
from deriva_ml_core.training.reporter import TrainingReporter

__all__ = [
    "Checkpoints",
    "ExecutionFactory",
    "TrainingKwargs",
    "TrainingOptions",
    "TrainingReporter",
    "fetch_checkpoint",
]
