"""Time of the command line in a new process: its help, and its commands in a large and a small catalog."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Figure, comparison_figure
from benchmarks.fixtures import execution_configuration, open_catalog
from benchmarks.scale import Scale
from benchmarks.timing import Trial, compare, process_trial
from deriva_ml import DerivaML
from deriva_ml_core.definitions import MLTable, Role
from deriva_ml_core.execution import Execution

COMMAND = ("-m", "deriva_ml_cli")
METRICS = ("val_loss", "val_accuracy")


def run(scale: Scale, folder: Path) -> Iterator[Figure]:
    """Time whole processes, alternating between the largest and the smallest catalog."""
    help_, typer = process_trial([*COMMAND, "--help"], folder), process_trial(["-c", "import typer"], folder)
    yield comparison_figure("deriva-ml --help", "import typer", compare(help_, typer, scale.rounds), target=3)
    few, *_, many = (_FilledCatalog(folder / str(size), size) for size in scale.executions)
    for words, target in {
        ("list",): 1.2,
        ("show", "{execution}"): 1.2,
        ("list", "--sort", "val_loss"): 1.2,
        ("list", "--sort", "val_loss:last", "--status", "completed", "--type", "Training"): 1.2,
        ("list", "--status", "failed"): None,
        ("lineage", "{execution}"): 1.2,
        ("lineage", "{shared}"): None,
    }.items():
        comparison = compare(many.time_command(words), few.time_command(words), scale.rounds)
        what = " ".join(words).format(execution="RID", shared="SHARED_INPUT_RID")
        yield comparison_figure(
            f"deriva-ml {what} among {many.size:,}", f"among {few.size:,}", comparison, target=target
        )


@dataclass
class _FilledCatalog:
    """A catalog with executions that have metrics, an output file, and a common input file.

    Most executions are inserted as rows; only the first and the last one are real. The lineage graph of the common
    input has as many neighbours as there are executions.
    """

    folder: Path
    size: int

    def __post_init__(self) -> None:
        ml = open_catalog(self.folder)
        first = self._run(ml, ())
        (shared,) = [asset.rid for asset in first.list_assets(Role.output) if asset.table == "Model"]
        self._fill(ml, str(first.workflow_rid), shared)
        self._names = {"shared": shared, "execution": self._run(ml, (shared,)).execution_rid}
        ml.close()

    def time_command(self, words: tuple[str, ...]) -> Trial:
        """Return a trial that runs a command on this catalog."""
        arguments = [word.format(**self._names) for word in words]
        return process_trial([*COMMAND, *arguments, "--host", f"file:{self.folder}"], self.folder)

    def _run(self, ml: DerivaML, inputs: tuple[str, ...]) -> Execution:
        with ml.create_execution(execution_configuration()) as execution:
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
        common = {"Stage": "fit", "Best_At": 3, "Larger_Is_Better": False}
        catalog.insert(
            MLTable.execution_metric,
            [
                {**common, "Execution": rid, "Name": name, "Last": value + 0.1, "Best": value}
                for rid, value in numbers
                for name in METRICS
            ],
        )
        file = {"Filename": "model.pt", "Length": 7, "MD5": "0" * 32}
        catalog.insert("Model", [{**file, "RID": rid, "URL": f"/hatrac/Model/{rid}.model.pt:1"} for rid in models])
        outputs = [
            {"Model": model, "Execution": execution, "Asset_Role": Role.output}
            for model, execution in zip(models, runs, strict=True)
        ]
        inputs = [{"Model": shared, "Execution": execution, "Asset_Role": Role.input} for execution in runs]
        catalog.insert("Model_Execution", outputs + inputs)
