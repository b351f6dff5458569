from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import DerivaMLException, DerivaMLWarning
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.models import AssetSpec, DatasetSpec
from deriva_ml_core.runner import DerivaMLConfig
from deriva_ml_core.workflow import Workflow

__all__ = [
    "AssetSpec",
    "DatasetSpec",
    "DerivaML",
    "DerivaMLConfig",
    "DerivaMLException",
    "DerivaMLWarning",
    "Execution",
    "ExecutionConfiguration",
    "Status",
    "Workflow",
]
