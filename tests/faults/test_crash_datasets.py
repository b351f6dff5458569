"""SIGKILL at every step of registering a workflow, changing datasets and downloading a bag."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fail_points import first_of_each_kind
from sandboxes import Sandbox

from deriva_ml_core.client import DerivaML
from deriva_ml_core.datasets import Dataset
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.workflow import Workflow

WORKFLOW = Workflow(name="W", workflow_type="Training", url="https://example.org/w.py", checksum="w")
CONTENTS = [bytes([number]) * 10 for number in range(4)]


@dataclass
class Images:
    """A sandbox with images for datasets.

    Args:
        sandbox: The sandbox.
        saved: Its state before any dataset was created.
        rids: RIDs of the images.
    """

    sandbox: Sandbox
    saved: Any
    rids: list[str]

    def steps(self) -> list[str]:
        """Return the steps of an undisturbed program."""
        self.sandbox.restore(self.saved)
        steps = self.sandbox.run(self.program)
        assert steps is not None
        return steps

    def kill_and_recover(self, point: int) -> None:
        self.sandbox.restore(self.saved)
        self.sandbox.run(self.program, point)
        with self.sandbox.open() as ml:
            self.recover(ml)

    def program(self, ml: DerivaML) -> None:
        """The user's program; running it again with existing data requests the same."""
        ml.add_workflow(WORKFLOW)
        inner = find_dataset(ml, "inner") or ml.create_dataset("inner", dataset_types=["Testing"])
        inner.add_dataset_type("Testing")
        inner.add_dataset_members(self.rids[:2])
        outer = find_dataset(ml, "outer") or ml.create_dataset("outer", dataset_types=["Training"])
        outer.add_dataset_type("Training")
        outer.add_dataset_members([inner.rid, self.rids[2]])
        inner.add_dataset_members([self.rids[3]])
        inner.delete_dataset_members([self.rids[0]])
        outer.increment_version("major", "done")
        outer.download_dataset_bag()

    def recover(self, ml: DerivaML) -> None:
        """Run the program again after a kill and check that the result is that of an undisturbed program."""
        before = {dataset.rid: versions(dataset) for dataset in ml.find_datasets()}
        self.program(ml)
        inner, outer = find_dataset(ml, "inner"), find_dataset(ml, "outer")
        assert inner is not None
        assert outer is not None
        assert len(ml.find_datasets()) == 2
        for dataset in (inner, outer):
            now = versions(dataset)
            assert {number: now[number] for number in before.get(dataset.rid, ())} == before.get(dataset.rid, {})
        assert (inner.dataset_types, outer.dataset_types) == (("Testing",), ("Training",))
        assert members(inner, inner.current_version) == {"Image": [self.rids[1], self.rids[3]], "Dataset": []}
        assert members(outer, outer.current_version) == {"Image": [self.rids[2]], "Dataset": [inner.rid]}
        assert len(ml.select_rows("Dataset_Image")) == 3
        assert len(ml.select_rows("Dataset_Dataset")) == 1
        assert [workflow.url for workflow in ml.find_workflows()].count(WORKFLOW.url) == 1
        bag = outer.download_dataset_bag()
        files = [Path(row["Filename"]) for row in bag.list_dataset_members(recurse=True)["Image"]]
        assert sorted(file.read_bytes() for file in files) == CONTENTS[1:]


def find_dataset(ml: DerivaML, description: str) -> Dataset | None:
    """Return the only dataset with that description, if there is one."""
    named = [dataset for dataset in ml.find_datasets() if dataset.description == description]
    assert len(named) <= 1
    return named[0] if named else None


def members(dataset: Dataset, version: str) -> dict[str, list[str]]:
    """Return the RIDs of a version's members by table."""
    listed = dataset.list_dataset_members(version)
    return {table: sorted(row["RID"] for row in listed.get(table, ())) for table in ("Image", "Dataset")}


def versions(dataset: Dataset) -> dict[str, dict[str, list[str]]]:
    """Return the members of each version."""
    history = [version.version for version in dataset.dataset_history()]
    assert len(set(history)) == len(history)
    return {number: members(dataset, number) for number in history}


@pytest.fixture(scope="module")
def images(sandbox: Sandbox) -> Images:
    sandbox.reset()
    with sandbox.open() as ml:
        workflow = Workflow(name="I", workflow_type="Training", url="https://example.org/i.py", checksum="i")
        with ml.create_execution(ExecutionConfiguration(workflow=workflow)) as exe:
            for number, content in enumerate(CONTENTS):
                exe.asset_file_path("Image", f"{number}.png").write_bytes(content)
        rids = [asset.rid for asset in exe.upload_execution_outputs()["Image"]]
    return Images(sandbox, sandbox.save(), sorted(rids))


def test_kill_at_some_steps(images: Images) -> None:
    """Existing versions keep their members, and running the program again gives the undisturbed result."""
    for point in first_of_each_kind(images.steps())[3::20]:
        images.kill_and_recover(point)


@pytest.mark.long
def test_kill_at_every_step(images: Images) -> None:
    """Kill the program at every step."""
    for point in range(1, len(images.steps()) + 1):
        images.kill_and_recover(point)
