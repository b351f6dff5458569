"""Record the data of ``data/v0.1``: what version 0.1.0, at commit 22103f8, left on disk.

This script is kept as the record of how the data were made. It uses internal names of that commit, so it need not run
with later versions. It ran once, as root on Linux, in a checkout of that commit::

    python tests/compatibility/record.py

It copies the code of the commit to ``/deriva-ml-v01``, runs one scene after the other there, each in a process of its
own, packs what they left into ``data/v0.1/recorded.tar.gz``, and deletes ``/deriva-ml-v01``.

Nothing of the machine is in the data. Every absolute path begins with ``/deriva-ml-v01``, the host is called
``recorder`` (in a UTS namespace of its own) and the user too. `check` looks for anything else before the archive is
written. ``earlier_version.py`` says how a test lays the data out in another folder.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

COMMIT = "22103f8"
ROOT = Path("/deriva-ml-v01")
PYTHON = ROOT / "venv/bin/python"
RIDS = ROOT / "rids.json"
PROJECT = ROOT / "project"
ARCHIVE = Path(__file__).parent / "data/v0.1/recorded.tar.gz"
LEFT_OUT = {"code", "venv", "tmp", "user", "rids.json", "record.py", "hatrac"}
KILLED = -signal.SIGKILL

ENVIRON = {
    "DERIVA_ML_HOME": str(ROOT / "home"),
    "HOME": str(ROOT / "user"),
    "KERAS_BACKEND": "torch",
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "PATH": f"{ROOT}/venv/bin:/usr/local/bin:/usr/bin:/bin",
    "TMPDIR": str(ROOT / "tmp"),
    "USER": "recorder",
}

Scene = Callable[[], None]


# ---------------------------------------------------------------------------------------------------------- the scenes


def tables() -> None:
    """Make tables and terms of a project's own."""
    from deriva_ml import DerivaML
    from deriva_ml_core import Column, ForeignKey, Table

    ml = DerivaML()
    ml.create_vocabulary("Species", "Kinds of trees")
    ml.add_term("Species", "Oak", "Quercus robur", ["English oak"])
    ml.add_term("Species", "Beech", "Fagus sylvatica")
    columns = (Column("Name", nullok=False), Column("Trees", "int4"), Column("Species"), Column("Soil", "jsonb"))
    keys = {"keys": (("Name",),), "foreign_keys": (ForeignKey("Species", "Species", "Name"),)}
    ml.create_table(Table("Plot", columns, **keys, schema="domain"))
    ml.create_asset("Leaf", [Column("Width", "float8"), Column("Plot")], [ForeignKey("Plot", "Plot", "Name")])
    ml.add_term("Dataset_Type", "Forest", "Plots and leaves")
    for table in ("Plot", "Leaf"):
        ml.add_dataset_element_type(table)
    north = {"Name": "North", "Trees": 12, "Species": "Oak", "Soil": {"pH": 6.5, "layers": ["humus", "loam"]}}
    ml.insert_rows("Plot", [north, {"Name": "South", "Trees": 7, "Species": "Beech"}])
    ml.insert_rows("Plot", [{"Name": "West"}])


def prepare() -> None:
    """Make leaves and a dataset with versions, nested in another one."""
    from deriva_ml import DerivaML

    ml = DerivaML()
    with ml.create_execution(configuration("Prepare leaves", "Preprocessing")) as execution:
        for number, plot in enumerate(["North", "South", "South"], 1):
            path = execution.asset_file_path("Leaf", f"leaf-{number}.txt", Width=number / 4, Plot=plot)
            path.write_text(f"leaf {number}\n" * 1000 * number)
        leaves = [leaf.rid for leaf in execution.upload_execution_outputs()["Leaf"]]
        plots = [row["RID"] for row in ml.select_rows("Plot")]
        leaf_set = execution.create_dataset("Leaves of two plots", ["Forest"])
        leaf_set.add_dataset_members([*plots[:2], *leaves[:2]], "The first leaves")
        leaf_set.add_dataset_members(leaves[2:], "One more leaf")
        forest = ml.create_dataset("The forest")
        forest.add_dataset_members([leaf_set.rid])
        leaf_set.increment_version("major", "Checked by hand")
    execution.upload_execution_outputs()
    note(prepare=execution.execution_rid, leaves=leaves, plots=plots, leaf_set=leaf_set.rid, forest=forest.rid)
    gone = ml.create_dataset("Made by mistake")
    ml.delete_dataset(gone)
    note(gone=gone.rid)


