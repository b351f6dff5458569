"""Fixtures of the core's tests: git without the user's settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from repositories import Repository, make_repository


@pytest.fixture
def git_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A writable global git configuration of the test."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    settings = tmp_path / "gitconfig"
    settings.write_text('[user]\n\tname = Test\n\temail = test@example.org\n[protocol "file"]\n\tallow = always\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    return settings


@pytest.fixture
def repository(git_settings: Path, tmp_path: Path) -> Repository:
    """A repository with a GitHub remote and no commit."""
    return make_repository(tmp_path / "repo")
