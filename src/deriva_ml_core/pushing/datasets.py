"""Datasets at the target: each version that is needed with the members and values that it had, under its own number.

A version is a snapshot of a catalog, so the target's datasets are brought to each version's members in turn, the oldest
first, and a snapshot is taken. What it holds is looked at before the version's row, its last step, names it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from deriva_ml_core.backend import Catalog, Row
from deriva_ml_core.dataset.versions import number_of
from deriva_ml_core.definitions import RID, MLTable
from deriva_ml_core.pushing.gathering import Contents, Gathered, Rows
from deriva_ml_core.pushing.membership import Membership, bring_members, members_of, snapshot_of, wanted_members
from deriva_ml_core.pushing.origin import origin
from deriva_ml_core.pushing.passage import Passage, differing
from deriva_ml_core.pushing.recognising import other_version, recognise

__all__ = ["bring_datasets"]


@dataclass
class _Sets:
    """The datasets of one push.

    Args:
        passage: From where, and where to.
        bring: Brings rows, with their present values where that is said.
    """

    passage: Passage
    bring: Callable[[Rows, bool], None]
    fresh: set[RID] = field(default_factory=set)
    """Copies that have no members yet."""
    present: dict[RID, tuple[RID, Membership]] = field(default_factory=dict)
    """The version that a copy was last brought to as a whole, and its members."""


def bring_datasets(passage: Passage, gathered: Gathered, bring: Callable[[Rows, bool], None]) -> None:
    """Bring datasets with the versions that are needed, and their members.

    Args:
        passage: From where, and where to.
        gathered: The datasets and versions.
        bring: Brings rows, with their present values where that is said.

    Raises:
        DuplicateRow: The target has another version of that number, which is not a copy of this one.
    """
    sets = _Sets(passage, bring)
    _settle_down(sets, [rid for rid, stirred in passage.ledger.stirred.items() if stirred])
    if not gathered.datasets:
        return
    _bring_rows(sets, gathered)
    copies = [passage.copy_of(rid) for rid in gathered.datasets]
    there = {(row["Dataset"], row["Version"]): row for row in _finished(passage.there, copies)}
    for contents in gathered.in_order():
        version = contents.version
        known = there.get((passage.copy_of(version.dataset), version.version))
        if known is None:
            bring(contents.rows, True)
            _make(sets, contents)
        else:
            _find(sets, contents, known)
    _settle_down(sets, [rid for rid in copies if passage.ledger.stirred.get(rid)])


def _bring_rows(sets: _Sets, gathered: Gathered) -> None:
    passage, rows = sets.passage, gathered.datasets
    known = passage.found(MLTable.dataset, rows)
    passage.complete(MLTable.dataset, rows, known)
    passage.settle(MLTable.dataset, rows, {rid: row["RID"] for rid, row in known.items()}, new=False)
    rest = {rid: row for rid, row in rows.items() if rid not in known}
    for rid, copy in passage.reserved(rest).items():
        found, new = passage.claim(MLTable.dataset, rest[rid], {"RID": copy, "Deleted": rest[rid]["Deleted"] or False})
        passage.settle(MLTable.dataset, rows, {rid: found["RID"]}, new=new)
        if new:
            sets.fresh.add(found["RID"])
    given = [
        {"Dataset": passage.copy_of(rid), "Dataset_Type": term}
        for rid, terms in gathered.dataset_types.items()
        for term in terms
    ]
    if given:
        passage.there.insert(MLTable.dataset_dataset_type, given, skip_existing=True)


def _finished(catalog: Catalog, datasets: Collection[RID]) -> list[Row]:
    rows = catalog.select(MLTable.dataset_version, {"Dataset": list(datasets)}) if datasets else []
    return [row for row in rows if row["Snapshot"]]


def _find(sets: _Sets, contents: Contents, found: Row) -> None:
    """Take a version that is there for the copy, if it has the same members."""
    passage = sets.passage
    is_known = passage.ledger.there.get(origin(_row_of(contents))) == found["RID"]
    if not is_known:
        recognise(passage, contents, found)
    sets.bring(contents.rows, False)
    if not is_known:
        wanted = wanted_members(passage, contents)
        if not _has(passage.there, found, wanted):
            raise other_version(passage, contents, found)
    _settle_version(passage, contents, found, new=False)


def _make(sets: _Sets, contents: Contents) -> None:
    passage, version = sets.passage, contents.version
    dataset, wanted = passage.copy_of(version.dataset), wanted_members(passage, contents)
    passage.ledger.stir(wanted, stirred=True)
    snapshot = snapshot_of(passage.there, wanted, sets.fresh)
    sets.fresh -= wanted.keys()
    row = {
        "Dataset": dataset,
        "Version": version.version,
        "Description": version.description,
        "Execution": _maker(passage, contents),
        "Snapshot": snapshot,
    }
    same = {"Dataset": dataset, "Version": version.version}
    found, new = passage.there.insert_unless(MLTable.dataset_version, same, row)
    if found["Snapshot"] != snapshot and not _has(passage.there, found, wanted):
        raise other_version(passage, contents, found)
    for rid in wanted:
        before = sets.present.get(rid)
        if rid == dataset:
            sets.present[rid] = found["RID"], {rid: wanted[rid]}
        elif before is not None and before[1] != {rid: wanted[rid]}:
            del sets.present[rid]
    _settle_version(passage, contents, found, new=new)


def _has(catalog: Catalog, version: Row, wanted: Membership) -> bool:
    """Whether a version has these members; one whose maker died before its snapshot has none."""
    return bool(version["Snapshot"]) and members_of(catalog.at(version["Snapshot"]), list(wanted)) == wanted


def _row_of(contents: Contents) -> Row:
    """What names a version among all rows."""
    return {"RID": contents.version.rid, "RCT": contents.version.created.isoformat()}


def _maker(passage: Passage, contents: Contents) -> RID | None:
    made_by = contents.version.execution
    known = passage.rows.get(made_by) if made_by is not None else None
    return None if known is None else known.target


def _settle_version(passage: Passage, contents: Contents, found: Row, *, new: bool) -> None:
    """Note whose copy a version is; one whose maker came later than itself gets to know it."""
    rid = contents.version.rid
    passage.settle(MLTable.dataset_version, {rid: _row_of(contents)}, {rid: found["RID"]}, new=new)
    maker = _maker(passage, contents)
    if maker is not None and found["Execution"] is None:
        passage.there.update(MLTable.dataset_version, [{"RID": found["RID"], "Execution": maker}])


def _settle_down(sets: _Sets, datasets: Collection[RID]) -> None:
    """Give datasets whose members were changed those of their highest version, with the values of then."""
    catalog = sets.passage.there
    highest: dict[RID, Row] = {}
    for row in sorted(_finished(catalog, datasets), key=number_of):
        highest[row["Dataset"]] = row
    for dataset, version in highest.items():
        if sets.present.get(dataset, ("", {}))[0] != version["RID"]:
            then = catalog.at(version["Snapshot"])
            wanted = members_of(then, [dataset])
            bring_members(catalog, wanted)
            for table, rids in wanted[dataset].items():
                _restore_values(sets.passage, then, table, rids)
    pointers = [{"RID": dataset, "Version": version["RID"]} for dataset, version in highest.items()]
    if pointers:
        catalog.update(MLTable.dataset, pointers)
    sets.passage.ledger.stir(highest, stirred=False)


def _restore_values(passage: Passage, then: Catalog, table: str, rids: Iterable[RID]) -> None:
    """Give members that a push made the values that they had in a version."""
    mine = sorted({*passage.ledger.planned.values()}.intersection(rids))
    if not mine or table == MLTable.dataset:
        return
    columns = [column.name for column in passage.there.model.table(table).columns]
    now = {row["RID"]: row for row in passage.there.select(table, {"RID": mine})}
    wanted = (
        {"RID": row["RID"], **{column: row[column] for column in columns}} for row in then.select(table, {"RID": mine})
    )
    changed = [row for row in wanted if row["RID"] in now and differing(row, now[row["RID"]])]
    if changed:
        passage.there.update(table, changed)
