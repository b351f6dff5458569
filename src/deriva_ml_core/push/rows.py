"""Copying of table rows and assets: each row once, after the rows that it refers to."""

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
"""MD5, name and length, which identify a file within its table."""


def copy_rows(
    context: PushContext,
    rows: RowsByTable,
    options: UploadOptions,
    progress_callback: Callable[[UploadProgress], None] | None,
    *,
    update_existing: bool = True,
) -> None:
    """Copy rows with their values: files first, then each row after those that it refers to.

    A row that someone else created at the target with the same key, or with the same bytes and name, stays as it is.

    Args:
        context: State of the push.
        rows: The rows.
        options: Options of the file transfer.
        progress_callback: Called with the progress of the transfer.
        update_existing: Whether to update copies that an earlier push created.

    Raises:
        MetadataConflict: Someone else uploaded the same file to the target with other metadata.
        UnknownRID: A required column refers to a row that is not copied.
    """
    model = context.source.model
    assets = {table: table_rows for table, table_rows in rows.items() if model.table(table).is_asset}
    existing = {
        table: _find_existing_assets(context, table, table_rows) for table, table_rows in assets.items() if table_rows
    }
    for table, copies in existing.items():
        match_referenced(context, rows, model.table(table), copies)
    files = {
        rid: (table, row)
        for table, copies in existing.items()
        for rid, row in assets[table].items()
        if rid not in copies or _is_outdated(context, row, copies[rid])
    }
    stored = copy_objects(context, files, options, progress_callback)
    for table in _sort_by_dependency(model, [table for table, table_rows in rows.items() if table_rows]):
        if table in assets:
            _copy_assets(
                context, model.table(table), assets[table], existing[table], stored, update_existing=update_existing
            )
        else:
            _copy_table_rows(context, model.table(table), rows[table], update_existing=update_existing)


def copy_asset_types(context: PushContext, types: Mapping[str, Mapping[RID, tuple[str, ...]]]) -> None:
    """Link copies of assets to their asset types."""
    for table, table_types in types.items():
        copies = {rid: context.target_rid(rid) for rid in table_types if rid in context.pushed_rows}
        links = dict.fromkeys(
            (copies[rid], term) for rid, terms in table_types.items() if rid in copies for term in terms
        )
        link_rows = [{table: rid, MLVocab.asset_type: term} for rid, term in links]
        if link_rows:
            context.target.insert(asset_type_table_name(table), link_rows, skip_existing=True)


def _sort_by_dependency(model: CatalogModel, tables: list[str]) -> Iterator[str]:
    """Yield each table after those that it refers to."""
    dependencies = {name: {key.table for key in model.table(name).foreign_keys} & {*tables} - {name} for name in tables}
    try:
        yield from TopologicalSorter(dependencies).static_order()
    except CycleError:
        yield from tables


# files


def _find_existing_assets(context: PushContext, table: str, rows: Mapping[RID, Row]) -> dict[RID, Row]:
    """Return the target rows of files: copies of an earlier push, or other rows with the same bytes and name."""
    copies = context.find_copies(table, rows)
    unmatched = {rid: row for rid, row in rows.items() if rid not in copies}
    if unmatched:
        digests = sorted({row["MD5"] for row in unmatched.values()})
        by_key: dict[FileKey, Row] = {}
        for row in context.target.select(table, {"MD5": digests}, order=("RCT", "RID")):
            by_key.setdefault(_file_key(row), row)
        copies |= {rid: by_key[_file_key(row)] for rid, row in unmatched.items() if _file_key(row) in by_key}
    return copies


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
    copies: dict[str, Row] = {}
    for rid, row in new.items():
        stored_object = stored[rid]
        file_columns = {
            "URL": stored_object.url,
            "Filename": row["Filename"],
            "Length": stored_object.length,
            "MD5": stored_object.md5,
        }
        copies[stored_object.url] = {**context.translate_row(table, row), **file_columns}
    created = {}
    if copies:
        target_rows = context.target.insert_missing(table.name, list(copies.values()), "URL")
        created = {row["URL"]: row for row in target_rows}
    context.record_copy(table.name, new, {rid: created[stored[rid].url]["RID"] for rid in new}, new=True)
    context.record_copy(table.name, rows, {rid: row["RID"] for rid, row in existing.items()}, new=False)
    _update_files(context, table, {existing[rid]["RID"]: stored[rid] for rid in existing if rid in stored})
    if update_existing:
        columns = ("Description", *table.metadata_columns)
        _update_copies(context, table, rows, existing, columns, on_conflict=_raise_metadata_conflict)


