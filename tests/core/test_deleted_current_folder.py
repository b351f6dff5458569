"""A program whose current folder was deleted: what needs that folder says so, and everything else works."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.datasets import DatasetBag
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import ConfigurationError
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.paths import find_current_folder
from deriva_ml_core.workflow import Workflow


@pytest.fixture
def deleted_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Delete the current folder of this process, as a person does who cleans up in another window."""
    folder = tmp_path / "deleted"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    return folder


@pytest.mark.usefixtures("deleted_folder")
def test_there_is_no_current_folder() -> None:
    """The current folder is None, and no error."""
    assert find_current_folder() is None


CALLS: dict[str, Callable[[DerivaML, Execution], object]] = {
    "a catalog": lambda ml, exe: DerivaML("file:catalogs/mine"),
    "working_dir": lambda ml, exe: DerivaML(working_dir="work"),
    "a file to forget": lambda ml, exe: exe.forget("models/a.pt"),
    "an export": lambda ml, exe: ml.export(exe.execution_rid, "crate"),
    "a bag": lambda ml, exe: DatasetBag("Dataset_1-0000"),
    "a script": lambda ml, exe: Workflow(name="A", workflow_type="Training", script=Path("a.py")).source,
}


@pytest.mark.usefixtures("deleted_folder")
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_relative_path(ml: DerivaML, exe: Execution, call: Callable[..., object]) -> None:
    """A path relative to a deleted folder names nothing: the error says so, and asks for an absolute one."""
    with pytest.raises(ConfigurationError, match=r"current folder was deleted.* Change to another folder, or "):
        call(ml, exe)


def test_home_is_a_relative_path(deleted_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative DERIVA_ML_HOME is relative to the deleted folder too."""
    monkeypatch.setenv("DERIVA_ML_HOME", deleted_folder.name)
    with pytest.raises(ConfigurationError, match=r"current folder was deleted"):
        DerivaML()


@pytest.mark.usefixtures("deleted_folder")
def test_run(ml: DerivaML, config: ExecutionConfiguration, tmp_path: Path) -> None:
    """A run is recorded, its files are uploaded, and it is exported to an absolute path."""
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Model", "models/a.pt").write_text("weights")
    exe.upload_execution_outputs()
    assert exe.status is Status.completed
    assert "models/a.pt" in [asset.filename for asset in ml.lookup_execution(exe.execution_rid).list_assets()]
    pytest.importorskip("rocrate", reason="the extra 'export'")
    assert ml.export(exe.execution_rid, tmp_path / "crate") == tmp_path / "crate"


PROGRAM = """
from deriva_ml import DerivaML, ExecutionConfiguration, Workflow
with DerivaML().create_execution(ExecutionConfiguration(workflow=Workflow(name="A", workflow_type="Training"))) as exe:
    pass
print(exe.status)
"""


def test_detection(tmp_path: Path) -> None:
    """The code of a program that has no file is detected in a deleted folder too."""
    folder = tmp_path / "deleted"
    folder.mkdir()
    code = f"import os; os.chdir({str(folder)!r}); os.rmdir({str(folder)!r}); exec({PROGRAM!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "Completed\n", done.stderr
