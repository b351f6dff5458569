"""What version 0.1.0 left on disk is opened, continued and completed by this version.

``record.py`` made the data, ``earlier_version.py`` lays them out. These tests import only names that users import, and
expect literal values: they must pass unchanged in every later version that promises to read what 0.1.0 wrote.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sysconfig
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from earlier_version import lay_out, move_checkpoint

from deriva_ml import AssetSpec, DatasetSpec, DerivaML, DerivaMLConfig, ExecutionConfiguration, Status, Workflow
from deriva_ml.dataset import DatasetBag
from deriva_ml_core import Column, ForeignKey, Table, VersionPart, errors
from deriva_ml_core.errors import ConfigurationError, DerivaMLException
from deriva_ml_core.journal.journal import load_state
from deriva_ml_core.models import (
    Address,
    Asset,
    MetricSummary,
    Progress,
    SourceCode,
    StagedAsset,
    StoredObject,
    UnsentAsset,
    UploadOptions,
    UploadProgress,
    UploadReport,
)
from deriva_ml_core.training import TrainingOptions, fetch_checkpoint
from waits import HANG

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),  # Lightning, for eight rows
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:`isinstance\\(treespec, LeafSpec\\)`"),  # Lightning 2.6 with torch 2.13
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # Keras 3.15 with numpy 2
]

PREPARE, TRAIN, FOLD_0, FOLD_1 = "1-0017", "1-002D", "1-003T", "1-0048"
FAILED, RESUMED, RESTORED, NEVER_BEGUN = "1-004P", "1-004X", "1-005A", "1-005Q"
STAGED = "1-005Y"
KILLED, RANK_FAILED, KILLED_AT_CREATION = "1-006E", "1-006P", "1-006X"
KILLED_MOVING, KILLED_COPYING, KILLED_STAGING = "1-006Y", "1-0075", "1-007C"
SCRIPT, SWEEP, JOB_0, JOB_1, NOTEBOOK = "1-007M", "1-0085", "1-008N", "1-009H", "1-00AE"
LIGHTNING, LIGHTNING_KILLED, KERAS_KILLED = "1-00AN", "1-00BE", "1-00BP"
PICKLED_RUNNING, PICKLED_CREATED = "1-00BY", "1-00C5"
TRAINING = "1-002C"
LEAF_1, LEAF_2, LEAF_3 = "1-001E", "1-001F", "1-001G"
NORTH, SOUTH, WEST = "1-0013", "1-0014", "1-0015"
LEAVES, FOREST, PREDICTIONS = "1-001Q", "1-0021", "1-0033"

LEAF_MD5 = {
    LEAF_1: "f3d2476ceec054894aa1d5fdc7188cb5",
    LEAF_2: "1a99ff6dfb7bd88f302ba0a06a3019b8",
    LEAF_3: "d76b8ef98a4ab7b69b66b47b6384aeda",
}
METRICS = [
    MetricSummary(stage="fit", name="loss", last=0.5, best=0.3, best_at=2, larger_is_better=False),
    MetricSummary(stage="fit", name="accuracy", last=None, best=0.8, best_at=2, larger_is_better=True),
    MetricSummary(stage="test", name="loss", last=0.4, best=0.4, best_at=None, larger_is_better=False),
]


def outputs(ml: DerivaML, rid: str, table: str) -> dict[str, bytes]:
    """The output files of one table with their bytes in the store, each of which must occur once."""
    assets = [asset for asset in ml.lookup_execution(rid).list_assets("Output") if asset.table == table]
    names = [asset.filename for asset in assets]
    assert len(set(names)) == len(names)
    return {asset.filename: content(ml, asset) for asset in assets}


def content(ml: DerivaML, asset: Asset) -> bytes:
    """The bytes of an asset, checked against the recorded digest."""
    ml.verify_asset(asset)
    with ml.create_execution(ExecutionConfiguration(workflow=TRAINING), dry_run=True) as trial:
        return trial.download_asset(asset).read_bytes()


def statuses(ml: DerivaML, rid: str) -> list[Status]:
    return [update.status for update in ml.lookup_execution(rid).list_statuses()]


# The catalog


def test_all_executions_are_found(ml: DerivaML) -> None:
    """Every execution is found, the newest first, with its description and its status."""
    found = [(each.execution_rid, each.status, each.description) for each in ml.find_executions()]
    assert found[::-1] == [
        (PREPARE, Status.completed, "Prepare leaves"),
        (TRAIN, Status.completed, "Train on leaves"),
        (FOLD_0, Status.completed, "Fold 0"),
        (FOLD_1, Status.completed, "Fold 1"),
        (FAILED, Status.failed, "Fail"),
        (RESUMED, Status.completed, "Fail, then go on"),
        (RESTORED, Status.completed, "Lose the folder"),
        (NEVER_BEGUN, Status.created, "Never begun"),
        (STAGED, Status.completed, "End with staged files"),
        (KILLED, Status.aborted, "Be killed"),
        (RANK_FAILED, Status.failed, "Fail in another rank"),
        (KILLED_AT_CREATION, Status.aborted, "Be killed at the creation"),
        (KILLED_MOVING, Status.completed, "Be killed while a file is moved"),
        (KILLED_COPYING, Status.completed, "Be killed while a file is copied"),
        (KILLED_STAGING, Status.aborted, "Be killed while a file is staged"),
        (SCRIPT, Status.completed, "Run a script"),
        (SWEEP, Status.failed, "Model execution (a sweep of 2 jobs over model_config.rate=0.5,2.0)"),
        (JOB_0, Status.completed, "Model execution (model_config.rate=0.5)"),
        (JOB_1, Status.failed, "Model execution (model_config.rate=2.0)"),
        (NOTEBOOK, Status.aborted, "Run of slow.ipynb"),
        (LIGHTNING, Status.completed, "Complete a fit"),
        (LIGHTNING_KILLED, Status.aborted, "Be killed in a fit"),
        (KERAS_KILLED, Status.aborted, "Be killed in Keras"),
        (PICKLED_RUNNING, Status.completed, "Be pickled while it runs"),
        (PICKLED_CREATED, Status.created, "Be pickled before it begins"),
    ]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"workflow_type": "Preprocessing"}, [PREPARE]),
        ({"workflow": "1-0084"}, [JOB_1, JOB_0, SWEEP]),
        ({"status": Status.failed}, [JOB_1, SWEEP, RANK_FAILED, FAILED]),
        ({"dataset": FOREST}, [TRAIN]),
        ({"sort": "loss", "limit": 1}, [TRAIN]),
        ({"sort": "loss", "stage": "test"}, [TRAIN]),
        ({"sort": "val_loss:last"}, [LIGHTNING, LIGHTNING_KILLED]),
    ],
)
def test_executions_are_found_by_what_was_recorded(ml: DerivaML, wanted: dict[str, Any], found: list[str]) -> None:
    """Executions are found by workflow, type, status, dataset and metric."""
    assert [each.execution_rid for each in ml.find_executions(**wanted)] == found


def test_an_execution_tells_what_was_recorded(ml: DerivaML) -> None:
    """A completed execution has its workflow, inputs, outputs, children and times."""
    found = ml.lookup_execution(TRAIN)
    assert (found.workflow_rid, found.duration) == (TRAINING, "0.0H 0.0min 0.2584sec")
    assert found.list_input_datasets() == [
        DatasetSpec(rid=LEAVES, version="0.2.0"),
        DatasetSpec(rid=FOREST, version="1.0.0"),
    ]
    assert [spec.version for spec in found.list_output_datasets()] == ["0.1.0", "0.2.0"]
    assert [each.execution_rid for each in found.list_nested_executions()] == [FOLD_1, FOLD_0]
    assert [each.execution_rid for each in ml.lookup_execution(FOLD_0).list_parent_executions()] == [TRAIN]
    assert found.created is not None
    assert found.start_time is not None
    assert found.stop_time is not None
    assert found.created < found.start_time < found.stop_time


def test_statuses_are_read_from_the_journal(ml: DerivaML) -> None:
    """Each status has its message and its progress."""
    found = ml.lookup_execution(TRAIN).list_statuses()
    assert [(update.status, update.message) for update in found] == [
        (Status.created, ""),
        (Status.running, ""),
        (Status.running, "Epoch 1 of 3"),
        (Status.running, "Epoch 2 of 3"),
        (Status.running, "Epoch 3 of 3"),
        (Status.running, "Tested"),
        (Status.completed, ""),
    ]
    assert found[3].progress == Progress(
        epoch=2, epochs=3, step=20, metrics={"loss": 0.3, "accuracy": 0.8}, seconds=1.5
    )
    assert ml.lookup_execution(FAILED).list_statuses()[-1].error == "ValueError: there are no leaves"


def test_statuses_are_read_from_the_copy_in_the_store(ml: DerivaML, recorded: Path) -> None:
    """Where the working folder is gone, the uploaded copy of the journal tells the statuses."""
    shutil.rmtree(recorded / "home/local/executions")
    assert statuses(ml, TRAIN) == [Status.created, *[Status.running] * 5, Status.completed]


def test_metrics_are_read(ml: DerivaML) -> None:
    """The last and the best value of each metric are in the catalog."""
    assert ml.lookup_execution(TRAIN).list_metrics() == METRICS


def test_assets_have_their_rows_and_bytes(ml: DerivaML) -> None:
    """Assets have their role, types and metadata, and the bytes that were uploaded."""
    found = {
        asset.rid: asset for asset in ml.lookup_execution(TRAIN).list_assets() if asset.table != "Execution_Metadata"
    }
    types = ("Model_File", "Last_Checkpoint", "Best_Checkpoint")
    assert {rid: (asset.filename, asset.role, asset.asset_types) for rid, asset in found.items()} == {
        LEAF_1: ("leaf-1.txt", "Input", ("Leaf",)),
        LEAF_2: ("leaf-2.txt", "Input", ("Leaf",)),
        "1-002T": ("model.bin", "Output", types),
        "1-003B": ("plots/Übersicht ☂.txt", "Output", ("Execution_Asset",)),
        "1-003E": ("mean.txt", "Output", ("Leaf", "Derived")),
        "1-003J": ("model.bin", "Output", types),
    }
    assert dict(found["1-003E"].metadata) == {"Description": "The mean leaf", "Width": 0.5}
    assert content(ml, found["1-002T"]) == b"weights of epoch 1"
    assert content(ml, found["1-003J"]) == b"weights of epoch 3"
    assert content(ml, found["1-003B"]) == b"curves"
    assert content(ml, ml.lookup_asset(LEAF_3)) == b"leaf 3\n" * 3000


def test_datasets_have_their_versions(ml: DerivaML) -> None:
    """Each version lists the members that it had; the dataset that was deleted is not among the found ones."""
    assert [each.rid for each in ml.find_datasets()] == [LEAVES, FOREST, PREDICTIONS]
    leaves = ml.lookup_dataset(LEAVES)
    assert (leaves.description, leaves.dataset_types) == ("Leaves of two plots", ("Forest",))
    assert [(each.version, each.description, each.execution) for each in leaves.dataset_history()] == [
        ("0.1.0", "First version", PREPARE),
        ("0.2.0", "The first leaves", PREPARE),
        ("0.3.0", "One more leaf", PREPARE),
        ("1.0.0", "Checked by hand", PREPARE),
    ]
    members = {
        version: {table: [row["RID"] for row in rows] for table, rows in leaves.list_dataset_members(version).items()}
        for version in ("0.1.0", "0.2.0", "1.0.0")
    }
    assert [members[version]["Leaf"] for version in members] == [[], [LEAF_1, LEAF_2], [LEAF_1, LEAF_2, LEAF_3]]
    assert [members[version]["Plot"] for version in members] == [[], [NORTH, SOUTH], [NORTH, SOUTH]]
    assert [each.rid for each in ml.lookup_dataset(FOREST).list_dataset_children()] == [LEAVES]


def test_a_dataset_gets_another_version(ml: DerivaML) -> None:
    """Members are added to a recorded dataset; the datasets around it get a version too, and old ones stay."""
    leaves = ml.lookup_dataset(LEAVES)
    leaves.add_dataset_members([WEST])
    assert leaves.current_version == "1.1.0"
    assert ml.lookup_dataset(FOREST).current_version == "1.1.0"
    assert [row["Name"] for row in leaves.list_dataset_members()["Plot"]] == ["North", "South", "West"]
    assert [row["Name"] for row in leaves.list_dataset_members("1.0.0")["Plot"]] == ["North", "South"]


def test_tables_and_terms_of_a_project_are_read(ml: DerivaML) -> None:
    """Rows and terms of the project's own tables have the values that were inserted."""
    rows = [(row["Name"], row["Trees"], row["Species"], row["Soil"]) for row in ml.select_rows("Plot")]
    soil = {"pH": 6.5, "layers": ["humus", "loam"]}
    assert rows == [("North", 12, "Oak", soil), ("South", 7, "Beech", None), ("West", None, None, None)]
    assert ml.list_terms("Species") == {"Beech": "Fagus sylvatica", "Oak": "Quercus robur"}
    assert ml.select_rows("Species", {"Name": "Oak"})[0]["Synonyms"] == ["English oak"]
    assert ml.select_rows("Leaf", {"RID": LEAF_2})[0]["Width"] == 0.5


