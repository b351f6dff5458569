"""Secrets are never written: planted in all inputs of a run, they appear in none of its outputs."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import git
import pytest

AUTHOR = git.Actor("Reader", "reader@example.org")

SCRIPT = """
import json, logging, os, sys

logging.basicConfig(level=logging.DEBUG)  # all messages of all libraries

from deriva_ml import DerivaML, ExecutionConfiguration, Status

planted = json.loads(sys.stdin.read())
ml = DerivaML()
workflow = ml.create_workflow("Canary workflow", "Training")
config = ExecutionConfiguration(
    workflow=workflow, description=planted["description"], parameters=planted["parameters"]
)
failing = ml.create_execution(config)
try:
    with failing:
        failing.update_status(Status.running, planted["message"])
        failing.asset_file_path("Model", "half.pt").write_bytes(b"half")
        raise RuntimeError(planted["exception"])
except RuntimeError:
    failing.upload_execution_outputs()
with ml.create_execution(config) as exe:
    exe.asset_file_path("Model", "whole.pt").write_bytes(b"whole")
exe.upload_execution_outputs()
ml.restore_execution(failing.execution_rid)
print("canary of stdout", failing.status_detail)
"""


@dataclass
class SecretProject:
    """A project with planted secrets and a program.

    Args:
        folder: The folder of the project and its temporary files.
    """

    folder: Path
    secrets: dict[str, str] = field(default_factory=dict)

    @property
    def project(self) -> Path:
        return self.folder / "project"

    def secret(self, place: str) -> str:
        """Return a new secret for a place; it has no known form, so only its context identifies it."""
        self.secrets[place] = f"Hunter{len(self.secrets):02}zQ{place.title().replace(' ', '')}9x"
        return self.secrets[place]

    def url(self, place: str) -> str:
        return f"https://canary-user:{self.secret(place)}@service.example.org/canary-path"

    def create_project(self) -> None:
        """Create a repository whose remote, uncommitted changes and untracked files contain secrets."""
        self.project.mkdir()
        (self.project / "train.py").write_text(SCRIPT)
        (self.project / "settings.py").write_text("RATE = 0.1\n")
        (self.project / "notes.py").write_text("NOTE = 'none'\n")
        sources = f'{{"_meta": {{"sources": [{{"url": "{self.url("lock file")}"}}], "canary": "of lock"}}}}'
        (self.project / "Pipfile.lock").write_text(sources)
        with git.Repo.init(self.project) as repository:
            address = f"https://reader:{self.secret('remote')}@github.com/reader/canary-remote.git"
            repository.create_remote("origin", address)
            repository.git.add(all=True)
            repository.index.commit("All", author=AUTHOR, committer=AUTHOR)
        (self.project / "notes.py").write_text("NOTE = 'canary of the patch'\n")
        (self.project / "settings.py").write_text(f'RATE = 0.1\nAPI_KEY = "{self.secret("changed file")}"\n')
        (self.project / "service.yaml").write_text(f"password: {self.secret('untracked file')}\n")
        (self.project / ".env").write_text(f"ANYTHING={self.secret('env file')}\n")

    def environ(self) -> dict[str, str]:
        """Return an environment with secrets by name and by form, in recorded and other variables."""
        names = (
            *("HF_TOKEN", "WANDB_API_KEY", "DERIVA_PASSWORD", "LIGHTNING_API_KEY", "SLURM_JWT", "TORCH_AUTH_TOKEN"),
            *("AWS_SECRET_ACCESS_KEY", "DATABASE_PASSWORD", "GITHUB_TOKEN", "MY_SERVICE_TOKEN"),
        )
        planted = {name: self.secret(f"variable {name}") for name in names}
        planted |= {"UV_INDEX_URL": self.url("variable by form"), "CUDA_VISIBLE_DEVICES": "canary of variables"}
        # none of the runner's own variables, since its tokens must not be written either
        inherited = {
            name: os.environ[name]
            for name in ("PATH", "PYTHONPATH", "HOME", "LANG", "DERIVA_ML_HOME")
            if name in os.environ
        }
        return {**inherited, **planted, "TMPDIR": str(self.folder / "tmp")}

    def arguments(self) -> list[str]:
        return [
            *(
                "--name",
                "canary of argv",
                "--api-key",
                self.secret("option"),
                f"--db-password={self.secret('option=')}",
            ),
            *(f"wandb.api_key={self.secret('override')}"),
            *("--url", self.url("argument by form")),
        ]

    def planted_values(self) -> dict[str, object]:
        parameters = {
            "canary": "of parameters",
            "api_key": self.secret("parameter"),
            "logger": {"credentials": {"user": "u", "key": self.secret("inner parameter")}},
            "stores": [{"token": self.secret("listed parameter")}, self.url("parameter by form")],
        }
        return {
            "parameters": parameters,
            "description": f"canary of description {self.url('description')}",
            "message": f"canary of message {self.url('message')}",
            "exception": f"canary of exception {self.url('exception')}",
        }

    def run(self) -> subprocess.CompletedProcess[bytes]:
        import json

        (self.folder / "tmp").mkdir()
        command = [sys.executable, "train.py", *self.arguments()]
        planted = json.dumps(self.planted_values()).encode()
        return subprocess.run(
            command, cwd=self.project, env=self.environ(), input=planted, capture_output=True, check=False
        )


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}


@pytest.fixture
def project(tmp_path: Path) -> SecretProject:
    created = SecretProject(tmp_path)
    created.create_project()
    return created


def test_planted_secrets_are_not_written(project: SecretProject, home: Path) -> None:
    """No secret is in the catalog, its log, the store, a working folder, a journal, a log or a warning."""
    done = project.run()
    output = {"stdout": done.stdout, "stderr": done.stderr}
    assert done.returncode == 0, done.stderr.decode()
    files = all_bytes(home) | all_bytes(project.folder / "tmp")
    assert len(project.secrets) > 20
    found = {
        (place, name)
        for place, secret in project.secrets.items()
        for name, content in (files | output).items()
        if secret.encode() in content
    }
    assert found == set()
    # text next to the secrets is found, so the search covers the right places
    everything = b"\n".join(files.values())
    places = ("argv", "description", "exception", "lock", "message", "parameters", "the patch", "variables")
    for canary in (*(f"canary of {place}" for place in places if place not in ("lock", "parameters")), "canary-remote"):
        assert canary.encode() in everything, canary
    for canary in (b'"canary": "of lock"', b'"canary": "of parameters"', b"service.example.org/canary-path"):
        assert canary in everything, canary
    assert b"canary of stdout" in done.stdout
    for name in ("settings.py", "service.yaml", ".env"):
        assert name.encode() in done.stderr, f"{name} is left out without a message"


@pytest.mark.parametrize("given", ["argument", "environment"])
def test_no_password_in_a_workflow_url(home: Path, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL is recorded without its password, and the workflow is looked up by the full URL."""
    from deriva_ml_core.client import DerivaML
    from deriva_ml_core.execution import ExecutionConfiguration
    from deriva_ml_core.workflow import Workflow

    url = "https://reader:Hunter2zQ@github.com/reader/project/blob/abc/train.py"
    monkeypatch.setenv("DERIVA_ML_WORKFLOW_URL", url)
    ml = DerivaML()
    workflow = Workflow(name="T", workflow_type="Training", url=url if given == "argument" else "")
    rids = {ml.create_execution(ExecutionConfiguration(workflow=workflow)).workflow_rid for _ in range(2)}
    assert len(rids) == 1
    ml.close()
    assert [name for name, content in all_bytes(home).items() if b"Hunter2zQ" in content] == []
    found = DerivaML().lookup_workflow_by_url(url)
    assert found.rid in rids
    assert found.url.endswith("@github.com/reader/project/blob/abc/train.py")


