"""Restoring a run on a disk that fills up: the rebuilt journal is complete, or there is none."""

from __future__ import annotations

import os
import shutil
import traceback
from contextlib import suppress
from pathlib import Path

import pytest
from file_faults import PythonLayer

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import DerivaMLException
from deriva_ml_core.execution import ExecutionConfiguration

STATUSES = [Status.created, Status.running, Status.completed]


@pytest.mark.parametrize("kind", ["full", "short"])
def test_restore_after_a_failed_restore(
    ml: DerivaML, config: ExecutionConfiguration, home: Path, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    """Whichever file call of a restore fails, the next one finds the run as it ended, and the row stays."""
    with ml.create_execution(config) as run:
        run.asset_file_path("Model", "m.pt").write_bytes(b"weights")
    run.upload_execution_outputs()
    if (child := os.fork()) == 0:  # the layer stays in its process
        code = 1
        try:
            fail_restores(ml, run.execution_rid, run.working_dir, PythonLayer(home), kind)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, capfd.readouterr().err


def fail_restores(ml: DerivaML, rid: str, folder: Path, layer: PythonLayer, kind: str) -> None:
    """Restore a run again and again, while another file call of the working folder fails each time."""
    number, hit = 0, "the first call"
    while hit:
        shutil.rmtree(folder)
        number += 1
        layer.arm(kind, number, f"/executions/{rid}")
        with suppress(DerivaMLException):
            ml.restore_execution(rid)
        hit = layer.hit
        layer.disarm()
        restored = ml.restore_execution(rid)
        assert [update.status for update in restored.list_statuses()] == STATUSES, hit
        (row,) = ml.select_rows("Execution", {"RID": rid})
        assert row["Status"] == "Completed", hit
    assert number > 1
