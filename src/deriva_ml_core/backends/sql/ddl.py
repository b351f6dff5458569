"""Convert tables of the schema to SQLAlchemy tables and SQLite statements."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from functools import cache, cached_property, lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateColumn, CreateIndex, CreateTable

from deriva_ml_core.definitions import MLTable
from deriva_ml_core.errors import ConfigurationError
from deriva_ml_core.schema import SYSTEM_COLUMNS, CatalogModel, Column, ForeignKey, Table

__all__ = [
    "VALID_UNTIL",
    "MappedTable",
    "compile_added_columns",
    "compile_ddl",
    "compile_replaced_triggers",
    "model_from_json",
    "model_to_json",
]

VALID_UNTIL = "__until"
"""Column of a history table with the time until which the row was valid."""

DIALECT = sqlite.dialect(paramstyle="qmark")

BindProcessor = Callable[[Any], Any]
StatementCompiler = Callable[[tuple[str, ...]], str]


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
        try:
            return None if value is None else json.dumps(value, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{value!r} cannot be stored as JSON: {error}.") from error

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


def _sql_type(column: Column) -> sa.types.TypeEngine[Any]:
    match column.type:
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


_STORAGE_CLASSES: Mapping[str, str] = {"INTEGER": "integer", "REAL": "real"}


def _type_check(column: Column) -> sa.CheckConstraint | None:
    # SQLite columns accept any value; STRICT tables need SQLite 3.37 to be read
    kind = _STORAGE_CLASSES.get(_sql_type(column).compile(DIALECT))
    if kind is None:
        return None
    name = quote_name(column.name)
    allowed = f"{name} IN (0, 1)" if column.type == "boolean" else f"typeof({name}) = '{kind}'"
    return sa.CheckConstraint(sa.text(f"{name} IS NULL OR {allowed}"), name=column.name)


def _build_columns(table: Table, *, for_history: bool) -> Iterator[sa.Column[Any]]:
    for name in SYSTEM_COLUMNS:
        yield sa.Column(name, sa.Text(), primary_key=name == "RID", nullable=False)
    for column in table.columns:
        yield sa.Column(column.name, _sql_type(column), nullable=for_history or column.nullok)


@dataclass(frozen=True)
class MappedTable:
    """A table with its SQLAlchemy tables and compiled statements."""

    table: Table

    @cached_property
    def rows(self) -> sa.Table:
        """SQLite table of the current rows."""
        return sa.Table(
            self.table.name, sa.MetaData(), *_build_columns(self.table, for_history=False), sqlite_with_rowid=False
        )

    @cached_property
    def history(self) -> sa.Table:
        """SQLite table of the rows before each update and deletion."""
        return sa.Table(
            f"{self.table.name}__history",
            sa.MetaData(),
            *_build_columns(self.table, for_history=True),
            sa.Column(VALID_UNTIL, sa.Text(), primary_key=True),
            sqlite_with_rowid=False,
        )

    @cached_property
    def bind_processors(self) -> dict[str, BindProcessor]:
        """Functions that convert values for SQLite, for the columns that need it."""
        processors = {column.name: column.type.dialect_impl(DIALECT).bind_processor(DIALECT) for column in self.rows.c}
        return {name: processor for name, processor in processors.items() if processor is not None}

    @cached_property
    def defaults(self) -> dict[str, str]:
        """Defaults by column."""
        return {column.name: column.default for column in self.table.columns if column.default is not None}

    def sort_columns(self, names: Collection[str]) -> tuple[str, ...]:
        """Return columns in the order of the table."""
        return tuple(column.name for column in self.rows.c if column.name in names)

    @cached_property
    def compile_insert(self) -> StatementCompiler:
        """Function that compiles an INSERT for columns in the order of the table."""

        def compile_statement(names: tuple[str, ...]) -> str:
            return str(sqlite.insert(self.rows).compile(dialect=DIALECT, column_keys=list(names)))

        return cache(compile_statement)

    @cached_property
    def compile_update(self) -> StatementCompiler:
        """Function that compiles an UPDATE for columns in the order of the table. The last parameter is the RID."""

        def compile_statement(names: tuple[str, ...]) -> str:
            statement = sa.update(self.rows).where(self.rows.c["RID"] == sa.bindparam(None))
            return str(statement.compile(dialect=DIALECT, column_keys=list(names)))

        return cache(compile_statement)

    @cached_property
    def lookup_sql(self) -> str:
        """Statement that selects the RIDs of the JSON list ``?1`` that exist in this table."""
        return f"SELECT RID, {quote_string(self.table.name)} FROM {quote_name(self.table.name)} {_RID_IN_LIST}"  # noqa: S608

    @cached_property
    def snapshot_lookup_sql(self) -> str:
        """Statement that selects the RIDs of the JSON list ``?1`` that existed at the time ``?2``."""
        history = quote_name(self.history.name)
        return (
            f"{self.lookup_sql} AND RMT <= ?2 UNION ALL SELECT RID, {quote_string(self.table.name)} FROM {history} "  # noqa: S608
            f"{_RID_IN_LIST} AND RMT <= ?2 AND {VALID_UNTIL} > ?2"
        )


_RID_IN_LIST = "WHERE RID IN (SELECT value FROM json_each(?1))"


def quote_name(name: str) -> str:
    """Quote the name of a table or column for SQL."""
    return DIALECT.identifier_preparer.quote_identifier(name)


def quote_string(text: str) -> str:
    """Quote a text for SQL."""
    return "'" + text.replace("'", "''") + "'"


_INDEXED_COLUMNS: Mapping[MLTable, tuple[str, ...]] = {
    MLTable.workflow: ("URL", "Checksum"),
    MLTable.execution: ("Status",),
}


_COMPOSITE_INDEXES: Mapping[MLTable, tuple[tuple[str, ...], ...]] = {
    MLTable.execution_metric: (("Name", "Stage", "Best"), ("Name", "Stage", "Last")),
    MLTable.execution_parameter: (("Name", "Number"), ("Name", "Value")),
}
"""Columns of lookups, followed by the column that the rows are sorted by."""


def _build_indexes(table: Table, rows: sa.Table) -> Iterator[sa.Index]:
    """Yield an index for each lookup column. Tables that are not associations are also indexed by creation time."""
    is_association = sum(key.cascade for key in table.foreign_keys) > 1
    indexed = dict.fromkeys(key.column for key in table.foreign_keys)
    if table.name in set(MLTable):
        indexed.update(dict.fromkeys(_INDEXED_COLUMNS.get(MLTable(table.name), ())))
        for names in _COMPOSITE_INDEXES.get(MLTable(table.name), ()):
            if table.column_names.issuperset(names):  # a user's table of that name may lack them
                yield sa.Index(f"{rows.name}__{names[-1]}", *(rows.c[name] for name in names))
    if table.is_asset:
        indexed["MD5"] = None
    for name in indexed:
        columns = (rows.c[name],) if is_association else (rows.c[name], rows.c.RCT)
        yield sa.Index(f"{rows.name}__{name}", *columns)
    if not is_association:
        yield sa.Index(f"{rows.name}__RCT", rows.c.RCT)


def compile_ddl(tables: Sequence[Table], existing: CatalogModel) -> tuple[str, ...]:
    """Return the statements that create tables with their indexes, histories and triggers.

    Args:
        tables: The new tables.
        existing: Existing tables that the new ones may refer to.
    """
    return _compile_tables(tuple(tables), tuple(existing.tables.values()))


@lru_cache(maxsize=4)  # all new catalogs of a process have the same tables
def _compile_tables(tables: tuple[Table, ...], existing: tuple[Table, ...]) -> tuple[str, ...]:
    return tuple(_iter_statements(tables, existing))


def _iter_statements(tables: tuple[Table, ...], existing: tuple[Table, ...]) -> Iterator[str]:
    metadata = sa.MetaData()
    declared = {
        table.name: sa.Table(table.name, metadata, *_build_columns(table, for_history=False), sqlite_with_rowid=False)
        for table in (*existing, *tables)
    }
    for table in tables:
        rows = declared[table.name]
        for constraint in _build_constraints(table, declared):
            rows.append_constraint(constraint)
        yield str(CreateTable(rows).compile(dialect=DIALECT))
        yield from (str(CreateIndex(index).compile(dialect=DIALECT)) for index in _build_indexes(table, rows))
        yield from _compile_history_ddl(table)


def _build_constraints(table: Table, declared: dict[str, sa.Table]) -> Iterator[sa.Constraint]:
    yield from (sa.UniqueConstraint(*key) for key in table.keys)
    yield from (check for column in table.columns if (check := _type_check(column)) is not None)
    for key in table.foreign_keys:
        yield sa.ForeignKeyConstraint(
            [key.column],
            [declared[key.table].c[key.to]],
            ondelete="CASCADE" if key.cascade else None,
            deferrable=True,
            initially="DEFERRED",
        )


def _compile_history_ddl(table: Table) -> Iterator[str]:
    history = MappedTable(table).history
    yield str(CreateTable(history).compile(dialect=DIALECT))
    for key in table.foreign_keys:
        index = sa.Index(f"{history.name}__{key.column}", history.c[key.column])
        yield str(CreateIndex(index).compile(dialect=DIALECT))
    yield from _compile_triggers(table)


def _compile_triggers(table: Table) -> Iterator[str]:
    """Yield the statements that create the triggers which copy changed rows to the history."""
    history = MappedTable(table).history
    names = [quote_name(column.name) for column in history.c if column.name != VALID_UNTIL]
    target = f"{quote_name(history.name)} ({', '.join((*names, quote_name(VALID_UNTIL)))})"
    old = ", ".join(f"OLD.{name}" for name in names)
    # triggers also record rows that are deleted by cascade
    for event, condition, until in (
        ("UPDATE", "OLD.RMT <> NEW.RMT", "NEW.RMT"),
        ("DELETE", "OLD.RMT < (SELECT time FROM _clock)", "(SELECT time FROM _clock)"),
    ):
        yield (
            f"CREATE TRIGGER {_trigger_name(table, event)} AFTER {event} ON {quote_name(table.name)} "  # noqa: S608
            f"WHEN {condition} BEGIN INSERT INTO {target} VALUES ({old}, {until}); END"
        )


def _trigger_name(table: Table, event: str) -> str:
    return quote_name(f"{table.name}__{event.lower()}")


def compile_replaced_triggers(table: Table) -> Iterator[str]:
    """Yield the statements that replace the triggers of an existing table."""
    for event in ("UPDATE", "DELETE"):
        yield f"DROP TRIGGER IF EXISTS {_trigger_name(table, event)}"
    yield from _compile_triggers(table)


def compile_added_columns(table: Table, columns: Sequence[Column]) -> Iterator[str]:
    """Yield the statements that add columns to an existing table and its history; its triggers must be replaced.

    Args:
        table: The table as it is.
        columns: New columns. They are empty in existing rows.
    """
    mapped = MappedTable(table)
    for column in columns:
        definition = str(CreateColumn(sa.Column(column.name, _sql_type(column))).compile(dialect=DIALECT))
        check = _type_check(column)
        constraint = "" if check is None else f" CONSTRAINT {quote_name(column.name)} CHECK ({check.sqltext})"
        yield f"ALTER TABLE {quote_name(mapped.rows.name)} ADD COLUMN {definition}{constraint}"
        yield f"ALTER TABLE {quote_name(mapped.history.name)} ADD COLUMN {definition}"


def model_to_json(model: CatalogModel) -> str:
    """Serialize the model."""
    return json.dumps([asdict(table) for table in model.tables.values()], ensure_ascii=False)


def model_from_json(text: str) -> CatalogModel:
    """Parse the text of `model_to_json`.

    Raises:
        ValueError: The text does not describe tables.
    """
    try:
        return CatalogModel({table["name"]: _table_from_dict(table) for table in json.loads(text)})
    except (TypeError, KeyError) as error:
        raise ValueError(f"the description of its tables is invalid ({error!r})") from error


def _table_from_dict(data: dict[str, Any]) -> Table:
    inner = {
        "columns": tuple(Column(**column) for column in data["columns"]),
        "keys": tuple(tuple(key) for key in data["keys"]),
        "foreign_keys": tuple(ForeignKey(**key) for key in data["foreign_keys"]),
    }
    return Table(**{**data, **inner})
