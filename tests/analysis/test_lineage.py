"""``DerivaML.lineage``."""

from __future__ import annotations

import pytest
from recorded_runs import Runs

from deriva_ml_core.analysis.lineage import Direction, Edge, Node, OmittedNodes
from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import WrongTable


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


def test_lineage_of_a_workflow(ml: DerivaML, runs: Runs) -> None:
    """A workflow has no lineage."""
    with pytest.raises(WrongTable):
        ml.lineage(runs.workflow)