def train() -> None:
    """Complete and upload an execution with inputs, metrics, files of several kinds and children."""
    from deriva_ml import AssetSpec, DatasetSpec, DerivaML, Status
    from deriva_ml_core import Progress

    ml, rids = DerivaML(), noted()
    wanted = configuration(
        "Train on leaves",
        "Training",
        datasets=[DatasetSpec(rid=rids["leaf_set"], version="0.2.0"), rids["forest"]],
        assets=[AssetSpec(rid=rids["leaves"][0])],
        parameters={"rate": 0.1, "layers": [8, 1], "api_token": "a-secret-that-is-not-recorded"},
    )
    with ml.create_execution(wanted) as execution:
        execution.download_dataset_bag(DatasetSpec(rid=rids["leaf_set"], version="0.2.0"))
        execution.download_asset(rids["leaves"][0])
        execution.record_input(rids["leaves"][1])
        for epoch, (loss, accuracy) in enumerate([(0.9, 0.4), (0.3, 0.8), (0.5, float("nan"))], 1):
            metrics = {"loss": loss, "accuracy": accuracy}
            progress = Progress(epoch=epoch, epochs=3, step=10 * epoch, metrics=metrics, seconds=1.5)
            execution.update_status(Status.running, f"Epoch {epoch} of 3", progress=progress)
        tested = Progress(stage="test", metrics={"loss": 0.4}, modes={"loss": "min"}, seconds=0.5)
        execution.update_status(Status.running, "Tested", progress=tested)
        model = execution.asset_file_path("Model", "model.bin", ["Model_File"])
        model.write_bytes(b"weights of epoch 1")
        execution.add_asset_types(model, "Last_Checkpoint")
        execution.upload_execution_outputs(only=[model])
        model.write_bytes(b"weights of epoch 3")
        execution.add_asset_types(model, ["Best_Checkpoint"])
        execution.asset_file_path("Execution_Asset", "plots/Übersicht ☂.txt").write_text("curves")
        execution.asset_file_path("Leaf", "mean.txt", ["Leaf", "Derived"], Width=0.5, Description="The mean leaf")
        (execution.working_dir / "outputs/Leaf/mean.txt").write_text("mean leaf\n")
        own = execution.create_dataset("Predictions")
        own.add_dataset_members([rids["leaves"][2]])
    execution.upload_execution_outputs()
    children = []
    for number in range(2):
        with ml.create_execution(configuration(f"Fold {number}", "Training")) as child:
            child.asset_file_path("Model", f"fold-{number}.bin").write_bytes(b"fold %d" % number)
        child.upload_execution_outputs()
        execution.add_nested_execution(child, sequence=1 - number)
        children.append(child.execution_rid)
    note(train=execution.execution_rid, children=children, predictions=own.rid)


def endings() -> None:
    """Leave executions that failed, were resumed after a failure, were restored from the catalog, or never began."""
    from deriva_ml import DerivaML, Status

    ml = DerivaML()
    try:
        with ml.create_execution(configuration("Fail", "Training")) as failed:
            failed.update_status(Status.running, "Looking for leaves")
            raise ValueError("there are no leaves")
    except ValueError:
        pass
    try:
        with ml.create_execution(configuration("Fail, then go on", "Training")) as first:
            raise OSError("the disk is away")
    except OSError:
        pass
    with ml.resume_execution(first.execution_rid) as resumed:
        resumed.asset_file_path("Model", "resumed.bin").write_bytes(b"resumed")
    resumed.upload_execution_outputs()
    with ml.create_execution(configuration("Lose the folder", "Training")) as lost:
        lost.asset_file_path("Model", "kept.bin").write_bytes(b"kept")
    lost.upload_execution_outputs()
    shutil.rmtree(lost.working_dir)
    restored = ml.restore_execution(lost.execution_rid)
    restored.asset_file_path("Model", "later.bin").write_bytes(b"staged after the restoration")
    created = ml.create_execution(configuration("Never begun", "Training"))
    note(failed=failed.execution_rid, resumed=first.execution_rid, restored=lost.execution_rid)
    note(created=created.execution_rid)


