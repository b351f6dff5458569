"""Fixtures of the command line's tests: recorded runs, and a function that calls ``deriva-ml``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

pytest.importorskip("typer", reason="the command line is built with typer")

from command_result import CommandResult
from typer.testing import CliRunner

from deriva_ml_cli.app import app
from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.workflow import Workflow

Cli = Callable[..., CommandResult]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Call ``deriva-ml`` in this process, on a terminal of a given width."""

    def call(*args: str, columns: int = 80, answer: str = "") -> CommandResult:
        monkeypatch.setenv("COLUMNS", str(columns))
        result = CliRunner().invoke(app, list(args), input=answer)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return CommandResult(result.exit_code, result.stdout, result.stderr)

    return call


@pytest.fixture
def run(ml: DerivaML, workflow: Workflow, tmp_path: Path) -> Callable[..., Execution]:
    """Record a finished, uploaded run with output files and metrics."""

    def record(
        description: str = "A run", files: Sequence[str] = (), metrics: Sequence[dict[str, float]] = ()
    ) -> Execution:
        config = ExecutionConfiguration(workflow=workflow, description=description)
        with ml.create_execution(config) as exe:
            for name in files:
                exe.asset_file_path("Model", name).write_text(f"the bytes of {name} of {exe.execution_rid}")
            if metrics:
                from deriva_ml_core.training import TrainingReporter

                reporter = TrainingReporter(exe, checkpoints="none", curves=False)
                reporter.begin_fit(len(metrics))
                for epoch, values in enumerate(metrics, start=1):
                    reporter.end_epoch(epoch, values)
                reporter.end_fit()
        exe.upload_execution_outputs()
        return exe

    return record
