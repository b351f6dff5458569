"""How rows are added so that doing it again is safe: defaults, reserved ids, keys, and answers that were lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from deriva_ml_core.backend import Row
from deriva_ml_core.backends.deriva.ermrest_client import ErmrestClient, WriteOutcomeUnknown
from deriva_ml_core.backends.deriva.ermrest_paths import filter_paths, quote_segment, table_path
from deriva_ml_core.backends.row_checks import check_row_rid, check_writable
from deriva_ml_core.errors import AccessRefused, ConfigurationError, DuplicateRow
from deriva_ml_core.schema import Column, Table

__all__ = ["insert_rows", "prepare_rows", "select_by_rid"]

InputRow = Mapping[str, Any]
ReserveRids = Callable[[int], list[str]]


def prepare_rows(table: Table, rows: Sequence[InputRow], reserve_rids: ReserveRids) -> tuple[list[dict[str, Any]], str]:
    """Rows as they are sent, and the parameters that say which columns they leave to the server.

    Args:
        table: The table.
        rows: Any columns, in each others'.
        reserve_rids: How to get record ids, where some rows give one and others do not.
    """
    check_writable(table, sorted({column for row in rows for column in row}))
    sent = [dict(row) for row in rows]
    with_rid = sum("RID" in row for row in sent)
    for row in sent:
        if "RID" in row:
            check_row_rid(row["RID"])
    left: list[Column] = []
    mixed: list[Column] = []
    for column in table.columns:
        given = sum(column.name in row for row in sent)
        if column.default is not None and given < len(sent):
            (mixed if given else left).append(column)
    if 0 < with_rid < len(sent) or (mixed and not with_rid):
        without = [row for row in sent if "RID" not in row]
        for row, rid in zip(without, reserve_rids(len(without)), strict=True):
            row["RID"] = rid
        with_rid = len(sent)
    for column in mixed:
        default = str(column.default)
        if "(" in default:
            raise ConfigurationError(
                f"{table.name}.{column.name} is given for some rows and not for others, and only the server knows its "
                f"default ({default}): give it for all of them or for none."
            )
        for row in sent:
            row.setdefault(column.name, default.replace("{RID}", row["RID"]))
    parameters = [f"defaults={','.join(quote_segment(column.name) for column in left)}"] if left else []
    return sent, "&".join([*parameters, "nondefaults=RID"] if with_rid else parameters)


def insert_rows(
    client: ErmrestClient, table: Table, rows: Sequence[InputRow], reserve_rids: ReserveRids, *, skip_existing: bool
) -> list[Row]:
    """Add rows of one table, all or none.

    Args:
        client: The catalog.
        table: The table.
        rows: What to add.
        reserve_rids: How to get record ids.
        skip_existing: Whether rows whose key is taken are passed over.

    Returns:
        Those that were added, complete, as the server has them; where an answer was lost and the rows may be skipped, a
        repeat knows no more of those than of the others, and they are left out.
    """
    sent, parameters = prepare_rows(table, rows, reserve_rids)
    named = "nondefaults=RID" in parameters
    if skip_existing:
        sent = _drop_duplicate_keys(table, sent)
        parameters = "&".join([*([parameters] if parameters else []), "onconflict=skip"])
    path = f"/entity/{table_path(table)}" + (f"?{parameters}" if parameters else "")
    rids = [row["RID"] for row in sent] if named else []
    try:
        # with reserved ids, or where taken keys are passed over, what came of a lost answer can be found out
        response = client.request("POST", path, table.name, payload=sent, idempotent=skip_existing and not named)
    except WriteOutcomeUnknown:
        if not named:
            raise
        if there := select_by_rid(client, table, rids):
            return there
        response = client.request("POST", path, table.name, payload=sent, idempotent=False)
    except AccessRefused as error:
        if not named:
            raise
        return _retry_without_existing(client, table, sent, path, error, skip_existing=skip_existing)
    added: list[Row] = response.json()
    return added


def _drop_duplicate_keys(table: Table, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without those that share a key with one before them, which the server would refuse altogether."""
    for key in (("RID",), *table.keys):
        seen: set[str] = set()
        kept = []
        for row in rows:
            values = [row.get(column) for column in key]
            if None not in values and repr(values) in seen:
                continue
            seen.add(repr(values))
            kept.append(row)
        rows = kept
    return rows


def select_by_rid(client: ErmrestClient, table: Table, rids: Sequence[str]) -> list[Row]:
    """The rows of the table that have one of these record ids."""
    found: list[Row] = []
    for portion in filter_paths(table, {"RID": list(rids)}):
        found += client.get_json(f"/entity/{table_path(table)}/{portion}", table.name)
    return found


def _retry_without_existing(
    client: ErmrestClient,
    table: Table,
    rows: list[dict[str, Any]],
    path: str,
    error: AccessRefused,
    *,
    skip_existing: bool,
) -> list[Row]:
    """Go on after a refusal that may mean that a reserved id has been used: then its row is there."""
    taken = {row["RID"] for row in select_by_rid(client, table, [row["RID"] for row in rows])}
    if not taken:
        raise error
    if not skip_existing:
        raise DuplicateRow(
            f"{table.name} has a row with RID = {min(taken)!r} already. Use that one, or give another value."
        ) from error
    rest = [row for row in rows if row["RID"] not in taken]
    if not rest:
        return []
    added: list[Row] = client.request("POST", path, table.name, payload=rest, idempotent=False).json()
    return added