def test_a_half_made_catalog_is_made(recorded: Path) -> None:
    """Where a process was killed while it made a catalog, the catalog is made, and the half one is deleted."""
    (half,) = (recorded / "unmade").glob(".catalog-*")
    assert DerivaML(f"file:{recorded}/unmade").find_executions() == []
    assert not half.exists()


def test_the_catalog_is_written_to(ml: DerivaML) -> None:
    """New rows, tables and executions get record ids that nothing has yet."""
    ml.insert_rows("Plot", [{"Name": "East", "Species": "Oak"}])
    ml.create_asset("Bark", [Column("Depth", "float8")])
    with ml.create_execution(ExecutionConfiguration(workflow=TRAINING, assets=[LEAF_1])) as execution:
        execution.asset_file_path("Bark", "bark.txt", Depth=1.5).write_text("bark")
    execution.upload_execution_outputs()
    assert outputs(ml, execution.execution_rid, "Bark") == {"bark.txt": b"bark"}
    assert len({row["RID"] for table in ("Plot", "Execution") for row in ml.select_rows(table)}) == 4 + 26


def test_workflows_are_found_and_reused(ml: DerivaML) -> None:
    """A workflow is found by its URL and its checksum, and the same source is the same workflow."""
    url, checksum = "https://github.com/example/leaves/blob/1a2b3c/training.py", "1" * 40
    found = ml.lookup_workflow_by_url(url)
    assert (found.rid, found.name, found.workflow_type, found.version) == (
        TRAINING,
        "Training of leaves",
        "Training",
        "1.2.3",
    )
    assert ml.lookup_workflow_by_url(checksum).rid == TRAINING
    same = Workflow(name="Training of leaves", workflow_type="Training", url=url, checksum=checksum)
    assert ml.add_workflow(same) == TRAINING
    found.description = "Described anew"
    assert ml.lookup_workflow(TRAINING).description == "Described anew"


