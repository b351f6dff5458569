"""The SQL of PostgreSQL."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, psycopg

from deriva_ml_core.backends.sql.dialect import (
    VALID_UNTIL,
    IntegrityFault,
    SqlDialect,
    StoredTable,
    dump_json,
    quote_text,
)
from deriva_ml_core.schema import Column, Table

__all__ = ["POSTGRES", "PostgresDialect", "error_code"]

MAX_NAME_BYTES = 63
"""PostgreSQL cuts longer names."""

UNIQUE_VIOLATION, FOREIGN_KEY_VIOLATION, NOT_NULL_VIOLATION = "23505", "23503", "23502"
"""Codes of errors: https://www.postgresql.org/docs/current/errcodes-appendix.html."""


class IsoTimestamp(sa.types.TypeDecorator[str]):
    """Time that rows have as ISO 8601 text in UTC, with microseconds."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def bind_processor(self, dialect: sa.Dialect) -> Callable[[Any], Any]:  # noqa: ARG002
        return _format_time

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else value.astimezone(UTC).isoformat(timespec="microseconds")


class IsoDate(sa.types.TypeDecorator[str]):
    """Date that rows have as ISO 8601 text."""

    impl = sa.Date
    cache_ok = True

    def bind_processor(self, dialect: sa.Dialect) -> Callable[[Any], Any]:  # noqa: ARG002
        return _format_time

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else value.isoformat()


def _format_time(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date | datetime) else value


class JsonValue(sa.types.TypeDecorator[Any]):
    """JSON value, in PostgreSQL's binary form."""

    impl = JSONB
    cache_ok = True

    def bind_processor(self, dialect: sa.Dialect) -> Callable[[Any], str | None]:  # noqa: ARG002
        return lambda value: None if value is None else dump_json(value)

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> None:  # noqa: ARG002
        return None  # the driver parses it


class TextArray(sa.types.TypeDecorator[list[str]]):
    """Array of texts. An empty array is null, as at a snapshot of a Deriva server."""

    impl = ARRAY(sa.Text())
    cache_ok = True

    def bind_processor(self, dialect: sa.Dialect) -> Callable[[Any], Any]:  # noqa: ARG002
        return lambda value: None if value == [] else value

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Any:  # noqa: ARG002
        return value or None


class WholeNumber(sa.types.TypeDecorator[int]):
    """Whole number. PostgreSQL would round a number with a fraction; as a text, it refuses that."""

    impl = sa.BigInteger
    cache_ok = True

    def bind_processor(self, dialect: sa.Dialect) -> Callable[[Any], Any]:  # noqa: ARG002
        return _exact_number


class RealNumber(sa.types.TypeDecorator[float]):
    """Floating-point number."""

    impl = sa.Double
    cache_ok = True

    def bind_processor(self, dialect: sa.Dialect) -> None:  # noqa: ARG002
        return None


class Truth(sa.types.TypeDecorator[bool]):
    """Truth value; 0 and 1 are accepted."""

    impl = sa.Boolean
    cache_ok = True

    def bind_processor(self, dialect: sa.Dialect) -> Callable[[Any], Any]:  # noqa: ARG002
        return lambda value: bool(value) if value in (0, 1) else value


def _exact_number(value: Any) -> Any:
    if isinstance(value, float):
        return int(value) if value.is_integer() else repr(value)
    return int(value) if isinstance(value, bool) else value


