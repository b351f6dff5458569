"""What pip installs: five typed packages and nothing else, from a wheel as from a checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="the wheel is built with the hatchling of this environment")

ROOT = Path(__file__).parents[1]
PACKAGES = {"deriva_ml", "deriva_ml_cli", "deriva_ml_core", "deriva_ml_keras", "deriva_ml_lightning"}
FACTORY = "deriva_ml_lightning_factory.py"
"""What Lightning loads whenever a Trainer is made: a module alone, since a package of ours takes time to load."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that pip builds of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", folder, ROOT], check=True, timeout=250)
    (built,) = folder.glob("deriva_ml_core-*.whl")
    return built


def test_the_wheel_holds_the_packages(wheel: Path) -> None:
    """Each package is in it, with its mark for type checkers, and no tests, examples or plugins are."""
    with zipfile.ZipFile(wheel) as archive:
        names = {Path(name) for name in archive.namelist()}
    tops = {name.parts[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES | {FACTORY}
    assert {name.parent.name for name in names if name.name == "py.typed"} == PACKAGES
    sources = {
        file.relative_to(root) for root in (ROOT / "src" / "integrations", ROOT / "src") for file in python(root)
    }
    assert {name for name in names if name.suffix == ".py"} == sources | {Path(FACTORY)}


def python(root: Path) -> set[Path]:
    """The modules of the packages below a source root."""
    return {file for package in PACKAGES for file in (root / package).rglob("*.py")}


def test_what_is_installed_runs(wheel: Path, tmp_path: Path) -> None:
    """Unpacked where no checkout is, the packages are imported from there."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import deriva_ml, deriva_ml_core, deriva_ml_lightning as it; print(deriva_ml.__file__, it.__file__, sep='\\n')"
    )
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=250, cwd=tmp_path)
    assert [Path(file).parents[1] for file in done.stdout.split()] == [tmp_path, tmp_path]
