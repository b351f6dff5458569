"""Tables as CSV files that preserve every value, its type, and the difference between empty and missing."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from deriva_ml_core.backend import Row
from deriva_ml_core.schema import SYSTEM_COLUMNS, Table

__all__ = ["TableFile", "column_types", "read_table"]

MAX_VALUE_LENGTH = 2**31 - 1
"""Maximum characters of one value; the csv module's default is 131,072."""

# An empty field means a missing value. A text that is empty or consists of quotation marks is therefore written with
# two more of them.
_QUOTES = re.compile(r'"*')


def column_types(table: Table) -> dict[str, str]:
    """Return the ERMrest type of each column, system columns first."""
    system = {name: "timestamptz" if name in ("RCT", "RMT") else "text" for name in SYSTEM_COLUMNS}
    return system | {column.name: column.type for column in table.columns}


class TableFile:
    """A CSV file to which rows are added, each once.

    Args:
        path: The file to create.
        types: The ERMrest type of each column.
    """

    def __init__(self, path: Path, types: Mapping[str, str]) -> None:
        self._file = path.open("x", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file)
        self._columns = [(name, _is_json(type_)) for name, type_ in types.items()]
        self._seen: set[str] = set()
        self._writer.writerow(types)

    def add_rows(self, rows: Iterable[Row]) -> list[Row]:
        """Write the rows that the file does not have yet, and return them."""
        new = [row for row in rows if row["RID"] not in self._seen]
        self._seen.update(row["RID"] for row in new)
        self._writer.writerows([_encode_value(row.get(name), json_) for name, json_ in self._columns] for row in new)
        return new

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_table(path: Path, types: Mapping[str, str]) -> Iterator[Row]:
    """Iterate over the rows of a CSV file."""
    csv.field_size_limit(MAX_VALUE_LENGTH)
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.reader(file)
        columns = [(name, _select_decoder(types.get(name, "text"))) for name in next(lines)]
        for line in lines:
            yield {name: decode(text) if text else None for (name, decode), text in zip(columns, line, strict=True)}


def _is_json(type_: str) -> bool:
    return type_.startswith("json") or type_.endswith("[]")


def _encode_value(value: Any, is_json: bool) -> str:
    if value is None:
        return ""
    if is_json:
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    return text + '""' if _QUOTES.fullmatch(text) else text


def _select_decoder(type_: str) -> Callable[[str], Any]:
    if _is_json(type_):
        return json.loads
    if type_.startswith(("int", "serial")):
        return int
    if type_.startswith("float"):
        return float
    if type_ == "boolean":
        return "true".__eq__
    return _decode_text


def _decode_text(text: str) -> str:
    return text[2:] if _QUOTES.fullmatch(text) else text
