"""Deletion of executions: what goes, the trash, and the objects that nothing names any more."""

from __future__ import annotations

from deriva_ml_core.deletion.deletion import (
    DeletedExecution,
    DeletedRow,
    Deletion,
    delete_execution,
    list_deleted_executions,
    restore_deleted_execution,
)

__all__ = [
    "DeletedExecution",
    "DeletedRow",
    "Deletion",
    "delete_execution",
    "list_deleted_executions",
    "restore_deleted_execution",
]