def test_a_recorded_configuration_is_loaded(ml: DerivaML, tmp_path: Path) -> None:
    """The configuration that an execution keeps makes the same execution again, its secrets redacted."""
    kept = json.loads((ml.lookup_execution(TRAIN).working_dir / "records/configuration.json").read_text())
    assert kept["assets"] == [{"rid": LEAF_1}]
    kept["assets"] = [LEAF_1]  # the objects that it keeps cannot be loaded by 0.1.0 itself
    (tmp_path / "configuration.json").write_text(json.dumps(kept))
    loaded = ExecutionConfiguration.load_configuration(tmp_path / "configuration.json")
    assert loaded.workflow == TRAINING
    assert loaded.datasets == (DatasetSpec(rid=LEAVES, version="0.2.0"), DatasetSpec(rid=FOREST, version="1.0.0"))
    assert loaded.parameters["layers"] == [8, 1]
    assert "a-secret" not in str(loaded.parameters["api_token"])
    assert ml.create_execution(loaded).list_input_datasets() == list(loaded.datasets)


# Working folders


def test_the_journals_have_every_event(recorded: Path) -> None:
    """The data have a line of each kind that 0.1.0 wrote, so that the tests below read them all."""
    lines = [line for file in recorded.glob("**/journal.jsonl") for line in file.read_text().splitlines()]
    assert {json.loads(line)["event"] for line in lines} == {
        *("creating", "created", "restored", "input", "lease", "start", "resumed", "rank_failed", "stop", "status"),
        *("staged", "sealed", "typed", "types_linked", "untyped", "note", "stored", "recorded", "forgotten"),
    }


def test_staged_files_are_known(ml: DerivaML) -> None:
    """The files that an execution staged and did not upload are listed, with their types, metadata and originals."""
    execution = ml.restore_execution(STAGED)
    found = {asset.filename: asset for asset in execution.staged_assets()}
    assert {name: asset.asset_types for name, asset in found.items()} == {
        "new.bin": ("Model_File",),
        "deep/er/file.txt": ("Execution_Asset",),
        "notes.txt": ("Execution_Asset",),
        "renamed.csv": ("Execution_Asset",),
        "measured.txt": ("Leaf",),
        "sealed.bin": ("Model_File", "Best_Checkpoint"),
        "never-written.bin": ("Model",),
    }
    assert dict(found["measured.txt"].metadata) == {"Width": 0.125, "Plot": "West", "Description": "Measured"}
    assert found["notes.txt"].original is not None
    assert found["notes.txt"].original.name == "notes.txt"


def test_staged_files_are_uploaded(ml: DerivaML) -> None:
    """Staged files are uploaded with their bytes and rows, and what changed after its upload is uploaded again."""
    execution = ml.restore_execution(STAGED)
    sent = execution.upload_execution_outputs()
    assert {table: [asset.filename for asset in assets] for table, assets in sent.items()} == {
        "Model": ["new.bin", "sealed.bin", "changed.bin"],
        "Execution_Asset": ["deep/er/file.txt", "notes.txt", "renamed.csv"],
        "Leaf": ["measured.txt"],
    }
    assert outputs(ml, STAGED, "Execution_Asset") == {
        "deep/er/file.txt": b"in sub-folders",
        "notes.txt": b"a file of the user's own, linked to\n",
        "renamed.csv": b"a,b\n1,2\n",
    }
    models = [asset for asset in execution.list_assets("Output") if asset.table == "Model"]
    assert [(asset.filename, content(ml, asset)) for asset in models] == [
        ("sent.bin", b"sent while it ran"),
        ("changed.bin", b"first content"),
        ("new.bin", b"new"),
        ("sealed.bin", b"sealed"),
        ("changed.bin", b"second content, written after the upload"),
    ]
    assert models[3].asset_types == ("Model_File", "Best_Checkpoint")
    (leaf,) = [asset for asset in execution.list_assets("Output") if asset.table == "Leaf"]
    assert dict(leaf.metadata) == {"Description": "Measured", "Width": 0.125, "Plot": "West"}


def test_staged_files_of_a_moved_catalog_are_uploaded(recorded: Path) -> None:
    """Absolute paths of an earlier version are taken to be in the folder that the journal is in now."""
    changed = recorded / "home/local/executions" / STAGED / "outputs/Model/changed.bin"
    (recorded / "home/local").rename(recorded / "moved")
    ml = DerivaML(f"file:{recorded / 'moved'}")
    execution = ml.restore_execution(STAGED)
    sent = execution.upload_execution_outputs()
    assert {table: [asset.filename for asset in assets] for table, assets in sent.items()} == {
        "Model": ["new.bin", "sealed.bin", "changed.bin"],
        "Execution_Asset": ["deep/er/file.txt", "notes.txt", "renamed.csv"],
        "Leaf": ["measured.txt"],
    }
    assert outputs(ml, STAGED, "Execution_Asset")["notes.txt"] == b"a file of the user's own, linked to\n"
    assert not changed.exists()


def test_links_of_a_moved_catalog_lead_to_its_own_files(recorded: Path) -> None:
    """A link that an earlier version made to a file of the working folder leads to the file's new place."""
    former = recorded / "home/local/executions" / STAGED
    (former / "curve.txt").write_text("a file of the working folder")
    link = former / "outputs/Execution_Asset/curve.txt"
    link.symlink_to(former / "curve.txt")
    asset = {"key": "1:Execution_Asset/curve.txt", "table": "Execution_Asset", "filename": "curve.txt"}
    asset |= {"path": str(link), "original": str(former / "curve.txt"), "asset_types": ["Execution_Asset"]}
    event = {"event": "staged", "time": "2026-11-01T10:00:00Z", "asset": asset}
    with (former / "journal.jsonl").open("a") as journal:
        journal.write(json.dumps(event) + "\n")
    (recorded / "home/local").rename(recorded / "moved")
    ml = DerivaML(f"file:{recorded / 'moved'}")
    journal = recorded / "moved/executions" / STAGED / "journal.jsonl"
    assert load_state(journal).files["1:Execution_Asset/curve.txt"].is_written
    ml.restore_execution(STAGED).upload_execution_outputs()
    assert outputs(ml, STAGED, "Execution_Asset")["curve.txt"] == b"a file of the working folder"


def test_no_file_is_uploaded_twice(ml: DerivaML) -> None:
    """A second upload, and one of an execution that had uploaded all, send nothing."""
    ml.restore_execution(STAGED).upload_execution_outputs()
    assert ml.restore_execution(STAGED).upload_execution_outputs() == {}
    assert ml.restore_execution(TRAIN).upload_execution_outputs() == {}
    assert len(ml.select_rows("Model", {"Filename": ["new.bin", "sealed.bin", "sent.bin"]})) == 3


def test_an_upload_empties_the_folder_of_what_it_sent(ml: DerivaML, recorded: Path) -> None:
    """After the upload the staged files are gone; the user's own file, and what was forgotten, stay."""
    execution = ml.restore_execution(STAGED)
    execution.upload_execution_outputs()
    left = [path.name for path in (execution.working_dir / "outputs").rglob("*") if path.is_file()]
    assert left == ["forgotten.bin"]
    assert (recorded / "project/notes.txt").read_text() == "a file of the user's own, linked to\n"


