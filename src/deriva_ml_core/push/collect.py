"""All that belongs to executions, read where they are: rows, files, dataset versions, and what these refer to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from deriva_ml_core.backend import Catalog, Row
from deriva_ml_core.connection import Connection
from deriva_ml_core.datasets.members import descendants, member_links
from deriva_ml_core.datasets.versions import DatasetVersion, current_version, version_rows_at
from deriva_ml_core.definitions import RID, MLTable, MLVocab, Role
from deriva_ml_core.journal.state import JOURNAL_FILENAME
from deriva_ml_core.schema import CatalogModel, asset_execution_table_name, asset_type_table_name

__all__ = ["CORE_TABLES", "DatasetVersionContents", "PushPlan", "RowsByTable", "build_push_plan"]

CORE_TABLES = frozenset(
    {MLTable.execution, MLTable.workflow, MLTable.dataset, MLTable.dataset_version, MLTable.nested_execution}
)
"""The tables whose rows are copied by themselves, never since another row refers to them."""

RowsByTable = dict[str, dict[RID, Row]]
"""Rows by table and record id."""

MembersByDataset = dict[RID, dict[str, tuple[RID, ...]]]
"""The members of datasets, by element table."""


@dataclass(frozen=True)
class DatasetVersionContents:
    """A dataset's version as it was made.

    Args:
        version: Which.
        members: The members of the dataset and of those that lay in it, then.
        rows: The members' rows with the values that they had, and what they referred to.
    """

    version: DatasetVersion
    members: MembersByDataset
    rows: RowsByTable


@dataclass
class PushPlan:
    """What is to be copied."""

    executions: dict[RID, Row] = field(default_factory=dict)
    workflows: dict[RID, Row] = field(default_factory=dict)
    asset_roles: dict[str, dict[tuple[RID, RID], str]] = field(default_factory=dict)
    """What assets were to executions, by asset table, asset and execution."""
    asset_types: dict[str, dict[RID, tuple[str, ...]]] = field(default_factory=dict)
    rows: RowsByTable = field(default_factory=lambda: defaultdict(dict))
    """Assets of executions, and rows that name an execution, as they are now, and what these refer to."""
    input_datasets: list[tuple[RID, RID, RID | None]] = field(default_factory=list)
    """Dataset, execution, and the record id of the version where one is recorded."""
    datasets: dict[RID, Row] = field(default_factory=dict)
    dataset_types: dict[RID, tuple[str, ...]] = field(default_factory=dict)
    versions: dict[RID, DatasetVersionContents] = field(default_factory=dict)
    nested_executions: list[Row] = field(default_factory=list)
    referenced_rids: dict[str, dict[RID, None]] = field(default_factory=lambda: defaultdict(dict))
    """What rows name in the tables of `CORE_TABLES`."""
    related_executions: dict[RID, Row] = field(default_factory=dict)
    """The executions that anything here names and that are not to be copied."""
    terms: dict[str, dict[str, dict[str, None]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(dict)))
    """The terms that are needed: by vocabulary and by the column that names them."""

    def all_rows(self) -> Iterable[RowsByTable]:
        """The rows of executions, and those of each version."""
        yield self.rows
        for contents in self.versions.values():
            yield contents.rows

    def ordered_versions(self) -> list[DatasetVersionContents]:
        """The versions, the oldest first, and those of inner datasets before those of the datasets around them."""

        def age(contents: DatasetVersionContents) -> tuple[object, ...]:
            return contents.version.created, len(contents.members), contents.version.rid

        return sorted(self.versions.values(), key=age)


def build_push_plan(source: Connection, execution_rows: Iterable[Row]) -> PushPlan:
    """Read all that belongs to executions.

    Args:
        source: Where they are.
        execution_rows: Their rows.

    Raises:
        UnknownVersion: An input dataset has no version.
    """
    found = PushPlan(executions={row["RID"]: row for row in execution_rows})
    catalog = source.catalog
    workflows = sorted({row["Workflow"] for row in found.executions.values() if row["Workflow"]})
    found.workflows = {row["RID"]: row for row in _select_if_present(catalog, MLTable.workflow, {"RID": workflows})}
    for row in found.workflows.values():
        if row["Workflow_Type"]:
            found.terms[MLVocab.workflow_type]["Name"][row["Workflow_Type"]] = None
    _add_assets(catalog, found)
    _add_referring_rows(catalog, found)
    _add_referenced_rows(catalog, found, found.rows)
    _add_datasets(source, found)
    _add_asset_types(catalog, found)
    _add_related_executions(catalog, found)
    return found


def _select_if_present(catalog: Catalog, table: str, where: Mapping[str, object]) -> list[Row]:
    """The rows that match; none of a table that an older catalog does not have."""
    asked = table in catalog.model.tables and not any(value == [] for value in where.values())
    return catalog.select(table, where) if asked else []


def _asset_tables(model: CatalogModel) -> list[str]:
    return sorted(
        name
        for name, each in model.tables.items()
        if each.is_asset and asset_execution_table_name(name) in model.tables
    )


def _add_assets(catalog: Catalog, plan: PushPlan) -> None:
    """What went into the executions and came out; of the journal's copies none, as that is told anew."""
    for table in _asset_tables(catalog.model):
        rows = _select_if_present(catalog, asset_execution_table_name(table), {"Execution": list(plan.executions)})
        assets = {
            row["RID"]: row for row in _select_if_present(catalog, table, {"RID": sorted({row[table] for row in rows})})
        }
        made = {row[table] for row in rows if row["Asset_Role"] == Role.output}
        assets = {rid: row for rid, row in assets.items() if not (row["Filename"] == JOURNAL_FILENAME and rid in made)}
        if assets:
            plan.rows[table] |= assets
        pairs = {(row[table], row["Execution"]): row["Asset_Role"] for row in rows if row[table] in assets}
        if pairs:
            plan.asset_roles[table] = pairs
            for role in set(pairs.values()):
                plan.terms[MLVocab.asset_role]["Name"][role] = None


