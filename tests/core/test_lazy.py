"""A feature whose optional package is missing says which extra installs it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from deriva_ml_core import DerivaML
from deriva_ml_core._lazy import require_extra
from deriva_ml_core.errors import MissingDependency


def forget(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Make packages impossible to import."""
    for name in list(sys.modules):
        if name.partition(".")[0] in packages or name.startswith("deriva_ml_core.backends.deriva"):
            monkeypatch.delitem(sys.modules, name)
    for name in packages:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize("package", ["deriva", "requests", "urllib3"])
def test_a_server_needs_the_extra_deriva(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Opening or creating a catalog on a server without the extra names the command that installs it."""
    forget(monkeypatch, package)
    message = (
        rf"A catalog on a Deriva server needs the package '{package}': run pip install 'deriva-ml-core\[deriva\]'\."
    )
    with pytest.raises(MissingDependency, match=message):
        DerivaML("example.org", "1")
    with pytest.raises(MissingDependency, match=message):
        DerivaML.create("example.org", "project")


def test_the_embedded_catalog_needs_no_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The embedded catalog opens without deriva, requests and urllib3."""
    forget(monkeypatch, "deriva", "requests", "urllib3")
    ml = DerivaML(f"file:{tmp_path / 'catalog'}")
    assert ml.find_executions() == []


def test_own_modules_are_no_extra() -> None:
    """A missing module of this software is a fault of the installation and raised as it is."""
    with pytest.raises(ModuleNotFoundError, match="deriva_ml_core"), require_extra("deriva", "This"):
        raise ModuleNotFoundError("No module named 'deriva_ml_core.nonsense'", name="deriva_ml_core.nonsense")
