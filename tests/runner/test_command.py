"""``deriva-ml-run``: one run from the shell, hydra's command line, and what is said of what cannot be meant."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from projects import Project, Ran, in_one_process, make_project

from deriva_ml import Status

DOCUMENT = Path(__file__).parents[1] / "document" / "executions.md"

WRONG = {
    "no such config": ["model_config=nix"],
    "no such group": ["modle_config=default_model"],
    "no such group, and none chosen": ["model_config=???", "+modle=default_model"],
    "no such key": ["model_config.rat=1"],
    "no such value": ["dry_run=no"],
    "no number": ["typed.rate=many", "+typed=rates"],
    "no such experiment": ["+experiment=nix"],
    "function without the two": ["model_config=without"],
    "function called too early": ["model_config=called"],
    "function that is nowhere": ["model_config=nowhere"],
    "unknown workflow type": ["workflow=nonsense"],
    "a sweep of that": ["--multirun", "workflow=nonsense", "model_config.rate=1,2"],
    "workflow without a name": ["workflow=nameless"],
    "unknown dataset": ["datasets=unknown"],
    "no version": ["datasets=unversioned"],
    "no such host": ["--host", "nosuch://host"],
    "no such folder": ["--config-dir", "nix"],
    "no such path": ["--config-path", "nix"],
    "two commands": ["--run", "--multirun"],
    "a pickle": ["--experimental-rerun", "config.pickle"],
}
SAID = {
    "no such config": ["Could not find 'model_config/nix'", "default_model", "without"],
    "no such group": ["modle_config"],
    "no such group, and none chosen": ["You must specify 'model_config'", "no group of configs 'modle'"],
    "no such key": ["model_config.rat"],
    "no such value": ["dry_run", "'no'", "true or false"],
    "no number": ["typed.rate=many", "could not be converted to Float"],
    "no such experiment": ["experiment"],
    "function without the two": [
        "models.obedient.without",
        "model_config=without",
        "obedient.py",
        "ml_instance",
        "execution",
    ],
    "function called too early": ["model_config=called", "models.obedient.train", "zen_partial=True"],
    "function that is nowhere": ["model_config=nowhere", "No module named 'models.nowhere'"],
    "unknown workflow type": ["Workflow_Type has no term 'Nonsense'"],
    "a sweep of that": ["Workflow_Type has no term 'Nonsense'"],
    "workflow without a name": ["workflow=nameless", "workflow.name"],
    "unknown dataset": ["1-ABC"],
    "no version": ["datasets=unversioned", "version"],
    "no such host": ["nosuch://host"],
    "no such folder": ["nix", "--config-dir"],
    "no such path": ["nix", "--config-dir"],
    "two commands": ["only one of"],
    "a pickle": ["deriva-ml reproduce"],
}
ASKED = {
    "help": ["--help"],
    "configs": ["--list-configs"],
    "config": ["--cfg", "job", "model_config.rate=3"],
    "info": ["--info", "searchpath"],
    "hydra help": ["--hydra-help"],
}


@pytest.fixture(scope="module")
def obedient(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that several tests ask, and in which none changes anything."""
    return make_project(tmp_path_factory.mktemp("obedient"))


@pytest.fixture(scope="module")
def wrong(obedient: Project) -> dict[str, Ran]:
    """What is said of each wrong command line."""
    return dict(zip(WRONG, in_one_process(obedient, *WRONG.values()), strict=True))


@pytest.fixture(scope="module")
def asked(obedient: Project) -> dict[str, Ran]:
    """What is said of each command line that only asks."""
    return dict(zip(ASKED, in_one_process(obedient, *ASKED.values()), strict=True))


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_meant_is_said(wrong: dict[str, Ran], what: str) -> None:
    """The config and the key are named, in words and not by a traceback; the exit code is 2."""
    ran = wrong[what]
    assert ran.code == 2, ran.complaint
    assert "Traceback" not in ran.complaint
    assert [word for word in SAID[what] if word not in ran.complaint] == [], ran.complaint


def test_what_is_wrong_is_not_recorded(wrong: dict[str, Ran], obedient: Project) -> None:
    """None of these left an execution."""
    assert wrong
    assert obedient.executions() == []


