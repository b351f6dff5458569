"""``deriva-ml delete``."""

from __future__ import annotations

from deriva_ml_core.client import DerivaML


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
