"""Tables as data, turned into what SQLAlchemy and SQLite understand."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from functools import cache, cached_property
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from deriva_ml_core.definitions import MLTable
from deriva_ml_core.errors import ConfigurationError
from deriva_ml_core.schema import SYSTEM_COLUMNS, CatalogModel, Column, ForeignKey, Table

__all__ = ["VALID_UNTIL", "MappedTable", "compile_ddl", "model_from_json", "model_to_json"]

VALID_UNTIL = "__until"
"""The column of a history table that says when the row ceased to be so."""

DIALECT = sqlite.dialect(paramstyle="qmark")

BindProcessor = Callable[[Any], Any]
StatementCompiler = Callable[[tuple[str, ...]], str]


class IsoTime(sa.types.TypeDecorator[str]):
    """ISO 8601 texts; a date or time is taken too, and written in UTC."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> Any:  # noqa: ARG002
        if isinstance(value, datetime):
            return value.astimezone(UTC).isoformat(timespec="microseconds")
        return value.isoformat() if isinstance(value, date) else value


class JsonText(sa.types.TypeDecorator[Any]):
    """JSON texts."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> str | None:  # noqa: ARG002
        try:
            return None if value is None else json.dumps(value, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{value!r} cannot be kept as JSON: {error}.") from error

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Any:  # noqa: ARG002
        return None if value is None else json.loads(value)


class IntegerBoolean(sa.types.TypeDecorator[bool]):
    """True and false as 1 and 0."""

    impl = sa.Integer
    cache_ok = True

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> bool | None:  # noqa: ARG002
        return None if value is None else bool(value)


class UnconvertedReal(sa.REAL[float]):
    """Numbers, left to SQLite, which our own check then asks about."""

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
        case "jsonb" | "json" | "text[]":
            return JsonText()
        case _:
            return sa.Text()


_STORAGE_CLASSES: Mapping[str, str] = {"INTEGER": "integer", "REAL": "real"}


def _type_check(column: Column) -> sa.CheckConstraint | None:
    # SQLite's columns take any value; STRICT tables would be unreadable before its version 3.37
    kind = _STORAGE_CLASSES.get(_sql_type(column).compile(DIALECT))
    if kind is None:
        return None
    named = quote_name(column.name)
    allowed = f"{named} IN (0, 1)" if column.type == "boolean" else f"typeof({named}) = '{kind}'"
    return sa.CheckConstraint(sa.text(f"{named} IS NULL OR {allowed}"), name=column.name)


def _build_columns(table: Table, *, for_history: bool) -> Iterator[sa.Column[Any]]:
    for name in SYSTEM_COLUMNS:
        yield sa.Column(name, sa.Text(), primary_key=name == "RID", nullable=False)
    for column in table.columns:
        yield sa.Column(column.name, _sql_type(column), nullable=for_history or column.nullok)


@dataclass(frozen=True)
class MappedTable:
    """One table as it is asked and written."""

    table: Table

    @cached_property
    def rows(self) -> sa.Table:
        """The present rows."""
        return sa.Table(
            self.table.name, sa.MetaData(), *_build_columns(self.table, for_history=False), sqlite_with_rowid=False
        )

    @cached_property
    def history(self) -> sa.Table:
        """The rows as they were before each update and deletion."""
        return sa.Table(
            f"{self.table.name}__history",
            sa.MetaData(),
            *_build_columns(self.table, for_history=True),
            sa.Column(VALID_UNTIL, sa.Text(), primary_key=True),
            sqlite_with_rowid=False,
        )

    @cached_property
    def bind_processors(self) -> dict[str, BindProcessor]:
        """What turns values into SQLite's, for the columns that need it."""
        found = {column.name: column.type.dialect_impl(DIALECT).bind_processor(DIALECT) for column in self.rows.c}
        return {name: processor for name, processor in found.items() if processor is not None}

    @cached_property
    def defaults(self) -> dict[str, str]:
        """The defaults of columns that have one."""
        return {column.name: column.default for column in self.table.columns if column.default is not None}

    def sort_columns(self, names: Collection[str]) -> tuple[str, ...]:
        """Those columns, in the order of the table."""
        return tuple(column.name for column in self.rows.c if column.name in names)

    @cached_property
    def compile_insert(self) -> StatementCompiler:
        """The statement that inserts columns, given in the order of the table."""

        def compile_statement(names: tuple[str, ...]) -> str:
            return str(sqlite.insert(self.rows).compile(dialect=DIALECT, column_keys=list(names)))

        return cache(compile_statement)

    @cached_property
    def compile_update(self) -> StatementCompiler:
        """The statement that sets columns, given in the order of the table, of the row whose RID comes last."""

        def compile_statement(names: tuple[str, ...]) -> str:
            statement = sa.update(self.rows).where(self.rows.c["RID"] == sa.bindparam(None))
            return str(statement.compile(dialect=DIALECT, column_keys=list(names)))

        return cache(compile_statement)

    @cached_property
    def lookup_sql(self) -> str:
        """The statement that gives the record ids among the JSON list ``?1`` that name a row of this table."""
        return f"SELECT RID, {quote_string(self.table.name)} FROM {quote_name(self.table.name)} {_RID_IN_LIST}"  # noqa: S608

    @cached_property
    def snapshot_lookup_sql(self) -> str:
        """The same for the rows that there were at the time ``?2``."""
        history = quote_name(self.history.name)
        return (
            f"{self.lookup_sql} AND RMT <= ?2 UNION ALL SELECT RID, {quote_string(self.table.name)} FROM {history} "  # noqa: S608
            f"{_RID_IN_LIST} AND RMT <= ?2 AND {VALID_UNTIL} > ?2"
        )