def test_a_sealed_file_is_shared_with_the_store(ml: DerivaML, recorded: Path) -> None:
    """A file that nobody writes to any more is not copied: its bytes get a second name in the store."""
    execution = ml.restore_execution(STAGED)
    execution.upload_execution_outputs(clean_folder=False)
    folder, objects = execution.working_dir / "outputs/Model", recorded / "home/local/objects"
    assert (folder / "sealed.bin").samefile(objects / "0b/0bead884803fe8c5643dda0dcb94b1bc")
    assert not (folder / "new.bin").samefile(objects / "22/22af645d1859cb5ca6da0c484f1f37ea")


@pytest.mark.parametrize("rid", [KILLED, KILLED_AT_CREATION, NOTEBOOK, LIGHTNING_KILLED, KERAS_KILLED])
def test_a_killed_execution_becomes_aborted(ml: DerivaML, rid: str) -> None:
    """What was running when its process was killed is shown as Aborted, and its row says so once it is restored."""
    assert ml.select_rows("Execution", {"RID": rid})[0]["Status"] != Status.aborted
    assert ml.lookup_execution(rid).status is Status.aborted
    assert ml.restore_execution(rid).status is Status.aborted
    assert ml.select_rows("Execution", {"RID": rid})[0]["Status"] == Status.aborted
    assert statuses(ml, rid)[-1] is Status.aborted


def test_a_killed_execution_keeps_what_it_had(ml: DerivaML) -> None:
    """Its last status, its metrics and its staged files are there."""
    execution = ml.restore_execution(KILLED)
    assert "Epoch 1 of 9" in execution.status_detail
    assert [(each.name, each.last) for each in execution.list_metrics()] == [("loss", 2.5)]
    execution.upload_execution_outputs()
    assert outputs(ml, KILLED, "Model") == {"half.bin": b"half a model"}
    assert [asset.rid for asset in execution.list_assets("Input")] == [LEAF_1]


def test_an_execution_of_another_machine_may_still_run(tmp_path: Path) -> None:
    """An execution of another machine keeps its status: its process may still run."""
    lay_out(tmp_path, same_machine=False)
    assert DerivaML().lookup_execution(KILLED).status is Status.running


def test_the_rank_that_failed_is_named(ml: DerivaML) -> None:
    """Where rank zero was killed after another rank had failed, the execution has failed with that rank's error."""
    execution = ml.restore_execution(RANK_FAILED)
    assert execution.status is Status.failed
    assert "rank 1: ValueError: no data for this rank" in execution.status_detail


def test_an_upload_killed_after_a_move_is_completed(ml: DerivaML) -> None:
    """A file that the store had taken, and the journal did not say so, is recorded once."""
    assert ml.restore_execution(KILLED_MOVING).upload_execution_outputs()
    assert outputs(ml, KILLED_MOVING, "Model") == {"moved.bin": b"moved into the store"}


def test_an_upload_killed_in_a_copy_is_completed(ml: DerivaML, recorded: Path) -> None:
    """A half copy in the store is removed, and the file is stored whole."""
    objects = recorded / "home/local/objects"
    assert [path.read_bytes() for path in objects.glob("draft-*")] == [b"a file "]
    assert ml.restore_execution(KILLED_COPYING).upload_execution_outputs()
    assert outputs(ml, KILLED_COPYING, "Execution_Asset") == {"copied.txt": b"a file of the user's own, linked to\n"}
    assert [*objects.glob("draft-*")] == []


def test_the_halves_of_files_are_removed(ml: DerivaML) -> None:
    """What a killed process had half copied, or half written as a checkpoint, is not uploaded, and is deleted."""
    execution = ml.restore_execution(KILLED_STAGING)
    folder = execution.working_dir / "outputs/Model"
    halves = [path for path in folder.iterdir() if path.name.startswith(".")]
    assert sorted(path.read_bytes() for path in halves) == [b"half", b"half a checkpoint"]
    execution.upload_execution_outputs()
    assert [path for path in halves if path.exists()] == []
    assert outputs(ml, KILLED_STAGING, "Model") == {"epoch-0001.ckpt": b"a checkpoint"}


def test_a_restored_folder_is_used_again(ml: DerivaML) -> None:
    """A working folder that 0.1.0 had restored from the catalog keeps its statuses, and uploads what is new."""
    assert statuses(ml, RESTORED) == [Status.created, Status.running, Status.completed]
    ml.restore_execution(RESTORED).upload_execution_outputs()
    assert outputs(ml, RESTORED, "Model") == {"kept.bin": b"kept", "later.bin": b"staged after the restoration"}


def test_a_lost_folder_is_restored(ml: DerivaML, recorded: Path) -> None:
    """An execution whose working folder is gone is restored from the journal that 0.1.0 uploaded."""
    shutil.rmtree(recorded / "home/local/executions" / TRAIN)
    execution = ml.restore_execution(TRAIN)
    assert execution.status is Status.completed
    assert [spec.version for spec in execution.info.datasets] == ["0.2.0", "1.0.0"]
    assert execution.info.assets == (LEAF_1, LEAF_2)
    assert execution.start_time is not None
    assert execution.upload_execution_outputs() == {}


def test_an_execution_that_was_resumed_is_resumed_again(ml: DerivaML) -> None:
    """It runs once more, with all its earlier statuses, and completes."""
    with ml.resume_execution(RESUMED) as execution:
        execution.asset_file_path("Model", "again.bin").write_bytes(b"again")
    execution.upload_execution_outputs()
    once = [Status.running, Status.completed]
    assert statuses(ml, RESUMED) == [Status.created, Status.running, Status.failed, *once, *once]
    assert outputs(ml, RESUMED, "Model") == {"resumed.bin": b"resumed", "again.bin": b"again"}


def test_a_killed_execution_is_resumed(ml: DerivaML) -> None:
    """A killed execution runs again, and uploads the files that it had staged before."""
    with ml.resume_execution(KILLED) as execution:
        execution.asset_file_path("Model", "whole.bin").write_bytes(b"whole")
    execution.upload_execution_outputs()
    assert execution.status is Status.completed
    assert outputs(ml, KILLED, "Model") == {"half.bin": b"half a model", "whole.bin": b"whole"}


def test_an_execution_that_never_began_is_run(ml: DerivaML) -> None:
    """An execution that 0.1.0 created runs and completes."""
    with ml.restore_execution(NEVER_BEGUN) as execution:
        execution.asset_file_path("Model", "begun.bin").write_bytes(b"begun")
    execution.upload_execution_outputs()
    assert ml.lookup_execution(NEVER_BEGUN).status is Status.completed
    assert outputs(ml, NEVER_BEGUN, "Model") == {"begun.bin": b"begun"}


# Downloaded datasets


def test_a_downloaded_dataset_is_not_downloaded_again(ml: DerivaML, recorded: Path) -> None:
    """A version in the cache is read without the store."""
    shutil.rmtree(recorded / "home/local/objects")
    bag = ml.lookup_dataset(LEAVES).download_dataset_bag("0.2.0")
    members = bag.list_dataset_members()
    assert [Path(row["Filename"]).read_bytes()[:7] for row in members["Leaf"]] == [b"leaf 1\n", b"leaf 2\n"]
    assert [(row["Name"], row["Trees"], row["Soil"]) for row in members["Plot"]] == [
        ("North", 12, {"pH": 6.5, "layers": ["humus", "loam"]}),
        ("South", 7, None),
    ]


