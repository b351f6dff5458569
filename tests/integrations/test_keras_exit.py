"""Record of a Keras training for every way it can end: status, every metric, and complete checkpoints."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from keras_helpers import fit_summaries, metrics_lines
from training_helpers import outputs

from deriva_ml import DerivaML
from deriva_ml_core.definitions import Status

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
NAMES = [f"{each.name}{own}" for each in ENDINGS for own in ("", "-own")]


@dataclass(frozen=True)
class EndedTrainings:
    """All trainings, after their end."""

    folder: Path
    home: Path
    codes: dict[str, int]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> EndedTrainings:
    """Run each ending in its own process, in one catalog."""
    folder = tmp_path_factory.mktemp("endings")
    environ = {**os.environ, "KERAS_BACKEND": "torch", "DERIVA_ML_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, SCRIPT, folder, *NAMES], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    codes = {name: int(code) for name, _, code in (line.partition(" ") for line in done.stdout.splitlines())}
    return EndedTrainings(folder, folder / "home", codes)


@pytest.mark.parametrize("own", ["", "-own"], ids=["with", "own"])
@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.name)
def test_ending_is_recorded(ended: EndedTrainings, ending: Ending, own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Status, exit code, every metric, the outcome of each fit and the last complete checkpoint are recorded."""
    monkeypatch.setenv("DERIVA_ML_HOME", str(ended.home))
    name = ending.name + own
    ml = DerivaML()
    execution = ml.restore_execution((ended.folder / f"{name}.rid").read_text())
    assert execution.status is ending.status
    assert ending.detail in execution.status_detail
    assert ended.codes[name] in ending.codes
    emitted = (ended.folder / f"{name}.points").read_text().splitlines()
    recorded = metrics_lines(execution, stage="fit")
    assert [(each["by"], each["epoch"]) for each in recorded] == [
        (by, int(epoch)) for by, epoch, _ in (point.split(" ", 2) for point in emitted)
    ]
    assert len(metrics_lines(execution, stage="test")) == (ending.name == "twice")
    assert tuple(fit["outcome"] for fit in fit_summaries(execution) if "outcome" in fit) == ending.outcomes
    execution.upload_execution_outputs()
    assert "Last_Checkpoint" in outputs(ml, execution, "Model")[ending.last].asset_types
    assert "metrics.jsonl" in outputs(ml, execution, "Execution_Metadata")
