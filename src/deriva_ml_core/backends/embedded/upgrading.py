"""What each version of the embedded catalog added to the one before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import sqlalchemy as sa

from deriva_ml_core.backends.embedded import writing
from deriva_ml_core.backends.embedded.reading import read_model
from deriva_ml_core.backends.embedded.tables import MappedTable
from deriva_ml_core.definitions import MLVocab

__all__ = ["MIGRATIONS", "Migration"]

Migration = Callable[[sa.Connection], None]
"""Brings a catalog to the next version, within the transaction of the connection."""

ASSET_TYPES: Mapping[str, str] = {
    "Best_Checkpoint": "The best checkpoint of a training, by the metric that it watched",
    "Last_Checkpoint": "The last checkpoint of a training",
    "Training_Curves": "A picture of a training's metrics by epoch",
}


def _to_2(connection: sa.Connection) -> None:
    """Tell checkpoints apart; a term of that name that somebody has added already stays as it is."""
    tables = {name: MappedTable(table) for name, table in read_model(connection).tables.items()}
    rows = [{"Name": name, "Description": description} for name, description in ASSET_TYPES.items()]
    writing.insert(connection, tables[MLVocab.asset_type], tables, rows, skip_existing=True)


MIGRATIONS: tuple[Migration, ...] = (_to_2,)
"""What brings a catalog from version 1 to 2, from 2 to 3, and so on: one for each version before the present one."""
