"""``deriva-ml export``: a run as an RO-Crate and as PROV, read back by the libraries of those who made the formats."""

from __future__ import annotations

import hashlib
import json
import resource
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rocrate", reason="the extra export is not installed")
pytest.importorskip("prov", reason="the extra export is not installed")

from prov.model import ProvActivity, ProvAgent, ProvDocument, ProvEntity
from rocrate.rocrate import ROCrate

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.models import DatasetSpec, Progress
from deriva_ml_core.workflow import Workflow

PROCESS, WORKFLOW = "https://w3id.org/ro/wfrun/process/0.5", "https://w3id.org/ro/wfrun/workflow/0.5"
SCRIPT = ("File", "SoftwareSourceCode", "ComputationalWorkflow")


@pytest.fixture
def trained(ml: DerivaML, run, config: ExecutionConfiguration) -> Execution:
    """A run with a file and a dataset that went in, settings, metrics, and a file and a dataset that came out."""
    (model,) = [each for each in run("First", ["old model.pt"]).list_assets("Output") if each.table == "Model"]
    dataset = ml.create_dataset("Scans", "Training")
    settings = {"lr": 0.1, "password": "hunter22", "model": {"layers": [1, 2], "deep": True}}
    given = config.model_copy(
        update={"datasets": [DatasetSpec(rid=dataset.rid)], "assets": [model.rid], "parameters": settings}
    )
    with ml.create_execution(given) as exe:
        exe.update_status(Status.running, "1", progress=Progress(epoch=1, metrics={"val_loss": 0.5}))
        exe.asset_file_path("Model", "sub/best ü #1.pt").write_text("weights")
        exe.create_dataset("Made")
    exe.upload_execution_outputs()
    return exe


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def kinds(entity: Any) -> set[str]:
    return set(listed(entity["@type"]))


def check_rules(crate: Path) -> dict[str, dict[str, Any]]:
    """Hold a crate against what RO-Crate 1.1 and the profiles that it claims say it MUST; returns its entities."""
    text = json.loads((crate / "ro-crate-metadata.json").read_text(encoding="utf-8"))
    assert listed(text["@context"])[0] == "https://w3id.org/ro/crate/1.1/context"
    graph: dict[str, dict[str, Any]] = {each["@id"]: each for each in text["@graph"]}
    assert len(graph) == len(text["@graph"]), "an @id stands twice"
    descriptor, root = graph["ro-crate-metadata.json"], graph["./"]
    assert {"@id": "https://w3id.org/ro/crate/1.1"} in listed(descriptor["conformsTo"])
    assert (descriptor["about"], "Dataset" in kinds(root)) == ({"@id": "./"}, True)
    assert all(root[name] for name in ("name", "description", "datePublished", "license"))
    parts = {each["@id"] for each in listed(root["hasPart"])}
    for identifier, entity in graph.items():
        assert "@type" in entity
        if "File" in kinds(entity) and entity is not descriptor:
            assert identifier in parts
            assert "://" in identifier or (crate / Path(identifier)).is_file() or "%" in identifier
        for value in (one for values in entity.values() for one in listed(values)):
            assert not isinstance(value, dict) or set(value) == {"@id"}, "entities are flat"
    claimed = {each["@id"] for each in listed(root["conformsTo"])}
    assert PROCESS in claimed
    assert all(kinds(graph[each]) == {"CreativeWork"} for each in claimed)
    actions = [each for each in graph.values() if "CreateAction" in kinds(each)]
    assert {each["@id"] for each in actions} <= {each["@id"] for each in listed(root["mentions"])}
    for action in actions:
        assert kinds(graph[action["instrument"]["@id"]]) & {"SoftwareApplication", "SoftwareSourceCode", SCRIPT[2]}
    if WORKFLOW in claimed:
        main = graph[root["mainEntity"]["@id"]]
        assert kinds(main) >= set(SCRIPT)
        assert "ComputerLanguage" in kinds(graph[main["programmingLanguage"]["@id"]])
        assert root["mainEntity"] in [each["instrument"] for each in actions]
        for parameter in (graph[each["@id"]] for each in listed(main.get("input", []))):
            assert kinds(parameter) == {"FormalParameter"}
            assert parameter["additionalType"]
            assert "PropertyValue" in kinds(graph[parameter["workExample"]["@id"]])
    return graph


def action_of(graph: dict[str, dict[str, Any]]) -> dict[str, Any]:
    (action,) = [each for each in graph.values() if "CreateAction" in kinds(each)]
    return action


def test_a_crate_keeps_the_rules(ask, trained: Execution, tmp_path: Path) -> None:
    """What the specification and its profiles say that a crate must, holds, whatever is included."""
    for files in ("none", "records", "outputs", "all"):
        said = ask("export", trained.execution_rid, "--files", files, "--into", str(tmp_path / files))
        assert said.code == 0, said.complaint
        check_rules(tmp_path / files)