def test_descriptions_are_redacted(home: Path) -> None:
    """Descriptions of assets, datasets, versions, terms, tables and workflows lose their secrets, not the rest."""
    from deriva_ml_core.client import DerivaML
    from deriva_ml_core.execution import ExecutionConfiguration
    from deriva_ml_core.schema import Column
    from deriva_ml_core.workflow import Workflow

    ml, count = DerivaML(), 0

    def text() -> str:
        nonlocal count
        count += 1
        return f"canary {count} from mysql -phunter2zQ runs, password: hunter2zQ"

    ml.create_vocabulary("Colour", comment=text())
    ml.add_term("Colour", "red", text())
    ml.create_asset("Scan", columns=[Column("Source"), Column("Api_Key")], comment=text())
    dataset = ml.create_dataset(text(), ())
    dataset.increment_version("minor", text())
    ml.add_dataset_element_type("Colour")
    members = [row["RID"] for row in ml.select_rows("Colour")]
    dataset.add_dataset_members(members, text())
    dataset.delete_dataset_members(members, text())
    workflow = Workflow(name=text(), workflow_type="Training", url="https://example.org/t.py", checksum="c")
    with ml.create_execution(ExecutionConfiguration(workflow=workflow, description=text())) as exe:
        metadata = {"Description": text(), "Source": text(), "Api_Key": "hunter2zQ"}
        exe.asset_file_path("Scan", "a.png", **metadata).write_bytes(b"a")
        exe.create_dataset(description=text())
    exe.upload_execution_outputs()
    ml.lookup_workflow(exe.workflow_rid).description = text()
    ml.close()
    files = all_bytes(home)
    assert [name for name, content in files.items() if b"hunter2zQ" in content] == []
    everything = b"\n".join(files.values())
    assert [number for number in range(1, count + 1) if b"canary %d " % number not in everything] == []


def test_failed_creation_is_redacted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason in the row has no password."""
    from deriva_ml_core.client import DerivaML
    from deriva_ml_core.errors import DerivaMLException
    from deriva_ml_core.execution import ExecutionConfiguration
    from deriva_ml_core.plugins import hookimpl, load_plugins
    from deriva_ml_core.workflow import Workflow

    class Refusing:
        """A store whose error message contains a password."""

        def __init__(self, store: object) -> None:
            self._store = store

        def __getattr__(self, name: str) -> object:
            return getattr(self._store, name)

        def put(self, *_: object, **__: object) -> None:
            raise DerivaMLException("https://canary:Hunter2zQ@store.example.org refuses")

    class Plugin:
        @hookimpl(wrapper=True)
        def connect(self):  # type: ignore[no-untyped-def]
            from dataclasses import replace

            backend = yield
            return replace(backend, store=Refusing(backend.store))

    plugins = load_plugins({})
    plugins.register(Plugin())
    ml = DerivaML(plugins=plugins)
    workflow = Workflow(name="T", workflow_type="Training", url="https://example.org/t.py", checksum="c")
    with pytest.raises(DerivaMLException):
        ml.create_execution(ExecutionConfiguration(workflow=workflow))
    ml.close()
    files = all_bytes(home)
    assert [name for name, content in files.items() if b"Hunter2zQ" in content] == []
    assert any(b"store.example.org refuses" in content for content in files.values())