def waiting() -> None:
    """End an execution whose files are staged in each way, and not uploaded."""
    from deriva_ml import DerivaML

    ml = DerivaML()
    (PROJECT / "notes.txt").write_text("a file of the user's own, linked to\n")
    (PROJECT / "table.csv").write_text("a,b\n1,2\n")
    with ml.create_execution(configuration("End with staged files", "Training")) as execution:
        stage = execution.asset_file_path
        sent = stage("Model", "sent.bin")
        sent.write_bytes(b"sent while it ran")
        changed = stage("Model", "changed.bin")
        changed.write_bytes(b"first content")
        execution.upload_execution_outputs(only=[sent, changed])
        changed.write_bytes(b"second content, written after the upload")
        stage("Model", "new.bin", ["Model_File"]).write_bytes(b"new")
        stage("Execution_Asset", "deep/er/file.txt").write_text("in sub-folders")
        stage("Execution_Asset", PROJECT / "notes.txt")
        stage("Execution_Asset", PROJECT / "table.csv", copy_file=True, rename_file="renamed.csv")
        stage("Leaf", "measured.txt", Width=0.125, Plot="West", Description="Measured").write_text("leaf\n")
        sealed = stage("Model", "sealed.bin", ["Model_File"])
        sealed.write_bytes(b"sealed")
        execution.add_asset_types(sealed, ["Best_Checkpoint", "Last_Checkpoint"])
        execution.drop_asset_types(sealed, "Last_Checkpoint")
        execution.seal(sealed)
        stage("Model", "forgotten.bin").write_bytes(b"forgotten")
        execution.forget(execution.working_dir / "outputs/Model/forgotten.bin")
        stage("Model", "never-written.bin")
    note(waiting=execution.execution_rid)


def killed() -> None:
    """Be killed while an execution runs, with a staged file and metrics."""
    from deriva_ml import DerivaML, Status
    from deriva_ml_core import Progress

    ml, rids = DerivaML(), noted()
    with ml.create_execution(configuration("Be killed", "Training", assets=rids["leaves"][:1])) as execution:
        note(killed=execution.execution_rid)
        execution.asset_file_path("Model", "half.bin").write_bytes(b"half a model")
        execution.update_status(
            Status.running, "Epoch 1 of 9", progress=Progress(epoch=1, epochs=9, metrics={"loss": 2.5})
        )
        die()


def killed_at_creation() -> None:
    """Be killed while an execution is created."""
    from deriva_ml import DerivaML
    from deriva_ml_core.execution import records

    ml = DerivaML()
    records.write_records = lambda *_, **__: die()
    ml.create_execution(configuration("Be killed at the creation", "Training"))


def rank_zero() -> None:
    """Be killed as rank zero, after another rank has failed."""
    from deriva_ml import DerivaML

    with DerivaML().create_execution(configuration("Fail in another rank", "Training")) as execution:
        note(rank_zero=execution.execution_rid)
        journal = execution.working_dir / "journal.jsonl"
        while b'"rank_failed"' not in journal.read_bytes():
            time.sleep(0.05)
        die()


def rank_one() -> None:
    """Fail as the other rank."""
    from deriva_ml import DerivaML

    with DerivaML().create_execution(configuration("Fail in another rank", "Training")):
        raise ValueError("no data for this rank")


def killed_moving() -> None:
    """Be killed in an upload, when the store has taken the file away and the journal does not say so yet."""
    from deriva_ml import DerivaML
    from deriva_ml_core.journal import file, story

    ml = DerivaML()
    with ml.create_execution(configuration("Be killed while a file is moved", "Training")) as execution:
        note(killed_moving=execution.execution_rid)
        execution.asset_file_path("Model", "moved.bin").write_bytes(b"moved into the store")
    before(file.Journal, "append", lambda _, *events: isinstance(events[0], story.Stored))
    execution.upload_execution_outputs()


def killed_copying() -> None:
    """Be killed in an upload, when half a copy of the file is in the store."""
    from deriva_ml import DerivaML
    from deriva_ml_core.backends.embedded import store

    def copy_half(source: Path, copy: Path) -> None:
        copy.write_bytes(source.read_bytes()[:7])
        die()

    ml = DerivaML()
    with ml.create_execution(configuration("Be killed while a file is copied", "Training")) as execution:
        note(killed_copying=execution.execution_rid)
        execution.asset_file_path("Execution_Asset", PROJECT / "notes.txt", rename_file="copied.txt")
    store.copy_digesting = copy_half
    execution.upload_execution_outputs()