def test_an_interrupted_download_is_resumed(ml: DerivaML, recorded: Path) -> None:
    """Of a file whose first 12,000 bytes had come, only the rest is read from the store."""
    whole = recorded / "home/local/objects/d7" / LEAF_MD5[LEAF_3]
    rest = whole.read_bytes()[12000:]
    whole.chmod(0o644)
    whole.write_bytes(b"-" * 12000 + rest)
    bag = ml.lookup_dataset(LEAVES).download_dataset_bag("1.0.0")
    bag.validate()
    files = {Path(row["Filename"]).name: Path(row["Filename"]) for row in bag.list_dataset_members()["Leaf"]}
    assert files["leaf-3.txt"].read_bytes() == b"leaf 3\n" * 3000
    assert not (bag.path.parent / "incoming").exists()


def test_a_half_built_bag_is_removed(ml: DerivaML, recorded: Path) -> None:
    """A bag is built where a process was killed while it built it, and the half bag is deleted."""
    (half,) = (recorded / "home/local/cache").glob(f"{PREDICTIONS}_0.2.0_*/building-*")
    bag = ml.lookup_dataset(PREDICTIONS).download_dataset_bag()
    bag.validate()
    assert [row["RID"] for row in bag.list_dataset_members()["Leaf"]] == [LEAF_3]
    assert not half.exists()


def test_a_bag_without_files_gets_its_files(ml: DerivaML) -> None:
    """The files of a bag that was downloaded without them are added, those of the nested dataset too."""
    bag = ml.lookup_dataset(FOREST).download_dataset_bag()
    (nested,) = bag.list_dataset_children()
    assert (nested.dataset_rid, nested.version, nested.dataset_types) == (LEAVES, "1.0.0", ("Forest",))
    assert [Path(row["Filename"]).is_file() for row in nested.list_dataset_members()["Leaf"]] == [True] * 3


def test_a_bag_is_opened_by_its_folder(recorded: Path) -> None:
    """A bag's folder is enough to read it."""
    (folder,) = (recorded / "home/local/cache").glob(f"{LEAVES}_0.2.0_*/Dataset_{LEAVES}")
    bag = DatasetBag(folder)
    bag.validate()
    assert (bag.dataset_rid, bag.version, bag.description) == (LEAVES, "0.2.0", "Leaves of two plots")
    assert [row["Species"] for row in bag.get_table("Plot")] == ["Oak", "Beech"]


# Copies in other catalogs


def test_a_copy_is_recognised(ml: DerivaML, recorded: Path) -> None:
    """What 0.1.0 had copied to another catalog is not copied again."""
    target = DerivaML(f"file:{recorded}/target")
    report = ml.push(TRAIN, target)
    assert (report.execution, report.new, report.files) == ("1-0014", (), 0)
    assert len(target.find_executions()) == 3


def test_a_copy_is_recognised_without_the_ledger(ml: DerivaML, recorded: Path) -> None:
    """Also from another machine, by the record that is kept with the copy."""
    shutil.rmtree(recorded / "target/pushed")
    report = ml.push(TRAIN, DerivaML(f"file:{recorded}/target"))
    assert (report.execution, report.new, report.files) == ("1-0014", (), 0)


def test_a_copy_is_read(recorded: Path) -> None:
    """A copy has the statuses, metrics, files and children of its original."""
    target = DerivaML(f"file:{recorded}/target")
    copy = target.lookup_execution("1-0014")
    assert [update.message for update in copy.list_statuses()[2:6]] == [
        "Epoch 1 of 3",
        "Epoch 2 of 3",
        "Epoch 3 of 3",
        "Tested",
    ]
    assert copy.list_metrics() == METRICS
    assert len(copy.list_nested_executions()) == 2
    models = [asset for asset in copy.list_assets("Output") if asset.table == "Model"]
    assert [content_of_copy(target, asset) for asset in models] == [b"weights of epoch 1", b"weights of epoch 3"]


def content_of_copy(target: DerivaML, asset: Asset) -> bytes:
    with target.create_execution(ExecutionConfiguration(workflow="1-0013"), dry_run=True) as trial:
        return trial.download_asset(asset).read_bytes()


def test_a_copy_is_not_copied_back(ml: DerivaML, recorded: Path) -> None:
    """The record with a copy tells which execution it is a copy of."""
    with pytest.raises(ConfigurationError, match=TRAIN):
        DerivaML(f"file:{recorded}/target").push("1-0014", ml)


def test_an_interrupted_push_is_completed(ml: DerivaML, recorded: Path) -> None:
    """What was there when the push was killed stays, one file is not sent again, and each row is there once."""
    third = DerivaML(f"file:{recorded}/third")
    report = ml.push(PREPARE, third)
    assert (report.execution, report.files) == ("1-0014", 4)
    assert [row["MD5"] for row in third.select_rows("Leaf")] == [*LEAF_MD5.values()]
    leaves, forest = third.find_datasets()
    assert [each.version for each in leaves.dataset_history()] == ["0.1.0", "0.2.0", "0.3.0", "1.0.0"]
    assert [each.version for each in forest.dataset_history()] == ["1.0.0"]
    assert {table: len(rows) for table, rows in leaves.list_dataset_members("0.2.0").items() if rows} == {
        "Plot": 2,
        "Leaf": 2,
    }
    assert ml.push(PREPARE, third).new == ()


# A server


def test_an_upload_to_a_server_is_resumed(remote_server: Any, tmp_path: Path) -> None:
    """Of a file of three chunks, the one that 0.1.0 had sent is not sent again."""
    import requests

    if remote_server.fake is None:
        pytest.skip("the upload is prepared by requests to the fake server")
    lay_out(tmp_path)
    ml = remote_server.open(remote_server.catalog(), working_dir=tmp_path / "present")
    workflow = Workflow(name="w", workflow_type="Training", url="https://example.org/t.py", checksum="0" * 40)
    rid = ml.create_execution(ExecutionConfiguration(workflow=workflow)).execution_rid
    staged = tmp_path / "server/executions/2WJ/outputs/Model/big.bin"
    chunks = [staged.read_bytes()[start : start + 4096] for start in range(0, 10240, 4096)]

    # the server as it was: an upload of the same file, of which the first chunk is there
    login, upload = {"webauthn": "test1"}, {"chunk-length": 4096, "content-length": 10240}
    upload |= {"content-md5": "w80m4H5VXAEW2yN/vAbZnA==", "content-type": "application/octet-stream"}
    path = f"{remote_server.hostname}/hatrac/Model/c3cd26e07e555c0116db237fbc06d99c.big.bin;upload"
    begun = requests.post(f"{path}?parents=true", json=upload, cookies=login, timeout=HANG)
    job = begun.text.strip().rpartition("/")[2]
    assert requests.put(f"{path}/{job}/0", chunks[0], cookies=login, timeout=HANG).status_code == 204

    # the working folder as it was, of an execution that this server knows
    folder = ml.lookup_execution(rid).working_dir
    shutil.rmtree(folder)
    shutil.move(staged.parents[2], folder)
    journal = (folder / "journal.jsonl").read_text()
    journal = journal.replace(f"{tmp_path}/server/executions/2WJ", str(folder)).replace('"2WJ"', f'"{rid}"')
    notes = [json.loads(line)["note"] for line in journal.splitlines() if '"job"' in line]
    assert [note["sent"] for note in notes] == [0, 1]
    (folder / "journal.jsonl").write_text(journal.replace(notes[0]["job"], job))

    remote_server.fake.requests.clear()
    execution = ml.restore_execution(rid)
    execution.upload_execution_outputs(chunk_size=4096)
    sent = {request.path for request in remote_server.fake.requests if request.method == "PUT" and job in request.path}
    assert {PurePosixPath(each).name for each in sent} == {"1", "2"}
    (model,) = [asset for asset in execution.list_assets("Output") if asset.table == "Model"]
    assert (model.filename, model.md5, model.asset_types) == (
        "big.bin",
        "c3cd26e07e555c0116db237fbc06d99c",
        ("Model_File",),
    )
    assert execution.download_asset(model).read_bytes() == b"".join(chunks)


