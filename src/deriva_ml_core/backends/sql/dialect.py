"""What differs between the SQL databases: types, names, triggers and errors."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa

from deriva_ml_core.errors import ConfigurationError
from deriva_ml_core.schema import Column, Table

__all__ = ["VALID_UNTIL", "IntegrityFault", "SqlDialect", "StoredTable", "dump_json", "quote_text"]

VALID_UNTIL = "__until"
"""Column of a history table with the time until which the row was valid."""


class StoredTable(NamedTuple):
    """A table in the database.

    Args:
        name: Its name in the schema.
        rows: The SQL table of the current rows.
        history: The SQL table of the rows before each update and deletion.
    """

    name: str
    rows: sa.Table
    history: sa.Table


@dataclass(frozen=True, slots=True)
class IntegrityFault:
    """Why a database refused rows.

    Args:
        kind: What is wrong.
        columns: The columns of the key that is not unique, or the column whose value is missing or has another type;
            empty if the database does not report them.
    """

    kind: Literal["duplicate", "unknown reference", "missing value", "wrong type"]
    columns: tuple[str, ...] = ()


class SqlDialect(ABC):
    """The SQL of one kind of database. One connection is passed to each method that runs statements."""

    sqlalchemy: sa.Dialect
    """Compiles statements for the driver, with positional parameters."""

    table_options: Mapping[str, Any]
    """Arguments of each ``sqlalchemy.Table``."""

    adds_references: bool
    """Whether foreign keys are added after all tables, since a table cannot refer to one that does not exist yet."""

    write_errors: tuple[type[sa.exc.DBAPIError], ...]
    """What SQLAlchemy raises for rows that the database refuses; `describe_fault` explains it."""

    @abstractmethod
    def identifier(self, name: str) -> str:
        """Return the name in the database of a table, column or index: the same, unless the database limits it."""

    @abstractmethod
    def key_name(self, table: Table, columns: Sequence[str]) -> str | None:
        """Return the name of a key's constraint; None if the database needs no name."""

    @abstractmethod
    def text_type(self) -> sa.types.TypeEngine[Any]:
        """Return the type of texts, whose order is that of their bytes in UTF-8."""

    @abstractmethod
    def time_type(self) -> sa.types.TypeEngine[Any]:
        """Return the type of the system columns with times, which are ISO 8601 texts with microseconds in rows."""

    @abstractmethod
    def column_type(self, type_name: str) -> sa.types.TypeEngine[Any]:
        """Return the type of a column, by its name in the schema."""

    @abstractmethod
    def type_check(self, column: Column) -> sa.CheckConstraint | None:
        """Return the constraint that refuses values of another type; None if the database refuses them itself."""

    @abstractmethod
    def compile_triggers(self, table: StoredTable) -> Iterator[str]:
        """Yield the statements that create the triggers which copy changed rows to the history."""

    @abstractmethod
    def compile_dropped_triggers(self, table: Table) -> Iterator[str]:
        """Yield the statements that drop those triggers, if they exist."""

    @abstractmethod
    def in_values(self, column: sa.ColumnElement[Any], values: Collection[Any]) -> sa.ColumnElement[bool]:
        """Return the condition that a column has one of any number of values, as the driver takes them."""

    @abstractmethod
    def avoid_index(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Return a column of terms, which many rows share, so that the database prefers the indexes of others."""

    @abstractmethod
    def locate(
        self, connection: sa.Connection, tables: Sequence[StoredTable], rids: Collection[str], time: str | None
    ) -> Iterable[Sequence[str]]:
        """Return RID and table name of those RIDs that name a row in the tables, now or at a time."""

    @abstractmethod
    def fetch_rows(
        self, connection: sa.Connection, query: sa.Select[Any] | sa.CompoundSelect[Any]
    ) -> Iterable[Sequence[Any]]:
        """Run a query and return its rows."""

    @abstractmethod
    def describe_fault(self, error: sa.exc.DBAPIError, table: Table) -> IntegrityFault:
        """Return why the database refused rows of a table."""

    def list_index_names(self, connection: sa.Connection) -> frozenset[str]:  # noqa: ARG002
        """Return the names of the existing indexes if queries choose among them; empty if the database chooses."""
        return frozenset()

    def quote(self, name: str) -> str:
        """Quote the name of a table or column for SQL."""
        return self.sqlalchemy.identifier_preparer.quote_identifier(self.identifier(name))


def quote_text(text: str) -> str:
    """Quote a text for SQL."""
    return "'" + text.replace("'", "''") + "'"


def dump_json(value: Any) -> str:
    """Return a value as JSON.

    Raises:
        ConfigurationError: It is no JSON value.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{value!r} cannot be stored as JSON: {error}.") from error
