"""A catalog's tables, between the server's documents and our values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from deriva_ml_core.backends.deriva.chaise import (
    UNDERSCORES_AS_SPACES,
    column_annotations,
    foreign_key_annotations,
    foreign_key_name,
    table_annotations,
    title_annotation,
)
from deriva_ml_core.errors import UnknownTable
from deriva_ml_core.schema import ML_SCHEMA, SYSTEM_COLUMNS, CatalogModel, Column, ForeignKey, Table

__all__ = ["SYSTEM_SCHEMAS", "column_converters", "parse_model", "schema_documents"]

Document = Mapping[str, Any]

SYSTEM_SCHEMAS = ("public", "_ermrest", "_ermrest_history", "WWW")
"""Schemas that hold no tables of a project."""

_BASE_TYPES = {"serial4": "int4", "serial8": "int8", "timestamp": "timestamptz"}


def parse_model(document: Document) -> CatalogModel:
    """The tables that a catalog's schema document names.

    A name that several schemas have means the one of ``deriva-ml``, else the first by the schema's name.
    """
    schemas = {name: schema for name, schema in document["schemas"].items() if name not in SYSTEM_SCHEMAS}
    tables: dict[str, Table] = {}
    for name in sorted(schemas, key=lambda one: (one != ML_SCHEMA, one)):
        for table, described in schemas[name]["tables"].items():
            if described.get("kind", "table") == "table":
                tables.setdefault(table, _parse_table(described))
    return CatalogModel(tables)


def _parse_table(document: Document) -> Table:
    own = [column for column in document["column_definitions"] if column["name"] not in SYSTEM_COLUMNS]
    keys = (tuple(key["unique_columns"]) for key in document["keys"])
    return Table(
        name=document["table_name"],
        columns=tuple(_parse_column(column) for column in own),
        keys=tuple(key for key in keys if key != ("RID",)),
        foreign_keys=tuple(_parse_foreign_keys(document)),
        schema=document["schema_name"],
        comment=document.get("comment"),
    )


def _parse_column(document: Document) -> Column:
    kind = document["type"]["typename"]
    default = document.get("default")
    return Column(
        name=document["name"],
        type=_BASE_TYPES.get(kind, kind),
        nullok=document.get("nullok", True),
        default=default if default is None else str(default),
        comment=document.get("comment"),
    )


def _parse_foreign_keys(document: Document) -> Iterable[ForeignKey]:
    for key in document["foreign_keys"]:
        own, named = key["foreign_key_columns"], key["referenced_columns"]
        if (
            len(own) == 1
            and named[0]["schema_name"] not in SYSTEM_SCHEMAS
            and own[0]["column_name"] not in SYSTEM_COLUMNS
        ):
            yield ForeignKey(
                column=own[0]["column_name"],
                table=named[0]["table_name"],
                to=named[0]["column_name"],
                cascade=key.get("on_delete") == "CASCADE",
            )


Converter = Callable[[Any], Any]


def column_converters(table: Table) -> dict[str, Converter]:
    """What turns the server's values into ours, for the columns that need it."""
    kinds = {column.name: column.type for column in table.columns} | {"RCT": "timestamptz", "RMT": "timestamptz"}
    found = {"timestamptz": _normalize_timestamp, "float8": _convert_float, "float4": _convert_float}
    return {name: found[kind] for name, kind in kinds.items() if kind in found}


def _normalize_timestamp(text: Any) -> Any:
    """With all six digits, so that texts have the order of the times; the server leaves zeros out."""
    if text is None or (len(text) == 32 and text.endswith("+00:00")):
        return text
    return datetime.fromisoformat(text).astimezone(UTC).isoformat(timespec="microseconds")


def _convert_float(number: Any) -> Any:
    return None if number is None else float(number)


# what is sent

_SYSTEM_COLUMN_TITLES = {
    "RID": "Record ID",
    "RCT": "Creation Time",
    "RMT": "Modified Time",
    "RCB": "Created By",
    "RMB": "Modified By",
}


def table_document(table: Table, get_schema: Callable[[str], str], new_tables: Mapping[str, Table]) -> dict[str, Any]:
    """What the server is asked to make, shown well by Chaise.

    Args:
        table: The table.
        get_schema: The schema of each table that foreign keys name.
        new_tables: All tables that are made with it, by name.
    """
    clients = [
        _foreign_key_document(table, ForeignKey(column, "ERMrest_Client", "ID"), "public") for column in ("RCB", "RMB")
    ]
    own = [_foreign_key_document(table, key, get_schema(key.table)) for key in table.foreign_keys]
    return {
        "schema_name": table.schema,
        "table_name": table.name,
        "kind": "table",
        "comment": table.comment,
        "annotations": table_annotations(table, new_tables),
        "column_definitions": [
            *_system_column_documents(),
            *(_column_document(table, column) for column in table.columns),
        ],
        "keys": [{"unique_columns": list(columns)} for columns in (("RID",), *table.keys)],
        "foreign_keys": [*clients, *own],
    }


def _system_column_documents() -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "type": {"typename": f"ermrest_{name.lower()}"},
            "nullok": name in ("RCB", "RMB"),
            "default": None,
            "comment": None,
            "annotations": title_annotation(title),
        }
        for name, title in _SYSTEM_COLUMN_TITLES.items()
    ]


def _column_document(table: Table, column: Column) -> dict[str, Any]:
    kind: dict[str, Any] = {"typename": column.type}
    if column.type.endswith("[]"):
        kind |= {"is_array": True, "base_type": {"typename": column.type[:-2]}}
    return {
        "name": column.name,
        "type": kind,
        "nullok": column.nullok,
        "default": column.default,
        "comment": column.comment,
        "annotations": column_annotations(table, column),
    }


def _foreign_key_document(table: Table, key: ForeignKey, schema: str) -> dict[str, Any]:
    return {
        "foreign_key_columns": [{"schema_name": table.schema, "table_name": table.name, "column_name": key.column}],
        "referenced_columns": [{"schema_name": schema, "table_name": key.table, "column_name": key.to}],
        # a term that gets another name takes its rows with it
        "on_update": "CASCADE" if key.cascade or (key.to != "RID" and schema != "public") else "NO ACTION",
        "on_delete": "CASCADE" if key.cascade else "NO ACTION",
        "names": [foreign_key_name(table, key.column)],
        "annotations": foreign_key_annotations(table, key),
    }


def schema_documents(
    model: CatalogModel, tables: Iterable[Table], schemas: Iterable[str], extra_schemas: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The documents of one request that makes tables, and those of their schemas that are not there yet.

    Args:
        model: The tables that are there.
        tables: The tables to make.
        schemas: The schemas that are there.
        extra_schemas: Further schemas to make, without tables.

    Raises:
        UnknownTable: A foreign key refers to a table that is neither there nor given.
    """
    new = list(tables)
    places = {table.name: table.schema for table in (*model.tables.values(), *new)}

    def get_schema(name: str) -> str:
        if name not in places:
            raise UnknownTable(f"A foreign key refers to {name!r}, which is no table; make that first.")
        return places[name]

    missing = dict.fromkeys(
        name for name in (*(table.schema for table in new), *extra_schemas) if name not in set(schemas)
    )
    made = [{"schema_name": name, "comment": None, "annotations": UNDERSCORES_AS_SPACES} for name in missing]
    together = {table.name: table for table in new}
    return [*made, *(table_document(table, get_schema, together) for table in new)]
