"""Record of a Lightning training for every way it can end: status, epochs, metrics, checkpoints, exit code."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from training_helpers import outputs, status_messages

torch = pytest.importorskip("torch", reason="torch is not installed")

from lightning_helpers import (  # noqa: E402
    IGNORED,
    create_model,
    create_trainer,
    execution_callback,
    own_callback,
    training_loader,
    validation_loader,
)

from deriva_ml import DerivaML  # noqa: E402
from deriva_ml_core.definitions import Status  # noqa: E402
from deriva_ml_core.errors import DerivaMLWarning  # noqa: E402
from deriva_ml_core.execution.execution import Execution  # noqa: E402

pytestmark = IGNORED


@dataclass(frozen=True)
class Ending:
    """Expected exit code, status, start of the detail, and number of recorded steps."""

    code: int
    status: Status
    detail: str
    steps: int = 9
    models: tuple[str, ...] = ("epoch-0002.ckpt",)
    sent: bool = True


ENDINGS = {
    "none": Ending(0, Status.completed, "", 12, ("epoch-0003.ckpt",)),
    "step": Ending(1, Status.failed, "ValueError: in a step"),
    "validation": Ending(1, Status.failed, "ValueError: in validation", 12),
    "another callback": Ending(1, Status.failed, "ValueError: in a callback"),
    "data worker": Ending(1, Status.failed, "ValueError: Caught ValueError in DataLoader worker", 3, ()),
    "SIGINT": Ending(1, Status.aborted, "KeyboardInterrupt"),
    "SIGTERM": Ending(143, Status.aborted, "SIGTERM"),
    "SIGTERM with a handler": Ending(143, Status.aborted, "SIGTERM", 10),
    "os._exit": Ending(3, Status.aborted, "The run ended without reporting a status", sent=False),
    "SIGKILL": Ending(-9, Status.aborted, "The run ended without reporting a status", sent=False),
    "SIGINT in the user's with": Ending(1, Status.aborted, "KeyboardInterrupt", sent=False),
    "SIGTERM in the user's with": Ending(143, Status.aborted, "SIGTERM", sent=False),
    "requeue": Ending(0, Status.completed, "", 12, ("epoch-0002.ckpt", "hpc_ckpt_1.ckpt", "fit-2-epoch-0003.ckpt")),
}


@dataclass(frozen=True)
class EndedTrainings:
    """The trainings after their end: catalog, executions, exit codes and working folder."""

    ml: DerivaML
    codes: Mapping[str, int]
    folder: Path

    def execution(self, ending: str) -> Execution:
        return self.ml.restore_execution((self.folder / ending).read_text())


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> EndedTrainings:
    """Run all endings one after the other; the requeued job runs again."""
    top = tmp_path_factory.mktemp("endings")
    home, folder, programs = (top / name for name in ("home", "runs", "bin"))
    folder.mkdir()
    programs.mkdir()
    (programs / "scontrol").write_text(f'#!/bin/sh\necho "$@" > {folder}/scontrol\n')
    (programs / "scontrol").chmod(0o755)
    environ = {**os.environ, "DERIVA_ML_HOME": str(home), "PATH": f"{programs}:{os.environ['PATH']}"}
    script = Path(__file__).with_name("lightning_exit_program.py")
    package = "lightning.pytorch" if _is_installed("lightning") else "pytorch_lightning"
    command = [sys.executable, script, package, folder, *ENDINGS, "requeued"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return EndedTrainings(DerivaML(f"file:{home / 'local'}"), json.loads(done.stdout.splitlines()[-1]), folder)


def _is_installed(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None


@pytest.mark.parametrize("ending", ENDINGS)
def test_ending_is_recorded(ended: EndedTrainings, ending: str) -> None:
    """Status, exit code, epochs, steps and checkpoints are recorded, and files are uploaded if possible."""
    expected = ENDINGS[ending]
    execution = ended.execution(ending)
    lines = [json.loads(line) for line in (execution.working_dir / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if line["by"] == "step"]
    epochs = [line["epoch"] for line in lines if line["by"] == "epoch"]
    assert ended.codes[ending] == (143 if ending == "requeue" else expected.code)
    assert (execution.status, execution.status_detail.startswith(expected.detail)) == (expected.status, True)
    assert sorted(set(steps)) == list(range(1, expected.steps + 1))
    assert epochs == list(range(1, expected.steps // 4 + 1 - (ending == "validation")))
    assert [message.partition("/")[0] for message in status_messages(execution) if message.startswith("Epoch")] == [
        f"Epoch {epoch}" for epoch in epochs
    ]
    staged = {asset.filename for asset in execution.staged_assets() if asset.table == "Model"}
    sent = set(outputs(ended.ml, execution, "Model"))
    models: set[str] = set(expected.models)
    assert (sent, staged) == ((models, set()) if expected.sent else (set(), models))
    assert execution.duration is not None


def test_requeued_job_resumes(ended: EndedTrainings) -> None:
    """The checkpoint saved before SLURM requeues the job is recorded, and the next job continues the run."""
    assert (ended.folder / "scontrol").read_text() == "requeue 77\n"
    assert (ended.folder / "requeued").read_text() == (ended.folder / "requeue").read_text()
    assert ended.codes["requeued"] == 0
    messages = status_messages(ended.execution("requeue"))
    assert "The cluster requeues the job; it will resume from hpc_ckpt_1.ckpt" in messages
    assert messages.index("SIGTERM") < next(place for place, each in enumerate(messages) if each.startswith("Epoch 3"))


def test_user_sigterm_handler_is_called(ended: EndedTrainings) -> None:
    """A SIGTERM handler that the user has installed is called."""
    assert (ended.folder / "handler").exists()


def outcome(execution: Execution) -> str:
    """Return the outcome of the last fit, from its summary."""
    return json.loads((execution.working_dir / "training.json").read_text())["fits"][-1]["outcome"]


def test_early_stopping(execution: Execution, package: ModuleType) -> None:
    """The outcome of a fit that stops early has the epoch, the reason and the best epoch."""
    scores = [3.0, 1.0, 2.0, 2.5, 2.6]

    def on_train_epoch_end(self: Any) -> None:
        self.log("score", scores[self.current_epoch])

    stopping = package.callbacks.EarlyStopping("score", patience=2)
    with execution:
        trainer = create_trainer(package, execution_callback(execution, upload="never"), stopping, max_epochs=9)
        trainer.fit(create_model(package, on_train_epoch_end=on_train_epoch_end), training_loader())
    reason = "early stopping in epoch 4: score did not improve in 2 checks (best 1 in epoch 2, patience 2)"
    assert status_messages(execution)[-1] == f"Fit ended after 4 of 9 epochs: {reason}".partition(" (")[0]
    assert outcome(execution) == reason
    assert len(status_messages(execution)) == 5


def test_early_stopping_on_nan(execution: Execution, lightning: ModuleType) -> None:
    """Other reasons of EarlyStopping are recorded in its own text."""

    def on_train_epoch_end(self: Any) -> None:
        self.log("score", float("nan"))

    with execution:
        trainer = create_trainer(
            lightning,
            execution_callback(execution, upload="never"),
            lightning.callbacks.EarlyStopping("score"),
            max_epochs=9,
        )
        trainer.fit(create_model(lightning, on_train_epoch_end=on_train_epoch_end), training_loader())
    assert "score = nan is not finite" in outcome(execution)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_time": timedelta(microseconds=1)}, "max_time reached"),
        ({"max_steps": 6}, "max_steps=6 reached"),
        ({"fast_dev_run": True}, "fast_dev_run: a test of the code, not a training"),
        ({}, "completed"),
    ],
)
def test_outcome(execution: Execution, lightning: ModuleType, options: dict[str, Any], reason: str) -> None:
    """The outcome has the reason why a fit ended before its last epoch."""
    with execution:
        create_trainer(lightning, execution_callback(execution, upload="never"), **options).fit(
            create_model(lightning), training_loader()
        )
    assert outcome(execution) == reason


def test_should_stop(execution: Execution, lightning: ModuleType) -> None:
    """A module that stops the training is recorded as that."""

    def on_train_epoch_end(self: Any) -> None:
        self.trainer.should_stop = self.current_epoch == 1

    with execution:
        create_trainer(lightning, execution_callback(execution, upload="never"), max_epochs=5).fit(
            create_model(lightning, on_train_epoch_end=on_train_epoch_end), training_loader()
        )
    assert outcome(execution) == "trainer.should_stop was set"
    assert status_messages(execution)[-1] == "Fit ended after 2 of 5 epochs: trainer.should_stop was set"


def test_fit_after_failure_is_new_execution(ml: DerivaML, lightning: ModuleType) -> None:
    """A second attempt with the same callback is a new execution."""
    fails: list[bool] = [True, False]

    def on_train_epoch_start(self: Any) -> None:
        if self.current_epoch == 1 and fails.pop(0):
            raise RuntimeError("stop")

    one = own_callback(ml, checkpoints="all")
    model = create_model(lightning, on_train_epoch_start=on_train_epoch_start)
    with pytest.raises(RuntimeError, match="stop"):
        create_trainer(lightning, one).fit(model, training_loader())
    first = one.execution
    create_trainer(lightning, one).fit(model, training_loader(), validation_loader())
    assert first.status is Status.failed
    assert (one.execution.status, one.execution.execution_rid != first.execution_rid) == (Status.completed, True)
    assert [len(outputs(ml, each, "Model")) for each in (first, one.execution)] == [1, 3]


def prune(trainer: Any) -> None:
    """Raise after the validation of the third epoch, as a pruner does."""
    if trainer.current_epoch == 2 and not trainer.sanity_checking:
        raise RuntimeError(f"pruned at {float(trainer.callback_metrics['val_loss']):.6f}")


def values_of_validation(execution: Execution) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the last two lines of the metrics file without times, and the values of the last progress."""
    lines = [json.loads(line) for line in (execution.working_dir / "metrics.jsonl").read_text().splitlines()]
    progress = [status.progress for status in execution.list_statuses() if status.progress][-1]
    keys = ("stage", "by", "epoch", "step")
    return [{key: line[key] for key in keys} | {"names": set(line["values"])} for line in lines[-2:]], dict(
        progress.metrics
    )


