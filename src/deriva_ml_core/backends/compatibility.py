"""Adapter for catalogs of other clients: their names, statuses and links, detected from the tables, not a version."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from deriva_ml_core import default_schema
from deriva_ml_core.backend import (
    ALL_ROWS,
    AllOf,
    AnyOf,
    Catalog,
    Filter,
    InSubquery,
    Row,
    Where,
    catalog_transaction,
    order_rows_by_key,
)
from deriva_ml_core.default_schema import default_tables
from deriva_ml_core.definitions import STATUS_TRAITS, MLTable, MLVocab, Status, status_from_row
from deriva_ml_core.errors import UnknownTable
from deriva_ml_core.schema import (
    ML_SCHEMA,
    VOCABULARY_COLUMNS,
    CatalogModel,
    Column,
    ForeignKey,
    Table,
    asset_execution_table_name,
    asset_type_table_name,
)

__all__ = [
    "WORKFLOW_TYPE_LINK_TABLE",
    "CatalogAdapter",
    "CatalogMapping",
    "TableMapping",
    "adapt_catalog",
    "status_vocabulary",
    "find_missing_columns",
]


ALTERNATIVE_COLUMN_NAMES: Mapping[tuple[str, str], tuple[str, ...]] = {
    (MLTable.execution, "Duration"): ("Execution_Duration",),
}
"""Names of columns in newer catalogs."""

OPTIONAL_COLUMNS = frozenset(
    {
        (MLTable.dataset_execution, "Dataset_Version"),
        (MLTable.dataset_version, "Execution"),
        (MLTable.dataset_version, "Minid"),
        (MLTable.execution, "Duration"),
        (MLTable.execution, "Status_Detail"),
        (MLTable.nested_execution, "Sequence"),
        (MLTable.workflow, "Version"),
        (MLTable.workflow, "Workflow_Type"),
    }
)
"""Columns that recording a run does not require; older catalogs lack some of them."""

WORKFLOW_TYPE_LINK_TABLE = f"{MLTable.workflow}_{MLVocab.workflow_type}"
"""Table that links workflows to their types, in catalogs whose workflows have no column for the type."""


@dataclass(frozen=True)
class TableMapping:
    """How one table of a catalog maps to the standard table.

    Args:
        table: The table with the standard names.
        catalog_names: The catalog's names of columns that it names differently, by standard name.
        missing_columns: Standard columns that the catalog lacks: they read as empty, and writes to them are dropped.
        values_to_catalog: Values to write in place of standard ones, by standard column.
        values_from_catalog: Standard values of the catalog's ones, by standard column; other values stay the same.
    """

    table: Table
    catalog_names: Mapping[str, str] = field(default_factory=dict)
    missing_columns: frozenset[str] = frozenset()
    values_to_catalog: Mapping[str, Mapping[Any, Any]] = field(default_factory=dict)
    values_from_catalog: Mapping[str, Mapping[Any, Any]] = field(default_factory=dict)

    def to_catalog(self, row: Mapping[str, Any]) -> Row:
        """Return a standard row with the catalog's names and values."""
        return {
            self.catalog_names.get(column, column): self.values_to_catalog.get(column, {}).get(value, value)
            if column in self.values_to_catalog
            else value
            for column, value in row.items()
            if column not in self.missing_columns
        }

    def from_catalog(self, row: Row) -> Row:
        """Return a row of the catalog with standard names and values."""
        standard_names = {catalog_name: name for name, catalog_name in self.catalog_names.items()}
        converted = {standard_names.get(column, column): value for column, value in row.items()}
        for column, meanings in self.values_from_catalog.items():
            converted[column] = meanings.get(converted.get(column), converted.get(column))
        return {**converted, **dict.fromkeys(self.missing_columns)}

    def translate_where(self, where: Where) -> Where:
        """Return a condition with the catalog's names and values."""
        if isinstance(where, AnyOf):
            return AnyOf(tuple(self._translate_filter(condition) for condition in where.filters))
        return self._translate_filter(where)

    def _translate_filter(self, condition: Filter) -> Filter:
        translated: dict[str, Any] = {}
        for column, value in condition.items():
            if column not in self.missing_columns:
                translated[self.catalog_names.get(column, column)] = self._catalog_values(column, value)
            elif not _can_match_null(value):
                return {"RID": ()}  # the column is missing, so no row has a value in it
        return translated

    def _catalog_values(self, column: str, value: Any) -> Any:
        """Return all values of the catalog that mean one of the values."""
        if column not in self.values_from_catalog and column not in self.values_to_catalog:
            return value
        wanted = set(value) if isinstance(value, (tuple, list, set, frozenset)) else {value}
        meanings = self.values_from_catalog.get(column, {})
        renamed = {term for term, meaning in meanings.items() if meaning in wanted}
        unchanged = {item for item in wanted if meanings.get(item, item) == item}
        return tuple(unchanged | renamed | {self.values_to_catalog.get(column, {}).get(item, item) for item in wanted})

    def translate_order(self, columns: Iterable[str]) -> tuple[str, ...]:
        """Return the catalog's names of the columns to sort by."""
        return tuple(self.catalog_names.get(column, column) for column in columns if column not in self.missing_columns)


