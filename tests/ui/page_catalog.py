"""A catalog with runs of every kind, for the tests of the page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from page_samples import PNG

from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.models import DatasetSpec
from deriva_ml_core.training import TrainingReporter
from deriva_ml_core.workflow import Workflow

WORKFLOW = Workflow(
    name="fit.py", workflow_type="Training", url="https://example.org/blob/abc/fit.py", checksum="1" * 40
)
RATES = (0.1, 0.03, 0.01, 0.003)

HOSTILE = "<img src=x onerror=alert(1)> \x1b[31mred"
HOSTILE_METRIC = ":alert(1)"
HOSTILE_PARAMETER = "</script><script>alert(1)</script>"


@dataclass(frozen=True)
class Recorded:
    """The RIDs of what was recorded.

    Args:
        home: DERIVA_ML_HOME of the catalog.
        sweep: Runs with different rates, the best one first.
        failed: A run that failed.
        hostile: A run whose names are markup.
        bare: A run without parameters, metrics and files.
        dataset: A dataset of pictures.
        picture: One of them.
        report: A file of the first run, which holds JSON.
        workflow: The workflow of all.
    """

    home: Path
    sweep: tuple[str, ...]
    failed: str
    hostile: str
    bare: str
    dataset: str
    picture: str
    report: str
    workflow: str


def record_catalog(home: Path) -> Recorded:
    """Record everything in a new catalog."""
    with DerivaML(f"file:{home / 'local'}") as ml:
        dataset, picture = _record_dataset(ml)
        reports: list[str] = []
        sweep = tuple(_record_fit(ml, rate, dataset, reports) for rate in RATES)
        failed = _record_failure(ml)
        hostile = _record_hostile(ml)
        with ml.create_execution(ExecutionConfiguration(workflow=WORKFLOW, description="Nothing in it")) as bare:
            pass
        bare.upload_execution_outputs()
        best = ml.lookup_execution(sweep[0])
        best.add_tags("published", "<b>tag</b>")
        ml.lookup_execution(sweep[1]).add_tags("published")
        workflow = best.workflow_rid or ""
        return Recorded(home, sweep, failed, hostile, bare.execution_rid, dataset, picture, reports[0], workflow)


def _record_dataset(ml: DerivaML) -> tuple[str, str]:
    ml.add_dataset_element_type("Image")
    with ml.create_execution(ExecutionConfiguration(workflow=WORKFLOW, description="Import")) as exe:
        for number in range(3):
            exe.asset_file_path("Image", f"scan-{number}.png").write_bytes(PNG + bytes([number]))
        pictures = exe.upload_execution_outputs()["Image"]
        dataset = exe.create_dataset("Three scans", "Training")
        dataset.add_dataset_members([asset.rid for asset in pictures])
    exe.upload_execution_outputs()
    return dataset.rid, pictures[0].rid


def _record_fit(ml: DerivaML, rate: float, dataset: str, reports: list[str]) -> str:
    config = ExecutionConfiguration(workflow=WORKFLOW, description=f"Rate {rate}", datasets=[DatasetSpec(rid=dataset)])
    with ml.create_execution(config) as exe:
        reporter = TrainingReporter(exe, checkpoints="none", curves=False)
        reporter.begin_fit(epochs=6, settings={"lr": rate, "optimizer": "Adam", "batch_size": 32})
        loss = 1.0
        for epoch in range(1, 7):
            loss *= 1 - rate * 3
            if rate == RATES[0]:
                reporter.log_image("mask", [[epoch * 40, 0], [0, 255]], step=epoch, epoch=epoch)
                reporter.log_table("worst", [{"file": f"{epoch}.png", "loss": round(loss, 4)}], step=epoch, epoch=epoch)
            reporter.end_epoch(epoch, {"loss": loss, "val_loss": loss * 1.2, "val_accuracy": 1 - loss / 2})
        reporter.end_fit()
        exe.asset_file_path("Execution_Asset", "report.json").write_text(f'{{"rate": {rate}, "layers": [1, 2]}}')
    sent = exe.upload_execution_outputs()
    reports += [asset.rid for asset in sent["Execution_Asset"] if asset.filename == "report.json"]
    return exe.execution_rid


def _record_failure(ml: DerivaML) -> str:
    config = ExecutionConfiguration(workflow=WORKFLOW, description="A failure")
    try:
        with ml.create_execution(config) as exe:
            raise ValueError("The loss is NaN")
    except ValueError:
        exe.upload_execution_outputs()
    return exe.execution_rid


def _record_hostile(ml: DerivaML) -> str:
    config = ExecutionConfiguration(workflow=WORKFLOW, description=HOSTILE)
    with ml.create_execution(config) as exe:
        reporter = TrainingReporter(exe, checkpoints="none", curves=False)
        reporter.begin_fit(epochs=2, settings={HOSTILE_PARAMETER: HOSTILE, ":lr": "{b}"})
        for epoch in (1, 2):
            reporter.end_epoch(epoch, {HOSTILE_METRIC: epoch, "<b>loss</b>": 1 / epoch})
        reporter.end_fit()
        exe.asset_file_path("Execution_Asset", "<b>bold</b> {b}.html").write_text("<script>alert(1)</script>")
    exe.upload_execution_outputs()
    return exe.execution_rid
