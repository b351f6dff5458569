"""Time of searches for the first executions among many, compared with the same searches among few."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, comparison_figure
from benchmarks.fixtures import open_catalog
from benchmarks.scale import Scale
from benchmarks.timing import compare, repeat_calls
from deriva_ml import DerivaML
from deriva_ml_core.definitions import MLTable, Status
from deriva_ml_core.parameter_values import encode_value

LIMIT = 50
WORKFLOWS = 4

SEARCHES: dict[str, dict[str, Any]] = {
    "where=['lr > 0.001'], sort='val_loss'": {"where": ["lr > 0.001"], "sort": "val_loss"},
    "where=['lr > 0.001']": {"where": ["lr > 0.001"]},
    "where=['lr > 0.001', 'seed < 80'], sort='val_loss'": {"where": ["lr > 0.001", "seed < 80"], "sort": "val_loss"},
    "where=['seed = 7'] (1 %), sort='val_loss'": {"where": ["seed = 7"], "sort": "val_loss"},
    "where=['seed = 7'] (1 %)": {"where": ["seed = 7"]},
    "params={'optimizer': 'Adam'}, sort='val_loss:last'": {"params": {"optimizer": "Adam"}, "sort": "val_loss:last"},
    "where=['last(loss) < 0.8'], sort='val_loss'": {"where": ["last(loss) < 0.8"], "sort": "val_loss"},
    "where=['val_loss > 0.3'], sort='val_loss'": {"where": ["val_loss > 0.3"], "sort": "val_loss"},
    "status=failed": {"status": Status.failed},
    "status=completed": {"status": Status.completed},
    "status=completed, sort='val_loss'": {"status": Status.completed, "sort": "val_loss"},
    "workflow": {"workflow": None},
    "workflow, sort='val_loss'": {"workflow": None, "sort": "val_loss"},
    "workflow_type='Training'": {"workflow_type": "Training"},
    "workflow_type='Training', sort='val_loss'": {"workflow_type": "Training", "sort": "val_loss"},
    "dataset": {"dataset": None},
    "dataset, sort='val_loss'": {"dataset": None, "sort": "val_loss"},
}
"""Arguments of ``find_executions``; a workflow and a dataset are those of the catalog."""


def run(scale: Scale, folder: Path) -> Iterator[Figure]:
    """Time each search in the largest and the smallest catalog in alternating order."""
    few, many = (_FilledCatalog(folder / str(size), size) for size in (scale.executions[0], scale.executions[-1]))
    for what, arguments in SEARCHES.items():
        times = [repeat_calls(catalog.search(arguments), max(1, scale.calls // 10)) for catalog in (many, few)]
        comparison = compare(times[0], times[1], scale.rounds)
        yield comparison_figure(
            f"find_executions({what}, limit={LIMIT}) among {many.size:,}", f"among {few.size:,}", comparison, target=1.3
        )


class _FilledCatalog:
    """A catalog with executions that have parameters, metrics, a workflow and an input dataset.

    Half of the executions of each catalog match the searches, except those that name a percentage. Executions with
    several values of a parameter, a metric, a status and a workflow are spread evenly over time.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.ml: DerivaML = open_catalog(folder)
        self.size = size
        catalog, chance = self.ml.connection.catalog, random.Random(size)
        workflows = catalog.reserve(WORKFLOWS)
        types = ("Training", "Inference")
        catalog.insert(
            MLTable.workflow,
            [{"RID": rid, "Name": rid, "Workflow_Type": types[n % 2]} for n, rid in enumerate(workflows)],
        )
        dataset = self.ml.create_dataset("Scans")
        self._names = {"workflow": workflows[0], "dataset": dataset.dataset_rid}
        runs = catalog.reserve(size)
        statuses = {0: "Failed", 1: "Aborted"}
        row = {"Description": "A run", "Status_Detail": "Epoch 9"}
        catalog.insert(
            MLTable.execution,
            [
                {
                    **row,
                    "RID": rid,
                    "Workflow": workflows[n * 7919 % WORKFLOWS],
                    "Status": statuses.get(n % 4, "Completed"),
                }
                for n, rid in enumerate(runs)
            ],
        )
        (version,) = (each["RID"] for each in self.ml.select_rows("Dataset_Version", {"Dataset": dataset.dataset_rid}))
        link = {"Dataset": dataset.dataset_rid, "Dataset_Version": version}
        catalog.insert(MLTable.dataset_execution, [{**link, "Execution": rid} for rid in runs[::2]])
        self._insert_values(runs, chance)

    def _insert_values(self, runs: list[str], chance: random.Random) -> None:
        catalog = self.ml.connection.catalog
        parameters, metrics = [], []
        for number, rid in enumerate(runs):
            values = {
                "lr": 10 ** chance.uniform(-5, -1),
                "optimizer": chance.choice(["Adam", "SGD"]),
                "seed": number * 7919 % 100,
                "batch_size": 32,
                "epochs": 10,
            }
            for name, value in values.items():
                text, as_number = encode_value(value)
                parameters.append({"Execution": rid, "Name": name, "Value": text, "Number": as_number})
            for name in ("loss", "val_loss"):
                best = chance.random()
                metric = {"Last": best + 0.1, "Best": best, "Best_At": 3, "Larger_Is_Better": False}
                metrics.append({"Execution": rid, "Stage": "fit", "Name": name, **metric})
        catalog.insert(MLTable.execution_parameter, parameters)
        catalog.insert(MLTable.execution_metric, metrics)

    def search(self, arguments: dict[str, Any]) -> Callable[[int], object]:
        """Return a function that searches and reads the status of each execution."""
        filters = {name: self._names[name] if value is None else value for name, value in arguments.items()}
        return lambda _: [execution.status for execution in self.ml.find_executions(limit=LIMIT, **filters)]
