"""Executions, workflows and configurations."""

from __future__ import annotations

from deriva_ml_core._lazy import lazy_names

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "deriva_ml_core.execution": (
            "Execution",
            "ExecutionConfiguration",
        ),
        "deriva_ml_core.models": ("AssetSpec",),
        "deriva_ml_core.runner": (
            "create_model_config",
            "load_configs",
            "run_model",
        ),
        "deriva_ml_core.runner.notebook.kernel_api": (
            "BaseConfig",
            "notebook_config",
            "run_notebook",
        ),
        "deriva_ml_core.workflow": ("Workflow",),
    },
)
