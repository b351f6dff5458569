"""A catalog with a run that has everything a run can have, and what is told of a run without any record id."""

from __future__ import annotations

from typing import Any

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import MLTable
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.execution.recorded import RecordedExecution
from deriva_ml_core.journal.state import JOURNAL_FILENAME
from deriva_ml_core.models import DatasetSpec, Progress
from deriva_ml_core.push.source_record import is_source_record_name
from deriva_ml_core.schema import SYSTEM_COLUMNS, Column, ForeignKey, Table
from deriva_ml_core.workflow import Workflow

WORKFLOW = Workflow(
    name="Train", workflow_type="Segmenting", url="https://example.org/blob/a/t.py", checksum="1" * 40, version="2.1"
)
SCANS = 3


def make_tables(ml: DerivaML) -> None:
    """Patients, which nothing but their RID names, scans of them, and a type of workflow that no other catalog has."""
    ml.create_table(Table("Patient", (Column("Age", "int4"),), schema="domain"))
    of = ForeignKey("Patient", "Patient")
    ml.create_asset("Scan", [Column("Angle", "float8"), Column("Patient")], [of])
    for table in ("Patient", "Scan"):
        ml.add_dataset_element_type(table)
    ml.add_term("Workflow_Type", "Segmenting", "Finding regions", ["Outlining"])
    ml.add_term("Asset_Type", "Slice", "One of many")


def make_world(ml: DerivaML, scans: int = SCANS) -> Execution:
    """Make a run with two runs in it: datasets in datasets go in, files and a dataset come out.

    Args:
        ml: Where to make it.
        scans: How many files it reads.
    """
    make_tables(ml)
    ml.insert_rows("Patient", [{"Age": 40}, {"Age": 40}])  # two that say the same
    patients = [row["RID"] for row in ml.select_rows("Patient")]
    with ml.create_execution(ExecutionConfiguration(workflow=WORKFLOW, description="Import")) as importing:
        for number in range(scans):
            path = importing.asset_file_path(
                "Scan", f"{number}.png", asset_types=["Slice"], Angle=number / 2, Patient=patients[number % 2]
            )
            path.write_bytes(b"scan %d" % number)
    images = [asset.rid for asset in importing.upload_execution_outputs()["Scan"]]
    inner = ml.create_dataset("Half of them", "Training")
    inner.add_dataset_members(images[:2])
    whole = ml.create_dataset("All", ["Training", "Testing"])
    whole.add_dataset_members([inner.rid, *images[2:], *patients])
    return _ran(ml, whole.rid, images)


def _ran(ml: DerivaML, dataset: str, images: list[str]) -> Execution:
    spec = DatasetSpec(rid=dataset)
    config = ExecutionConfiguration(
        workflow=WORKFLOW, description="A sweep", datasets=[spec], assets=[images[0]], parameters={"rate": 0.1}
    )
    with ml.create_execution(config) as exe:
        exe.update_status(exe.status, "half", progress=Progress(epoch=1, metrics={"loss": 0.5}))
        exe.asset_file_path("Model", "fold/best.pt", asset_types=["Model_File", "Derived"]).write_bytes(b"weights")
        made = exe.create_dataset("What came out", "Validation")
        made.add_dataset_members([images[1]])
        for number in range(2):
            inner = ExecutionConfiguration(workflow=WORKFLOW, description=f"Trial {number}")
            with ml.create_execution(inner) as trial:
                trial.asset_file_path("Model", "trial.pt").write_bytes(b"trial %d" % number)
            trial.upload_execution_outputs()
            exe.add_nested_execution(trial, 1 - number)
    exe.upload_execution_outputs()
    return exe


def told(ml: DerivaML, rid: str) -> dict[str, Any]:
    """All that a catalog tells of a run, without record ids, times of rows, and what a copy has beside."""
    return _told(ml, ml.lookup_execution(rid))


def _told(ml: DerivaML, run: RecordedExecution) -> dict[str, Any]:
    workflow = ml.lookup_workflow(run.workflow_rid) if run.workflow_rid else None
    return {
        "description": _own(run.description),
        "status": (run.status, run.status_detail, run.duration),
        "times": (run.start_time, run.stop_time, [update.message for update in run.list_statuses()]),
        "workflow": workflow and (workflow.name, workflow.workflow_type, workflow.url, workflow.version),
        "files": sorted(_file(ml, asset) for asset in run.list_assets() if not _is_beside(asset.filename)),
        "inputs": [_version(ml, spec) for spec in run.list_input_datasets()],
        "outputs": sorted(
            (_version(ml, spec) for spec in run.list_output_datasets()), key=lambda each: each["version"]
        ),
        "metrics": run.list_metrics(),
        "nested": [_told(ml, each) for each in run.list_nested_executions()],
    }


def _own(text: str) -> str:
    return text.partition("Copied from ")[0].strip()


def _is_beside(filename: str) -> bool:
    return filename == JOURNAL_FILENAME or is_source_record_name(filename)


def _file(ml: DerivaML, asset: Any) -> tuple[Any, ...]:
    ml.verify_asset(asset)
    metadata = {name: value for name, value in asset.metadata.items() if name != "Patient"}
    patient = asset.metadata.get("Patient")
    age = ml.select_rows("Patient", {"RID": patient})[0]["Age"] if patient else None
    return asset.table, asset.filename, asset.md5, asset.role or "", sorted(asset.asset_types), str(metadata), age or 0


def _version(ml: DerivaML, spec: DatasetSpec) -> dict[str, Any]:
    dataset = ml.lookup_dataset(spec.rid)
    members = dataset.list_dataset_members(spec.version)
    inner = [child.list_dataset_members() for child in dataset.list_dataset_children(spec.version)]
    return {
        "description": _own(dataset.description),
        "types": dataset.dataset_types,
        "version": spec.version,
        "members": _by_table(members),
        "inner": [_by_table(each) for each in inner],
    }


def _by_table(members: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    return {table: [_values(row) for row in rows] for table, rows in members.items() if rows and table != "Dataset"}


def _values(row: dict[str, Any]) -> dict[str, Any]:
    of_catalog = {*SYSTEM_COLUMNS, "Patient", "URL"}
    return {name: value for name, value in row.items() if name not in of_catalog}


def counts(ml: DerivaML) -> dict[str, int]:
    """How many rows each table has, so that what is there twice is seen."""
    catalog = ml.connection.catalog
    return {name: len(catalog.select(name)) for name in catalog.refresh().tables if name != MLTable.execution_metric}