def _add_referring_rows(catalog: Catalog, plan: PushPlan) -> None:
    """The rows of further tables that name the executions: their metrics, and values of features."""
    model = catalog.model
    told = {MLTable.dataset_execution.value, *CORE_TABLES, *map(asset_execution_table_name, _asset_tables(model))}
    for table in model.tables.values():
        columns = [key.column for key in table.foreign_keys if key.table == MLTable.execution and key.to == "RID"]
        if table.name not in told and not table.is_asset:
            for column in columns:
                rows = catalog.select(table.name, {column: list(plan.executions)})
                if rows:
                    plan.rows[table.name] |= {row["RID"]: row for row in rows}


def _add_referenced_rows(catalog: Catalog, plan: PushPlan, rows: RowsByTable) -> None:
    """Add what rows refer to, and what that refers to in its turn."""
    waiting = {table: list(of_table.values()) for table, of_table in rows.items()}
    while waiting:
        table, of_table = waiting.popitem()
        for key in catalog.model.table(table).foreign_keys:
            values = {row[key.column]: None for row in of_table if row.get(key.column) is not None}
            if key.table in CORE_TABLES and key.to == "RID":
                plan.referenced_rids[key.table] |= values
            if key.table in CORE_TABLES or not values:
                continue
            if catalog.model.table(key.table).is_vocabulary:
                plan.terms[key.table][key.to] |= values
                continue
            known = rows.setdefault(key.table, {})
            there = {row[key.to] for row in known.values()}
            new = catalog.select(key.table, {key.to: [value for value in values if value not in there]})
            known |= {row["RID"]: row for row in new}
            if new:
                waiting.setdefault(key.table, []).extend(new)


