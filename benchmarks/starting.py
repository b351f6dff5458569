"""How long a script's process takes until it has an execution, its source detected in a real repository."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure, compared
from benchmarks.measure import beside, process
from benchmarks.places import committed_script, open_catalog
from benchmarks.scale import Scale

SCRIPT = """
from deriva_ml import DerivaML, ExecutionConfiguration

ml = DerivaML()
workflow = ml.create_workflow(name="Benchmark", workflow_type="Training")
ml.create_execution(ExecutionConfiguration(workflow=workflow, description="A benchmark"))
"""


def run(scale: Scale, folder: Path) -> Iterator[Figure]:
    """Time whole processes, so that the end of the process counts too."""
    home = folder / "home"
    open_catalog(home / "local").close()
    script = committed_script(folder / "repository", SCRIPT)
    libraries = "import sqlalchemy, git, pydantic"
    taken = beside(
        process([script], script.parent, DERIVA_ML_HOME=str(home)),
        process(["-c", libraries], folder),
        scale.rounds,
    )
    yield compared("a script with create_workflow and create_execution", libraries, taken, target=2.5)