def _can_match_null(value: Any) -> bool:
    return value is None or (isinstance(value, (tuple, list, set, frozenset)) and None in value)


@dataclass(frozen=True)
class CatalogMapping:
    """How a catalog maps to the standard model.

    Args:
        model: The catalog's tables with standard names.
        table_mappings: The mappings of tables that differ, by name.
        type_link_columns: The columns of `WORKFLOW_TYPE_LINK_TABLE` that refer to workflow and type, if it is used.
        missing_tables: Standard tables, and link tables of asset tables, that the catalog lacks: they read as empty.
    """

    model: CatalogModel
    table_mappings: Mapping[str, TableMapping]
    type_link_columns: tuple[str, str] | None = None
    missing_tables: frozenset[str] = frozenset()

    @classmethod
    def from_model(cls, model: CatalogModel, status_terms: frozenset[str] | None) -> CatalogMapping:
        """Derive the mapping from a catalog's tables.

        Args:
            model: The tables.
            status_terms: The vocabulary of execution statuses; None without one.
        """
        standard = {(table.schema, table.name): table for table in default_tables() if table.schema == ML_SCHEMA}
        candidates = (
            _map_table(table, standard.get((table.schema, table.name)), status_terms) for table in model.tables.values()
        )
        mappings = {mapping.table.name: mapping for mapping in candidates if mapping is not None}
        tables = {**model.tables, **{name: mapping.table for name, mapping in mappings.items()}}
        names = {
            name: {catalog_name: column for column, catalog_name in mapping.catalog_names.items()}
            for name, mapping in mappings.items()
        }
        renamed = {name: _rename_foreign_key_targets(table, names) for name, table in tables.items()}
        return cls(CatalogModel(renamed), mappings, _find_type_link_columns(model), _find_missing_tables(renamed))

    @property
    def is_needed(self) -> bool:
        """Whether the catalog differs from the standard model."""
        return bool(self.table_mappings or self.missing_tables) or self.type_link_columns is not None


def _find_missing_tables(tables: Mapping[str, Table]) -> frozenset[str]:
    """Return the standard tables of the schema ``deriva-ml`` and the link tables of asset tables that are missing."""
    standard = {table.name for table in default_tables() if table.schema == ML_SCHEMA}
    assets = [table.name for table in tables.values() if table.is_asset]
    links = {
        name_links(asset) for name_links in (asset_execution_table_name, asset_type_table_name) for asset in assets
    }
    return frozenset((standard | links) - tables.keys())


def status_vocabulary(model: CatalogModel) -> tuple[str, str] | None:
    """Return the table and column that an execution's status refers to; None without a vocabulary of statuses."""
    execution = model.tables.get(MLTable.execution)
    keys = execution.foreign_keys if execution else ()
    return next(((key.table, key.to) for key in keys if key.column == "Status"), None)


