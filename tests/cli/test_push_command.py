"""``deriva-ml push``: the output of a push, as a table and as JSON."""

from __future__ import annotations

from pathlib import Path

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import ExecutionConfiguration


@pytest.fixture
def target(tmp_path: Path) -> str:
    """The address of another catalog with different RIDs."""
    with DerivaML(f"file:{tmp_path / 'target'}") as other:
        other.connection.catalog.reserve(1000)
    return f"file:{tmp_path / 'target'}"


def test_output(cli, ml: DerivaML, run, target: str) -> None:
    """The table maps old to new RIDs and ends with what was copied; a repeated push copies nothing."""
    exe = run("one", ["one.pt"], [{"loss": 1.0}])
    (model,) = (asset for asset in exe.list_assets("Output") if asset.table == "Model")
    first = cli("push", exe.execution_rid, "--to", target, columns=120)
    with DerivaML(target) as other:
        (copy,) = other.find_executions()
        (copied,) = (asset for asset in copy.list_assets("Output") if asset.table == "Model")
    lines = [line.split() for line in first.stdout.splitlines()]
    assert ["Execution", exe.execution_rid, copy.execution_rid] in lines
    assert ["Model", model.rid, copied.rid] in lines
    assert lines[-1][0] == "Copied"
    assert f"#{copy.execution_rid}" in first.stdout
    second = cli("push", exe.execution_rid, "--to", target, columns=120)
    assert ["Model", model.rid, copied.rid, "existed"] in [line.split() for line in second.stdout.splitlines()]
    assert "Nothing to copy" in second.stdout


def test_many_rows(cli, run, target: str) -> None:
    """A table with many rows takes one line of output; JSON has each row."""
    exe = run("many", [f"{number}.pt" for number in range(40)])
    result = cli("push", exe.execution_rid, "--to", target)
    assert [line.split()[:3] for line in result.stdout.splitlines() if "Model" in line] == [["Model", "40", "rows"]]
    assert "40 existed" in cli("push", exe.execution_rid, "--to", target).stdout
    pushed = cli("push", exe.execution_rid, "--to", target, "--json").json["rows"]
    assert len([row for row in pushed if row["table"] == "Model"]) == 40


def test_unknown_execution_creates_no_target(cli, tmp_path: Path) -> None:
    """A push of an unknown execution creates no target catalog."""
    assert cli("push", "1-ZZZZ", "--to", f"file:{tmp_path / 'new'}").code == 2
    assert not (tmp_path / "new").exists()


def test_json(cli, run, target: str) -> None:
    """With --json the RID of the copy works with `deriva-ml show` on the target."""
    exe = run("one", ["one.pt"], [{"loss": 1.0}, {"loss": 0.5}])
    pushed = cli("push", exe.execution_rid, "--to", target, "--json").json
    assert (pushed["again"], pushed["rows"][0]["new"]) == (False, True)
    shown = cli("show", pushed["execution"], "--host", target, "--json").json
    mine = cli("show", exe.execution_rid, "--json").json
    equal_fields = ("status", "duration_seconds", "started", "stopped", "timeline", "metrics", "fits")
    own_fields = {"rid", "created"}
    for name in (*equal_fields, "environment", "workflow"):
        left, right = shown[name], mine[name]
        if isinstance(left, dict):
            left, right = ({key: each[key] for key in each.keys() - own_fields} for each in (left, right))
        assert left == right, name
    assert cli("push", exe.execution_rid, "--to", target, "--json").json["again"] is True


def test_rejected_pushes(cli, ml: DerivaML, run, config: ExecutionConfiguration, target: str, tmp_path: Path) -> None:
    """An unfinished run, an unknown one, and the source as target are rejected in one line."""
    exe = ml.create_execution(config)
    result = cli("push", exe.execution_rid, "--to", target)
    assert (result.code, result.stderr.count("\n")) == (1, 1)
    assert "Only finished executions can be pushed" in result.stderr
    assert cli("push", "1-ZZZZ", "--to", target).code == 2
    done = run("one", ["one.pt"])
    same = cli("push", done.execution_rid, "--to", f"file:{ml.connection.folder}")
    assert (same.code, "nothing to copy" in same.stderr) == (2, True)


def test_unsent_files(cli, ml: DerivaML, config: ExecutionConfiguration, target: str) -> None:
    """Files that were never uploaded are listed."""
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Model", "waits.pt").write_text("m")
    result = cli("push", exe.execution_rid, "--to", target)
    assert result.code == 0
    assert "1 file not copied, because not uploaded: waits.pt" in " ".join(result.stdout.split())


def test_help(cli) -> None:
    """The help has examples and the options for nested executions."""
    result = cli("push", "--help", columns=120)
    assert "deriva-ml push 1-4A2C --to server.org --to-catalog 1" in result.stdout
    assert "--without-children" in result.stdout
