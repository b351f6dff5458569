"""Time and correctness of many processes that record runs in one embedded catalog at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure, comparison_figure
from benchmarks.fixtures import open_catalog
from benchmarks.scale import Scale
from benchmarks.timing import Comparison, process_environment, time_call
from deriva_ml import DerivaML
from deriva_ml_core.schema import asset_execution_table_name, asset_type_table_name

RECORDER = """
import sys
from deriva_ml import DerivaML, ExecutionConfiguration, Workflow

worker, runs, files = map(int, sys.argv[1:])
workflow = Workflow(name="Benchmark", workflow_type="Training", url="https://example.org/benchmark", checksum="b")
ml = DerivaML()
for run in range(runs):
    with ml.create_execution(ExecutionConfiguration(workflow=workflow, description=f"{worker}:{run}")) as exe:
        for number in range(files):
            exe.asset_file_path("Image", f"{worker}-{run}-{number}.png").write_text(f"{worker}:{run}:{number}")
    exe.upload_execution_outputs()
"""


def run(scale: Scale, folder: Path) -> Iterator[Figure]:
    """Compare the processes with a single one, then count what they recorded."""
    single, concurrent = folder / "single", folder / "concurrent"
    failures: list[str] = []
    single_seconds = time_call(lambda: _run_processes(single, 1, scale, failures))
    seconds = time_call(lambda: _run_processes(concurrent, scale.processes, scale, failures))
    created = scale.processes * scale.runs
    what = f"{scale.processes} processes that record {scale.runs} executions of {scale.run_files} files each"
    yield comparison_figure(what, "one such process", Comparison(seconds, single_seconds, seconds / single_seconds))
    yield Figure("processes that failed or printed something", len(failures), "processes", target=0)
    recorded = _RecordedRows(open_catalog(concurrent / "local"), created, created * scale.run_files)
    yield Figure(
        f"executions of {created:,} that did not complete", created - recorded.completed, "executions", target=0
    )
    yield Figure("missing or duplicate files and links", recorded.wrong, "files", target=0)


def _run_processes(home: Path, processes: int, scale: Scale, failures: list[str]) -> None:
    open_catalog(home / "local").close()
    numbers = (str(scale.runs), str(scale.run_files))
    started = [
        subprocess.Popen(
            [sys.executable, "-c", RECORDER, str(worker), *numbers],
            cwd=home,
            env=process_environment(DERIVA_ML_HOME=str(home)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for worker in range(processes)
    ]
    for process in started:
        output, _ = process.communicate()
        if process.returncode or output:
            failures.append(output)


class _RecordedRows:
    """Counts of the rows in the catalog.

    Args:
        ml: The client.
        executions: The expected number of executions.
        files: The expected number of files.
    """

    def __init__(self, ml: DerivaML, executions: int, files: int) -> None:
        rows = ml.select_rows("Execution", {"Status": "Completed"})
        self.completed = len({row["Description"] for row in rows}) if len(rows) == executions else 0
        images = ml.select_rows("Image")
        names = {row["Filename"] for row in images}
        linked = [row["Image"] for row in ml.select_rows(asset_execution_table_name("Image"))]
        typed = [row["Image"] for row in ml.select_rows(asset_type_table_name("Image"))]
        self.wrong = sum(
            abs(files - number)
            for number in (len(images), len(names), len(linked), len(set(linked)), len(typed), len(set(typed)))
        )
