"""Recording of a training run, independent of the framework."""

from __future__ import annotations

from deriva_ml_core._deprecation import deprecated_names
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

__getattr__ = deprecated_names(__name__, {"Opening": "ExecutionFactory", "OptionWords": "TrainingKwargs"})
