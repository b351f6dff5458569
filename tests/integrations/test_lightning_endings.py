"""What is on record of a Lightning training, however it ended: state, epochs, metrics, checkpoints, exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from trainings import outputs, told

torch = pytest.importorskip("torch", reason="torch is not installed")

from lightnings import IGNORED, callback, held_out, loader, model_of, own_callback, trainer_of  # noqa: E402

from deriva_ml import DerivaML  # noqa: E402
from deriva_ml_core.definitions import Status  # noqa: E402
from deriva_ml_core.execution.execution import Execution  # noqa: E402

pytestmark = IGNORED


@dataclass(frozen=True)
class Ending:
    """What an ending leaves: the exit code, the state, what its detail begins with, and how many steps are kept."""

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
class Ended:
    """The trainings that ended: their catalog, executions and exit codes, and the folder that they worked in."""

    ml: DerivaML
    codes: Mapping[str, int]
    folder: Path

    def execution(self, ending: str) -> Execution:
        return self.ml.restore_execution((self.folder / ending).read_text())


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """All of them, run one after the other; the job that was requeued runs again."""
    top = tmp_path_factory.mktemp("endings")
    home, folder, programs = (top / name for name in ("home", "told", "bin"))
    folder.mkdir()
    programs.mkdir()
    (programs / "scontrol").write_text(f'#!/bin/sh\necho "$@" > {folder}/scontrol\n')
    (programs / "scontrol").chmod(0o755)
    environ = {**os.environ, "DERIVA_ML_HOME": str(home), "PATH": f"{programs}:{os.environ['PATH']}"}
    script = Path(__file__).with_name("ended_trainings.py")
    package = "lightning.pytorch" if _is_installed("lightning") else "pytorch_lightning"
    command = [sys.executable, script, package, folder, *ENDINGS, "requeued"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    return Ended(DerivaML(f"file:{home / 'local'}"), json.loads(done.stdout.splitlines()[-1]), folder)


def _is_installed(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_ending_is_on_record(ended: Ended, ending: str) -> None:
    """State, exit code, each epoch, each step and the checkpoints are right; what can be sent is."""
    expected = ENDINGS[ending]
    execution = ended.execution(ending)
    lines = [json.loads(line) for line in (execution.working_dir / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if line["by"] == "step"]
    epochs = [line["epoch"] for line in lines if line["by"] == "epoch"]
    assert ended.codes[ending] == (143 if ending == "requeue" else expected.code)
    assert (execution.status, execution.status_detail.startswith(expected.detail)) == (expected.status, True)
    assert sorted(set(steps)) == list(range(1, expected.steps + 1))
    assert epochs == list(range(1, expected.steps // 4 + 1 - (ending == "validation")))
    assert [message.partition("/")[0] for message in told(execution) if message.startswith("Epoch")] == [
        f"Epoch {epoch}" for epoch in epochs
    ]
    staged = {asset.filename for asset in execution.staged_assets() if asset.table == "Model"}
    sent = set(outputs(ended.ml, execution, "Model"))
    models: set[str] = set(expected.models)
    assert (sent, staged) == ((models, set()) if expected.sent else (set(), models))
    assert execution.duration is not None


def test_a_requeued_job_goes_on(ended: Ended) -> None:
    """Before SLURM takes the job back, what Lightning saves is kept and told; the next life goes on with the run."""
    assert (ended.folder / "scontrol").read_text() == "requeue 77\n"
    assert (ended.folder / "requeued").read_text() == (ended.folder / "requeue").read_text()
    assert ended.codes["requeued"] == 0
    messages = told(ended.execution("requeue"))
    assert "The cluster requeues the job; hpc_ckpt_1.ckpt is kept to go on from" in messages
    assert messages.index("SIGTERM") < next(place for place, each in enumerate(messages) if each.startswith("Epoch 3"))


def test_a_users_handler_is_called(ended: Ended) -> None:
    """A handler of SIGTERM that the user had set hears of it."""
    assert (ended.folder / "handler").exists()


def outcome(execution: Execution) -> str:
    """How the last fit ended, as its settings file tells."""
    return json.loads((execution.working_dir / "training.json").read_text())["fits"][-1]["outcome"]


def test_early_stopping_is_told(execution: Execution, package: ModuleType) -> None:
    """A fit that stops early says in which epoch, why, and which epoch was the best."""
    scores = [3.0, 1.0, 2.0, 2.5, 2.6]

    def on_train_epoch_end(self: Any) -> None:
        self.log("score", scores[self.current_epoch])

    stopping = package.callbacks.EarlyStopping("score", patience=2)
    with execution:
        trainer = trainer_of(package, callback(execution, upload="never"), stopping, max_epochs=9)
        trainer.fit(model_of(package, on_train_epoch_end=on_train_epoch_end), loader())
    reason = "early stopping in epoch 4: score did not improve in 2 checks (best 1 in epoch 2, patience 2)"
    assert told(execution)[-1] == f"Fit ended after 4 of 9 epochs: {reason}".partition(" (")[0]
    assert outcome(execution) == reason
    assert len(told(execution)) == 5


def test_a_metric_that_is_no_number_stops(execution: Execution, lightning: ModuleType) -> None:
    """EarlyStopping's other reasons are told in its own words."""

    def on_train_epoch_end(self: Any) -> None:
        self.log("score", float("nan"))

    with execution:
        trainer = trainer_of(
            lightning, callback(execution, upload="never"), lightning.callbacks.EarlyStopping("score"), max_epochs=9
        )
        trainer.fit(model_of(lightning, on_train_epoch_end=on_train_epoch_end), loader())
    assert "score = nan is not finite" in outcome(execution)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_time": timedelta(microseconds=1)}, "max_time is over"),
        ({"max_steps": 6}, "max_steps=6 reached"),
        ({"fast_dev_run": True}, "fast_dev_run: a trial of the code, not a training"),
        ({}, "completed"),
    ],
)
def test_why_a_fit_ended(execution: Execution, lightning: ModuleType, options: dict[str, Any], reason: str) -> None:
    """What ended a fit before its last epoch is told."""
    with execution:
        trainer_of(lightning, callback(execution, upload="never"), **options).fit(model_of(lightning), loader())
    assert outcome(execution) == reason


