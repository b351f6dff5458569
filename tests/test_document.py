"""Tests of tests/document/executions.md: every Python block runs as printed, and every statement is true.

Blocks get substitutes only for what they do not define: a host (a ``file:`` address), files, and the reader's
functions. The RIDs in the document exist in the catalog. The docstring of a statement's test starts with the statement.

Other tests cover notebooks (tests/core, tests/notebook) and ``deriva-ml-run`` (tests/runner).
tests/remote/test_document_on_server.py runs the same tests on a Deriva server, and tests/remote/test_deriva_store.py
tests timeouts and chunks.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import git
import pytest

import document_world
from deriva_ml import DerivaML, DerivaMLException, ExecutionConfiguration, Status, Workflow
from deriva_ml.dataset.aux_classes import DatasetSpec
from deriva_ml_core.errors import DerivaMLWarning, UploadFailed
from deriva_ml_core.execution import Execution
from pages import code_blocks
from waits import HANG

torch = pytest.importorskip("torch", reason="the document's examples save models of torch")

PAGE = Path(__file__).parent / "document" / "executions.md"
BLOCKS = code_blocks(PAGE, "python")
URL, CHECKSUM = "https://github.com/reader/project/blob/abc/train.py", "0" * 40

Names = dict[str, Any]


def block(section: str) -> str:
    """Return the Python block under a heading."""
    (code,) = code_blocks(PAGE, "python", section)
    return code


def catalog_number(host: str) -> str | None:
    """Return the number of the host's catalog, or None for an embedded catalog."""
    return getattr(host, "number", None)


