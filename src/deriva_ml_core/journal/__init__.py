"""The journal: the append-only event file of an execution and the state it reduces to."""

from __future__ import annotations

from deriva_ml_core.journal.journal import Journal
from deriva_ml_core.journal.process_identity import ProcessIdentity
from deriva_ml_core.journal.state import ExecutionState

__all__ = ["Journal", "ProcessIdentity", "ExecutionState"]