def _map_table(table: Table, standard_table: Table | None, status_terms: frozenset[str] | None) -> TableMapping | None:
    standard_columns = (
        [column.name for column in standard_table.columns] if standard_table else _vocabulary_columns(table)
    )
    renamed: dict[str, str] = {}
    missing: list[str] = []
    for column in standard_columns:
        if column not in table.column_names:
            catalog_name = _find_catalog_column(table, column)
            if catalog_name is not None:
                renamed[column] = catalog_name
            elif (table.name, column) in OPTIONAL_COLUMNS | default_schema.ADDED_COLUMNS:
                missing.append(column)
    to_catalog: dict[str, Mapping[Any, Any]] = {}
    from_catalog: dict[str, Mapping[Any, Any]] = {}
    if table.name == MLTable.execution and status_terms is not None:
        to_catalog["Status"] = {
            status: term for status in Status if (term := _choose_status_term(status, status_terms)) is not None
        }
        from_catalog["Status"] = {
            term: status for term in status_terms if (status := status_from_row(term)) is not None
        }
    if not (renamed or missing or to_catalog):
        return None
    columns = {column.name: column for column in standard_table.columns} if standard_table else {}
    return TableMapping(
        table=_rename_columns(table, renamed, [columns.get(name, Column(name)) for name in missing]),
        catalog_names=renamed,
        missing_columns=frozenset(missing),
        values_to_catalog=to_catalog,
        values_from_catalog=from_catalog,
    )


def _vocabulary_columns(table: Table) -> tuple[str, ...]:
    """Return the standard columns of a vocabulary if the table has all of them, in any case; else none."""
    folded = {name.casefold() for name in table.column_names}
    is_vocabulary = {name.casefold() for name in VOCABULARY_COLUMNS} <= folded
    return VOCABULARY_COLUMNS if is_vocabulary else ()


def _find_catalog_column(table: Table, column: str) -> str | None:
    by_folded_name = {name.casefold(): name for name in table.column_names}
    candidates = (column, *ALTERNATIVE_COLUMN_NAMES.get((table.name, column), ()))
    return next((by_folded_name[name.casefold()] for name in candidates if name.casefold() in by_folded_name), None)


def _choose_status_term(status: Status, status_terms: frozenset[str]) -> str | None:
    return next((term for term in (status, *STATUS_TRAITS[status].fallback_terms) if term in status_terms), None)


def _rename_columns(table: Table, catalog_names: Mapping[str, str], missing_columns: list[Column]) -> Table:
    standard_names = {catalog_name: name for name, catalog_name in catalog_names.items()}
    columns = [replace(column, name=standard_names.get(column.name, column.name)) for column in table.columns]
    keys = tuple(tuple(standard_names.get(column, column) for column in key) for key in table.keys)
    foreign_keys = tuple(replace(key, column=standard_names.get(key.column, key.column)) for key in table.foreign_keys)
    missing = [replace(column, nullok=True, default=None) for column in missing_columns]
    return replace(table, columns=(*columns, *missing), keys=keys, foreign_keys=foreign_keys)


def _rename_foreign_key_targets(table: Table, names: Mapping[str, Mapping[str, str]]) -> Table:
    """Return a table whose foreign keys use standard column names."""
    keys = tuple(
        ForeignKey(key.column, key.table, names.get(key.table, {}).get(key.to, key.to), key.cascade)
        for key in table.foreign_keys
    )
    return replace(table, foreign_keys=keys) if keys != table.foreign_keys else table


def _find_type_link_columns(model: CatalogModel) -> tuple[str, str] | None:
    workflow, links = model.tables.get(MLTable.workflow), model.tables.get(WORKFLOW_TYPE_LINK_TABLE)
    if workflow is None or links is None or "Workflow_Type" in workflow.column_names:
        return None
    by_table = {key.table: key.column for key in links.foreign_keys}
    if not {MLTable.workflow, MLVocab.workflow_type} <= by_table.keys():
        return None
    return by_table[MLTable.workflow], by_table[MLVocab.workflow_type]


WORKFLOW_TYPE_COLUMN = "Workflow_Type"