def killed_staging() -> None:
    """Be killed while a file is copied into the working folder, with half a checkpoint in the same folder."""
    from deriva_ml_core.assets.copying import beginning_of

    from deriva_ml import DerivaML

    def copy_half(_: Path, copy: Path) -> None:
        copy.write_bytes(b"half")
        die()

    with DerivaML().create_execution(configuration("Be killed while a file is staged", "Training")) as execution:
        note(killed_staging=execution.execution_rid)
        checkpoint = execution.asset_file_path("Model", "epoch-0001.ckpt")
        checkpoint.write_bytes(b"a checkpoint")
        beginning_of(checkpoint.with_name("epoch-0002.ckpt")).write_bytes(b"half a checkpoint")
        shutil.copyfile = copy_half
        execution.asset_file_path("Model", PROJECT / "table.csv", copy_file=True)


def killed_making() -> None:
    """Be killed while a catalog is made."""
    from deriva_ml import DerivaML
    from deriva_ml_core.backends.embedded import opening

    opening.tabling.add_tables = lambda *_: die()
    DerivaML(f"file:{ROOT}/unmade")


def killed_building() -> None:
    """Be killed while the bag of a dataset is built."""
    from deriva_ml_core.bag import build

    from deriva_ml import DerivaML

    build._make = lambda *_: die()
    DerivaML().lookup_dataset(noted()["predictions"]).download_dataset_bag()


def bags() -> None:
    """Download one version of a dataset, and be killed while another one is downloaded."""
    from deriva_ml import DerivaML
    from deriva_ml_core.backends.embedded import fetching

    ml, rids = DerivaML(), noted()
    dataset = ml.lookup_dataset(rids["leaf_set"])
    dataset.download_dataset_bag("0.2.0")
    ml.lookup_dataset(rids["forest"]).download_dataset_bag(materialize=False)
    whole = fetching._complete

    def half(path: Path, part: Any) -> tuple[str, int]:
        if path.stat().st_size < 20000:
            return whole(path, part)
        with path.open("rb") as source:
            part.write(source.read(12000))
        time.sleep(2)  # while the others arrive
        die()
        raise AssertionError

    fetching._complete = half
    dataset.download_dataset_bag("1.0.0")


def pushed() -> None:
    """Copy an execution with its children to another catalog."""
    from deriva_ml import DerivaML

    report = DerivaML().push(noted()["train"], DerivaML(f"file:{ROOT}/target"), make_tables=True)
    note(pushed=report.execution)


def pushed_in_part() -> None:
    """Be killed while an execution is copied to a third catalog, with one of its files there."""
    from deriva_ml_core.pushing.ledger import Ledger

    from deriva_ml import DerivaML

    ml, third = DerivaML(), DerivaML(f"file:{ROOT}/third")
    kept: list[str] = []

    def is_second(ledger: Ledger, name: str, _: object) -> bool:
        kept.append(name)
        return len(kept) == 2

    before(Ledger, "keep", is_second)
    ml.push(noted()["prepare"], third, make_tables=True)


def script() -> None:
    """Run a script of a repository that has an uncommitted change."""
    git("init", "-q", "-b", "main")
    git("remote", "add", "origin", "https://github.com/example/leaves.git")
    (PROJECT / "learn.py").write_text(SCRIPT)
    (PROJECT / ".gitignore").write_text("__pycache__/\nmultirun/\n*.txt\n*.csv\n")
    for name, text in {"src/models/leaf.py": MODEL, "src/configs/all.py": CONFIGS}.items():
        (PROJECT / name).parent.mkdir(parents=True, exist_ok=True)
        (PROJECT / name).write_text(text)
    git("add", ".")
    git("commit", "-qm", "Learn from leaves")
    shutil.rmtree(PROJECT / ".git/hooks")
    (PROJECT / "learn.py").write_text(SCRIPT.replace("RATE = 0.1", "RATE = 0.2"))
    subprocess.run([PYTHON, "learn.py", "--epochs", "3"], cwd=PROJECT, check=True)


SCRIPT = '''\
"""Learn from leaves."""

from pathlib import Path

from deriva_ml import DerivaML, ExecutionConfiguration

RATE = 0.1

ml = DerivaML()
workflow = ml.create_workflow("Learn", "Training", "Learns from leaves")
configuration = ExecutionConfiguration(workflow=workflow, description="Run a script", parameters={"rate": RATE})
with ml.create_execution(configuration) as execution:
    execution.asset_file_path("Model", "learned.txt").write_text(f"rate {RATE}")
execution.upload_execution_outputs()
Path("/deriva-ml-v01/tmp/script").write_text(execution.execution_rid)
'''

MODEL = '''\
"""A model function for sweeps."""


def learn(rate: float = 0.1, *, ml_instance, execution):
    if rate > 1:
        raise ValueError("the rate is above 1")
    execution.asset_file_path("Model", "learned.txt").write_text(f"rate {rate}")
    return rate * 2
'''

