"""Members of datasets: their rows, their link tables, and nested datasets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from deriva_ml_core.backend import Catalog, Row
from deriva_ml_core.definitions import RID, MLTable, split_rid
from deriva_ml_core.errors import UnknownRID, WrongTable
from deriva_ml_core.schema import CatalogModel

__all__ = [
    "MemberLink",
    "ancestors",
    "descendants",
    "lookup_member_link",
    "member_links",
    "locate_members",
    "member_pages",
    "split_batches",
]

BATCH_SIZE = 10_000
"""Number of RIDs per call: as many as the catalog inserts in one transaction."""

MAX_LISTED_RIDS = 5
"""Number of wrong RIDs that an error names."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MemberLink:
    """The table that links datasets to their members of one table.

    Args:
        element: The members' table.
        table: The link table.
        dataset_column: The link table's column for the dataset.
        member_column: The link table's column for the member.
    """

    element: str
    table: str
    dataset_column: str
    member_column: str


def member_links(model: CatalogModel) -> dict[str, MemberLink]:
    """Return the links to all element tables, including datasets, by element table."""
    links = {}
    for element, table in model.element_tables.items():
        dataset, member = model.table(table).foreign_keys
        links[element] = MemberLink(element, table, dataset.column, member.column)
    return links


def lookup_member_link(catalog: Catalog, element: str) -> MemberLink:
    """Look up the link to one element table.

    Raises:
        UnknownTable: The catalog has no such table.
        WrongTable: The table's rows cannot be members of datasets.
    """
    link = member_links(catalog.model).get(element) or member_links(catalog.refresh()).get(element)
    if link is None:
        table = catalog.model.table(element).name
        raise WrongTable(f"{table} is not an element table. {_element_type_hint(table)}")
    return link


def locate_members(catalog: Catalog, members: Sequence[RID] | Mapping[str, Sequence[RID]]) -> dict[str, list[RID]]:
    """Group RIDs by element table, each once.

    Args:
        catalog: The catalog.
        members: RIDs, or a mapping of tables to RIDs.

    Raises:
        InvalidRID: A text is not a RID.
        UnknownRID: A RID names no row.
        UnknownTable: The catalog has no such table.
        WrongTable: A row's table is not an element table, or not the table that the mapping names.
    """
    if isinstance(members, Mapping):
        rids_by_table = {
            lookup_member_link(catalog, table).element: _normalize_rids(rids) for table, rids in members.items()
        }
        for element, rids in rids_by_table.items():
            located = _locate_tables(catalog, rids, [element])
            _raise_invalid_members(catalog, [rid for rid in rids if rid not in located], element)
        return rids_by_table
    rids = _normalize_rids(members)
    tables = _locate_tables(catalog, rids, member_links(catalog.model))
    if len(tables) < len(rids):
        missing = [rid for rid in rids if rid not in tables]
        tables |= _locate_tables(catalog, missing, member_links(catalog.refresh()))
        _raise_invalid_members(catalog, [rid for rid in missing if rid not in tables])
    by_table = defaultdict(list)
    for rid in rids:
        by_table[tables[rid]].append(rid)
    return dict(by_table)


def member_pages(
    catalog: Catalog, link: MemberLink, datasets: Sequence[RID], *, size: int = 2000
) -> Iterator[list[Row]]:
    """Iterate over the complete rows of the members of one element table, in the order in which they were added.

    Args:
        catalog: The catalog, or a snapshot of it.
        link: The element table's link.
        datasets: The datasets; a member of several is yielded once.
        size: Maximum number of rows per page. Memory holds one page and, for several datasets, all RIDs seen.
    """
    seen: set[RID] = set()
    for page in catalog.pages(link.table, {link.dataset_column: list(datasets)}, size=size):
        rids = [row[link.member_column] for row in page]
        if len(datasets) > 1:
            rids = [rid for rid in dict.fromkeys(rids) if rid not in seen]
            seen.update(rids)
        rows = {row["RID"]: row for row in catalog.select(link.element, {"RID": rids})}
        yield [rows[rid] for rid in rids if rid in rows]


def ancestors(catalog: Catalog, dataset: RID) -> list[RID]:
    """Return the datasets that contain a dataset, at any depth, the nearest first."""
    link = lookup_member_link(catalog, MLTable.dataset)
    return _transitive_closure(catalog, link.table, dataset, link.member_column, link.dataset_column)


def descendants(catalog: Catalog, dataset: RID) -> list[RID]:
    """Return the datasets that a dataset contains, at any depth, the nearest first."""
    link = lookup_member_link(catalog, MLTable.dataset)
    return _transitive_closure(catalog, link.table, dataset, link.dataset_column, link.member_column)


def split_batches(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Split values into batches of `BATCH_SIZE`."""
    return (values[start : start + BATCH_SIZE] for start in range(0, len(values), BATCH_SIZE))


def _transitive_closure(catalog: Catalog, table: str, start: RID, from_column: str, to_column: str) -> list[RID]:
    level, seen = [start], {start: None}
    while level:
        rows = catalog.select(table, {from_column: level})
        level = [rid for rid in dict.fromkeys(row[to_column] for row in rows) if rid not in seen]
        seen.update(dict.fromkeys(level))
    return list(seen)[1:]


def _normalize_rids(rids: Iterable[str]) -> list[RID]:
    return list(dict.fromkeys(split_rid(rid)[0] for rid in ([rids] if isinstance(rids, str) else rids)))


def _locate_tables(catalog: Catalog, rids: Sequence[RID], tables: Collection[str]) -> dict[RID, str]:
    located: dict[RID, str] = {}
    for portion in split_batches(rids):
        located |= catalog.locate(portion, tuple(tables))
    return located


def _raise_invalid_members(catalog: Catalog, rids: Sequence[RID], expected_table: str | None = None) -> None:
    """Raise the error for RIDs that are not in the expected table; does nothing for an empty sequence."""
    tables = _locate_tables(catalog, rids, ())
    if unknown := [rid for rid in rids if rid not in tables]:
        raise UnknownRID(f"{catalog.name} has no row {_format_rids(unknown)}. Check the RIDs.")
    for table in set(tables.values()):
        wrong = _format_rids([rid for rid in rids if tables[rid] == table])
        if expected_table:
            raise WrongTable(f"Rows {wrong} are in {table}, not in {expected_table}. Pass them under their own table.")
        raise WrongTable(f"Rows {wrong} are in {table}, which is not an element table. {_element_type_hint(table)}")


def _format_rids(rids: Sequence[RID]) -> str:
    return ", ".join(rids[:MAX_LISTED_RIDS]) + (
        f" and {len(rids) - MAX_LISTED_RIDS} more" if len(rids) > MAX_LISTED_RIDS else ""
    )


def _element_type_hint(table: str) -> str:
    return f"To allow its rows as members of datasets, call ml.add_dataset_element_type({table!r})."
