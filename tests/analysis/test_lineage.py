"""``DerivaML.lineage``."""

from __future__ import annotations

import pytest
from recorded_runs import Runs

from deriva_ml_core.analysis.lineage import Direction, Edge, Node, OmittedNodes
from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import WrongTable
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.models import DatasetSpec


def test_lineage(ml: DerivaML, runs: Runs) -> None:
    """The lineage of an execution leads to its inputs and to what these are derived from."""
    lineage = ml.lineage(runs.second)
    assert lineage.start == runs.second
    assert set(lineage.upstream) == {
        Edge(runs.model.rid, runs.second),
        Edge(runs.dataset, runs.second),
        Edge(runs.first, runs.model.rid),
        Edge(runs.first, runs.dataset),
    }
    assert lineage.downstream == ()
    assert lineage.nodes[runs.first] == Node(runs.first, "Execution", "First", "Completed")
    assert lineage.nodes[runs.model.rid] == Node(runs.model.rid, "Model", "model.pt")
    assert (lineage.omitted, lineage.is_truncated) == ((), False)
    assert set(lineage.neighbours(Direction.upstream)[runs.second]) == {runs.model.rid, runs.dataset}


def test_lineage_bounds(ml: DerivaML, runs: Runs) -> None:
    """Depth and siblings bound the lineage, and what is left out is reported."""
    assert ml.lineage(runs.second, depth=1).is_truncated
    for name in ("a.pt", "b.pt"):
        execution = ml.restore_execution(runs.first)
        execution.asset_file_path("Model", name).write_text(name)
        execution.upload_execution_outputs()
    omitted = ml.lineage(runs.first, siblings=1).omitted
    assert OmittedNodes(runs.first, Direction.downstream, "Model", 2) in omitted


def test_dataset_linked_to_the_run_that_made_it(ml: DerivaML, runs: Runs, config: ExecutionConfiguration) -> None:
    """A dataset that another client links to the run that made its first version is an output of it, not an input."""
    with ml.create_execution(config) as maker:
        dataset = maker.create_dataset("Made").rid
    reader = ml.create_execution(config.model_copy(update={"datasets": (DatasetSpec(rid=dataset),)})).execution_rid
    ml.insert_rows("Dataset_Execution", [{"Dataset": dataset, "Execution": maker.execution_rid}])
    made = ml.lookup_execution(maker.execution_rid)
    assert made.list_input_datasets() == []
    assert [spec.rid for spec in made.list_output_datasets()] == [dataset]
    assert [spec.rid for spec in ml.lookup_execution(reader).list_input_datasets()] == [dataset]
    assert ml.lineage(maker.execution_rid).edges == (Edge(maker.execution_rid, dataset), Edge(dataset, reader))
    assert ml.lineage(dataset).edges == (Edge(maker.execution_rid, dataset), Edge(dataset, reader))
    assert [each.execution_rid for each in ml.find_executions(dataset=dataset)] == [reader]
    assert ml.describe(maker.execution_rid).to_dict()["inputs"]["datasets"] == []
    target = DerivaML(f"file:{ml.connection.folder.parent / 'target'}")
    assert ml.push(maker.execution_rid, target).notes == ()
    assert target.select_rows("Dataset_Execution") == []
    assert runs.first not in ml.lineage(dataset).nodes


def test_dataset_that_a_run_read_and_extended(ml: DerivaML, runs: Runs) -> None:
    """A run that made a later version of a dataset may have read it: it stays an input."""
    ml.lookup_dataset(runs.dataset).increment_version("major")
    (version,) = ml.select_rows("Dataset_Version", {"Dataset": runs.dataset, "Version": "1.0.0"})
    ml.connection.catalog.update("Dataset_Version", [{"RID": version["RID"], "Execution": runs.second}])
    assert [spec.rid for spec in ml.lookup_execution(runs.second).list_input_datasets()] == [runs.dataset]
    assert [each.execution_rid for each in ml.find_executions(dataset=runs.dataset)] == [runs.second]


def test_lineage_of_a_workflow(ml: DerivaML, runs: Runs) -> None:
    """A workflow has no lineage."""
    with pytest.raises(WrongTable):
        ml.lineage(runs.workflow)
