"""What all tests share: a home of their own, and a Deriva server for those that ask for one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from deriva_ml_core.client import DerivaML
    from deriva_ml_core.execution import Execution, ExecutionConfiguration
    from deriva_ml_core.workflow import Workflow
    from places import Place


def pytest_configure() -> None:
    """Have Ctrl-C mean what it means to users, here and in what tests start, also where tests run in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's jobs in the background ignore


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DERIVA_ML_HOME that no other test shares, and none of the caller's own settings."""
    for name in (
        "DERIVA_ML_WORKFLOW_URL",
        "DERIVA_ML_WORKFLOW_CHECKSUM",
        "DERIVA_ML_REQUIRE_CLEAN",
        "DERIVA_ML_DISABLED_PLUGINS",
        "DERIVA_ML_EXECUTIONS",  # what an earlier test made in this process
    ):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "home"
    monkeypatch.setenv("DERIVA_ML_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The Deriva server that DERIVA_ML_TEST_HOST names, else a fake one."""
    from places import fake_place, real_place

    named = os.environ.get("DERIVA_ML_TEST_HOST")
    with real_place(os.environ) if named else fake_place(tmp_path_factory.mktemp("hatrac")) as found:
        yield found


@pytest.fixture
def ml() -> DerivaML:
    """A client of a new embedded catalog."""
    from deriva_ml_core.client import DerivaML

    return DerivaML()


@pytest.fixture
def workflow() -> Workflow:
    """A workflow whose source is given, so that nothing is detected."""
    from deriva_ml_core.workflow import Workflow

    return Workflow(
        name="Test",
        workflow_type="Training",
        url="https://github.com/org/repo/blob/abc/train.py",
        checksum="0123456789012345678901234567890123456789",
    )


@pytest.fixture
def config(workflow: Workflow) -> ExecutionConfiguration:
    """A configuration without inputs."""
    from deriva_ml_core.execution import ExecutionConfiguration

    return ExecutionConfiguration(workflow=workflow, description="A test")


@pytest.fixture
def exe(ml: DerivaML, config: ExecutionConfiguration) -> Execution:
    """An execution that was created and does not run yet."""
    return ml.create_execution(config)
