"""Fixtures for tests of trainings: a new catalog, and executions in it."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from types import ModuleType

import pytest
from training_helpers import CatalogLink

from deriva_ml import DerivaML, ExecutionConfiguration, Workflow
from deriva_ml_core.execution import Execution
from deriva_ml_core.plugins import load_plugins

os.environ["KERAS_BACKEND"] = "torch"


@pytest.fixture
def catalog_link() -> CatalogLink:
    """The connection to the catalog."""
    return CatalogLink()


@pytest.fixture
def ml(catalog_link: CatalogLink) -> DerivaML:
    """A new embedded catalog behind the connection."""
    plugins = load_plugins(os.environ)
    plugins.register(catalog_link)
    return DerivaML(plugins=plugins, exit_timeout=3)


@pytest.fixture
def new_execution(ml: DerivaML) -> Callable[[], Execution]:
    """Factory for executions of one workflow of type Training."""
    workflow = Workflow(
        name="Training under test", workflow_type="Training", url="https://example.org/train.py", checksum="a1b2c3"
    )
    return lambda: ml.create_execution(ExecutionConfiguration(workflow=workflow, description="A test"))


@pytest.fixture
def execution(new_execution: Callable[[], Execution]) -> Execution:
    """An execution that has not started."""
    return new_execution()


@pytest.fixture(params=["lightning.pytorch", "pytorch_lightning"])
def package(request: pytest.FixtureRequest) -> ModuleType:
    """Each of the two packages, if installed."""
    pytest.importorskip(request.param, reason=f"{request.param} is not installed")
    return importlib.import_module(request.param)


@pytest.fixture
def lightning() -> ModuleType:
    """One of the two packages, for tests in which the package does not matter."""
    for name in ("lightning.pytorch", "pytorch_lightning"):
        if importlib.util.find_spec(name.partition(".")[0]):
            return importlib.import_module(name)
    pytest.skip("neither lightning nor pytorch_lightning is installed")
