"""What a deletion of an execution deletes, and what refers to it: found from the foreign keys of the catalog."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deriva_ml_core.backend import Catalog, Row
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID, MLAsset, MLTable, Role
from deriva_ml_core.errors import RowInUse
from deriva_ml_core.schema import (
    CatalogModel,
    ForeignKey,
    Table,
    asset_execution_table_name,
    asset_type_table_name,
    dataset_element_table_name,
)

__all__ = ["Selection", "check_unused", "order_for_deletion", "select_rows"]

MAX_NAMED_REFERENCES = 5
"""Number of references that an error names; the others are counted."""

DETAIL_TABLES = frozenset({MLTable.execution_metric, MLTable.execution_parameter, MLTable.execution_tag})
"""Tables whose rows belong to one execution and say nothing about anything else."""


@dataclass
class Selection:
    """The rows that a deletion deletes.

    Args:
        execution: RID of the execution.
        rows: The rows by table and RID. The tables are in an order in which the rows can be inserted again.
        references: What else refers to these rows, each as a sentence without its full stop.
        shared: The RIDs of output files that stay, since another execution has them as outputs too.
    """

    execution: RID
    rows: dict[str, dict[RID, Row]] = field(default_factory=dict)
    references: list[str] = field(default_factory=list)
    shared: list[RID] = field(default_factory=list)

    @property
    def rids(self) -> frozenset[RID]:
        """The RIDs of all rows."""
        return frozenset(rid for rows in self.rows.values() for rid in rows)


def select_rows(connection: Connection, rid: RID, *, outputs: bool) -> Selection:
    """Select the rows of an execution, its details and links, its metadata files, and its other output files.

    Args:
        connection: The catalog.
        rid: RID of the execution.
        outputs: Whether the rows of its output files go. Its metadata files describe nothing but the execution, and go
            in any case. A file that another execution has as an output too stays.

    Returns:
        The rows, and what refers to them.

    Raises:
        UnknownRID, WrongTable: There is no such execution.
    """
    catalog = connection.catalog
    catalog.refresh()
    selection = Selection(rid)
    selection.rows[MLTable.execution] = {rid: connection.require_row(MLTable.execution, rid)}
    for table in _asset_tables(catalog.model):
        if outputs or table == MLAsset.execution_metadata:
            _add_output_files(catalog, selection, table)
    _add_referring_rows(catalog, selection)
    _add_references_of_versions(catalog, selection)
    return selection


def check_unused(connection: Connection, selection: Selection) -> None:
    """Raise `RowInUse` if anything else refers to the rows.

    Args:
        connection: The catalog.
        selection: The rows.
    """
    references = selection.references
    if not references:
        return
    count = len(references) - MAX_NAMED_REFERENCES
    more = f", and {count} more" if count > 0 else ""
    raise RowInUse(
        f"Execution {selection.execution} cannot be deleted: {'; '.join(references[:MAX_NAMED_REFERENCES])}{more}. "
        "Nothing was deleted. Delete what refers to it first, or keep its output files with outputs=False "
        f"(`{connection.command('delete', selection.execution, '--keep-outputs')}`) if only these are used."
    )


def order_for_deletion(selection: Selection) -> Iterator[tuple[str, list[RID]]]:
    """Yield the RIDs of each table, those that refer to others first, and the execution last."""
    for table, rows in reversed(selection.rows.items()):
        yield table, list(rows)


def _asset_tables(model: CatalogModel) -> list[str]:
    return sorted(
        name
        for name, table in model.tables.items()
        if table.is_asset and asset_execution_table_name(name) in model.tables
    )


def _add_output_files(catalog: Catalog, selection: Selection, table: str) -> None:
    links_table = asset_execution_table_name(table)
    own = catalog.select(links_table, {"Execution": selection.execution, "Asset_Role": Role.output})
    rids = sorted({link[table] for link in own})
    if not rids:
        return
    links = catalog.select(links_table, {table: rids, "Asset_Role": Role.output})
    shared = {link[table] for link in links if link["Execution"] != selection.execution}
    selection.shared += sorted(shared)
    if going := [rid for rid in rids if rid not in shared]:
        selection.rows[table] = {row["RID"]: row for row in catalog.select(table, {"RID": going})}


def _add_referring_rows(catalog: Catalog, selection: Selection) -> None:
    """Add the details and links of the rows, and note all other rows that refer to them, directly or indirectly."""
    waiting = list(selection.rows)
    while waiting:
        target = waiting.pop(0)
        for table, key, rows in _iter_referring_rows(catalog, target, list(selection.rows[target].values())):
            known = selection.rows.get(table.name, {})
            new = {}
            for row in rows:
                if row["RID"] in known:
                    continue
                if reference := _describe_reference(table, key, row, selection):
                    if reference not in selection.references:
                        selection.references.append(reference)
                else:
                    new[row["RID"]] = row
            if new:
                # the table moves to the end, after all tables that its rows refer to
                selection.rows[table.name] = selection.rows.pop(table.name, {}) | new
                if table.name not in waiting:
                    waiting.append(table.name)


def _iter_referring_rows(
    catalog: Catalog,
    target: str,
    rows: Sequence[Row],
    is_wanted: Callable[[Table, ForeignKey], bool] = lambda table, key: True,  # noqa: ARG005
) -> Iterator[tuple[Table, ForeignKey, list[Row]]]:
    """Yield the rows of each wanted foreign key that refers to rows of a table."""
    for table in catalog.model.tables.values():
        for key in table.foreign_keys:
            if key.table == target and is_wanted(table, key):
                values = sorted({row[key.to] for row in rows if row.get(key.to) is not None})
                if values and (found := catalog.select(table.name, {key.column: values})):
                    yield table, key, found


def _describe_reference(table: Table, key: ForeignKey, row: Mapping[str, Any], selection: Selection) -> str:
    """Return what refers to a selected row; empty if the referring row belongs to the execution and goes with it."""
    name, value = table.name, row[key.column]
    if key.table == MLTable.execution:
        if name in DETAIL_TABLES and all(each.table == MLTable.execution for each in table.foreign_keys):
            return ""
        if _is_asset_link(table) or name == MLTable.dataset_execution:
            return ""  # what the execution used or produced; the other row stays, or is selected itself
        if name == MLTable.nested_execution:
            return "" if key.column == "Execution" else f"execution {row['Execution']} contains it"
        if name == MLTable.dataset_version:
            return f"it made version {row.get('Version')} of dataset {row.get('Dataset')}"
        return f"{name} {row['RID']} refers to it"
    if name == asset_type_table_name(key.table):
        return ""
    if name == asset_execution_table_name(key.table):
        execution = row["Execution"]
        return "" if execution == selection.execution else f"execution {execution} used its output {value}"
    if name == dataset_element_table_name(key.table):
        return f"its output {value} is a member of dataset {row.get('Dataset')}"
    return f"{name} {row['RID']} refers to its {key.table} {value}"


def _is_asset_link(table: Table) -> bool:
    """Whether a table links assets to executions."""
    # the table that nests executions has a name of the same form
    targets = {key.table for key in table.foreign_keys} - {MLTable.execution.value}
    return any(asset_execution_table_name(target) == table.name for target in targets)


def _add_references_of_versions(catalog: Catalog, selection: Selection) -> None:
    """Note the past versions of datasets that have one of the rows, or a row that refers to one of them."""
    if MLTable.dataset_version not in catalog.model.tables:
        return
    targets = {
        table: list(rows.values())
        for table, rows in selection.rows.items()
        if table == MLTable.execution or catalog.model.table(table).is_asset
    }
    if not any(
        key.table in targets and _is_part_of_versions(table, key)
        for table in catalog.model.tables.values()
        for key in table.foreign_keys
    ):
        return
    for snapshot, version in _list_snapshots(catalog, targets).items():
        past = catalog.at(snapshot)
        for target, rows in targets.items():
            for table, key, found in _iter_referring_rows(past, target, rows, _is_part_of_versions):
                for row in found:
                    reference = (
                        f"version {version.get('Version')} of dataset {version.get('Dataset')} was made when "
                        f"{table.name} {row['RID']} referred to {key.table} {row[key.column]}"
                    )
                    if reference not in selection.references:
                        selection.references.append(reference)


def _list_snapshots(catalog: Catalog, targets: Mapping[str, Sequence[Row]]) -> dict[str, Row]:
    """Return the snapshots that can have one of the rows, each with a version of a dataset."""
    # a version that was complete before the first of the rows was created cannot have it
    first = min(str(row["RCT"]) for rows in targets.values() for row in rows)
    snapshots: dict[str, Row] = {}
    for page in catalog.pages(MLTable.dataset_version):
        for row in page:
            if row.get("Snapshot") and str(row["RMT"]) >= first:
                snapshots.setdefault(row["Snapshot"], row)
    return snapshots


def _is_part_of_versions(table: Table, key: ForeignKey) -> bool:
    """Whether a version of a dataset can have the rows that refer to an execution or an asset by this key.

    These are members, and all rows of tables that are not standard ones, such as values of features.
    """
    if key.table == MLTable.execution:
        standard = {*DETAIL_TABLES, MLTable.dataset_execution, MLTable.nested_execution, MLTable.dataset_version}
        return table.name not in standard and not _is_asset_link(table)
    return table.name not in {asset_type_table_name(key.table), asset_execution_table_name(key.table)}
