"""Executions copied from one catalog to another, whole, with what they were made from and what they made.

Every step may be done again, by this machine or another, and does nothing then. What has a key there is found by it: a
workflow by its URL or checksum, a file by its bytes and name, a dataset's version by its number, a link by its ends. A
dataset and an execution are found by the source that their descriptions name, and an execution also by the record that
is kept with it. Record ids are reserved and written down (`Ledger`) before rows are made with them. An execution's copy
is Pending until the last step, which says of it what the original is.

Rows without any key are found by this machine's ledger, by the record, or, in a dataset's version, by what they say:
two machines that bring the same ones for the first time in the same moment may bring them twice.
"""

from __future__ import annotations

from deriva_ml_core.push.context import PushedRow, PushReport
from deriva_ml_core.push.push import push

__all__ = ["PushReport", "PushedRow", "push"]
