"""The end of a training: timeouts, unique checkpoint names, one warning per problem, cleanup."""

from __future__ import annotations

import copy
import errno
import json
import logging
import os
import pickle
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from test_training_options import BEST, LAST, WORKFLOW, file_names, lines, staged_types, train_epoch
from training_helpers import CatalogLink

from deriva_ml import DerivaML, ExecutionConfiguration
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import UploadFailed
from deriva_ml_core.execution import Execution
from deriva_ml_core.implicit_execution import resolve_execution
from deriva_ml_core.training import TrainingReporter
from waits import HANG


@dataclass
class HangingUpload:
    """A background upload that blocks until it is released."""

    may_go_on: threading.Event = field(default_factory=threading.Event)
    is_there: threading.Event = field(default_factory=threading.Event)

    def __call__(self, name: str) -> None:
        if name.startswith("insert") and threading.current_thread() is not threading.main_thread():
            self.is_there.set()
            self.may_go_on.wait(120)


def test_end_fit_stops_waiting_for_hanging_upload(
    ml: DerivaML, execution: Execution, catalog_link: CatalogLink
) -> None:
    """An upload without progress for ``exit_timeout`` raises; later each file is uploaded once."""
    hanging = HangingUpload()
    with execution:
        report = TrainingReporter(execution, upload="stream", checkpoints="all", exit_timeout=0.1, curves=False)
        report.begin_fit(epochs=2)
        catalog_link.on_call = hanging
        train_epoch(report, 1, loss=1.0)
        assert hanging.is_there.wait(HANG)
        train_epoch(report, 2, loss=0.5)
        with pytest.raises(UploadFailed, match=r"has made no progress for 0\.1 seconds"):
            report.end_fit()
        hanging.may_go_on.set()
        assert report._worker.drain(60)
    execution.upload_execution_outputs()
    assert staged_types(execution) == {}
    models = [asset.filename for asset in execution.list_assets("Output") if asset.table == "Model"]
    assert sorted(models) == ["epoch-0001.txt", "epoch-0002.txt"]


def test_reporters_share_exit_timeout(execution: Execution) -> None:
    """At the end of a run, the seconds waited for one reporter count for the others too."""
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
def test_second_fit_does_not_overwrite(execution: Execution, template: str) -> None:
    """A template without the fit gets a prefix, so that files of an earlier fit stay."""
    with execution:
        report = TrainingReporter(execution, filename=template, upload="never", checkpoints="last")
        for loss in (1.0, 2.0):
            report.begin_fit(epochs=1)
            report.save_checkpoint(1, ".txt", lambda path, loss=loss: path.write_text(f"{loss}"), {"loss": loss})
            report.end_fit()
        folder, slash, name = template.format(epoch=1).rpartition("/")
        paths = [f"{folder}{slash}{name}.txt", f"{folder}{slash}fit-2-{name}.txt"]
        assert staged_types(execution) == {paths[0]: set(), paths[1]: LAST}
        assert [(report.checkpoints.folder / path).read_text() for path in paths] == ["1.0", "2.0"]


def test_constant_filename_keeps_all_checkpoints(execution: Execution) -> None:
    """With a constant template, each checkpoint has a name with its epoch and keeps its bytes."""
    with execution:
        report = TrainingReporter(execution, filename="model", upload="never", checkpoints="all")
        for number, loss in enumerate((1.0, 0.5, 2.0), start=1):
            train_epoch(report, number, loss=loss)
        report.end_fit()
        assert staged_types(execution) == {
            "model.txt": set(),
            "model-epoch-0002.txt": BEST,
            "model-epoch-0003.txt": LAST,
        }
        folder = report.checkpoints.folder
        assert [(folder / name).read_text() for name in staged_types(execution)] == ["w1", "w2", "w3"]


def test_upload_deletes_partial_checkpoint_of_killed_process(execution: Execution) -> None:
    """A partial checkpoint of a killed process is never uploaded; the next upload deletes it."""
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
    (half,) = file_names(execution)
    assert half.startswith(".")
    assert half.endswith(".weights.h5")
    with execution:
        pass
    for path in [asset.path for asset in execution.staged_assets() if asset.table == "Model"]:
        execution.forget(path)
    execution.upload_execution_outputs()
    assert file_names(execution) == set()


