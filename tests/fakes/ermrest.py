"""A small ERMrest server: catalogs in memory, with the responses of the recordings."""

from __future__ import annotations

import copy
import hashlib
import re
import threading
from typing import Any
from urllib.parse import unquote

from fakes.catalog import Catalog
from fakes.paths import Query, aggregates, evaluate, ordered, parse_columns, parse_order, split
from fakes.refusals import Refused
from fakes.tables import Table
from fakes.web import Answer, Request
from fakes.writing import delete_attributes, delete_rows, insert, update

__all__ = ["Ermrest"]

FEATURES = {
    "trs": True,
    "tcrs": True,
    "history_control": True,
    "implicit_fkey_index": True,
    "catalog_post_input": True,
    "catalog_alias": True,
    "indexing_preferences": {"btree": True, "btree_column_list": True, "trgm": True, "gin_array": True},
    "quantified_value_lists": True,
    "quantified_rid_lists": True,
    "rid_lease": True,
    "registry_catalog": True,
    "csv_array_json": True,
}
PATH_LIMIT = 4000
APACHE_404 = """<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 4.01//EN" "http://www.w3.org/TR/html4/strict.dtd">
<html><head>
<title>404 Not Found</title>
</head><body>
<h1>Not Found</h1>
<p>The requested URL was not found on this server.</p>
</body></html>
"""
FLASK_404 = """<!doctype html>
<html lang=en>
<title>404 Not Found</title>
<h1>Not Found</h1>
<p>The requested URL was not found on the server. If you entered the URL manually please check your spelling and try again.</p>
"""  # noqa: E501


class Ermrest:
    """All catalogs of a server.

    Args:
        first: Number of the first catalog.
    """

    def __init__(self, first: int = 1) -> None:
        self._next = first
        self._catalogs: dict[str, Catalog] = {}
        self._lock = threading.RLock()

    def answer(self, request: Request) -> Answer:
        if len(unquote(request.path)) > PATH_LIMIT:
            return Answer.text(404, APACHE_404, "text/html; charset=iso-8859-1")
        with self._lock:
            return self._answer(request)

    def catalog(self, number: str) -> Catalog:
        if number not in self._catalogs:
            raise Refused(404, f"catalog {number}")
        return self._catalogs[number]

    def _answer(self, request: Request) -> Answer:
        parts = request.path.removeprefix("/ermrest/").split("/")
        if parts == [""]:
            return Answer.json(200, {"version": "0.5.0", "features": FEATURES})
        if parts == ["catalog"] and request.method == "POST":
            return self._create(request)
        if parts[0] != "catalog" or len(parts) < 2:
            return Answer.text(404, FLASK_404, "text/html; charset=utf-8")
        if request.method == "HEAD":
            return Answer.text(500, "")
        number, _, snaptime = unquote(parts[1]).partition("@")
        catalog = self.catalog(number)
        catalog.require("enumerate", request.user, f"enumerate access on catalog/{number}")
        if snaptime:
            past = catalog.at(snaptime)
            if request.method not in ("GET", "HEAD"):
                raise Refused(403, "modification to catalog at previous revision")
            return Exchange(self, past, request, parts[2:]).answer()
        return Exchange(self, catalog, request, parts[2:]).answer()

    def _create(self, request: Request) -> Answer:
        user = request.user
        if user.name is None:
            raise Refused(401, "catalog")
        if "admin" not in user.groups:
            raise Refused(403, "catalog")
        given = request.json() if request.body else {}
        number = str(self._next)
        self._next += 1
        self._catalogs[number] = Catalog(number, given.get("owner") or [user.name], given)
        return Answer.text(201, f'{{"id": "{number}"}}', "application/json", Location=f"/ermrest/catalog/{number}")

    def copy_of(self, number: str) -> str:
        """Create a copy of a catalog, and return its number."""
        with self._lock:
            made = copy.deepcopy(self.catalog(number))
            made.number = str(self._next)
            self._next += 1
            self._catalogs[made.number] = made
            return made.number

    @property
    def numbers(self) -> list[str]:
        """Numbers of all existing catalogs."""
        return list(self._catalogs)

    def drop(self, number: str) -> None:
        del self._catalogs[number]


