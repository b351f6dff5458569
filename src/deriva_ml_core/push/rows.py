"""Rows of the project's tables and of assets, each brought to the target once, with what it refers to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

from deriva_ml_core.backend import Catalog, Row
from deriva_ml_core.definitions import RID, MLVocab
from deriva_ml_core.errors import DuplicateRow, MetadataConflict
from deriva_ml_core.models import StoredObject, UploadOptions, UploadProgress
from deriva_ml_core.push.collect import PushPlan, RowsByTable
from deriva_ml_core.push.context import PushContext, differing_columns, global_row_id
from deriva_ml_core.push.datasets import match_referenced
from deriva_ml_core.push.transfer import copy_objects
from deriva_ml_core.schema import CatalogModel, Table, asset_type_table_name

__all__ = ["copy_asset_types", "copy_rows", "copy_terms"]


FileKey = tuple[str, str, int]
"""What tells one file of a table from another: its MD5, name and length."""


def copy_rows(
    context: PushContext,
    rows: RowsByTable,
    options: UploadOptions,
    progress_callback: Callable[[UploadProgress], None] | None,
    *,
    update_existing: bool = True,
) -> None:
    """Bring rows with their values; files first, then rows after those that they refer to.

    A row that others made there, and that has the same key, or the same bytes under the same name, is taken as it is.

    Args:
        context: From where, and where to.
        rows: The rows.
        options: How to send.
        progress_callback: Told of the progress.
        update_existing: Whether a copy that an earlier push made gets the values that the row has now.

    Raises:
        MetadataConflict: A file is there by others with other metadata.
        UnknownRID: A row has to name another that is not copied.
    """
    model = context.source.model
    assets = {table: of for table, of in rows.items() if model.table(table).is_asset}
    known = {table: _find_existing_assets(context, table, of) for table, of in assets.items() if of}
    for table, found in known.items():
        match_referenced(context, rows, model.table(table), found)
    files = {
        rid: (table, row) for table, found in known.items() for rid, row in assets[table].items() if rid not in found
    }
    stored = copy_objects(context, files, options, progress_callback)
    if stored:
        context.target_connection.store.sync()
    for table in _sort_by_dependency(model, [table for table, of in rows.items() if of]):
        if table in assets:
            _copy_assets(
                context, model.table(table), assets[table], known[table], stored, update_existing=update_existing
            )
        else:
            _copy_table_rows(context, model.table(table), rows[table], update_existing=update_existing)


def copy_asset_types(context: PushContext, types: Mapping[str, Mapping[RID, tuple[str, ...]]]) -> None:
    """Link the copies of assets to their types."""
    for table, of_table in types.items():
        copies = {rid: context.target_rid(rid) for rid in of_table if rid in context.pushed_rows}
        links = dict.fromkeys((copies[rid], term) for rid, terms in of_table.items() if rid in copies for term in terms)
        given = [{table: rid, MLVocab.asset_type: term} for rid, term in links]
        if given:
            context.target.insert(asset_type_table_name(table), given, skip_existing=True)


def _sort_by_dependency(model: CatalogModel, tables: list[str]) -> Iterator[str]:
    """Tables after those that they refer to."""
    refers = {name: {key.table for key in model.table(name).foreign_keys} & {*tables} - {name} for name in tables}
    try:
        yield from TopologicalSorter(refers).static_order()
    except CycleError:
        yield from tables


# files


def _find_existing_assets(context: PushContext, table: str, rows: Mapping[RID, Row]) -> dict[RID, Row]:
    """The rows at the target that are files' copies: an earlier push's, or others' with the same bytes and name."""
    found = context.find_copies(table, rows)
    rest = {rid: row for rid, row in rows.items() if rid not in found}
    if rest:
        digests = sorted({row["MD5"] for row in rest.values()})
        same: dict[FileKey, Row] = {}
        for row in context.target.select(table, {"MD5": digests}, order=("RCT", "RID")):
            same.setdefault(_file_key(row), row)
        found |= {rid: same[_file_key(row)] for rid, row in rest.items() if _file_key(row) in same}
    return found


def _file_key(row: Row) -> FileKey:
    return row["MD5"], row["Filename"] or "", row["Length"]