CONFIGS = '''\
"""The configurations of a project."""

from hydra_zen import builds, store
from models.leaf import learn

from deriva_ml import AssetSpec, DatasetSpec, DerivaMLConfig, Workflow

store(builds(DerivaMLConfig, populate_full_signature=True), group="deriva_ml", name="default_deriva")
store([builds(DatasetSpec, rid="LEAF_SET", version="0.2.0")], group="datasets", name="default_dataset")
store([builds(AssetSpec, rid="LEAF")], group="assets", name="default_asset")
store(
    builds(Workflow, name="Sweep", workflow_type="Training", populate_full_signature=True),
    group="workflow",
    name="default_workflow",
)
store(
    builds(learn, populate_full_signature=True, zen_partial=True), group="model_config", name="default_model"
)
'''


def sweep() -> None:
    """Run a sweep of two jobs, one of which fails."""
    rids = noted()
    configs = PROJECT / "src/configs/all.py"
    configs.write_text(CONFIGS.replace("LEAF_SET", rids["leaf_set"]).replace('"LEAF"', repr(rids["leaves"][0])))
    program = ROOT / "venv/bin/deriva-ml-run"
    subprocess.run([program, "--multirun", "model_config.rate=0.5,2.0"], cwd=PROJECT, check=False)
    shutil.rmtree(PROJECT / "multirun", ignore_errors=True)
    shutil.rmtree(PROJECT / "src")


def notebook() -> None:
    """Kill a process that runs a notebook."""
    cell = {"cell_type": "code", "id": "0", "metadata": {}, "execution_count": None, "outputs": []}
    cell["source"] = "from time import sleep\nopen('/deriva-ml-v01/tmp/runs', 'w').close()\nsleep(600)"
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    content = {"cells": [cell], "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    (ROOT / "slow.ipynb").write_text(json.dumps(content))
    program = [ROOT / "venv/bin/deriva-ml-run-notebook", ROOT / "slow.ipynb"]
    with subprocess.Popen(program, start_new_session=True) as process:
        while not (ROOT / "tmp/runs").exists():
            time.sleep(0.1)
        time.sleep(1)
        os.killpg(process.pid, signal.SIGKILL)
    (ROOT / "slow.ipynb").unlink()


def lightning() -> None:
    """Complete a fit, and be killed in the third epoch of another one."""
    import torch
    from lightning import pytorch as pl
    from torch.utils.data import DataLoader, TensorDataset

    from deriva_ml import DerivaML
    from deriva_ml_lightning import DerivaMLCallback

    losses = {"Complete a fit": [2.0, 1.0], "Be killed in a fit": [3.0, 1.0, 2.0]}

    class Model(pl.LightningModule):
        def __init__(self, values: list[float]) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer, self.values = torch.nn.Linear(3, 1), values

        def training_step(self, batch: Any, _: int) -> Any:
            return torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1])

        def validation_step(self, batch: Any, _: int) -> None:
            self.log("val_loss", self.values[self.current_epoch])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.01)

    class Die(pl.Callback):
        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            if trainer.current_epoch == 2:
                time.sleep(2)  # while the catalog gets the last status
                die()

    points = torch.linspace(-1, 1, 24).reshape(8, 3)
    data = DataLoader(TensorDataset(points, points.sum(1, keepdim=True)), 4)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    for description, values in losses.items():
        wanted = configuration(description, "Training")
        is_killed = len(values) > 2
        how: Any = {"upload": "never", "resume": "same"} if is_killed else {}
        ours = DerivaMLCallback(ml=DerivaML(), configuration=wanted, curves=False, **how)
        callbacks = [ours, Die()] if is_killed else [ours]
        trainer = pl.Trainer(callbacks=callbacks, max_epochs=len(values), enable_checkpointing=False, **quiet)
        trainer.fit(Model(values), data, data)


