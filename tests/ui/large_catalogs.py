"""Catalogs with very many runs, parameters, metrics and points."""

from __future__ import annotations

import json
from pathlib import Path

from page_catalog import WORKFLOW

from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.training import TrainingReporter


def record_many_runs(home: Path, count: int) -> None:
    """Record completed runs, each with three parameters and two metrics, as rows only."""
    with DerivaML(f"file:{home / 'local'}") as ml:
        workflow = ml.add_workflow(WORKFLOW)
        catalog = ml.connection.catalog
        rids = catalog.reserve(count)
        executions, params, metrics = [], [], []
        for number, rid in enumerate(rids):
            executions.append(
                {"RID": rid, "Workflow": workflow, "Status": "Completed", "Description": f"Run number {number}"}
            )
            for name, value in (("lr", number / count), ("batch_size", 2 ** (number % 8)), ("seed", number)):
                params.append({"Execution": rid, "Name": name, "Value": json.dumps(value), "Number": float(value)})
            for name in ("val_loss", "loss"):
                best = 1 / (number + 1)
                values = {"Last": best, "Best": best, "Best_At": 1, "Larger_Is_Better": False}
                metrics.append({"Execution": rid, "Stage": "fit", "Name": name, **values})
        catalog.insert("Execution", executions)
        catalog.insert("Execution_Parameter", params)
        catalog.insert("Execution_Metric", metrics)


def record_large_run(home: Path, *, parameters: int = 0, metrics: int = 0, points: int = 0) -> str:
    """Record a run.

    Args:
        home: DERIVA_ML_HOME of the catalog.
        parameters: The number of its parameters.
        metrics: The number of its metrics, each with two values.
        points: The number of values of its metric ``signal``, a sawtooth with one peak.

    Returns:
        Its RID.
    """
    with DerivaML(f"file:{home / 'local'}") as ml:
        settings = {f"parameter_{number:04}": number for number in range(parameters)}
        with ml.create_execution(ExecutionConfiguration(workflow=WORKFLOW, description="Large")) as exe:
            reporter = TrainingReporter(exe, checkpoints="none", curves=False)
            reporter.begin_fit(epochs=2, settings=settings)
            for epoch in (1, 2):
                reporter.end_epoch(
                    epoch, {f"metric_{number:05}": number * epoch for number in range(metrics)} or {"a": 1}
                )
            reporter.end_fit()
        if points:
            with (exe.working_dir / "metrics.jsonl").open("a") as file:
                for step in range(points):
                    value = 1000 if step == points // 3 else step % 7
                    file.write(
                        f'{{"stage": "fit", "fit": 1, "by": "step", "epoch": 1, "step": {step}, "time": "", '
                        f'"values": {{"signal": {value}}}}}\n'
                    )
            ml.connection.catalog.insert(
                "Execution_Metric",
                [
                    {
                        "Execution": exe.execution_rid,
                        "Stage": "fit",
                        "Name": "signal",
                        "Last": 1.0,
                        "Larger_Is_Better": False,
                    }
                ],
            )
        return exe.execution_rid
