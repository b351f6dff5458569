"""SIGKILL at the steps of a push: the next one goes on, and all is there once."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fail_points import MEMORY, in_child

from deriva_ml_core.client import DerivaML
from pushed_world import counts, make_world, told


class World:
    """A catalog with a run, and one to copy it to.

    Args:
        folder: Where both lie.
    """

    def __init__(self, folder: Path) -> None:
        self.source, self.empty, self.target = (folder / name for name in ("source", "empty", "target"))
        with DerivaML(f"file:{self.source}") as ml:
            self.run = make_world(ml).execution_rid
            self.told = told(ml, self.run)
        with DerivaML(f"file:{self.empty}"):
            pass
        self.steps = self.killed_at(None)
        assert self.steps is not None
        self.copy, self.counts = self.outcome()

    def killed_at(self, step: int | None) -> list[str] | None:
        """Push in a child that dies before a step; its steps, None if it died."""
        shutil.rmtree(self.target, ignore_errors=True)
        shutil.copytree(self.empty, self.target)

        def work(there: DerivaML) -> None:
            with DerivaML(f"file:{self.source}") as ml:
                ml.push(self.run, there, make_tables=True)

        return in_child(work, self.target, lambda plugins: DerivaML(f"file:{self.target}", plugins=plugins), step)

    def outcome(self) -> tuple[dict[str, object], dict[str, int]]:
        """What another push makes of it: what is told of the copy, and how many rows there are."""
        with DerivaML(f"file:{self.source}") as ml, DerivaML(f"file:{self.target}") as there:
            report = ml.push(self.run, there, make_tables=True)
            return told(there, report.execution), counts(there)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield World(Path(folder))


def kill_and_go_on(world: World, step: int) -> None:
    kind = world.steps[step - 1]
    if world.killed_at(step) is not None:
        return  # threads took the steps in another order, and fewer of them
    copy, rows = world.outcome()
    assert copy == world.told, kind
    assert rows == world.counts, kind
    assert not list(world.target.glob("objects/draft-*")), kind
    assert not list(world.target.glob("pushed/*/files/*")), kind


def test_the_copy_is_whole(world: World) -> None:
    """Without any kill the copy tells what the original does."""
    assert world.copy == world.told


@pytest.mark.parametrize(
    "step",
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
def test_killed(world: World, step: str) -> None:
    """Killed where something is there of which nobody heard, the next push goes on, and nothing is there twice."""
    kill_and_go_on(world, world.steps.index(step) + 1)


@pytest.mark.long
@pytest.mark.parametrize("part", range(8))
def test_killed_at_every_step(world: World, part: int) -> None:
    """The same, at every step of the whole push."""
    for step in range(1 + part, len(world.steps) + 1, 8):
        kill_and_go_on(world, step)
