"""The commands on a catalog of a Deriva server; a fake server runs in a thread."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace

import pytest

from waits import HANG

pytest.importorskip("deriva", reason="catalogs on a server are reached through deriva-py")

from command_result import CommandResult, run_in_process
from deriva.core import get_credential
from message_commands import collect_templates, fill_in

from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import DerivaMLWarning
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.workflow import Workflow
from fakes.deriva_server import DerivaServer, serving
from fakes.faults import Fault, Harm


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DerivaServer]:
    """A server, and a home folder with a login for it."""
    with serving(tmp_path / "hatrac") as found:
        folder = tmp_path / "user" / ".deriva"
        folder.mkdir(parents=True)
        host = found.hostname.removeprefix("http://")
        (folder / "credential.json").write_text(json.dumps({host: found.credential()}))
        monkeypatch.setenv("HOME", str(tmp_path / "user"))
        # deriva-py has read the home folder at its import, which an earlier test of this process may have caused
        defaults = (str(folder / "credential.json"), *(get_credential.__defaults__ or ())[1:])
        monkeypatch.setattr(get_credential, "__defaults__", defaults)
        yield found


@pytest.fixture
def cli() -> Callable[..., CommandResult]:
    """Call ``deriva-ml`` in a process of its own: deriva-py reads logins from the home folder at its import."""
    return run_in_process


@pytest.fixture
def ml(server: DerivaServer) -> DerivaML:
    """A client of a new catalog on the server."""
    return DerivaML.create(server.hostname, "demo", credential=server.credential())


@pytest.fixture
def location(server: DerivaServer, ml: DerivaML) -> tuple[str, ...]:
    """The options that name the catalog."""
    return ("--host", server.hostname, "--catalog", str(ml.connection.address.catalog_id))


def test_reading_commands(
    cli, ml: DerivaML, run, location: tuple[str, ...], config: ExecutionConfiguration, tmp_path: Path
) -> None:
    """Runs on a server can be listed, shown, compared, traced, verified and downloaded."""
    first, second = (run(name, [f"{name}.pt"], [{"loss": loss}]) for name, loss in (("one", 1.0), ("two", 2.0)))
    (model,) = [asset for asset in first.list_assets("Output") if asset.table == "Model"]
    listed = cli("list", "--json", *location).json["executions"]
    assert [each["rid"] for each in listed] == [second.execution_rid, first.execution_rid]
    best = cli("list", "--sort", "loss", "--type", "Training", "-n", "1", "--json", *location).json["executions"]
    assert [(each["rid"], each["metric"]["best"]) for each in best] == [(first.execution_rid, 1.0)]
    shown = cli("show", first.execution_rid, "--json", *location).json
    assert (shown["status"], shown["metrics"][0]["last"]) == ("Completed", 1.0)
    assert cli("status", first.execution_rid, *location).code == 0
    assert "description" in cli("diff", first.execution_rid, second.execution_rid, *location).stdout
    edges = cli("lineage", first.execution_rid, "--json", *location).json["edges"]
    assert edges == [{"source": first.execution_rid, "product": model.rid}]
    assert cli("verify", "--all", "--json", *location).json["problems"] == []
    assert cli("download", model.rid, "--into", str(tmp_path / "in"), *location).code == 0
    assert (tmp_path / "in" / "one.pt").stat().st_size == model.length


def test_other_commands(cli, ml: DerivaML, run, location: tuple[str, ...]) -> None:
    """Workflows, datasets and terms are listed, staged files uploaded, and uploaded folders cleaned up."""
    exe = run("one", ["one.pt"])
    dataset = ml.create_dataset("Models", "Training")
    exe.asset_file_path("Model", "late.pt").write_text("late")
    assert len(cli("workflows", "--json", *location).json["workflows"]) == 1
    assert [each["version"] for each in cli("datasets", "--json", *location).json["datasets"]] == ["0.1.0"]
    assert "Training" in cli("vocabulary", "Workflow_Type", "--json", *location).json["Workflow_Type"]
    assert cli("show", dataset.rid, "--json", *location).json["version"] == "0.1.0"
    (sent,) = cli("upload", "--json", *location).json["executions"]
    assert [each["filename"] for each in sent["sent"]] == ["late.pt"]
    assert cli("storage", "--json", *location).json["tables"][0]["files"] > 0
    may_go = cli("cleanup", "--json", "--yes", *location).json["may_go"]
    assert [each["name"] for each in may_go] == [exe.execution_rid]
    assert cli("config", "--json", *location).json["embedded"] is False
    assert cli("doctor", *location).code == 0


def test_parallel_uploads(cli, server: DerivaServer, run, location: tuple[str, ...]) -> None:
    """--workers sets the number of parallel uploads; 0 exits with 2."""
    exe = run("one", ["one.pt"])
    for name in "abcd":
        exe.asset_file_path("Model", f"{name}.pt").write_text(name)
    met = Barrier(3, timeout=HANG)
    server.faults.add(Fault(Harm.call, "PUT", "/hatrac/Model/", times=3, skip=1, call=met.wait))  # the first goes alone
    assert cli("upload", "--workers", "0", *location).code == 2
    (sent,) = cli("upload", "--workers", "3", "--json", *location).json["executions"]
    assert (len(sent["sent"]), sent["error"]) == (4, None)
    assert not met.broken


ORDER = ("git init", "git add", "git commit", "git remote add origin <url>")
"""Commands that others require."""

REPLACED = {
    "DerivaML(...)": "DerivaML()",
    "DerivaML('file:<folder>')": "DerivaML('file:another')",
    "DerivaML('server.org', '1')": "DerivaML(hostname, '1')",
    "DerivaML(..., credential={{'bearer-token': ...}})": "DerivaML(hostname, 1, credential={{'bearer-token': token}})",
    "DerivaML.create(...)": "DerivaML.create(hostname, project_name)",
    "DerivaML.create(hostname, project_name, catalog_id=...)": "DerivaML.create(hostname, project_name, catalog_id=1)",
    "DerivaML.create({address.hostname!r}, project_name=...)": "DerivaML.create(hostname, project_name='demo')",
    # tests/s3 and tests/postgres run these with a store
    "DerivaML.create({database_uri!r}, store=...)": "DerivaML.create(hostname, project_name)",
    "deriva-ml init --host {shlex.quote(database_uri)} --store ADDRESS": "deriva-ml init --help",
    "DerivaML.create({address!r}, store=...)": "DerivaML.create(hostname, project_name)",
    "DerivaML({catalog!r}, store={address!r})": "DerivaML()",
    "deriva-ml init --host {shlex.quote(address)} --store ADDRESS": "deriva-ml init --help",
    "ml.create_execution(...)": "ml.create_execution(configuration)",
    "deriva-ml reproduce RID": "deriva-ml reproduce 1-4A2C --help",  # the code of a run, which another test rebuilds
    "deriva-globus-auth-utils login --host {host}": "deriva-globus-auth-utils login --host {host} --help",
    "deriva-ml baseline RID": "deriva-ml baseline",
    "{connection.command('abort', rid)}": "{connection.command('abort', rid)} --help",  # another message aborts the run
    "make demo": f"make --dry-run --directory {shlex.quote(str(Path(__file__).parents[2]))} demo",
    "git add": "git add .",
    "git commit": "git commit --allow-empty --message x",
    "git remote add origin <url>": "git remote add origin ../remote.git",
    "git push": "git push origin HEAD",
    "git config --global --add safe.directory <its folder>": "git config --global --add safe.directory /data",
    "git lfs pull": "git --version",  # an extension that need not be installed
}
"""What a reader puts in place of the parts of a command that a message leaves open."""


class NamedExecution(str):
    """The RID of an execution, and an object that has it: messages name an execution by either."""

    @property
    def rid(self) -> str:
        return str(self)


def test_commands_in_messages(
    server: DerivaServer,
    ml: DerivaML,
    run,
    config: ExecutionConfiguration,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every command and call that a message names works as printed, for a catalog on a server too."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("GIT_AUTHOR_NAME", "A")
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "A")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@example.org")
    ended = run("one", ["one.pt"])
    ended.asset_file_path("Model", "late.pt").write_text("late")
    subprocess.run(["git", "init", "--quiet", "--bare", tmp_path / "remote.git"], check=True)
    unfinished = ml.create_execution(config).execution_rid
    values = {
        "DerivaML": DerivaML,
        "ml": ml,
        "connection": ml.connection,
        "source": ml.connection,
        "self": SimpleNamespace(
            _connection=ml.connection,
            connection=ml.connection,
            _execution=ended.execution_rid,
            execution_rid=ended.execution_rid,
            path=ended.working_dir / "journal.jsonl",
        ),
        "asset": SimpleNamespace(path=ended.asset_file_path("Model", "forgotten.pt")),
        "execution": ended,
        "selection": SimpleNamespace(execution=run("two", ["two.pt"]).execution_rid),
        "command": "tag",
        "arguments": ("paper",),
        "configuration": config,
        "workflow": config.workflow,
        "row": {"RID": ended.workflow_rid},
        "rid": unfinished,
        "host": f"file:{tmp_path / 'a new one'}",
        "hostname": server.hostname,
        "project_name": "demo",
        "token": "test1",
        "server": SimpleNamespace(url=server.hostname),
        "number": 1,
        "table": "Model",
        "vocabulary": "Dataset_Type",
        "workflow_type": "Training",
        "description": "d",
        "shlex": shlex,
        "address": ml.connection.address,
    }
    execution = NamedExecution(ended.execution_rid)
    templates = sorted({each.text for each in collect_templates()} - {"DerivaML({', '.join(arguments)})"})
    assert len(templates) >= 33
    # a user has activated the environment of these tests
    monkeypatch.setenv("PATH", f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}")
    failures = []
    for number, template in enumerate([*ORDER, *(text for text in templates if text not in ORDER)]):
        names = {**values, "name": f"New_{number}", "execution": execution}
        text = fill_in(REPLACED.get(template, template), names)
        try:
            if re.match(r"deriva-|make |git ", text):
                answer = subprocess.run(shlex.split(text), input="y\n", capture_output=True, text=True, check=False)
                if answer.returncode and answer.stderr:  # the exit code of `deriva-ml status` tells the status
                    failures.append(f"{template} as {text}: {answer.stderr[-500:]}")
            else:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DerivaMLWarning)  # where the code of this test is
                    eval(text, names)
        except Exception as error:
            failures.append(f"{template} as {text}: {error!r}")
    assert not failures, "\n".join(failures)


def test_expired_login(cli, server: DerivaServer, location: tuple[str, ...]) -> None:
    """An expired login prints how to log in and exits with 1."""
    server.log_out("test1")
    result = cli("list", *location)
    assert result.code == 1
    assert "log in" in result.stderr.lower()


def test_init_on_server(cli, server: DerivaServer) -> None:
    """`init` creates a catalog whose printed number works in the next command."""
    made = cli("init", "--host", server.hostname, "--project", "scans", "--json").json
    assert "Execution" in made["tables"]
    assert cli("list", "--host", server.hostname, "--catalog", made["number"], "--json").json["executions"] == []


@pytest.mark.filterwarnings("ignore:`isinstance\\(treespec, LeafSpec\\)`")  # Lightning 2.6 with torch 2.13
def test_push_training_to_server(cli, server: DerivaServer, ml: DerivaML, location: tuple[str, ...]) -> None:
    """A training that was recorded offline looks the same on the server after a push, curves included."""
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
    pushed = cli("push", rid, "--to", server.hostname, "--to-catalog", location[3], "--json").json
    here = cli("show", rid, "--json").json
    found = cli("show", pushed["execution"], "--json", *location).json
    fields = ("status", "duration_seconds", "started", "stopped", "timeline", "metrics", "fits", "environment")
    assert {name: found[name] for name in fields} == {name: here[name] for name in fields}
    assert len(found["fits"]) == 1
    beside = ("journal.jsonl",)
    files = [
        {(each["table"], each["filename"], each["md5"]) for each in run["outputs"] if each["filename"] not in beside}
        for run in (here, found)
    ]
    assert files[0] < files[1]
    assert {table for table, _, _ in files[0]} >= {"Model", "Execution_Metadata"}
    assert [each.execution_rid for each in ml.find_executions()] == [pushed["execution"]]