@pytest.mark.parametrize("where", ["other callback", "module", "mid-epoch"])
def test_validation_of_interrupted_epoch(ml: DerivaML, execution: Execution, package: ModuleType, where: str) -> None:
    """If an exception ends an epoch after its validation, the validation is recorded, also in the catalog."""

    class Pruner(package.Callback):
        def on_validation_end(self, trainer: Any, *_: Any) -> None:
            prune(trainer)

    pruners = [] if where == "module" else [Pruner()]
    hooks = {"on_validation_end": lambda self: prune(self.trainer)} if where == "module" else {}
    options = {"val_check_interval": 0.5} if where == "mid-epoch" else {}
    trainer = create_trainer(package, *pruners, execution_callback(execution, upload="never"), **options)
    model = create_model(package, **hooks)
    with pytest.raises(RuntimeError, match="pruned at") as raised, execution:
        trainer.fit(model, training_loader(), validation_loader())
    lines, metrics = values_of_validation(execution)
    step = 10 if where == "mid-epoch" else 12
    assert lines[-1] == {"stage": "fit", "by": "step", "epoch": 3, "step": step, "names": {"val_loss"}}
    assert lines[0] == {"stage": "fit", "by": "epoch", "epoch": 2, "step": 8, "names": {"loss", "val_loss"}}
    assert str(raised.value) == f"pruned at {metrics['val_loss']:.6f}"
    (row,) = ml.select_rows("Execution_Metric", {"Execution": execution.execution_rid, "Name": "val_loss"})
    assert f"{row['Last']:.6f}" == str(raised.value).removeprefix("pruned at ")
    assert status_messages(execution)[-2] == f"Epoch 3/3, step {step}: val_loss={metrics['val_loss']:.4g}"