@pytest.fixture(scope="module")
def document_catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a new catalog with everything that the document names."""
    folder = tmp_path_factory.mktemp("document") / "catalog"
    document_world.create_catalog(folder)
    return folder


@pytest.fixture
def host(document_catalog: Path, tmp_path: Path) -> str:
    """Return the address of a copy of the catalog."""
    return f"file:{shutil.copytree(document_catalog, tmp_path / 'catalog')}"


@pytest.fixture
def ml(host: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[DerivaML]:
    """Return a client for the catalog, with the source of the program set by environment variables."""
    monkeypatch.setenv("DERIVA_ML_WORKFLOW_URL", URL)
    monkeypatch.setenv("DERIVA_ML_WORKFLOW_CHECKSUM", CHECKSUM)
    with DerivaML(host, catalog_number(host)) as client:
        yield client


@pytest.fixture
def workflow(ml: DerivaML) -> Workflow:
    return ml.create_workflow(name="ResNet50 Training", workflow_type="Training")


@pytest.fixture
def config(workflow: Workflow) -> ExecutionConfiguration:
    return ExecutionConfiguration(workflow=workflow, datasets=[DatasetSpec(rid="1-ABC")], assets=["2-GHI"])


@pytest.fixture
def run(ml: DerivaML, workflow: Workflow, config: ExecutionConfiguration) -> Callable[..., Names]:
    """Return a function that runs a block with the global names of the blocks before it."""
    names: Names = {"ml": ml, "workflow": workflow, "config": config, "torch": torch, "json": json}
    names |= {"ExecutionConfiguration": ExecutionConfiguration, "DatasetSpec": DatasetSpec, "Workflow": Workflow}

    def run_block(code: str, **definitions: Any) -> Names:
        names.update(definitions)
        exec(compile(code, PAGE.name, "exec"), names)
        return names

    return run_block


def outputs(exe: Execution) -> dict[str, list[str]]:
    """Return the output files of an execution by table, without its records."""
    found: dict[str, list[str]] = {}
    for asset in exe.list_assets("Output"):
        if asset.asset_types[0] not in ("Deriva_Config", "Runtime_Env") and asset.filename != "journal.jsonl":
            found.setdefault(asset.table, []).append(asset.filename)
    return found


# Blocks


def test_every_block_is_tested() -> None:
    """A test below runs each Python block of the document."""
    source = Path(__file__).read_text(encoding="utf-8")
    tested = {block(section) for section in re.findall(r'\bblock\("([A-Z].+?)"\)', source)}
    assert tested == set(BLOCKS)
    assert len(BLOCKS) == 16


def test_create_workflow(run: Callable[..., Names]) -> None:
    """The block of "Creating a Workflow"."""
    workflow = run(block("Creating a Workflow"))["workflow"]
    assert (workflow.url, workflow.checksum, workflow.rid) == (URL, CHECKSUM, None)


def test_hydra_zen_configuration(run: Callable[..., Names]) -> None:
    """The block of "Implicit Workflow Creation" stores a configuration that instantiates a Workflow."""
    zen = pytest.importorskip("hydra_zen", reason="hydra-zen comes with the runners")
    run(block("Implicit Workflow Creation"))
    workflow = zen.instantiate(zen.store["workflow", "resnet_training"])
    assert isinstance(workflow, Workflow)
    assert (workflow.name, workflow.url) == ("ResNet50 Training", URL)


def test_override_detection(run: Callable[..., Names]) -> None:
    """The block of "Overriding Detection"."""
    workflow = run(block("Overriding Detection"))["workflow"]
    assert workflow.url == "https://github.com/org/repo/blob/main/pipeline.py"
    assert workflow.checksum == "abc123def456"


def test_lookup_workflows(run: Callable[..., Names], capsys: pytest.CaptureFixture[str]) -> None:
    """The block of "Reusing Existing Workflows" looks up workflows by RID and URL, and lists all."""
    assert run(block("Reusing Existing Workflows"))["workflow"].rid == "2-ABC1"
    assert f"Known (Inference): {document_world.SCRIPT_URL}\n" in capsys.readouterr().out


def test_update_workflow(run: Callable[..., Names], ml: DerivaML) -> None:
    """The block of "Updating Workflow Properties"."""
    run(block("Updating Workflow Properties"))
    (row,) = ml.select_rows("Workflow", {"RID": "2-ABC1"})
    assert (row["Description"], row["Workflow_Type"]) == ("Updated: now includes data augmentation", "Training")


def test_add_workflow_type(run: Callable[..., Names], ml: DerivaML) -> None:
    """The block of "Workflow Types"."""
    run(block("Workflow Types"))
    assert ml.list_terms("Workflow_Type")["Data_Augmentation"] == "Workflows that augment training data"


def test_provide_workflow(run: Callable[..., Names], ml: DerivaML) -> None:
    """The block of "Providing the Workflow to an Execution" records the workflow both ways."""
    run(block("Providing the Workflow to an Execution"))
    first, second, _ = ml.find_executions()
    assert first.workflow_rid == second.workflow_rid is not None


def test_create_configuration(run: Callable[..., Names], host: str, ml: DerivaML) -> None:
    """The block of "Creating an Execution Configuration"; all declared inputs are recorded."""
    config = run(block("Creating an Execution Configuration"), hostname=host, catalog_id=catalog_number(host))["config"]
    exe = ml.create_execution(config)
    assert [(spec.rid, spec.version) for spec in exe.list_input_datasets()] == [("1-ABC", "0.2.0"), ("1-DEF", "1.2.0")]
    assert [asset.rid for asset in exe.list_assets("Input")] == ["2-GHI", "2-JKL"]


def test_dataset_specs(run: Callable[..., Names]) -> None:
    """The block of "DatasetSpec Options"."""
    run(block("DatasetSpec Options"))


def test_run_execution(run: Callable[..., Names], ml: DerivaML, capsys: pytest.CaptureFixture[str]) -> None:
    """The block of "Running an Execution"."""
    seen: list[str] = []
    names = run(
        block("Running an Execution"),
        process_image=lambda name: seen.append(Path(name).read_text()),
        train_model=lambda images: torch.nn.Linear(len(images), 1),
    )
    exe = ml.lookup_execution(names["exe"].execution_rid)
    assert seen == ["the pixels of 2-GHI", "the pixels of 2-JKL"]
    assert exe.status is Status.completed
    assert outputs(exe) == {"Model": ["best_model.pt"], "Execution_Metadata": ["metrics.json"]}
    printed = capsys.readouterr().out.splitlines()
    assert printed == [f"Execution RID: {exe.execution_rid}", f"Working directory: {exe.working_dir}"]


def test_tune_uploads(run: Callable[..., Names], ml: DerivaML, config: ExecutionConfiguration) -> None:
    """The block of "Tuning Uploads for Large Files"; the first upload sends the file, the others nothing."""
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Model", "big.pt").write_bytes(b"big")
    run(block("Tuning Uploads for Large Files"), exe=exe)
    assert outputs(exe) == {"Model": ["big.pt"]}


def test_register_files(run: Callable[..., Names], tmp_path: Path) -> None:
    """The block of "Registering Output Files" registers four files, with its existing files in a folder."""
    for name in ("path/to/existing/file.png", "path/to/temp.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    code = block("Registering Output Files").replace('"/path/to/', f'"{tmp_path}/path/to/')
    exe = run(code, model=torch.nn.Linear(1, 1).state_dict())["exe"]
    staged = {asset.filename: asset for asset in exe.staged_assets()}
    assert list(staged) == ["model.pt", "file.png", "processed_image.png", "mask.png"]
    assert staged["mask.png"].asset_types == ("Segmentation_Mask", "Derived")
    assert not staged["file.png"].path.is_symlink()
    assert staged["processed_image.png"].path.is_symlink()
    staged["mask.png"].path.write_bytes(b"mask")
    exe.upload_execution_outputs()
    assert outputs(exe) == {"Model": ["model.pt"], "Image": ["file.png", "processed_image.png", "mask.png"]}
    assert torch.load(exe.download_asset(exe.list_assets("Output")[-1], tmp_path)).keys() == {"weight", "bias"}


def test_update_status(run: Callable[..., Names], ml: DerivaML) -> None:
    """The block of "Updating Status"; every status is recorded."""
    names = run(block("Updating Status"), load_data=list, train_epoch=lambda model, data: None, model=None)
    messages = [update.message for update in ml.lookup_execution(names["exe"].execution_rid).list_statuses()]
    epochs = [f"Epoch {number}/100 complete" for number in range(1, 101)]
    assert messages[2:-1] == ["Loading data...", "Training model...", *epochs, "Saving model..."]


def test_create_output_dataset(run: Callable[..., Names], ml: DerivaML) -> None:
    """The block of "Creating Output Datasets"."""
    names = run(block("Creating Output Datasets"), process_data=lambda data: data, input_data=["2-GHI"])
    dataset, exe = names["output_dataset"], ml.lookup_execution(names["exe"].execution_rid)
    assert [row["RID"] for row in dataset.list_dataset_members()["Image"]] == ["2-GHI"]
    assert (dataset.rid, dataset.current_version) in [(spec.rid, spec.version) for spec in exe.list_output_datasets()]


def test_restore_execution(run: Callable[..., Names], ml: DerivaML, caplog: pytest.LogCaptureFixture) -> None:
    """The block of "Restoring Executions"; it warns about a registered file that the block does not write."""
    exe = run(block("Restoring Executions"))["exe"]
    assert "continued_model.pt" in caplog.text
    exe.staged_assets()[0].path.write_bytes(b"more")
    exe.upload_execution_outputs()
    assert outputs(ml.lookup_execution("1-XYZ")) == {"Model": ["continued_model.pt"]}


def complete_example(host: str) -> str:
    return block("Complete Example").replace('"your-server.org", "1"', repr(host))


def test_complete_example(
    run: Callable[..., Names], host: str, ml: DerivaML, capsys: pytest.CaptureFixture[str]
) -> None:
    """The block of "Complete Example", with the reader's functions."""
    stand_ins: Names = {}
    exec(document_world.STAND_INS, stand_ins)
    exe = run(complete_example(host), **stand_ins)["exe"]
    assert capsys.readouterr().out == f"Execution complete: {exe.execution_rid}\n"
    check_complete(ml, exe.execution_rid)


