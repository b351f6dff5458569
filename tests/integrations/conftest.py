"""What the tests of trainings start from: a catalog of their own, and executions in it."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from types import ModuleType

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
    return DerivaML(plugins=plugins, exit_timeout=3)


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


@pytest.fixture(params=["lightning.pytorch", "pytorch_lightning"])
def package(request: pytest.FixtureRequest) -> ModuleType:
    """One of the two packages; the other's cases run where it is installed."""
    pytest.importorskip(request.param, reason=f"{request.param} is not installed")
    return importlib.import_module(request.param)


@pytest.fixture
def lightning() -> ModuleType:
    """Either package, where which one does not matter."""
    for name in ("lightning.pytorch", "pytorch_lightning"):
        if importlib.util.find_spec(name.partition(".")[0]):
            return importlib.import_module(name)
    pytest.skip("neither lightning nor pytorch_lightning is installed")