def keras_backup() -> None:
    """Be killed in the third epoch of a fit of Keras that keeps backups."""
    import keras
    import numpy as np

    from deriva_ml import DerivaML
    from deriva_ml_keras import DerivaMLCallback

    class Die(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 2:
                time.sleep(2)
                die()

    keras.utils.set_random_seed(0)
    points = np.linspace(-1, 1, 24, dtype="float32").reshape(8, 3)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    ours = DerivaMLCallback(
        ml=DerivaML(), configuration=configuration("Be killed in Keras", "Training"), resume="same", upload="never"
    )
    callbacks = [keras.callbacks.BackupAndRestore(ROOT / "backup"), Die(), ours]
    with ours:
        model.fit(points, points.sum(1, keepdims=True), batch_size=4, epochs=3, verbose=0, callbacks=callbacks)


def server() -> None:
    """Be killed on a server, when one of three chunks of a file is sent."""
    sys.path.insert(0, str(ROOT / "code/tests"))
    from deriva_ml import DerivaML
    from fakes.deriva_server import serving

    with serving(ROOT / "hatrac") as fake:
        ml = DerivaML.create(fake.hostname, "leaves", credential=fake.credential())
        number = str(ml.connection.address.catalog_id)
        child = subprocess.run(at_recorder("server_client", fake.hostname, number), check=False)
        assert child.returncode == KILLED, child
    shutil.rmtree(ROOT / "home" / f"localhost_{fake.port}", ignore_errors=True)


def server_client() -> None:
    """Send a file in chunks, and be killed when the journal says that the first is there."""
    from deriva_ml import DerivaML
    from deriva_ml_core.journal import file, story

    login = {"cookie": "webauthn=test1"}
    ml = DerivaML(sys.argv[2], sys.argv[3], credential=login, working_dir=ROOT / "server")
    with ml.create_execution(configuration("Send to a server", "Training")) as execution:
        execution.asset_file_path("Model", "big.bin", ["Model_File"]).write_bytes(bytes(range(256)) * 40)
        note(server=execution.execution_rid)
    append = file.Journal.append

    def append_and_die(self: Any, *events: Any) -> None:
        append(self, *events)
        if isinstance(events[0], story.Noted) and events[0].note.get("sent") == 1:
            die()

    file.Journal.append = append_and_die
    execution.upload_execution_outputs(chunk_size=4096)


def pickles() -> None:
    """Pickle executions, and the other public values that can be pickled."""
    import deriva_ml_core as core
    from deriva_ml import AssetSpec, DatasetSpec, DerivaML, DerivaMLConfig, Status
    from deriva_ml_core import errors, models
    from deriva_ml_core.training import TrainingOptions

    ml, rids = DerivaML(), noted()
    named = DerivaML(f"file:{ROOT}/home/local")
    train, dataset = ml.lookup_execution(rids["train"]), ml.lookup_dataset(rids["leaf_set"])
    with named.create_execution(configuration("Be pickled while it runs", "Training")) as running:
        running.asset_file_path("Model", "pickled.bin").write_bytes(b"staged when it was pickled")
        keep("execution_that_ran", running, protocol=5)
    begun = named.create_execution(configuration("Be pickled before it begins", "Training"))
    waiting = ml.restore_execution(rids["waiting"])
    trial = ml.create_execution(configuration("Try", "Training"), dry_run=True)
    note(pickled_running=running.execution_rid, pickled_created=begun.execution_rid)
    leaf = ml.lookup_asset(rids["leaves"][0])
    staged = waiting.staged_assets()[0]
    stored = models.StoredObject(url=leaf.url, md5=leaf.md5, length=leaf.length)
    status = train.list_statuses()[-1]
    values: dict[str, Any] = {
        "execution_created": begun,
        "execution_waiting": waiting,
        "execution_dry_run": trial,
        "recorded_execution": train,
        "client": named,
        "address": named.connection.address,
        "asset": leaf,
        "asset_spec": AssetSpec(rid=leaf.rid),
        "dataset_spec": DatasetSpec(rid=dataset.rid, version="0.2.0", materialize=False),
        "dataset_versions": dataset.dataset_history(),
        "dataset_bag": dataset.download_dataset_bag("0.2.0"),
        "execution_configuration": begun.configuration,
        "execution_record": train.record,
        "metrics": train.list_metrics(),
        "progress": train.list_statuses()[2].progress,
        "source_code": models.SourceCode(url="https://example.org/a.py", path=PROJECT / "learn.py", kind="script"),
        "staged_asset": staged,
        "status_update": status,
        "stored_object": stored,
        "unsent_asset": models.UnsentAsset(asset=staged, reason="the store is away"),
        "upload_options": models.UploadOptions(chunk_size=4096, upload_workers=2),
        "upload_progress": models.UploadProgress(files_done=1, files=2, bytes_done=3, bytes=4, filename="a.bin"),
        "upload_report": models.UploadReport(sent={"Leaf": (leaf,)}),
        "push_report": ml.push(rids["train"], DerivaML(f"file:{ROOT}/target")),
        "training_options": TrainingOptions(monitor="loss", checkpoints="all", drain=5.0),
        "client_config": DerivaMLConfig(hostname="example.org", catalog_id="1", patience=7.0),
        "workflow": ml.lookup_workflow(str(train.workflow_rid)),
        "table": ml.connection.catalog.model.table("Plot"),
        "model": ml.connection.catalog.model,
        "words": [*Status, *core.Role, *core.Handover, *core.MLTable, *core.MLVocab, *core.MLAsset, *core.VersionPart],
        "errors": [
            getattr(errors, name)("what happened")
            for name in errors.__all__
            if issubclass(getattr(errors, name), Exception)
        ],
    }
    for name, value in values.items():
        keep(name, value)


SCENES: list[Scene] = [
    tables,
    prepare,
    train,
    endings,
    waiting,
    killed,
    killed_at_creation,
    killed_moving,
    killed_copying,
    killed_staging,
    killed_making,
    killed_building,
    bags,
    pushed,
    pushed_in_part,
    script,
    sweep,
    notebook,
    lightning,
    keras_backup,
    server,
    pickles,
]
PARTS: list[Scene] = [rank_zero, rank_one, server_client]
KILLED_SCENES = {
    *(killed, killed_at_creation, killed_moving, killed_copying, killed_staging, killed_making, killed_building),
    *(bags, pushed_in_part, lightning, keras_backup),
}


# -------------------------------------------------------------------------------------------------- what scenes use


def configuration(description: str, workflow_type: str, **inputs: Any) -> Any:
    """A configuration of a workflow whose source is given."""
    from deriva_ml import ExecutionConfiguration, Workflow

    workflow = Workflow(
        name=f"{workflow_type} of leaves",
        workflow_type=workflow_type,
        description="Recorded by version 0.1.0",
        url=f"https://github.com/example/leaves/blob/1a2b3c/{workflow_type.lower()}.py",
        checksum={"Training": "1", "Preprocessing": "2"}[workflow_type] * 40,
        version="1.2.3",
    )
    return ExecutionConfiguration(workflow=workflow, description=description, **inputs)


def die() -> None:
    """Be killed as the out-of-memory killer kills."""
    os.kill(os.getpid(), signal.SIGKILL)


def before(kind: type, method: str, is_time: Callable[..., bool]) -> None:
    """Be killed before a call of a method, when a function of its arguments says so."""
    original = getattr(kind, method)

    def called(*given: Any, **named: Any) -> Any:
        if is_time(*given, **named):
            die()
        return original(*given, **named)

    setattr(kind, method, called)


def keep(name: str, value: Any, protocol: int = 4) -> None:
    """Pickle a value."""
    folder = ROOT / "pickles"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.pickle").write_bytes(pickle.dumps(value, protocol))


def note(**rids: Any) -> None:
    """Note record ids for later scenes."""
    RIDS.write_text(json.dumps({**noted(), **rids}))


def noted() -> dict[str, Any]:
    """The record ids of earlier scenes."""
    return json.loads(RIDS.read_text()) if RIDS.exists() else {}


def git(*words: str) -> None:
    """Run git in the project, with nobody's settings and a fixed time."""
    who = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in AUTHOR.items()}
    subprocess.run(["git", *words], cwd=PROJECT, env={**os.environ, **who}, check=True)


