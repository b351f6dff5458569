"""The distribution ``deriva-ml`` brings the same import name: whoever has both is told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deriva_ml_core.user_warnings import find_conflicting_distribution


def run_python(code: str, *folders: Path) -> str:
    """Run code in a new process that finds packages in these folders first; what it says on stderr."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=120)
    return done.stderr


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of installed packages that holds a stand-in for the distribution deriva-ml."""
    metadata = tmp_path / "site" / "deriva_ml-1.17.10.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.4\nName: deriva-ml\nVersion: 1.17.10\n")
    return metadata.parent


@pytest.mark.parametrize("package", ["deriva_ml", "deriva_ml_core", "deriva_ml.execution"])
def test_warned_once(site: Path, package: str) -> None:
    """Importing where both are installed gives one warning, which says where the other is and what to do."""
    said = run_python(f"import {package}, deriva_ml_core.plugins", site)
    assert said.count("DerivaMLWarning") == 1
    assert str(site) in said
    assert "pip uninstall deriva-ml" in said


def test_warned_by_the_callbacks_too(site: Path) -> None:
    """Where the other's package took the name, our own packages still say so."""
    (site / "deriva_ml").mkdir()
    (site / "deriva_ml" / "__init__.py").write_text("theirs = True\n")
    said = run_python("import deriva_ml; assert deriva_ml.theirs; import deriva_ml_core", site)
    assert said.count("DerivaMLWarning") == 1


def test_silent_alone() -> None:
    """Without the other distribution nothing is said."""
    assert run_python("import deriva_ml, deriva_ml_core") == ""


@pytest.mark.parametrize(
    "name",
    ["deriva_ml_core-0.1.0.dist-info", "deriva_ml_jsonl-0.1.0.dist-info", "deriva-1.7.12.dist-info", "deriva_ml"],
)
def test_only_that_distribution(tmp_path: Path, name: str) -> None:
    """Our own distributions, deriva-py and a bare package are not taken for it."""
    (tmp_path / name).mkdir()
    assert find_conflicting_distribution(["", str(tmp_path), str(tmp_path / "absent"), sys.executable]) is None


@pytest.mark.parametrize("name", ["deriva_ml-1.17.10.dist-info", "deriva_ml.egg-info", "deriva_ml-2.0.dev1.egg-info"])
def test_however_installed(tmp_path: Path, name: str) -> None:
    """It is found as a wheel and as a development install."""
    (tmp_path / name).mkdir()
    assert find_conflicting_distribution([str(tmp_path)]) == tmp_path / name
