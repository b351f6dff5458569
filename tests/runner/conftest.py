"""What tests of the runners share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from projects import Project, make_project

pytest.importorskip("hydra_zen", reason="hydra-zen comes with the extra run")
if shutil.which("git") is None:
    pytest.skip("the projects are Git repositories, and git is not here", allow_module_level=True)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project of its own, whose model function does what it is told."""
    return make_project(tmp_path)
