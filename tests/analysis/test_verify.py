"""``DerivaML.verify``."""

from __future__ import annotations

from pathlib import Path

import pytest
from recorded_runs import Runs

from deriva_ml_core.analysis.verify import Problem, VerificationProgress
from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import WrongTable


def test_verify_without_problems(ml: DerivaML, runs: Runs) -> None:
    """An undamaged asset, dataset, execution and catalog have no problems."""
    asset, dataset = ml.verify(runs.model.rid), ml.verify(runs.dataset)
    assert (asset.objects, asset.bytes, asset.links, asset.problems) == (1, 7, 0, ())
    assert (dataset.objects, dataset.problems) == (1, ())
    assert ml.verify(runs.second).problems == ()
    result = ml.verify()
    assert result.problems == ()
    assert result.links > 20


def test_verify_reports_progress(ml: DerivaML, runs: Runs) -> None:
    """The callback gets the number and size of the objects that were read so far."""
    reports: list[VerificationProgress] = []
    result = ml.verify(runs.first, progress_callback=reports.append)
    assert [report.objects for report in reports] == list(range(1, result.objects + 1))
    assert reports[-1].bytes == result.bytes


def test_verify_damaged_object(ml: DerivaML, runs: Runs) -> None:
    """A changed object is a problem of its asset."""
    path = Path(ml.connection.store.source(runs.model.url).removeprefix("file://"))
    path.chmod(0o644)
    path.write_text("WEIGHTS")
    (problem,) = ml.verify().problems
    assert (problem.what, problem.table, problem.rid, problem.name) == ("object", "Model", runs.model.rid, "model.pt")
    assert isinstance(problem, Problem)


def test_verify_row_without_files(ml: DerivaML, runs: Runs) -> None:
    """A workflow has no files to verify."""
    with pytest.raises(WrongTable):
        ml.verify(runs.workflow)