def test_a_stop_by_others_is_told(execution: Execution, lightning: ModuleType) -> None:
    """A module that asks for the end of the training is told as that."""

    def on_train_epoch_end(self: Any) -> None:
        self.trainer.should_stop = self.current_epoch == 1

    with execution:
        trainer_of(lightning, callback(execution, upload="never"), max_epochs=5).fit(
            model_of(lightning, on_train_epoch_end=on_train_epoch_end), loader()
        )
    assert outcome(execution) == "trainer.should_stop was set"
    assert told(execution)[-1] == "Fit ended after 2 of 5 epochs: trainer.should_stop was set"


def test_a_failure_is_sent_by_a_callback_of_its_own(ml: DerivaML, lightning: ModuleType) -> None:
    """A second try with the same callback is a run of its own."""
    fails: list[bool] = [True, False]

    def on_train_epoch_start(self: Any) -> None:
        if self.current_epoch == 1 and fails.pop(0):
            raise RuntimeError("stop")

    one = own_callback(ml, checkpoints="all")
    model = model_of(lightning, on_train_epoch_start=on_train_epoch_start)
    with pytest.raises(RuntimeError, match="stop"):
        trainer_of(lightning, one).fit(model, loader())
    first = one.execution
    trainer_of(lightning, one).fit(model, loader(), held_out())
    assert first.status is Status.failed
    assert (one.execution.status, one.execution.execution_rid != first.execution_rid) == (Status.completed, True)
    assert [len(outputs(ml, each, "Model")) for each in (first, one.execution)] == [1, 3]
