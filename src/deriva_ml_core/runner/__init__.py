"""Runs of model functions and notebooks, configured by hydra-zen and recorded without a line in them."""

from __future__ import annotations

from deriva_ml_core.runner.configs import create_model_config, load_configs
from deriva_ml_core.runner.connection_config import DerivaMLConfig
from deriva_ml_core.runner.run_model import run_model

__all__ = ["DerivaMLConfig", "create_model_config", "load_configs", "run_model"]