def _add_datasets(source: Connection, plan: PushPlan) -> None:
    catalog = source.catalog
    runs = list(plan.executions)
    for row in _select_if_present(catalog, MLTable.dataset_execution, {"Execution": runs}):
        plan.input_datasets.append((row["Dataset"], row["Execution"], row["Dataset_Version"]))
    named = sorted({rid for _, _, rid in plan.input_datasets if rid is not None})
    rows = _select_if_present(catalog, MLTable.dataset_version, {"RID": named})
    finished = {row["RID"] for row in rows if row["Snapshot"]}
    unclear = {dataset: None for dataset, _, rid in plan.input_datasets if rid not in finished}
    current = [current_version(catalog, dataset).rid for dataset in unclear]
    rows += _select_if_present(catalog, MLTable.dataset_version, {"RID": current})
    rows += _select_if_present(catalog, MLTable.dataset_version, {"Execution": runs})
    for row in rows:
        _add_version(catalog, plan, row)
    rids = sorted({rid for contents in plan.versions.values() for rid in contents.members})
    plan.datasets = {row["RID"]: row for row in _select_if_present(catalog, MLTable.dataset, {"RID": rids})}
    for row in _select_if_present(catalog, MLTable.dataset_dataset_type, {"Dataset": rids}):
        kind = row["Dataset_Type"]
        plan.dataset_types[row["Dataset"]] = (*plan.dataset_types.get(row["Dataset"], ()), kind)
        plan.terms[MLVocab.dataset_type]["Name"][kind] = None


def _add_version(catalog: Catalog, plan: PushPlan, row: Row) -> None:
    """Read a version, and first those that the datasets in it had; one whose maker died before it was whole is none."""
    if row["RID"] in plan.versions or not row["Snapshot"]:
        return
    then = catalog.at(row["Snapshot"])
    inner = descendants(then, row["Dataset"])
    for version in version_rows_at(catalog, row["Snapshot"], inner) if inner else []:
        _add_version(catalog, plan, version)
    members: dict[RID, dict[str, list[RID]]] = {rid: defaultdict(list) for rid in (row["Dataset"], *inner)}
    rows: RowsByTable = {}
    for link in member_links(then.model).values():
        rids: dict[RID, None] = {}
        for page in then.pages(link.table, {link.dataset_column: list(members)}):
            for each in page:
                members[each[link.dataset_column]][link.element].append(each[link.member_column])
                rids[each[link.member_column]] = None
        if rids and link.element != MLTable.dataset:
            rows[link.element] = {each["RID"]: each for each in then.select(link.element, {"RID": list(rids)})}
    _add_referenced_rows(then, plan, rows)
    told = {rid: {table: tuple(of_table) for table, of_table in each.items()} for rid, each in members.items()}
    plan.versions[row["RID"]] = DatasetVersionContents(DatasetVersion.from_row(row), told, rows)


def _add_asset_types(catalog: Catalog, plan: PushPlan) -> None:
    for table in _asset_tables(catalog.model):
        rids = sorted({rid for rows in plan.all_rows() for rid in rows.get(table, ())})
        types: dict[RID, tuple[str, ...]] = {}
        for link in _select_if_present(catalog, asset_type_table_name(table), {table: rids}):
            types[link[table]] = (*types.get(link[table], ()), link[MLVocab.asset_type])
            plan.terms[MLVocab.asset_type]["Name"][link[MLVocab.asset_type]] = None
        if types:
            plan.asset_types[table] = types


def _add_related_executions(catalog: Catalog, plan: PushPlan) -> None:
    runs = list(plan.executions)
    rows = _select_if_present(catalog, MLTable.nested_execution, {"Execution": runs})
    rows += _select_if_present(catalog, MLTable.nested_execution, {"Nested_Execution": runs})
    plan.nested_executions = list({row["RID"]: row for row in rows}.values())
    named = {row[end] for row in plan.nested_executions for end in ("Execution", "Nested_Execution")}
    named |= plan.referenced_rids[MLTable.execution].keys()
    named |= {each.version.execution for each in plan.versions.values() if each.version.execution is not None}
    rids = sorted(named - plan.executions.keys())
    plan.related_executions = {row["RID"]: row for row in _select_if_present(catalog, MLTable.execution, {"RID": rids})}
