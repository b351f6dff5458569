"""Fixtures for tests of notebooks: a project in a Git repository, isolated from the user's settings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

for name in ("papermill", "nbconvert", "ipykernel", "typer"):
    pytest.importorskip(name, reason=f"{name}, needed to run notebooks, is not installed")

from notebooks import Project  # noqa: E402 - the module imports these packages

# debugpy, which earlier versions of ipykernel import at once, otherwise prints a warning to stderr
os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"

UNSET = ("GIT_", "DERIVA_ML_W", "DERIVA_ML_N", "DERIVA_MCP")
"""Prefixes of the environment variables that are removed for the tests."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project without a commit, shared by the tests of a module."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(UNSET)]:
            patch.delenv(name)
        settings = folder / "gitconfig"
        settings.write_text("[user]\n\tname = Test\n\temail = test@example.org\n")
        patch.setenv("GIT_CONFIG_GLOBAL", str(settings))
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        patch.setenv("DERIVA_ML_HOME", str(folder / "home"))
        patch.delenv("PYTEST_CURRENT_TEST", raising=False)
        project = Project((folder / "my project").resolve(), folder / "home")
        project.root.mkdir()
        project.git("init", "--quiet", "--initial-branch", "main")
        project.git("remote", "add", "origin", "https://github.com/org/repo.git")
        yield project


@pytest.fixture
def project_home(project: Project, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the project's catalog in a test, instead of a new one."""
    monkeypatch.setenv("DERIVA_ML_HOME", str(project.home))
