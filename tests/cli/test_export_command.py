"""``deriva-ml export``: the results are read back by the reference libraries of RO-Crate and PROV."""

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
    """A run with an input file and dataset, parameters, metrics, and an output file and dataset."""
    (model,) = [each for each in run("First", ["old model.pt"]).list_assets("Output") if each.table == "Model"]
    dataset = ml.create_dataset("Scans", "Training")
    settings = {"lr": 0.1, "password": "hunter22", "model": {"layers": [1, 2], "deep": True}}
    configuration = config.model_copy(
        update={"datasets": [DatasetSpec(rid=dataset.rid)], "assets": [model.rid], "parameters": settings}
    )
    with ml.create_execution(configuration) as exe:
        exe.update_status(Status.running, "1", progress=Progress(epoch=1, metrics={"val_loss": 0.5}))
        exe.asset_file_path("Model", "sub/best ü #1.pt").write_text("weights")
        exe.create_dataset("Made")
    exe.upload_execution_outputs()
    return exe


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def types_of(entity: Any) -> set[str]:
    return set(as_list(entity["@type"]))


def check_rules(crate: Path) -> dict[str, dict[str, Any]]:
    """Check the MUST rules of RO-Crate 1.1 and of the crate's profiles, and return its entities by id."""
    text = json.loads((crate / "ro-crate-metadata.json").read_text(encoding="utf-8"))
    assert as_list(text["@context"])[0] == "https://w3id.org/ro/crate/1.1/context"
    graph: dict[str, dict[str, Any]] = {each["@id"]: each for each in text["@graph"]}
    assert len(graph) == len(text["@graph"]), "an @id occurs twice"
    descriptor, root = graph["ro-crate-metadata.json"], graph["./"]
    assert {"@id": "https://w3id.org/ro/crate/1.1"} in as_list(descriptor["conformsTo"])
    assert (descriptor["about"], "Dataset" in types_of(root)) == ({"@id": "./"}, True)
    assert all(root[name] for name in ("name", "description", "datePublished", "license"))
    parts = {each["@id"] for each in as_list(root["hasPart"])}
    for identifier, entity in graph.items():
        assert "@type" in entity
        if "File" in types_of(entity) and entity is not descriptor:
            assert identifier in parts
            assert "://" in identifier or (crate / Path(identifier)).is_file() or "%" in identifier
        for value in (one for values in entity.values() for one in as_list(values)):
            assert not isinstance(value, dict) or set(value) == {"@id"}, "entities are flat"
    claimed = {each["@id"] for each in as_list(root["conformsTo"])}
    assert PROCESS in claimed
    assert all(types_of(graph[each]) == {"CreativeWork"} for each in claimed)
    actions = [each for each in graph.values() if "CreateAction" in types_of(each)]
    assert {each["@id"] for each in actions} <= {each["@id"] for each in as_list(root["mentions"])}
    for action in actions:
        assert types_of(graph[action["instrument"]["@id"]]) & {"SoftwareApplication", "SoftwareSourceCode", SCRIPT[2]}
    if WORKFLOW in claimed:
        main = graph[root["mainEntity"]["@id"]]
        assert types_of(main) >= set(SCRIPT)
        assert "ComputerLanguage" in types_of(graph[main["programmingLanguage"]["@id"]])
        assert root["mainEntity"] in [each["instrument"] for each in actions]
        for parameter in (graph[each["@id"]] for each in as_list(main.get("input", []))):
            assert types_of(parameter) == {"FormalParameter"}
            assert parameter["additionalType"]
            assert "PropertyValue" in types_of(graph[parameter["workExample"]["@id"]])
    return graph


def get_action(graph: dict[str, dict[str, Any]]) -> dict[str, Any]:
    (action,) = [each for each in graph.values() if "CreateAction" in types_of(each)]
    return action


def test_crate_conforms_to_profiles(cli, trained: Execution, tmp_path: Path) -> None:
    """A crate follows the MUST rules of its profiles for every value of --files."""
    for files in ("none", "records", "outputs", "all"):
        result = cli("export", trained.execution_rid, "--files", files, "--into", str(tmp_path / files))
        assert result.code == 0, result.stderr
        check_rules(tmp_path / files)


