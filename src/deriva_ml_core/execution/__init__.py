"""Executions: configuration, live runs, and recorded runs."""

from __future__ import annotations

from deriva_ml_core._lazy import lazy_names

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "deriva_ml_core.execution.configuration": ("ExecutionConfiguration",),
        "deriva_ml_core.execution.execution": ("Execution",),
        "deriva_ml_core.execution.recorded": ("RecordedExecution",),
    },
)
