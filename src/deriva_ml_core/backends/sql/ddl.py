"""Convert tables of the schema to SQLAlchemy tables and statements."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property, lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.schema import AddConstraint, CreateColumn, CreateIndex, CreateTable

from deriva_ml_core.backends.sql.dialect import VALID_UNTIL, SqlDialect, StoredTable
from deriva_ml_core.definitions import MLTable
from deriva_ml_core.schema import SYSTEM_COLUMNS, CatalogModel, Column, ForeignKey, Table

__all__ = [
    "REPLACED_INDEXES",
    "SYSTEM_TIMES",
    "MappedTable",
    "build_rows_table",
    "compile_added_columns",
    "compile_ddl",
    "compile_index",
    "compile_replaced_triggers",
    "list_indexes",
    "model_from_json",
    "model_to_json",
]

SYSTEM_TIMES = ("RCT", "RMT")
"""The times at which a row was created and changed."""

BindProcessor = Callable[[Any], Any]
StatementCompiler = Callable[[tuple[str, ...]], str]


def _build_columns(table: Table, dialect: SqlDialect, *, for_history: bool) -> Iterator[sa.Column[Any]]:
    for name in SYSTEM_COLUMNS:
        type_ = dialect.time_type() if name in SYSTEM_TIMES else dialect.text_type()
        yield sa.Column(name, type_, primary_key=name == "RID", nullable=False)
    for column in table.columns:
        name = dialect.identifier(column.name)
        type_ = dialect.column_type(column.type)
        yield sa.Column(name, type_, key=column.name, nullable=for_history or column.nullok)


def build_rows_table(table: Table, dialect: SqlDialect, metadata: sa.MetaData) -> sa.Table:
    """Return the SQL table of the current rows, without constraints."""
    columns = _build_columns(table, dialect, for_history=False)
    return sa.Table(dialect.identifier(table.name), metadata, *columns, **dialect.table_options)


@dataclass(frozen=True)
class MappedTable:
    """A table with its SQLAlchemy tables and compiled statements.

    Args:
        table: The table.
        dialect: The SQL of its database.
    """

    table: Table
    dialect: SqlDialect

    @cached_property
    def rows(self) -> sa.Table:
        """SQL table of the current rows."""
        return build_rows_table(self.table, self.dialect, sa.MetaData())

    @cached_property
    def history(self) -> sa.Table:
        """SQL table of the rows before each update and deletion."""
        return sa.Table(
            self.dialect.identifier(f"{self.table.name}__history"),
            sa.MetaData(),
            *_build_columns(self.table, self.dialect, for_history=True),
            sa.Column(VALID_UNTIL, self.dialect.time_type(), primary_key=True),
            **self.dialect.table_options,
        )

    @property
    def stored(self) -> StoredTable:
        """The SQL tables under the name of the table."""
        return StoredTable(self.table.name, self.rows, self.history)

    @cached_property
    def bind_processors(self) -> dict[str, BindProcessor]:
        """Functions that convert values for the database, for the columns that need it."""
        dialect = self.dialect.sqlalchemy
        processors = {column.key: column.type.dialect_impl(dialect).bind_processor(dialect) for column in self.rows.c}
        return {name: processor for name, processor in processors.items() if processor is not None}

    @cached_property
    def defaults(self) -> dict[str, str]:
        """Defaults by column."""
        return {column.name: column.default for column in self.table.columns if column.default is not None}

    def sort_columns(self, names: Collection[str]) -> tuple[str, ...]:
        """Return columns in the order of the table."""
        return tuple(column.key for column in self.rows.c if column.key in names)

    @cached_property
    def compile_insert(self) -> StatementCompiler:
        """Function that compiles an INSERT for columns in the order of the table."""

        def compile_statement(names: tuple[str, ...]) -> str:
            return str(sa.insert(self.rows).compile(dialect=self.dialect.sqlalchemy, column_keys=list(names)))

        return cache(compile_statement)

    @cached_property
    def compile_update(self) -> StatementCompiler:
        """Function that compiles an UPDATE for columns in the order of the table. The last parameter is the RID."""

        def compile_statement(names: tuple[str, ...]) -> str:
            statement = sa.update(self.rows).where(self.rows.c["RID"] == sa.bindparam(None))
            return str(statement.compile(dialect=self.dialect.sqlalchemy, column_keys=list(names)))

        return cache(compile_statement)


_INDEXED_COLUMNS: Mapping[MLTable, tuple[str, ...]] = {
    MLTable.workflow: ("URL", "Checksum"),
    MLTable.execution: ("Status", "RCB"),
    MLTable.execution_tag: ("Tag",),
}


_COMPOSITE_INDEXES: Mapping[MLTable, tuple[tuple[str, ...], ...]] = {
    MLTable.execution: (("RID", "Status", "Workflow", "RCT", "RCB"),),
    MLTable.execution_metric: (
        ("Name", "Stage", "Best", "RID", "Execution"),
        ("Name", "Stage", "Last", "RID", "Execution"),
        ("Name", "Stage", "Execution", "Best", "Last"),
        ("Name", "Stage", "RCT"),
    ),
    MLTable.execution_parameter: (
        ("Name", "Number", "Execution"),
        ("Name", "Value", "Execution"),
        ("Name", "Execution", "Number", "Value"),
    ),
    MLTable.execution_tag: (("Tag", "Execution"),),
}
"""Columns of lookups, followed by those that rows are sorted by, and by all others that a search reads.

