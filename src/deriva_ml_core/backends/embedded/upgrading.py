"""What each version of the embedded catalog added to the one before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

import sqlalchemy as sa

from deriva_ml_core.backends.embedded import writing
from deriva_ml_core.backends.embedded.reading import read_model
from deriva_ml_core.backends.embedded.tables import MappedTable
from deriva_ml_core.backends.embedded.tabling import add_tables
from deriva_ml_core.definitions import MLTable, MLVocab
from deriva_ml_core.errors import DuplicateRow
from deriva_ml_core.schema import Column, ForeignKey, Table

__all__ = ["MIGRATIONS", "Migration"]

Migration = Callable[[sa.Connection], None]
"""Brings a catalog to the next version, within the transaction of the connection."""

VERSION_2_ASSET_TYPES: Mapping[str, str] = {
    "Best_Checkpoint": "The best checkpoint of a training, by the metric that it watched",
    "Last_Checkpoint": "The last checkpoint of a training",
    "Training_Curves": "A picture of a training's metrics by epoch",
}


def _migrate_to_2(connection: sa.Connection) -> None:
    """Tell checkpoints apart; a term of that name that somebody has added already stays as it is."""
    tables = {name: MappedTable(table) for name, table in read_model(connection).tables.items()}
    rows = [{"Name": name, "Description": description} for name, description in VERSION_2_ASSET_TYPES.items()]
    writing.insert(connection, tables[MLVocab.asset_type], tables, rows, skip_existing=True)


VERSION_3_METRICS_TABLE = Table(
    MLTable.execution_metric,
    (
        Column("Execution", nullok=False),
        Column("Stage", nullok=False, comment="fit, validate, test or predict"),
        Column("Name", nullok=False),
        Column("Last", "float8", comment="The newest value; empty where that is no finite number"),
        Column("Best", "float8", comment="The best finite value"),
        Column("Best_At", "int4", comment="The epoch of the best value, from 1"),
        Column("Larger_Is_Better", "boolean", nullok=False),
    ),
    keys=(("Execution", "Stage", "Name"),),
    foreign_keys=(ForeignKey("Execution", MLTable.execution, cascade=True),),
    comment="Where each metric of an execution stands, so that executions can be ordered by it",
)
"""As version 3 had it, whatever later ones make of it."""


def _migrate_to_3(connection: sa.Connection) -> None:
    """Let executions be ordered by their metrics; a table of that name that somebody has made stays as it is."""
    with suppress(DuplicateRow):
        add_tables(connection, [VERSION_3_METRICS_TABLE])


MIGRATIONS: tuple[Migration, ...] = (_migrate_to_2, _migrate_to_3)
"""What brings a catalog from version 1 to 2, from 2 to 3, and so on: one for each version before the present one."""