class PostgresDialect(SqlDialect):
    """The SQL of PostgreSQL, whose columns refuse values of other types."""

    sqlalchemy = psycopg.dialect(paramstyle="format")  # type: ignore[no-untyped-call]
    table_options: Mapping[str, Any] = {}
    adds_references = True
    write_errors = (sa.exc.IntegrityError, sa.exc.DataError, sa.exc.ProgrammingError)

    def identifier(self, name: str) -> str:
        content = name.encode()
        if len(content) <= MAX_NAME_BYTES:
            return name
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        return f"{content[: MAX_NAME_BYTES - len(digest) - 1].decode(errors='ignore')}_{digest}"

    def key_name(self, table: Table, columns: Sequence[str]) -> str:
        return self.identifier(f"{table.name}__{'_'.join(columns)}__key")

    def text_type(self) -> sa.types.TypeEngine[Any]:
        return sa.Text(collation="C")

    def time_type(self) -> sa.types.TypeEngine[Any]:
        return IsoTimestamp()

    def column_type(self, type_name: str) -> sa.types.TypeEngine[Any]:
        match type_name:
            case "int4" | "int8" | "int2":
                return WholeNumber()
            case "float8" | "float4":
                return RealNumber()
            case "boolean":
                return Truth()
            case "date":
                return IsoDate()
            case "timestamptz":
                return IsoTimestamp()
            case "jsonb" | "json":
                return JsonValue()
            case "text[]":
                return TextArray()
            case _:
                return self.text_type()

    def type_check(self, column: Column) -> None:  # noqa: ARG002
        return None

    def compile_triggers(self, table: StoredTable) -> Iterator[str]:
        history = table.history
        names = [self.quote(column.name) for column in history.c if column.name != VALID_UNTIL]
        target = f"{self.quote(history.name)} ({', '.join((*names, self.quote(VALID_UNTIL)))})"
        old = ", ".join(f"OLD.{name}" for name in names)
        function = self._trigger_name(table.name)
        # the function's owner may write the history; those who change rows may not
        yield (
            f"CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER "  # noqa: S608
            "SET search_path FROM CURRENT AS $$ BEGIN "
            'IF TG_OP = \'UPDATE\' THEN IF OLD."RMT" <> NEW."RMT" THEN '
            f'INSERT INTO {target} VALUES ({old}, NEW."RMT"); END IF; '
            'ELSIF OLD."RMT" < (SELECT time FROM _clock) THEN '
            f"INSERT INTO {target} SELECT {old}, time FROM _clock; END IF; "
            "RETURN NULL; END $$"
        )
        # who wrote a row is the user of the server, whatever the client says
        yield (
            f"CREATE OR REPLACE TRIGGER {self.quote('deriva_ml_user')} BEFORE INSERT OR UPDATE ON "
            f"{self.quote(table.rows.name)} FOR EACH ROW EXECUTE FUNCTION _set_user()"
        )
        yield (
            f"CREATE OR REPLACE TRIGGER {self.quote('deriva_ml_history')} AFTER UPDATE OR DELETE ON "
            f"{self.quote(table.rows.name)} FOR EACH ROW EXECUTE FUNCTION {function}()"
        )

    def compile_dropped_triggers(self, table: Table) -> Iterator[str]:  # noqa: ARG002
        yield from ()  # those that exist are replaced

    def _trigger_name(self, table: str) -> str:
        return self.quote(f"{table}__changed")

    def in_values(self, column: sa.ColumnElement[Any], values: Collection[Any]) -> sa.ColumnElement[bool]:
        # one array, because the protocol limits parameters
        return column == sa.any_(sa.bindparam(None, list(values), type_=ARRAY(column.type), unique=True))

    def avoid_index(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        return column  # the planner has statistics

    def locate(
        self, connection: sa.Connection, tables: Sequence[StoredTable], rids: Collection[str], time: str | None
    ) -> Iterable[Sequence[str]]:
        query = " UNION ALL ".join(self._lookup_sql(table, at_snapshot=time is not None) for table in tables)
        return connection.exec_driver_sql(query, {"rids": list(rids), "time": time}).all()

    def _lookup_sql(self, table: StoredTable, *, at_snapshot: bool) -> str:
        """Return the statement that selects the existing RIDs of an array, now or at a time."""
        name = quote_text(table.name).replace("%", "%%")
        rows, history = self.quote(table.rows.name), self.quote(table.history.name)
        now = f'SELECT "RID", {name} FROM {rows} WHERE "RID" = ANY(%(rids)s)'  # noqa: S608
        if not at_snapshot:
            return now
        return (
            f'{now} AND "RMT" <= %(time)s UNION ALL SELECT "RID", {name} FROM {history} '  # noqa: S608
            f'WHERE "RID" = ANY(%(rids)s) AND "RMT" <= %(time)s AND {self.quote(VALID_UNTIL)} > %(time)s'
        )

    def fetch_rows(
        self, connection: sa.Connection, query: sa.Select[Any] | sa.CompoundSelect[Any]
    ) -> Iterable[Sequence[Any]]:
        return connection.execute(query).all()

    def describe_fault(self, error: sa.exc.DBAPIError, table: Table) -> IntegrityFault:
        code, diagnosis = error_code(error), getattr(error.orig, "diag", None)
        constraint = getattr(diagnosis, "constraint_name", None)
        if code == UNIQUE_VIOLATION:
            keys = {self.key_name(table, key): key for key in table.keys}
            return IntegrityFault("duplicate", keys.get(constraint or "", ("RID",)))
        if code == FOREIGN_KEY_VIOLATION:
            return IntegrityFault("unknown reference")
        if code == NOT_NULL_VIOLATION:
            stored = getattr(diagnosis, "column_name", None) or ""
            names = {self.identifier(column.name): column.name for column in table.columns}
            return IntegrityFault("missing value", (names.get(stored, stored),))
        return IntegrityFault("wrong type")


POSTGRES = PostgresDialect()


def error_code(error: BaseException | None) -> str:
    """Return PostgreSQL's code of an error, such as ``40001``, or an empty text if the server has not sent one."""
    while error is not None and not getattr(error, "sqlstate", None):
        error = getattr(error, "orig", None)
    return str(getattr(error, "sqlstate", ""))
