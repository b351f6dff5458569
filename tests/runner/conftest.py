"""Fixtures for tests of the runners."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from projects import Project, make_project

pytest.importorskip("hydra_zen", reason="hydra-zen, part of the extra run, is not installed")
if shutil.which("git") is None:
    pytest.skip("git is not installed, and the test projects are Git repositories", allow_module_level=True)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A new project whose model function behaves as its parameter `action` selects."""
    return make_project(tmp_path)
