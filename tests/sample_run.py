"""A run with everything that a run can have, and its description without RIDs."""

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
    """Create tables of patients without a key and of their scans, and a workflow type of this catalog only."""
    ml.create_table(Table("Patient", (Column("Age", "int4"),), schema="domain"))
    patient_key = ForeignKey("Patient", "Patient")
    ml.create_asset("Scan", [Column("Angle", "float8"), Column("Patient")], [patient_key])
    for table in ("Patient", "Scan"):
        ml.add_dataset_element_type(table)
    ml.add_term("Workflow_Type", "Segmenting", "Finding regions", ["Outlining"])
    ml.add_term("Asset_Type", "Slice", "One of many")


def record_sample_run(ml: DerivaML, scans: int = SCANS) -> Execution:
    """Record a run with two nested runs, nested input datasets, output files and an output dataset.

    Args:
        ml: The catalog.
        scans: Number of files that it reads.
    """
    make_tables(ml)
    ml.insert_rows("Patient", [{"Age": 40}, {"Age": 40}])  # two with the same values
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
    outer = ml.create_dataset("All", ["Training", "Testing"])
    outer.add_dataset_members([inner.rid, *images[2:], *patients])
    return _record_run(ml, outer.rid, images)


def _record_run(ml: DerivaML, dataset: str, images: list[str]) -> Execution:
    spec = DatasetSpec(rid=dataset)
    config = ExecutionConfiguration(
        workflow=WORKFLOW, description="A sweep", datasets=[spec], assets=[images[0]], parameters={"rate": 0.1}
    )
    with ml.create_execution(config) as exe:
        exe.update_status(exe.status, "half", progress=Progress(epoch=1, metrics={"loss": 0.5}))
        exe.asset_file_path("Model", "fold/best.pt", asset_types=["Model_File", "Derived"]).write_bytes(b"weights")
        output = exe.create_dataset("What came out", "Validation")
        output.add_dataset_members([images[1]])
        for number in range(2):
            inner = ExecutionConfiguration(workflow=WORKFLOW, description=f"Trial {number}")
            with ml.create_execution(inner) as trial:
                trial.asset_file_path("Model", "trial.pt").write_bytes(b"trial %d" % number)
            trial.upload_execution_outputs()
            exe.add_nested_execution(trial, 1 - number)
    exe.upload_execution_outputs()
    return exe


def describe_run(ml: DerivaML, rid: str) -> dict[str, Any]:
    """Return everything that a catalog records of a run, without RIDs, row times and files that only copies have."""
    return _describe(ml, ml.lookup_execution(rid))


def _describe(ml: DerivaML, run: RecordedExecution) -> dict[str, Any]:
    workflow = ml.lookup_workflow(run.workflow_rid) if run.workflow_rid else None
    return {
        "description": _own_description(run.description),
        "status": (run.status, run.status_detail, run.duration),
        "times": (run.start_time, run.stop_time, [update.message for update in run.list_statuses()]),
        "workflow": workflow and (workflow.name, workflow.workflow_type, workflow.url, workflow.version),
        "files": sorted(
            _describe_file(ml, asset) for asset in run.list_assets() if not _is_only_in_copies(asset.filename)
        ),
        "inputs": [_describe_version(ml, spec) for spec in run.list_input_datasets()],
        "outputs": sorted(
            (_describe_version(ml, spec) for spec in run.list_output_datasets()), key=lambda item: item["version"]
        ),
        "metrics": run.list_metrics(),
        "nested": [_describe(ml, item) for item in run.list_nested_executions()],
    }


def _own_description(text: str) -> str:
    return text.partition("Copied from ")[0].strip()


def _is_only_in_copies(filename: str) -> bool:
    return filename == JOURNAL_FILENAME or is_source_record_name(filename)


def _describe_file(ml: DerivaML, asset: Any) -> tuple[Any, ...]:
    ml.verify_asset(asset)
    metadata = {name: value for name, value in asset.metadata.items() if name != "Patient"}
    patient = asset.metadata.get("Patient")
    age = ml.select_rows("Patient", {"RID": patient})[0]["Age"] if patient else None
    return asset.table, asset.filename, asset.md5, asset.role or "", sorted(asset.asset_types), str(metadata), age or 0


def _describe_version(ml: DerivaML, spec: DatasetSpec) -> dict[str, Any]:
    dataset = ml.lookup_dataset(spec.rid)
    members = dataset.list_dataset_members(spec.version)
    inner = [child.list_dataset_members() for child in dataset.list_dataset_children(spec.version)]
    return {
        "description": _own_description(dataset.description),
        "types": dataset.dataset_types,
        "version": spec.version,
        "members": _by_table(members),
        "inner": [_by_table(item) for item in inner],
    }


def _by_table(members: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    return {table: [_values(row) for row in rows] for table, rows in members.items() if rows and table != "Dataset"}


def _values(row: dict[str, Any]) -> dict[str, Any]:
    excluded = {*SYSTEM_COLUMNS, "Patient", "URL"}
    return {name: value for name, value in row.items() if name not in excluded}


def count_rows(ml: DerivaML) -> dict[str, int]:
    """Return the number of rows of each table, to detect duplicates."""
    catalog = ml.connection.catalog
    return {name: len(catalog.select(name)) for name in catalog.refresh().tables if name != MLTable.execution_metric}
