"""Copying of datasets: each required version with its members and their values at that time, under the same number.

A version is a snapshot of a catalog. For each version, the oldest first, the target's datasets therefore get that
version's members, and a snapshot is taken. The snapshot is checked before the last step creates the version's row.
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
"""How often a snapshot is taken while others write. No retry settings: each attempt first sets the members again."""

Membership = Mapping[RID, Mapping[str, Mapping[RID, None]]]
"""Members of datasets by element table, in the order of addition, without empty tables; equality ignores the order."""


def wanted_members(context: PushContext, contents: DatasetVersionContents) -> Membership:
    """Return the members that the copies of a version's datasets must have."""
    return {
        context.target_rid(rid): {
            table: dict.fromkeys(map(context.target_rid, rids)) for table, rids in members.items() if rids
        }
        for rid, members in contents.members.items()
    }


def read_members(catalog: Catalog, datasets: Collection[RID]) -> Membership:
    """Return the members of datasets, with one query for each element table."""
    members: dict[RID, dict[str, dict[RID, None]]] = {rid: {} for rid in datasets}
    if datasets:
        for link in member_links(catalog.model).values():
            for page in catalog.pages(link.table, {link.dataset_column: list(datasets)}):
                for row in page:
                    members[row[link.dataset_column]].setdefault(link.element, {})[row[link.member_column]] = None
    return members


def take_snapshot(catalog: Catalog, wanted: Membership, empty: Collection[RID]) -> str:
    """Return a snapshot in which datasets have exactly these members.

    Args:
        catalog: The catalog.
        wanted: The datasets' members.
        empty: Datasets that are known to have no members yet.

    Raises:
        CatalogUnavailable: Others keep changing the datasets.
    """
    for _ in range(SNAPSHOT_ATTEMPTS):
        set_members(catalog, wanted, empty)
        snapshot = catalog.snapshot()
        if read_members(catalog.at(snapshot), list(wanted)) == wanted:
            return snapshot
        empty = ()
    raise CatalogUnavailable(
        f"Other clients keep changing the copied datasets {', '.join(wanted)} of {catalog.name}: push again later."
    )


def set_members(catalog: Catalog, wanted: Membership, empty: Collection[RID] = ()) -> None:
    """Give datasets exactly these members; those in `empty` are known to have none yet."""
    present = read_members(catalog, [rid for rid in wanted if rid not in empty])
    for link in member_links(catalog.model).values():
        for dataset, members in wanted.items():
            expected, current = members.get(link.element, {}), present.get(dataset, {}).get(link.element, {})
            for rids in split_batches(sorted(current.keys() - expected.keys())):
                catalog.delete(link.table, {link.dataset_column: dataset, link.member_column: list(rids)})
            _insert_members(
                catalog,
                link.table,
                link.dataset_column,
                link.member_column,
                dataset,
                [rid for rid in expected if rid not in current],
            )


def _insert_members(catalog: Catalog, table: str, dataset: str, member: str, rid: RID, members: Iterable[RID]) -> None:
    for rids in split_batches(list(members)):
        catalog.insert(table, [{dataset: rid, member: member_rid} for member_rid in rids], skip_existing=True)


@dataclass
class _DatasetCopyState:
    """State of the datasets during one push.

    Args:
        context: State of the push.
        copy_rows: Function that copies rows, and with True also updates existing copies.
    """

    context: PushContext
    copy_rows: Callable[[RowsByTable, bool], None]
    empty_datasets: set[RID] = field(default_factory=set)
    """Copies that have no members yet."""
    current_versions: dict[RID, tuple[RID, Membership]] = field(default_factory=dict)
    """The version whose members each copy has now, and these members."""


def copy_datasets(context: PushContext, plan: PushPlan, copy_rows: Callable[[RowsByTable, bool], None]) -> None:
    """Copy datasets with the required versions and their members.

    Args:
        context: State of the push.
        plan: The datasets and versions.
        copy_rows: Function that copies rows, and with True also updates existing copies.

    Raises:
        DuplicateRow: The target has a different version with the same number.
    """
    state = _DatasetCopyState(context, copy_rows)
    _restore_highest_versions(state, [rid for rid, is_dirty in context.ledger.dirty.items() if is_dirty])
    if not plan.datasets:
        return
    _copy_dataset_rows(state, plan)
    copies = [context.target_rid(rid) for rid in plan.datasets]
    existing = {(row["Dataset"], row["Version"]): row for row in _select_finished_versions(context.target, copies)}
    for contents in plan.ordered_versions():
        version = contents.version
        target_version = existing.get((context.target_rid(version.dataset), version.version))
        if target_version is None:
            copy_rows(contents.rows, True)
            _create_version(state, contents)
        else:
            _match_version(state, contents, target_version)
    _restore_highest_versions(state, [rid for rid in copies if context.ledger.dirty.get(rid)])