# Pickles


def unpickled(recorded: Path, name: str) -> Any:
    return pickle.loads((recorded / f"pickles/{name}.pickle").read_bytes())


def test_an_unpickled_execution_is_run(ml: DerivaML, recorded: Path) -> None:
    """An execution that was pickled before it began runs, and completes, in another process."""
    with unpickled(recorded, "execution_created") as execution:
        assert execution.execution_rid == PICKLED_CREATED
        execution.asset_file_path("Model", "unpickled.bin").write_bytes(b"unpickled")
    execution.upload_execution_outputs()
    assert ml.lookup_execution(PICKLED_CREATED).status is Status.completed
    assert outputs(ml, PICKLED_CREATED, "Model") == {"unpickled.bin": b"unpickled"}


@pytest.mark.parametrize(
    ("name", "rid", "files"),
    [
        ("execution_that_ran", PICKLED_RUNNING, ["pickled.bin"]),
        ("execution_waiting", STAGED, ["new.bin", "sealed.bin"]),
    ],
)
def test_an_unpickled_execution_uploads(ml: DerivaML, recorded: Path, name: str, rid: str, files: list[str]) -> None:
    """An execution that was pickled with staged files uploads them."""
    execution = unpickled(recorded, name)
    assert (execution.execution_rid, execution.status) == (rid, Status.completed)
    execution.upload_execution_outputs()
    assert len(ml.select_rows("Model", {"Filename": files})) == len(files)


def test_an_unpickled_dry_run_writes_nothing(ml: DerivaML, recorded: Path) -> None:
    """A dry run that was pickled stays one."""
    with unpickled(recorded, "execution_dry_run") as trial:
        assert trial.dry_run
        trial.asset_file_path("Model", "tried.bin").write_bytes(b"tried")
    assert trial.upload_execution_outputs() == {}
    assert ml.select_rows("Model", {"Filename": "tried.bin"}) == []


def test_an_unpickled_record_of_an_execution_is_read(recorded: Path) -> None:
    """A recorded execution that was pickled asks its catalog."""
    found = unpickled(recorded, "recorded_execution")
    assert (found.execution_rid, found.status, found.description) == (TRAIN, Status.completed, "Train on leaves")
    assert found.list_metrics() == METRICS
    assert [each.execution_rid for each in found.list_nested_executions()] == [FOLD_1, FOLD_0]


def test_an_unpickled_client_opens_its_catalog(recorded: Path) -> None:
    """A client that was pickled finds its executions."""
    assert unpickled(recorded, "client").find_executions(dataset=FOREST)[0].execution_rid == TRAIN


def test_an_unpickled_bag_is_read(recorded: Path) -> None:
    """A bag that was pickled reads its folder."""
    bag = unpickled(recorded, "dataset_bag")
    assert (bag.dataset_rid, bag.version, bag.dataset_types) == (LEAVES, "0.2.0", ("Forest",))
    assert [Path(row["Filename"]).is_file() for row in bag.list_dataset_members()["Leaf"]] == [True, True]


def test_unpickled_values_are_equal(recorded: Path) -> None:
    """The public values that were pickled equal the same values made now."""
    leaf = Asset(
        rid=LEAF_1,
        table="Leaf",
        filename="leaf-1.txt",
        url=f"/hatrac/Leaf/{LEAF_MD5[LEAF_1]}.leaf-1.txt:1",
        length=7000,
        md5=LEAF_MD5[LEAF_1],
        asset_types=("Leaf",),
        metadata={"Width": 0.25, "Plot": "North"},
    )
    staged = StagedAsset(
        key="1:Model/new.bin",
        table="Model",
        filename="new.bin",
        path=recorded / "home/local/executions" / STAGED / "outputs/Model/new.bin",
        asset_types=("Model_File",),
    )
    workflow = Workflow(
        name="Training of leaves",
        workflow_type="Training",
        description="Recorded by version 0.1.0",
        url="https://github.com/example/leaves/blob/1a2b3c/training.py",
        checksum="1" * 40,
        version="1.2.3",
    )
    wanted = {
        "address": Address(hostname=f"file:{recorded}/home/local"),
        "asset": leaf,
        "asset_spec": AssetSpec(rid=LEAF_1),
        "dataset_spec": DatasetSpec(rid=LEAVES, version="0.2.0", materialize=False),
        "execution_configuration": ExecutionConfiguration(workflow=workflow, description="Be pickled before it begins"),
        "metrics": METRICS,
        "progress": Progress(epoch=1, epochs=3, step=10, metrics={"loss": 0.9, "accuracy": 0.4}, seconds=1.5),
        "source_code": SourceCode(url="https://example.org/a.py", path=recorded / "project/learn.py", kind="script"),
        "staged_asset": staged,
        "stored_object": StoredObject(url=leaf.url, md5=leaf.md5, length=7000),
        "unsent_asset": UnsentAsset(asset=staged, reason="the store is away"),
        "upload_options": UploadOptions(chunk_size=4096, upload_workers=2),
        "upload_progress": UploadProgress(files_done=1, files=2, bytes_done=3, bytes=4, filename="a.bin"),
        "upload_report": UploadReport(sent={"Leaf": (leaf,)}),
    }
    assert {name: unpickled(recorded, name) for name in wanted} == wanted
    assert unpickled(recorded, "workflow").rid == TRAINING
    assert unpickled(recorded, "workflow").url == workflow.url


@pytest.mark.filterwarnings("ignore::deriva_ml_core.errors.DerivaMLDeprecationWarning")  # keywords of version 0.1
def test_unpickled_options_are_equal(recorded: Path) -> None:
    """Options that were pickled have the values that were chosen, under the keywords of that version."""
    options = unpickled(recorded, "training_options")
    assert options == TrainingOptions(monitor="loss", checkpoints="all", drain=5.0)
    config = unpickled(recorded, "client_config")
    assert config == DerivaMLConfig(hostname="example.org", catalog_id="1", patience=7.0)


@pytest.mark.filterwarnings("ignore::deriva_ml_core.errors.DerivaMLDeprecationWarning")  # a pickle names old classes
def test_unpickled_records_tell_what_happened(recorded: Path) -> None:
    """Statuses, versions, execution records and reports of copies have their fields."""
    update = unpickled(recorded, "status_update")
    assert (update.status, update.previous, update.time.tzinfo) == (Status.completed, Status.running, UTC)
    versions = unpickled(recorded, "dataset_versions")
    assert [each.version for each in versions] == ["0.1.0", "0.2.0", "0.3.0", "1.0.0"]
    assert isinstance(versions[0].created, datetime)
    record = unpickled(recorded, "execution_record")
    assert (record.rid, record.status, record.assets) == (TRAIN, Status.completed, (LEAF_1, LEAF_2))
    assert record.working_dir == recorded / "home/local/executions" / TRAIN
    report = unpickled(recorded, "push_report")
    assert (report.execution, report.rids[TRAIN], report.new) == ("1-0014", "1-0014", ())


