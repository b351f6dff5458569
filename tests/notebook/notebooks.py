"""Notebooks for tests, the command that runs them, and what it said."""

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
"""A cell that makes the notebook's own execution."""


@dataclass(frozen=True)
class Said:
    """What the command said, and the code that it ended with."""

    code: int
    out: str
    complaint: str


@dataclass(frozen=True)
class Project:
    """A git repository with a remote on GitHub.

    Args:
        root: Its work tree.
        home: The DERIVA_ML_HOME of what runs in it.
    """

    root: Path
    home: Path

    @property
    def ml(self) -> DerivaML:
        """The catalog that its notebooks open by ``DerivaML()``."""
        return DerivaML(f"file:{self.home / 'local'}")

    def git(self, *words: str) -> str:
        """Run git in it and return what it prints."""
        done = subprocess.run(["git", *words], cwd=self.root, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(self) -> str:
        """Commit all, and return the commit."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "work")
        return self.git("rev-parse", "HEAD")


def write_notebook(file: Path, *cells: str, parameters: str = "", intended: str = "", kernel: str = "python3") -> Path:
    """Write a notebook of code cells; before them that of its parameters, and one whose error is intended, if any."""
    first = {"parameters": parameters, "raises-exception": intended}
    made = [nbformat.v4.new_code_cell(text, metadata={"tags": [tag]}) for tag, text in first.items() if text]
    made += [nbformat.v4.new_code_cell(cell.strip()) for cell in cells]
    for number, cell in enumerate(made):
        cell["id"] = str(number)
    file.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=made, metadata={"kernelspec": {**KERNEL, "name": kernel}}), file)
    return file


def ask(*words: object) -> Said:
    """Call ``deriva-ml-run-notebook`` in this process."""
    from unittest.mock import patch

    given = [str(word) for word in words]
    runner = CliRunner()
    with patch.object(sys, "argv", ["deriva-ml-run-notebook", *given]), runner.isolation() as (out, complaint, _):
        try:
            build_command()(given)
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        return Said(code, out.getvalue().decode(), complaint.getvalue().decode())


def begun(*words: object, folder: Path, **environ: str) -> subprocess.Popen[str]:
    """Begin ``deriva-ml-run-notebook`` in a process of its own."""
    program = "from deriva_ml_core.runner.notebook.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, words)],
        cwd=folder,
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
