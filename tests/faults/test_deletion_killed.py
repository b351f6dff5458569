"""SIGKILL at the steps of a deletion and of its restoration: the next call completes or undoes them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fail_points import MEMORY, Step, first_of_each_kind, in_child

from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.workflow import Workflow

State = tuple[dict[str, list[dict[str, object]]], list[str], list[str]]
"""Rows without the times of their last change, RIDs in the trash, and the names in the folder of working folders."""


class DeletionSandbox:
    """A catalog with a run, and one in which that run is in the trash.

    Args:
        folder: The folder of both, and of the working copy.
    """

    def __init__(self, folder: Path) -> None:
        self.work, self.full, self.trashed = (folder / name for name in ("work", "full", "trashed"))
        workflow = Workflow(name="W", workflow_type="Training", url="https://example.org/w.py", checksum="c")
        with DerivaML(f"file:{self.work}") as ml:
            with ml.create_execution(ExecutionConfiguration(workflow=workflow, tags=["bad"])) as exe:
                exe.asset_file_path("Model", "model.pt").write_text("weights")
            exe.upload_execution_outputs()
            self.rid = exe.execution_rid
        shutil.copytree(self.work, self.full)
        with DerivaML(f"file:{self.work}") as ml:
            self.full_state = read_state(ml)
            ml.delete_execution(self.rid)
            self.deleted_state = read_state(ml)
        shutil.copytree(self.work, self.trashed)

    def run(self, start: Path, work: Callable[[DerivaML], None], step: Step | int | None = None) -> list[str] | None:
        """Run a function on a copy of a catalog; return its steps, None if it was killed."""
        shutil.rmtree(self.work)
        shutil.copytree(start, self.work)
        return in_child(work, self.work, lambda plugins: DerivaML(f"file:{self.work}", plugins=plugins), step)

    def delete(self, ml: DerivaML) -> None:
        ml.delete_execution(self.rid)

    def restore(self, ml: DerivaML) -> None:
        ml.restore_deleted_execution(self.rid)


def read_state(ml: DerivaML) -> State:
    catalog = ml.connection.catalog
    rows = {
        name: [{column: value for column, value in row.items() if column not in ("RMT", "RMB")} for row in found]
        for name in catalog.refresh().tables
        if (found := catalog.select(name))
    }
    trashed = [each.execution for each in ml.list_deleted_executions()]
    return rows, trashed, sorted(path.name for path in (ml.connection.folder / "executions").iterdir())


@pytest.fixture(scope="module")
def sandbox() -> Iterator[DeletionSandbox]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield DeletionSandbox(Path(folder))


@pytest.mark.parametrize("part", range(4))
def test_killed_deletion(sandbox: DeletionSandbox, part: int) -> None:
    """After a kill at any step, the same call deletes the run completely; nothing of it is left outside the trash."""
    steps = sandbox.run(sandbox.full, sandbox.delete)
    assert steps is not None
    assert "after delete Execution" in steps
    for step in first_of_each_kind(steps)[part::4]:
        assert sandbox.run(sandbox.full, sandbox.delete, step) is None, steps[step - 1]
        with DerivaML(f"file:{sandbox.work}") as ml:
            rows = read_state(ml)[0]
            assert rows in (sandbox.full_state[0], sandbox.deleted_state[0]), steps[step - 1]
            if ml.connection.catalog.select("Execution") or not ml.list_deleted_executions():
                ml.delete_execution(sandbox.rid)
            assert read_state(ml) == sandbox.deleted_state, steps[step - 1]
            ml.restore_deleted_execution(sandbox.rid)
            assert read_state(ml) == sandbox.full_state, steps[step - 1]


@pytest.mark.parametrize("part", range(4))
def test_killed_restoration(sandbox: DeletionSandbox, part: int) -> None:
    """After a kill at any step of a restoration, the next call of the trash completes or undoes it."""
    steps = sandbox.run(sandbox.trashed, sandbox.restore)
    assert steps is not None
    for step in first_of_each_kind(steps)[part::4]:
        assert sandbox.run(sandbox.trashed, sandbox.restore, step) is None, steps[step - 1]
        with DerivaML(f"file:{sandbox.work}") as ml:
            rows = read_state(ml)[0]
            assert rows in (sandbox.full_state[0], sandbox.deleted_state[0]), steps[step - 1]
            if rows == sandbox.full_state[0]:
                ml.delete_execution(sandbox.rid)  # completes the restoration first
            ml.restore_deleted_execution(sandbox.rid)
            assert read_state(ml) == sandbox.full_state, steps[step - 1]
            assert not list((ml.connection.folder / "trash").glob("1-*")), steps[step - 1]