_RID_IN_LIST = "WHERE RID IN (SELECT value FROM json_each(?1))"


def quote_name(name: str) -> str:
    """A table's or column's name as SQL."""
    return DIALECT.identifier_preparer.quote_identifier(name)


def quote_string(text: str) -> str:
    """A text as SQL."""
    return "'" + text.replace("'", "''") + "'"


_INDEXED_COLUMNS: Mapping[MLTable, tuple[str, ...]] = {
    MLTable.workflow: ("URL", "Checksum"),
    MLTable.execution: ("Status",),
}


_COMPOSITE_INDEXES: Mapping[MLTable, tuple[tuple[str, ...], ...]] = {
    MLTable.execution_metric: (("Name", "Stage", "Best"), ("Name", "Stage", "Last"))
}
"""The columns that rows are looked up by, each with the one that they are then sorted by."""


def _build_indexes(table: Table, rows: sa.Table) -> Iterator[sa.Index]:
    """One for each column that rows are looked up by; a thing's also gives its newest rows first."""
    linking = sum(key.cascade for key in table.foreign_keys) > 1
    found = dict.fromkeys(key.column for key in table.foreign_keys)
    if table.name in set(MLTable):
        found.update(dict.fromkeys(_INDEXED_COLUMNS.get(MLTable(table.name), ())))
        for names in _COMPOSITE_INDEXES.get(MLTable(table.name), ()):
            if table.column_names.issuperset(names):  # else it is somebody's own
                yield sa.Index(f"{rows.name}__{names[-1]}", *(rows.c[name] for name in names))
    if table.is_asset:
        found["MD5"] = None
    for name in found:
        columns = (rows.c[name],) if linking else (rows.c[name], rows.c.RCT)
        yield sa.Index(f"{rows.name}__{name}", *columns)
    if not linking:
        yield sa.Index(f"{rows.name}__RCT", rows.c.RCT)


def compile_ddl(tables: Sequence[Table], existing: CatalogModel) -> Iterator[str]:
    """The statements that make tables with their indexes, histories and triggers.

    Args:
        tables: The new tables.
        existing: Those that the new ones may refer to.
    """
    metadata = sa.MetaData()
    declared = {
        table.name: sa.Table(table.name, metadata, *_build_columns(table, for_history=False), sqlite_with_rowid=False)
        for table in (*existing.tables.values(), *tables)
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
    old = ", ".join(f"OLD.{quote_name(column.name)}" for column in history.c if column.name != VALID_UNTIL)
    # triggers rather than our own statements, so that what goes by cascade is kept too
    for event, condition, until in (
        ("UPDATE", "OLD.RMT <> NEW.RMT", "NEW.RMT"),
        ("DELETE", "OLD.RMT < (SELECT time FROM _clock)", "(SELECT time FROM _clock)"),
    ):
        yield (
            f"CREATE TRIGGER {quote_name(f'{table.name}__{event.lower()}')} AFTER {event} ON {quote_name(table.name)} "  # noqa: S608
            f"WHEN {condition} BEGIN INSERT INTO {quote_name(history.name)} VALUES ({old}, {until}); END"
        )


def model_to_json(model: CatalogModel) -> str:
    """Write the tables down."""
    return json.dumps([asdict(table) for table in model.tables.values()], ensure_ascii=False)


def model_from_json(text: str) -> CatalogModel:
    """Read what `model_to_json` wrote.

    Raises:
        ValueError: The text is something else.
    """
    try:
        return CatalogModel({table["name"]: _table_from_dict(table) for table in json.loads(text)})
    except (TypeError, KeyError) as error:
        raise ValueError(f"no tables are described ({error!r})") from error


def _table_from_dict(data: dict[str, Any]) -> Table:
    inner = {
        "columns": tuple(Column(**column) for column in data["columns"]),
        "keys": tuple(tuple(key) for key in data["keys"]),
        "foreign_keys": tuple(ForeignKey(**key) for key in data["foreign_keys"]),
    }
    return Table(**{**data, **inner})