def test_hydras_command_line_is_there(asked: dict[str, Ran]) -> None:
    """The help has hydra's options and ours; configs are listed, composed and explained, and nothing is run."""
    assert [ran.code for ran in asked.values()] == [0] * len(ASKED)
    assert all(word in asked["help"].out for word in ("--multirun", "--cfg", "--info", "--list-configs", "--host"))
    assert "model_config  called, default_model*, nowhere, without" in asked["configs"].out
    assert "  rate: 3.0\n" in asked["config"].out
    assert "== Flags ==" in asked["hydra help"].out


def test_there_is_no_folder_of_configs(tmp_path: Path) -> None:
    """In a folder without configs the help is there, and anything else says what to do."""
    nowhere = Project(tmp_path, tmp_path / "home")
    helped, ran = in_one_process(nowhere, ["--help"], ["model_config=x"])
    assert (helped.code, ran.code) == (0, 2)
    assert "src/configs" in ran.complaint
    assert "--config-dir" in ran.complaint


def test_a_run_keeps_hydras_files_without_secrets(project: Project) -> None:
    """Files and choices are among its records, what looks like a secret is in none; git sees no file of hydra's."""
    secret = "hunter22hunter22"
    address = ("--host", f"file:{project.home / 'local'}")
    ran = project.run(*address, f"deriva_ml.credential={{bearer-token:{secret}}}", f"description='api_key={secret}'")
    assert ran.code == 0, ran.complaint
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
    assert {each.filename for each in run.list_assets("Output")} >= {"model.txt", "config.yaml", "overrides.yaml"}


def test_a_run_that_fails_sends_what_it_made(project: Project) -> None:
    """The model function's error ends it with 1 and a traceback; it is Failed, and what it registered is uploaded."""
    ran = project.run("model_config.what=fail")
    assert ran.code == 1
    assert "ValueError: it was told to fail" in ran.complaint
    run = project.newest()
    assert (run.status, run.status_detail) == (Status.failed, "ValueError: it was told to fail")
    assert "model.txt" in {each.filename for each in run.list_assets("Output")}


def test_a_model_function_leaves_with_its_own_code(project: Project) -> None:
    """sys.exit(3) in the model function is the command's exit code."""
    assert project.run("model_config.what=exit").code == 3
    assert project.newest().status is Status.failed


def test_yaml_and_modules_lie_in_one_folder(project: Project) -> None:
    """Hydra's YAML files in the folder of configs are configs like those that modules store, in any such folder."""
    folder = project.root / "src" / "configs"
    (folder / "model_config").mkdir()
    (folder / "model_config" / "written.yaml").write_text(
        "_target_: models.obedient.train\n_partial_: true\nwhat: learn\nrate: ${oc.env:RATE}\n"
    )
    moved = project.root / "src" / "settings"
    folder.rename(moved)
    ran = replace(project, environ={"RATE": "7"}).run("--config-dir", "src/settings", "model_config=written")
    assert ran.code == 0, ran.complaint
    records = project.newest().working_dir / "records"
    assert json.loads((records / "configuration.json").read_text())["parameters"]["model_config"]["rate"] == "7"
    assert "rate: ${oc.env:RATE}" in (records / "config.yaml").read_text()  # as it was written


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


def train(what: str = "learn", rate: float = 0.1, *, ml_instance, execution):
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(8, 1)), batch_size=4)
    for callback in (DerivaMLCallback(execution), DerivaMLCallback()):
        assert callback.execution is execution
        trainer = Trainer(max_epochs=2, callbacks=[callback], logger=False, accelerator="cpu",
                          enable_progress_bar=False, enable_model_summary=False)
        trainer.fit(Line(), data)


without = train
"""


def test_callbacks_in_a_model_function_record_into_its_execution(project: Project) -> None:
    """Lightning's callback with the injected execution does, and so does one that is given none."""
    pytest.importorskip("lightning", reason="lightning is not installed")
    (project.root / "src" / "models" / "obedient.py").write_text(TRAINING)
    ran = project.run()
    assert ran.code == 0, ran.complaint
    (run,) = project.executions()
    assert run.status is Status.completed
    assert len([update for update in run.list_statuses() if "Epoch 2/2" in update.message]) == 2
    assert "differs from its last commit" in ran.complaint
    assert "warning: " in ran.complaint


def test_the_runners_names_are_light() -> None:
    """The desk hands on the runners' names without hydra."""
    code = (
        "from deriva_ml import DerivaMLConfig; import sys\n"
        "from deriva_ml.execution import create_model_config, load_configs, run_model\n"
        "print({name.partition('.')[0] for name in sys.modules} & {'hydra', 'hydra_zen', 'omegaconf', 'yaml'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "set()\n", done.stderr
