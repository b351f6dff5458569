"""Fixtures of all tests: a separate DERIVA_ML_HOME, and a Deriva server on request."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from deriva_ml_core.client import DerivaML
    from deriva_ml_core.execution import Execution, ExecutionConfiguration
    from deriva_ml_core.workflow import Workflow
    from engines.postgres import PostgresServer
    from engines.s3 import S3Service
    from engines.s3_proxy import S3Proxy
    from remote_server import RemoteServer


def pytest_configure() -> None:
    """Set how this process treats SIGINT, and remove the time limits of hypothesis.

    SIGINT raises KeyboardInterrupt here and in child processes, also if the tests run in the background. The limits of
    hypothesis are for a quiet machine: a deadline for each example, and the speed with which it generates them.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore SIGINT
    settings.register_profile("any load", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("any load")


def pytest_unconfigure() -> None:
    """Print nothing about the files that tests leave staged when the interpreter exits."""
    logging.lastResort = logging.NullHandler()


@pytest.fixture(autouse=True)
def check_sigterm_handler() -> Iterator[None]:
    """Fail a test that leaves a run, whose handler then still receives SIGTERM.

    The handler of a run that has ended does what the previous one does, and stays below a framework's own handler until
    that one is removed.
    """
    before = signal.getsignal(signal.SIGTERM)
    yield
    owner = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if signal.getsignal(signal.SIGTERM) == before or type(owner).__name__ != "SigtermHandler":
        return
    signal.signal(signal.SIGTERM, before)
    if owner._is_installed:  # type: ignore[union-attr]
        pytest.fail("The test leaves a run's handler of SIGTERM installed. Leave the with block of each run.")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set DERIVA_ML_HOME to a folder of this test, and remove the caller's settings."""
    for name in (
        "DERIVA_ML_WORKFLOW_URL",
        "DERIVA_ML_WORKFLOW_CHECKSUM",
        "DERIVA_ML_REQUIRE_CLEAN",
        "DERIVA_ML_QUIET",
        "DERIVA_ML_DISABLED_PLUGINS",
        "DERIVA_ML_EXECUTIONS",  # executions of an earlier test in this process
    ):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "home"
    monkeypatch.setenv("DERIVA_ML_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def remote_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteServer]:
    """Return the Deriva server that DERIVA_ML_TEST_HOST names, or else a fake one."""
    from remote_server import fake_server, real_server

    is_real = os.environ.get("DERIVA_ML_TEST_HOST")
    with real_server(os.environ) if is_real else fake_server(tmp_path_factory.mktemp("hatrac")) as server:
        yield server


@pytest.fixture
def refuse_threads(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return a function that lets the system refuse to start the next threads, as at a container's limit."""
    start, left = threading.Thread.start, [0]

    def refuse(thread: threading.Thread) -> None:
        if left[0]:
            left[0] -= 1
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    return lambda times: left.__setitem__(0, times)


@pytest.fixture
def ml() -> DerivaML:
    """Return a client for a new embedded catalog."""
    from deriva_ml_core.client import DerivaML

    return DerivaML()


@pytest.fixture
def workflow() -> Workflow:
    """Return a workflow with an explicit source, so that nothing is detected."""
    from deriva_ml_core.workflow import Workflow

    return Workflow(
        name="Test",
        workflow_type="Training",
        url="https://github.com/org/repo/blob/abc/train.py",
        checksum="0123456789012345678901234567890123456789",
    )


@pytest.fixture
def config(workflow: Workflow) -> ExecutionConfiguration:
    """Return a configuration without inputs."""
    from deriva_ml_core.execution import ExecutionConfiguration

    return ExecutionConfiguration(workflow=workflow, description="A test")


@pytest.fixture
def exe(ml: DerivaML, config: ExecutionConfiguration) -> Execution:
    """Return a new execution that is not running."""
    return ml.create_execution(config)


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Service]:
    """Return an S3 service that honours conditions."""
    from engines.s3 import seaweedfs

    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as service:
        yield service


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Service]:
    """Return an S3 service that ignores conditions."""
    from engines.s3 import rclone

    with rclone(tmp_path_factory.mktemp("rclone")) as service:
        yield service


@pytest.fixture
def s3_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Set the credentials of the engines, and remove the caller's AWS configuration."""
    from engines.s3 import ACCESS_KEY, SECRET_KEY

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-aws-credentials"))


@pytest.fixture
def s3_proxy(seaweedfs: S3Service) -> Iterator[S3Proxy]:
    """Return a proxy in front of SeaweedFS that counts requests and injects faults."""
    from engines.s3_proxy import running_proxy

    with running_proxy(seaweedfs.port) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Return a running PostgreSQL server."""
    from engines.postgres import run_postgres

    with run_postgres() as server:
        yield server
