"""Data paths of ERMrest: tables, joins, filters, sorting and pages, evaluated on rows in memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import unquote

from fakes.model import base_type
from fakes.refusals import Refused
from fakes.tables import Table, format_value, parse_value, sort_key

__all__ = ["Elements", "Query", "evaluate", "parse_columns", "split"]

Row = dict[str, Any]
Joined = tuple[Row | None, ...]

OPERATORS = ("geq", "leq", "gt", "lt", "regexp", "ciregexp", "null", "ts", "cq")
NAME = r"[^:;&=/@()!$,]+"
TABLE = re.compile(rf"(?:({NAME}):=)?(?:({NAME}):)?({NAME})")
JOIN = re.compile(rf"(?:({NAME}):=)?(left|right|full)?\(([^()]+)\)=\(([^()]+)\)")
PREDICATE = re.compile(rf"(?:({NAME}):)?({NAME})(=|::(\w+)::)(.*)", re.DOTALL)


class Elements(Protocol):
    """Source of tables and rows."""

    def table(self, schema: str | None, name: str) -> Table: ...
    def rows(self, table: Table) -> list[Row]: ...


@dataclass
class Query:
    """A path's rows, joined.

    Args:
        tables: The tables in the path, in order.
        aliases: The index of each alias.
        context: Index of the table that the next filter applies to.
        rows: One tuple for each combination of rows, as long as `tables`.
    """

    tables: list[Table] = field(default_factory=list)
    aliases: dict[str, int] = field(default_factory=dict)
    context: int = 0
    rows: list[Joined] = field(default_factory=list)

    @property
    def table(self) -> Table:
        return self.tables[self.context]

    def entities(self) -> list[Row]:
        """The distinct rows of the last table."""
        found = {row[self.context]["RID"]: row[self.context] for row in self.rows if row[self.context] is not None}
        return [row for row in found.values() if row is not None]


def split(text: str, separator: str) -> list[str]:
    """Split a text at separators outside parentheses."""
    parts, depth, part = [], 0, ""
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == separator and depth == 0:
            parts.append(part)
            part = ""
        else:
            part += letter
    return [*parts, part]


def evaluate(elements: Elements, path: str) -> Query:
    """Return the rows of a path without projection and sorting."""
    query = Query()
    for segment in split(path, "/"):
        if not segment:
            raise Refused(400, "URL parse error at token: None")
        _step(elements, query, segment)
    return query


def _step(elements: Elements, query: Query, segment: str) -> None:
    if segment.startswith("$"):
        query.context = query.aliases[unquote(segment[1:])]
    elif join := JOIN.fullmatch(segment):
        _join(elements, query, join)
    elif (found := TABLE.fullmatch(segment)) and "::" not in segment:
        alias, schema, name = (unquote(part) if part else None for part in found.groups())
        table = elements.table(schema, name or "")
        if not query.tables:
            query.rows = [(row,) for row in elements.rows(table)]
        else:
            own, other = _reference(query.table, table)
            _joined(elements, query, table, own, other, keep=False)
        _named(query, table, alias)
    else:
        holds = _filter(query, segment)
        query.rows = [row for row in query.rows if holds(row)]


def _named(query: Query, table: Table, alias: str | None) -> None:
    query.tables.append(table)
    query.context = len(query.tables) - 1
    query.aliases[alias or f"\0{query.context}"] = query.context


def _reference(one: Table, other: Table) -> tuple[list[str], list[str]]:
    for table, referred, turned in ((one, other, False), (other, one, True)):
        for key in table.doc["foreign_keys"]:
            named = key["referenced_columns"]
            if (named[0]["schema_name"], named[0]["table_name"]) == (referred.schema, referred.name):
                own = [column["column_name"] for column in key["foreign_key_columns"]]
                far = [column["column_name"] for column in named]
                return (far, own) if turned else (own, far)
    raise Refused(409, f"No link found between tables {one.name} and {other.name}.")


def _join(elements: Elements, query: Query, join: re.Match[str]) -> None:
    alias, outer, left, right = join.groups()
    own = [unquote(name.rpartition(":")[2]) for name in left.split(",")]
    first = [unquote(part) for part in right.split(",")[0].split(":")]
    table = elements.table(first[0] if len(first) == 3 else None, first[-2])
    far = [first[-1], *(unquote(name) for name in right.split(",")[1:])]
    for name in own:
        query.table.column(name)
    for name in far:
        table.column(name)
    _joined(elements, query, table, own, far, keep=outer == "left")
    _named(query, table, unquote(alias) if alias else None)


def _joined(elements: Elements, query: Query, table: Table, own: list[str], far: list[str], *, keep: bool) -> None:
    by_value: dict[tuple[Any, ...], list[Row]] = {}
    for row in elements.rows(table):
        by_value.setdefault(tuple(row[name] for name in far), []).append(row)
    context = query.context
    query.rows = [
        (*joined, match)
        for joined in query.rows
        for match in _matches(by_value, joined[context], own) or ([None] if keep else [])
    ]


def _matches(by_value: dict[tuple[Any, ...], list[Row]], row: Row | None, own: list[str]) -> list[Row | None]:
    values = tuple(row[name] for name in own) if row else (None,)
    return [] if None in values else list(by_value.get(values, []))


Holds = Callable[[Joined], bool | None]
"""Condition of SQL: None if it is unknown, as a comparison with an empty value is."""


def _filter(query: Query, text: str) -> Holds:
    parts = split(text, ";")
    if len(parts) > 1:
        return _combined([_filter(query, part) for part in parts], decisive=True)
    parts = split(text, "&")
    if len(parts) > 1:
        return _combined([_filter(query, part) for part in parts], decisive=False)
    if text.startswith("!"):
        negated = _filter(query, text[1:])
        return lambda row: None if (found := negated(row)) is None else not found
    if text.startswith("(") and text.endswith(")"):
        return _filter(query, text[1:-1])
    return _predicate(query, text)


def _combined(parts: list[Holds], *, decisive: bool) -> Holds:
    """Return OR of the parts, which True decides, or AND, which False decides."""

    def holds(row: Joined) -> bool | None:
        found = [part(row) for part in parts]
        return decisive if decisive in found else None if None in found else not decisive

    return holds


def _predicate(query: Query, text: str) -> Holds:
    found = PREDICATE.fullmatch(text)
    if found is None:
        raise Refused(400, f"URL parse error at token: LexToken(STRING,'{text}',1,0)")
    alias, name, sign, operator, value = found.groups()
    if operator and operator not in OPERATORS:
        raise Refused(400, f"URL parse error at token: LexToken(STRING,'{operator}',1,39)")
    if value.startswith("="):
        raise Refused(400, "URL parse error at token: LexToken(=,'=',1,40)")
    context = query.aliases[unquote(alias)] if alias else query.context
    column = query.tables[context].column(unquote(name))
    test = _test(column, "=" if sign == "=" else operator, value)
    key = column["name"]

    def holds(row: Joined) -> bool | None:
        found = row[context]
        if found is None or (found[key] is None and operator != "null"):
            return None
        return test(found[key])

    return holds


def _test(column: dict[str, Any], operator: str, value: str) -> Callable[[Any], bool]:
    if operator == "null":
        return lambda kept: kept is None
    if operator in ("regexp", "ciregexp"):
        if "$" in value:
            raise Refused(400, "URL parse error at token: LexToken($,'$',1,49)")
        pattern = re.compile(unquote(value), re.IGNORECASE if operator == "ciregexp" else 0)
        return lambda kept: kept is not None and pattern.search(str(kept)) is not None
    quantified = re.fullmatch(r"any\((.*)\)", value, re.DOTALL)
    if quantified and operator == "=":
        wanted = {_value(column, one) for one in quantified[1].split(",")}
        return lambda kept: kept in wanted
    if set(value) & set("=;&()!,"):
        raise Refused(400, f"URL parse error at token: LexToken(STRING,'{value}',1,0)")
    one = _value(column, value)
    return {
        "=": lambda kept: kept == one and kept is not None,
        "geq": lambda kept: kept is not None and kept >= one,
        "leq": lambda kept: kept is not None and kept <= one,
        "gt": lambda kept: kept is not None and kept > one,
        "lt": lambda kept: kept is not None and kept < one,
    }[operator]


def _value(column: dict[str, Any], text: str) -> Any:
    kind = base_type(column["type"])
    plain = unquote(text)
    try:
        if kind.startswith("int"):
            number = int(plain)
            if not -(2 ** (8 * int(kind[3]) - 1)) <= number < 2 ** (8 * int(kind[3]) - 1):
                raise Refused(400, f'Invalid {kind}: "{plain}"')
            return number
        if kind.startswith("float"):
            return float(plain)
        if kind == "boolean":
            return {"true": True, "false": False, "t": True, "f": False}[plain.lower()]
        if kind == "timestamptz":
            return parse_value(plain, column)
    except (ValueError, KeyError, Refused):
        raise Refused(400, f'Invalid {kind}: "{plain}"') from None
    return plain


@dataclass(frozen=True)
class Projected:
    """One column of a response."""

    name: str
    read: Callable[[Joined], Any]


def parse_columns(query: Query, text: str) -> Iterator[Projected]:
    """Yield the columns of a projection."""
    for part in split(text, ","):
        output, _, rest = part.rpartition(":=")
        names = [unquote(name) for name in rest.split(":")]
        context = query.aliases[names[0]] if len(names) == 2 else query.context
        if names[-1] == "*":
            for name in query.tables[context].columns:
                yield _projected(query, context, name, name)
            continue
        yield _projected(query, context, names[-1], unquote(output) or names[-1])


def _projected(query: Query, context: int, name: str, output: str) -> Projected:
    column = query.tables[context].column(name)

    def read(row: Joined) -> Any:
        found = row[context]
        return format_value(found[name], column) if found is not None else None

    return Projected(output, read)


AGGREGATES: dict[str, Callable[[list[Any]], Any]] = {
    "cnt": len,
    "cnt_d": lambda values: len({str(value) for value in values}),
    "max": lambda values: max(values, default=None),
    "min": lambda values: min(values, default=None),
    "sum": lambda values: sum(values) if values else None,
    "avg": lambda values: _plain(sum(values) / len(values)) if values else None,
    "array": lambda values: values,
}


def _plain(number: float) -> float:
    return int(number) if number.is_integer() else number


def aggregates(query: Query, text: str) -> Callable[[list[Joined]], Row]:
    """Return a function that computes the aggregates of a projection."""
    computed: dict[str, tuple[str, Callable[[Joined], Any] | None]] = {}
    for part in split(text, ","):
        output, _, call = part.partition(":=")
        found = re.fullmatch(r"(\w+)\((.*)\)", call)
        if found is None or found[1] not in AGGREGATES:
            raise Refused(400, f"URL parse error at token: {part}")
        read = None if found[2] == "*" else next(parse_columns(query, found[2])).read
        computed[unquote(output)] = (found[1], read)

    def compute(rows: list[Joined]) -> Row:
        answer = {}
        for output, (function, read) in computed.items():
            values = rows if read is None else [value for row in rows if (value := read(row)) is not None]
            answer[output] = AGGREGATES[function](list(values))
        return answer

    return compute


@dataclass(frozen=True)
class Order:
    """Sort order and page of a response."""

    keys: tuple[tuple[str, bool], ...] = ()
    after: tuple[Any, ...] | None = None
    before: tuple[Any, ...] | None = None


def parse_order(text: str) -> tuple[str, Order]:
    """Separate ``@sort(…)@after(…)`` from a path."""
    bare, *modifiers = text.split("@")
    keys: tuple[tuple[str, bool], ...] = ()
    pages: dict[str, tuple[Any, ...] | None] = {"after": None, "before": None}
    for modifier in modifiers:
        found = re.fullmatch(r"(sort|after|before)\((.*)\)", modifier)
        if found is None:
            raise Refused(400, f"URL parse error at token: {modifier}")
        values = found[2].split(",")
        if found[1] == "sort":
            keys = tuple((unquote(value.removesuffix("::desc::")), value.endswith("::desc::")) for value in values)
        else:
            pages[found[1]] = tuple(None if value == "::null::" else unquote(value) for value in values)
    return bare, Order(keys, pages["after"], pages["before"])


def ordered(rows: list[Row], order: Order, limit: int | None) -> list[Row]:
    """Return the rows of one page, in order."""
    for name, descending in reversed(order.keys):
        if rows and name not in rows[0]:
            raise Refused(409, f"Sort column {name} not found in output.")
        rows = sorted(rows, key=lambda row: _sortable(row[name]), reverse=descending)
    if order.after is not None:
        rows = [row for row in rows if _follows(row, order, order.after)]
    if order.before is not None:
        if limit is None:
            raise Refused(400, "Page @before(...) modifier not allowed without limit parameter.")
        rows = [row for row in rows if not _follows(row, order, order.before, equal=True)][-limit:]
    return rows if limit is None else rows[:limit]


def _sortable(value: Any) -> tuple[bool, Any]:
    empty, key = sort_key(value)
    return empty, key if not isinstance(key, (list, dict)) else str(key)


def _follows(row: Row, order: Order, bound: tuple[Any, ...], *, equal: bool = False) -> bool:
    for (name, descending), limit in zip(order.keys, bound, strict=True):
        value = row[name]
        mark = type(value)(limit) if isinstance(value, (int, float)) and limit is not None else limit
        own, other = _sortable(value), _sortable(mark)
        if own != other:
            return own < other if descending else own > other
    return equal
