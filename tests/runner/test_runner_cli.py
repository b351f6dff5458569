"""``deriva-ml-run``: a single run from the shell, Hydra's command line, and usage errors."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from projects import Project, Result, make_project, run_in_one_process

from deriva_ml import Status

USAGE_ERRORS = {
    "unknown config": ["model_config=nix"],
    "unknown group": ["modle_config=default_model"],
    "unknown group and missing choice": ["model_config=???", "+modle=default_model"],
    "unknown key": ["model_config.rat=1"],
    "dry_run is no boolean": ["dry_run=no"],
    "value is no number": ["typed.rate=many", "+typed=rates"],
    "unknown experiment": ["+experiment=nix"],
    "function without the injected arguments": ["model_config=without"],
    "function called too early": ["model_config=called"],
    "missing function": ["model_config=nowhere"],
    "unknown workflow type": ["workflow=nonsense"],
    "unknown workflow type in a sweep": ["--multirun", "workflow=nonsense", "model_config.rate=1,2"],
    "workflow without a name": ["workflow=nameless"],
    "unknown dataset": ["datasets=unknown"],
    "invalid version": ["datasets=unversioned"],
    "unknown host": ["--host", "nosuch://host"],
    "missing config folder": ["--config-dir", "nix"],
    "missing config path": ["--config-path", "nix"],
    "two actions": ["--run", "--multirun"],
    "a pickle": ["--experimental-rerun", "config.pickle"],
}
EXPECTED_TEXTS = {
    "unknown config": ["Could not find 'model_config/nix'", "default_model", "without"],
    "unknown group": ["modle_config"],
    "unknown group and missing choice": ["You must specify 'model_config'", "no config group 'modle'"],
    "unknown key": ["model_config.rat"],
    "dry_run is no boolean": ["dry_run", "'no'", "true or false"],
    "value is no number": ["typed.rate=many", "could not be converted to Float"],
    "unknown experiment": ["experiment"],
    "function without the injected arguments": [
        "models.scripted.without",
        "model_config=without",
        "scripted.py",
        "ml_instance",
        "execution",
    ],
    "function called too early": ["model_config=called", "models.scripted.train", "zen_partial=True"],
    "missing function": ["model_config=nowhere", "No module named 'models.nowhere'"],
    "unknown workflow type": ["Workflow_Type has no term 'Nonsense'"],
    "unknown workflow type in a sweep": ["Workflow_Type has no term 'Nonsense'"],
    "workflow without a name": ["workflow=nameless", "workflow.name"],
    "unknown dataset": ["1-ABC"],
    "invalid version": ["datasets=unversioned", "version"],
    "unknown host": ["nosuch://host"],
    "missing config folder": ["nix", "--config-dir"],
    "missing config path": ["nix", "--config-dir"],
    "two actions": ["only one of"],
    "a pickle": ["deriva-ml reproduce"],
}
QUERIES = {
    "help": ["--help"],
    "configs": ["--list-configs"],
    "config": ["--cfg", "job", "model_config.rate=3"],
    "info": ["--info", "searchpath"],
    "hydra help": ["--hydra-help"],
}


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project shared by tests that do not change it."""
    return make_project(tmp_path_factory.mktemp("scripted"))


@pytest.fixture(scope="module")
def usage_errors(scripted: Project) -> dict[str, Result]:
    """The result of each invalid command line."""
    return dict(zip(USAGE_ERRORS, run_in_one_process(scripted, *USAGE_ERRORS.values()), strict=True))


@pytest.fixture(scope="module")
def queries(scripted: Project) -> dict[str, Result]:
    """The result of each command line that runs nothing."""
    return dict(zip(QUERIES, run_in_one_process(scripted, *QUERIES.values()), strict=True))


@pytest.mark.parametrize("name", USAGE_ERRORS)
def test_usage_error_is_reported(usage_errors: dict[str, Result], name: str) -> None:
    """A usage error names the config and the key without a traceback, and the exit code is 2."""
    result = usage_errors[name]
    assert result.code == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert [text for text in EXPECTED_TEXTS[name] if text not in result.stderr] == [], result.stderr


def test_usage_error_records_nothing(usage_errors: dict[str, Result], scripted: Project) -> None:
    """A usage error creates no execution."""
    assert usage_errors
    assert scripted.executions() == []


def test_hydra_command_line(queries: dict[str, Result]) -> None:
    """The help lists Hydra's options and our own; configs are listed and composed without a run."""
    assert [result.code for result in queries.values()] == [0] * len(QUERIES)
    assert all(name in queries["help"].stdout for name in ("--multirun", "--cfg", "--info", "--list-configs", "--host"))
    assert "model_config  called, default_model*, nowhere, without" in queries["configs"].stdout
    assert "  rate: 3.0\n" in queries["config"].stdout
    assert "== Flags ==" in queries["hydra help"].stdout


