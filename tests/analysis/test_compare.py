"""``DerivaML.compare``."""

from __future__ import annotations

import pytest
from recorded_runs import Runs

from deriva_ml_core.analysis.compare import Difference
from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import WrongTable


def test_compare(ml: DerivaML, runs: Runs) -> None:
    """Differing values are listed with both sides, equal ones are counted."""
    comparison = ml.compare(runs.first, runs.second)
    assert (comparison.left, comparison.right) == (runs.first, runs.second)
    assert {
        Difference("outcome", "description", "First", "Second"),
        Difference("outcome", "status", "Completed", "Failed"),
        Difference("configuration", "optimizer.lr", None, 0.1),
        Difference("inputs", f"dataset {runs.dataset}", None, "0.2.0"),
        Difference("inputs", f"Model {runs.model.rid}", None, "model.pt"),
    } <= set(comparison.differences)
    assert comparison.equal_counts["packages"] > 10
    assert not [each for each in comparison.differences if each.section == "packages"]


def test_compare_with_itself(ml: DerivaML, runs: Runs) -> None:
    """An execution does not differ from itself."""
    assert ml.compare(runs.first, runs.first).differences == ()


def test_compare_needs_executions(ml: DerivaML, runs: Runs) -> None:
    """The RID of another row is an error."""
    with pytest.raises(WrongTable):
        ml.compare(runs.first, runs.dataset)
