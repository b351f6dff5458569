"""Writing of rows: defaults, leases, keys, references and cascades, with ERMrest's order and messages."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from fakes.model import SYSTEM, base_type
from fakes.numbering import stamp
from fakes.refusals import Refused
from fakes.tables import Table, format_value, parse_value
from fakes.web import Request

if TYPE_CHECKING:
    from fakes.catalog import Catalog

__all__ = ["delete_attributes", "delete_rows", "insert", "update"]

Row = dict[str, Any]

LEASES = ("public", "ERMrest_RID_Lease")


def _given(request: Request) -> list[Row]:
    type_ = request.headers.get("content-type", "application/json").partition(";")[0]
    if type_ not in ("application/json", "application/x-json-stream"):
        raise Refused(415, f"{type_} input not supported")
    try:
        rows = request.json()
    except ValueError:
        text = request.body.decode(errors="replace")
        raise Refused(
            400,
            "Bad JSON array input. ERROR:  invalid input syntax for type json\nDETAIL:  The input string ended "
            f"unexpectedly.\nCONTEXT:  JSON data, line 1: {text}\n",
        ) from None
    if not isinstance(rows, list):
        raise Refused(400, "Bad JSON array input. ERROR:  cannot call json_array_elements on a non-array\n")
    return rows


def _listed(request: Request, name: str) -> list[str]:
    value = request.parameters.get(name, "")
    return [column for column in value.split(",") if column]


def insert(catalog: Catalog, table: Table, request: Request) -> list[Row]:
    """Insert rows, all or none, and return the inserted ones."""
    defaults, given = _listed(request, "defaults"), _listed(request, "nondefaults")
    for name in (*defaults, *given):
        table.column(name)
    rows = [_new_row(table, row, defaults) for row in _given(request)]
    _check_leases(catalog, table, rows, given, request)
    for row in rows:
        row["RID"] = row["RID"] or catalog.new_rid()
        for name in defaults:
            if isinstance(row[name], str) and name not in SYSTEM:
                row[name] = row[name].replace("{RID}", row["RID"])
    keyed = [key for key in table.unique_keys() if key[1] != ("RID",) or "RID" in given]
    _check_within(keyed, rows)
    skip = request.parameters.get("onconflict") == "skip"
    rows = [row for row in rows if not _taken(table, keyed, row, skip=skip)]
    time = catalog.tick()
    for row in rows:
        row.update(RCT=stamp(time), RMT=stamp(time), RCB=request.user.name, RMB=request.user.name)
    _check_references(catalog, table, rows)
    leases = catalog.tables[LEASES]
    owner = catalog.allows("owner", request.user)
    for row in rows:
        table.put(time, row["RID"], row)
        if "RID" in given and not owner and row["RID"] in leases.rows:
            leases.put(time, row["RID"], None)
    return [table.shown_row(row) for row in rows]


def _new_row(table: Table, given: Row, defaults: list[str]) -> Row:
    row = {}
    for name, column in table.columns.items():
        if name in SYSTEM and name != "RID":
            row[name] = None
        elif name in defaults and name not in SYSTEM:
            row[name] = parse_value(column["default"], column)
        else:
            omitted = [] if base_type(column["type"]).endswith("[]") else None
            row[name] = parse_value(given.get(name, omitted), column)
        if row[name] is None and not column["nullok"] and name not in SYSTEM:
            values = ", ".join(str(given.get(other) or "null") for other in table.columns)
            raise Refused(
                409,
                f'null value in column "{name}" of relation "input_data_H23ydqd4RAygfTo6lL5cAw" violates not-null '
                f"constraint\nDETAIL:  Failing row contains ({values}).\n",
            )
    return row


def _check_leases(catalog: Catalog, table: Table, rows: list[Row], given: list[str], request: Request) -> None:
    """Drop RIDs that are not to be used, and reject those that the user has not leased."""
    if "RID" not in given:
        for row in rows:
            row["RID"] = None
        return
    if catalog.allows("owner", request.user):
        return
    leases = catalog.tables[LEASES].rows
    for row in rows:
        lease = leases.get(row["RID"])
        if lease is None or lease["RCB"] != request.user.name:
            raise Refused(403, f"insert access on column \"RID\" with non-leased value '{row['RID']}'")


def _check_within(keys: list[tuple[str, tuple[str, ...]]], rows: list[Row]) -> None:
    for _, columns in keys:
        values = [json.dumps([row[name] for name in columns]) for row in rows if all(row[name] for name in columns)]
        if len(set(values)) < len(values):
            raise Refused(400, "Multiple input rows share the same unique key information.")


def _taken(table: Table, keys: list[tuple[str, tuple[str, ...]]], row: Row, *, skip: bool, own: str = "") -> bool:
    for name, columns in keys:
        values = [row[column] for column in columns]
        if None in values or not table.having(columns, values) - {own}:
            continue
        if skip:
            return True
        listed, shown_values = ", ".join(f'"{column}"' for column in columns), ", ".join(map(str, values))
        raise Refused(
            409,
            f'Input data violates model. ERROR:  duplicate key value violates unique constraint "{name}"\n'
            f"DETAIL:  Key ({listed})=({shown_values}) already exists.\n",
        )
    return False


def _check_references(catalog: Catalog, table: Table, rows: list[Row]) -> None:
    for key in table.doc["foreign_keys"]:
        own = [column["column_name"] for column in key["foreign_key_columns"]]
        named = key["referenced_columns"]
        if own[0] in SYSTEM:
            continue
        referred = catalog.table(named[0]["schema_name"], named[0]["table_name"])
        far = [column["column_name"] for column in named]
        for row in rows:
            values = [row[name] for name in own]
            if None not in values and not referred.having(far, values):
                raise Refused(
                    409,
                    f'Input data violates model. ERROR:  insert or update on table "{table.name}" violates foreign key '
                    f'constraint "{key["names"][0][1]}"\nDETAIL:  Key ({", ".join(own)})='
                    f'({", ".join(map(str, values))}) is not present in table "{referred.name}".\n',
                )


def _columns(table: Table, text: str) -> list[tuple[str, str]]:
    """Yield the name and column of each output."""
    found = []
    for part in text.split(","):
        output, _, name = part.rpartition(":=")
        table.column(unquote(name))
        found.append((unquote(output) or unquote(name), unquote(name)))
    return found


def update(catalog: Catalog, table: Table, keys: str, targets: str, request: Request) -> list[Row]:
    """Change the rows that the input identifies, and return them."""
    by, to = _columns(table, keys), _columns(table, targets)
    outputs = [output for output, _ in (*by, *to)]
    if repeated := next((output for output in outputs if outputs.count(output) > 1), None):
        raise Refused(409, f'column "{repeated}" specified more than once\n')
    given = _given(request)
    known = [json.dumps([row.get(output) for output, _ in by]) for row in given]
    if len(set(known)) < len(known):
        raise Refused(400, "Multiple input rows share the same unique key information.")
    changed = []
    for row in given:
        values = {name: parse_value(row.get(output), table.columns[name]) for output, name in to}
        for name, value in values.items():
            if value is None and not table.columns[name]["nullok"]:
                raise Refused(
                    409, f'null value in column "{name}" of relation "{table.name}" violates not-null constraint'
                )
        for rid in sorted(table.having([name for _, name in by], [row.get(output) for output, _ in by])):
            changed.append((rid, values))
    time = catalog.tick()
    new = [{**table.rows[rid], **values, "RMT": stamp(time), "RMB": request.user.name} for rid, values in changed]
    for row in new:
        _taken(table, [key for key in table.unique_keys() if key[1] != ("RID",)], row, skip=False, own=row["RID"])
    _check_references(catalog, table, new)
    answer = []
    for (rid, _), row in zip(changed, new, strict=True):
        before = table.rows[rid]
        table.put(time, rid, row)
        keyed = {output: format_value(before[name], table.columns[name]) for output, name in by}
        answer.append(keyed | {output: format_value(row[name], table.columns[name]) for output, name in to})
    return answer


def delete_rows(catalog: Catalog, table: Table, rids: list[str]) -> None:
    """Delete rows, with cascades."""
    if not rids:
        raise Refused(404, "entities matching request path")
    doomed: dict[tuple[str, str], set[str]] = {}
    _doom(catalog, table, set(rids), doomed)
    time = catalog.tick()
    for key, found in doomed.items():
        for rid in found:
            catalog.tables[key].put(time, rid, None)


def _doom(catalog: Catalog, table: Table, rids: set[str], doomed: dict[tuple[str, str], set[str]]) -> None:
    known = doomed.setdefault((table.schema, table.name), set())
    new = rids - known
    known |= new
    if not new:
        return
    for other in catalog.tables.values():
        for key in other.doc["foreign_keys"]:
            named = key["referenced_columns"]
            if (named[0]["schema_name"], named[0]["table_name"]) != (table.schema, table.name):
                continue
            own = [column["column_name"] for column in key["foreign_key_columns"]]
            far = [column["column_name"] for column in named]
            found = set()
            for rid in new:
                found |= other.having(own, [table.rows[rid][name] for name in far])
            found -= doomed.get((other.schema, other.name), set())
            if found and key["on_delete"] == "CASCADE":
                _doom(catalog, other, found, doomed)
            elif found:
                row = other.rows[sorted(found)[0]]
                raise Refused(
                    409,
                    f'update or delete on table "{table.name}" violates foreign key constraint '
                    f'"{key["names"][0][1]}" on table "{other.name}"\nDETAIL:  Key ({", ".join(far)})='
                    f'({", ".join(str(row[name]) for name in own)}) is still referenced from table "{other.name}".\n',
                )


def delete_attributes(catalog: Catalog, table: Table, rows: list[Row], columns: str) -> None:
    """Clear columns of rows."""
    time = catalog.tick()
    for row in rows:
        empty = {name: None for _, name in _columns(table, columns)}
        table.put(time, row["RID"], {**row, **empty, "RMT": stamp(time)})