def test_unfinished_validation_is_not_recorded(execution: Execution, lightning: ModuleType) -> None:
    """A validation that an exception interrupts has no metrics; the sanity check never has."""

    def validation_step(self: Any, batch: Any, number: int) -> None:
        self.log("val_loss", batch[0].mean(), on_step=True, on_epoch=True)
        if not self.trainer.sanity_checking and number == 1:
            raise RuntimeError("stop")

    trainer = create_trainer(lightning, execution_callback(execution, upload="never"))
    with pytest.raises(RuntimeError, match="stop"), execution:
        trainer.fit(create_model(lightning, validation_step=validation_step), training_loader(), validation_loader())
    assert not (execution.working_dir / "metrics.jsonl").exists()


def test_second_fit_is_new_execution(ml: DerivaML, package: ModuleType) -> None:
    """Without a ``with`` block, each fit of a callback is a run of its own; a failing one is Failed and uploaded."""

    def on_train_epoch_start(self: Any) -> None:
        if self.current_epoch == 2:
            raise RuntimeError("stop")

    one = own_callback(ml, curves=False)
    create_trainer(package, one, max_epochs=1).fit(create_model(package), training_loader())
    first = one.execution
    with pytest.raises(RuntimeError, match="stop"):
        create_trainer(package, one).fit(
            create_model(package, on_train_epoch_start=on_train_epoch_start), training_loader()
        )
    second = one.execution
    assert (first.status, second.status, second.status_detail) == (
        Status.completed,
        Status.failed,
        "RuntimeError: stop",
    )
    heads = [[message.partition(":")[0] for message in status_messages(each)] for each in (first, second)]
    assert heads == [["Epoch 1/1"], ["Epoch 1/3", "Epoch 2/3", "RuntimeError"]]
    assert second.staged_assets() == []
    assert list(outputs(ml, second, "Model")) == ["epoch-0002.ckpt"]


