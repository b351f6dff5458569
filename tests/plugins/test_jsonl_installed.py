"""The plugin deriva-ml-jsonl, installed by pip, in a real run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = Path(__file__).parents[2] / "plugins" / "deriva-ml-jsonl"

RUN = """
from deriva_ml import DerivaML, ExecutionConfiguration, Workflow

workflow = Workflow(name="Logged", workflow_type="Training", url="https://example.org/a.py", checksum="0" * 40)
with DerivaML().create_execution(ExecutionConfiguration(workflow=workflow)) as execution:
    execution.update_status("Running", "Epoch 1/2")
    execution.asset_file_path("Model", "best.pt").write_bytes(b"weights")
execution.upload_execution_outputs()
print(execution.working_dir)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plugin installed by pip, and nothing else."""
    pytest.importorskip("hatchling", reason="pip builds the plugin with the hatchling of this environment")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--target", folder, PLUGIN], check=True)
    return folder


def run(site: Path, **environ: str) -> Path:
    """Run an execution in a new process with the plugin installed; returns its working folder."""
    command = [sys.executable, "-c", RUN]
    environ = {**os.environ, "PYTHONPATH": str(site), **environ}
    done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, text=True, check=True)
    return Path(done.stdout.strip())


def test_one_module_is_installed(site: Path) -> None:
    """The wheel contains the module and its metadata, not its tests."""
    assert {path.name for path in site.glob("*.py")} == {"deriva_ml_jsonl.py"}


def test_run_is_logged(site: Path) -> None:
    """Each status, file and upload of a run is a line in the working folder, in order."""
    folder = run(site)
    events = [json.loads(line) for line in (folder / "news.jsonl").read_text().splitlines()]
    assert {line["execution"] for line in events} == {folder.name}
    kinds = [line.get("update", {}).get("status") or line["hook"] for line in events]
    assert kinds == ["Created", "Running", "Running", "asset_registered", "Completed", "outputs_uploaded"]
    assert events[2]["update"]["message"] == "Epoch 1/2"
    (sent,) = events[-1]["report"]["sent"]["Model"]
    assert (sent["filename"], sent["length"]) == ("best.pt", 7)


def test_disabled_by_name(site: Path) -> None:
    """DERIVA_ML_DISABLED_PLUGINS disables the plugin."""
    assert not (run(site, DERIVA_ML_DISABLED_PLUGINS="jsonl") / "news.jsonl").exists()
