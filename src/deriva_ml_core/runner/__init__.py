"""Run model functions and notebooks that hydra-zen configures, and record each run as an execution."""

from __future__ import annotations

from deriva_ml_core._lazy import lazy_names

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "deriva_ml_core.runner.configs": (
            "create_model_config",
            "load_configs",
        ),
        "deriva_ml_core.runner.connection_config": ("DerivaMLConfig",),
        "deriva_ml_core.runner.model_run": ("run_model",),
    },
)
