"""Insertion of rows that can safely be repeated: defaults, reserved RIDs, keys, and lost responses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from deriva_ml_core.backend import Row
from deriva_ml_core.backends.deriva.ermrest_client import ErmrestClient, WriteOutcomeUnknown, parse_rows
from deriva_ml_core.backends.deriva.ermrest_paths import filter_paths, quote_segment, table_path
from deriva_ml_core.backends.deriva.model import is_array_type
from deriva_ml_core.backends.row_checks import check_row_rid, check_writable
from deriva_ml_core.errors import AccessRefused, ConfigurationError, DuplicateRow
from deriva_ml_core.schema import Column, Table

__all__ = ["insert_rows", "prepare_rows", "select_by_rid"]

InputRow = Mapping[str, Any]
ReserveRids = Callable[[int], list[str]]


def prepare_rows(table: Table, rows: Sequence[InputRow], reserve_rids: ReserveRids) -> tuple[list[dict[str, Any]], str]:
    """Return rows as they are sent, and the URL parameters naming the columns that the server fills.

    Args:
        table: The table.
        rows: The rows; they need not have the same columns.
        reserve_rids: Function that reserves RIDs, used if only some rows have one.

    Raises:
        UnknownColumn: A column does not exist, or only the server writes it.
        ConfigurationError: Only some rows have a value for a column whose default only the server can compute.
    """
    check_writable(table, sorted({column for row in rows for column in row}))
    # the server stores an omitted array as empty, and a condition for None does not match an empty one
    arrays = [column.name for column in table.columns if is_array_type(column.type) and column.default is None]
    sent = [{**row, **{name: row.get(name) or None for name in arrays}} for row in rows]
    with_rid = sum("RID" in row for row in sent)
    for row in sent:
        if "RID" in row:
            check_row_rid(row["RID"])
    defaulted: list[Column] = []
    mixed: list[Column] = []
    for column in table.columns:
        count = sum(column.name in row for row in sent)
        if column.default is not None and count < len(sent):
            (mixed if count else defaulted).append(column)
    if 0 < with_rid < len(sent) or (mixed and not with_rid):
        without = [row for row in sent if "RID" not in row]
        for row, rid in zip(without, reserve_rids(len(without)), strict=True):
            row["RID"] = rid
        with_rid = len(sent)
    for column in mixed:
        default = str(column.default)
        if "(" in default:
            raise ConfigurationError(
                f"{table.name}.{column.name} is set for some rows only, and only the server can compute its default "
                f"({default}): set it for all rows or for none."
            )
        for row in sent:
            row.setdefault(column.name, default.replace("{RID}", row["RID"]))
    parameters = [f"defaults={','.join(quote_segment(column.name) for column in defaulted)}"] if defaulted else []
    return sent, "&".join([*parameters, "nondefaults=RID"] if with_rid else parameters)


def insert_rows(
    client: ErmrestClient, table: Table, rows: Sequence[InputRow], reserve_rids: ReserveRids, *, skip_existing: bool
) -> list[Row]:
    """Insert rows into one table, all or none.

    Args:
        client: The catalog.
        table: The table.
        rows: The rows.
        reserve_rids: Function that reserves RIDs.
        skip_existing: Whether to skip rows whose key exists.

    Returns:
        The inserted rows, complete, as the server stores them. If a response was lost and rows may be skipped, rows of
        the lost attempt are left out, since the repeat cannot distinguish them from existing ones.
    """
    sent, parameters = prepare_rows(table, rows, reserve_rids)
    has_rids = "nondefaults=RID" in parameters
    if skip_existing:
        sent = _drop_duplicate_keys(table, sent)
        parameters = "&".join([*([parameters] if parameters else []), "onconflict=skip"])
    path = f"/entity/{table_path(table)}" + (f"?{parameters}" if parameters else "")
    rids = [row["RID"] for row in sent] if has_rids else []
    try:
        # the outcome of a lost response can be determined by reserved RIDs, and is irrelevant if keys are skipped
        response = client.request("POST", path, table.name, payload=sent, idempotent=skip_existing and not has_rids)
    except WriteOutcomeUnknown:
        if not has_rids:
            raise
        if present := select_by_rid(client, table, rids):
            return present
        response = client.request("POST", path, table.name, payload=sent, idempotent=False)
    except AccessRefused as error:
        if not has_rids:
            raise
        return _retry_without_existing(client, table, sent, path, error, skip_existing=skip_existing)
    return parse_rows(response, table.name)


def _drop_duplicate_keys(table: Table, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows without those that repeat the key of an earlier one; the server would reject the request."""
    for key in (("RID",), *table.keys):
        seen: set[str] = set()
        distinct = []
        for row in rows:
            values = [row.get(column) for column in key]
            if None not in values and repr(values) in seen:
                continue
            seen.add(repr(values))
            distinct.append(row)
        rows = distinct
    return rows


def select_by_rid(client: ErmrestClient, table: Table, rids: Sequence[str]) -> list[Row]:
    """Return the rows of the table with these RIDs."""
    rows: list[Row] = []
    for condition in filter_paths(table, {"RID": list(rids)}):
        rows += client.get_rows(f"/entity/{table_path(table)}/{condition}", table.name)
    return rows


def _retry_without_existing(
    client: ErmrestClient,
    table: Table,
    rows: list[dict[str, Any]],
    path: str,
    error: AccessRefused,
    *,
    skip_existing: bool,
) -> list[Row]:
    """Insert the remaining rows after a refusal, which may mean that rows with reserved RIDs exist already."""
    taken = {row["RID"] for row in select_by_rid(client, table, [row["RID"] for row in rows])}
    if not taken:
        raise error
    if not skip_existing:
        raise DuplicateRow(
            f"{table.name} already has a row with RID = {min(taken)!r}. Use that row, or choose another value."
        ) from error
    rest = [row for row in rows if row["RID"] not in taken]
    if not rest:
        return []
    return parse_rows(client.request("POST", path, table.name, payload=rest, idempotent=False), table.name)
