"""The SQL of SQLite."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.sql.elements import UnaryExpression
from sqlalchemy.sql.operators import custom_op

from deriva_ml_core.backends.sql.dialect import (
    VALID_UNTIL,
    IntegrityFault,
    SqlDialect,
    StoredTable,
    dump_json,
    quote_text,
)
from deriva_ml_core.schema import Column, Table

__all__ = ["SQLITE", "HintCompiler", "SqliteDialect", "error_code"]

MAX_TABLES_PER_QUERY = 200
"""Tables in one statement, each with its history. SQLite allows 500 terms (https://www.sqlite.org/limits.html)."""


class IsoTime(sa.types.TypeDecorator[str]):
    """ISO 8601 text. Dates and times are accepted, and times are stored in UTC."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> Any:  # noqa: ARG002
        if isinstance(value, datetime):
            return value.astimezone(UTC).isoformat(timespec="microseconds")
        return value.isoformat() if isinstance(value, date) else value


class JsonText(sa.types.TypeDecorator[Any]):
    """Value stored as JSON text."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else dump_json(value)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Any:  # noqa: ARG002
        try:
            return None if value is None else json.loads(value)
        except ValueError:  # written by another program; the row must stay readable
            return value


class ArrayText(JsonText):
    """Array stored as JSON text. An empty array is null, as at a snapshot of a Deriva server."""

    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> str | None:
        return super().process_bind_param(None if value == [] else value, dialect)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Any:
        return super().process_result_value(value, dialect) or None


class IntegerBoolean(sa.types.TypeDecorator[bool]):
    """Boolean stored as 1 or 0."""

    impl = sa.Integer
    cache_ok = True

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> bool | None:  # noqa: ARG002
        return None if value is None else bool(value)


class UnconvertedReal(sa.REAL[float]):
    """Number without conversion by SQLAlchemy. A check constraint refuses other types."""

    def bind_processor(self, dialect: sa.Dialect) -> None:  # noqa: ARG002
        return None


class HintCompiler(SQLiteCompiler):
    """Compiler that writes the hint of a table, such as ``INDEXED BY``, after its name."""

    def get_from_hint_text(self, table: sa.FromClause, text: str | None) -> str | None:  # noqa: ARG002
        return text


class SqliteDialect(SqlDialect):
    """The SQL of SQLite, whose columns take values of any type."""

    sqlalchemy = sqlite.dialect(paramstyle="qmark")
    table_options: Mapping[str, Any] = {"sqlite_with_rowid": False}
    adds_references = False
    write_errors = (sa.exc.IntegrityError,)

    def identifier(self, name: str) -> str:
        return name

    def key_name(self, table: Table, columns: Sequence[str]) -> None:  # noqa: ARG002
        return None

    def text_type(self) -> sa.types.TypeEngine[Any]:
        return sa.Text()

    def time_type(self) -> sa.types.TypeEngine[Any]:
        return sa.Text()

    def column_type(self, type_name: str) -> sa.types.TypeEngine[Any]:
        match type_name:
            case "int4" | "int8" | "int2":
                return sa.Integer()
            case "float8" | "float4":
                return UnconvertedReal()
            case "boolean":
                return IntegerBoolean()
            case "date" | "timestamptz":
                return IsoTime()
            case "jsonb" | "json":
                return JsonText()
            case "text[]":
                return ArrayText()
            case _:
                return sa.Text()

    def type_check(self, column: Column) -> sa.CheckConstraint | None:
        # STRICT tables need SQLite 3.37 to be read
        kind = {"INTEGER": "integer", "REAL": "real"}.get(self.column_type(column.type).compile(self.sqlalchemy))
        if kind is None:
            return None
        name = self.quote(column.name)
        allowed = f"{name} IN (0, 1)" if column.type == "boolean" else f"typeof({name}) = '{kind}'"
        return sa.CheckConstraint(sa.text(f"{name} IS NULL OR {allowed}"), name=column.name)

    def compile_triggers(self, table: StoredTable) -> Iterator[str]:
        history = table.history
        names = [self.quote(column.name) for column in history.c if column.name != VALID_UNTIL]
        target = f"{self.quote(history.name)} ({', '.join((*names, self.quote(VALID_UNTIL)))})"
        old = ", ".join(f"OLD.{name}" for name in names)
        # triggers also record rows that are deleted by cascade
        for event, condition, until in (
            ("UPDATE", "OLD.RMT <> NEW.RMT", "NEW.RMT"),
            ("DELETE", "OLD.RMT < (SELECT time FROM _clock)", "(SELECT time FROM _clock)"),
        ):
            yield (
                f"CREATE TRIGGER {self._trigger_name(table.name, event)} AFTER {event} ON {self.quote(table.name)} "  # noqa: S608
                f"WHEN {condition} BEGIN INSERT INTO {target} VALUES ({old}, {until}); END"
            )

    def compile_dropped_triggers(self, table: Table) -> Iterator[str]:
        for event in ("UPDATE", "DELETE"):
            yield f"DROP TRIGGER IF EXISTS {self._trigger_name(table.name, event)}"

    def _trigger_name(self, table: str, event: str) -> str:
        return self.quote(f"{table}__{event.lower()}")

    def in_values(self, column: sa.ColumnElement[Any], values: Collection[Any]) -> sa.ColumnElement[bool]:
        # one JSON parameter, because SQLite limits parameters
        listed = sa.func.json_each(json.dumps(list(values))).table_valued("value")
        return column.in_(sa.select(listed.c.value))

    def avoid_index(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        return UnaryExpression(column, operator=custom_op("+"), type_=column.type)

    def locate(
        self, connection: sa.Connection, tables: Sequence[StoredTable], rids: Collection[str], time: str | None
    ) -> Iterable[Sequence[str]]:
        lookups = [self._lookup_sql(table, at_snapshot=time is not None) for table in tables]
        parameters = (json.dumps(list(rids)),) if time is None else (json.dumps(list(rids)), time)
        for start in range(0, len(lookups), MAX_TABLES_PER_QUERY):
            query = " UNION ALL ".join(lookups[start : start + MAX_TABLES_PER_QUERY])
            yield from connection.exec_driver_sql(query, parameters)

    def _lookup_sql(self, table: StoredTable, *, at_snapshot: bool) -> str:
        """Return the statement that selects the existing RIDs of the JSON list ``?1``, now or at the time ``?2``."""
        in_list = "WHERE RID IN (SELECT value FROM json_each(?1))"
        name = quote_text(table.name)
        now = f"SELECT RID, {name} FROM {self.quote(table.rows.name)} {in_list}"  # noqa: S608
        if not at_snapshot:
            return now
        return (
            f"{now} AND RMT <= ?2 UNION ALL SELECT RID, {name} FROM {self.quote(table.history.name)} "  # noqa: S608
            f"{in_list} AND RMT <= ?2 AND {VALID_UNTIL} > ?2"
        )

    def fetch_rows(
        self, connection: sa.Connection, query: sa.Select[Any] | sa.CompoundSelect[Any]
    ) -> Iterator[Sequence[Any]]:
        """Yield rows. SQLite stores bytes in columns of any type; they are decoded, so that a value breaks no list."""
        try:
            rows = connection.execute(query).all()
        except sa.exc.OperationalError as error:
            if "Could not decode to UTF-8" not in str(error):
                raise
            driver = connection.connection.driver_connection
            assert isinstance(driver, sqlite3.Connection)
            driver.text_factory = _decode  # only now, since it is much slower than SQLite's own decoding
            rows = connection.execute(query).all()
        for row in rows:
            has_bytes = bytes in map(type, row)
            yield [_decode(value) if isinstance(value, bytes) else value for value in row] if has_bytes else row

    def list_index_names(self, connection: sa.Connection) -> frozenset[str]:
        query = "SELECT name FROM sqlite_schema WHERE type = 'index'"
        return frozenset(connection.exec_driver_sql(query).scalars())

    def describe_fault(self, error: sa.exc.DBAPIError, table: Table) -> IntegrityFault:
        code, detail = error_code(error), str(error.orig).partition(": ")[2]
        if code in ("SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"):
            keys = {", ".join(f"{table.name}.{column}" for column in key): key for key in (("RID",), *table.keys)}
            return IntegrityFault("duplicate", keys.get(detail, ()))
        if code == "SQLITE_CONSTRAINT_FOREIGNKEY":
            return IntegrityFault("unknown reference")
        if code == "SQLITE_CONSTRAINT_NOTNULL":
            return IntegrityFault("missing value", (detail.removeprefix(f"{table.name}."),))
        return IntegrityFault("wrong type", (detail,))


SQLITE = SqliteDialect()


def error_code(error: BaseException | None) -> str:
    """Return SQLite's name of an error, such as ``SQLITE_BUSY``, or an empty text if there is none."""
    while error is not None and not hasattr(error, "sqlite_errorname"):
        error = getattr(error, "orig", None)
    return str(getattr(error, "sqlite_errorname", ""))


def _decode(content: bytes) -> str:
    return content.decode("utf-8", "backslashreplace")