def _copy_assets(
    context: PushContext,
    table: Table,
    rows: Mapping[RID, Row],
    existing: Mapping[RID, Row],
    stored: Mapping[RID, StoredObject],
    *,
    update_existing: bool,
) -> None:
    new = {rid: row for rid, row in rows.items() if rid not in existing}
    wanted: dict[str, Row] = {}
    for rid, row in new.items():
        kept = stored[rid]
        told = {"URL": kept.url, "Filename": row["Filename"], "Length": kept.length, "MD5": kept.md5}
        wanted[kept.url] = {**context.translate_row(table, row), **told}
    made = {}
    if wanted:
        there = context.target.insert_missing(table.name, list(wanted.values()), "URL")
        made = {row["URL"]: row for row in there}
    context.record_copy(table.name, new, {rid: made[stored[rid].url]["RID"] for rid in new}, new=True)
    context.record_copy(table.name, rows, {rid: row["RID"] for rid, row in existing.items()}, new=False)
    if update_existing:
        columns = ("Description", *table.metadata_columns)
        _update_copies(context, table, rows, existing, columns, on_conflict=_raise_metadata_conflict)


def _raise_metadata_conflict(
    context: PushContext, table: Table, row: Row, copy: Row, columns: list[str], wanted: Row
) -> None:
    told = ", ".join(f"{column} is {copy.get(column)!r} there and {wanted[column]!r} here" for column in columns)
    raise MetadataConflict(
        f"{table.name}/{row['Filename']} has the same bytes and name as {copy['RID']} of {context.target.name}, but "
        f"{told}. Make them the same, and push again."
    )


# rows of other tables


def _copy_table_rows(context: PushContext, table: Table, rows: Mapping[RID, Row], *, update_existing: bool) -> None:
    known = context.find_copies(table.name, rows)
    rest = {rid: row for rid, row in rows.items() if rid not in known}
    known |= _find_by_keys(context, table, rest, {rid: rid for rid in rest})
    context.record_copy(table.name, rows, {rid: row["RID"] for rid, row in known.items()}, new=False)
    rest = {rid: row for rid, row in rest.items() if rid not in known}
    if rest:
        context.record_copy(table.name, rest, _insert_rows(context, table, rest), new=True)
    if update_existing:
        columns = tuple(column.name for column in table.columns)
        _update_copies(context, table, rows, known, columns, on_conflict=_note_difference)


def _insert_rows(context: PushContext, table: Table, rows: Mapping[RID, Row]) -> Mapping[RID, RID]:
    """Add rows under reserved record ids, and return those; where another machine was faster, its rows'."""
    copies, there = context.reserve_rids(rows), context.target
    made = [{**context.translate_row(table, row, planned=copies), "RID": copies[rid]} for rid, row in rows.items()]
    if there.insert(table.name, made, skip_existing=True) == len(made):
        return copies
    present = {row["RID"] for row in there.select(table.name, {"RID": sorted(copies.values())})}
    passed_over = {rid: row for rid, row in rows.items() if copies[rid] not in present}
    found = {rid: row["RID"] for rid, row in _find_by_keys(context, table, passed_over, copies).items()}
    if lost := sorted(passed_over.keys() - found.keys()):
        keys = " or ".join(", ".join(key) for key in _unique_keys(context, table))
        raise DuplicateRow(
            f"{table.name} {', '.join(lost)} cannot be copied: another row of {there.name} has the same {keys}. "
            "Change one of the two, and push again."
        )
    return {**copies, **found}


def _note_difference(context: PushContext, table: Table, row: Row, copy: Row, columns: list[str], wanted: Row) -> None:  # noqa: ARG001
    told = f"{table.name} {copy['RID']} was there, and differs from {row['RID']} in {', '.join(columns)}"
    context.notes[f"{told}; it is left as it is."] = None


def _unique_keys(context: PushContext, table: Table) -> list[tuple[str, ...]]:
    """Columns that tell a row from all others at the target."""
    names = {column.name for column in table.columns}
    return [key for key in context.target.model.table(table.name).keys if {*key} <= names]


