"""Whether many processes can record runs in one embedded catalog at once, and how long they take."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure, compared
from benchmarks.measure import Beside, environment, seconds
from benchmarks.places import open_catalog
from benchmarks.scale import Scale
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
    """Time all processes beside one alone, then count what they recorded."""
    alone, together = folder / "alone", folder / "together"
    complaints: list[str] = []
    least = seconds(lambda: _recorded(alone, 1, scale, complaints))
    taken = seconds(lambda: _recorded(together, scale.processes, scale, complaints))
    made = scale.processes * scale.runs
    what = f"{scale.processes} processes making {scale.runs} executions of {scale.run_files} files each"
    yield compared(what, "one such process alone", Beside(taken, least, taken / least))
    yield Figure("processes that failed or complained", len(complaints), "processes", target=0)
    found = _Record(open_catalog(together / "local"), made, made * scale.run_files)
    yield Figure(f"executions of {made:,} that did not complete", made - found.completed, "executions", target=0)
    yield Figure("files, or links, missing or twice", found.wrong, "files", target=0)


def _recorded(home: Path, processes: int, scale: Scale, complaints: list[str]) -> None:
    open_catalog(home / "local").close()
    numbers = (str(scale.runs), str(scale.run_files))
    started = [
        subprocess.Popen(
            [sys.executable, "-c", RECORDER, str(worker), *numbers],
            cwd=home,
            env=environment(DERIVA_ML_HOME=str(home)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for worker in range(processes)
    ]
    for each in started:
        said, _ = each.communicate()
        if each.returncode or said:
            complaints.append(said)


class _Record:
    """What the catalog has in the end."""

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
