"""Each news of an execution as one line of JSON, in the file that ``DERIVA_ML_JSONL`` names or in ``news.jsonl``."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

from deriva_ml_core.models import ExecutionInfo, FrozenModel, StagedAsset, StatusUpdate, UploadReport
from deriva_ml_core.plugins import hookimpl


@hookimpl
def status_changed(execution: ExecutionInfo, update: StatusUpdate) -> None:
    """Write the status, its words and numbers."""
    _append_event("status_changed", execution, "update", update)


@hookimpl
def asset_registered(execution: ExecutionInfo, asset: StagedAsset) -> None:
    """Write which file was staged."""
    _append_event("asset_registered", execution, "asset", asset)


@hookimpl
def outputs_uploaded(execution: ExecutionInfo, report: UploadReport) -> None:
    """Write what was sent and what was not."""
    _append_event("outputs_uploaded", execution, "report", report)


def _append_event(hook: str, execution: ExecutionInfo, name: str, value: FrozenModel) -> None:
    file = _output_file(execution)
    if file is None:
        return
    # NaN and Infinity, as of a loss that diverged, are no JSON: they become null
    told = json.loads(value.model_dump_json(), parse_constant=lambda _: None)
    news = {"time": datetime.now(UTC).isoformat(), "hook": hook, "execution": execution.rid, name: told}
    line = json.dumps(news, ensure_ascii=False) + "\n"
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
