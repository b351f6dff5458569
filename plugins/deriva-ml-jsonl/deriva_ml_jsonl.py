"""Write the events of executions as JSON lines, to the file ``DERIVA_ML_JSONL`` or to ``news.jsonl`` in each folder."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

from deriva_ml_core.models import ExecutionInfo, FrozenModel, StagedAsset, StatusUpdate, UploadReport
from deriva_ml_core.plugins import hookimpl


@hookimpl
def status_changed(execution: ExecutionInfo, update: StatusUpdate) -> None:
    """Write the status, its message and its metrics."""
    _append_event("status_changed", execution, "update", update)


@hookimpl
def asset_registered(execution: ExecutionInfo, asset: StagedAsset) -> None:
    """Write the staged file."""
    _append_event("asset_registered", execution, "asset", asset)


@hookimpl
def outputs_uploaded(execution: ExecutionInfo, report: UploadReport) -> None:
    """Write the uploaded files and those that were not."""
    _append_event("outputs_uploaded", execution, "report", report)


def _append_event(hook: str, execution: ExecutionInfo, name: str, value: FrozenModel) -> None:
    file = _output_file(execution)
    if file is None:
        return
    # NaN and Infinity, as of a diverged loss, are not valid JSON; they become null
    content = json.loads(value.model_dump_json(), parse_constant=lambda _: None)
    event = {"time": datetime.now(UTC).isoformat(), "hook": hook, "execution": execution.rid, name: content}
    line = json.dumps(event, ensure_ascii=False) + "\n"
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        # One write to a file opened for appending: lines of several processes never mix. The core has a private helper
        # for this; a plugin uses only what is public.
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def _output_file(execution: ExecutionInfo) -> Path | None:
    if named := os.environ.get("DERIVA_ML_JSONL"):
        return Path(named).expanduser()
    return execution.working_dir and execution.working_dir / "news.jsonl"