def test_crate_content(cli, ml: DerivaML, trained: Execution, tmp_path: Path) -> None:
    """The library reads the action with its inputs, outputs, person, times and status."""
    assert cli("export", trained.execution_rid, "--files", "all", "--into", str(tmp_path / "crate")).code == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        crate = ROCrate(tmp_path / "crate")
    action = crate.mainEntity and crate.root_dataset["mentions"]
    assert action.id == trained.url
    assert (action["name"], action["actionStatus"]) == ("A test", "http://schema.org/CompletedActionStatus")
    assert action["startTime"] < action["endTime"]
    assert action["agent"].type == "Person"
    assert action["instrument"].id == "https://github.com/org/repo/blob/abc/train.py"
    inputs = {each["name"]: each for each in action["object"]}
    assert inputs.keys() == {"old model.pt", "Scans", "lr", "password", "model.layers", "model.deep"}
    assert inputs["lr"]["value"] == 0.1
    assert inputs["Scans"]["version"] == "0.1.0"
    outputs = {each["name"]: each for each in action["result"]}
    assert outputs.keys() == {"sub/best ü #1.pt", "Made", "val_loss, last (fit)", "val_loss, best (fit)"}
    model = outputs["sub/best ü #1.pt"]
    assert (model["contentSize"], model["md5"]) == ("7", hashlib.md5(b"weights").hexdigest())
    assert model["sha256"] == hashlib.sha256(b"weights").hexdigest()
    (file,) = (tmp_path / "crate" / "outputs").rglob("*.pt")
    assert file.read_text() == "weights"
    assert "configuration.json" in {each["name"] for each in action["subjectOf"]}


def test_no_secrets_in_crate(cli, trained: Execution, tmp_path: Path) -> None:
    """A secret parameter is in no file of the crate."""
    cli("export", trained.execution_rid, "--files", "all", "--into", str(tmp_path / "crate"))
    written = b"".join(file.read_bytes() for file in (tmp_path / "crate").rglob("*") if file.is_file())
    assert b"password" in written
    assert b"hunter22" not in written


