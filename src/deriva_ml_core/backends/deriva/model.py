"""Conversion between a server's schema documents and the catalog model."""

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

__all__ = [
    "SYSTEM_SCHEMAS",
    "column_converters",
    "column_document",
    "is_array_type",
    "parse_model",
    "schema_documents",
]

Document = Mapping[str, Any]

SYSTEM_SCHEMAS = ("public", "_ermrest", "_ermrest_history", "WWW")
"""Schemas of the server, which contain no tables of a project."""

_BASE_TYPES = {"serial4": "int4", "serial8": "int8", "timestamp": "timestamptz"}


def parse_model(document: Document) -> CatalogModel:
    """Return the tables in a catalog's schema document.

    If several schemas have a table of the same name, the one in ``deriva-ml`` counts, else the one in the schema whose
    name sorts first.
    """
    schemas = {name: schema for name, schema in document["schemas"].items() if name not in SYSTEM_SCHEMAS}
    tables: dict[str, Table] = {}
    for name in sorted(schemas, key=lambda schema_name: (schema_name != ML_SCHEMA, schema_name)):
        for table, description in schemas[name]["tables"].items():
            if description.get("kind", "table") == "table":
                tables.setdefault(table, _parse_table(description))
    return CatalogModel(tables)


def _parse_table(document: Document) -> Table:
    columns = [column for column in document["column_definitions"] if column["name"] not in SYSTEM_COLUMNS]
    keys = (tuple(key["unique_columns"]) for key in document["keys"])
    return Table(
        name=document["table_name"],
        columns=tuple(_parse_column(column) for column in columns),
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
        columns, referenced = key["foreign_key_columns"], key["referenced_columns"]
        if (
            len(columns) == 1
            and referenced[0]["schema_name"] not in SYSTEM_SCHEMAS
            and columns[0]["column_name"] not in SYSTEM_COLUMNS
        ):
            yield ForeignKey(
                column=columns[0]["column_name"],
                table=referenced[0]["table_name"],
                to=referenced[0]["column_name"],
                cascade=key.get("on_delete") == "CASCADE",
            )


Converter = Callable[[Any], Any]


def column_converters(table: Table) -> dict[str, Converter]:
    """Return the functions that convert the server's values, for the columns that need one."""
    types = {column.name: column.type for column in table.columns} | {"RCT": "timestamptz", "RMT": "timestamptz"}
    converters = {"timestamptz": _normalize_timestamp, "float8": _convert_float, "float4": _convert_float}
    return {
        name: _convert_array if is_array_type(column_type) else converters[column_type]
        for name, column_type in types.items()
        if is_array_type(column_type) or column_type in converters
    }


def is_array_type(column_type: str) -> bool:
    """Whether a column's type is an array."""
    return column_type.endswith("[]")


def _normalize_timestamp(text: Any) -> Any:
    """Write all six fractional digits, so that texts sort like times; the server omits trailing zeros."""
    if text is None or (len(text) == 32 and text.endswith("+00:00")):
        return text
    try:
        return datetime.fromisoformat(text).astimezone(UTC).isoformat(timespec="microseconds")
    except (ValueError, OverflowError):  # PostgreSQL also has 'infinity' and years that Python has not
        return text


def _convert_array(values: Any) -> Any:
    """Return None for an empty array: the server returns null for it at a snapshot."""
    return values or None


def _convert_float(number: Any) -> Any:
    return None if number is None else float(number)


# documents that are sent

_SYSTEM_COLUMN_TITLES = {
    "RID": "Record ID",
    "RCT": "Creation Time",
    "RMT": "Modified Time",
    "RCB": "Created By",
    "RMB": "Modified By",
}


def table_document(table: Table, get_schema: Callable[[str], str], new_tables: Mapping[str, Table]) -> dict[str, Any]:
    """Return the document that creates a table, with annotations for Chaise.

    Args:
        table: The table.
        get_schema: Function that returns the schema of a table that foreign keys refer to.
        new_tables: All tables that the same request creates, by name.
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
            *(column_document(table, column) for column in table.columns),
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


def column_document(table: Table, column: Column) -> dict[str, Any]:
    """Return the document that describes a column to ERMrest."""
    kind: dict[str, Any] = {"typename": column.type}
    if is_array_type(column.type):
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
        # rows that refer to a term follow when the term is renamed
        "on_update": "CASCADE" if key.cascade or (key.to != "RID" and schema != "public") else "NO ACTION",
        "on_delete": "CASCADE" if key.cascade else "NO ACTION",
        "names": [foreign_key_name(table, key.column)],
        "annotations": foreign_key_annotations(table, key),
    }


def schema_documents(
    model: CatalogModel, tables: Iterable[Table], schemas: Iterable[str], extra_schemas: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Return the documents of one request that creates tables and their missing schemas.

    Args:
        model: The existing tables.
        tables: The tables to create.
        schemas: The existing schemas.
        extra_schemas: Additional schemas to create, without tables.

    Raises:
        UnknownTable: A foreign key refers to a table that neither exists nor is created.
    """
    new = list(tables)
    schema_by_table = {table.name: table.schema for table in (*model.tables.values(), *new)}

    def get_schema(name: str) -> str:
        if name not in schema_by_table:
            raise UnknownTable(f"A foreign key refers to {name!r}, which is not a table; create that first.")
        return schema_by_table[name]

    missing = dict.fromkeys(
        name for name in (*(table.schema for table in new), *extra_schemas) if name not in set(schemas)
    )
    schema_creations = [
        {"schema_name": name, "comment": None, "annotations": UNDERSCORES_AS_SPACES} for name in missing
    ]
    new_tables = {table.name: table for table in new}
    return [*schema_creations, *(table_document(table, get_schema, new_tables) for table in new)]