def _copy_dataset_rows(state: _DatasetCopyState, plan: PushPlan) -> None:
    context, rows = state.context, plan.datasets
    existing = context.find_copies(MLTable.dataset, rows)
    context.complete_descriptions(MLTable.dataset, rows, existing)
    context.record_copy(MLTable.dataset, rows, {rid: row["RID"] for rid, row in existing.items()}, new=False)
    missing = {rid: row for rid, row in rows.items() if rid not in existing}
    for rid, copy in context.reserve_rids(missing).items():
        target_row, is_new = context.find_or_insert(
            MLTable.dataset, missing[rid], {"RID": copy, "Deleted": missing[rid]["Deleted"] or False}
        )
        context.record_copy(MLTable.dataset, rows, {rid: target_row["RID"]}, new=is_new)
        if is_new:
            state.empty_datasets.add(target_row["RID"])
    type_links = [
        {"Dataset": context.target_rid(rid), "Dataset_Type": term}
        for rid, terms in plan.dataset_types.items()
        for term in terms
    ]
    if type_links:
        context.target.insert(MLTable.dataset_dataset_type, type_links, skip_existing=True)


def _select_finished_versions(catalog: Catalog, datasets: Collection[RID]) -> list[Row]:
    rows = catalog.select(MLTable.dataset_version, {"Dataset": list(datasets)}) if datasets else []
    return [row for row in rows if row["Snapshot"]]


def _match_version(state: _DatasetCopyState, contents: DatasetVersionContents, version_row: Row) -> None:
    """Use an existing version as the copy if it has the same members."""
    context = state.context
    is_known = context.ledger.confirmed_rids.get(global_row_id(_version_row(contents))) == version_row["RID"]
    if not is_known:
        match_existing(context, contents, version_row)
    state.copy_rows(contents.rows, False)
    if not is_known:
        wanted = wanted_members(context, contents)
        if not _has_members(context.target, version_row, wanted):
            raise version_conflict(context, contents, version_row)
    _record_version_copy(context, contents, version_row, new=False)


def _create_version(state: _DatasetCopyState, contents: DatasetVersionContents) -> None:
    context, version = state.context, contents.version
    dataset, wanted = context.target_rid(version.dataset), wanted_members(context, contents)
    context.ledger.mark_dirty(wanted, dirty=True)
    snapshot = take_snapshot(context.target, wanted, state.empty_datasets)
    state.empty_datasets -= wanted.keys()
    row = {
        "Dataset": dataset,
        "Version": version.version,
        "Description": version.description,
        "Execution": _target_execution(context, contents),
        "Snapshot": snapshot,
    }
    key = {"Dataset": dataset, "Version": version.version}
    target_version, is_new = context.target.insert_unless(MLTable.dataset_version, key, row)
    if target_version["Snapshot"] != snapshot and not _has_members(context.target, target_version, wanted):
        raise version_conflict(context, contents, target_version)
    for rid in wanted:
        current = state.current_versions.get(rid)
        if rid == dataset:
            state.current_versions[rid] = target_version["RID"], {rid: wanted[rid]}
        elif current is not None and current[1] != {rid: wanted[rid]}:
            del state.current_versions[rid]
    _record_version_copy(context, contents, target_version, new=is_new)


def _has_members(catalog: Catalog, version: Row, wanted: Membership) -> bool:
    """Whether a version has these members; False for one without a snapshot, whose creation was interrupted."""
    return bool(version["Snapshot"]) and read_members(catalog.at(version["Snapshot"]), list(wanted)) == wanted


def _version_row(contents: DatasetVersionContents) -> Row:
    """Return the columns of a version's row that form its global ID."""
    return {"RID": contents.version.rid, "RCT": contents.version.created.isoformat()}


def _target_execution(context: PushContext, contents: DatasetVersionContents) -> RID | None:
    execution = contents.version.execution
    copy = context.pushed_rows.get(execution) if execution is not None else None
    return None if copy is None else copy.target


def _record_version_copy(
    context: PushContext, contents: DatasetVersionContents, version_row: Row, *, new: bool
) -> None:
    """Record the copy of a version, and set its execution if that was copied later than the version."""
    rid = contents.version.rid
    context.record_copy(MLTable.dataset_version, {rid: _version_row(contents)}, {rid: version_row["RID"]}, new=new)
    execution = _target_execution(context, contents)
    if execution is not None and version_row["Execution"] is None:
        context.target.update(MLTable.dataset_version, [{"RID": version_row["RID"], "Execution": execution}])


def _restore_highest_versions(state: _DatasetCopyState, datasets: Collection[RID]) -> None:
    """Give datasets whose members were changed those of their highest version, with their values at that time."""
    catalog = state.context.target
    highest: dict[RID, Row] = {}
    for row in sorted(_select_finished_versions(catalog, datasets), key=parse_version):
        highest[row["Dataset"]] = row
    for dataset, version in highest.items():
        if state.current_versions.get(dataset, ("", {}))[0] != version["RID"]:
            snapshot_catalog = catalog.at(version["Snapshot"])
            wanted = read_members(snapshot_catalog, [dataset])
            set_members(catalog, wanted)
            for table, rids in wanted[dataset].items():
                _restore_values(state.context, snapshot_catalog, table, rids)
    pointers = [{"RID": dataset, "Version": version["RID"]} for dataset, version in highest.items()]
    if pointers:
        catalog.update(MLTable.dataset, pointers)
    state.context.ledger.mark_dirty(highest, dirty=False)