def test_full_disk_warns_once(
    execution: Execution, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning without a traceback while the disk is full; another only when it is full again."""
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
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    files = [re.findall(r"\w+\.jsonl", record.getMessage())[0] for record in warnings]
    assert files == ["metrics.jsonl", "journal.jsonl"] * 2
    assert [record.exc_info for record in warnings] == [None] * 4
    assert [line["epoch"] for line in lines(execution.working_dir / "metrics.jsonl")] == list(range(1, 13))


def test_failed_and_uploaded_run_does_not_warn(ml: DerivaML, caplog: pytest.LogCaptureFixture) -> None:
    """A failed run whose files are uploaded right after its end logs no warning about staged files."""
    report = TrainingReporter(resolve_execution(ml, ExecutionConfiguration(workflow=WORKFLOW)), curves=False)
    report.begin_fit(epochs=2)
    train_epoch(report, 1, loss=1.0)
    report.fail(ValueError("no data"))
    assert report.execution.status is Status.failed
    assert staged_types(report.execution) == {}
    assert "staged" not in caplog.text


@pytest.mark.parametrize("upload", ["never", "end"])
def test_failed_and_not_uploaded_run_warns_once(
    ml: DerivaML, catalog_link: CatalogLink, caplog: pytest.LogCaptureFixture, upload: str
) -> None:
    """If nothing is uploaded or the upload fails, one warning names the number of files and the call."""
    report = TrainingReporter(
        resolve_execution(ml, ExecutionConfiguration(workflow=WORKFLOW)), curves=False, upload=upload
    )  # type: ignore[arg-type]
    report.begin_fit(epochs=2)
    train_epoch(report, 1, loss=1.0)
    catalog_link.is_down = upload == "end"
    report.fail(ValueError("no data"))
    catalog_link.is_down = False
    assert caplog.text.count("staged files that are not uploaded") == 1


def test_forked_child_does_not_end_the_training(ml: DerivaML) -> None:
    """A forked child that leaves the reporter's ``with`` uploads nothing and leaves the execution running."""
    report = TrainingReporter(resolve_execution(ml, ExecutionConfiguration(workflow=WORKFLOW)), curves=False)
    child, files = 1, ""
    try:
        with report:
            report.begin_fit(epochs=1)
            train_epoch(report, 1, loss=1.0)
            assert report._worker.drain(60)
            files = str(staged_types(report.execution))
            child = os.fork()
            if child:
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
                assert report.execution.status is Status.running
                assert str(staged_types(report.execution)) == files
    finally:
        if child == 0:
            os._exit(0)
    assert report.execution.status is Status.completed
    assert staged_types(report.execution) == {}


def test_each_fit_is_an_execution(ml: DerivaML) -> None:
    """A reporter without a ``with`` block begins a new execution for each fit; stages belong to the last."""
    report = TrainingReporter(resolve_execution(ml, ExecutionConfiguration(workflow=WORKFLOW)), curves=False)
    executions = []
    for failure in (None, ValueError("no data"), None):
        report.begin_fit(epochs=1)
        executions.append(report.execution)
        assert report.execution.status is Status.running
        train_epoch(report, 1, loss=1.0)
        report.end_fit() if failure is None else report.fail(failure)
    report.end_stage("test", {"test_loss": 1.0}, seconds=1.0)
    assert report.execution is executions[-1]
    assert [(each.status, each.status_detail) for each in executions[:2]] == [
        (Status.completed, ""),
        (Status.failed, "ValueError: no data"),
    ]
    assert executions[2].status_detail == "Test: test_loss=1 (1.0 s)"
    assert len({each.execution_rid for each in executions}) == 3
    assert [len(lines(each.working_dir / "metrics.jsonl")) for each in executions] == [1, 1, 2]
    assert [each.staged_assets() for each in executions] == [[], [], []]


@pytest.mark.parametrize("upload", ["end", "never"])
def test_fit_that_fails_after_the_with(execution: Execution, caplog: pytest.LogCaptureFixture, upload: str) -> None:
    """A fit that fails in an execution that has ended is named in its record, and its files are uploaded or named."""
    with execution:
        report = TrainingReporter(execution, curves=False, upload=upload)  # type: ignore[arg-type]
    report.begin_fit(epochs=2)
    train_epoch(report, 1, loss=1.0)
    report.fail(ValueError("no data"))
    assert (execution.status, execution.status_detail) == (
        Status.completed,
        "Failed after the end of the run: ValueError: no data",
    )
    assert (staged_types(execution) == {}) is (upload == "end")
    assert ("staged files that are not uploaded" in caplog.text) is (upload == "never")


def copy_by_pickle(report: TrainingReporter) -> TrainingReporter:
    copied: TrainingReporter = pickle.loads(pickle.dumps(report))
    return copied


COPIES = pytest.mark.parametrize("copy_reporter", [copy.deepcopy, copy_by_pickle], ids=["deepcopy", "pickle"])


@COPIES
@pytest.mark.parametrize("begun", [False, True])
def test_copy_within_the_with_block(
    ml: DerivaML, copy_reporter: Callable[[TrainingReporter], TrainingReporter], begun: bool
) -> None:
    """A copy of a reporter in its ``with`` block, as tuners make them, ends an execution of its own with each fit."""
    report = TrainingReporter(resolve_execution(ml, ExecutionConfiguration(workflow=WORKFLOW)), curves=False)
    with report:
        if begun:
            report.begin_fit(epochs=1)
            train_epoch(report, 1, loss=1.0)
        for failure in (None, ValueError("no data")):
            copied = copy_reporter(report)
            copied.begin_fit(epochs=1)
            train_epoch(copied, 1, loss=1.0)
            copied.end_fit() if failure is None else copied.fail(failure)
            assert (copied.execution.status, staged_types(copied.execution)) == (
                Status.completed if failure is None else Status.failed,
                {},
            )
    expected = [Status.failed, Status.completed] + [Status.completed] * begun
    assert [each.status for each in ml.find_executions()] == expected
    if begun:
        assert report.execution.status is Status.completed
        assert [line["epoch"] for line in lines(report.execution.working_dir / "metrics.jsonl")] == [1]


def test_copy_with_the_execution_of_the_user(execution: Execution) -> None:
    """A copy of a reporter with the user's execution records in it, and the ``with`` block ends its open fit."""
    with pytest.raises(ValueError, match="no data"), execution:
        report = TrainingReporter(execution, curves=False, upload="never")
        copied = copy.deepcopy(report)
        assert copied.execution is execution
        for each in (report, copied):
            each.begin_fit(epochs=1)
            train_epoch(each, 1, loss=1.0)
        raise ValueError("no data")
    assert [fit["outcome"] for fit in json.loads((execution.working_dir / "training.json").read_text())["fits"]] == [
        "ValueError: no data",
        "ValueError: no data",
    ]
    assert [line["fit"] for line in lines(execution.working_dir / "metrics.jsonl")] == [1, 2]


def test_execution_is_copied_as_itself(execution: Execution) -> None:
    """A copy of an object that holds an execution, such as a callback, has the same execution."""
    assert copy.deepcopy({"execution": execution})["execution"] is execution
    assert copy.copy(execution) is execution


def test_fit_in_a_forked_child(ml: DerivaML) -> None:
    """A fit in a process forked in the ``with`` block is an execution of its own, which ends with the fit."""
    report = TrainingReporter(resolve_execution(ml, ExecutionConfiguration(workflow=WORKFLOW)), curves=False)
    child = 1
    try:
        with report:
            report.begin_fit(epochs=1)
            train_epoch(report, 1, loss=1.0)
            child = os.fork()
            if child == 0:
                report.begin_fit(epochs=1)
                train_epoch(report, 1, loss=2.0)
                report.end_fit()
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            own, other = report.execution, next(iter(ml.find_executions()))
            assert other.execution_rid != own.execution_rid
            assert (own.status, other.status) == (Status.running, Status.completed)
    finally:
        if child == 0:
            os._exit(1)
    assert report.execution.status is Status.completed
    assert [line["values"] for line in lines(report.execution.working_dir / "metrics.jsonl")] == [{"loss": 1.0}]
