"""SIGKILL at the steps of a push: the next push continues, and everything is recorded once."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fail_points import MEMORY, Step, in_child

from deriva_ml_core.client import DerivaML
from sample_run import count_rows, describe_run, record_sample_run


class PushSandbox:
    """A catalog with a run, and a catalog to push it to.

    Args:
        folder: The folder of both.
    """

    def __init__(self, folder: Path) -> None:
        self.source, self.empty, self.target = (folder / name for name in ("source", "empty", "target"))
        with DerivaML(f"file:{self.source}") as ml:
            self.run = record_sample_run(ml).execution_rid
            self.told = describe_run(ml, self.run)
        with DerivaML(f"file:{self.empty}"):
            pass
        self.steps = self.push_killed_at(None)
        assert self.steps is not None
        self.copy, self.counts = self.push_again()

    def push_killed_at(self, step: Step | int | None) -> list[str] | None:
        """Push in a child that is killed before a step; return its steps, None if it was killed."""
        shutil.rmtree(self.target, ignore_errors=True)
        shutil.copytree(self.empty, self.target)

        def work(there: DerivaML) -> None:
            with DerivaML(f"file:{self.source}") as ml:
                ml.push(self.run, there, make_tables=True)

        return in_child(work, self.target, lambda plugins: DerivaML(f"file:{self.target}", plugins=plugins), step)

    def push_again(self) -> tuple[dict[str, object], dict[str, int]]:
        """Push again and return the description of the copy and the number of rows."""
        with DerivaML(f"file:{self.source}") as ml, DerivaML(f"file:{self.target}") as there:
            report = ml.push(self.run, there, make_tables=True)
            return describe_run(there, report.execution), count_rows(there)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[PushSandbox]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield PushSandbox(Path(folder))


def kill_and_continue(sandbox: PushSandbox, step: Step | int) -> None:
    if sandbox.push_killed_at(step) is not None:
        assert isinstance(step, int)
        return  # threads took fewer steps, in another order
    kind = sandbox.steps[step - 1] if isinstance(step, int) else step.kind
    copy, rows = sandbox.push_again()
    assert copy == sandbox.told, kind
    assert rows == sandbox.counts, kind
    assert not list(sandbox.target.glob("objects/draft-*")), kind
    assert not list(sandbox.target.glob("pushed/*/files/*")), kind


def test_copy_is_complete(sandbox: PushSandbox) -> None:
    """Without a kill the copy has the same description as the original."""
    assert sandbox.copy == sandbox.told


@pytest.mark.parametrize(
    "kind",
    [
        "after create_tables",
        "after insert_unless Workflow",
        "after reserve",
        "after insert_unless Execution",
        "after insert_unless Dataset",
        "os.rename objects/draft-…-…",
        "after insert Patient",
        "after insert_missing Scan",
        "after insert Dataset_Scan",
        "after insert_unless Dataset_Version",
        "after insert Model_Execution",
        "before update Execution",
    ],
)
def test_kill(sandbox: PushSandbox, kind: str) -> None:
    """After a kill between a write and its confirmation, the next push continues and nothing is recorded twice."""
    kill_and_continue(sandbox, Step(kind))


@pytest.mark.long
@pytest.mark.parametrize("part", range(8))
def test_kill_at_every_step(sandbox: PushSandbox, part: int) -> None:
    """Kill the push at every step."""
    for step in range(1 + part, len(sandbox.steps) + 1, 8):
        kill_and_continue(sandbox, step)
