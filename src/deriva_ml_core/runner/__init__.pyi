from deriva_ml_core.runner.configs import create_model_config, load_configs
from deriva_ml_core.runner.connection_config import DerivaMLConfig
from deriva_ml_core.runner.model_run import run_model

__all__ = ["create_model_config", "DerivaMLConfig", "load_configs", "run_model"]
