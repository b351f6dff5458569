"""Each row of the page "How a run can end" is what a run really records."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deriva_ml_core.client import DerivaML

PAGE = Path(__file__).parents[2] / "docs" / "how-a-run-can-end.md"

PROGRAM = """
import os, signal, sys, types
from deriva_ml import DerivaML, ExecutionConfiguration, Workflow

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored in all children of nohup
optuna = types.ModuleType("optuna.exceptions")
optuna.TrialPruned = type("TrialPruned", (Exception,), {"__module__": "optuna.exceptions"})
workflow = Workflow(name="T", workflow_type="Training", url="https://example.org/t.py", checksum="c")
with DerivaML().create_execution(ExecutionConfiguration(workflow=workflow)) as execution:
    execution.asset_file_path("Model", "half.pt").write_text("half")
    print(execution.execution_rid, flush=True)
    exec(sys.argv[1])
"""
WAIT = "sys.stdin.read()"

ENDINGS: dict[str, tuple[str, int]] = {
    "the block ends": ("pass", 0),
    "`sys.exit(0)`": ("sys.exit(0)", 0),
    "`sys.exit(3)`": ("sys.exit(3)", 0),
    "exception": ("raise ValueError('no data')", 0),
    "Ctrl-C": (WAIT, signal.SIGINT),
    "SIGTERM, as by a preemption": (WAIT, signal.SIGTERM),
    "SIGHUP, as by a closed terminal": (WAIT, signal.SIGHUP),
    "SIGKILL, as by a lack of memory": (WAIT, signal.SIGKILL),
    "power loss": (WAIT, signal.SIGKILL),
    "`os._exit(0)`": ("os._exit(0)", 0),
    "`optuna.TrialPruned`": ("raise optuna.TrialPruned('not promising')", 0),
}
"""The code with which a run ends, or the signal that ends it, by its name on the page."""


def read_rows() -> dict[str, tuple[str, str]]:
    """Return status and message of each row of the page by its ending."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")][1:]
    rows = (re.split(r"\s*\|\s*", line.strip("| ")) for line in lines)
    return {row[0]: (row[1], row[2].strip("`") if len(row) > 2 else "") for row in rows}


def test_all_endings_are_on_the_page() -> None:
    """The page and this test have the same endings."""
    assert read_rows().keys() == ENDINGS.keys()


@pytest.mark.parametrize("ending", ENDINGS)
def test_ending_is_recorded(home: Path, ending: str) -> None:
    """Status and message are those on the page, the row has them after a look, and the registered file is kept."""
    code, number = ENDINGS[ending]
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "DERIVA_ML_HOME": str(home)},
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # `nohup make test` ignores it
    ) as process:
        assert process.stdout is not None
        rid = process.stdout.readline().strip()
        if number:
            process.send_signal(number)
        process.wait()
    status, message = read_rows()[ending]
    with DerivaML() as ml:
        recorded = ml.lookup_execution(rid)
        if ending == "power loss":  # the machine has another boot id afterwards
            journal = recorded.working_dir / "journal.jsonl"
            text, count = re.subn(r'"boot_id":"[^"]+"', '"boot_id":"of-an-earlier-boot"', journal.read_text())
            assert count
            journal.write_text(text)
        assert recorded.status == status
        assert message in recorded.status_detail
        assert bool(message) == bool(recorded.status_detail)
        restored = ml.restore_execution(rid)
        assert ml.lookup_execution(rid).info.status == status
        assert ml.select_rows("Execution", {"RID": rid})[0]["Status"] == status
        assert [asset.filename for asset in restored.staged_assets()] == ["half.pt"]
