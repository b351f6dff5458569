"""Datasets at the target: each version that is needed with the members and values that it had, under its own number.

A version is a snapshot of a catalog, so the target's datasets are brought to each version's members in turn, the oldest
first, and a snapshot is taken. What it holds is looked at before the version's row, its last step, names it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deriva_ml_core.backend import Catalog, Row
from deriva_ml_core.datasets.members import member_links, member_pages, split_batches
from deriva_ml_core.datasets.versions import parse_version
from deriva_ml_core.definitions import RID, MLTable
from deriva_ml_core.errors import CatalogUnavailable, DuplicateRow
from deriva_ml_core.push.collect import CORE_TABLES, DatasetVersionContents, PushPlan, RowsByTable
from deriva_ml_core.push.context import PushContext, differing_columns, global_row_id
from deriva_ml_core.schema import Table

__all__ = [
    "Membership",
    "copy_datasets",
    "match_existing",
    "match_referenced",
    "read_members",
    "set_members",
    "take_snapshot",
    "version_conflict",
    "wanted_members",
]


SNAPSHOT_ATTEMPTS = 5
"""How often a snapshot is taken that another writer got between."""

Membership = Mapping[RID, Mapping[str, Mapping[RID, None]]]
"""The members of datasets, by element table, in the order in which they were added; a table without any is left out.
Two are equal whatever the order.
"""


def wanted_members(context: PushContext, contents: DatasetVersionContents) -> Membership:
    """The members that the copies of a version's datasets should have."""
    return {
        context.target_rid(rid): {
            table: dict.fromkeys(map(context.target_rid, rids)) for table, rids in members.items() if rids
        }
        for rid, members in contents.members.items()
    }


def read_members(catalog: Catalog, datasets: Collection[RID]) -> Membership:
    """The members of datasets, one question an element table."""
    found: dict[RID, dict[str, dict[RID, None]]] = {rid: {} for rid in datasets}
    if datasets:
        for link in member_links(catalog.model).values():
            for page in catalog.pages(link.table, {link.dataset_column: list(datasets)}):
                for row in page:
                    found[row[link.dataset_column]].setdefault(link.element, {})[row[link.member_column]] = None
    return found


def take_snapshot(catalog: Catalog, wanted: Membership, empty: Collection[RID]) -> str:
    """A snapshot in which datasets have these members, and no others.

    Args:
        catalog: Where they are.
        wanted: Their members.
        empty: Those of them that have none so far.

    Raises:
        CatalogUnavailable: Others change them without end.
    """
    for _ in range(SNAPSHOT_ATTEMPTS):
        set_members(catalog, wanted, empty)
        snapshot = catalog.snapshot()
        if read_members(catalog.at(snapshot), list(wanted)) == wanted:
            return snapshot
        empty = ()
    raise CatalogUnavailable(
        f"Others keep changing the datasets {', '.join(wanted)} of {catalog.name}, which are copies: push again later."
    )


def set_members(catalog: Catalog, wanted: Membership, empty: Collection[RID] = ()) -> None:
    """Give datasets these members, and no others; those that are fresh have none so far."""
    present = read_members(catalog, [rid for rid in wanted if rid not in empty])
    for link in member_links(catalog.model).values():
        for dataset, members in wanted.items():
            should, there = members.get(link.element, {}), present.get(dataset, {}).get(link.element, {})
            for rids in split_batches(sorted(there.keys() - should.keys())):
                catalog.delete(link.table, {link.dataset_column: dataset, link.member_column: list(rids)})
            _insert_members(
                catalog,
                link.table,
                link.dataset_column,
                link.member_column,
                dataset,
                [rid for rid in should if rid not in there],
            )


def _insert_members(catalog: Catalog, table: str, dataset: str, member: str, rid: RID, members: Iterable[RID]) -> None:
    for rids in split_batches(list(members)):
        catalog.insert(table, [{dataset: rid, member: each} for each in rids], skip_existing=True)