def check_complete(ml: DerivaML, rid: str) -> None:
    """Check the records of the Complete Example."""
    exe = ml.lookup_execution(rid)
    assert (exe.status, exe.description) == (Status.completed, "Training with learning rate 0.001")
    assert [(spec.rid, spec.version) for spec in exe.list_input_datasets()] == [("1-ABC", "0.2.0")]
    messages = [update.message for update in exe.list_statuses()]
    assert messages == ["", "", *(f"Epoch {number}: loss=0.2500" for number in range(50)), ""]
    assert outputs(exe) == {"Model": ["classifier.pt"], "Execution_Metadata": ["training_metrics.json"]}
    for asset in exe.list_assets("Output"):
        ml.verify_asset(asset)


# The Complete Example as a script


def write_script(folder: Path, host: str) -> Path:
    """Write the Complete Example to a script, with the reader's functions in a module next to it."""
    folder.mkdir(parents=True)
    (folder / "stand_ins.py").write_text(document_world.STAND_INS)
    script = folder / "train.py"
    script.write_text(f"from stand_ins import *\n{complete_example(host)}")
    return script


def commit(folder: Path) -> str:
    """Create a repository with a GitHub remote in a folder, and return the commit."""
    (folder / ".gitignore").write_text("__pycache__/\n")
    (folder / "pyproject.toml").write_text('[project]\nname = "project"\nversion = "0.3.1"\n')
    author = git.Actor("Reader", "reader@example.org")
    with git.Repo.init(folder) as repository:
        repository.create_remote("origin", "git@github.com:reader/project.git")
        repository.git.add(all=True)
        return repository.index.commit("Train", author=author, committer=author).hexsha