def test_unpickled_tables_are_equal(recorded: Path) -> None:
    """A table that was pickled equals the same table made now."""
    table = unpickled(recorded, "table")
    assert table == Table(
        "Plot",
        (Column("Name", nullok=False), Column("Trees", "int4"), Column("Species"), Column("Soil", "jsonb")),
        keys=(("Name",),),
        foreign_keys=(ForeignKey("Species", "Species", "Name"),),
        schema="domain",
    )
    assert unpickled(recorded, "model").table("Plot") == table


@pytest.mark.filterwarnings("ignore::deriva_ml_core.errors.DerivaMLDeprecationWarning")  # a pickle names old classes
def test_unpickled_members_of_enumerations_are_identical(recorded: Path) -> None:
    """The members of enumerations that were pickled are those of today."""
    members = unpickled(recorded, "words")
    assert [str(member) for member in members] == [
        *("Created", "Initializing", "Pending", "Running", "Completed", "Failed", "Aborted", "Input", "Output"),
        *("copy", "share", "move"),
        *("Workflow", "Execution", "Execution_Execution", "Execution_Metric", "Dataset", "Dataset_Version"),
        *("Dataset_Dataset", "Dataset_Execution", "Dataset_Dataset_Type"),
        *("Asset_Type", "Asset_Role", "Dataset_Type", "Workflow_Type", "Feature_Name"),
        *("Execution_Metadata", "Execution_Asset", "File", "major", "minor", "patch"),
    ]
    assert members[4] is Status.completed
    assert members[-1] is VersionPart.patch


@pytest.mark.filterwarnings("ignore::deriva_ml_core.errors.DerivaMLDeprecationWarning")  # a pickle names old classes
def test_unpickled_errors_are_raised(recorded: Path) -> None:
    """An error that was pickled is an error of the class that has its name, or its alias, today."""
    names = [
        *("AccessRefused", "CatalogCorrupt", "CatalogReadOnly", "CatalogTooNew", "CatalogUnavailable"),
        *("ChecksumMismatch", "ConfigurationError", "DatasetCycle", "DerivaMLException", "DerivaMLWarning"),
        *("DryRunOnly", "DuplicateRow", "ExecutionCycle", "ExecutionNotBegun", "ExecutionRunning", "FileConflict"),
        *("FollowerOnly", "InvalidBag", "InvalidFileName", "InvalidRID", "InvalidTransition", "LoginRequired"),
        *("MetadataConflict", "MissingFiles", "NotReproducible", "NotebookFailed", "PluginError", "RowInUse"),
        *("StoreFull", "StoreUnavailable", "UnknownAddress", "UnknownCheckpoint", "UnknownColumn", "UnknownMetric"),
        *("UnknownRID", "UnknownTable", "UnknownTerm", "UnknownVersion", "UnknownWorkflow", "UploadFailed"),
        *("WorkflowMissing", "WorkflowTwice", "WrongTable"),
    ]
    found = unpickled(recorded, "errors")
    assert {type(error) for error in found} == {getattr(errors, name) for name in names}
    assert {str(error) for error in found} == {"what happened"}
    with pytest.raises(DerivaMLException, match="what happened"):
        raise found[names.index("UnknownRID")]


# Trainings


@pytest.fixture
def killed_fit(recorded: Path) -> Path:
    """The checkpoint of the fit of Lightning that was killed in its third epoch."""
    pytest.importorskip("torch", reason="torch is not installed")
    file = recorded / "home/local/executions" / LIGHTNING_KILLED / "outputs/Model/epoch-0002.ckpt"
    move_checkpoint(file, recorded)
    return file


def fit_from(checkpoint: Path, ml: DerivaML, **options: Any) -> Any:
    """Go on to a fourth epoch, and return our callback."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    package: Any = lightning_package()
    from deriva_ml_lightning import DerivaMLCallback

    class Model(package.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3, 1)

        def training_step(self, batch: Any, _: int) -> Any:
            return torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1])

        def validation_step(self, batch: Any, _: int) -> None:
            self.log("val_loss", [3.0, 1.0, 2.0, 1.5][self.current_epoch])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.01)

    points = torch.linspace(-1, 1, 24).reshape(8, 3)
    data = DataLoader(TensorDataset(points, points.sum(1, keepdim=True)), 4)
    callback = DerivaMLCallback(ml=ml, configuration=ExecutionConfiguration(workflow=TRAINING), curves=False, **options)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = package.Trainer(callbacks=[callback], max_epochs=4, enable_checkpointing=False, **quiet)
    trainer.fit(Model(), data, data, ckpt_path=checkpoint)
    return callback


def lightning_package() -> Any:
    for name in ("lightning.pytorch", "pytorch_lightning"):
        try:
            return import_module(name)
        except ImportError:
            continue
    return pytest.skip("neither lightning nor pytorch_lightning is installed")


def checkpoint_types(ml: DerivaML, rid: str) -> dict[str, set[str]]:
    found = ml.lookup_execution(rid).list_assets("Output")
    return {asset.filename: {*asset.asset_types} for asset in found if asset.table == "Model"}


def metric_lines(execution: Any) -> list[tuple[int, int]]:
    lines = (execution.working_dir / "metrics.jsonl").read_text().splitlines()
    return [(line["fit"], line["epoch"]) for line in map(json.loads, lines)]


def test_a_fit_of_lightning_is_resumed(ml: DerivaML, killed_fit: Path) -> None:
    """With ``resume="same"`` the killed execution runs again, completes, and uploads its files."""
    callback = fit_from(killed_fit, ml, resume="same")
    assert callback.execution.execution_rid == LIGHTNING_KILLED
    assert ml.lookup_execution(LIGHTNING_KILLED).status is Status.completed
    assert metric_lines(callback.execution) == [(1, 1), (1, 2), (2, 3), (2, 4)]


def test_the_best_value_of_a_fit_is_known(ml: DerivaML, killed_fit: Path) -> None:
    """The second epoch, before the kill, stays the best one; the fourth is the last."""
    fit_from(killed_fit, ml, resume="same")
    (metric,) = ml.lookup_execution(LIGHTNING_KILLED).list_metrics()
    assert (metric.name, metric.best, metric.best_at, metric.last) == ("val_loss", 1.0, 2, 1.5)
    assert {name for name, types in checkpoint_types(ml, LIGHTNING_KILLED).items() if "Best_Checkpoint" in types} == {
        "epoch-0002.ckpt"
    }


def test_a_new_execution_has_the_checkpoint_as_its_input(ml: DerivaML, killed_fit: Path) -> None:
    """Without ``resume`` a new execution is made, and the checkpoint of the killed one is uploaded for it."""
    callback = fit_from(killed_fit, ml)
    (used,) = ml.lookup_execution(callback.execution.execution_rid).list_assets("Input")
    assert used.filename == "epoch-0002.ckpt"
    assert [
        asset.rid for asset in ml.lookup_execution(LIGHTNING_KILLED).list_assets("Output") if asset.table == "Model"
    ] == [used.rid]


def test_an_uploaded_checkpoint_is_fetched(ml: DerivaML, tmp_path: Path) -> None:
    """The best checkpoint of a completed fit is downloaded, and torch loads it."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    file = fetch_checkpoint(ml.lookup_execution(LIGHTNING), tmp_path / "fetched")
    checkpoint = torch.load(file, weights_only=True)
    assert checkpoint["epoch"] == 1
    assert checkpoint["callbacks"]["DerivaMLCallback"]["execution"] == LIGHTNING
    assert checkpoint["state_dict"]["layer.weight"].shape == (1, 3)


