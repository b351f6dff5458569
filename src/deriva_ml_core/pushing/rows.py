"""Rows of the project's tables and of assets, each brought to the target once, with what it refers to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

from deriva_ml_core.backend import Row
from deriva_ml_core.definitions import RID, MLVocab
from deriva_ml_core.errors import DuplicateRow, MetadataConflict
from deriva_ml_core.models import StoredObject, UploadOptions, UploadProgress
from deriva_ml_core.pushing.gathering import Rows
from deriva_ml_core.pushing.objects import bring_objects
from deriva_ml_core.pushing.origin import origin
from deriva_ml_core.pushing.passage import Passage, differing
from deriva_ml_core.pushing.recognising import recognise_named
from deriva_ml_core.schema import CatalogModel, Table, asset_type_table

__all__ = ["bring_rows", "bring_types"]

Content = tuple[str, str, int]
"""What tells one file of a table from another: its MD5, name and length."""


def bring_rows(
    passage: Passage,
    rows: Rows,
    options: UploadOptions,
    tell: Callable[[UploadProgress], None] | None,
    *,
    mend: bool = True,
) -> None:
    """Bring rows with their values; files first, then rows after those that they refer to.

    A row that others made there, and that has the same key, or the same bytes under the same name, is taken as it is.

    Args:
        passage: From where, and where to.
        rows: The rows.
        options: How to send.
        tell: Told of the progress.
        mend: Whether a copy that an earlier push made gets the values that the row has now.

    Raises:
        MetadataConflict: A file is there by others with other metadata.
        UnknownRID: A row has to name another that is not copied.
    """
    model = passage.here.model
    assets = {table: of for table, of in rows.items() if model.table(table).is_asset}
    known = {table: _known_assets(passage, table, of) for table, of in assets.items() if of}
    for table, found in known.items():
        recognise_named(passage, rows, model.table(table), found)
    files = {
        rid: (table, row) for table, found in known.items() for rid, row in assets[table].items() if rid not in found
    }
    stored = bring_objects(passage, files, options, tell)
    if stored:
        passage.target.store.sync()
    for table in _in_order(model, [table for table, of in rows.items() if of]):
        if table in assets:
            _bring_assets(passage, model.table(table), assets[table], known[table], stored, mend=mend)
        else:
            _bring_plain(passage, model.table(table), rows[table], mend=mend)


def bring_types(passage: Passage, types: Mapping[str, Mapping[RID, tuple[str, ...]]]) -> None:
    """Link the copies of assets to their types."""
    for table, of_table in types.items():
        copies = {rid: passage.copy_of(rid) for rid in of_table if rid in passage.rows}
        links = dict.fromkeys((copies[rid], term) for rid, terms in of_table.items() if rid in copies for term in terms)
        given = [{table: rid, MLVocab.asset_type: term} for rid, term in links]
        if given:
            passage.there.insert(asset_type_table(table), given, skip_existing=True)


def _in_order(model: CatalogModel, tables: list[str]) -> Iterator[str]:
    """Tables after those that they refer to."""
    refers = {name: {key.table for key in model.table(name).foreign_keys} & {*tables} - {name} for name in tables}
    try:
        yield from TopologicalSorter(refers).static_order()
    except CycleError:
        yield from tables


# files


def _known_assets(passage: Passage, table: str, rows: Mapping[RID, Row]) -> dict[RID, Row]:
    """The rows at the target that are files' copies: an earlier push's, or others' with the same bytes and name."""
    found = passage.found(table, rows)
    rest = {rid: row for rid, row in rows.items() if rid not in found}
    if rest:
        digests = sorted({row["MD5"] for row in rest.values()})
        same: dict[Content, Row] = {}
        for row in passage.there.select(table, {"MD5": digests}, order=("RCT", "RID")):
            same.setdefault(_content(row), row)
        found |= {rid: same[_content(row)] for rid, row in rest.items() if _content(row) in same}
    return found


def _content(row: Row) -> Content:
    return row["MD5"], row["Filename"] or "", row["Length"]


def _bring_assets(
    passage: Passage,
    table: Table,
    rows: Mapping[RID, Row],
    known: Mapping[RID, Row],
    stored: Mapping[RID, StoredObject],
    *,
    mend: bool,
) -> None:
    new = {rid: row for rid, row in rows.items() if rid not in known}
    wanted: dict[str, Row] = {}
    for rid, row in new.items():
        kept = stored[rid]
        told = {"URL": kept.url, "Filename": row["Filename"], "Length": kept.length, "MD5": kept.md5}
        wanted[kept.url] = {**passage.translated(table, row), **told}
    made = {}
    if wanted:
        there = passage.there.insert_missing(table.name, list(wanted.values()), "URL")
        made = {row["URL"]: row for row in there}
    passage.settle(table.name, new, {rid: made[stored[rid].url]["RID"] for rid in new}, new=True)
    passage.settle(table.name, rows, {rid: row["RID"] for rid, row in known.items()}, new=False)
    if mend:
        columns = ("Description", *table.metadata_columns)
        _mend(passage, table, rows, known, columns, foreign=_refuse)


