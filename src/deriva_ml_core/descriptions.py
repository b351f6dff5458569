"""Descriptions of recorded rows, which users change afterwards."""

from __future__ import annotations

from deriva_ml_core._text import escape_surrogates
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID
from deriva_ml_core.errors import ConfigurationError, UnknownRID

__all__ = ["write_description"]


def write_description(connection: Connection, table: str, rid: RID, text: object) -> str:
    """Change the description of a row.

    Args:
        connection: The catalog.
        table: The row's table.
        rid: The row's RID.
        text: The new description; an empty one removes it.

    Returns:
        The description as it was written: secrets are redacted.

    Raises:
        ConfigurationError: The description is no text.
        UnknownRID: The row was deleted.
    """
    from deriva_ml_core.redaction import redact_text  # many patterns to compile

    if not isinstance(text, str):
        raise ConfigurationError(f"A description must be a text, not {type(text).__name__}.")
    description = redact_text(escape_surrogates(text))
    if not connection.catalog.update(table, [{"RID": rid, "Description": description}]):
        raise UnknownRID(f"{table} {rid} was deleted from {connection.catalog.name}, so it cannot be described.")
    return description