class Exchange:
    """One request to one catalog.

    Args:
        ermrest: The server.
        catalog: The catalog, in its present state or a past one.
        request: The request.
        parts: The encoded path after the catalog's number.
    """

    def __init__(self, ermrest: Ermrest, catalog: Catalog, request: Request, parts: list[str]) -> None:
        self.ermrest, self.catalog, self.request = ermrest, catalog, request
        self.parts = parts
        self.kind = parts[0] if parts else ""
        self.rest = "/".join(parts[1:])

    def answer(self) -> Answer:
        handler = getattr(self, f"_{self.kind or 'catalog'}", None)
        if handler is None:
            return Answer.text(404, FLASK_404, "text/html; charset=utf-8")
        data = self.kind in ("entity", "attribute", "attributegroup", "aggregate")
        if (refused := self._precondition(data)) is not None:
            return refused
        answer: Answer = handler()
        if answer.status == 405:
            return answer
        answer.headers.setdefault("ETag", self._etag(data))
        answer.headers.setdefault("Vary", "cookie")
        return answer

    def _etag(self, data: bool) -> str:
        roles = hashlib.md5(" ".join(sorted(self.request.user.roles)).encode()).hexdigest()[:22]
        if data:
            return f'"{roles}==;{self.request.accept};{self.catalog.changed}"'
        return f'"{roles}==;*;{self.catalog.snaptime if not self.kind else self.catalog.remodelled}"'

    def _precondition(self, data: bool) -> Answer | None:
        etag = self._etag(data)
        wanted, unwanted = self.request.headers.get("if-match"), self.request.headers.get("if-none-match")
        fails = (wanted not in (None, "*", etag)) or unwanted in ("*", etag)
        if not fails:
            return None
        if self.request.method in ("GET", "HEAD"):
            return Answer(304, b"", {"ETag": etag})
        raise Refused(412, headers={"ETag": etag})

    def _owner(self) -> bool:
        return not self.catalog.past and self.catalog.allows("owner", self.request.user)

    # the catalog itself

    def _catalog(self) -> Answer:
        if self.request.method == "DELETE":
            self.catalog.require("owner", self.request.user, f"delete access on catalog/{self.catalog.number}")
            self.ermrest.drop(self.catalog.number)
            return Answer(204)
        return Answer.json(
            200, {**self._header(), "id": self.catalog.number, "is_persistent": True, **self.catalog.titles}
        )

    def _header(self) -> dict[str, Any]:
        owner = self._owner()
        return {
            "snaptime": self.catalog.snaptime,
            "annotations": self.catalog.annotations,
            "rights": {"owner": owner, "create": owner},
            "features": FEATURES,
            "acls": self.catalog.acls,
        }

    def _acl(self) -> Answer:
        if self.request.method == "PUT":
            self.catalog.require("owner", self.request.user, f"owner access on catalog/{self.catalog.number}")
            given = self.request.json()
            self.catalog.acls.update({self.rest: given} if self.rest else given)
            self.catalog.save_model()
            return Answer.json(200, given)
        return Answer.json(200, self.catalog.acls.get(self.rest) if self.rest else self.catalog.acls)

    def _annotation(self) -> Answer:
        return self._annotations(self.catalog.annotations, self.rest)

    def _annotations(self, annotations: dict[str, Any], name: str) -> Answer:
        name = unquote(name)
        if self.request.method == "PUT":
            self.catalog.require("owner", self.request.user, "annotation")
            given = self.request.json()
            if not name:
                annotations.clear()
                annotations.update(given)
            else:
                annotations[name] = given
            self.catalog.save_model()
            return Answer.text(201 if name else 204, "")
        if name and name not in annotations:
            raise Refused(404, f"annotation {name}")
        return Answer.json(200, annotations[name] if name else annotations)

    # the model

    def _schema(self) -> Answer:
        names = [unquote(part) for part in self.parts[1:]]
        model = self.catalog.model
        if self.request.method == "GET":
            return self._get_model(names)
        self.catalog.require(
            "owner", self.request.user, "create access on <ermrest.model.schema.Model object at 0x7f8360485510>"
        )
        if self.request.method == "POST":
            return self._create_in_model(names)
        if self.request.method == "PUT" and (names[1:2] == ["table"] or len(names) == 1):
            return self._alter_model(names)
        if self.request.method == "DELETE" and names[1:2] == ["table"]:
            if names[3:4] == ["foreignkey"]:
                self.catalog.drop_foreign_key(names[0], names[2], names[4], names[6])
            else:
                self.catalog.drop_table(names[0], names[2], names[4] if names[3:4] == ["column"] else None)
            return Answer(204)
        if self.request.method == "DELETE" and len(names) == 1:
            if tables := model.schema(names[0], status=404)["tables"]:
                listed = "\n".join(f'table {names[0]}."{name}" depends on schema {names[0]}' for name in tables)
                raise Refused(
                    409,
                    f"cannot drop schema {names[0]} because other objects depend on it\nDETAIL:  {listed}\n"
                    "HINT:  Use DROP ... CASCADE to drop the dependent objects too.\n",
                )
            del model.schemas[names[0]]
            self.catalog.save_model()
            return Answer(204)
        raise Refused(405)

    def _get_model(self, names: list[str]) -> Answer:
        model, owner = self.catalog.model, self._owner()
        if not names:
            schemas = {
                name: model.shown_schema(doc, owner=owner, past=self.catalog.past)
                for name, doc in model.schemas.items()
            }
            return Answer.json(200, {**self._header(), "schemas": schemas})
        if len(names) == 1:
            return Answer.json(
                200, model.shown_schema(model.schema(names[0], status=404), owner=owner, past=self.catalog.past)
            )
        if names[1] == "table" and len(names) == 3:
            return Answer.json(
                200, model.shown_table(model.table(names[0], names[2], status=404), owner=owner, past=self.catalog.past)
            )
        return Answer.text(404, FLASK_404, "text/html; charset=utf-8")

    def _create_in_model(self, names: list[str]) -> Answer:
        if not names:
            given = self.request.json()
            listed = list(given["schemas"].values()) if isinstance(given, dict) else given
            made = self.catalog.create(listed)
            if isinstance(given, dict):
                return Answer.json(201, {"schemas": {doc["schema_name"]: doc for doc in made}})
            return Answer.json(201, made)
        if len(names) == 1:
            self.catalog.create([{"schema_name": names[0]}])
            return Answer.text(201, "")
        if names[1:] == ["table"]:
            return Answer.json(201, self.catalog.create([{**self.request.json(), "schema_name": names[0]}])[0])
        if names[3:] == ["foreignkey"]:
            given = self.request.json()
            return Answer.json(201, self.catalog.add_foreign_key(names[0], names[2], given))
        if names[3:] == ["column"]:
            return Answer.json(201, self.catalog.add_column(names[0], names[2], self.request.json()))
        raise Refused(405)

    def _alter_model(self, names: list[str]) -> Answer:
        if len(names) == 1:
            doc = self.catalog.model.schema(names[0], status=404)
        else:
            doc = self.catalog.model.table(names[0], names[2], status=404)
        if names[3:4] == ["annotation"]:
            return self._annotations(doc["annotations"], "/".join(names[4:]))
        if names[3:4] == ["column"]:
            doc = next(column for column in doc["column_definitions"] if column["name"] == names[4])
        if names[3:4] == ["foreignkey"]:
            return Answer.json(200, {})
        given = self.request.json()
        allowed = ("comment", "annotations", "acls", "acl_bindings", "nullok", "default")
        doc.update({key: given[key] for key in allowed if key in given})
        self.catalog.save_model()
        return Answer.json(
            200, doc if names[3:4] or len(names) == 1 else self.catalog.model.shown_table(doc, owner=True)
        )

    # rows

    def _entity(self) -> Answer:
        method = self.request.method
        if method == "POST":
            table = self._target(self.rest)
            self._may("insert", table)
            return Answer.json(200, insert(self.catalog, table, self.request))
        path, order = parse_order(self.rest)
        if method == "GET":
            query = evaluate(self.catalog, path)
            self._may("select", query.table)
            rows = [query.table.shown_row(row) for row in query.entities()]
            return Answer.json(200, ordered(rows, order, self._limit()))
        if method == "DELETE":
            query = evaluate(self.catalog, path)
            self._may("delete", query.table)
            delete_rows(self.catalog, query.table, [row["RID"] for row in query.entities()])
            return Answer(204)
        raise Refused(405)

    def _attribute(self) -> Answer:
        path, order = parse_order(self.rest)
        bare, _, columns = path.rpartition("/")
        query = evaluate(self.catalog, bare)
        if self.request.method == "DELETE":
            self._may("update", query.table)
            delete_attributes(self.catalog, query.table, query.entities(), columns)
            return Answer(204)
        self._may("select", query.table)
        projected = list(parse_columns(query, columns))
        rows = [{column.name: column.read(row) for column in projected} for row in query.rows]
        return Answer.json(200, ordered(rows, order, self._limit()))

    def _aggregate(self) -> Answer:
        bare, _, columns = self.rest.rpartition("/")
        query = evaluate(self.catalog, bare)
        self._may("select", query.table)
        return Answer.json(200, [aggregates(query, columns)(query.rows)])

    def _attributegroup(self) -> Answer:
        path, order = parse_order(self.rest)
        bare, _, columns = path.rpartition("/")
        keys, _, targets = columns.partition(";")
        if self.request.method == "PUT":
            table = self._target(bare)
            self._may("update", table)
            return Answer.json(200, update(self.catalog, table, keys, targets, self.request))
        if self.request.method != "GET":
            return Answer.text(405, "Request method not allowed on this resource.\n")
        query = evaluate(self.catalog, bare)
        self._may("select", query.table)
        rows = self._grouped(query, keys, targets)
        order = order if order.keys else parse_order(f"@sort({','.join(split(keys, ','))})")[1]
        return Answer.json(200, ordered(rows, order, self._limit()))

    def _grouped(self, query: Query, keys: str, targets: str) -> list[dict[str, Any]]:
        projected = list(parse_columns(query, keys))
        groups: dict[tuple[Any, ...], list[Any]] = {}
        for row in query.rows:
            groups.setdefault(tuple(column.read(row) for column in projected), []).append(row)
        compute = aggregates(query, targets)
        names = [column.name for column in projected]
        return [{**dict(zip(names, key, strict=True)), **compute(rows)} for key, rows in groups.items()]

    def _entity_rid(self) -> Answer:
        rid = unquote(self.rest)
        for table in self.catalog.tables.values():
            if any(row["RID"] == rid for row in self.catalog.rows(table, rid)):
                return Answer.json(200, {"RID": rid, "schema_name": table.schema, "table_name": table.name})
        raise Refused(404, f"entity with RID={rid}")

    def _target(self, path: str) -> Table:
        schema, _, name = path.rpartition(":=")[2].rpartition(":")
        return self.catalog.table(unquote(schema) or None, unquote(name))

    def _may(self, access: str, table: Table) -> None:
        if table.schema == "public" and self.request.user.name and access in ("select", "insert"):
            return
        self.catalog.require(access, self.request.user, f"{access} access on :{table.schema}:{table.name}")

    def _limit(self) -> int | None:
        limit = self.request.parameters.get("limit", "none")
        if limit == "none":
            return None
        if not re.fullmatch(r"\d+", limit):
            raise Refused(400, 'The "limit" query-parameter requires an integer or the string "none".')
        return int(limit)
