"""Copy executions from one catalog to another, with their inputs and outputs.

Each step can be repeated, by this machine or another, and then changes nothing. Rows with a key are matched by it at
the target: a workflow by URL or checksum, a file by its bytes and name, a dataset version by its number, a link by its
ends. Datasets and executions are matched by the source in their description, and executions also by the record that is
stored with the copy. RIDs are reserved and saved (`Ledger`) before rows are created with them. A copied execution is
Pending until the last step sets its final status.

Rows without a key are matched by this machine's ledger, by the record, or, in a dataset version, by their values. Two
machines that push the same rows for the first time at the same moment may therefore create them twice.
"""

from __future__ import annotations

from deriva_ml_core.push.context import PushedRow, PushReport
from deriva_ml_core.push.push import push

__all__ = ["PushReport", "PushedRow", "push"]
