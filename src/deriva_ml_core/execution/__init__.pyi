from deriva_ml_core.execution.configuration import ExecutionConfiguration
from deriva_ml_core.execution.execution import Execution
from deriva_ml_core.execution.recorded import RecordedExecution

__all__ = ["Execution", "ExecutionConfiguration", "RecordedExecution"]
