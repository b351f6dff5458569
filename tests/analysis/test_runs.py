"""``DerivaML.list_executions``, ``list_workflows`` and ``list_datasets``."""

from __future__ import annotations

import dataclasses

import pytest
from recorded_runs import Runs

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import ConfigurationError, UnknownRID, UnknownTerm


def test_list_executions(ml: DerivaML, runs: Runs) -> None:
    """Executions are listed newest first, as frozen values."""
    page = ml.list_executions()
    assert [(each.rid, each.status, each.description) for each in page.executions] == [
        (runs.second, Status.failed, "Second"),
        (runs.first, Status.completed, "First"),
    ]
    newest = page.executions[0]
    assert newest.workflow is not None
    assert (newest.workflow.rid, newest.workflow.name, newest.workflow.workflow_type) == (
        runs.workflow,
        "Test",
        "Training",
    )
    assert (newest.status_detail, page.has_more, page.ranking) == ("ValueError: no more data", False, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        newest.rid = "1-0000"


def test_list_executions_in_pages(ml: DerivaML, runs: Runs) -> None:
    """Pages follow each other, and each says whether another one follows."""
    pages = [ml.list_executions(limit=1, page=number) for number in (1, 2, 3)]
    assert [[each.rid for each in page.executions] for page in pages] == [[runs.second], [runs.first], []]
    assert [page.has_more for page in pages] == [True, False, False]


def test_list_executions_with_filters(ml: DerivaML, runs: Runs) -> None:
    """Filters combine, and unknown values are errors."""
    assert [each.rid for each in ml.list_executions(dataset=runs.dataset, text="SEC").executions] == [runs.second]
    assert ml.list_executions(status=Status.completed, text="second").executions == ()
    with pytest.raises(UnknownRID):
        ml.list_executions(workflow="9-ZZZZ")
    with pytest.raises(UnknownTerm):
        ml.list_executions(workflow_type="Nothing")
    with pytest.raises(ConfigurationError):
        ml.list_executions(stage="fit")


def test_list_executions_by_metric(ml: DerivaML, runs: Runs) -> None:
    """With a metric the best execution comes first, with its value."""
    page = ml.list_executions(sort="val_loss")
    values = [(each.rid, each.metric.best if each.metric else None) for each in page.executions]
    assert values == [(runs.second, 0.25), (runs.first, 0.5)]
    assert page.ranking is not None
    assert (page.ranking.name, page.ranking.stage, page.ranking.larger_is_better) == ("val_loss", "fit", False)


def test_list_workflows(ml: DerivaML, runs: Runs) -> None:
    """Workflows are listed with their source, and filtered by type and text."""
    (workflow,) = ml.list_workflows(workflow_type="Training", text="TRAIN.PY").workflows
    assert (workflow.rid, workflow.name) == (runs.workflow, "Test")
    assert workflow.url == "https://github.com/org/repo/blob/abc/train.py"
    assert ml.list_workflows(text="nowhere").workflows == ()
    with pytest.raises(UnknownTerm):
        ml.list_workflows(workflow_type="Nothing")


def test_list_datasets(ml: DerivaML, runs: Runs) -> None:
    """Datasets are listed with type and version; deleted ones only on request."""
    (dataset,) = ml.list_datasets(text="scan").datasets
    assert (dataset.rid, dataset.types, dataset.version, dataset.deleted) == (
        runs.dataset,
        ("Training",),
        "0.2.0",
        False,
    )
    ml.delete_dataset(runs.dataset)
    assert ml.list_datasets().datasets == ()
    assert [each.deleted for each in ml.list_datasets(include_deleted=True).datasets] == [True]
