"""Corrections of the best checkpoint: the types move, and who, when, why and what was the best are on record."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import (
    AlreadyBestCheckpoint,
    ConfigurationError,
    ExecutionRunning,
    UnknownCheckpoint,
    UnknownRID,
)
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.push.source_record import rewrite_journal
from deriva_ml_core.training import fetch_checkpoint
from deriva_ml_core.workflow import Workflow

CONFIG = ExecutionConfiguration(
    workflow=Workflow(name="T", workflow_type="Training", url="https://example.org/t.py", checksum="c")
)
MODEL, BEST = ("Model_File",), ("Model_File", "Best_Checkpoint")
AB = {"a.ckpt": BEST, "b.ckpt": MODEL}


def train(ml: DerivaML, files: Mapping[str, Sequence[str]]) -> tuple[str, dict[str, str]]:
    """Record a run with checkpoints whose content is their name; return its RID, and their RIDs by name."""
    with ml.create_execution(CONFIG) as exe:
        for name, types in files.items():
            exe.asset_file_path("Model", name, asset_types=list(types)).write_text(name)
    exe.upload_execution_outputs()
    assets = ml.lookup_execution(exe.execution_rid).list_assets("Output")
    return exe.execution_rid, {asset.filename: asset.rid for asset in assets if asset.table == "Model"}


def best_rids(ml: DerivaML) -> set[str]:
    """Return the RIDs of the rows of models that the catalog has as the best checkpoints."""
    return {row["Model"] for row in ml.connection.catalog.select("Model_Asset_Type", {"Asset_Type": "Best_Checkpoint"})}


@pytest.mark.parametrize("is_folder_lost", [False, True])
def test_correction_is_on_record(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_folder_lost: bool
) -> None:
    """Types, journal copy and description have it, also on a machine that has only the catalog."""
    monkeypatch.setenv("LOGNAME", "ada")
    with DerivaML() as ml:
        rid, rids = train(ml, AB)
    if is_folder_lost:
        shutil.rmtree(DerivaML().lookup_execution(rid).working_dir)
    before = datetime.now(UTC)
    with DerivaML() as ml:
        reason = "The metric was computed on the training data, password: hunter2zQ"
        corrected = ml.correct_best_checkpoint(rid, rids["b.ckpt"], reason)
        working_folder = corrected.working_dir
    shutil.rmtree(working_folder)
    with DerivaML() as ml:
        assert best_rids(ml) == {rids["b.ckpt"]}
        recorded = ml.lookup_execution(rid)
        assert fetch_checkpoint(recorded, tmp_path).read_text() == "b.ckpt"
        (correction,) = recorded.list_best_corrections()
        assert (correction.checkpoint, correction.assets) == ("b.ckpt", (rids["b.ckpt"],))
        assert (correction.previous, correction.previous_assets) == ("a.ckpt", (rids["a.ckpt"],))
        assert correction.reason == "The metric was computed on the training data, password: [redacted: password]"
        assert correction.corrected_by == "ada"
        assert before <= correction.time <= datetime.now(UTC)
        (described,) = ml.describe(rid).to_dict()["best_corrections"]
        assert (described["checkpoint"], described["previous"]) == ("b.ckpt", "a.ckpt")
        ml.correct_best_checkpoint(rid, "a.ckpt", "It was right")
        assert best_rids(ml) == {rids["a.ckpt"]}
        again = ml.lookup_execution(rid).list_best_corrections()
        assert [(each.previous, each.checkpoint) for each in again] == [("a.ckpt", "b.ckpt"), ("b.ckpt", "a.ckpt")]


def test_first_best(home: Path, tmp_path: Path) -> None:
    """A run whose checkpoints have no best one gets one."""
    with DerivaML() as ml:
        rid, rids = train(ml, {"a.ckpt": MODEL, "b.ckpt": MODEL})
        recorded = ml.correct_best_checkpoint(rid, rids["a.ckpt"], "It has the best test score")
        assert fetch_checkpoint(recorded, tmp_path).read_text() == "a.ckpt"
        (correction,) = recorded.list_best_corrections()
        assert (correction.previous, correction.previous_assets) == (None, ())


def test_later_type_of_the_former_best(home: Path) -> None:
    """A type that is added to the former best later does not bring its old type back."""
    with DerivaML() as ml:
        rid, rids = train(ml, AB)
        ml.correct_best_checkpoint(rid, "b.ckpt", "why")
        execution = ml.restore_execution(rid)
        execution.add_asset_types(execution.working_dir / "outputs/Model/a.ckpt", ["Last_Checkpoint"])
        assert best_rids(ml) == {rids["b.ckpt"]}


def test_folder_is_one_checkpoint(home: Path, tmp_path: Path) -> None:
    """All files of a folder are marked, by the folder's name or, with a suffix, by the RID of one file."""
    old, new, plain = (f"{name}/{part}" for name, part in (("a.ckpt", "0"), ("b.ckpt", "0"), ("step-5", "0")))
    files = {old: BEST, new: MODEL, "b.ckpt/1": MODEL, plain: MODEL, "step-5/1": MODEL}
    with DerivaML() as ml:
        rid, rids = train(ml, files)
        recorded = ml.correct_best_checkpoint(rid, rids["b.ckpt/1"], "why")
        assert best_rids(ml) == {rids[new], rids["b.ckpt/1"]}
        assert fetch_checkpoint(recorded, tmp_path).name == "b.ckpt"
        with pytest.raises(UnknownCheckpoint, match="step-5"):
            ml.correct_best_checkpoint(rid, rids[plain], "why")
        recorded = ml.correct_best_checkpoint(rid, "step-5", "why")
        assert best_rids(ml) == {rids[plain], rids["step-5/1"]}
        assert fetch_checkpoint(recorded, tmp_path).name == "step-5"