def _restore_values(context: PushContext, snapshot_catalog: Catalog, table: str, rids: Iterable[RID]) -> None:
    """Give members that pushes from this machine created their values in a version."""
    own = sorted({*context.ledger.reserved_rids.values()}.intersection(rids))
    if not own or table == MLTable.dataset:
        return
    columns = [column.name for column in context.target.model.table(table).columns]
    current = {row["RID"]: row for row in context.target.select(table, {"RID": own})}
    wanted = (
        {"RID": row["RID"], **{column: row[column] for column in columns}}
        for row in snapshot_catalog.select(table, {"RID": own})
    )
    changed = [row for row in wanted if row["RID"] in current and differing_columns(row, current[row["RID"]])]
    if changed:
        context.target.update(table, changed)


def match_existing(context: PushContext, contents: DatasetVersionContents, version: Row) -> None:
    """Find copies that the ledger does not contain, of a version's members and of the rows that these refer to.

    Files and rows with a key are matched elsewhere.

    Args:
        context: State of the push.
        contents: The version at the source.
        version: The version's row at the target.

    Raises:
        DuplicateRow: Members have no copy at the target, so it is a different version.
    """
    snapshot_catalog = context.target.at(version["Snapshot"])
    datasets = [context.target_rid(rid) for rid in contents.members]
    for link in member_links(context.source.model).values():
        table = context.source.model.table(link.element)
        rows = contents.rows.get(link.element, {})
        member_rids = {rid for members in contents.members.values() for rid in members.get(link.element, ())}
        if not member_rids or table.name == MLTable.dataset or table.is_asset:
            continue
        members = {rid: rows[rid] for rid in member_rids}
        target_link = next(
            candidate
            for candidate in member_links(snapshot_catalog.model).values()
            if candidate.element == link.element
        )
        copies = [row for page in member_pages(snapshot_catalog, target_link, datasets) for row in page]
        _match_members(context, contents, table, members, copies)
        if member_rids - context.pushed_rows.keys():
            raise version_conflict(context, contents, version)


def version_conflict(context: PushContext, contents: DatasetVersionContents, version_row: Row) -> DuplicateRow:
    """Return the error for a version number that a version with other members uses, or an unfinished one."""
    version = contents.version
    changed, unfinished = "with other members: it was changed there", "that is not finished"
    return DuplicateRow(
        f"Dataset {version_row['Dataset']} of {context.target.name}, the copy of {version.dataset}, has a version "
        f"{version.version} {changed if version_row['Snapshot'] else unfinished}. Create a version with a higher "
        "number here with dataset.increment_version('major'), and use it in the next run."
    )


def match_referenced(context: PushContext, rows: RowsByTable, table: Table, pairs: Mapping[RID, Row]) -> None:
    """Match the rows that rows refer to with the rows that their copies refer to, if both have the same values.

    Args:
        context: State of the push.
        rows: All rows that are copied.
        table: The table whose rows have copies.
        pairs: The copies of these rows.
    """
    for key in table.foreign_keys:
        other = context.source.model.table(key.table)
        if key.to != "RID" or key.table in CORE_TABLES or other.is_asset or other.is_vocabulary:
            continue
        referring, referred = rows[table.name], rows.get(key.table, {})
        references = {referring[rid].get(key.column): copy.get(key.column) for rid, copy in pairs.items()}
        unmatched = {
            rid: copy
            for rid, copy in references.items()
            if rid in referred and copy and _is_unmatched(context, referred[rid])
        }
        if not unmatched:
            continue
        target_rows = {
            row["RID"]: row for row in context.target.select(key.table, {"RID": sorted({*unmatched.values()})})
        }
        matched = {
            rid: target_rows[copy]
            for rid, copy in unmatched.items()
            if copy in target_rows
            and _comparable_values(other, referred[rid]) == _comparable_values(other, target_rows[copy])
        }
        context.record_copy(key.table, referred, {rid: copy["RID"] for rid, copy in matched.items()}, new=False)
        match_referenced(context, rows, other, matched)


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
    """Match rows with copies of the same values, after those in the ledger."""
    recorded = context.find_copies(table.name, rows)
    pairs = dict(recorded)
    taken = {copy["RID"] for copy in recorded.values()}
    candidates: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for copy in copies:
        if copy["RID"] not in taken:
            candidates[_comparable_values(table, copy)].append(copy)
    pairs |= {
        rid: equal.pop(0)
        for rid, row in rows.items()
        if rid not in recorded and (equal := candidates[_comparable_values(table, row)])
    }
    context.record_copy(table.name, rows, {rid: copy["RID"] for rid, copy in pairs.items()}, new=False)
    match_referenced(context, contents.rows, table, pairs)


def _comparable_values(table: Table, row: Row) -> tuple[Any, ...]:
    """Return the values of a row without the RIDs in it, which differ between catalogs."""
    references = {key.column for key in table.foreign_keys if key.to == "RID"}
    return tuple(repr(row.get(column.name)) for column in table.columns if column.name not in references)