def test_missing_config_folder(tmp_path: Path) -> None:
    """Without a config folder the help works, and a run names the folders and the option."""
    empty = Project(tmp_path, tmp_path / "home")
    help_result, result = run_in_one_process(empty, ["--help"], ["model_config=x"])
    assert (help_result.code, result.code) == (0, 2)
    assert "src/configs" in result.stderr
    assert "--config-dir" in result.stderr


def test_run_records_hydra_files_without_secrets(project: Project) -> None:
    """Hydra's files and the choices are recorded without secrets, and git ignores Hydra's output folder."""
    secret = "hunter22hunter22"
    address = ("--host", f"file:{project.home / 'local'}")
    result = project.run(*address, f"deriva_ml.credential={{bearer-token:{secret}}}", f"description='api_key={secret}'")
    assert result.code == 0, result.stderr
    run = project.newest()
    records = {file.name: file.read_text() for file in (run.working_dir / "records").iterdir()}
    assert {"config.yaml", "overrides.yaml", "hydra.yaml", "configuration.json"} <= records.keys()
    assert "bearer-token: '[redacted: credential]'" in records["config.yaml"]
    assert secret not in run.description
    assert [name for name, text in records.items() if secret in text] == []
    assert "uncommitted.patch" not in records
    choices = json.loads(records["configuration.json"])["parameters"]["config_choices"]
    assert choices == {
        "assets": "default_asset",
        "datasets": "default_dataset",
        "deriva_ml": "default_deriva",
        "model_config": "default_model",
        "workflow": "default_workflow",
    }
    assert {asset.filename for asset in run.list_assets("Output")} >= {"model.txt", "config.yaml", "overrides.yaml"}


def test_failed_run_uploads_its_outputs(project: Project) -> None:
    """An error of the model function is shown with exit code 1; the run is Failed, and its outputs are uploaded."""
    result = project.run("model_config.action=fail")
    assert result.code == 1
    assert "ValueError: the test asked for a failure" in result.stderr
    run = project.newest()
    assert (run.status, run.status_detail) == (Status.failed, "ValueError: the test asked for a failure")
    assert "model.txt" in {asset.filename for asset in run.list_assets("Output")}


def test_exit_code_of_the_model_function(project: Project) -> None:
    """The exit code of sys.exit(3) in the model function is the command's."""
    assert project.run("model_config.action=exit").code == 3
    assert project.newest().status is Status.failed


def test_yaml_configs_and_modules_in_one_folder(project: Project) -> None:
    """YAML files and modules in one config folder are both used, whatever the folder's name."""
    folder = project.root / "src" / "configs"
    (folder / "model_config").mkdir()
    (folder / "model_config" / "written.yaml").write_text(
        "_target_: models.scripted.train\n_partial_: true\naction: learn\nrate: ${oc.env:RATE}\n"
    )
    moved = project.root / "src" / "settings"
    folder.rename(moved)
    result = replace(project, environ={"RATE": "7"}).run("--config-dir", "src/settings", "model_config=written")
    assert result.code == 0, result.stderr
    records = project.newest().working_dir / "records"
    assert json.loads((records / "configuration.json").read_text())["parameters"]["model_config"]["rate"] == "7"
    assert "rate: ${oc.env:RATE}" in (records / "config.yaml").read_text()  # not resolved


TRAINING = """\
import torch
from lightning.pytorch import LightningModule, Trainer

from deriva_ml_lightning import DerivaMLCallback


class Line(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch):
        loss = self.layer(batch[0]).square().mean()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(action: str = "learn", rate: float = 0.1, *, ml_instance, execution):
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(8, 1)), batch_size=4)
    for callback in (DerivaMLCallback(execution), DerivaMLCallback()):
        assert callback.execution is execution
        trainer = Trainer(max_epochs=2, callbacks=[callback], logger=False, accelerator="cpu",
                          enable_progress_bar=False, enable_model_summary=False)
        trainer.fit(Line(), data)


without = train
"""


def test_callbacks_use_the_injected_execution(project: Project) -> None:
    """A Lightning callback records into the injected execution, whether or not it is passed to it."""
    pytest.importorskip("lightning", reason="lightning is not installed")
    (project.root / "src" / "models" / "scripted.py").write_text(TRAINING)
    result = project.run()
    assert result.code == 0, result.stderr
    (run,) = project.executions()
    assert run.status is Status.completed
    assert len([update for update in run.list_statuses() if "Epoch 2/2" in update.message]) == 2
    assert "differs from its last commit" in result.stderr
    assert "warning: " in result.stderr


def test_public_names_import_without_hydra() -> None:
    """The public names of the runner are imported from deriva_ml without loading Hydra."""
    code = (
        "from deriva_ml import DerivaMLConfig; import sys\n"
        "from deriva_ml.execution import create_model_config, load_configs, run_model\n"
        "print({name.partition('.')[0] for name in sys.modules} & {'hydra', 'hydra_zen', 'omegaconf', 'yaml'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
