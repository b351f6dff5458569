"""A dataset's version that is there, though this machine did not push it: its members are found by what they say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from deriva_ml_core.backend import Row
from deriva_ml_core.dataset.members import member_links, member_pages
from deriva_ml_core.definitions import RID, MLTable
from deriva_ml_core.errors import DuplicateRow
from deriva_ml_core.pushing.gathering import CORE_TABLES, DatasetVersionContents, RowsByTable
from deriva_ml_core.pushing.origin import global_row_id
from deriva_ml_core.pushing.passage import PushContext
from deriva_ml_core.schema import Table

__all__ = ["version_conflict", "match_existing", "match_referenced"]


def match_existing(context: PushContext, contents: DatasetVersionContents, version: Row) -> None:
    """Find the copies of a version's members, and of what they refer to, that the ledger does not know.

    Files, and rows with a key of their own, are found by those, and are left out here.

    Args:
        context: From where, and where to.
        contents: The version here.
        version: Its row at the target.

    Raises:
        DuplicateRow: Members have no copy there, so that it is another version.
    """
    then = context.target.at(version["Snapshot"])
    datasets = [context.target_rid(rid) for rid in contents.members]
    for link in member_links(context.source.model).values():
        table = context.source.model.table(link.element)
        rows = contents.rows.get(link.element, {})
        told = {rid for members in contents.members.values() for rid in members.get(link.element, ())}
        if not told or table.name == MLTable.dataset or table.is_asset:
            continue
        members = {rid: rows[rid] for rid in told}
        there = next(each for each in member_links(then.model).values() if each.element == link.element)
        copies = [row for page in member_pages(then, there, datasets) for row in page]
        _match_members(context, contents, table, members, copies)
        if told - context.pushed_rows.keys():
            raise version_conflict(context, contents, version)


def version_conflict(context: PushContext, contents: DatasetVersionContents, version_row: Row) -> DuplicateRow:
    """What to say where a number is taken by a version with other members, or by one that nobody finished."""
    version = contents.version
    changed, begun = "with other members than the one here: it was changed there", "that was begun and is not finished"
    return DuplicateRow(
        f"Dataset {version_row['Dataset']} of {context.target.name}, the copy of {version.dataset}, has a version "
        f"{version.version} {changed if version_row['Snapshot'] else begun}. Make a version with a higher number here, "
        "dataset.increment_version('major'), and let the next run use that."
    )


def match_referenced(context: PushContext, rows: RowsByTable, table: Table, pairs: Mapping[RID, Row]) -> None:
    """Find the copies of what rows refer to, by what their copies refer to, where both say the same.

    Args:
        context: From where, and where to.
        rows: All rows that are copied.
        table: The table of those that have copies.
        pairs: Their copies.
    """
    for key in table.foreign_keys:
        other = context.source.model.table(key.table)
        if key.to != "RID" or key.table in CORE_TABLES or other.is_asset or other.is_vocabulary:
            continue
        referring, referred = rows[table.name], rows.get(key.table, {})
        named = {referring[rid].get(key.column): copy.get(key.column) for rid, copy in pairs.items()}
        unknown = {
            rid: copy
            for rid, copy in named.items()
            if rid in referred and copy and _is_unmatched(context, referred[rid])
        }
        if not unknown:
            continue
        there = {row["RID"]: row for row in context.target.select(key.table, {"RID": sorted({*unknown.values()})})}
        found = {
            rid: there[copy]
            for rid, copy in unknown.items()
            if copy in there and _comparable_values(other, referred[rid]) == _comparable_values(other, there[copy])
        }
        context.record_copy(key.table, referred, {rid: copy["RID"] for rid, copy in found.items()}, new=False)
        match_referenced(context, rows, other, found)


def _is_unmatched(context: PushContext, row: Row) -> bool:
    name = global_row_id(row)
    return (
        row["RID"] not in context.pushed_rows
        and name not in context.ledger.confirmed_rids
        and name not in context.ledger.reserved_rids
    )


def _match_members(
    context: PushContext, contents: DatasetVersionContents, table: Table, rows: Mapping[RID, Row], copies: list[Row]
) -> None:
    """Pair rows with copies that say the same; what the ledger knows comes first."""
    known = context.find_copies(table.name, rows)
    pairs = dict(known)
    taken = {copy["RID"] for copy in known.values()}
    waiting: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for copy in copies:
        if copy["RID"] not in taken:
            waiting[_comparable_values(table, copy)].append(copy)
    pairs |= {
        rid: same.pop(0)
        for rid, row in rows.items()
        if rid not in known and (same := waiting[_comparable_values(table, row)])
    }
    context.record_copy(table.name, rows, {rid: copy["RID"] for rid, copy in pairs.items()}, new=False)
    match_referenced(context, contents.rows, table, pairs)


def _comparable_values(table: Table, row: Row) -> tuple[Any, ...]:
    """The values of a row, without the record ids in it, which every catalog counts for itself."""
    named = {key.column for key in table.foreign_keys if key.to == "RID"}
    return tuple(repr(row.get(column.name)) for column in table.columns if column.name not in named)