AUTHOR = {"NAME": "Recorder", "EMAIL": "recorder@example.org", "DATE": "2026-01-02T03:04:05Z"}


# ---------------------------------------------------------------------------------------------------------- recording


def at_recorder(*words: str) -> list[str]:
    """A command line that runs this script in a UTS namespace whose host is called ``recorder``."""
    renamed = ["unshare", "--uts", "sh", "-c", 'hostname recorder && exec "$@"', "-"]
    return [*renamed, str(PYTHON), f"{ROOT}/record.py", *words]


def run(scene: Scene, **environ: str) -> subprocess.Popen[bytes]:
    """Begin a scene in a process of its own."""
    print(f"=== {scene.__name__}", flush=True)
    return subprocess.Popen(at_recorder(scene.__name__), cwd=ROOT, env={**ENVIRON, **environ})


def record() -> None:
    """Run all scenes, and pack what they left."""
    set_up()
    for scene in SCENES:
        code = run(scene).wait()
        wanted = KILLED if scene in KILLED_SCENES else 0
        assert code == wanted, (scene.__name__, code)
        if scene is killed:
            ranks = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
            processes = [run(each, RANK=str(rank), **ranks) for rank, each in enumerate((rank_zero, rank_one))]
            assert [each.wait() for each in processes] == [KILLED, 1]
    note(script=(ROOT / "tmp/script").read_text())
    tidy()
    content = pack()
    check(content)
    ARCHIVE.parent.mkdir(parents=True, exist_ok=True)
    ARCHIVE.write_bytes(content)
    print(json.dumps(noted(), indent=1), f"{len(content)} bytes", sep="\n")
    shutil.rmtree(ROOT)