def test_no_local_folders_in_crate(
    cli, ml: DerivaML, config: ExecutionConfiguration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The crate names no folders of this machine, neither for its files nor in variables."""
    monkeypatch.setenv("TORCH_HOME", "/home/ada/torch")
    monkeypatch.setenv("TORCH_LOGS", "dynamo")
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Model", "m.pt").write_text("m")
    exe.upload_execution_outputs()
    assert cli("export", exe.execution_rid, "--files", "all", "--into", str(tmp_path / "crate")).code == 0
    graph = check_rules(tmp_path / "crate")
    assert not [each for each in graph.values() if "contentUrl" in each]
    assert "#variable-TORCH_LOGS" in graph
    assert "/home/ada" not in (tmp_path / "crate" / "ro-crate-metadata.json").read_text()


def test_zip_archive(cli, trained: Execution, tmp_path: Path) -> None:
    """With --zip the crate is one archive with the same content."""
    target = tmp_path / "run.zip"
    assert cli("export", trained.execution_rid, "--zip", "--into", str(target)).code == 0
    with zipfile.ZipFile(target) as archive:
        archive.extractall(tmp_path / "out")
    graph = check_rules(tmp_path / "out")
    assert get_action(graph)["identifier"] == trained.execution_rid


def test_full_disk(cli, run, tmp_path: Path) -> None:
    """A crate that exceeds the disk leaves nothing behind, and can be written again."""
    rid = run("many", [f"{number}.pt" for number in range(40)]).execution_rid
    args = ("export", rid, "--files", "none", "--into", str(tmp_path / "new" / "crate"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # smaller than the description
    try:
        result = cli(*args)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (result.code, "too large" in result.stderr) == (1, True)
    assert list((tmp_path / "new").iterdir()) == []
    assert cli(*args).code == 0


def test_licence(cli, trained: Execution, tmp_path: Path) -> None:
    """The licence is the given one; without --license the crate states that none is known."""
    licence = "https://spdx.org/licenses/CC-BY-4.0"
    cli("export", trained.execution_rid, "--license", licence, "--into", str(tmp_path / "a"))
    cli("export", trained.execution_rid, "--into", str(tmp_path / "b"))
    found = [check_rules(tmp_path / name) for name in ("a", "b")]
    assert found[0]["./"]["license"] == {"@id": licence}
    assert "Not stated" in found[1][found[1]["./"]["license"]["@id"]]["name"]


def test_failed_run(cli, ml: DerivaML, config: ExecutionConfiguration, tmp_path: Path) -> None:
    """Both formats contain the error of a failed run."""
    with pytest.raises(ValueError), ml.create_execution(config) as exe:
        raise ValueError("too bad")
    exe.upload_execution_outputs()
    cli("export", exe.execution_rid, "--into", str(tmp_path / "crate"))
    action = get_action(check_rules(tmp_path / "crate"))
    assert action["actionStatus"] == "http://schema.org/FailedActionStatus"
    assert action["error"] == "ValueError: too bad"
    assert "ValueError: too bad" in cli("export", exe.execution_rid, "-f", "prov-json").stdout


def test_crate_has_the_code_that_ran(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The crate has the code as it ran, though the file changed later, and the person's name."""
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
    for args in (
        ("init", "-q"),
        ("config", "user.name", "Ada L"),
        ("config", "user.email", "ada@example.org"),
        ("remote", "add", "origin", "https://github.com/org/repo.git"),
        ("add", "."),
        ("commit", "-qm", "x"),
    ):
        subprocess.run(["git", *args], cwd=repo, check=True)
    done = subprocess.run(
        [sys.executable, "train.py"], cwd=repo, check=True, text=True, stdout=-1, stderr=subprocess.DEVNULL
    )
    (repo / "train.py").write_text("something else")
    assert cli("export", done.stdout.strip(), "--into", str(tmp_path / "crate")).code == 0
    graph = check_rules(tmp_path / "crate")
    assert (tmp_path / "crate" / "code" / "train.py").read_text() == code
    main = graph["code/train.py"]
    assert main["url"].startswith("https://github.com/org/repo/blob/")
    assert main["identifier"].startswith("swh:1:cnt:")
    agent = graph[get_action(graph)["agent"]["@id"]]
    assert (agent["name"], agent["email"]) == ("Ada L", "ada@example.org")


def test_container_run(cli, ml: DerivaML, tmp_path: Path) -> None:
    """A run in a container has an image and no file of code."""
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
    content = json.loads(snapshot.read_text())
    snapshot.write_text(json.dumps({**content, "source": {**content["source"], "kind": "container"}}))
    cli("export", exe.execution_rid, "--into", str(tmp_path / "crate"))
    graph = check_rules(tmp_path / "crate")
    image = graph[get_action(graph)["containerImage"]["@id"]]
    assert (image["registry"], image["name"], image["sha256"]) == ("ghcr.io", "org/repo", "ab" * 32)
    assert "mainEntity" not in graph["./"]


def test_prov_json(cli, trained: Execution, tmp_path: Path) -> None:
    """The PROV library reads used and generated entities, agents and the plan."""
    result = cli("export", trained.execution_rid, "--format", "prov-json")
    document = ProvDocument.deserialize(content=result.stdout, format="json")
    (activity,) = document.get_records(ProvActivity)
    assert str(activity.identifier.uri) == trained.url
    assert activity.get_startTime() < activity.get_endTime()
    content = json.loads(result.stdout)
    entities = document.get_records(ProvEntity)
    labels = {str(each.identifier): str(next(iter(each.get_attribute("prov:label")))) for each in entities}
    used = {labels[each["prov:entity"]] for each in content["used"].values()}
    assert used == {"old model.pt", "Scans"}
    generated = {labels[each["prov:entity"]] for each in content["wasGeneratedBy"].values()}
    assert {"sub/best ü #1.pt", "Made", "configuration.json"} <= generated
    plans = {labels[each["prov:plan"]] for each in content["wasAssociatedWith"].values() if "prov:plan" in each}
    assert plans == {"Test"}
    assert len(list(document.get_records(ProvAgent))) == 2
    cli("export", trained.execution_rid, "--format", "prov-json", "--into", str(tmp_path / "run.json"))
    assert ProvDocument.deserialize(str(tmp_path / "run.json"), format="json") == document


def test_invalid_usage(cli, trained: Execution, ml: DerivaML, tmp_path: Path) -> None:
    """Other rows, existing paths and options of the other format are rejected, each with its exit code."""
    rid = trained.execution_rid
    (model,) = [each for each in trained.list_assets("Output") if each.table == "Model"]
    assert cli("export", "9-ZZZZ").code == 2
    assert cli("export", model.rid, "--into", str(tmp_path / "new")).code == 2
    assert not (tmp_path / "new").exists()
    taken = cli("export", rid, "--into", str(tmp_path))
    assert taken.code == 1
    assert "--into" in taken.stderr
    assert cli("export", rid, "--format", "prov-json", "--zip").code == 2
    assert cli("export", rid, "--format", "bagit").code == 2
