"""What a push did: which rows are whose copies, and what was new there."""

from __future__ import annotations

from deriva_ml_core.definitions import RID
from deriva_ml_core.models import FrozenModel

__all__ = ["PushReport", "PushedRow"]


class PushedRow(FrozenModel):
    """A row and its copy.

    Args:
        table: The table of both.
        source: The record id where it was copied from.
        target: The record id of the copy.
        new: Whether this push made the copy; else it was there.
    """

    table: str
    source: RID
    target: RID
    new: bool


class PushReport(FrozenModel):
    """What one push did.

    Args:
        source: The citation of the execution.
        target: The citation of its copy.
        execution: The record id of the copy.
        rows: Every row that was copied, with its copy, in the order in which they were settled.
        tables: The tables that were made there.
        terms: The terms that were added there, each after its vocabulary: ``Asset_Type: Mask``.
        files: How many files were sent; those that were there already are not counted.
        bytes: Their bytes.
        unsent: Files that the executions registered and never uploaded, so that they are not copied.
        notes: What could not be copied as it is, or differs there.
    """

    source: str
    target: str
    execution: RID
    rows: tuple[PushedRow, ...] = ()
    tables: tuple[str, ...] = ()
    terms: tuple[str, ...] = ()
    files: int = 0
    bytes: int = 0
    unsent: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def rids(self) -> dict[RID, RID]:
        """The record id of the copy of each row."""
        return {row.source: row.target for row in self.rows}

    @property
    def new(self) -> tuple[PushedRow, ...]:
        """The copies that this push made."""
        return tuple(row for row in self.rows if row.new)
