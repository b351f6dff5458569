"""``deriva-ml delete``."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

from deriva_ml_cli.commands.cleanup import delete_removable, find_removable
from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import TransferMode
from deriva_ml_core.models import UploadOptions


def test_delete_and_restore(cli, ml: DerivaML, run) -> None:
    """What goes is listed row by row before the question; a deleted run is restored."""
    rid = run("To go", ["model.pt"]).execution_rid
    result = cli("delete", rid, "--full", answer="n\n")
    assert result.code == 1
    (model,) = ml.select_rows("Model")
    for text in (rid, model["RID"], "model.pt", "Model_Execution", "configuration.json", "30 days"):
        assert text in result.stdout
    assert len(ml.find_executions()) == 1
    result = cli("delete", rid, answer="y\n")
    assert (result.code, ml.find_executions()) == (0, [])
    assert f"deriva-ml delete --restore {rid}" in " ".join(result.stdout.split())
    assert rid in cli("delete", "--trash").stdout
    assert [each["execution"] for each in cli("delete", "--trash", "--json").json["deleted"]] == [rid]
    result = cli("delete", "--restore", rid)
    assert (result.code, result.stdout) == (0, f"Restored execution {rid}.\n")
    assert [each.execution_rid for each in ml.find_executions()] == [rid]
    assert cli("delete", "--trash").stdout == "The trash is empty.\n"


def test_dry_run(cli, ml: DerivaML, run) -> None:
    """A dry run lists and changes nothing; --json needs --yes or --dry-run."""
    rid = run("Stays", ["model.pt"]).execution_rid
    planned = cli("delete", rid, "--dry-run", "--json").json
    assert (planned["is_done"], planned["files"] > 3) == (False, True)
    assert {"table", "rid", "label"} == set(planned["rows"][0])
    assert cli("delete", rid, "--dry-run").code == 0
    assert len(ml.find_executions()) == 1
    assert cli("delete", rid, "--json").code == 2
    done = cli("delete", rid, "--yes", "--json").json
    assert done["is_done"]
    assert {row["rid"] for row in done["rows"]} == {row["rid"] for row in planned["rows"]}


def test_many_rows(cli, ml: DerivaML, run) -> None:
    """Of many rows of a table the first are listed, and the others are counted; --full lists all."""
    exe = run("Many", [f"{number}.pt" for number in range(25)])
    short, full = (cli("delete", exe.execution_rid, "--dry-run", *option).stdout for option in ((), ("--full",)))
    assert "and 5 more" in short
    assert "24.pt" in full
    assert "more" not in full


def test_keep_outputs(cli, ml: DerivaML, run) -> None:
    """With --keep-outputs the output files stay."""
    rid = run("Kept", ["model.pt"]).execution_rid
    assert cli("delete", rid, "--keep-outputs", "--yes").code == 0
    assert len(ml.select_rows("Model")) == 1
    assert ml.select_rows("Execution_Metadata") == []


def test_refused(cli, ml: DerivaML, run) -> None:
    """A run in use is refused in one line with exit code 1."""
    exe = run("Used", ["model.pt"])
    (model,) = ml.select_rows("Model")
    ml.create_dataset("D").add_dataset_members([model["RID"]])
    result = cli("delete", exe.execution_rid, "--yes")
    assert (result.code, "is a member of dataset" in result.stderr) == (1, True)
    assert len(ml.find_executions()) == 1


def test_wrong_usage(cli, run) -> None:
    """A RID is needed, and options that exclude each other are wrong usage."""
    rid = run().execution_rid
    assert cli("delete").code == 2
    assert cli("delete", rid, "--restore", rid).code == 2
    assert cli("delete", "--trash", rid).code == 2
    assert cli("delete", "1-ZZZZ", "--yes").code == 2
    assert cli("delete", "--restore", "1-ZZZZ").code == 2


def test_cleanup_of_objects_and_expired_runs(cli, ml: DerivaML, run, tmp_path: Path) -> None:
    """Cleanup lists expired deletions and objects that nothing names, deletes them, and keeps what is too young."""
    rid = run("To go", ["model.pt"]).execution_rid
    lost = tmp_path / "lost.pt"
    lost.write_text("lost")
    ml.connection.store.put("Model", "lost.pt", lost, handover=TransferMode.copy, options=UploadOptions())
    ml.delete_execution(rid)
    before = {path.name for path in (ml.connection.folder / "objects").glob("??/*")}
    assert cli("cleanup", "--dry-run", "--json").json["may_go"] == []

    def find(days: int, include_objects: bool = True) -> list[tuple[str, str]]:
        later = datetime.now(UTC) + timedelta(days=days)
        removable, _ = find_removable(
            ml, timedelta(0), include_downloads=True, include_objects=include_objects, now=later
        )
        return [(each.kind, each.name) for each in removable]

    md5 = hashlib.md5(b"lost", usedforsecurity=False).hexdigest()
    assert find(8) == [("object", md5)]
    assert find(31, include_objects=False) == []
    assert sorted(find(31)) == sorted([("deleted run", rid), *(("object", name) for name in before)])
    later = datetime.now(UTC) + timedelta(days=31)
    removable, _ = find_removable(ml, timedelta(0), include_downloads=True, now=later)
    freed, kept = delete_removable(ml, removable, later)
    assert (freed > 0, kept) == (True, [])
    assert list((ml.connection.folder / "objects").glob("??/*")) == []
    assert cli("delete", "--restore", rid).code == 2
    assert find(400) == []