def test_failed_stage_after_the_end_is_in_the_record(ml: DerivaML, package: ModuleType) -> None:
    """A test that fails after its run has completed leaves it Completed, and its error is a status message."""

    def test_step(self: Any, *_: Any) -> None:
        raise RuntimeError("no labels")

    one = own_callback(ml, curves=False)
    model = create_model(package, test_step=test_step)
    trainer = create_trainer(package, one, max_epochs=1)
    trainer.fit(model, training_loader())
    with pytest.raises(RuntimeError, match="no labels"):
        trainer.test(model, validation_loader(), verbose=False)
    assert (one.execution.status, status_messages(one.execution)[-1]) == (
        Status.completed,
        "Failed after the end of the run: RuntimeError: no labels",
    )
    (row,) = ml.select_rows("Execution", {"RID": one.execution.execution_rid})
    assert row["Status_Detail"] == "Failed after the end of the run: RuntimeError: no labels"


def test_failing_exception_hook_of_another_callback(ml: DerivaML, package: ModuleType) -> None:
    """If another callback's ``on_exception`` raises, this one's is not called; the next fit records the failure."""

    class Failing(package.Callback):
        def on_exception(self, *_: Any) -> None:
            raise RuntimeError("the second")

    def on_train_epoch_start(self: Any) -> None:
        if self.current_epoch == 1:
            raise ValueError("the first")

    before = sys.excepthook, threading.excepthook
    one = own_callback(ml)
    model = create_model(package, on_train_epoch_start=on_train_epoch_start)
    try:
        create_trainer(package, Failing(), one).fit(model, training_loader())
    except RuntimeError:
        first = one.execution
        assert first.status is Status.running
        create_trainer(package, one, max_epochs=1).fit(create_model(package), training_loader())
    assert (first.status, first.status_detail) == (Status.failed, "RuntimeError: the second")
    assert (one.execution.status, one.execution.execution_rid != first.execution_rid) == (Status.completed, True)
    assert (sys.excepthook, threading.excepthook) == before


def test_uncaught_failure_of_another_exception_hook(ml: DerivaML, lightning: ModuleType) -> None:
    """A failure that Lightning reports to no callback is recorded when it ends the program."""

    class Failing(lightning.Callback):
        def on_exception(self, *_: Any) -> None:
            raise RuntimeError("the second")

    def on_train_epoch_start(self: Any) -> None:
        raise ValueError("the first")

    one = own_callback(ml)
    model = create_model(lightning, on_train_epoch_start=on_train_epoch_start)
    with pytest.raises(RuntimeError, match="the second") as raised:
        create_trainer(lightning, Failing(), one).fit(model, training_loader())
    sys.excepthook(raised.type, raised.value, raised.tb)  # as Python calls it
    assert (one.execution.status, one.execution.status_detail) == (Status.failed, "RuntimeError: the second")


def copy_by_pickle(callback: Any) -> Any:
    return pickle.loads(pickle.dumps(callback))


@pytest.mark.parametrize("copy_callback", [copy.deepcopy, copy_by_pickle], ids=["deepcopy", "pickle"])
def test_copies_within_the_with_block(ml: DerivaML, package: ModuleType, copy_callback: Callable[[Any], Any]) -> None:
    """Each copy, as a tuner makes it for each trial, records its own execution, which ends with the trial."""

    def on_train_epoch_start(self: Any) -> None:
        if self.current_epoch == 1:
            raise RuntimeError("stop")

    with own_callback(ml, log_every_n_steps=2) as one:
        create_trainer(package, copy_callback(one), max_epochs=1).fit(create_model(package), training_loader())
        failing = copy_callback(one)
        with pytest.raises(RuntimeError, match="stop"):
            create_trainer(package, failing).fit(
                create_model(package, on_train_epoch_start=on_train_epoch_start), training_loader()
            )
    assert [each.status for each in ml.find_executions()] == [Status.failed, Status.completed]
    assert failing.execution.status_detail == "RuntimeError: stop"


def test_copy_during_a_fit(ml: DerivaML, execution: Execution, package: ModuleType) -> None:
    """A copy that is made during a fit records its own fits; original and copy work in one Trainer."""
    copies: list[Any] = []

    def on_train_epoch_start(self: Any) -> None:
        if not copies:
            copies.append(copy.deepcopy(one))

    with execution:
        one = execution_callback(execution, upload="never")
        create_trainer(package, one, max_epochs=1).fit(
            create_model(package, on_train_epoch_start=on_train_epoch_start), training_loader()
        )
        assert copies[0].execution is execution
        create_trainer(package, copies[0], max_epochs=1).fit(create_model(package), training_loader())
        with pytest.warns(DerivaMLWarning, match="two DerivaMLCallbacks for one execution"):
            create_trainer(package, one, copy.deepcopy(one), max_epochs=1).fit(create_model(package), training_loader())
    fits = json.loads((execution.working_dir / "training.json").read_text())["fits"]
    assert [fit["outcome"] for fit in fits] == ["completed"] * 3
