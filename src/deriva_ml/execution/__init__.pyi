from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.models import AssetSpec
from deriva_ml_core.runner import create_model_config, load_configs, run_model
from deriva_ml_core.runner.notebook.kernel_api import BaseConfig, notebook_config, run_notebook
from deriva_ml_core.workflow import Workflow

__all__ = [
    "AssetSpec",
    "BaseConfig",
    "create_model_config",
    "Execution",
    "ExecutionConfiguration",
    "load_configs",
    "notebook_config",
    "run_model",
    "run_notebook",
    "Workflow",
]
