"""The same commands on a catalog of a Deriva server, which a thread here plays."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Barrier

import pytest

pytest.importorskip("deriva", reason="catalogs on a server are reached through deriva-py")

from terminal import Said, called

from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.workflow import Workflow
from fakes.deriva_server import DerivaServer, serving
from fakes.faults import Fault, Harm


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DerivaServer]:
    """A server, and a user whose home holds a login for it."""
    with serving(tmp_path / "hatrac") as found:
        folder = tmp_path / "user" / ".deriva"
        folder.mkdir(parents=True)
        host = found.hostname.removeprefix("http://")
        (folder / "credential.json").write_text(json.dumps({host: found.credential()}))
        monkeypatch.setenv("HOME", str(tmp_path / "user"))
        yield found


@pytest.fixture
def ask() -> Callable[..., Said]:
    """Ask in a process of its own: deriva-py looks for logins in the home that it was imported with."""
    return called


@pytest.fixture
def ml(server: DerivaServer) -> DerivaML:
    """A client of a new catalog there."""
    return DerivaML.create(server.hostname, "demo", credential=server.credential())


@pytest.fixture
def there(server: DerivaServer, ml: DerivaML) -> tuple[str, ...]:
    """The options that name it."""
    return ("--host", server.hostname, "--catalog", str(ml.connection.address.catalog_id))


def test_reading(
    ask, ml: DerivaML, run, there: tuple[str, ...], config: ExecutionConfiguration, tmp_path: Path
) -> None:
    """What was recorded on a server is listed, shown, compared, followed, checked and brought."""
    first, second = (run(name, [f"{name}.pt"], [{"loss": loss}]) for name, loss in (("one", 1.0), ("two", 2.0)))
    (model,) = [asset for asset in first.list_assets("Output") if asset.table == "Model"]
    listed = ask("list", "--json", *there).json["executions"]
    assert [each["rid"] for each in listed] == [second.execution_rid, first.execution_rid]
    best = ask("list", "--sort", "loss", "--type", "Training", "-n", "1", "--json", *there).json["executions"]
    assert [(each["rid"], each["metric"]["best"]) for each in best] == [(first.execution_rid, 1.0)]
    shown = ask("show", first.execution_rid, "--json", *there).json
    assert (shown["status"], shown["metrics"][0]["last"]) == ("Completed", 1.0)
    assert ask("status", first.execution_rid, *there).code == 0
    assert "description" in ask("diff", first.execution_rid, second.execution_rid, *there).out
    edges = ask("lineage", first.execution_rid, "--json", *there).json["edges"]
    assert edges == [{"source": first.execution_rid, "product": model.rid}]
    assert ask("verify", "--all", "--json", *there).json["problems"] == []
    assert ask("download", model.rid, "--into", str(tmp_path / "in"), *there).code == 0
    assert (tmp_path / "in" / "one.pt").stat().st_size == model.length


def test_the_rest(ask, ml: DerivaML, run, there: tuple[str, ...]) -> None:
    """Workflows, datasets and terms are listed, files that wait are sent, and what is sent may go."""
    exe = run("one", ["one.pt"])
    dataset = ml.create_dataset("Models", "Training")
    exe.asset_file_path("Model", "late.pt").write_text("late")
    assert len(ask("workflows", "--json", *there).json["workflows"]) == 1
    assert [each["version"] for each in ask("datasets", "--json", *there).json["datasets"]] == ["0.1.0"]
    assert "Training" in ask("vocabulary", "Workflow_Type", "--json", *there).json["Workflow_Type"]
    assert ask("show", dataset.rid, "--json", *there).json["version"] == "0.1.0"
    (sent,) = ask("upload", "--json", *there).json["executions"]
    assert [each["filename"] for each in sent["sent"]] == ["late.pt"]
    assert ask("storage", "--json", *there).json["tables"][0]["files"] > 0
    may_go = ask("cleanup", "--json", "--yes", *there).json["may_go"]
    assert [each["name"] for each in may_go] == [exe.execution_rid]
    assert ask("config", "--json", *there).json["embedded"] is False
    assert ask("doctor", *there).code == 0


def test_files_on_their_way_at_once(ask, server: DerivaServer, run, there: tuple[str, ...]) -> None:
    """As many files as --workers says are with the server at the same time; less than one is wrong use."""
    exe = run("one", ["one.pt"])
    for name in "abcd":
        exe.asset_file_path("Model", f"{name}.pt").write_text(name)
    met = Barrier(3, timeout=60)
    server.faults.add(Fault(Harm.call, "PUT", "/hatrac/Model/", times=3, skip=1, call=met.wait))  # the first goes alone
    assert ask("upload", "--workers", "0", *there).code == 2
    (sent,) = ask("upload", "--workers", "3", "--json", *there).json["executions"]
    assert (len(sent["sent"]), sent["error"]) == (4, None)
    assert not met.broken


def test_who_may_not_enter(ask, server: DerivaServer, there: tuple[str, ...]) -> None:
    """Whose login has ended is told in one line how to log in, and it ends with 1."""
    server.log_out("test1")
    said = ask("list", *there)
    assert said.code == 1
    assert "log in" in said.complaint.lower()


def test_a_new_catalog(ask, server: DerivaServer) -> None:
    """A catalog is made on a server, and is there for the next command under the number that was told."""
    made = ask("init", "--host", server.hostname, "--project", "scans", "--json").json
    assert "Execution" in made["tables"]
    assert ask("list", "--host", server.hostname, "--catalog", made["number"], "--json").json["executions"] == []


@pytest.mark.filterwarnings("ignore:`isinstance\\(treespec, LeafSpec\\)`")  # Lightning 2.6 with torch 2.13
def test_a_training_is_published(ask, server: DerivaServer, ml: DerivaML, there: tuple[str, ...]) -> None:
    """A training that the callback recorded offline is pushed, and shown there as it is here, curves and all."""
    lightning = pytest.importorskip("pytorch_lightning", reason="it is Lightning that trains")
    from pytorch_lightning.demos.boring_classes import BoringModel

    from deriva_ml_lightning import DerivaMLCallback

    workflow = Workflow(name="Own", workflow_type="Training", url="https://example.org/own.py", checksum="4" * 40)
    recorded = DerivaMLCallback(ml=DerivaML(), configuration=ExecutionConfiguration(workflow=workflow))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    lightning.Trainer(max_epochs=2, limit_train_batches=2, limit_val_batches=1, callbacks=[recorded], **quiet).fit(
        BoringModel()
    )
    rid = recorded.execution.execution_rid
    pushed = ask("push", rid, "--to", server.hostname, "--to-catalog", there[3], "--json").json
    here = ask("show", rid, "--json").json
    found = ask("show", pushed["execution"], "--json", *there).json
    told = ("status", "duration_seconds", "started", "stopped", "timeline", "metrics", "fits", "environment")
    assert {name: found[name] for name in told} == {name: here[name] for name in told}
    assert len(found["fits"]) == 1
    beside = ("journal.jsonl",)
    files = [
        {(each["table"], each["filename"], each["md5"]) for each in run["outputs"] if each["filename"] not in beside}
        for run in (here, found)
    ]
    assert files[0] < files[1]
    assert {table for table, _, _ in files[0]} >= {"Model", "Execution_Metadata"}
    assert [each.execution_rid for each in ml.find_executions()] == [pushed["execution"]]
