"""All that belongs to executions, read where they are: rows, files, dataset versions, and what these refer to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from deriva_ml_core.backend import Catalog, Row
from deriva_ml_core.connection import Connection
from deriva_ml_core.dataset.members import descendants, links
from deriva_ml_core.dataset.versions import DatasetVersion, current_version, version_rows_at
from deriva_ml_core.definitions import RID, MLTable, MLVocab, Role
from deriva_ml_core.journal.story import JOURNAL
from deriva_ml_core.schema import CatalogModel, asset_type_table, execution_table

__all__ = ["CORE", "Contents", "Gathered", "Rows", "gather"]

CORE = frozenset(
    {MLTable.execution, MLTable.workflow, MLTable.dataset, MLTable.dataset_version, MLTable.nested_execution}
)
"""The tables whose rows are copied by themselves, never since another row refers to them."""

Rows = dict[str, dict[RID, Row]]
"""Rows by table and record id."""

Members = dict[RID, dict[str, tuple[RID, ...]]]
"""The members of datasets, by element table."""


@dataclass(frozen=True)
class Contents:
    """A dataset's version as it was made.

    Args:
        version: Which.
        members: The members of the dataset and of those that lay in it, then.
        rows: The members' rows with the values that they had, and what they referred to.
    """

    version: DatasetVersion
    members: Members
    rows: Rows


@dataclass
class Gathered:
    """What is to be copied."""

    runs: dict[RID, Row] = field(default_factory=dict)
    workflows: dict[RID, Row] = field(default_factory=dict)
    roles: dict[str, dict[tuple[RID, RID], str]] = field(default_factory=dict)
    """What assets were to executions, by asset table, asset and execution."""
    types: dict[str, dict[RID, tuple[str, ...]]] = field(default_factory=dict)
    rows: Rows = field(default_factory=lambda: defaultdict(dict))
    """Assets of executions, and rows that name an execution, as they are now, and what these refer to."""
    inputs: list[tuple[RID, RID, RID | None]] = field(default_factory=list)
    """Dataset, execution, and the record id of the version where one is recorded."""
    datasets: dict[RID, Row] = field(default_factory=dict)
    dataset_types: dict[RID, tuple[str, ...]] = field(default_factory=dict)
    versions: dict[RID, Contents] = field(default_factory=dict)
    nested: list[Row] = field(default_factory=list)
    named: dict[str, dict[RID, None]] = field(default_factory=lambda: defaultdict(dict))
    """What rows name in the tables of `CORE`."""
    relatives: dict[RID, Row] = field(default_factory=dict)
    """The executions that anything here names and that are not to be copied."""
    terms: dict[str, dict[str, dict[str, None]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(dict)))
    """The terms that are needed: by vocabulary and by the column that names them."""

    def all_rows(self) -> Iterable[Rows]:
        """The rows of executions, and those of each version."""
        yield self.rows
        for contents in self.versions.values():
            yield contents.rows

    def in_order(self) -> list[Contents]:
        """The versions, the oldest first, and those of inner datasets before those of the datasets around them."""

        def age(contents: Contents) -> tuple[object, ...]:
            return contents.version.created, len(contents.members), contents.version.rid

        return sorted(self.versions.values(), key=age)


def gather(source: Connection, runs: Iterable[Row]) -> Gathered:
    """Read all that belongs to executions.

    Args:
        source: Where they are.
        runs: Their rows.

    Raises:
        UnknownVersion: An input dataset has no version.
    """
    found = Gathered(runs={row["RID"]: row for row in runs})
    catalog = source.catalog
    workflows = sorted({row["Workflow"] for row in found.runs.values() if row["Workflow"]})
    found.workflows = {row["RID"]: row for row in _select(catalog, MLTable.workflow, {"RID": workflows})}
    for row in found.workflows.values():
        if row["Workflow_Type"]:
            found.terms[MLVocab.workflow_type]["Name"][row["Workflow_Type"]] = None
    _add_assets(catalog, found)
    _add_values(catalog, found)
    _follow(catalog, found, found.rows)
    _add_datasets(source, found)
    _add_types(catalog, found)
    _add_relatives(catalog, found)
    return found


def _select(catalog: Catalog, table: str, where: Mapping[str, object]) -> list[Row]:
    """The rows that match; none of a table that an older catalog does not have."""
    asked = table in catalog.model.tables and not any(value == [] for value in where.values())
    return catalog.select(table, where) if asked else []


def _asset_tables(model: CatalogModel) -> list[str]:
    return sorted(
        name for name, each in model.tables.items() if each.is_asset and execution_table(name) in model.tables
    )


def _add_assets(catalog: Catalog, found: Gathered) -> None:
    """What went into the executions and came out; of the journal's copies none, as that is told anew."""
    for table in _asset_tables(catalog.model):
        rows = _select(catalog, execution_table(table), {"Execution": list(found.runs)})
        assets = {row["RID"]: row for row in _select(catalog, table, {"RID": sorted({row[table] for row in rows})})}
        made = {row[table] for row in rows if row["Asset_Role"] == Role.output}
        assets = {rid: row for rid, row in assets.items() if not (row["Filename"] == JOURNAL and rid in made)}
        if assets:
            found.rows[table] |= assets
        pairs = {(row[table], row["Execution"]): row["Asset_Role"] for row in rows if row[table] in assets}
        if pairs:
            found.roles[table] = pairs
            for role in set(pairs.values()):
                found.terms[MLVocab.asset_role]["Name"][role] = None


