"""Datasets at the target: each version that is needed with the members and values that it had, under its own number.

A version is a snapshot of a catalog, so the target's datasets are brought to each version's members in turn, the oldest
first, and a snapshot is taken. What it holds is looked at before the version's row, its last step, names it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from deriva_ml_core.backend import Catalog, Row
from deriva_ml_core.dataset.versions import parse_version
from deriva_ml_core.definitions import RID, MLTable
from deriva_ml_core.pushing.gathering import DatasetVersionContents, PushPlan, RowsByTable
from deriva_ml_core.pushing.membership import Membership, read_members, set_members, take_snapshot, wanted_members
from deriva_ml_core.pushing.origin import global_row_id
from deriva_ml_core.pushing.passage import PushContext, differing_columns
from deriva_ml_core.pushing.recognising import match_existing, version_conflict

__all__ = ["copy_datasets"]


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