@pytest.mark.parametrize(("is_old_shared", "marked"), [(True, {"a.ckpt", "b.ckpt"}), (False, {"c.ckpt"})])
def test_shared_row_keeps_its_types(home: Path, tmp_path: Path, is_old_shared: bool, marked: set[str]) -> None:
    """The best checkpoint of another execution that has the same row stays what it was, on every machine."""
    shared = "a.ckpt" if is_old_shared else "b.ckpt"
    with DerivaML() as ml:
        other, others = train(ml, {"a.ckpt": BEST} if is_old_shared else {"b.ckpt": MODEL, "c.ckpt": BEST})
        rid, rids = train(ml, AB)
        assert rids[shared] == others[shared]
        recorded = ml.correct_best_checkpoint(rid, "b.ckpt", "why")
        names = {each: name for name, each in (rids | others).items()}
        assert {names[each] for each in best_rids(ml)} == marked
        assert fetch_checkpoint(recorded, tmp_path / "1").read_text() == "b.ckpt"
        fetched = fetch_checkpoint(ml.lookup_execution(other), tmp_path / "2").read_text()
        assert fetched == ("a.ckpt" if is_old_shared else "c.ckpt")
        shutil.rmtree(recorded.working_dir)
        assert fetch_checkpoint(ml.lookup_execution(rid), tmp_path / "3").read_text() == "b.ckpt"
        with pytest.raises(AlreadyBestCheckpoint):
            ml.correct_best_checkpoint(rid, "b.ckpt", "why")


def test_other_files_are_refused(home: Path) -> None:
    """A file of another execution, a record of the run, and an unknown name are no checkpoints of it."""
    with DerivaML() as ml:
        rid, rids = train(ml, AB)
        _, others = train(ml, {"z.ckpt": MODEL})
        outputs = ml.lookup_execution(rid).list_assets("Output")
        record = next(asset.rid for asset in outputs if asset.table == "Execution_Metadata")
        for wrong in (others["z.ckpt"], record, "c.ckpt", ""):
            with pytest.raises(UnknownCheckpoint, match=r"a\.ckpt, b\.ckpt"):
                ml.correct_best_checkpoint(rid, wrong, "why")
        with pytest.raises(UnknownRID):
            ml.correct_best_checkpoint("9-ZZZZ", rids["b.ckpt"], "why")
        assert best_rids(ml) == {rids["a.ckpt"]}


@pytest.mark.parametrize("reason", ["", "  \n"])
def test_reason_is_required(home: Path, reason: str) -> None:
    """A correction without a reason is refused."""
    with DerivaML() as ml:
        rid, rids = train(ml, AB)
        with pytest.raises(ConfigurationError, match="reason"):
            ml.correct_best_checkpoint(rid, rids["b.ckpt"], reason)
        assert best_rids(ml) == {rids["a.ckpt"]}


def test_same_checkpoint_is_refused(home: Path) -> None:
    """A correction to the present best checkpoint is refused, and is not on record."""
    with DerivaML() as ml:
        rid, rids = train(ml, AB)
        with pytest.raises(AlreadyBestCheckpoint, match=r"a\.ckpt"):
            ml.correct_best_checkpoint(rid, rids["a.ckpt"], "why")
        assert ml.lookup_execution(rid).list_best_corrections() == []


def test_living_run_is_refused(home: Path) -> None:
    """The best checkpoint of a run whose process lives is that process's."""
    with DerivaML() as ml, ml.create_execution(CONFIG) as execution:
        for name, types in AB.items():
            execution.asset_file_path("Model", name, asset_types=list(types)).write_text(name)
        execution.upload_execution_outputs()
        with pytest.raises(ExecutionRunning):
            ml.correct_best_checkpoint(execution.execution_rid, "b.ckpt", "why")


def test_pushed_correction_has_rids_of_the_copies(home: Path) -> None:
    """A copy of the run in another catalog names the copies of the checkpoints."""
    with DerivaML() as ml:
        rid, rids = train(ml, AB)
        ml.correct_best_checkpoint(rid, "b.ckpt", "why")
        copies = {rid: "9-EXE", rids["a.ckpt"]: "9-A", rids["b.ckpt"]: "9-B"}
        journal = rewrite_journal(ml.connection, rid, copies, Status.completed, "")
        assert journal is not None
        events = [json.loads(line) for line in journal.splitlines()]
        (event,) = [each for each in events if each["event"] == "best_corrected"]
        assert (event["correction"]["assets"], event["correction"]["previous_assets"]) == (["9-B"], ["9-A"])
