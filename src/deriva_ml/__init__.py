"""DerivaML: provenance for machine-learning runs. This package only re-exports names of `deriva_ml_core`."""

from __future__ import annotations

from deriva_ml_core._lazy import lazy_names

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "deriva_ml_core.client": ("DerivaML",),
        "deriva_ml_core.definitions": ("Status",),
        "deriva_ml_core.errors": (
            "DerivaMLException",
            "DerivaMLWarning",
        ),
        "deriva_ml_core.execution": (
            "Execution",
            "ExecutionConfiguration",
        ),
        "deriva_ml_core.models": (
            "AssetSpec",
            "DatasetSpec",
        ),
        "deriva_ml_core.runner": ("DerivaMLConfig",),
        "deriva_ml_core.workflow": ("Workflow",),
    },
)