def _find_by_keys(
    context: PushContext, table: Table, rows: Mapping[RID, Row], planned: Mapping[RID, RID]
) -> dict[RID, Row]:
    """The rows at the target with the same keys, each found by the first key that it gives whole."""
    found: dict[RID, Row] = {}
    rest = dict(rows)
    for key in _unique_keys(context, table):
        given = {rid: row for rid, row in rest.items() if all(row.get(column) is not None for column in key)}
        if given:
            found |= _find_by_key(context, table, given, key, planned)
        rest = {rid: row for rid, row in rest.items() if rid not in given}
    return found


def _find_by_key(
    context: PushContext, table: Table, rows: Mapping[RID, Row], key: tuple[str, ...], planned: Mapping[RID, RID]
) -> dict[RID, Row]:
    wanted = {rid: context.translate_row(table, row, planned=planned) for rid, row in rows.items()}
    # the column with the most values asks for the fewest rows that are not meant
    column, values = max(
        ((name, dict.fromkeys(row[name] for row in wanted.values())) for name in key), key=lambda each: len(each[1])
    )
    found = context.target.select(table.name, {column: list(values)})
    there = {tuple(row[name] for name in key): row for row in found}
    told = {rid: tuple(row[name] for name in key) for rid, row in wanted.items()}
    return {rid: there[mark] for rid, mark in told.items() if mark in there}


ConflictHandler = Callable[[PushContext, Table, Row, Row, list[str], Row], None]
"""What to do where a row that others made has other values than ours."""


def _update_copies(
    context: PushContext,
    table: Table,
    rows: Mapping[RID, Row],
    copies: Mapping[RID, Row],
    columns: tuple[str, ...],
    *,
    on_conflict: ConflictHandler,
) -> None:
    """Give copies of ours the values that are wanted, all at once."""
    changes: list[dict[str, Any]] = []
    for rid, copy in copies.items():
        wanted = {name: value for name, value in context.translate_row(table, rows[rid]).items() if name in columns}
        name = global_row_id(rows[rid])
        is_ours = context.ledger.reserved_rids.get(name) == copy["RID"] or name in context.ledger.stored_objects
        found = differing_columns(wanted, copy, ignore_empty=not is_ours)
        if found and is_ours:
            changes.append({"RID": copy["RID"], **wanted})
        elif found:
            on_conflict(context, table, rows[rid], copy, found, wanted)
    if changes:
        context.target.update(table.name, changes)


def copy_terms(context: PushContext, plan: PushPlan) -> None:
    """See to it that every term is there, with its description and synonyms; those that are there stay as they are."""
    for vocabulary, by_column in plan.terms.items():
        if vocabulary in context.target.model.tables:
            _copy_vocabulary_terms(context, vocabulary, by_column)


def _copy_vocabulary_terms(context: PushContext, vocabulary: str, by_column: Mapping[str, Mapping[str, None]]) -> None:
    rows, others = dict[str, Row](), dict[tuple[str, str], str]()
    for column, values in by_column.items():
        if column != "Name":
            for row in context.source.select(vocabulary, {column: list(values)}):
                rows[row["Name"]], others[column, row[column]] = row, row["Name"]
    wanted = dict.fromkeys((*by_column.get("Name", ()), *rows))
    known = _select_terms(context.target, vocabulary, wanted)
    rows |= _select_terms(context.source, vocabulary, wanted.keys() - known.keys() - rows.keys())
    new = {
        name: {"Name": name, "Description": row["Description"] or "", "Synonyms": row["Synonyms"]}
        for name, row in rows.items()
        if name not in known
    }
    if new:
        context.target.insert(vocabulary, list(new.values()), skip_existing=True)
        context.added_terms.extend(f"{vocabulary}: {name}" for name in new)
    context.target_terms[vocabulary] = frozenset({*known, *new})
    if others:
        there = _select_terms(context.target, vocabulary, others.values()) if new else known
        context.translated_terms |= {(vocabulary, *key): there[name][key[0]] for key, name in others.items()}


def _select_terms(catalog: Catalog, vocabulary: str, names: Iterable[str]) -> dict[str, Row]:
    """The terms of these names, as far as a catalog has them; a vocabulary may have many thousand others."""
    wanted = sorted(set(names))
    return {row["Name"]: row for row in catalog.select(vocabulary, {"Name": wanted})} if wanted else {}