def run_script(script: Path | str, cwd: Path) -> tuple[str, str]:
    """Run a script, and return the RID of its execution and its standard error."""
    removed = ("DERIVA_ML_WORKFLOW_URL", "DERIVA_ML_WORKFLOW_CHECKSUM", "PYTEST_CURRENT_TEST")
    environ = {name: value for name, value in os.environ.items() if name not in removed}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=cwd, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.removeprefix("Execution complete: ").strip(), done.stderr


def test_complete_example_in_repository(host: str, ml: DerivaML, tmp_path: Path) -> None:
    """ "running the same committed script multiple times reuses the same workflow record.", from two folders."""
    script = write_script(tmp_path / "a repo" / "src", host)
    sha = commit(tmp_path / "a repo")
    first, stderr = run_script(script.name, cwd=script.parent)
    assert "Warning" not in stderr
    second, _ = run_script(os.path.relpath(script, tmp_path), cwd=tmp_path)
    check_complete(ml, first)
    check_complete(ml, second)
    workflow = ml.lookup_workflow(ml.lookup_execution(first).workflow_rid)
    assert workflow.url == f"https://github.com/reader/project/blob/{sha}/src/train.py"
    assert workflow.checksum == git.Repo(tmp_path / "a repo").git.hash_object(str(script))
    assert (workflow.version, workflow.name) == ("0.3.1", "Image Classifier Training v3")
    assert ml.lookup_execution(second).workflow_rid == workflow.rid
    assert len([found for found in ml.find_workflows() if found.name == workflow.name]) == 1


def test_complete_example_outside_git(host: str, ml: DerivaML, tmp_path: Path) -> None:
    """Outside a repository, the workflow's URL is the file's URI, and one warning is shown."""
    script = write_script(tmp_path / "no repo", host)
    rid, stderr = run_script(script, cwd=tmp_path)
    check_complete(ml, rid)
    workflow = ml.lookup_workflow(ml.lookup_execution(rid).workflow_rid)
    assert workflow.url == script.as_uri()
    assert workflow.checksum == git.Git().hash_object("--no-filters", str(script))
    assert stderr.count("DerivaMLWarning") == 1


def test_uncommitted_changes(host: str, ml: DerivaML, tmp_path: Path) -> None:
    """ "If the script has uncommitted changes, DerivaML issues a warning. The URL still points
    to the last committed version, so the checksum may not match the code that actually ran."
    """
    script = write_script(tmp_path / "repo", host)
    sha = commit(tmp_path / "repo")
    with script.open("a") as file:
        file.write("# changed\n")
    rid, stderr = run_script(script, cwd=tmp_path)
    workflow = ml.lookup_workflow(ml.lookup_execution(rid).workflow_rid)
    assert workflow.url == f"https://github.com/reader/project/blob/{sha}/train.py"
    assert workflow.checksum == git.Git().hash_object("--no-filters", str(script))
    assert stderr.count("DerivaMLWarning") == 1
    assert "train.py" in stderr


# Statements