def _add_values(catalog: Catalog, found: Gathered) -> None:
    """The rows of further tables that name the executions: their metrics, and values of features."""
    model = catalog.model
    told = {MLTable.dataset_execution.value, *CORE, *map(execution_table, _asset_tables(model))}
    for table in model.tables.values():
        columns = [key.column for key in table.foreign_keys if key.table == MLTable.execution and key.to == "RID"]
        if table.name not in told and not table.is_asset:
            for column in columns:
                rows = catalog.select(table.name, {column: list(found.runs)})
                if rows:
                    found.rows[table.name] |= {row["RID"]: row for row in rows}


def _follow(catalog: Catalog, found: Gathered, rows: Rows) -> None:
    """Add what rows refer to, and what that refers to in its turn."""
    waiting = {table: list(of_table.values()) for table, of_table in rows.items()}
    while waiting:
        table, of_table = waiting.popitem()
        for key in catalog.model.table(table).foreign_keys:
            values = {row[key.column]: None for row in of_table if row.get(key.column) is not None}
            if key.table in CORE and key.to == "RID":
                found.named[key.table] |= values
            if key.table in CORE or not values:
                continue
            if catalog.model.table(key.table).is_vocabulary:
                found.terms[key.table][key.to] |= values
                continue
            known = rows.setdefault(key.table, {})
            there = {row[key.to] for row in known.values()}
            new = catalog.select(key.table, {key.to: [value for value in values if value not in there]})
            known |= {row["RID"]: row for row in new}
            if new:
                waiting.setdefault(key.table, []).extend(new)


def _add_datasets(source: Connection, found: Gathered) -> None:
    catalog = source.catalog
    runs = list(found.runs)
    for row in _select(catalog, MLTable.dataset_execution, {"Execution": runs}):
        found.inputs.append((row["Dataset"], row["Execution"], row["Dataset_Version"]))
    named = sorted({rid for _, _, rid in found.inputs if rid is not None})
    rows = _select(catalog, MLTable.dataset_version, {"RID": named})
    finished = {row["RID"] for row in rows if row["Snapshot"]}
    unclear = {dataset: None for dataset, _, rid in found.inputs if rid not in finished}
    current = [current_version(catalog, dataset).rid for dataset in unclear]
    rows += _select(catalog, MLTable.dataset_version, {"RID": current})
    rows += _select(catalog, MLTable.dataset_version, {"Execution": runs})
    for row in rows:
        _add_version(catalog, found, row)
    rids = sorted({rid for contents in found.versions.values() for rid in contents.members})
    found.datasets = {row["RID"]: row for row in _select(catalog, MLTable.dataset, {"RID": rids})}
    for row in _select(catalog, MLTable.dataset_dataset_type, {"Dataset": rids}):
        kind = row["Dataset_Type"]
        found.dataset_types[row["Dataset"]] = (*found.dataset_types.get(row["Dataset"], ()), kind)
        found.terms[MLVocab.dataset_type]["Name"][kind] = None


def _add_version(catalog: Catalog, found: Gathered, row: Row) -> None:
    """Read a version, and first those that the datasets in it had; one whose maker died before it was whole is none."""
    if row["RID"] in found.versions or not row["Snapshot"]:
        return
    then = catalog.at(row["Snapshot"])
    inner = descendants(then, row["Dataset"])
    for version in version_rows_at(catalog, row["Snapshot"], inner) if inner else []:
        _add_version(catalog, found, version)
    members: dict[RID, dict[str, list[RID]]] = {rid: defaultdict(list) for rid in (row["Dataset"], *inner)}
    rows: Rows = {}
    for link in links(then.model).values():
        rids: dict[RID, None] = {}
        for page in then.pages(link.table, {link.dataset: list(members)}):
            for each in page:
                members[each[link.dataset]][link.element].append(each[link.member])
                rids[each[link.member]] = None
        if rids and link.element != MLTable.dataset:
            rows[link.element] = {each["RID"]: each for each in then.select(link.element, {"RID": list(rids)})}
    _follow(then, found, rows)
    told = {rid: {table: tuple(of_table) for table, of_table in each.items()} for rid, each in members.items()}
    found.versions[row["RID"]] = Contents(DatasetVersion.of(row), told, rows)


def _add_types(catalog: Catalog, found: Gathered) -> None:
    for table in _asset_tables(catalog.model):
        rids = sorted({rid for rows in found.all_rows() for rid in rows.get(table, ())})
        types: dict[RID, tuple[str, ...]] = {}
        for link in _select(catalog, asset_type_table(table), {table: rids}):
            types[link[table]] = (*types.get(link[table], ()), link[MLVocab.asset_type])
            found.terms[MLVocab.asset_type]["Name"][link[MLVocab.asset_type]] = None
        if types:
            found.types[table] = types


def _add_relatives(catalog: Catalog, found: Gathered) -> None:
    runs = list(found.runs)
    rows = _select(catalog, MLTable.nested_execution, {"Execution": runs})
    rows += _select(catalog, MLTable.nested_execution, {"Nested_Execution": runs})
    found.nested = list({row["RID"]: row for row in rows}.values())
    named = {row[end] for row in found.nested for end in ("Execution", "Nested_Execution")}
    named |= found.named[MLTable.execution].keys()
    named |= {each.version.execution for each in found.versions.values() if each.version.execution is not None}
    rids = sorted(named - found.runs.keys())
    found.relatives = {row["RID"]: row for row in _select(catalog, MLTable.execution, {"RID": rids})}
