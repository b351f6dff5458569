"""``DerivaML.verify``."""

from __future__ import annotations

from collections.abc import Callable
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


def test_verify_without_threads(ml: DerivaML, runs: Runs, refuse_threads: Callable[[int], None]) -> None:
    """If the system refuses threads, the objects are read in the calling thread."""
    refuse_threads(1_000)
    asset = ml.verify(runs.model.rid)
    assert (asset.objects, asset.bytes, asset.problems) == (1, 7, ())
    assert ml.verify().problems == ()


def test_verify_damaged_object(ml: DerivaML, runs: Runs) -> None:
    """A changed object is a problem of its asset."""
    path = Path(ml.connection.store.source(runs.model.url).removeprefix("file://"))
    path.chmod(0o644)
    path.write_text("WEIGHTS")
    (problem,) = ml.verify().problems
    assert (problem.what, problem.table, problem.rid, problem.name) == ("object", "Model", runs.model.rid, "model.pt")
    assert isinstance(problem, Problem)


HALF = "; on the machine of the run, `deriva-ml upload` completes its upload"


@pytest.mark.parametrize("table", ["Model", "Execution_Metadata"])
def test_verify_rows_without_types(ml: DerivaML, runs: Runs, table: str) -> None:
    """An output without a type is a problem of its execution and of the catalog."""
    catalog = ml.connection.catalog
    (asset, *_) = [each for each in ml.lookup_execution(runs.first).list_assets("Output") if each.table == table]
    catalog.delete(f"{table}_Asset_Type", {table: asset.rid})
    expected = (Problem("row", table, asset.rid, asset.filename, f"has no asset type{HALF}"),)
    assert ml.verify(runs.first).problems == ml.verify().problems == expected


def test_verify_rows_without_links(ml: DerivaML, runs: Runs) -> None:
    """A metadata file that no execution is linked to is a problem; a row of another table can be data of a project."""
    catalog = ml.connection.catalog
    (metadata, *_) = [
        each for each in ml.lookup_execution(runs.first).list_assets() if "configuration" in each.filename
    ]
    catalog.delete("Execution_Metadata_Execution", {"Execution_Metadata": metadata.rid})
    catalog.delete("Model_Execution", {"Model": runs.model.rid})
    (problem,) = ml.verify().problems
    assert problem == Problem(
        "row", "Execution_Metadata", metadata.rid, "configuration.json", f"is not linked to an execution{HALF}"
    )


def test_verify_row_without_files(ml: DerivaML, runs: Runs) -> None:
    """A workflow has no files to verify."""
    with pytest.raises(WrongTable):
        ml.verify(runs.workflow)
