"""What belongs to which execution at the target: files with their roles, datasets, and executions within executions."""

from __future__ import annotations

from collections import Counter

from deriva_ml_core.definitions import MLTable
from deriva_ml_core.pushing.gathering import Gathered
from deriva_ml_core.pushing.passage import Passage
from deriva_ml_core.schema import execution_table

__all__ = ["link_runs", "nest_runs"]


def link_runs(passage: Passage, gathered: Gathered) -> None:
    """Link executions to their files and input datasets; links that are there stay."""
    there = passage.there
    for table, roles in gathered.roles.items():
        links = {(passage.copy_of(asset), passage.copy_of(run)): role for (asset, run), role in roles.items()}
        rows = [{table: asset, "Execution": run, "Asset_Role": role} for (asset, run), role in links.items()]
        there.insert(execution_table(table), rows, skip_existing=True)
    versioned = []
    for dataset, run, version in gathered.inputs:
        link = {"Dataset": passage.copy_of(dataset), "Execution": passage.copy_of(run)}
        if version is not None and version in passage.rows:
            versioned.append({**link, "Dataset_Version": passage.copy_of(version)})
        else:  # another client's, of which no version is known
            there.insert_unless(MLTable.dataset_execution, link, link)
            passage.notes[
                f"Of dataset {dataset} no finished version is recorded as input of {run}: the copy names none, and has "
                "the members of the current one."
            ] = None
    if versioned:
        there.insert(MLTable.dataset_execution, versioned, skip_existing=True)


def nest_runs(passage: Passage, gathered: Gathered) -> None:
    """Nest executions as they are here, in their order, where both ends have copies."""
    if MLTable.nested_execution not in passage.there.model.tables:
        return
    rows = [
        row
        for row in sorted(gathered.nested, key=lambda row: (row["RCT"], row["RID"]))
        if row["Execution"] in passage.rows and row["Nested_Execution"] in passage.rows
    ]
    places = [
        {
            "Execution": passage.copy_of(row["Execution"]),
            "Nested_Execution": passage.copy_of(row["Nested_Execution"]),
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
            passage.there.insert(MLTable.nested_execution, portion, skip_existing=True)