def test_the_library_reads_it_back(ask, ml: DerivaML, trained: Execution, tmp_path: Path) -> None:
    """The library finds the action with what went in and came out, who ran it, when, and how it ended."""
    assert ask("export", trained.execution_rid, "--files", "all", "--into", str(tmp_path / "crate")).code == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        crate = ROCrate(tmp_path / "crate")
    action = crate.mainEntity and crate.root_dataset["mentions"]
    assert action.id == trained.url
    assert (action["name"], action["actionStatus"]) == ("A test", "http://schema.org/CompletedActionStatus")
    assert action["startTime"] < action["endTime"]
    assert action["agent"].type == "Person"
    assert action["instrument"].id == "https://github.com/org/repo/blob/abc/train.py"
    went_in = {each["name"]: each for each in action["object"]}
    assert went_in.keys() == {"old model.pt", "Scans", "lr", "password", "model.layers", "model.deep"}
    assert went_in["lr"]["value"] == 0.1
    assert went_in["Scans"]["version"] == "0.1.0"
    came_out = {each["name"]: each for each in action["result"]}
    assert came_out.keys() == {"sub/best ü #1.pt", "Made", "val_loss, last (fit)", "val_loss, best (fit)"}
    model = came_out["sub/best ü #1.pt"]
    assert (model["contentSize"], model["md5"]) == ("7", hashlib.md5(b"weights").hexdigest())
    assert model["sha256"] == hashlib.sha256(b"weights").hexdigest()
    (file,) = (tmp_path / "crate" / "outputs").rglob("*.pt")
    assert file.read_text() == "weights"
    assert "configuration.json" in {each["name"] for each in action["subjectOf"]}


def test_no_secret_leaves(ask, trained: Execution, tmp_path: Path) -> None:
    """A secret among the settings is in no file of the crate."""
    ask("export", trained.execution_rid, "--files", "all", "--into", str(tmp_path / "crate"))
    written = b"".join(file.read_bytes() for file in (tmp_path / "crate").rglob("*") if file.is_file())
    assert b"password" in written
    assert b"hunter22" not in written


