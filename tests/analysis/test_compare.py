"""``DerivaML.compare``."""

from __future__ import annotations

import pytest
from recorded_runs import Runs

from deriva_ml_core.analysis.compare import Difference
from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import ConfigurationError, WrongTable


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


def test_compare_a_list(ml: DerivaML, runs: Runs) -> None:
    """A list of RIDs means the same as single RIDs; fewer than two are an error."""
    comparison = ml.compare([runs.first, runs.second])
    assert comparison == ml.compare(runs.first, runs.second)
    assert ml.compare(iter([runs.first]), runs.second) == comparison
    assert ml.compare([runs.first, runs.second, runs.first]).executions == (runs.first, runs.second, runs.first)
    for rids in ([], [runs.first], runs.first):
        with pytest.raises(ConfigurationError, match="two or more executions"):
            ml.compare(rids)
