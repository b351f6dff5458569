"""Rows of the fake catalog, with their history."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime
from typing import Any

from fakes.model import base_type
from fakes.numbering import shown_time
from fakes.refusals import Refused

__all__ = ["Table", "format_value", "sort_key", "parse_value"]

Doc = dict[str, Any]
Row = dict[str, Any]


def parse_value(value: Any, column: Doc, *, status_text: str = "Bad JSON array input. ERROR:  ") -> Any:
    """Return a value as it is stored, or refuse one that does not fit its column."""
    kind = base_type(column["type"])
    if value is None:
        return None
    if kind.endswith("[]"):
        return _list(value, status_text)
    try:
        return TAKERS.get(kind, _text)(value)
    except (ValueError, KeyError, TypeError):
        name = {"int4": "integer", "int8": "bigint", "float8": "double precision"}.get(kind, kind)
        raise Refused(400, f'{status_text}invalid input syntax for type {name}: "{value}"\n') from None


def _list(value: Any, status_text: str) -> list[Any]:
    if not isinstance(value, list):
        raise Refused(400, f"{status_text}expected JSON array\n")
    return list(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(value)
    return int(value)


def _truth(value: Any) -> bool:
    return value if isinstance(value, bool) else {"true": True, "false": False, "t": True, "f": False}[value]


def _time(value: Any) -> str:
    moment = datetime.fromisoformat(value)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _text(value: Any) -> str:
    if isinstance(value, (dict, list, bool)):
        return json.dumps(value)
    text = str(value)
    if "\0" in text or re.search("[\ud800-\udfff]", text):
        raise ValueError(text)
    return text


TAKERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("int2", "int4", "int8", "serial4", "serial8"), _whole),
    **dict.fromkeys(("float4", "float8"), float),
    "boolean": _truth,
    "timestamptz": _time,
    "date": lambda value: date.fromisoformat(value).isoformat(),
    **dict.fromkeys(("json", "jsonb"), lambda value: value),
}


def format_value(value: Any, column: Doc | None) -> Any:
    """Return a value as it is sent."""
    if value is None or column is None:
        return value
    kind = base_type(column["type"])
    if kind == "timestamptz":
        return shown_time(value)
    if kind.startswith("float") and value.is_integer() and abs(value) < 1e15:
        return int(value)
    return value


def sort_key(value: Any) -> tuple[bool, Any]:
    """Return the key that rows are sorted by: empty values last."""
    return (value is None, "" if value is None else value)


class Table:
    """The rows of one table and their history.

    Args:
        doc: The table's document in the model.
    """

    def __init__(self, doc: Doc) -> None:
        self.doc = doc
        self.rows: dict[str, Row] = {}
        self._history: dict[str, list[tuple[int, Row | None]]] = {}
        self._indexes: dict[tuple[str, ...], dict[tuple[Any, ...], set[str]]] = {}

    @property
    def name(self) -> str:
        return str(self.doc["table_name"])

    @property
    def schema(self) -> str:
        return str(self.doc["schema_name"])

    @property
    def columns(self) -> dict[str, Doc]:
        return {column["name"]: column for column in self.doc["column_definitions"]}

    def column(self, name: str) -> Doc:
        if name not in self.columns:
            raise Refused(409, f"Requested column {name} does not exist in table {self.name}.")
        return self.columns[name]

    def unique_keys(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield each key's name and columns."""
        for key in self.doc["keys"]:
            yield key["names"][0][1], tuple(key["unique_columns"])

    def put(self, time: int, rid: str, row: Row | None) -> None:
        """Add, change or delete a row."""
        before = self.rows.get(rid)
        for columns, index in self._indexes.items():
            if before is not None:
                index[tuple(before[column] for column in columns)].discard(rid)
            if row is not None:
                index.setdefault(tuple(row[column] for column in columns), set()).add(rid)
        if row is None:
            del self.rows[rid]
        else:
            self.rows[rid] = row
        self._history.setdefault(rid, []).append((time, row))

    def at(self, time: int) -> list[Row]:
        """Return the rows at a past time."""
        found = []
        for versions in self._history.values():
            row = next((row for when, row in reversed(versions) if when <= time), None)
            if row is not None:
                found.append(row)
        return found

    def having(self, columns: Iterable[str], values: Iterable[Any]) -> set[str]:
        """Return the RIDs of the rows with these values."""
        names = tuple(columns)
        if any(isinstance(self.rows[rid][name], (list, dict)) for rid in list(self.rows)[:1] for name in names):
            wanted = list(values)
            return {rid for rid, row in self.rows.items() if [row[name] for name in names] == wanted}
        if names not in self._indexes:
            index: dict[tuple[Any, ...], set[str]] = {}
            for rid, row in self.rows.items():
                index.setdefault(tuple(row[name] for name in names), set()).add(rid)
            self._indexes[names] = index
        return self._indexes[names].get(tuple(values), set())

    def shown_row(self, row: Row) -> Row:
        """Return a row as it is sent."""
        columns = self.columns
        return {name: format_value(row.get(name), column) for name, column in columns.items()}