def test_folders_stay_at_home(
    ask, ml: DerivaML, config: ExecutionConfiguration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies in the crate is not also named by this machine's folder, nor do variables name folders of it."""
    monkeypatch.setenv("TORCH_HOME", "/home/ada/torch")
    monkeypatch.setenv("TORCH_LOGS", "dynamo")
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Model", "m.pt").write_text("m")
    exe.upload_execution_outputs()
    assert ask("export", exe.execution_rid, "--files", "all", "--into", str(tmp_path / "crate")).code == 0
    graph = check_rules(tmp_path / "crate")
    assert not [each for each in graph.values() if "contentUrl" in each]
    assert "#variable-TORCH_LOGS" in graph
    assert "/home/ada" not in (tmp_path / "crate" / "ro-crate-metadata.json").read_text()


def test_an_archive(ask, trained: Execution, tmp_path: Path) -> None:
    """With --zip it is one file, which holds what the folder would."""
    target = tmp_path / "run.zip"
    assert ask("export", trained.execution_rid, "--zip", "--into", str(target)).code == 0
    with zipfile.ZipFile(target) as archive:
        archive.extractall(tmp_path / "out")
    graph = check_rules(tmp_path / "out")
    assert action_of(graph)["identifier"] == trained.execution_rid


def test_no_half_of_a_crate(ask, run, tmp_path: Path) -> None:
    """A crate for which there is no room leaves nothing behind, and can be written again."""
    rid = run("many", [f"{number}.pt" for number in range(40)]).execution_rid
    words = ("export", rid, "--files", "none", "--into", str(tmp_path / "new" / "crate"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # less than the description of all has
    try:
        said = ask(*words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (said.code, "too large" in said.complaint) == (1, True)
    assert list((tmp_path / "new").iterdir()) == []
    assert ask(*words).code == 0


def test_a_licence(ask, trained: Execution, tmp_path: Path) -> None:
    """The licence is the one that is given; without one, it is said that nobody stated any."""
    named = "https://spdx.org/licenses/CC-BY-4.0"
    ask("export", trained.execution_rid, "--license", named, "--into", str(tmp_path / "a"))
    ask("export", trained.execution_rid, "--into", str(tmp_path / "b"))
    found = [check_rules(tmp_path / name) for name in ("a", "b")]
    assert found[0]["./"]["license"] == {"@id": named}
    assert "Not stated" in found[1][found[1]["./"]["license"]["@id"]]["name"]


def test_a_run_that_failed(ask, ml: DerivaML, config: ExecutionConfiguration, tmp_path: Path) -> None:
    """How it failed is told, in both formats."""
    with pytest.raises(ValueError), ml.create_execution(config) as exe:
        raise ValueError("too bad")
    exe.upload_execution_outputs()
    ask("export", exe.execution_rid, "--into", str(tmp_path / "crate"))
    action = action_of(check_rules(tmp_path / "crate"))
    assert action["actionStatus"] == "http://schema.org/FailedActionStatus"
    assert action["error"] == "ValueError: too bad"
    assert "ValueError: too bad" in ask("export", exe.execution_rid, "-f", "prov-json").out


def test_the_code_that_ran(ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of code is in the crate with the bytes that ran, though it has changed since; who ran it has a name."""
    repo = tmp_path / "repo"
    repo.mkdir()
    code = (
        "from deriva_ml_core.client import DerivaML\n"
        "from deriva_ml_core.execution import ExecutionConfiguration\n"
        "ml = DerivaML()\n"
        "config = ExecutionConfiguration(workflow=ml.create_workflow('W', 'Training'), description='From a script')\n"
        "with ml.create_execution(config) as exe: print(exe.execution_rid)\n"
        "exe.upload_execution_outputs()\n"
    )
    (repo / "train.py").write_text(code)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "none"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for words in (
        ("init", "-q"),
        ("config", "user.name", "Ada L"),
        ("config", "user.email", "ada@example.org"),
        ("remote", "add", "origin", "https://github.com/org/repo.git"),
        ("add", "."),
        ("commit", "-qm", "x"),
    ):
        subprocess.run(["git", *words], cwd=repo, check=True, timeout=60)
    done = subprocess.run(
        [sys.executable, "train.py"], cwd=repo, check=True, timeout=250, text=True, stdout=-1, stderr=subprocess.DEVNULL
    )
    (repo / "train.py").write_text("something else")
    assert ask("export", done.stdout.strip(), "--into", str(tmp_path / "crate")).code == 0
    graph = check_rules(tmp_path / "crate")
    assert (tmp_path / "crate" / "code" / "train.py").read_text() == code
    main = graph["code/train.py"]
    assert main["url"].startswith("https://github.com/org/repo/blob/")
    assert main["identifier"].startswith("swh:1:cnt:")
    agent = graph[action_of(graph)["agent"]["@id"]]
    assert (agent["name"], agent["email"]) == ("Ada L", "ada@example.org")


def test_a_container(ask, ml: DerivaML, tmp_path: Path) -> None:
    """Of a run in a container the image is named; no file of code is claimed."""
    digest = "sha256:" + "ab" * 32
    workflow = Workflow(
        name="In a box",
        workflow_type="Training",
        url=f"ghcr.io/org/repo@{digest}",
        checksum=digest,
    )
    with ml.create_execution(ExecutionConfiguration(workflow=workflow)) as exe:
        pass
    exe.upload_execution_outputs()
    (snapshot,) = (exe.working_dir / "records").glob("environment_snapshot_*")
    told = json.loads(snapshot.read_text())
    snapshot.write_text(json.dumps({**told, "source": {**told["source"], "kind": "container"}}))
    ask("export", exe.execution_rid, "--into", str(tmp_path / "crate"))
    graph = check_rules(tmp_path / "crate")
    image = graph[action_of(graph)["containerImage"]["@id"]]
    assert (image["registry"], image["name"], image["sha256"]) == ("ghcr.io", "org/repo", "ab" * 32)
    assert "mainEntity" not in graph["./"]


def test_prov(ask, trained: Execution, tmp_path: Path) -> None:
    """The library for PROV reads what is printed: what was used, generated, by whom, and by what plan."""
    said = ask("export", trained.execution_rid, "--format", "prov-json")
    document = ProvDocument.deserialize(content=said.out, format="json")
    (activity,) = document.get_records(ProvActivity)
    assert str(activity.identifier.uri) == trained.url
    assert activity.get_startTime() < activity.get_endTime()
    told = json.loads(said.out)
    entities = document.get_records(ProvEntity)
    labels = {str(each.identifier): str(next(iter(each.get_attribute("prov:label")))) for each in entities}
    used = {labels[each["prov:entity"]] for each in told["used"].values()}
    assert used == {"old model.pt", "Scans"}
    generated = {labels[each["prov:entity"]] for each in told["wasGeneratedBy"].values()}
    assert {"sub/best ü #1.pt", "Made", "configuration.json"} <= generated
    plans = {labels[each["prov:plan"]] for each in told["wasAssociatedWith"].values() if "prov:plan" in each}
    assert plans == {"Test"}
    assert len(list(document.get_records(ProvAgent))) == 2
    ask("export", trained.execution_rid, "--format", "prov-json", "--into", str(tmp_path / "run.json"))
    assert ProvDocument.deserialize(str(tmp_path / "run.json"), format="json") == document


def test_wrong_use(ask, trained: Execution, ml: DerivaML, tmp_path: Path) -> None:
    """What is no execution, a place that is taken, and options of the other format are told, each with its code."""
    rid = trained.execution_rid
    (model,) = [each for each in trained.list_assets("Output") if each.table == "Model"]
    assert ask("export", "9-ZZZZ").code == 2
    assert ask("export", model.rid, "--into", str(tmp_path / "new")).code == 2
    assert not (tmp_path / "new").exists()
    taken = ask("export", rid, "--into", str(tmp_path))
    assert taken.code == 1
    assert "--into" in taken.complaint
    assert ask("export", rid, "--format", "prov-json", "--zip").code == 2
    assert ask("export", rid, "--format", "bagit").code == 2
