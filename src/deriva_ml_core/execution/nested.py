"""Nests an execution in another and rejects cycles."""

from __future__ import annotations

from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID, MLTable
from deriva_ml_core.errors import ExecutionCycle
from deriva_ml_core.execution.recorded import RecordedExecution

__all__ = ["nest_execution"]


def nest_execution(
    connection: Connection, parent: RecordedExecution, child: RecordedExecution | RID, sequence: int | None
) -> None:
    """Nest an execution in another; see ``Execution.add_nested_execution``."""
    rid = child if isinstance(child, str) else child.execution_rid
    connection.require_row(MLTable.execution, rid)
    ancestors = parent.list_parent_executions(recurse=True)
    if rid in {parent.execution_rid, *(ancestor.execution_rid for ancestor in ancestors)}:
        raise ExecutionCycle(
            f"Execution {rid} cannot be nested in {parent.execution_rid}: they are the same, or {rid} contains it."
        )
    link = {"Execution": parent.execution_rid, "Nested_Execution": rid, "Sequence": sequence}
    connection.catalog.insert(MLTable.nested_execution, [link], skip_existing=True)
