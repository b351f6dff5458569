"""The examples, run as a user runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from deriva_ml import DerivaML, Status
from deriva_ml_core.execution.recorded import RecordedExecution

EXAMPLES = Path(__file__).parents[2] / "examples"

for name in ("torch", "sklearn", "PIL", "rich"):
    pytest.importorskip(name, reason=f"{name}, which the examples use, is not installed")


def run_example(example: str, home: Path, *options: str) -> str:
    """Run an example in its own folder, and return its output."""
    home.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, EXAMPLES / example, "--home", home, "--epochs", "2", *options],
        cwd=home,
        env={**os.environ, "PYTHONWARNINGS": "default"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def last_checkpoint(training: RecordedExecution) -> str:
    """Return the name of the last checkpoint, which may also be the best."""
    checkpoints = [asset for asset in training.list_assets("Output") if "Model_File" in asset.asset_types]
    assert any("Best_Checkpoint" in asset.asset_types for asset in checkpoints)
    (last,) = (asset for asset in checkpoints if "Last_Checkpoint" in asset.asset_types)
    return last.filename


def row_counts(ml: DerivaML) -> dict[str, int]:
    """Return the number of rows that a second run must not add."""
    tables = ("Workflow", "Image", "Dataset", "Dataset_Version", "Dataset_Image", "Dataset_Dataset")
    return {table: len(ml.select_rows(table)) for table in tables}


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A catalog after the first run with Lightning, and the output of that run."""
    pytest.importorskip("pytorch_lightning", reason="pytorch_lightning is not installed")
    home = tmp_path_factory.mktemp("examples") / "home"
    return home, run_example("digits_lightning.py", home)


def test_dataset(first_run: tuple[Path, str]) -> None:
    """1,797 PNG images are in one dataset, through its training and testing parts, made by an execution."""
    ml = DerivaML(f"file:{first_run[0]}")
    whole = next(dataset for dataset in ml.find_datasets() if dataset.list_dataset_children())
    parts = {part.dataset_types: len(part.list_dataset_members()["Image"]) for part in whole.list_dataset_children()}
    assert parts == {("Training",): 1437, ("Testing",): 360}
    images = whole.list_dataset_members(recurse=True)["Image"]
    assert len({image["RID"] for image in images}) == 1797
    labels = Counter(image["Filename"].partition("/")[0] for image in images)
    assert labels == {
        "0": 178,
        "1": 182,
        "2": 177,
        "3": 183,
        "4": 181,
        "5": 182,
        "6": 181,
        "7": 179,
        "8": 174,
        "9": 180,
    }
    assert whole.dataset_history()[-1].execution is not None


def test_training_is_recorded(first_run: tuple[Path, str]) -> None:
    """The run is completed, has the dataset version that it read, and keeps its last checkpoint."""
    ml = DerivaML(f"file:{first_run[0]}")
    training = ml.find_executions(workflow_type="Training")[-1]
    assert training.status is Status.completed
    (read,) = training.list_input_datasets()
    assert read.version == ml.lookup_dataset(read.rid).current_version
    outputs = {asset.filename for asset in training.list_assets("Output")}
    assert {"metrics.jsonl", "training.json", "configuration.json"} <= outputs
    assert last_checkpoint(training) == "epoch-0002.ckpt"


def test_output_matches_record(first_run: tuple[Path, str]) -> None:
    """The output has the workflow's URL and checksum, the input, each status, and each output with size and MD5."""
    home, text = first_run
    ml = DerivaML(f"file:{home}")
    training = ml.find_executions(workflow_type="Training")[-1]
    workflow = ml.lookup_workflow(training.workflow_rid)
    (read,) = training.list_input_datasets()
    for expected in (training.execution_rid, workflow.url, workflow.checksum, f"{read.rid} version {read.version}"):
        assert expected in re.sub(r"\n +", "", text)
    assert all(update.message in text for update in training.list_statuses())
    for asset in training.list_assets("Output"):
        assert asset.md5 in text
    assert re.search(r"Verified 1,8\d\d stored files, .*: all match the record", text)


def test_changed_bytes_are_found(first_run: tuple[Path, str], tmp_path: Path) -> None:
    """With one stored image changed, the verification at the end fails and names it."""
    home = tmp_path / "copy"
    subprocess.run(["cp", "-r", first_run[0], home], check=True)
    ml = DerivaML(f"file:{home}")
    image = ml.lookup_asset(ml.select_rows("Image")[0]["RID"])
    stored = next(path for path in home.rglob(f"*{image.md5}*") if path.is_file())
    stored.chmod(0o644)
    stored.write_bytes(stored.read_bytes()[::-1])
    training = ml.find_executions(workflow_type="Training")[-1]
    program = f"""
import sys
sys.path.insert(0, {str(EXAMPLES)!r})
from show_run import show_run
from deriva_ml import DerivaML
show_run(DerivaML("file:{home}"), {training.execution_rid!r})
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "ChecksumMismatch" in done.stderr
    assert image.md5 in done.stderr


def test_second_run_reuses_rows(first_run: tuple[Path, str]) -> None:
    """A second run reuses workflow, images and dataset; only the execution is new."""
    home, _ = first_run
    ml = DerivaML(f"file:{home}")
    before = row_counts(ml)
    first = len(ml.find_executions())
    run_example("digits_lightning.py", home)
    assert row_counts(ml) == before
    assert len(ml.find_executions()) == first + 1


def test_keras_example(first_run: tuple[Path, str]) -> None:
    """The Keras example trains on the existing dataset, with a workflow of its own."""
    pytest.importorskip("keras", reason="keras is not installed")
    home, _ = first_run
    ml = DerivaML(f"file:{home}")
    before = row_counts(ml)
    text = run_example("digits_keras.py", home)
    assert row_counts(ml) == before | {"Workflow": before["Workflow"] + 1}
    (newest,) = ml.find_executions(workflow_type="Training", limit=1)
    assert last_checkpoint(newest) == "epoch-0002.keras"
    assert newest.execution_rid in text


def test_torch_loop_example(first_run: tuple[Path, str]) -> None:
    """The example without a framework leaves the same record: statuses, settings, metrics, checkpoints."""
    home, _ = first_run
    ml = DerivaML(f"file:{home}")
    before = row_counts(ml)
    text = run_example("torch_loop.py", home)
    assert row_counts(ml) == before | {"Workflow": before["Workflow"] + 1}
    (newest,) = ml.find_executions(workflow_type="Training", limit=1)
    assert newest.status is Status.completed
    assert last_checkpoint(newest) == "epoch-0002.pt"
    assert {"metrics.jsonl", "training.json"} <= {asset.filename for asset in newest.list_assets("Output")}
    assert re.search(r"Epoch 2/2: loss=\S+, val_accuracy=0\.[89]", text)


@pytest.mark.parametrize("example", ["digits_lightning.py", "digits_keras.py", "torch_loop.py"])
def test_examples_are_short(example: str) -> None:
    """Each example has less than 60 lines, blank ones not counted."""
    text = (EXAMPLES / example).read_text()
    assert sum(1 for line in text.splitlines() if line.strip()) < 60
