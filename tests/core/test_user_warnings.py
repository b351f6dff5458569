"""Warning about the distribution ``deriva-ml``, which contains the same package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deriva_ml_core.user_warnings import find_conflicting_distribution


def run_python(code: str, *folders: Path) -> str:
    """Run code in a new process that finds packages in these folders first; returns its stderr."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    return process.stderr


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of installed packages that holds a stand-in for the distribution deriva-ml."""
    metadata = tmp_path / "site" / "deriva_ml-1.17.10.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.4\nName: deriva-ml\nVersion: 1.17.10\n")
    return metadata.parent


@pytest.mark.parametrize("package", ["deriva_ml", "deriva_ml_core", "deriva_ml.execution"])
def test_one_warning(site: Path, package: str) -> None:
    """Importing gives one warning, with the other distribution's folder and what to do."""
    stderr = run_python(f"import {package}, deriva_ml_core.plugins", site)
    assert stderr.count("DerivaMLWarning") == 1
    assert str(site) in stderr
    assert "pip uninstall deriva-ml" in stderr


def test_warning_if_the_other_package_is_loaded(site: Path) -> None:
    """If the other distribution's package is imported, this one's packages still warn."""
    (site / "deriva_ml").mkdir()
    (site / "deriva_ml" / "__init__.py").write_text("theirs = True\n")
    stderr = run_python("import deriva_ml; assert deriva_ml.theirs; import deriva_ml_core", site)
    assert stderr.count("DerivaMLWarning") == 1


def test_no_warning_without_the_other() -> None:
    """Without the other distribution there is no warning."""
    assert run_python("import deriva_ml, deriva_ml_core") == ""


@pytest.mark.parametrize(
    "name",
    ["deriva_ml_core-0.1.0.dist-info", "deriva_ml_jsonl-0.1.0.dist-info", "deriva-1.7.12.dist-info", "deriva_ml"],
)
def test_other_distributions_are_ignored(tmp_path: Path, name: str) -> None:
    """This project's distributions, deriva-py and a bare package do not match."""
    (tmp_path / name).mkdir()
    assert find_conflicting_distribution(["", str(tmp_path), str(tmp_path / "absent"), sys.executable]) is None


@pytest.mark.parametrize("name", ["deriva_ml-1.17.10.dist-info", "deriva_ml.egg-info", "deriva_ml-2.0.dev1.egg-info"])
def test_kinds_of_installation(tmp_path: Path, name: str) -> None:
    """The distribution is found as a wheel and as a development install."""
    (tmp_path / name).mkdir()
    assert find_conflicting_distribution([str(tmp_path)]) == tmp_path / name
