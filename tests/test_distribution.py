"""The wheel: it contains six typed packages and nothing else, and they can be imported from it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="the wheel is built with this environment's hatchling, which is not installed")

ROOT = Path(__file__).parents[1]
PACKAGES = {
    *("deriva_ml", "deriva_ml_cli", "deriva_ml_core", "deriva_ml_keras", "deriva_ml_lightning", "deriva_ml_mcp"),
    "deriva_ml_ui",
}
FACTORY = "deriva_ml_lightning_factory.py"
"""Module that Lightning loads whenever a Trainer is created; outside of the packages, which take longer to load."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that pip builds from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", folder, ROOT], check=True)
    (built,) = folder.glob("deriva_ml_core-*.whl")
    return built


def test_wheel_contains_the_packages(wheel: Path) -> None:
    """The wheel contains all modules of the packages with py.typed, and no tests, examples or plugins."""
    with zipfile.ZipFile(wheel) as archive:
        names = {Path(name) for name in archive.namelist()}
    tops = {name.parts[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES | {FACTORY}
    assert {name.parent.name for name in names if name.name == "py.typed"} == PACKAGES
    sources = {
        file.relative_to(root) for root in (ROOT / "src" / "integrations", ROOT / "src") for file in module_files(root)
    }
    assert {name.name for name in names if name.parent == Path("deriva_ml_ui/static")} == {"page.css", "page.js"}
    assert {name for name in names if name.suffix == ".py"} == sources | {Path(FACTORY)}


def module_files(root: Path) -> set[Path]:
    """Return the files of the modules in a source root."""
    return {file for package in PACKAGES for file in (root / package).rglob("*.py")}


def test_wheel_can_be_imported(wheel: Path, tmp_path: Path) -> None:
    """The packages can be imported from the unpacked wheel."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import deriva_ml, deriva_ml_core, deriva_ml_lightning as it; print(deriva_ml.__file__, it.__file__, sep='\\n')"
    )
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=tmp_path)
    assert [Path(file).parents[1] for file in done.stdout.split()] == [tmp_path, tmp_path]
