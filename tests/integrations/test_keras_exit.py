"""Record of a Keras training for every way it can end: status, every metric, and complete checkpoints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from keras_helpers import NUMPY_2, CallAtEpoch, compile_model, fit, fit_summaries, metrics_lines
from training_helpers import outputs

from deriva_ml import DerivaML, ExecutionConfiguration, Workflow
from deriva_ml_core.definitions import Status
from deriva_ml_keras import DerivaMLCallback

WORKFLOW = Workflow(name="Ends", workflow_type="Training", url="https://example.org/e.py", checksum="5" * 40)
SCRIPT = Path(__file__).parent / "keras_exit_program.py"


@dataclass(frozen=True)
class Ending:
    """Expected record of a way to end."""

    name: str
    status: Status
    detail: str
    codes: tuple[int, ...]
    outcomes: tuple[str, ...]
    last: str


FAILED = "RuntimeError: failed in a "
ENDINGS = (
    Ending("normal", Status.completed, "", (0,), ("completed",), "epoch-0004.keras"),
    Ending("step", Status.failed, FAILED, (1,), (f"{FAILED}step",), "epoch-0002.keras"),
    Ending("validation", Status.failed, FAILED, (1,), (f"{FAILED}validation",), "epoch-0002.keras"),
    Ending("callback", Status.failed, FAILED, (1,), (f"{FAILED}callback",), "epoch-0003.keras"),
    Ending("SIGINT", Status.aborted, "KeyboardInterrupt", (-2, 1, 130), ("KeyboardInterrupt: ",), "epoch-0002.keras"),
    Ending("SIGTERM", Status.aborted, "SIGTERM", (143,), ("SystemExit: 143",), "epoch-0002.keras"),
    Ending("SIGKILL", Status.aborted, "", (-9,), (), "epoch-0002.keras"),
    Ending("twice", Status.completed, "", (0,), ("completed", "completed"), "fit-2-epoch-0004.keras"),
)
WAYS = {"with": "", "own": "-own", "bare": "-bare"}
"""Suffixes of the endings by how the execution ends: the user's ``with`` block, that of the callback, or none."""


@dataclass(frozen=True)
class EndedTrainings:
    """All trainings of one way, after their end."""

    own: str
    folder: Path
    home: Path
    codes: dict[str, int]


