"""Collection of what a push copies: rows and files of executions, dataset versions, and the rows they refer to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from deriva_ml_core.backend import Catalog, Row
from deriva_ml_core.connection import Connection
from deriva_ml_core.datasets.members import descendants, member_links
from deriva_ml_core.datasets.versions import DatasetVersion, current_version, drop_creations, version_rows_at
from deriva_ml_core.definitions import RID, MLAsset, MLTable, MLVocab, Role
from deriva_ml_core.execution.recorded import list_journal_copies, load_local_state
from deriva_ml_core.execution.tags import is_baseline_tag
from deriva_ml_core.journal.state import JOURNAL_FILENAME
from deriva_ml_core.schema import CatalogModel, asset_execution_table_name, asset_type_table_name

__all__ = ["CORE_TABLES", "DatasetVersionContents", "PushPlan", "RowsByTable", "build_push_plan"]

CORE_TABLES = frozenset(
    {MLTable.execution, MLTable.workflow, MLTable.dataset, MLTable.dataset_version, MLTable.nested_execution}
)
"""Tables whose rows have steps of their own and are not copied merely because another row refers to them."""

RowsByTable = dict[str, dict[RID, Row]]
"""Rows by table and RID."""

MembersByDataset = dict[RID, dict[str, tuple[RID, ...]]]
"""The members of datasets, by element table."""


@dataclass(frozen=True)
class DatasetVersionContents:
    """A dataset version with its members at that time.

    Args:
        version: The version.
        members: The members of the dataset and of the datasets nested in it.
        rows: The members' rows with their values at that time, and the rows that they referred to.
    """

    version: DatasetVersion
    members: MembersByDataset
    rows: RowsByTable


@dataclass
class PushPlan:
    """The rows that a push copies."""

    executions: dict[RID, Row] = field(default_factory=dict)
    workflows: dict[RID, Row] = field(default_factory=dict)
    asset_roles: dict[str, dict[tuple[RID, RID], str]] = field(default_factory=dict)
    """Roles of assets in executions, by asset table, asset and execution."""
    asset_types: dict[str, dict[RID, tuple[str, ...]]] = field(default_factory=dict)
    rows: RowsByTable = field(default_factory=lambda: defaultdict(dict))
    """Assets of executions, rows that refer to an execution, and the rows that these refer to, with present values."""
    input_datasets: list[tuple[RID, RID, RID | None]] = field(default_factory=list)
    """Dataset, execution, and the RID of the version if it is recorded."""
    datasets: dict[RID, Row] = field(default_factory=dict)
    dataset_types: dict[RID, tuple[str, ...]] = field(default_factory=dict)
    versions: dict[RID, DatasetVersionContents] = field(default_factory=dict)
    nested_executions: list[Row] = field(default_factory=list)
    referenced_rids: dict[str, dict[RID, None]] = field(default_factory=lambda: defaultdict(dict))
    """RIDs in `CORE_TABLES` that rows refer to, by table."""
    related_executions: dict[RID, Row] = field(default_factory=dict)
    """Executions that rows refer to and that are not copied."""
    terms: dict[str, dict[str, dict[str, None]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(dict)))
    """Required terms, by vocabulary and by the column that identifies them."""

    def all_rows(self) -> Iterable[RowsByTable]:
        """Yield the rows of the executions, then those of each dataset version."""
        yield self.rows
        for contents in self.versions.values():
            yield contents.rows

    def ordered_versions(self) -> list[DatasetVersionContents]:
        """Return the versions by age, with nested datasets before the datasets that contain them."""

        def age(contents: DatasetVersionContents) -> tuple[object, ...]:
            return contents.version.created, len(contents.members), contents.version.rid

        return sorted(self.versions.values(), key=age)


def build_push_plan(source: Connection, execution_rows: Iterable[Row]) -> PushPlan:
    """Collect everything that belongs to executions.

    Args:
        source: The catalog of the executions.
        execution_rows: The executions' rows.

    Raises:
        UnknownVersion: An input dataset has no version.
    """
    plan = PushPlan(executions={row["RID"]: row for row in execution_rows})
    catalog = source.catalog
    workflows = sorted({row["Workflow"] for row in plan.executions.values() if row["Workflow"]})
    plan.workflows = {row["RID"]: row for row in _select_if_present(catalog, MLTable.workflow, {"RID": workflows})}
    for row in plan.workflows.values():
        if row["Workflow_Type"]:
            plan.terms[MLVocab.workflow_type]["Name"][row["Workflow_Type"]] = None
    _add_assets(source, plan)
    _add_referring_rows(catalog, plan)
    _add_referenced_rows(catalog, plan, plan.rows)
    _add_datasets(source, plan)
    _add_asset_types(catalog, plan)
    _add_related_executions(catalog, plan)
    return plan


def _select_if_present(catalog: Catalog, table: str, where: Mapping[str, object]) -> list[Row]:
    """Return the matching rows; none if the catalog lacks the table."""
    can_match = table in catalog.model.tables and not any(value == [] for value in where.values())
    return catalog.select(table, where) if can_match else []


def _asset_tables(model: CatalogModel) -> list[str]:
    return sorted(
        name
        for name, table in model.tables.items()
        if table.is_asset and asset_execution_table_name(name) in model.tables
    )


def _add_assets(source: Connection, plan: PushPlan) -> None:
    """Add inputs and outputs of the executions, without copies of the journal, which is rewritten for the target."""
    catalog = source.catalog
    for table in _asset_tables(catalog.model):
        rows = _select_if_present(catalog, asset_execution_table_name(table), {"Execution": list(plan.executions)})
        assets = {
            row["RID"]: row for row in _select_if_present(catalog, table, {"RID": sorted({row[table] for row in rows})})
        }
        pairs = {(row[table], row["Execution"]): row["Asset_Role"] for row in rows if row[table] in assets}
        if table == MLAsset.execution_metadata:
            for pair in _find_journals(source, assets, pairs):
                del pairs[pair]
            linked = {rid for rid, _ in pairs}
            assets = {rid: row for rid, row in assets.items() if rid in linked}
        if assets:
            plan.rows[table] |= assets
        if pairs:
            plan.asset_roles[table] = pairs
            for role in set(pairs.values()):
                plan.terms[MLVocab.asset_role]["Name"][role] = None


def _find_journals(
    source: Connection, assets: Mapping[RID, Row], roles: Mapping[tuple[RID, RID], str]
) -> set[tuple[RID, RID]]:
    """Return the copies of journals, each with its execution; an output of the same name is none."""
    candidates: dict[RID, set[RID]] = {}
    for (rid, execution), role in roles.items():
        if role == Role.output and assets[rid]["Filename"] == JOURNAL_FILENAME:
            candidates.setdefault(execution, set()).add(rid)
    journals = set()
    for execution, rids in candidates.items():
        state = load_local_state(source, execution)
        own = set(state.own_record_rids()) & rids if state is not None else set()
        if own != rids:  # uploaded by another machine, or files of the user
            own |= {rid for rid, _ in list_journal_copies(source, execution)}
        journals |= {(rid, execution) for rid in own}
    return journals


def _add_referring_rows(catalog: Catalog, plan: PushPlan) -> None:
    """Add rows of other tables that refer to the executions: metrics, parameters, tags and feature values."""
    model = catalog.model
    handled = {MLTable.dataset_execution.value, *CORE_TABLES, *map(asset_execution_table_name, _asset_tables(model))}
    for table in model.tables.values():
        columns = [key.column for key in table.foreign_keys if key.table == MLTable.execution and key.to == "RID"]
        if table.name not in handled and not table.is_asset:
            for column in columns:
                rows = catalog.select(table.name, {column: list(plan.executions)})
                if table.name == MLTable.execution_tag:  # the target has baselines of its own
                    rows = [row for row in rows if not is_baseline_tag(str(row.get("Tag")))]
                if rows:
                    plan.rows[table.name] |= {row["RID"]: row for row in rows}


def _add_referenced_rows(catalog: Catalog, plan: PushPlan, rows: RowsByTable) -> None:
    """Add the rows that rows refer to, directly and indirectly."""
    waiting = {table: list(table_rows.values()) for table, table_rows in rows.items()}
    while waiting:
        table, table_rows = waiting.popitem()
        for key in catalog.model.table(table).foreign_keys:
            values = {row[key.column]: None for row in table_rows if row.get(key.column) is not None}
            if key.table in CORE_TABLES and key.to == "RID":
                plan.referenced_rids[key.table] |= values
            if key.table in CORE_TABLES or not values:
                continue
            if catalog.model.table(key.table).is_vocabulary:
                plan.terms[key.table][key.to] |= values
                continue
            referenced = rows.setdefault(key.table, {})
            present = {row[key.to] for row in referenced.values()}
            new = catalog.select(key.table, {key.to: [value for value in values if value not in present]})
            referenced |= {row["RID"]: row for row in new}
            if new:
                waiting.setdefault(key.table, []).extend(new)


def _add_datasets(source: Connection, plan: PushPlan) -> None:
    catalog = source.catalog
    executions = list(plan.executions)
    links = _select_if_present(catalog, MLTable.dataset_execution, {"Execution": executions})
    for row in drop_creations(catalog, links):
        plan.input_datasets.append((row["Dataset"], row["Execution"], row["Dataset_Version"]))
    recorded = sorted({rid for _, _, rid in plan.input_datasets if rid is not None})
    rows = _select_if_present(catalog, MLTable.dataset_version, {"RID": recorded})
    finished = {row["RID"] for row in rows if row["Snapshot"]}
    unversioned = {dataset: None for dataset, _, rid in plan.input_datasets if rid not in finished}
    current = [current_version(catalog, dataset).rid for dataset in unversioned]
    rows += _select_if_present(catalog, MLTable.dataset_version, {"RID": current})
    rows += _select_if_present(catalog, MLTable.dataset_version, {"Execution": executions})
    for row in rows:
        _add_version(catalog, plan, row)
    rids = sorted({rid for contents in plan.versions.values() for rid in contents.members})
    plan.datasets = {row["RID"]: row for row in _select_if_present(catalog, MLTable.dataset, {"RID": rids})}
    for row in _select_if_present(catalog, MLTable.dataset_dataset_type, {"Dataset": rids}):
        dataset_type = row["Dataset_Type"]
        plan.dataset_types[row["Dataset"]] = (*plan.dataset_types.get(row["Dataset"], ()), dataset_type)
        plan.terms[MLVocab.dataset_type]["Name"][dataset_type] = None


def _add_version(catalog: Catalog, plan: PushPlan, row: Row) -> None:
    """Add a version after those of its nested datasets; skip one without a snapshot, whose creation was interrupted."""
    if row["RID"] in plan.versions or not row["Snapshot"]:
        return
    snapshot_catalog = catalog.at(row["Snapshot"])
    nested = descendants(snapshot_catalog, row["Dataset"])
    for version in version_rows_at(catalog, row["Snapshot"], nested) if nested else []:
        _add_version(catalog, plan, version)
    members: dict[RID, dict[str, list[RID]]] = {rid: defaultdict(list) for rid in (row["Dataset"], *nested)}
    rows: RowsByTable = {}
    for link in member_links(snapshot_catalog.model).values():
        rids: dict[RID, None] = {}
        for page in snapshot_catalog.pages(link.table, {link.dataset_column: list(members)}):
            for link_row in page:
                members[link_row[link.dataset_column]][link.element].append(link_row[link.member_column])
                rids[link_row[link.member_column]] = None
        if rids and link.element != MLTable.dataset:
            rows[link.element] = {
                link_row["RID"]: link_row for link_row in snapshot_catalog.select(link.element, {"RID": list(rids)})
            }
    _add_referenced_rows(snapshot_catalog, plan, rows)
    member_rids = {
        rid: {table: tuple(of_table) for table, of_table in link_row.items()} for rid, link_row in members.items()
    }
    plan.versions[row["RID"]] = DatasetVersionContents(DatasetVersion.from_row(row), member_rids, rows)


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
    executions = list(plan.executions)
    rows = _select_if_present(catalog, MLTable.nested_execution, {"Execution": executions})
    rows += _select_if_present(catalog, MLTable.nested_execution, {"Nested_Execution": executions})
    plan.nested_executions = list({row["RID"]: row for row in rows}.values())
    rids = {row[end] for row in plan.nested_executions for end in ("Execution", "Nested_Execution")}
    rids |= plan.referenced_rids[MLTable.execution].keys()
    rids |= {each.version.execution for each in plan.versions.values() if each.version.execution is not None}
    unrelated = sorted(rids - plan.executions.keys())
    plan.related_executions = {
        row["RID"]: row for row in _select_if_present(catalog, MLTable.execution, {"RID": unrelated})
    }