@dataclass
class _DatasetCopyState:
    """The datasets of one push.

    Args:
        context: From where, and where to.
        copy_rows: Brings rows, with their present values where that is said.
    """

    context: PushContext
    copy_rows: Callable[[RowsByTable, bool], None]
    empty_datasets: set[RID] = field(default_factory=set)
    """Copies that have no members yet."""
    current_versions: dict[RID, tuple[RID, Membership]] = field(default_factory=dict)
    """The version that a copy was last brought to as a whole, and its members."""


def copy_datasets(context: PushContext, plan: PushPlan, copy_rows: Callable[[RowsByTable, bool], None]) -> None:
    """Bring datasets with the versions that are needed, and their members.

    Args:
        context: From where, and where to.
        plan: The datasets and versions.
        copy_rows: Brings rows, with their present values where that is said.

    Raises:
        DuplicateRow: The target has another version of that number, which is not a copy of this one.
    """
    sets = _DatasetCopyState(context, copy_rows)
    _restore_highest_versions(sets, [rid for rid, stirred in context.ledger.dirty.items() if stirred])
    if not plan.datasets:
        return
    _copy_dataset_rows(sets, plan)
    copies = [context.target_rid(rid) for rid in plan.datasets]
    there = {(row["Dataset"], row["Version"]): row for row in _select_finished_versions(context.target, copies)}
    for contents in plan.ordered_versions():
        version = contents.version
        known = there.get((context.target_rid(version.dataset), version.version))
        if known is None:
            copy_rows(contents.rows, True)
            _create_version(sets, contents)
        else:
            _match_version(sets, contents, known)
    _restore_highest_versions(sets, [rid for rid in copies if context.ledger.dirty.get(rid)])


def _copy_dataset_rows(state: _DatasetCopyState, plan: PushPlan) -> None:
    passage, rows = state.context, plan.datasets
    known = passage.find_copies(MLTable.dataset, rows)
    passage.complete_descriptions(MLTable.dataset, rows, known)
    passage.record_copy(MLTable.dataset, rows, {rid: row["RID"] for rid, row in known.items()}, new=False)
    rest = {rid: row for rid, row in rows.items() if rid not in known}
    for rid, copy in passage.reserve_rids(rest).items():
        found, new = passage.find_or_insert(
            MLTable.dataset, rest[rid], {"RID": copy, "Deleted": rest[rid]["Deleted"] or False}
        )
        passage.record_copy(MLTable.dataset, rows, {rid: found["RID"]}, new=new)
        if new:
            state.empty_datasets.add(found["RID"])
    given = [
        {"Dataset": passage.target_rid(rid), "Dataset_Type": term}
        for rid, terms in plan.dataset_types.items()
        for term in terms
    ]
    if given:
        passage.target.insert(MLTable.dataset_dataset_type, given, skip_existing=True)


def _select_finished_versions(catalog: Catalog, datasets: Collection[RID]) -> list[Row]:
    rows = catalog.select(MLTable.dataset_version, {"Dataset": list(datasets)}) if datasets else []
    return [row for row in rows if row["Snapshot"]]


def _match_version(state: _DatasetCopyState, contents: DatasetVersionContents, version_row: Row) -> None:
    """Take a version that is there for the copy, if it has the same members."""
    passage = state.context
    is_known = passage.ledger.confirmed_rids.get(global_row_id(_version_row(contents))) == version_row["RID"]
    if not is_known:
        match_existing(passage, contents, version_row)
    state.copy_rows(contents.rows, False)
    if not is_known:
        wanted = wanted_members(passage, contents)
        if not _has_members(passage.target, version_row, wanted):
            raise version_conflict(passage, contents, version_row)
    _record_version_copy(passage, contents, version_row, new=False)