A search for the first executions then reads no rows but theirs.
"""

REPLACED_INDEXES: Mapping[str, tuple[str, ...]] = {
    MLTable.execution_metric: ("Execution_Metric__Best", "Execution_Metric__Last"),
    MLTable.execution_parameter: ("Execution_Parameter__Number", "Execution_Parameter__Value"),
}
"""Names of indexes that earlier versions created, by table; those of this version replace them."""


def list_indexes(table: Table) -> dict[str, tuple[str, ...]]:
    """Return the columns of a table's indexes by the name of the index.

    There is one for each lookup column. Tables that are not associations are also indexed by creation time.
    """
    is_association = sum(key.cascade for key in table.foreign_keys) > 1
    indexed = dict.fromkeys(key.column for key in table.foreign_keys)
    indexes: dict[str, tuple[str, ...]] = {}
    if table.name in set(MLTable):
        indexed.update(dict.fromkeys(_INDEXED_COLUMNS.get(MLTable(table.name), ())))
        for names in _COMPOSITE_INDEXES.get(MLTable(table.name), ()):
            if table.column_names.union(SYSTEM_COLUMNS).issuperset(names):  # a user's table of that name may lack them
                indexes[f"{table.name}__{'_'.join(names)}"] = names
    if table.is_asset:
        indexed["MD5"] = None
    for name in indexed:
        indexes[f"{table.name}__{name}"] = (name,) if is_association else (name, "RCT")
    if not is_association:
        indexes[f"{table.name}__RCT"] = ("RCT",)
    return indexes


def _build_indexes(table: Table, rows: sa.Table, dialect: SqlDialect) -> Iterator[sa.Index]:
    for name, columns in list_indexes(table).items():
        yield sa.Index(dialect.identifier(name), *(rows.c[column] for column in columns))


def compile_index(table: Table, name: str, dialect: SqlDialect) -> str:
    """Return the statement that adds an index of `list_indexes` to an existing table, unless it exists."""
    rows = MappedTable(table, dialect).rows
    index = sa.Index(dialect.identifier(name), *(rows.c[column] for column in list_indexes(table)[name]))
    return str(CreateIndex(index, if_not_exists=True).compile(dialect=dialect.sqlalchemy))


def compile_ddl(tables: Sequence[Table], existing: CatalogModel, dialect: SqlDialect) -> tuple[str, ...]:
    """Return the statements that create tables with their indexes, histories and triggers.

    Args:
        tables: The new tables.
        existing: Existing tables that the new ones may refer to.
        dialect: The SQL of the database.
    """
    return _compile_tables(tuple(tables), tuple(existing.tables.values()), dialect)


@lru_cache(maxsize=4)  # all new catalogs of a process have the same tables
def _compile_tables(tables: tuple[Table, ...], existing: tuple[Table, ...], dialect: SqlDialect) -> tuple[str, ...]:
    return tuple(_iter_statements(tables, existing, dialect))


def _iter_statements(tables: tuple[Table, ...], existing: tuple[Table, ...], dialect: SqlDialect) -> Iterator[str]:
    metadata = sa.MetaData()
    declared = {table.name: build_rows_table(table, dialect, metadata) for table in (*existing, *tables)}
    for table in tables:
        rows = declared[table.name]
        for constraint in _build_keys(table, dialect):
            rows.append_constraint(constraint)
        for reference in () if dialect.adds_references else _build_references(table, declared):
            rows.append_constraint(reference)
        yield str(CreateTable(rows).compile(dialect=dialect.sqlalchemy))
        for index in _build_indexes(table, rows, dialect):
            yield str(CreateIndex(index).compile(dialect=dialect.sqlalchemy))
        yield from _compile_history_ddl(table, dialect)
    if dialect.adds_references:
        for table in tables:
            for reference in _build_references(table, declared):
                declared[table.name].append_constraint(reference)
                yield str(AddConstraint(reference).compile(dialect=dialect.sqlalchemy))


def _build_keys(table: Table, dialect: SqlDialect) -> Iterator[sa.Constraint]:
    for columns in table.keys:
        yield sa.UniqueConstraint(*columns, name=dialect.key_name(table, columns))
    yield from (check for column in table.columns if (check := dialect.type_check(column)) is not None)


def _build_references(table: Table, declared: dict[str, sa.Table]) -> Iterator[sa.ForeignKeyConstraint]:
    for key in table.foreign_keys:
        yield sa.ForeignKeyConstraint(
            [key.column],
            [declared[key.table].c[key.to]],
            ondelete="CASCADE" if key.cascade else None,
            deferrable=True,
            initially="DEFERRED",
        )


def _compile_history_ddl(table: Table, dialect: SqlDialect) -> Iterator[str]:
    history = MappedTable(table, dialect).history
    yield str(CreateTable(history).compile(dialect=dialect.sqlalchemy))
    for key in table.foreign_keys:
        index = sa.Index(dialect.identifier(f"{table.name}__history__{key.column}"), history.c[key.column])
        yield str(CreateIndex(index).compile(dialect=dialect.sqlalchemy))
    yield from dialect.compile_triggers(MappedTable(table, dialect).stored)


def compile_replaced_triggers(table: Table, dialect: SqlDialect) -> Iterator[str]:
    """Yield the statements that replace the triggers of an existing table."""
    yield from dialect.compile_dropped_triggers(table)
    yield from dialect.compile_triggers(MappedTable(table, dialect).stored)


def compile_added_columns(table: Table, columns: Sequence[Column], dialect: SqlDialect) -> Iterator[str]:
    """Yield the statements that add columns to an existing table and its history; its triggers must be replaced.

    Args:
        table: The table as it is.
        columns: New columns. They are empty in existing rows.
        dialect: The SQL of the database.
    """
    mapped = MappedTable(table, dialect)
    for column in columns:
        new = sa.Column(dialect.identifier(column.name), dialect.column_type(column.type))
        definition = str(CreateColumn(new).compile(dialect=dialect.sqlalchemy))
        check = dialect.type_check(column)
        constraint = "" if check is None else f" CONSTRAINT {dialect.quote(column.name)} CHECK ({check.sqltext})"
        yield f"ALTER TABLE {dialect.quote(mapped.rows.name)} ADD COLUMN {definition}{constraint}"
        yield f"ALTER TABLE {dialect.quote(mapped.history.name)} ADD COLUMN {definition}"


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
