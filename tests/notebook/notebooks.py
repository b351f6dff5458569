"""Write notebooks for tests, and run ``deriva-ml-run-notebook`` on them."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat
from typer.testing import CliRunner

from deriva_ml_core.client import DerivaML
from deriva_ml_core.runner.notebook.cli import build_command

KERNEL = {"name": "python3", "language": "python", "display_name": "Python 3"}

OWN = """
from deriva_ml import DerivaML, ExecutionConfiguration
ml = DerivaML({address})
workflow = ml.create_workflow("Mine", "Training")
execution = ml.create_execution(ExecutionConfiguration(description="Mine"), workflow=workflow)
"""
"""A cell that creates the notebook's own execution."""


@dataclass(frozen=True)
class Result:
    """The exit code and the output of the command."""

    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Project:
    """A Git repository with a remote on GitHub.

    Args:
        root: The root of the work tree.
        home: The DERIVA_ML_HOME of its notebooks.
    """

    root: Path
    home: Path

    @property
    def ml(self) -> DerivaML:
        """The client of the catalog that its notebooks open with ``DerivaML()``."""
        return DerivaML(f"file:{self.home / 'local'}")

    def git(self, *arguments: str) -> str:
        """Run git in the repository and return its output."""
        done = subprocess.run(["git", *arguments], cwd=self.root, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(self) -> str:
        """Commit all changes, and return the commit's hash."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "work")
        return self.git("rev-parse", "HEAD")


def write_notebook(file: Path, *cells: str, parameters: str = "", intended: str = "", kernel: str = "python3") -> Path:
    """Write a notebook of code cells, preceded by a parameters cell and a cell with an intended error, if given."""
    tagged = {"parameters": parameters, "raises-exception": intended}
    code_cells = [nbformat.v4.new_code_cell(text, metadata={"tags": [tag]}) for tag, text in tagged.items() if text]
    code_cells += [nbformat.v4.new_code_cell(cell.strip()) for cell in cells]
    for number, cell in enumerate(code_cells):
        cell["id"] = str(number)
    file.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"kernelspec": {**KERNEL, "name": kernel}}
    nbformat.write(nbformat.v4.new_notebook(cells=code_cells, metadata=metadata), file)
    return file


def run_command(*arguments: object) -> Result:
    """Run ``deriva-ml-run-notebook`` in this process."""
    from unittest.mock import patch

    texts = [str(argument) for argument in arguments]
    runner = CliRunner()
    with patch.object(sys, "argv", ["deriva-ml-run-notebook", *texts]), runner.isolation() as (stdout, stderr, _):
        try:
            build_command()(texts)
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        return Result(code, stdout.getvalue().decode(), stderr.getvalue().decode())


def start_command(*arguments: object, folder: Path, **environ: str) -> subprocess.Popen[str]:
    """Start ``deriva-ml-run-notebook`` in a new process."""
    program = "from deriva_ml_core.runner.notebook.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
