"""``deriva-ml push``: a run copied to another catalog, told as a table or as JSON."""

from __future__ import annotations

from pathlib import Path

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import ExecutionConfiguration


@pytest.fixture
def there(tmp_path: Path) -> str:
    """The address of another catalog, whose record ids are other ones."""
    with DerivaML(f"file:{tmp_path / 'there'}") as other:
        other.connection.catalog.reserve(1000)
    return f"file:{tmp_path / 'there'}"


def test_what_is_told(ask, ml: DerivaML, run, there: str) -> None:
    """Each row's old and new record id stand in a table, with what was sent and where; again: that all was there."""
    exe = run("one", ["one.pt"], [{"loss": 1.0}])
    (model,) = (asset for asset in exe.list_assets("Output") if asset.table == "Model")
    first = ask("push", exe.execution_rid, "--to", there, columns=120)
    with DerivaML(there) as other:
        (copy,) = other.find_executions()
        (copied,) = (asset for asset in copy.list_assets("Output") if asset.table == "Model")
    lines = [line.split() for line in first.out.splitlines()]
    assert ["Execution", exe.execution_rid, copy.execution_rid] in lines
    assert ["Model", model.rid, copied.rid] in lines
    assert lines[-1][0] == "Copied"
    assert f"#{copy.execution_rid}" in first.out
    second = ask("push", exe.execution_rid, "--to", there, columns=120)
    assert ["Model", model.rid, copied.rid, "was", "there"] in [line.split() for line in second.out.splitlines()]
    assert "All of it was there already" in second.out


def test_many_rows_are_one_line(ask, run, there: str) -> None:
    """A table with more rows than a screen reads is told by their number; programs get each of them."""
    exe = run("many", [f"{number}.pt" for number in range(40)])
    said = ask("push", exe.execution_rid, "--to", there)
    assert [line.split()[:3] for line in said.out.splitlines() if "Model" in line] == [["Model", "40", "rows"]]
    assert "40 were there" in ask("push", exe.execution_rid, "--to", there).out
    told = ask("push", exe.execution_rid, "--to", there, "--json").json["rows"]
    assert len([row for row in told if row["table"] == "Model"]) == 40


def test_no_catalog_is_made_for_nothing(ask, tmp_path: Path) -> None:
    """A push of what is no execution leaves no new catalog behind."""
    assert ask("push", "1-ZZZZ", "--to", f"file:{tmp_path / 'new'}").code == 2
    assert not (tmp_path / "new").exists()


def test_for_programs(ask, run, there: str) -> None:
    """The same as one JSON value, which `deriva-ml show` of the target goes on with."""
    exe = run("one", ["one.pt"], [{"loss": 1.0}, {"loss": 0.5}])
    told = ask("push", exe.execution_rid, "--to", there, "--json").json
    assert (told["again"], told["rows"][0]["new"]) == (False, True)
    shown = ask("show", told["execution"], "--host", there, "--json").json
    mine = ask("show", exe.execution_rid, "--json").json
    of_course = ("status", "duration_seconds", "started", "stopped", "timeline", "metrics", "fits")
    of_there = {"rid", "created"}
    for name in (*of_course, "environment", "workflow"):
        left, right = shown[name], mine[name]
        if isinstance(left, dict):
            left, right = ({key: each[key] for key in each.keys() - of_there} for each in (left, right))
        assert left == right, name
    assert ask("push", exe.execution_rid, "--to", there, "--json").json["again"] is True


def test_what_stands_against_it(
    ask, ml: DerivaML, run, config: ExecutionConfiguration, there: str, tmp_path: Path
) -> None:
    """A run that has not ended, an unknown one, and the same catalog are told in one line."""
    exe = ml.create_execution(config)
    said = ask("push", exe.execution_rid, "--to", there)
    assert (said.code, said.complaint.count("\n")) == (1, 1)
    assert "Only finished executions can be pushed" in said.complaint
    assert ask("push", "1-ZZZZ", "--to", there).code == 2
    done = run("one", ["one.pt"])
    same = ask("push", done.execution_rid, "--to", f"file:{ml.connection.folder}")
    assert (same.code, "nothing to copy" in same.complaint) == (2, True)


def test_files_that_wait(ask, ml: DerivaML, config: ExecutionConfiguration, there: str) -> None:
    """What was registered and never uploaded is named."""
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Model", "waits.pt").write_text("m")
    said = ask("push", exe.execution_rid, "--to", there)
    assert said.code == 0
    assert "1 file not copied, since never uploaded: waits.pt" in " ".join(said.out.split())


def test_help(ask) -> None:
    """The help has examples, and says what goes with a run."""
    said = ask("push", "--help", columns=120)
    assert "deriva-ml push 1-4A2C --to server.org --to-catalog 1" in said.out
    assert "--without-children" in said.out
