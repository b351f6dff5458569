"""What happened to an execution, line by line: the file, the lines, and the process that holds it."""

from __future__ import annotations

from deriva_ml_core.journal.file import Journal
from deriva_ml_core.journal.lease import ProcessIdentity
from deriva_ml_core.journal.story import ExecutionState

__all__ = ["Journal", "ProcessIdentity", "ExecutionState"]
