"""What happened to an execution, line by line: the file, the lines, and the process that holds it."""

from __future__ import annotations

from deriva_ml_core.journal.journal import Journal
from deriva_ml_core.journal.process_identity import ProcessIdentity
from deriva_ml_core.journal.state import ExecutionState

__all__ = ["Journal", "ProcessIdentity", "ExecutionState"]
