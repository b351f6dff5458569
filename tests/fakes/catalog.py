"""One catalog of the fake ERMrest server, in its present and past states."""

from __future__ import annotations

import itertools
from typing import Any

from fakes.model import Model, public_tables
from fakes.numbering import encode, micros_now, snaptime_of, stamp, time_of_snaptime
from fakes.refusals import Refused
from fakes.tables import Table
from fakes.web import User

__all__ = ["Catalog"]

Doc = dict[str, Any]
Row = dict[str, Any]

ACCESSES = ("owner", "enumerate", "create", "write", "insert", "update", "delete", "select")
PREFERENCES = {"tag:isrd.isi.edu,2018:indexing-preferences": {"trgm": True, "btree": True, "gin_array": True}}


class Catalog:
    """A catalog.

    Args:
        number: The catalog's number.
        owners: Users and groups with all rights.
        given: Properties from the request that created it: annotations, name, description.
    """

    past = False
    skew = 0
    """Microseconds that its clock is ahead."""

    def __init__(self, number: str, owners: list[str], given: Doc | None = None) -> None:
        self.number = number
        self._numbers = itertools.count(1840, 2)
        self.acls: dict[str, list[str]] = {access: [] for access in ACCESSES} | {"owner": owners}
        self.annotations: Doc = {**PREFERENCES, **((given or {}).get("annotations") or {})}
        self.titles = {key: value for key, value in (given or {}).items() if key in ("name", "description")}
        self.tables: dict[tuple[str, str], Table] = {}
        self.model = Model(self.new_rid)
        self._time = 0
        self._models: list[tuple[int, str]] = []
        self._model_time = 0
        self.model.add_schema("public", {"comment": "standard public schema"})
        for table in public_tables():
            self.model.add_table("public", table)
        self.save_model()

    # access

    def allows(self, access: str, user: User) -> bool:
        wider = {
            "owner": (),
            "enumerate": ("write", "insert", "update", "delete", "select"),
            "select": ("write",),
            "insert": ("write",),
            "update": ("write",),
            "delete": ("write",),
        }
        return any(user.roles & set(self.acls.get(one) or ()) for one in ("owner", access, *wider.get(access, ())))

    def require(self, access: str, user: User, detail: str) -> None:
        if not self.allows(access, user):
            raise Refused(403 if user.name else 401, detail)

    # time

    def tick(self) -> int:
        """Return the time of a new write, later than all before."""
        self._time = max(self._time + 1, micros_now() + self.skew)
        return self._time

    def save_model(self) -> None:
        """Record that the model has changed."""
        self._model_time = self.tick()
        self._models.append((self._model_time, self.model.text()))
        for schema, doc in self.model.schemas.items():
            for name, table in doc["tables"].items():
                known = self.tables.get((schema, name))
                if known is None:
                    self.tables[schema, name] = Table(table)
                else:
                    known.doc = table

    @property
    def changed(self) -> str:
        return stamp(self._time).replace("T", " ")

    @property
    def remodelled(self) -> str:
        return stamp(self._model_time).replace("T", " ")

    @property
    def snaptime(self) -> str:
        return snaptime_of(self._time)

    def new_rid(self) -> str:
        return encode(next(self._numbers))

    def at(self, snaptime: str) -> Catalog:
        """Return the catalog at a snapshot."""
        if len(snaptime) > 16:
            raise Refused(409, f"22P02\nDETAIL:  {snaptime}\nHINT:  Length exceeds 13 symbols\n")
        try:
            time = time_of_snaptime(snaptime)
        except ValueError:
            time = 0
        if time < self._models[0][0]:
            raise Refused(409, f'Requested catalog revision "{snaptime}" is prior to any known revision.')
        return Past(self, min(time, self._time))

    # the model

    def create(self, given: list[Doc]) -> list[Doc]:
        """Add schemas and tables, all or none."""
        before = self.model.text()
        try:
            made = []
            for doc in given:
                if "table_name" in doc:
                    made.append(self.model.add_table(doc["schema_name"], doc))
                else:
                    made.append(self.model.add_schema(doc["schema_name"], doc))
                    made.extend(self._tables_within(doc))
            for doc in given:
                if "table_name" in doc:
                    self.model.add_foreign_keys(doc["schema_name"], doc)
                for table in (doc.get("tables") or {}).values():
                    self.model.add_foreign_keys(doc["schema_name"], table)
        except Refused:
            self.model.restore(before)
            raise
        self.save_model()
        # the response to an array has a table inside its schema if both were created
        schemas = {doc["schema_name"] for doc in made if "table_name" not in doc}
        return [doc for doc in made if "table_name" not in doc or doc["schema_name"] not in schemas]

    def _tables_within(self, schema: Doc) -> list[Doc]:
        tables = schema.get("tables") or {}
        return [
            self.model.add_table(schema["schema_name"], {**table, "table_name": name}) for name, table in tables.items()
        ]

    def add_column(self, schema: str, table: str, given: Doc) -> Doc:
        if any(one["name"] == given["name"] for one in self.model.table(schema, table)["column_definitions"]):
            raise Refused(409, f"Column {given['name']} already exists in table {schema}:{table}.")
        column = self.model._column(given)
        self.model.table(schema, table)["column_definitions"].append(column)
        self.save_model()
        kept = self.tables[schema, table]
        for rid, row in list(kept.rows.items()):
            kept.put(self._time, rid, {**row, given["name"]: given.get("default")})
        return column

    def add_foreign_key(self, schema: str, table: str, given: Doc) -> Doc:
        self.model.add_foreign_keys(schema, {"table_name": table, "foreign_keys": [given]})
        self.save_model()
        return self.model.table(schema, table)["foreign_keys"][-1]

    def drop_foreign_key(self, schema: str, table: str, columns: str, referenced: str) -> None:
        """Remove the foreign key of these columns to a table, named ``schema:table``."""
        doc = self.model.table(schema, table, status=404)
        kept = [key for key in doc["foreign_keys"] if _reference(key) != (columns, referenced)]
        if len(kept) == len(doc["foreign_keys"]):
            raise Refused(404, f"foreign key {columns} to {referenced} in table {table}")
        doc["foreign_keys"] = kept
        self.save_model()

    def drop_table(self, schema: str, table: str, column: str | None) -> None:
        doc = self.model.table(schema, table, status=404)
        if column is None:
            del self.model.schemas[schema]["tables"][table]
            del self.tables[schema, table]
        else:
            doc["column_definitions"] = [one for one in doc["column_definitions"] if one["name"] != column]
        self.save_model()

    # queries

    def table(self, schema: str | None, name: str) -> Table:
        if schema is None:
            found = [key for key in self.tables if key[1] == name]
            if len(found) != 1:
                raise Refused(409, f"Table {name} does not exist or is ambiguous.")
            schema = found[0][0]
        self.model.table(schema, name)
        return self.tables[schema, name]

    def rows(self, table: Table, rid: str | None = None) -> list[Row]:
        if rid is not None:
            return [table.rows[rid]] if rid in table.rows else []
        return list(table.rows.values())


def _reference(key: Doc) -> tuple[str, str]:
    named = key["referenced_columns"][0]
    columns = ",".join(column["column_name"] for column in key["foreign_key_columns"])
    return columns, f"{named['schema_name']}:{named['table_name']}"


class Past(Catalog):
    """A catalog at a past time.

    Args:
        present: The catalog.
        time: The time.
    """

    past = True

    def __init__(self, present: Catalog, time: int) -> None:
        self.number = present.number
        self.acls, self.annotations = present.acls, present.annotations
        self._present = present
        self.titles = present.titles
        self._models = present._models
        self._model_time, model = next(found for found in reversed(present._models) if found[0] <= time)
        self.model = Model(present.new_rid)
        self.model.restore(model)
        self._time = time
        self.tables = {
            key: table
            for key, table in present.tables.items()
            if key[1] in self.model.schemas.get(key[0], {"tables": ()})["tables"]
        }

    @property
    def changed(self) -> str:
        return f"{super().changed}-{self.snaptime}"

    def rows(self, table: Table, rid: str | None = None) -> list[Row]:
        # the history does not distinguish an empty array from null
        return [{name: None if value == [] else value for name, value in row.items()} for row in table.at(self._time)]
