"""What the tests of trainings start from: a catalog of their own, and executions in it."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from trainings import Line

from deriva_ml import DerivaML, ExecutionConfiguration, Workflow
from deriva_ml_core.execution import Execution
from deriva_ml_core.plugins import load_plugins

os.environ["KERAS_BACKEND"] = "torch"


@pytest.fixture
def line() -> Line:
    """The line to the catalog."""
    return Line()


@pytest.fixture
def ml(line: Line) -> DerivaML:
    """An embedded catalog of the test's own, at the end of the line."""
    plugins = load_plugins(os.environ)
    plugins.register(line)
    return DerivaML(plugins=plugins, patience=3)


@pytest.fixture
def new_execution(ml: DerivaML) -> Callable[[], Execution]:
    """Makes executions of one workflow of type Training."""
    workflow = Workflow(
        name="Training under test", workflow_type="Training", url="https://example.org/train.py", checksum="a1b2c3"
    )
    return lambda: ml.create_execution(ExecutionConfiguration(workflow=workflow, description="A test"))


@pytest.fixture
def execution(new_execution: Callable[[], Execution]) -> Execution:
    """One execution, not yet begun."""
    return new_execution()
