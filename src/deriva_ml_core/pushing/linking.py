"""What belongs to which execution at the target: files with their roles, datasets, and executions within executions."""

from __future__ import annotations

from collections import Counter

from deriva_ml_core.definitions import MLTable
from deriva_ml_core.pushing.gathering import PushPlan
from deriva_ml_core.pushing.passage import PushContext
from deriva_ml_core.schema import asset_execution_table_name

__all__ = ["link_assets_and_datasets", "link_nested_executions"]


def link_assets_and_datasets(context: PushContext, plan: PushPlan) -> None:
    """Link executions to their files and input datasets; links that are there stay."""
    there = context.target
    for table, roles in plan.asset_roles.items():
        links = {(context.target_rid(asset), context.target_rid(run)): role for (asset, run), role in roles.items()}
        rows = [{table: asset, "Execution": run, "Asset_Role": role} for (asset, run), role in links.items()]
        there.insert(asset_execution_table_name(table), rows, skip_existing=True)
    versioned = []
    for dataset, run, version in plan.input_datasets:
        link = {"Dataset": context.target_rid(dataset), "Execution": context.target_rid(run)}
        if version is not None and version in context.pushed_rows:
            versioned.append({**link, "Dataset_Version": context.target_rid(version)})
        else:  # another client's, of which no version is known
            there.insert_unless(MLTable.dataset_execution, link, link)
            context.notes[
                f"Of dataset {dataset} no finished version is recorded as input of {run}: the copy names none, and has "
                "the members of the current one."
            ] = None
    if versioned:
        there.insert(MLTable.dataset_execution, versioned, skip_existing=True)


def link_nested_executions(context: PushContext, plan: PushPlan) -> None:
    """Nest executions as they are here, in their order, where both ends have copies."""
    if MLTable.nested_execution not in context.target.model.tables:
        return
    rows = [
        row
        for row in sorted(plan.nested_executions, key=lambda row: (row["RCT"], row["RID"]))
        if row["Execution"] in context.pushed_rows and row["Nested_Execution"] in context.pushed_rows
    ]
    places = [
        {
            "Execution": context.target_rid(row["Execution"]),
            "Nested_Execution": context.target_rid(row["Nested_Execution"]),
            "Sequence": row["Sequence"],
        }
        for row in rows
    ]
    unplaced = Counter(place["Execution"] for place in places if place["Sequence"] is None)
    # those without a number are in the order in which their links were made
    one_by_one = [place for place in places if place["Sequence"] is None and unplaced[place["Execution"]] > 1]
    together = [place for place in places if place not in one_by_one]
    for portion in (together, *([place] for place in one_by_one)):
        if portion:
            context.target.insert(MLTable.nested_execution, portion, skip_existing=True)
