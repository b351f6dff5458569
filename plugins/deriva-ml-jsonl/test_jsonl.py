"""The lines that deriva_ml_jsonl writes."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import deriva_ml_jsonl
import pytest

from deriva_ml_core.definitions import Status
from deriva_ml_core.models import Asset, ExecutionInfo, Progress, StagedAsset, StatusUpdate, UnsentAsset, UploadReport

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
STAGED = StagedAsset(key="1", table="Model", filename="größe.pt", path=Path("größe.pt"), asset_types=("Model",))
SENT = Asset(rid="1-5", table="Model", filename="a.pt", url="/hatrac/Model/0.a.pt:1", length=3, md5="0" * 32)


@pytest.fixture
def execution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ExecutionInfo:
    """An execution with its own working folder; DERIVA_ML_JSONL is not set."""
    monkeypatch.delenv("DERIVA_ML_JSONL", raising=False)
    return ExecutionInfo(
        rid="1-4A2C", url="file:///catalog#1-4A2C", status=Status.running, working_dir=tmp_path / "run"
    )


def read_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_one_line_per_event(execution: ExecutionInfo) -> None:
    """A status, a staged file and an upload give three complete lines in news.jsonl."""
    update = StatusUpdate(
        status=Status.running, message="Epoch 3/10", time=NOON, progress=Progress(epoch=3, metrics={"loss": 0.21})
    )
    report = UploadReport(sent={"Model": (SENT,)}, unsent=(UnsentAsset(asset=STAGED, reason="never written"),))
    deriva_ml_jsonl.status_changed(execution, update)
    deriva_ml_jsonl.asset_registered(execution, STAGED)
    deriva_ml_jsonl.outputs_uploaded(execution, report)
    assert execution.working_dir is not None
    status, staged, uploaded = read_lines(execution.working_dir / "news.jsonl")
    assert (status["hook"], status["execution"]) == ("status_changed", "1-4A2C")
    assert StatusUpdate.model_validate(status["update"]) == update
    assert StagedAsset.model_validate(staged["asset"]) == STAGED
    assert UploadReport.model_validate(uploaded["report"]) == report


def test_nan_becomes_null(execution: ExecutionInfo) -> None:
    """A metric that is NaN gives a line that every JSON parser reads."""
    lost = StatusUpdate(status=Status.running, time=NOON, progress=Progress(metrics={"loss": float("nan")}))
    deriva_ml_jsonl.status_changed(execution, lost)
    assert execution.working_dir is not None
    (line,) = read_lines(execution.working_dir / "news.jsonl")
    assert line["update"]["progress"]["metrics"] == {"loss": None}


def test_one_file_for_all(execution: ExecutionInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DERIVA_ML_JSONL names one file for all executions; its folder is created."""
    monkeypatch.setenv("DERIVA_ML_JSONL", str(tmp_path / "logs" / "all.jsonl"))
    other = execution.model_copy(update={"rid": "1-4A2D"})
    for record in (execution, other):
        deriva_ml_jsonl.asset_registered(record, STAGED)
    assert [line["execution"] for line in read_lines(tmp_path / "logs" / "all.jsonl")] == ["1-4A2C", "1-4A2D"]
    assert execution.working_dir is not None
    assert not execution.working_dir.exists()


def test_no_file_without_a_working_folder(
    execution: ExecutionInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An execution without a working folder here writes no file."""
    monkeypatch.chdir(tmp_path)
    deriva_ml_jsonl.asset_registered(execution.model_copy(update={"working_dir": None}), STAGED)
    assert list(tmp_path.iterdir()) == []


def test_lines_do_not_mix(execution: ExecutionInfo) -> None:
    """Concurrent writers leave complete lines only."""
    long = StatusUpdate(status=Status.running, message="x" * 20_000, time=NOON)

    def write_lines() -> None:
        for _ in range(20):
            deriva_ml_jsonl.status_changed(execution, long)

    writers = [threading.Thread(target=write_lines) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert execution.working_dir is not None
    assert len(read_lines(execution.working_dir / "news.jsonl")) == 80