def test_quotations_are_in_document() -> None:
    """The document contains the quotations of the docstrings."""
    text = re.sub(r"[\s>]+", " ", PAGE.read_text(encoding="utf-8"))
    tests = [value for name, value in globals().items() if name.startswith("test_")]
    quotations = [match[1] for test in tests if (match := re.match(r'"(.+?)"', inspect.getdoc(test) or "", re.DOTALL))]
    assert len(quotations) > 30
    assert [quotation for quotation in quotations if re.sub(r"[\s>]+", " ", quotation) not in text] == []


def test_every_execution_records(ml: DerivaML, config: ExecutionConfiguration, host: str) -> None:
    """ "Every execution records: - **Inputs**: Which datasets and assets were used - **Outputs**: Which files
    and datasets were produced - **Timing**: When the workflow started and stopped - **Status**: Progress updates
    and completion state"
    """
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"m")
        dataset = exe.create_dataset("out")
        exe.update_status(Status.running, "half")
    exe.upload_execution_outputs()
    found = DerivaML(host, catalog_number(host)).lookup_execution(exe.execution_rid)
    assert [spec.rid for spec in found.list_input_datasets()] == ["1-ABC"]
    assert [asset.rid for asset in found.list_assets("Input")] == ["2-GHI"]
    assert outputs(found) == {"Model": ["m.pt"]}
    assert [spec.rid for spec in found.list_output_datasets()] == [dataset.rid]
    assert found.start_time < found.stop_time
    assert [update.status for update in found.list_statuses()] == ["Created", "Running", "Running", "Completed"]


