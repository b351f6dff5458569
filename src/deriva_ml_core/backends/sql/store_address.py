"""The address of a catalog's object store, which the catalog keeps, so that every client finds the objects."""

from __future__ import annotations

import sqlalchemy as sa

__all__ = ["read_store_address", "write_store_address"]

_NAME = "store"

_SETTINGS = sa.Table(
    "_setting",
    sa.MetaData(),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)


def write_store_address(connection: sa.Connection, address: str) -> None:
    """Write the address of the store to a new catalog.

    Args:
        connection: Connection with an open write transaction.
        address: The address, without a login.
    """
    _SETTINGS.create(connection)
    connection.execute(_SETTINGS.insert().values(name=_NAME, value=address))


def read_store_address(connection: sa.Connection) -> str | None:
    """Return the address of the store, or None if the catalog keeps none.

    Args:
        connection: Connection with an open transaction.
    """
    if not sa.inspect(connection).has_table(_SETTINGS.name):
        return None
    query = sa.select(_SETTINGS.c.value).where(_SETTINGS.c.name == _NAME)
    address: str | None = connection.execute(query).scalar()
    return address