def _is_outdated(context: PushContext, row: Row, copy: Row) -> bool:
    """Whether a copy that a push from this machine created has the bytes of an earlier version of its source."""
    is_own = global_row_id(row) in context.ledger.stored_objects
    return is_own and (copy["MD5"], copy["Length"]) != (row["MD5"], row["Length"])


def _update_files(context: PushContext, table: Table, objects: Mapping[RID, StoredObject]) -> None:
    """Update copies whose source has a newer version, as the training files of an execution have."""
    changes = [
        {"RID": rid, "URL": stored.url, "Length": stored.length, "MD5": stored.md5} for rid, stored in objects.items()
    ]
    if changes:
        context.target.update(table.name, changes)


def _raise_metadata_conflict(
    context: PushContext, table: Table, row: Row, copy: Row, columns: list[str], wanted: Row
) -> None:
    differences = ", ".join(
        f"{column} is {copy.get(column)!r} at the target and {wanted[column]!r} here" for column in columns
    )
    raise MetadataConflict(
        f"{table.name}/{row['Filename']} has the same bytes and name as {copy['RID']} of {context.target.name}, but "
        f"{differences}. Make the values equal, and push again."
    )


# rows of other tables


def _copy_table_rows(context: PushContext, table: Table, rows: Mapping[RID, Row], *, update_existing: bool) -> None:
    existing = context.find_copies(table.name, rows)
    missing = {rid: row for rid, row in rows.items() if rid not in existing}
    existing |= _find_by_keys(context, table, missing, {rid: rid for rid in missing})
    context.record_copy(table.name, rows, {rid: row["RID"] for rid, row in existing.items()}, new=False)
    missing = {rid: row for rid, row in missing.items() if rid not in existing}
    if missing:
        context.record_copy(table.name, missing, _insert_rows(context, table, missing), new=True)
    if update_existing:
        columns = tuple(column.name for column in table.columns)
        _update_copies(context, table, rows, existing, columns, on_conflict=_note_difference)


def _insert_rows(context: PushContext, table: Table, rows: Mapping[RID, Row]) -> Mapping[RID, RID]:
    """Insert copies under reserved RIDs. Return their RIDs, or those of rows that another machine inserted first."""
    copies, target = context.reserve_rids(rows), context.target
    new_rows = [{**context.translate_row(table, row, planned=copies), "RID": copies[rid]} for rid, row in rows.items()]
    if target.insert(table.name, new_rows, skip_existing=True) == len(new_rows):
        return copies
    present = {row["RID"] for row in target.select(table.name, {"RID": sorted(copies.values())})}
    skipped = {rid: row for rid, row in rows.items() if copies[rid] not in present}
    matched = {rid: row["RID"] for rid, row in _find_by_keys(context, table, skipped, copies).items()}
    if unmatched := sorted(skipped.keys() - matched.keys()):
        keys = " or ".join(", ".join(key) for key in _unique_keys(context, table))
        raise DuplicateRow(
            f"{table.name} {', '.join(unmatched)} cannot be copied: another row of {target.name} has the same {keys}. "
            "Change one of the rows, and push again."
        )
    return {**copies, **matched}


def _note_difference(context: PushContext, table: Table, row: Row, copy: Row, columns: list[str], wanted: Row) -> None:  # noqa: ARG001
    difference = f"{table.name} {copy['RID']} existed and differs from {row['RID']} in {', '.join(columns)}"
    context.notes[f"{difference}; it is unchanged."] = None


def _unique_keys(context: PushContext, table: Table) -> list[tuple[str, ...]]:
    """Return the target's unique keys whose columns the table has."""
    names = {column.name for column in table.columns}
    return [key for key in context.target.model.table(table.name).keys if {*key} <= names]


