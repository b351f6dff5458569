"""What the tests of notebooks share: a project in a git repository, and nobody's settings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

for name in ("papermill", "nbconvert", "ipykernel", "typer"):
    pytest.importorskip(name, reason=f"{name}, which runs notebooks, is not installed")

from notebooks import Project  # noqa: E402 - which imports these

UNSET = ("GIT_", "DERIVA_ML_W", "DERIVA_ML_N", "DERIVA_MCP")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project without a commit, for all tests of a module."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        for name in [
            name for name in os.environ if name.startswith(("GIT_", "DERIVA_ML_W", "DERIVA_ML_N", "DERIVA_MCP"))
        ]:
            patch.delenv(name)
        settings = folder / "gitconfig"
        settings.write_text("[user]\n\tname = Test\n\temail = test@example.org\n")
        patch.setenv("GIT_CONFIG_GLOBAL", str(settings))
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        patch.setenv("DERIVA_ML_HOME", str(folder / "home"))
        patch.delenv("PYTEST_CURRENT_TEST", raising=False)
        made = Project((folder / "my project").resolve(), folder / "home")
        made.root.mkdir()
        made.git("init", "--quiet", "--initial-branch", "main")
        made.git("remote", "add", "origin", "https://github.com/org/repo.git")
        yield made


@pytest.fixture
def at_home(project: Project, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what a test runs find the project's catalog, not one of the test's own."""
    monkeypatch.setenv("DERIVA_ML_HOME", str(project.home))
