"""Baseline of catalog calls: a single SQLite table through SQLAlchemy Core with the same durability."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

__all__ = ["BaselineTable"]


class BaselineTable:
    """A table with the columns, the primary key and the time index of the table Execution.

    Args:
        file: The database file to create.
    """

    def __init__(self, file: Path) -> None:
        self._engine = sa.create_engine(f"sqlite:///{file}")
        sa.event.listen(self._engine, "connect", _make_durable)
        names = ("RID", "RCT", "RMT", "RCB", "RMB", "Workflow", "Description", "Duration", "Status", "Status_Detail")
        columns = [sa.Column(name, sa.Text, primary_key=name == "RID") for name in names]
        self._rows = sa.Table("Execution", sa.MetaData(), *columns, sa.Index("by_time", "RCT"))
        self._rows.metadata.create_all(self._engine)

    def insert(self, rows: Sequence[dict[str, Any]]) -> None:
        """Insert rows in one transaction."""
        with self._engine.begin() as connection:
            connection.execute(self._rows.insert(), list(rows))

    def select(self, rid: str) -> list[dict[str, Any]]:
        """Return the rows with an RID."""
        with self._engine.connect() as connection:
            result = connection.execute(sa.select(self._rows).where(self._rows.c["RID"] == rid))
            return [dict(row) for row in result.mappings()]

    def newest(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest rows."""
        with self._engine.connect() as connection:
            result = connection.execute(sa.select(self._rows).order_by(self._rows.c.RCT.desc()).limit(limit))
            return [dict(row) for row in result.mappings()]

    def update(self, rid: str, **values: str) -> None:
        """Update one row in one transaction."""
        with self._engine.begin() as connection:
            connection.execute(self._rows.update().where(self._rows.c["RID"] == rid).values(values))


def _make_durable(connection: Any, _: object) -> None:
    for setting in ("journal_mode = WAL", "synchronous = FULL"):
        connection.execute(f"PRAGMA {setting}")