def _find_by_keys(
    context: PushContext, table: Table, rows: Mapping[RID, Row], planned: Mapping[RID, RID]
) -> dict[RID, Row]:
    """Return the target rows with the same keys, matched by the first key without an empty column."""
    found: dict[RID, Row] = {}
    unmatched = dict(rows)
    for key in _unique_keys(context, table):
        complete = {rid: row for rid, row in unmatched.items() if all(row.get(column) is not None for column in key)}
        if complete:
            found |= _find_by_key(context, table, complete, key, planned)
        unmatched = {rid: row for rid, row in unmatched.items() if rid not in complete}
    return found


def _find_by_key(
    context: PushContext, table: Table, rows: Mapping[RID, Row], key: tuple[str, ...], planned: Mapping[RID, RID]
) -> dict[RID, Row]:
    copies = {rid: context.translate_row(table, row, planned=planned) for rid, row in rows.items()}
    # the column with the most distinct values selects the fewest other rows
    column, values = max(
        ((name, dict.fromkeys(row[name] for row in copies.values())) for name in key), key=lambda item: len(item[1])
    )
    candidates = context.target.select(table.name, {column: list(values)})
    by_values = {tuple(row[name] for name in key): row for row in candidates}
    key_values = {rid: tuple(row[name] for name in key) for rid, row in copies.items()}
    return {rid: by_values[values] for rid, values in key_values.items() if values in by_values}


ConflictHandler = Callable[[PushContext, Table, Row, Row, list[str], Row], None]
"""Function called for a row that someone else created at the target with other values."""


def _update_copies(
    context: PushContext,
    table: Table,
    rows: Mapping[RID, Row],
    copies: Mapping[RID, Row],
    columns: tuple[str, ...],
    *,
    on_conflict: ConflictHandler,
) -> None:
    """Update the copies that pushes from this machine created; pass other rows that differ to `on_conflict`."""
    changes: list[dict[str, Any]] = []
    for rid, copy in copies.items():
        wanted = {name: value for name, value in context.translate_row(table, rows[rid]).items() if name in columns}
        name = global_row_id(rows[rid])
        is_own = context.ledger.reserved_rids.get(name) == copy["RID"] or name in context.ledger.stored_objects
        differing = differing_columns(wanted, copy, ignore_empty=not is_own)
        if differing and is_own:
            changes.append({"RID": copy["RID"], **wanted})
        elif differing:
            on_conflict(context, table, rows[rid], copy, differing, wanted)
    if changes:
        context.target.update(table.name, changes)


def copy_terms(context: PushContext, plan: PushPlan) -> None:
    """Add missing terms with their descriptions and synonyms; existing terms stay as they are."""
    for vocabulary, by_column in plan.terms.items():
        if vocabulary in context.target.model.tables:
            _copy_vocabulary_terms(context, vocabulary, by_column)


def _copy_vocabulary_terms(context: PushContext, vocabulary: str, by_column: Mapping[str, Mapping[str, None]]) -> None:
    rows, names_by_value = dict[str, Row](), dict[tuple[str, str], str]()
    for column, values in by_column.items():
        if column != "Name":
            for row in context.source.select(vocabulary, {column: list(values)}):
                rows[row["Name"]], names_by_value[column, row[column]] = row, row["Name"]
    names = dict.fromkeys((*by_column.get("Name", ()), *rows))
    existing = _select_terms(context.target, vocabulary, names)
    rows |= _select_terms(context.source, vocabulary, names.keys() - existing.keys() - rows.keys())
    new = {
        name: {"Name": name, "Description": row["Description"] or "", "Synonyms": row["Synonyms"]}
        for name, row in rows.items()
        if name not in existing
    }
    if new:
        context.target.insert(vocabulary, list(new.values()), skip_existing=True)
        context.added_terms.extend(f"{vocabulary}: {name}" for name in new)
    context.target_terms[vocabulary] = frozenset({*existing, *new})
    if names_by_value:
        target_terms = _select_terms(context.target, vocabulary, names_by_value.values()) if new else existing
        context.translated_terms |= {
            (vocabulary, *key): target_terms[name][key[0]] for key, name in names_by_value.items()
        }


def _select_terms(catalog: Catalog, vocabulary: str, names: Iterable[str]) -> dict[str, Row]:
    """Return the terms of these names that a catalog has, without reading the whole vocabulary."""
    wanted = sorted(set(names))
    return {row["Name"]: row for row in catalog.select(vocabulary, {"Name": wanted})} if wanted else {}