def adapt_catalog(catalog: Catalog) -> Catalog:
    """Return the catalog if it has the standard tables, else an adapter that makes it behave as if it had."""
    adapter = CatalogAdapter(catalog)
    return adapter if adapter.mapping.is_needed else catalog


def find_missing_columns(model: CatalogModel) -> dict[str, list[Column]]:
    """Return the columns of later versions that existing standard tables lack, by table."""
    missing: dict[str, list[Column]] = {}
    for standard in default_tables():
        table = model.tables.get(standard.name)
        if table is None:
            continue
        for column in standard.columns:
            if (table.name, column.name) in default_schema.ADDED_COLUMNS and not _find_catalog_column(
                table, column.name
            ):
                missing.setdefault(table.name, []).append(column)
    return missing


class CatalogAdapter:
    """Catalog with columns, statuses or links that differ from the standard tables.

    Values for missing columns are dropped on writing and empty on reading; the journal contains them. Missing tables
    are empty on reading, and cannot be written.

    Args:
        catalog: The catalog.
        status_terms: The vocabulary of execution statuses; None to read it from the catalog, if it has one.
    """

    def __init__(self, catalog: Catalog, status_terms: frozenset[str] | None = None) -> None:
        self._catalog = catalog
        self._status_terms = status_terms if status_terms is not None else self._read_status_terms()
        self._mapped_model: CatalogModel | None = None
        self._mapping: CatalogMapping | None = None

    def _read_status_terms(self) -> frozenset[str] | None:
        reference = status_vocabulary(self._catalog.model)
        if reference is None:
            return None
        table, column = reference
        return frozenset(row[column] for row in self._catalog.select(table))

    @property
    def mapping(self) -> CatalogMapping:
        """The mapping, derived again after the catalog's model was refreshed."""
        model = self._catalog.model
        if self._mapping is None or self._mapped_model is not model:
            self._mapped_model, self._mapping = model, CatalogMapping.from_model(model, self._status_terms)
        return self._mapping

    @property
    def name(self) -> str:
        return self._catalog.name

    @property
    def model(self) -> CatalogModel:
        return self.mapping.model

    def refresh(self) -> CatalogModel:
        self._catalog.refresh()
        return self.model

    def snapshot(self) -> str:
        return self._catalog.snapshot()

    def at(self, snapshot: str) -> CatalogAdapter:
        return CatalogAdapter(self._catalog.at(snapshot), self._status_terms)

    def cite(self, rid: str, snapshot: str | None = None) -> str:
        return self._catalog.cite(rid, snapshot)

    def transaction(self) -> AbstractContextManager[None]:
        return catalog_transaction(self._catalog)

    def reserve(self, count: int) -> list[str]:
        return self._catalog.reserve(count)

    def insert(self, table: str, rows: Sequence[Mapping[str, Any]], *, skip_existing: bool = False) -> int:
        if not rows and self._is_missing(table):
            return 0
        mapping = self._table_mapping(table)
        if not self._has_type_links(table) or not any(WORKFLOW_TYPE_COLUMN in row for row in rows):
            return self._catalog.insert(table, [mapping.to_catalog(row) for row in rows], skip_existing=skip_existing)
        reserved = iter(self.reserve(sum("RID" not in row for row in rows)))
        with_rids = [row if "RID" in row else {**row, "RID": next(reserved)} for row in rows]
        added = self._catalog.insert(table, [mapping.to_catalog(row) for row in with_rids], skip_existing=skip_existing)
        self._insert_type_links(
            {row["RID"]: row[WORKFLOW_TYPE_COLUMN] for row in with_rids if row.get(WORKFLOW_TYPE_COLUMN) is not None}
        )
        return added

    def insert_missing(self, table: str, rows: Sequence[Mapping[str, Any]], key: str) -> list[Row]:
        mapping = self._table_mapping(table)
        if self._has_type_links(table):
            self.insert(table, rows, skip_existing=True)
            keys = [row[key] for row in rows]
            return order_rows_by_key(table, key, keys, self.select(table, {key: keys}))
        converted = [mapping.to_catalog(row) for row in rows]
        return self._convert_rows(
            table, self._catalog.insert_missing(table, converted, mapping.catalog_names.get(key, key))
        )

    def insert_unless(self, table: str, where: Where, row: Mapping[str, Any]) -> tuple[Row, bool]:
        mapping = self._table_mapping(table)
        condition = mapping.translate_where(self._resolve_type_filters(table, where))
        existing, is_new = self._catalog.insert_unless(table, condition, mapping.to_catalog(row))
        if is_new and self._has_type_links(table) and row.get(WORKFLOW_TYPE_COLUMN) is not None:
            self._insert_type_links({existing["RID"]: row[WORKFLOW_TYPE_COLUMN]})
        return self._convert_rows(table, [existing])[0], is_new

    def update(self, table: str, rows: Sequence[Mapping[str, Any]]) -> int:
        mapping = self._table_mapping(table)
        changed = self._catalog.update(table, [mapping.to_catalog(row) for row in rows])
        types = (
            {row["RID"]: row[WORKFLOW_TYPE_COLUMN] for row in rows if WORKFLOW_TYPE_COLUMN in row}
            if self._has_type_links(table)
            else {}
        )
        if types:
            self._catalog.delete(WORKFLOW_TYPE_LINK_TABLE, {self._type_link_columns()[0]: list(types)})
            self._insert_type_links(types)
        return changed

    def delete(self, table: str, where: Where) -> int:
        if self._is_missing(table):
            return 0
        return self._catalog.delete(
            table, self._table_mapping(table).translate_where(self._resolve_type_filters(table, where))
        )

    def select(
        self,
        table: str,
        where: Where = ALL_ROWS,
        *,
        order: Sequence[str] = ("RID",),
        descending: bool = False,
        limit: int | None = None,
        after: Sequence[Any] = (),
    ) -> list[Row]:
        if self._is_missing(table):
            return []
        mapping = self._table_mapping(table)
        condition = self._translate_where(table, where)
        columns = mapping.translate_order(
            column for column in order if not (column == WORKFLOW_TYPE_COLUMN and self._has_type_links(table))
        )
        columns = columns or (("RID",) if order else ())
        begin = {"after": after} if after else {}
        rows = self._catalog.select(table, condition, order=columns, descending=descending, limit=limit, **begin)
        return self._convert_rows(table, rows)

    def pages(self, table: str, where: Where = ALL_ROWS, *, size: int = 2000) -> Iterator[list[Row]]:
        if self._is_missing(table):
            return iter(())
        condition = self._table_mapping(table).translate_where(self._resolve_type_filters(table, where))
        return (self._convert_rows(table, page) for page in self._catalog.pages(table, condition, size=size))

    def locate(self, rids: Sequence[str], tables: Sequence[str] = ()) -> dict[str, str]:
        existing = [table for table in tables if not self._is_missing(table)]
        return {} if tables and not existing else self._catalog.locate(rids, existing)

    def create_tables(self, tables: Sequence[Table]) -> None:
        self._catalog.create_tables([self._foreign_keys_to_catalog(table) for table in tables])

    def close(self) -> None:
        self._catalog.close()

    def _table_mapping(self, table: str) -> TableMapping:
        mapping = self.mapping.table_mappings.get(table)
        if mapping is not None:
            return mapping
        if table not in self.model.tables:
            self.refresh()
        if self._is_missing(table):
            raise UnknownTable(
                f"{self.name} has no table {table}. Its owner can add the standard tables, without losing data, by "
                "DerivaML.create(hostname, project_name, catalog_id=...)."
            )
        return self.mapping.table_mappings.get(table) or TableMapping(self.model.table(table))

    def _is_missing(self, table: str) -> bool:
        """Whether a table reads as empty because the catalog lacks it; the model is not read again to find out."""
        return table in self.mapping.missing_tables

    def _foreign_keys_to_catalog(self, table: Table) -> Table:
        """Return a table whose foreign keys use the catalog's column names."""
        mappings = self.mapping.table_mappings
        keys = tuple(
            replace(key, to=mappings[key.table].catalog_names.get(key.to, key.to)) if key.table in mappings else key
            for key in table.foreign_keys
        )
        return replace(table, foreign_keys=keys)

    def _translate_where(self, table: str, where: Where) -> Where:
        """Return a condition on a table, with its subqueries, in the catalog's names and values."""
        resolved = self._resolve_type_filters(table, where)
        filters = resolved.filters if isinstance(resolved, AnyOf) else (resolved,)
        translated = tuple(self._translate_subqueries(each) for each in filters)
        condition = AnyOf(translated) if isinstance(resolved, AnyOf) else translated[0]
        return self._table_mapping(table).translate_where(condition)

    def _translate_subqueries(self, where: Filter) -> Filter:
        values = {column: self._translate_subquery(value) for column, value in where.items()}
        return (
            {"RID": ()}
            if any(value is None and where[column] is not None for column, value in values.items())
            else values
        )

    def _translate_subquery(self, value: Any) -> Any:
        """Return a value of a condition in the catalog's names and values; None if it matches nothing."""
        if isinstance(value, AllOf):
            parts = tuple(self._translate_subquery(each) for each in value.conditions)
            return None if None in parts else AllOf(parts)
        if not isinstance(value, InSubquery):
            return value
        if self._is_missing(value.table):
            return None
        names = self._table_mapping(value.table).catalog_names
        where = self._translate_where(value.table, value.where)
        return InSubquery(value.table, where, column=names.get(value.column, value.column))

    # the type of a workflow, if the catalog stores it in a link table

    def _has_type_links(self, table: str) -> bool:
        return table == MLTable.workflow and self.mapping.type_link_columns is not None

    def _type_link_columns(self) -> tuple[str, str]:
        columns = self.mapping.type_link_columns
        assert columns is not None
        return columns

    def _insert_type_links(self, types: Mapping[str, Any]) -> None:
        workflow, kind = self._type_link_columns()
        rows = [{workflow: rid, kind: term} for rid, term in types.items()]
        self._catalog.insert(WORKFLOW_TYPE_LINK_TABLE, rows, skip_existing=True)

    def _convert_rows(self, table: str, rows: list[Row]) -> list[Row]:
        mapping = self._table_mapping(table)
        converted = [mapping.from_catalog(row) for row in rows]
        if converted and self._has_type_links(table):
            workflow, kind = self._type_link_columns()
            links = self._catalog.select(
                WORKFLOW_TYPE_LINK_TABLE, {workflow: [row["RID"] for row in converted]}, order=("RCT",)
            )
            types: dict[str, Any] = {}
            for link in links:
                types.setdefault(link[workflow], link[kind])
            for row in converted:
                row[WORKFLOW_TYPE_COLUMN] = types.get(row["RID"])
        return converted

    def _resolve_type_filters(self, table: str, where: Where) -> Where:
        """Return a condition on the types of workflows as one on their RIDs."""
        if not self._has_type_links(table):
            return where
        if isinstance(where, AnyOf):
            return AnyOf(tuple(self._resolve_type_filter(condition) for condition in where.filters))
        return self._resolve_type_filter(where)

    def _resolve_type_filter(self, condition: Mapping[str, Any]) -> Mapping[str, Any]:
        if WORKFLOW_TYPE_COLUMN not in condition:
            return condition
        workflow, kind = self._type_link_columns()
        rids = {
            row[workflow]
            for row in self._catalog.select(WORKFLOW_TYPE_LINK_TABLE, {kind: condition[WORKFLOW_TYPE_COLUMN]})
        }
        rest = {column: value for column, value in condition.items() if column != WORKFLOW_TYPE_COLUMN}
        selected = rest.get("RID", rids)
        selected_rids = set(selected) if isinstance(selected, (tuple, list, set, frozenset)) else {selected}
        return {**rest, "RID": tuple(rids & selected_rids)}


if TYPE_CHECKING:
    _: type[Catalog] = CatalogAdapter
