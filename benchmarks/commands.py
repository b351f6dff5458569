"""What the command line costs in a fresh process, among many executions and among few, and what its help costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Figure, compared
from benchmarks.measure import Trial, beside, process
from benchmarks.places import configuration, open_catalog
from benchmarks.scale import Scale
from deriva_ml import DerivaML
from deriva_ml_core.definitions import MLTable, Role
from deriva_ml_core.execution import Execution

COMMAND = ("-m", "deriva_ml_cli")
METRICS = ("val_loss", "val_accuracy")


def run(scale: Scale, folder: Path) -> Iterator[Figure]:
    """Time whole processes, in turn in a catalog with the most executions and in one with the fewest."""
    help_, typer = process([*COMMAND, "--help"], folder), process(["-c", "import typer"], folder)
    yield compared("deriva-ml --help", "import typer", beside(help_, typer, scale.rounds), target=3)
    few, *_, many = (_Filled(folder / str(size), size) for size in scale.executions)
    for words, target in {
        ("list",): 1.2,
        ("show", "{execution}"): 1.2,
        ("list", "--sort", "val_loss"): 1.2,
        ("list", "--sort", "val_loss:last", "--status", "completed", "--type", "Training"): 1.2,
        ("list", "--status", "failed"): None,
        ("lineage", "{execution}"): 1.2,
        ("lineage", "{shared}"): None,
    }.items():
        taken = beside(many.command(words), few.command(words), scale.rounds)
        what = " ".join(words).format(execution="RID", shared="of what all read")
        yield compared(f"deriva-ml {what} among {many.size:,}", f"among {few.size:,}", taken, target=target)


@dataclass
class _Filled:
    """A catalog with so many executions, each with metrics, with a file that it read and one that it made.

    The last of them truly ran. All read one file; that has as many neighbours as there are executions.
    """

    folder: Path
    size: int

    def __post_init__(self) -> None:
        ml = open_catalog(self.folder)
        first = self._ran(ml, ())
        (shared,) = [asset.rid for asset in first.list_assets(Role.output) if asset.table == "Model"]
        self._fill(ml, str(first.workflow_rid), shared)
        self._names = {"shared": shared, "execution": self._ran(ml, (shared,)).execution_rid}
        ml.close()

    def command(self, words: tuple[str, ...]) -> Trial:
        """A process that asks this catalog."""
        asked = [word.format(**self._names) for word in words]
        return process([*COMMAND, *asked, "--host", f"file:{self.folder}"], self.folder)

    def _ran(self, ml: DerivaML, inputs: tuple[str, ...]) -> Execution:
        with ml.create_execution(configuration()) as execution:
            for rid in inputs:
                execution.record_input(rid)
            execution.asset_file_path("Model", "model.pt").write_text(f"weights of {execution.execution_rid}")
        execution.upload_execution_outputs()
        return execution

    def _fill(self, ml: DerivaML, workflow: str, shared: str) -> None:
        catalog, count = ml.connection.catalog, self.size - 2
        row = {"Workflow": workflow, "Description": "A run", "Status": "Completed", "Status_Detail": "Epoch 9"}
        runs, models = catalog.reserve(count), catalog.reserve(count)
        catalog.insert(MLTable.execution, [{**row, "RID": rid} for rid in runs])
        numbers = [(rid, (number * 7919 % count) / count) for number, rid in enumerate(runs)]
        facts = {"Stage": "fit", "Best_At": 3, "Larger_Is_Better": False}
        catalog.insert(
            MLTable.execution_metric,
            [
                {**facts, "Execution": rid, "Name": name, "Last": value + 0.1, "Best": value}
                for rid, value in numbers
                for name in METRICS
            ],
        )
        file = {"Filename": "model.pt", "Length": 7, "MD5": "0" * 32}
        catalog.insert("Model", [{**file, "RID": rid, "URL": f"/hatrac/Model/{rid}.model.pt:1"} for rid in models])
        made = [
            {"Model": model, "Execution": execution, "Asset_Role": Role.output}
            for model, execution in zip(models, runs, strict=True)
        ]
        read = [{"Model": shared, "Execution": execution, "Asset_Role": Role.input} for execution in runs]
        catalog.insert("Model_Execution", made + read)