def set_up() -> None:
    """Lay out the code of the commit, and an environment that names no folder of this machine."""
    assert not ROOT.exists(), f"{ROOT} is there already"
    for folder in ("code", "project", "tmp", "user"):
        (ROOT / folder).mkdir(parents=True)
    here = Path(__file__).parents[2]
    archive = subprocess.run(["git", "archive", COMMIT, "src", "tests"], cwd=here, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as code:
        code.extractall(ROOT / "code", filter="data")
    shutil.copy(__file__, ROOT / "record.py")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ROOT / "venv"], check=True)
    (packages,) = (ROOT / "venv/lib").glob("python*/site-packages")
    paths = [ROOT / "code/src", ROOT / "code/src/integrations", Path(sys.prefix) / packages.relative_to(ROOT / "venv")]
    (packages / "recorder.pth").write_text("".join(f"{path}\n" for path in paths))
    (packages / "sitecustomize.py").write_text("import platform\nplatform.platform = lambda: 'Linux-x86_64'\n")
    programs = {"deriva-ml-run": "runner.command", "deriva-ml-run-notebook": "runner.notebook.command"}
    for name, module in programs.items():
        program = ROOT / "venv/bin" / name
        program.write_text(f"#!{PYTHON}\nimport sys\nfrom deriva_ml_core.{module} import main\nsys.exit(main())\n")
        program.chmod(0o755)


def tidy() -> None:
    """Close each catalog, so that all of it is in one file."""
    import sqlite3

    for file in ROOT.glob("**/catalog.sqlite"):
        connection = sqlite3.connect(file)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        assert not file.with_name(f"{file.name}-wal").exists()


def pack() -> bytes:
    """All that the scenes left, with the times of files to the nanosecond in ``times.json``."""
    files = sorted(path for each in ROOT.iterdir() if each.name not in LEFT_OUT for path in [each, *each.rglob("*")])
    times = {
        str(path.relative_to(ROOT)): path.stat().st_mtime_ns
        for path in files
        if path.is_file() and not path.is_symlink()
    }
    (ROOT / "times.json").write_text(json.dumps(times, indent=0))
    content = io.BytesIO()
    with gzip.GzipFile(fileobj=content, mode="wb", mtime=0) as out, tarfile.open(fileobj=out, mode="w") as archive:
        for path in [ROOT / "times.json", *files]:
            archive.add(path, path.relative_to(ROOT), recursive=False, filter=without_owner)
    return content.getvalue()


def without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """A file of nobody's."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


FOREIGN = re.compile(rb"/tmp/(?!script|runs)|/work\b|/root\b|/home/\w|/opt/|wt-|legacy|(?<![\w-])vm(?![\w-])")
"""What would be of the machine that recorded; ``/deriva-ml-v01/tmp`` and ``/deriva-ml-v01/home`` are not."""


def check(content: bytes) -> None:
    """Refuse data in which a path of the machine stands, also in what is zipped."""
    found = set()
    for name, text in contents("recorded.tar.gz", content):
        neutral = text.replace(b"/deriva-ml-v01/tmp", b"").replace(b"/deriva-ml-v01/home", b"")
        found |= {f"{name}: {neutral[max(0, m.start() - 60) : m.end() + 60]!r}" for m in FOREIGN.finditer(neutral)}
    assert not found, "\n".join(sorted(found))


def contents(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    """A file, and each file in it where it is an archive."""
    import zlib

    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for member in archive:
                yield f"{name}:{member.name}", member.name.encode() + b"\n" + member.linkname.encode()
                if member.isfile():
                    yield from contents(f"{name}:{member.name}", archive.extractfile(member).read())  # type: ignore[union-attr]
    elif content[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(content)) as zipped:
            for each in zipped.namelist():
                yield from contents(f"{name}:{each}", zipped.read(each))
    elif "/.git/objects/" in name and content[:1] == b"\x78":
        yield name, zlib.decompress(content)
    else:
        yield name, content


if __name__ == "__main__":
    if len(sys.argv) > 1:
        {scene.__name__: scene for scene in [*SCENES, *PARTS]}[sys.argv[1]]()
    else:
        record()