@pytest.fixture(scope="module")
def all_ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """Run each ending of each way, all in one catalog; the folder of the trainings, and their exit codes."""
    names = [f"{each.name}{own}" for own in WAYS.values() for each in ENDINGS]
    folder = tmp_path_factory.mktemp("endings")
    environ = {**os.environ, "KERAS_BACKEND": "torch", "DERIVA_ML_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, SCRIPT, folder, *names], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder, {name: int(code) for name, _, code in (line.partition(" ") for line in done.stdout.splitlines())}


@pytest.fixture(params=WAYS)
def ended(request: pytest.FixtureRequest, all_ended: tuple[Path, dict[str, int]]) -> EndedTrainings:
    """The trainings of one way."""
    folder, codes = all_ended
    return EndedTrainings(WAYS[request.param], folder, folder / "home", codes)


@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.name)
def test_ending_is_recorded(ended: EndedTrainings, ending: Ending, monkeypatch: pytest.MonkeyPatch) -> None:
    """Status, exit code, every metric, the outcome of each fit and the last complete checkpoint are recorded."""
    monkeypatch.setenv("DERIVA_ML_HOME", str(ended.home))
    own = ended.own
    name = ending.name + own
    ml = DerivaML()
    execution = ml.restore_execution((ended.folder / f"{name}.rid").read_text())
    assert execution.status is ending.status
    assert ending.detail in execution.status_detail
    assert ended.codes[name] in ending.codes
    emitted = (ended.folder / f"{name}.points").read_text().splitlines()
    outcomes, last = ending.outcomes, ending.last
    if name == "twice-bare":  # without a ``with`` block, the second fit is another execution
        emitted, outcomes, last = emitted[len(emitted) // 2 :], ("completed",), "epoch-0004.keras"
    recorded = metrics_lines(execution, stage="fit")
    assert [(each["by"], each["epoch"]) for each in recorded] == [
        (by, int(epoch)) for by, epoch, _ in (point.split(" ", 2) for point in emitted)
    ]
    assert len(metrics_lines(execution, stage="test")) == (ending.name == "twice")
    if own and ending.name != "SIGKILL":  # the callback uploads at the end of its execution
        assert [each for each in execution.staged_assets() if each.table == "Model"] == []
    assert tuple(fit["outcome"] for fit in fit_summaries(execution) if "outcome" in fit) == outcomes
    execution.upload_execution_outputs()
    assert "Last_Checkpoint" in outputs(ml, execution, "Model")[last].asset_types
    assert "metrics.jsonl" in outputs(ml, execution, "Execution_Metadata")


@NUMPY_2
def test_forked_child_does_not_end_the_training(ml: DerivaML) -> None:
    """A child that is forked in a fit and leaves the callback's ``with`` by an exception ends neither fit nor run."""
    configuration = ExecutionConfiguration(workflow=WORKFLOW)
    recorder = DerivaMLCallback(ml=ml, configuration=configuration, curves=False, checkpoints="none")
    children = []

    def fork_once() -> None:
        children.append(os.fork())
        if children[-1] == 0:
            raise RuntimeError("of the child")
        assert os.waitstatus_to_exitcode(os.waitpid(children[-1], 0)[1]) == 7
        assert ml.lookup_execution(recorder.execution.execution_rid).status is Status.running

    try:
        with recorder:
            fit(compile_model(), recorder, CallAtEpoch(1, fork_once))
    finally:
        if children[-1:] == [0]:
            os._exit(7)
    execution = recorder.execution
    assert ml.lookup_execution(execution.execution_rid).status is Status.completed
    assert [each["outcome"] for each in fit_summaries(execution)] == ["completed"]
    assert [line["epoch"] for line in metrics_lines(execution, by="epoch")] == [1, 2, 3]
    assert [str(each.status) for each in execution.list_statuses() if each.error] == []


CALL_PROGRAM = Path(__file__).parent / "keras_call_program.py"
NO_MORE_DATA = (Status.failed, "ValueError: no more data")
HANDLED = (
    Status.failed,
    "TrainingInterrupted: The training ended before its last epoch, and the program handled the exception that ended "
    "it.",
)
COMPLETED = (Status.completed, "")


HANDLERS = {
    "nothing": [NO_MORE_DATA],
    "excepthook of the user": [NO_MORE_DATA],
    "thread": [NO_MORE_DATA],
    "other thread": [COMPLETED],
    "cell": [NO_MORE_DATA],
    "program in a cell": [HANDLED],
    "next use": [HANDLED, COMPLETED],
    "next use in except": [NO_MORE_DATA, COMPLETED],
}
"""The executions' statuses by what handles the exception."""


@pytest.fixture(scope="module")
def handled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """Run all trainings; the folder with their catalogs and outputs, and their exit codes."""
    folder = tmp_path_factory.mktemp("handled")
    environ = {**os.environ, "KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, CALL_PROGRAM, folder, *HANDLERS], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


@pytest.mark.parametrize("handler", HANDLERS)
def test_exception_of_hand_written_loop(
    handled: tuple[Path, dict[str, int]], monkeypatch: pytest.MonkeyPatch, handler: str
) -> None:
    """An exception that Keras does not report is recorded where it ends up, or by the next use of the callback."""
    home, expected = handled[0] / handler, HANDLERS[handler]
    out, error = (home / "out").read_text(), (home / "err").read_text()
    assert handled[1][handler] == (handler in ("nothing", "excepthook of the user")), error
    assert ("seen no more data" in out) is (handler == "excepthook of the user")
    assert ("no more data" in out + error) is (expected[0] == NO_MORE_DATA and "next" not in handler)
    monkeypatch.setenv("DERIVA_ML_HOME", str(home))
    ml = DerivaML()
    executions = [ml.lookup_execution(line) for line in out.splitlines() if line[:2] == "1-"]
    assert [(each.status, each.status_detail) for each in executions] == expected
    for each in executions:
        assert "metrics.jsonl" in outputs(ml, each, "Execution_Metadata")
