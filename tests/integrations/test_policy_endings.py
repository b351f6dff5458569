"""What the end of a training waits for, which names it tells apart, what it says once, and what it clears away."""

from __future__ import annotations

import errno
import logging
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from test_policy import BEST, LAST, WORKFLOW, epoch, kept, lines, on_disk
from trainings import Line

from deriva_ml import DerivaML, ExecutionConfiguration
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import UploadFailed
from deriva_ml_core.execution import Execution
from deriva_ml_core.implicit_execution import resolve_execution
from deriva_ml_core.training import TrainingReporter


@dataclass
class Hanging:
    """An upload beside the training that does not come to its end until it may."""

    may_go_on: threading.Event = field(default_factory=threading.Event)
    is_there: threading.Event = field(default_factory=threading.Event)

    def __call__(self, name: str) -> None:
        if name.startswith("insert") and threading.current_thread() is not threading.main_thread():
            self.is_there.set()
            self.may_go_on.wait(120)


def test_the_end_of_a_fit_waits_for_no_upload_that_hangs(ml: DerivaML, execution: Execution, line: Line) -> None:
    """What does not move for as long as the drain is left, with all that waits behind it; later all is sent once."""
    hanging = Hanging()
    with execution:
        report = TrainingReporter(execution, upload="stream", checkpoints="all", exit_timeout=0.1, curves=False)
        report.begin_fit(epochs=2)
        line.heard = hanging
        epoch(report, 1, loss=1.0)
        assert hanging.is_there.wait(60)
        epoch(report, 2, loss=0.5)
        with pytest.raises(UploadFailed, match=r"has not moved for 0\.1 seconds"):
            report.end_fit()
        hanging.may_go_on.set()
        assert report._worker.drain(60)
    execution.upload_execution_outputs()
    assert kept(execution) == {}
    models = [asset.filename for asset in execution.list_assets("Output") if asset.table == "Model"]
    assert sorted(models) == ["epoch-0001.txt", "epoch-0002.txt"]


def test_several_reporters_wait_as_long_as_one(execution: Execution) -> None:
    """At the end of a run the time that was waited for one training's rest is gone for the others'."""
    allowed: list[float] = []

    def drain(seconds: float) -> bool:
        allowed.append(seconds)
        return threading.Event().wait(0.05)

    with execution:
        for _ in range(3):
            report = TrainingReporter(execution, upload="never", checkpoints="none", exit_timeout=100)
            report._worker.drain = drain  # type: ignore[method-assign]
    assert len(allowed) == 3
    assert [seconds <= 100 - 0.05 * number for number, seconds in enumerate(allowed)] == [True] * 3


@pytest.mark.parametrize("template", ["model", "{epoch:03d}", "folder/model"])
def test_another_fit_writes_over_nothing(execution: Execution, template: str) -> None:
    """A name without the fit gets it, so that what an earlier fit staged is not lost."""
    with execution:
        report = TrainingReporter(execution, filename=template, upload="never", checkpoints="last")
        for loss in (1.0, 2.0):
            report.begin_fit(epochs=1)
            report.save_checkpoint(1, ".txt", lambda path, loss=loss: path.write_text(f"{loss}"), {"loss": loss})
            report.end_fit()
        folder, slash, name = template.format(epoch=1).rpartition("/")
        paths = [f"{folder}{slash}{name}.txt", f"{folder}{slash}fit-2-{name}.txt"]
        assert kept(execution) == dict.fromkeys(paths, LAST)
        assert [(report.checkpoints.folder / path).read_text() for path in paths] == ["1.0", "2.0"]


def test_all_checkpoints_have_names_of_their_own(execution: Execution) -> None:
    """Where the template calls them alike, each keeps its bytes under a name with its epoch."""
    with execution:
        report = TrainingReporter(execution, filename="model", upload="never", checkpoints="all")
        for number, loss in enumerate((1.0, 0.5, 2.0), start=1):
            epoch(report, number, loss=loss)
        report.end_fit()
        assert kept(execution) == {"model.txt": set(), "model-epoch-0002.txt": BEST, "model-epoch-0003.txt": LAST}
        folder = report.checkpoints.folder
        assert [(folder / name).read_text() for name in kept(execution)] == ["w1", "w2", "w3"]


def test_what_a_killed_process_was_writing_goes_with_the_next_upload(execution: Execution) -> None:
    """Half a checkpoint is in nobody's way and in no catalog; the upload after the end deletes it."""
    child = os.fork()
    if child == 0:
        with execution:
            report = TrainingReporter(execution, upload="never")
            report.begin_fit()

            def write(path: Path) -> None:
                path.write_text("half")
                os._exit(9)

            report.save_checkpoint(1, ".weights.h5", write, {"loss": 1.0})
    os.waitpid(child, 0)
    (half,) = on_disk(execution)
    assert half.startswith(".")
    assert half.endswith(".weights.h5")
    with execution:
        pass
    for path in [asset.path for asset in execution.staged_assets() if asset.table == "Model"]:
        execution.forget(path)
    execution.upload_execution_outputs()
    assert on_disk(execution) == set()


def test_a_full_disk_is_said_once(
    execution: Execution, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning without a traceback while there is no room; another only when it is full again."""
    write, full = os.write, [False]

    def refusing(descriptor: int, line: bytes) -> int:
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, line)

    with execution:
        report = TrainingReporter(execution, upload="never", checkpoints="none", curves=False)
        report.begin_fit()
        monkeypatch.setattr("deriva_ml_core.training.metrics_file.os.write", refusing)
        for number in range(1, 13):
            full[0] = number in (2, 3, 4, 5, 8, 9, 10)
            report.end_epoch(number, {"loss": 1.0})
        report.end_fit()
    said = [record for record in caplog.records if record.levelno >= logging.WARNING]
    files = [Path(record.getMessage().partition(" cannot be written")[0]).name for record in said]
    assert files == ["metrics.jsonl", "journal.jsonl"] * 2
    assert [record.exc_info for record in said] == [None] * 4
    assert [line["epoch"] for line in lines(execution.working_dir / "metrics.jsonl")] == list(range(1, 13))


def test_an_own_run_that_fails_and_is_sent_does_not_say_that_it_is_not(
    ml: DerivaML, caplog: pytest.LogCaptureFixture
) -> None:
    """Its checkpoints are uploaded right after its end: no warning tells how to send them."""
    report = TrainingReporter(resolve_execution(ml, ExecutionConfiguration(workflow=WORKFLOW)), curves=False)
    report.begin_fit(epochs=2)
    epoch(report, 1, loss=1.0)
    report.fail(ValueError("no data"))
    assert report.execution.status is Status.failed
    assert kept(report.execution) == {}
    assert "staged and not uploaded" not in caplog.text


@pytest.mark.parametrize("upload", ["never", "end"])
def test_an_own_run_that_fails_and_is_not_sent_says_how(
    ml: DerivaML, line: Line, caplog: pytest.LogCaptureFixture, upload: str
) -> None:
    """Where nothing is sent, or it fails, the one warning names the number of files and the call."""
    report = TrainingReporter(
        resolve_execution(ml, ExecutionConfiguration(workflow=WORKFLOW)), curves=False, upload=upload
    )  # type: ignore[arg-type]
    report.begin_fit(epochs=2)
    epoch(report, 1, loss=1.0)
    line.is_cut = upload == "end"
    report.fail(ValueError("no data"))
    line.is_cut = False
    assert caplog.text.count("staged and not uploaded") == 1