def test_a_fit_of_keras_is_resumed(ml: DerivaML, recorded: Path) -> None:
    """From a backup of Keras, the killed execution continues with its third epoch, and completes."""
    keras: Any = pytest.importorskip("keras", reason="keras is not installed")
    import numpy as np

    from deriva_ml_keras import DerivaMLCallback

    points = np.linspace(-1, 1, 24, dtype="float32").reshape(8, 3)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    callback = DerivaMLCallback(ml=ml, configuration=ExecutionConfiguration(workflow=TRAINING), resume="same")
    restoring = keras.callbacks.BackupAndRestore(recorded / "backup")
    with callback:
        history = model.fit(
            points, points.sum(1, keepdims=True), batch_size=4, epochs=3, verbose=0, callbacks=[restoring, callback]
        )
    assert history.epoch == [2]
    assert callback.execution.execution_rid == KERAS_KILLED
    assert ml.lookup_execution(KERAS_KILLED).status is Status.completed
    assert metric_lines(callback.execution) == [(1, 1), (1, 2), (2, 3)]
    assert {*checkpoint_types(ml, KERAS_KILLED)} == {"epoch-0002.keras", "fit-2-epoch-0003.keras"}


# Runners and the command line


def test_a_sweep_is_read(ml: DerivaML) -> None:
    """A sweep has its jobs nested in it, and the list of what became of each."""
    sweep = ml.lookup_execution(SWEEP)
    assert [each.execution_rid for each in sweep.list_nested_executions()] == [JOB_0, JOB_1]
    (file,) = [asset for asset in sweep.list_assets("Output") if asset.filename == "jobs.json"]
    jobs = [(job["execution"], job["status"], job["returned"]) for job in json.loads(content(ml, file))]
    assert jobs == [(JOB_0, "Completed", 1.0), (JOB_1, "Failed", None)]
    assert outputs(ml, JOB_0, "Model") == {"learned.txt": b"rate 0.5"}


@pytest.mark.filterwarnings("ignore::deriva_ml_core.errors.DerivaMLDeprecationWarning")  # keywords of version 0.1
def test_what_a_recorded_configuration_names_is_imported(ml: DerivaML) -> None:
    """Hydra builds the parts of a job from ``config.yaml``, which names our classes by the modules of 0.1.0."""
    hydra: Any = pytest.importorskip("hydra.utils", reason="hydra is not installed")
    omegaconf: Any = pytest.importorskip("omegaconf", reason="omegaconf is not installed")
    config = omegaconf.OmegaConf.load(ml.lookup_execution(JOB_0).working_dir / "records/config.yaml")
    assert callable(hydra.get_method(config["_target_"]))
    assert [*hydra.instantiate(config.datasets)] == [DatasetSpec(rid=LEAVES, version="0.2.0")]
    assert [*hydra.instantiate(config.assets)] == [AssetSpec(rid=LEAF_1)]
    assert hydra.instantiate(config.deriva_ml) == DerivaMLConfig()
    workflow = hydra.instantiate(config.workflow, url="https://example.org/leaf.py")
    assert workflow == Workflow(name="Sweep", workflow_type="Training", url="https://example.org/leaf.py")


def test_what_a_killed_notebook_left_is_removed(ml: DerivaML, recorded: Path) -> None:
    """The cells of a notebook whose process was killed are deleted when the next notebook runs."""
    for name in ("papermill", "nbconvert", "ipykernel"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    notebook = recorded / "quick.ipynb"
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    notebook.write_text(
        json.dumps({"cells": [], "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5})
    )
    left = [*(recorded / "home/local/notebooks").iterdir()]
    assert [sorted(path.name for path in folder.iterdir()) for folder in left] == [[".lease.json", "slow.ipynb"]]
    ran = called("deriva-ml-run-notebook", notebook)
    assert ran.returncode == 0, ran.stderr
    assert [*(recorded / "home/local/notebooks").iterdir()] == []


def test_the_command_line_shows_an_execution(ml: DerivaML) -> None:
    """``deriva-ml show`` reads the configuration, the statuses and the metrics that 0.1.0 kept."""
    shown = json.loads(called("deriva-ml", "show", LIGHTNING, "--json").stdout)
    assert (shown["rid"], shown["status"], shown["description"]) == (LIGHTNING, "Completed", "Complete a fit")
    assert "val_loss" in json.dumps(shown)


def test_the_command_line_verifies_an_execution(ml: DerivaML) -> None:
    """``deriva-ml verify`` finds nothing wrong with a completed execution."""
    ran = called("deriva-ml", "verify", TRAIN)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_script_is_rebuilt(ml: DerivaML, recorded: Path) -> None:
    """``deriva-ml reproduce`` checks the commit out, applies the uncommitted change, and gives the command."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    into = recorded / "rebuilt"
    words = ("reproduce", SCRIPT, "--into", into, "--repository", recorded / "project", "--json")
    ran = called("deriva-ml", *words)
    assert ran.returncode == 0, ran.stderr
    rebuilt = json.loads(ran.stdout)
    assert "RATE = 0.2" in (into / "code/learn.py").read_text()
    assert rebuilt["commit"] == "43ae0f892c3669f4fd860a078ebaf62420035405"
    assert (rebuilt["command"][1:], rebuilt["place"]) == (["learn.py", "--epochs", "3"], str(into / "code"))


def called(program: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Call one of our commands."""
    command = [Path(sysconfig.get_path("scripts")) / program, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))


def test_parameters_of_earlier_runs(ml: DerivaML) -> None:
    """The migration adds the parameters of earlier runs from their configuration and training files."""
    choices = {
        "assets": "default_asset",
        "datasets": "default_dataset",
        "workflow": "default_workflow",
        "deriva_ml": "default_deriva",
        "model_config": "default_model",
    }
    found = {rid: ml.lookup_execution(rid).params for rid in (TRAIN, SCRIPT, SWEEP, JOB_0, JOB_1, LIGHTNING, STAGED)}
    sgd = {"lr": 0.01, "momentum": 0, "dampening": 0, "weight_decay": 0}
    sgd |= {"nesterov": False, "maximize": False, "differentiable": False}
    assert found == {
        TRAIN: {"rate": 0.1, "layers": [8, 1], "api_token": "[redacted: api_token]"},
        SCRIPT: {"rate": 0.2},
        SWEEP: choices,
        JOB_0: {"rate": 0.5, **choices},
        JOB_1: {"rate": 2.0, **choices},
        LIGHTNING: {
            "optimizer": "SGD",
            "batch_size": 4,
            "epochs": 2,
            "precision": "32-true",
            "accumulate_grad_batches": 1,
            **{f"optimizer.{name}": value for name, value in sgd.items()},
        },
        STAGED: {},
    }
    rows = ml.connection.catalog.select("Execution_Parameter", {"Name": "rate"}, order=("Execution",))
    assert [(row["Execution"], row["Number"]) for row in rows] == [
        *((TRAIN, 0.1), (SCRIPT, 0.2), (JOB_0, 0.5), (JOB_1, 2.0))
    ]
