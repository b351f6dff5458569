"""Time of a script that detects its source in a Git repository and creates an execution."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure, comparison_figure
from benchmarks.fixtures import committed_script, open_catalog
from benchmarks.scale import Scale
from benchmarks.timing import compare, process_trial

SCRIPT = """
from deriva_ml import DerivaML, ExecutionConfiguration

ml = DerivaML()
workflow = ml.create_workflow(name="Benchmark", workflow_type="Training")
ml.create_execution(ExecutionConfiguration(workflow=workflow, description="A benchmark"))
"""


def run(scale: Scale, folder: Path) -> Iterator[Figure]:
    """Time whole processes, including their exit."""
    home = folder / "home"
    open_catalog(home / "local").close()
    script = committed_script(folder / "repository", SCRIPT)
    libraries = "import sqlalchemy, git, pydantic"
    comparison = compare(
        process_trial([script], script.parent, DERIVA_ML_HOME=str(home)),
        process_trial(["-c", libraries], folder),
        scale.rounds,
    )
    yield comparison_figure("a script with create_workflow and create_execution", libraries, comparison, target=2.5)