def _create_version(state: _DatasetCopyState, contents: DatasetVersionContents) -> None:
    passage, version = state.context, contents.version
    dataset, wanted = passage.target_rid(version.dataset), wanted_members(passage, contents)
    passage.ledger.mark_dirty(wanted, dirty=True)
    snapshot = take_snapshot(passage.target, wanted, state.empty_datasets)
    state.empty_datasets -= wanted.keys()
    row = {
        "Dataset": dataset,
        "Version": version.version,
        "Description": version.description,
        "Execution": _target_execution(passage, contents),
        "Snapshot": snapshot,
    }
    same = {"Dataset": dataset, "Version": version.version}
    found, new = passage.target.insert_unless(MLTable.dataset_version, same, row)
    if found["Snapshot"] != snapshot and not _has_members(passage.target, found, wanted):
        raise version_conflict(passage, contents, found)
    for rid in wanted:
        before = state.current_versions.get(rid)
        if rid == dataset:
            state.current_versions[rid] = found["RID"], {rid: wanted[rid]}
        elif before is not None and before[1] != {rid: wanted[rid]}:
            del state.current_versions[rid]
    _record_version_copy(passage, contents, found, new=new)


def _has_members(catalog: Catalog, version: Row, wanted: Membership) -> bool:
    """Whether a version has these members; one whose maker died before its snapshot has none."""
    return bool(version["Snapshot"]) and read_members(catalog.at(version["Snapshot"]), list(wanted)) == wanted


def _version_row(contents: DatasetVersionContents) -> Row:
    """What names a version among all rows."""
    return {"RID": contents.version.rid, "RCT": contents.version.created.isoformat()}


def _target_execution(context: PushContext, contents: DatasetVersionContents) -> RID | None:
    made_by = contents.version.execution
    known = context.pushed_rows.get(made_by) if made_by is not None else None
    return None if known is None else known.target


def _record_version_copy(
    context: PushContext, contents: DatasetVersionContents, version_row: Row, *, new: bool
) -> None:
    """Note whose copy a version is; one whose maker came later than itself gets to know it."""
    rid = contents.version.rid
    context.record_copy(MLTable.dataset_version, {rid: _version_row(contents)}, {rid: version_row["RID"]}, new=new)
    maker = _target_execution(context, contents)
    if maker is not None and version_row["Execution"] is None:
        context.target.update(MLTable.dataset_version, [{"RID": version_row["RID"], "Execution": maker}])


def _restore_highest_versions(state: _DatasetCopyState, datasets: Collection[RID]) -> None:
    """Give datasets whose members were changed those of their highest version, with the values of then."""
    catalog = state.context.target
    highest: dict[RID, Row] = {}
    for row in sorted(_select_finished_versions(catalog, datasets), key=parse_version):
        highest[row["Dataset"]] = row
    for dataset, version in highest.items():
        if state.current_versions.get(dataset, ("", {}))[0] != version["RID"]:
            then = catalog.at(version["Snapshot"])
            wanted = read_members(then, [dataset])
            set_members(catalog, wanted)
            for table, rids in wanted[dataset].items():
                _restore_values(state.context, then, table, rids)
    pointers = [{"RID": dataset, "Version": version["RID"]} for dataset, version in highest.items()]
    if pointers:
        catalog.update(MLTable.dataset, pointers)
    state.context.ledger.mark_dirty(highest, dirty=False)


def _restore_values(context: PushContext, snapshot_catalog: Catalog, table: str, rids: Iterable[RID]) -> None:
    """Give members that a push made the values that they had in a version."""
    mine = sorted({*context.ledger.reserved_rids.values()}.intersection(rids))
    if not mine or table == MLTable.dataset:
        return
    columns = [column.name for column in context.target.model.table(table).columns]
    now = {row["RID"]: row for row in context.target.select(table, {"RID": mine})}
    wanted = (
        {"RID": row["RID"], **{column: row[column] for column in columns}}
        for row in snapshot_catalog.select(table, {"RID": mine})
    )
    changed = [row for row in wanted if row["RID"] in now and differing_columns(row, now[row["RID"]])]
    if changed:
        context.target.update(table, changed)


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
