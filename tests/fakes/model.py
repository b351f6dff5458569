"""The model of a fake catalog: schemas and tables as the real server documents them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from fakes.refusals import Refused

__all__ = ["SYSTEM", "Model", "base_type", "public_tables", "system_columns"]

Doc = dict[str, Any]

SYSTEM = ("RID", "RCT", "RMT", "RCB", "RMB")
DOMAINS = {
    "ermrest_rid": "text",
    "ermrest_rct": "timestamptz",
    "ermrest_rmt": "timestamptz",
    "ermrest_rcb": "text",
    "ermrest_rmb": "text",
    "ermrest_curie": "text",
    "ermrest_uri": "text",
    "markdown": "text",
    "longtext": "text",
    "gene_sequence": "text",
    "color_rgb_hex": "text",
}
PLAIN = {
    "text", "int2", "int4", "int8", "float4", "float8", "boolean", "date", "timestamp", "timestamptz", "json", "jsonb",
    "serial4", "serial8", "uuid",
}  # fmt: skip
SYSTEM_DEFAULTS = {
    "RID": "_ermrest.urlb32_encode(nextval('_ermrest.rid_seq'::regclass))",
    "RCT": "now()",
    "RMT": "now()",
    "RCB": "_ermrest.current_client()",
    "RMB": "_ermrest.current_client()",
}


def base_type(type_: Doc) -> str:
    """Return the type in which values are stored."""
    return DOMAINS.get(type_["typename"], type_["typename"])


def full_type(type_: Doc) -> Doc:
    name = type_["typename"]
    if name in DOMAINS:
        return {"is_domain": True, "typename": name, "base_type": {"typename": DOMAINS[name]}}
    if name.endswith("[]"):
        return {"typename": name, "is_array": True, "base_type": full_type({"typename": name[:-2]})}
    if name not in PLAIN:
        raise Refused(409, f'Unsupported type "{name}"')
    return {"typename": name}


def system_columns() -> list[Doc]:
    return [
        {"name": name, "type": {"typename": f"ermrest_{name.lower()}"}, "nullok": name in ("RCB", "RMB")}
        for name in SYSTEM
    ]


def public_tables() -> list[Doc]:
    """Return the tables that every catalog has."""

    def table(name: str, *columns: str, keys: tuple[str, ...] = ("ID",)) -> Doc:
        return {
            "schema_name": "public",
            "table_name": name,
            "column_definitions": [
                *system_columns(),
                *({"name": column, "type": {"typename": "text"}, "nullok": column != "ID"} for column in columns),
            ],
            "keys": [{"unique_columns": ["RID"]}, *({"unique_columns": [key]} for key in keys)],
        }

    client = table("ERMrest_Client", "ID", "Display_Name", "Full_Name", "Email")
    client["column_definitions"].append({"name": "Client_Object", "type": {"typename": "jsonb"}, "nullok": True})
    group = table("ERMrest_Group", "ID", "URL", "Display_Name", "Description")
    return [client, group, table("ERMrest_RID_Lease", "ID")]


class Model:
    """Schemas by name, as documents.

    Args:
        number: Function that returns the next RID.
    """

    def __init__(self, number: Callable[[], str]) -> None:
        self._number = number
        self.schemas: dict[str, Doc] = {}

    def text(self) -> str:
        """Return the model as JSON."""
        return json.dumps(self.schemas)

    def restore(self, text: str) -> None:
        """Restore the model from JSON."""
        self.schemas = json.loads(text)

    def schema(self, name: str, *, status: int = 409) -> Doc:
        if name not in self.schemas:
            raise Refused(status, f"Schema {name} does not exist." if status == 409 else f"schema {name}")
        return self.schemas[name]

    def table(self, schema: str, name: str, *, status: int = 409) -> Doc:
        tables = self.schema(schema, status=status)["tables"]
        if name not in tables:
            raise Refused(
                status,
                f"Table {name} does not exist in schema {schema}."
                if status == 409
                else f"table {name} in schema {schema}",
            )
        found: Doc = tables[name]
        return found

    def add_schema(self, name: str, given: Doc) -> Doc:
        if name in self.schemas:
            raise Refused(409, f"Requested schema {name} already exists.")
        self.schemas[name] = {
            "RID": self._number(),
            "schema_name": name,
            "comment": given.get("comment"),
            "rights": {"owner": True, "create": True},
            "annotations": given.get("annotations") or {},
            "tables": {},
            "acls": given.get("acls") or {},
        }
        return self.schemas[name]

    def add_table(self, schema: str, given: Doc) -> Doc:
        """Add a table without foreign keys, which `add_foreign_keys` adds once all tables exist."""
        name = given["table_name"]
        tables = self.schema(schema)["tables"]
        if name in tables:
            raise Refused(409, f"Table {name} already exists in schema {schema}.")
        columns = given.get("column_definitions", [])
        tables[name] = doc = {
            "RID": self._number(),
            "schema_name": schema,
            "table_name": name,
            "rights": {"select": True, "update": True, "delete": True, "owner": True, "insert": True},
            "column_definitions": [self._column(column) for column in columns],
            "keys": [self._key(schema, name, key) for key in given.get("keys", [])],
            "foreign_keys": [],
            "kind": "table",
            "comment": given.get("comment"),
            "annotations": given.get("annotations") or {},
            "acls": given.get("acls") or {},
            "acl_bindings": given.get("acl_bindings") or {},
        }
        return doc

    def add_foreign_keys(self, schema: str, given: Doc) -> None:
        doc = self.table(schema, given["table_name"])
        doc["foreign_keys"] += [self._foreign_key(schema, doc, key) for key in given.get("foreign_keys", [])]

    def _column(self, given: Doc) -> Doc:
        name = given["name"]
        full_type(given["type"])
        return {
            "RID": self._number(),
            "name": name,
            "rights": {
                "select": True,
                "update": name not in ("RID", "RMT", "RCB", "RMB"),
                "delete": True,
                "insert": name not in ("RMT", "RMB"),
            },
            "type": given["type"],
            "default": given.get("default"),
            "nullok": given.get("nullok", True),
            "comment": given.get("comment"),
            "annotations": given.get("annotations") or {},
            "acls": given.get("acls") or {},
            "acl_bindings": given.get("acl_bindings") or {},
        }

    def _key(self, schema: str, table: str, given: Doc) -> Doc:
        columns = given["unique_columns"]
        return {
            "RID": self._number(),
            "comment": given.get("comment"),
            "annotations": given.get("annotations") or {},
            "unique_columns": columns,
            "names": [[schema, name[1]] for name in given.get("names") or []]
            or [[schema, f"{table}_{'_'.join(columns)}_key"]],
        }

    def _foreign_key(self, schema: str, doc: Doc, given: Doc) -> Doc:
        named = given["referenced_columns"]
        referenced = self.table(named[0]["schema_name"], named[0]["table_name"])
        columns = [column["column_name"] for column in named]
        if not any(set(key["unique_columns"]) == set(columns) for key in referenced["keys"]):
            raise Refused(409, f"No key exists on {columns} of {referenced['table_name']}.")
        own = [column["column_name"] for column in given["foreign_key_columns"]]
        return {
            "RID": self._number(),
            "foreign_key_columns": [
                {"schema_name": schema, "table_name": doc["table_name"], "column_name": column} for column in own
            ],
            "referenced_columns": named,
            "rights": {"update": True, "insert": own != ["RMB"]}
            if own[0] not in ("RCB", "RMB")
            else {"update": False, "insert": own == ["RCB"]},
            "comment": given.get("comment"),
            "annotations": given.get("annotations") or {},
            "names": [[schema, name[1]] for name in given.get("names") or []]
            or [[schema, f"{doc['table_name']}_{'_'.join(own)}_fkey"]],
            "acls": given.get("acls") or {"insert": ["*"], "update": ["*"]},
            "acl_bindings": given.get("acl_bindings") or {},
            "on_delete": given.get("on_delete") or "NO ACTION",
            "on_update": given.get("on_update") or "NO ACTION",
        }

    def shown_table(self, doc: Doc, *, owner: bool, past: bool = False) -> Doc:
        """Return a table as GET returns it, with full types and the defaults of system columns."""
        rights = doc["rights"] if owner else {**doc["rights"], "owner": False}
        if past:
            rights = {right: right == "select" for right in rights}
        return {
            **doc,
            "rights": rights,
            "column_definitions": [
                {
                    **column,
                    "rights": {
                        right: allowed and not (past and right != "select")
                        for right, allowed in column["rights"].items()
                    },
                    "type": full_type(column["type"]),
                    "default": SYSTEM_DEFAULTS.get(column["name"], column["default"]),
                }
                for column in doc["column_definitions"]
            ],
            "foreign_keys": [
                {**key, "rights": {right: allowed and not past for right, allowed in key["rights"].items()}}
                for key in doc["foreign_keys"]
            ],
        }

    def shown_schema(self, doc: Doc, *, owner: bool, past: bool = False) -> Doc:
        return {
            **doc,
            "rights": {"owner": owner, "create": owner},
            "tables": {name: self.shown_table(table, owner=owner, past=past) for name, table in doc["tables"].items()},
        }