def test_execution_has_one_workflow(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """ "every execution is linked to exactly one workflow, which records *what code* was run"."""
    (row,) = ml.select_rows("Execution", {"RID": ml.create_execution(config).execution_rid})
    assert ml.lookup_workflow(row["Workflow"]).url == URL


def test_workflow_of_many_executions(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """ "A single workflow can be used by many executions."."""
    rids = {ml.create_execution(config).execution_rid for _ in range(3)}
    workflow = ml.lookup_workflow_by_url(URL)
    assert {exe.execution_rid for exe in ml.find_executions(workflow=workflow)} == rids


def test_workflow_columns(ml: DerivaML, workflow: Workflow) -> None:
    """ "It records the source code location (URL), Git checksum, version, and type."."""
    (row,) = ml.select_rows("Workflow", {"RID": ml.add_workflow(workflow.model_copy(update={"version": "1.0"}))})
    assert [row[name] for name in ("URL", "Checksum", "Version", "Workflow_Type")] == [URL, CHECKSUM, "1.0", "Training"]


def test_created_workflow_is_not_registered(ml: DerivaML, workflow: Workflow) -> None:
    """ "The returned `Workflow` object is not yet registered in the catalog."."""
    assert URL not in [found.url for found in ml.find_workflows()]


@pytest.mark.parametrize("explicitly", [True, False])
def test_registration(ml: DerivaML, workflow: Workflow, explicitly: bool) -> None:
    """ "Registration happens automatically when you pass it to `ml.create_execution()`, or you can
    register it explicitly with `ml.add_workflow(workflow)`."
    """
    if explicitly:
        ml.add_workflow(workflow)
    else:
        ml.create_execution(ExecutionConfiguration(), workflow=workflow)
    assert ml.lookup_workflow_by_url(CHECKSUM).url == URL


@pytest.mark.parametrize(
    "same", [{"url": document_world.SCRIPT_URL, "checksum": "d"}, {"url": "u", "checksum": "c0ffee"}]
)
def test_workflow_is_reused(ml: DerivaML, same: dict[str, str]) -> None:
    """ "if a workflow with the same URL or checksum already exists in the catalog, the existing
    record is reused rather than creating a duplicate."
    """
    again = Workflow(name="Known", workflow_type="Inference", **same)
    assert ml.create_execution(ExecutionConfiguration(workflow=again)).workflow_rid == "2-ABC1"
    assert ml.add_workflow(again) == "2-ABC1"


def test_constructor_detects_source(tmp_path: Path) -> None:
    """ "When a `Workflow` object is created (either via `ml.create_workflow()` or the `Workflow`
    constructor), DerivaML automatically detects the source code that is creating the workflow".
    """
    script = tmp_path / "make.py"
    script.write_text(
        "from deriva_ml import DerivaML, Workflow\n"
        "one = Workflow(name='One', workflow_type='Training')\n"
        f"two = DerivaML('file:{tmp_path}/new').create_workflow(name='Two', workflow_type='Training')\n"
        "assert one.url == two.url and one.checksum == two.checksum, (one, two)\n"
        "print(f'Execution complete: {one.url}')\n"
    )
    url, _ = run_script(script, cwd=tmp_path)
    assert url == script.as_uri()


def test_container(ml: DerivaML, monkeypatch: pytest.MonkeyPatch) -> None:
    """ "When running inside a Docker container (with `DERIVA_MCP_IN_DOCKER=true`), there is
    no local Git repository. Instead, DerivaML reads provenance from environment variables
    set at image build time".
    """
    for name in ("DERIVA_ML_WORKFLOW_URL", "DERIVA_ML_WORKFLOW_CHECKSUM"):
        monkeypatch.delenv(name)
    image = {
        "IMAGE_NAME": "ghcr.io/org/repo",
        "IMAGE_DIGEST": "sha256:abc",
        "GIT_COMMIT": "a1b2c3d",
        "VERSION": "0.3.1",
    }
    for name, value in {"IN_DOCKER": "true", **image}.items():
        monkeypatch.setenv(f"DERIVA_MCP_{name}", value)
    found = ml.create_workflow("In an image", "Training")
    assert (found.url, found.checksum, found.version) == ("ghcr.io/org/repo@sha256:abc", "sha256:abc", "0.3.1")
    monkeypatch.delenv("DERIVA_MCP_IMAGE_DIGEST")
    assert ml.create_workflow("In an image", "Training").checksum == "a1b2c3d"


def test_environment_variables(tmp_path: Path) -> None:
    """ "Or by setting environment variables before the workflow is created": the shell block."""
    (exports,) = (code for code in code_blocks(PAGE, "bash") if "export DERIVA_ML_WORKFLOW_URL" in code)
    program = (
        "from deriva_ml import Workflow; w = Workflow(name='x', workflow_type='Training'); print(w.url, w.checksum)"
    )
    shell = f'{exports}\n"{sys.executable}" -c "{program}"'
    done = subprocess.run(["bash", "-c", shell], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "https://github.com/org/repo/blob/main/pipeline.py abc123def456\n"


def test_add_existing_workflow(ml: DerivaML) -> None:
    """ "`ml.add_workflow()` returns the existing workflow's RID rather than creating a duplicate."."""
    known = Workflow(name="Known", workflow_type="Inference", url=document_world.SCRIPT_URL)
    assert ml.add_workflow(known) == "2-ABC1"


def test_lookup_by_checksum(ml: DerivaML) -> None:
    """ "Look up by URL or Git checksum"."""
    assert ml.lookup_workflow_by_url("c0ffee").rid == "2-ABC1"


def test_bound_workflows(ml: DerivaML, host: str) -> None:
    """ "You can update their `description` and
    `workflow_type` properties, and the changes are written to the catalog immediately"."""
    found = (
        ml.lookup_workflow("2-ABC1"),
        ml.lookup_workflow_by_url("c0ffee"),
        next(found for found in ml.find_workflows() if found.rid == "2-ABC1"),
    )
    for number, workflow in enumerate(found):
        workflow.description = f"by way {number}"
        assert DerivaML(host, catalog_number(host)).lookup_workflow("2-ABC1").description == f"by way {number}"


def test_workflow_type_must_be_a_term(ml: DerivaML) -> None:
    """ "Must be a valid Workflow_Type term"."""
    workflow = ml.lookup_workflow("2-ABC1")
    with pytest.raises(DerivaMLException, match="Preprocessing"):
        workflow.workflow_type = "Trainign"
    assert ml.lookup_workflow("2-ABC1").workflow_type == "Inference"


def test_default_workflow_types(ml: DerivaML) -> None:
    """ "Workflow types are controlled vocabulary terms that categorize workflows. Common types include"."""
    section = PAGE.read_text().partition("### Workflow Types")[2].partition("###")[0]
    table = dict(re.findall(r"^\| (\w+) \| (.+?) \|$", section, re.MULTILINE))
    del table["Type"]
    assert len(table) == 5
    assert table.items() <= ml.list_terms("Workflow_Type").items()


def test_workflow_type_must_exist(ml: DerivaML) -> None:
    """ "`ml.create_workflow()` validates this and raises a `DerivaMLException` if the type is
    not found."
    """
    with pytest.raises(DerivaMLException, match="'Dreaming'"):
        ml.create_workflow("x", "Dreaming")
    ml.add_term("Workflow_Type", "Dreaming", "Asleep")
    assert ml.create_workflow("x", "Dreaming").workflow_type == "Dreaming"


def test_workflow_is_required(ml: DerivaML) -> None:
    """ "If no workflow is provided in either place, a `DerivaMLException` is raised."."""
    with pytest.raises(DerivaMLException, match="needs a workflow"):
        ml.create_execution(ExecutionConfiguration(description="Training run", datasets=[DatasetSpec(rid="1-ABC")]))


def test_inputs_are_recorded(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """ "Input datasets/assets are recorded", before anything is downloaded."""
    exe = ml.create_execution(config)
    assert [asset.rid for asset in exe.list_assets("Input")] == ["2-GHI"]
    assert [spec.rid for spec in exe.list_input_datasets()] == ["1-ABC"]
    assert not (exe.working_dir / "inputs").exists()


def test_provenance_links(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """ "Provenance links are created"."""
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"m")
    (asset,) = exe.upload_execution_outputs()["Model"]
    assert "/hatrac/Model/" in asset.url
    (link,) = ml.select_rows("Model_Execution", {"Model": asset.rid})
    assert (link["Execution"], link["Asset_Role"]) == (exe.execution_rid, "Output")


def test_dataset_spec_defaults() -> None:
    """ "Specific version (default: current)", and the other defaults under "DatasetSpec Options"."""
    fields = DatasetSpec.model_fields
    assert list(fields) == ["rid", "version", "materialize"]
    assert fields["rid"].is_required()
    assert (DatasetSpec(rid="1-ABC").version, DatasetSpec(rid="1-ABC").materialize) == (None, True)


@pytest.mark.parametrize("materialize", [True, False])
def test_materialize(ml: DerivaML, config: ExecutionConfiguration, materialize: bool) -> None:
    """ "Download asset files (False = metadata only)"."""
    exe = ml.create_execution(config)
    bag = exe.download_dataset_bag(DatasetSpec(rid="1-ABC", materialize=materialize))
    images = bag.list_dataset_members()["Image"]
    assert [row["RID"] for row in images] == ["2-GHI", "2-JKL"]
    assert [Path(row["Filename"]).is_file() for row in images] == [materialize] * 2


def test_specific_version(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """ "Use specific version": the bag has the members of that version."""
    exe = ml.create_execution(config)
    bag = exe.download_dataset_bag(DatasetSpec(rid="1-ABC", version="0.1.0"))
    assert bag.list_dataset_members().get("Image", []) == []


def test_local_paths(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """ "img["Filename"] contains local path to the file"."""
    bag = ml.create_execution(config).download_dataset_bag(DatasetSpec(rid="1-ABC"))
    names = [Path(image["Filename"]) for image in bag.list_dataset_members()["Image"]]
    assert [name.read_text() for name in names] == ["the pixels of 2-GHI", "the pixels of 2-JKL"]


def test_enter_execution(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """ "**On entry**: Records start time, sets status to "running""."""
    with ml.create_execution(config) as exe:
        found = ml.lookup_execution(exe.execution_rid)
        assert (found.status, found.start_time) == (Status.running, exe.start_time)
        assert found.start_time is not None


def test_exit_execution(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """ "**On exit**: Records stop time, calculates duration"."""
    with ml.create_execution(config) as exe:
        pass
    found = ml.lookup_execution(exe.execution_rid)
    assert (found.status, found.stop_time) == (Status.completed, exe.stop_time)
    assert re.fullmatch(r"0\.0H 0\.0min \d+\.\d{4}sec", found.duration or "")


def test_exception_in_execution(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """ "**Exception handling**: If an exception occurs, status is set to "failed""."""
    with pytest.raises(ZeroDivisionError), ml.create_execution(config) as exe:
        _ = 1 / 0
    assert ml.lookup_execution(exe.execution_rid).status is Status.failed


def test_asynchronous_upload(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """ "Upload can be done asynchronously for large files"."""
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Model", "large.pt").write_bytes(b"large")
    sent = exe.upload_execution_outputs(wait=False)
    assert [asset.filename for asset in sent.result(HANG)["Model"]] == ["large.pt"]


def test_inspect_outputs(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """ "You can inspect outputs before uploading"."""
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"m")
    assert [(asset.table, asset.path.read_bytes()) for asset in exe.staged_assets()] == [("Model", b"m")]
    assert outputs(exe) == {}


def test_partial_uploads(ml: DerivaML, config: ExecutionConfiguration, tmp_path: Path) -> None:
    """ "Partial uploads can be retried if they fail": only unsent files are sent."""
    (tmp_path / "in the way.png").write_bytes(b"x")
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Image", "fine.png").write_bytes(b"fine")
        exe.asset_file_path("Image", tmp_path / "in the way.png")
        (tmp_path / "in the way.png").unlink()
        (tmp_path / "in the way.png").mkdir()
    with pytest.raises(UploadFailed):
        exe.upload_execution_outputs()
    assert outputs(exe) == {"Image": ["fine.png"]}
    (tmp_path / "in the way.png").rmdir()
    (tmp_path / "in the way.png").write_bytes(b"x")
    assert [asset.filename for asset in exe.upload_execution_outputs()["Image"]] == ["in the way.png"]


def test_failed_execution_uploads(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """ "Even failed executions should upload partial results"."""
    with pytest.raises(ZeroDivisionError), ml.create_execution(config) as exe:
        exe.asset_file_path("Model", "half.pt").write_bytes(b"half")
        _ = 1 / 0
    exe.upload_execution_outputs()
    assert outputs(ml.lookup_execution(exe.execution_rid)) == {"Model": ["half.pt"]}


def test_upload_defaults() -> None:
    """ "Default behavior (25 MB chunks, 10 min timeout per chunk, 3 retries)", as in the table.

    tests/core/test_upload.py tests the effect of each setting with an injected fault.
    """
    parameters = inspect.signature(Execution.upload_execution_outputs).parameters
    table = dict(
        re.findall(r"^\| `(\w+)` \| (.+?) \|", PAGE.read_text().partition("(doubles each retry)")[2], re.MULTILINE)
    )
    assert table == {"timeout": "`(6, 600)`", "chunk_size": "25 MB", "max_retries": "`3`", "retry_delay": "`5.0`"}
    defaults = {name: parameters[name].default for name in table}
    assert defaults == {"timeout": (6, 600), "chunk_size": 25 * 2**20, "max_retries": 3, "retry_delay": 5.0}


def test_progress_is_visible(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """ "Report progress during long-running workflows": the catalog shows it during the run."""
    with ml.create_execution(config) as exe:
        exe.update_status(Status.running, "Training model...")
        (row,) = ml.select_rows("Execution", {"RID": exe.execution_rid})
        assert (row["Status"], row["Status_Detail"]) == ("Running", "Training model...")


def test_output_dataset_is_linked(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """ "Create a new dataset linked to this execution"."""
    with ml.create_execution(config) as exe:
        dataset = exe.create_dataset(description="Augmented training images", dataset_types=["Training", "Augmented"])
    assert sorted(dataset.dataset_types) == ["Augmented", "Training"]
    assert [spec.rid for spec in ml.lookup_execution(exe.execution_rid).list_output_datasets()] == [dataset.rid]


def test_restored_execution_has_inputs(ml: DerivaML) -> None:
    """ "Resume working with a previous execution": inputs, status and timings are restored."""
    exe = ml.restore_execution("1-XYZ")
    assert (exe.status, exe.status_detail) == (Status.failed, "RuntimeError: cut short")
    assert [path.read_text() for path in exe.asset_paths["Image"]] == ["the pixels of 2-GHI"]
    assert exe.start_time is not None


def test_describing_blocks_do_not_warn(run: Callable[..., Names]) -> None:
    """Blocks that only describe objects do not warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", DerivaMLWarning)
        run(block("DatasetSpec Options"))
        run(block("Overriding Detection"))