def _refuse(passage: Passage, table: Table, row: Row, copy: Row, columns: list[str], wanted: Row) -> None:
    told = ", ".join(f"{column} is {copy.get(column)!r} there and {wanted[column]!r} here" for column in columns)
    raise MetadataConflict(
        f"{table.name}/{row['Filename']} has the same bytes and name as {copy['RID']} of {passage.there.name}, but "
        f"{told}. Make them the same, and push again."
    )


# rows of other tables


def _bring_plain(passage: Passage, table: Table, rows: Mapping[RID, Row], *, mend: bool) -> None:
    known = passage.found(table.name, rows)
    rest = {rid: row for rid, row in rows.items() if rid not in known}
    known |= _by_keys(passage, table, rest, {rid: rid for rid in rest})
    passage.settle(table.name, rows, {rid: row["RID"] for rid, row in known.items()}, new=False)
    rest = {rid: row for rid, row in rest.items() if rid not in known}
    if rest:
        passage.settle(table.name, rest, _added(passage, table, rest), new=True)
    if mend:
        columns = tuple(column.name for column in table.columns)
        _mend(passage, table, rows, known, columns, foreign=_note)


def _added(passage: Passage, table: Table, rows: Mapping[RID, Row]) -> Mapping[RID, RID]:
    """Add rows under reserved record ids, and return those; where another machine was faster, its rows'."""
    copies, there = passage.reserved(rows), passage.there
    made = [{**passage.translated(table, row, planned=copies), "RID": copies[rid]} for rid, row in rows.items()]
    if there.insert(table.name, made, skip_existing=True) == len(made):
        return copies
    present = {row["RID"] for row in there.select(table.name, {"RID": sorted(copies.values())})}
    passed_over = {rid: row for rid, row in rows.items() if copies[rid] not in present}
    found = {rid: row["RID"] for rid, row in _by_keys(passage, table, passed_over, copies).items()}
    if lost := sorted(passed_over.keys() - found.keys()):
        keys = " or ".join(", ".join(key) for key in _keys(passage, table))
        raise DuplicateRow(
            f"{table.name} {', '.join(lost)} cannot be copied: another row of {there.name} has the same {keys}. "
            "Change one of the two, and push again."
        )
    return {**copies, **found}


def _note(passage: Passage, table: Table, row: Row, copy: Row, columns: list[str], wanted: Row) -> None:  # noqa: ARG001
    told = f"{table.name} {copy['RID']} was there, and differs from {row['RID']} in {', '.join(columns)}"
    passage.notes[f"{told}; it is left as it is."] = None


def _keys(passage: Passage, table: Table) -> list[tuple[str, ...]]:
    """Columns that tell a row from all others at the target."""
    names = {column.name for column in table.columns}
    return [key for key in passage.there.model.table(table.name).keys if {*key} <= names]


def _by_keys(passage: Passage, table: Table, rows: Mapping[RID, Row], planned: Mapping[RID, RID]) -> dict[RID, Row]:
    """The rows at the target with the same keys, each found by the first key that it gives whole."""
    found: dict[RID, Row] = {}
    rest = dict(rows)
    for key in _keys(passage, table):
        given = {rid: row for rid, row in rest.items() if all(row.get(column) is not None for column in key)}
        if given:
            found |= _by_key(passage, table, given, key, planned)
        rest = {rid: row for rid, row in rest.items() if rid not in given}
    return found


def _by_key(
    passage: Passage, table: Table, rows: Mapping[RID, Row], key: tuple[str, ...], planned: Mapping[RID, RID]
) -> dict[RID, Row]:
    wanted = {rid: passage.translated(table, row, planned=planned) for rid, row in rows.items()}
    # the column with the most values asks for the fewest rows that are not meant
    column, values = max(
        ((name, dict.fromkeys(row[name] for row in wanted.values())) for name in key), key=lambda each: len(each[1])
    )
    found = passage.there.select(table.name, {column: list(values)})
    there = {tuple(row[name] for name in key): row for row in found}
    told = {rid: tuple(row[name] for name in key) for rid, row in wanted.items()}
    return {rid: there[mark] for rid, mark in told.items() if mark in there}


Foreign = Callable[[Passage, Table, Row, Row, list[str], Row], None]
"""What to do where a row that others made has other values than ours."""


def _mend(
    passage: Passage,
    table: Table,
    rows: Mapping[RID, Row],
    copies: Mapping[RID, Row],
    columns: tuple[str, ...],
    *,
    foreign: Foreign,
) -> None:
    """Give copies of ours the values that are wanted, all at once."""
    changes: list[dict[str, Any]] = []
    for rid, copy in copies.items():
        wanted = {name: value for name, value in passage.translated(table, rows[rid]).items() if name in columns}
        name = origin(rows[rid])
        is_ours = passage.ledger.planned.get(name) == copy["RID"] or name in passage.ledger.stored
        found = differing(wanted, copy, given_only=not is_ours)
        if found and is_ours:
            changes.append({"RID": copy["RID"], **wanted})
        elif found:
            foreign(passage, table, rows[rid], copy, found, wanted)
    if changes:
        passage.there.update(table.name, changes)
