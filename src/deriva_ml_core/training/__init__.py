"""What a training says to its execution, whatever framework trains."""

from __future__ import annotations

from deriva_ml_core.training.reporter import TrainingReporter

__all__ = ["TrainingReporter"]
