"""The values of a run's metrics in Python: `exe.metrics`, `exe.metric_rows` and `exe.metrics_dataframe`."""

from __future__ import annotations

import json
import math
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import ChecksumMismatch, ConfigurationError, MissingDependency
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.models import MetricValue, Progress
from deriva_ml_core.training import TrainingReporter
from deriva_ml_core.training.metric_rows import read_metric_rows


def train(ml: DerivaML, config: ExecutionConfiguration) -> Execution:
    """Record a fit of three epochs with a step in each, and a test."""
    with ml.create_execution(config) as exe:
        reporter = TrainingReporter(exe, checkpoints="none", curves=False, log_every_n_steps=1)
        reporter.begin_fit(3)
        for epoch, loss in enumerate((3.0, 1.0, 2.0), start=1):
            reporter.end_step(10 * epoch, epoch, {"rate": 0.5})
            reporter.end_epoch(epoch, {"loss": loss}, step=10 * epoch)
        reporter.end_fit()
        reporter.end_stage("test", {"loss": 1.5}, seconds=0.1, step=30)
    exe.upload_execution_outputs()
    return exe


VALUES = {
    "loss": MetricValue(
        stage="fit",
        name="loss",
        last=2,
        best=1,
        best_at=2,
        larger_is_better=False,
        last_at=3,
        last_step=30,
        best_step=20,
    ),
    "loss (test)": MetricValue(
        stage="test",
        name="loss",
        last=1.5,
        best=1.5,
        best_at=None,
        larger_is_better=False,
        last_at=None,
        last_step=30,
        best_step=30,
    ),
}
POINTS = [
    ("fit", 1, "step", 1, 10, "rate", 0.5),
    ("fit", 1, "step", 2, 20, "rate", 0.5),
    ("fit", 1, "step", 3, 30, "rate", 0.5),
    ("fit", 1, "epoch", 1, 10, "loss", 3.0),
    ("fit", 1, "epoch", 2, 20, "loss", 1.0),
    ("fit", 1, "epoch", 3, 30, "loss", 2.0),
    ("test", 1, "epoch", None, 30, "loss", 1.5),
]


def points(exe: Any, **arguments: Any) -> list[tuple[Any, ...]]:
    """Return the rows without their times."""
    names = ("stage", "fit", "by", "epoch", "step", "metric", "value")
    return [tuple(row[name] for name in names) for row in exe.metric_rows(**arguments)]


def test_metrics_of_a_run(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """Best and last value have their epoch and step: in the running object, here, and where the folder is gone."""
    exe = train(ml, config)
    assert exe.metrics == VALUES
    assert ml.lookup_execution(exe.execution_rid).metrics == VALUES
    shutil.rmtree(exe.working_dir)
    assert ml.lookup_execution(exe.execution_rid).metrics == VALUES


def test_metrics_while_the_run_goes_on(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """Inside the ``with`` block, the values are those reported so far, whether or not the catalog has them."""
    with ml.create_execution(config) as exe:
        assert exe.metrics == {}
        exe.update_status(
            Status.running, "1", progress=Progress(epoch=1, step=7, metrics={"acc": 0.5, "odd": math.nan}), wait=False
        )
        assert exe.metrics["acc"].best == 0.5
        assert (exe.metrics["acc"].last_at, exe.metrics["acc"].best_step) == (1, 7)
        assert (exe.metrics["odd"].last, exe.metrics["odd"].last_step) == (None, 7)


def test_rows(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """There is one row for each value, from the working folder, and else from the catalog."""
    exe = train(ml, config)
    assert points(exe) == POINTS
    assert points(exe, metrics="loss", stage="fit") == POINTS[3:6]
    assert points(exe, metrics=["rate"], by="step") == POINTS[:3]
    assert points(exe, by="epoch") == POINTS[3:]
    assert points(exe, metrics="none") == []
    assert all(row["time"].startswith("20") for row in exe.metric_rows())
    shutil.rmtree(exe.working_dir)
    recorded = ml.lookup_execution(exe.execution_rid)
    assert points(recorded) == POINTS
    (cached,) = (ml.connection.folder / "cache" / "files").rglob("metrics.jsonl")
    before = cached.stat().st_mtime_ns
    assert points(recorded) == POINTS
    assert cached.stat().st_mtime_ns == before


def test_damaged_copy_is_replaced(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """A cached file whose bytes differ from the recorded ones is downloaded again."""
    exe = train(ml, config)
    shutil.rmtree(exe.working_dir)
    recorded = ml.lookup_execution(exe.execution_rid)
    recorded.metric_rows()
    (cached,) = (ml.connection.folder / "cache" / "files").rglob("metrics.jsonl")
    cached.chmod(0o600)
    cached.write_bytes(cached.read_bytes().replace(b"3.0", b"9.0"))
    assert points(recorded) == POINTS


def test_run_without_metrics(ml: DerivaML, exe: Execution) -> None:
    """A run that reported nothing has no rows, and its table has the same columns."""
    pytest.importorskip("pandas")
    assert (exe.metrics, exe.metric_rows()) == ({}, [])
    frame = ml.lookup_execution(exe.execution_rid).metrics_dataframe()
    assert (list(frame.columns), len(frame)) == (
        ["stage", "fit", "by", "epoch", "step", "time", "metric", "value"],
        0,
    )


def test_dataframe(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """The table has whole numbers for epochs and steps, and times in UTC; pivoting gives a column for each metric."""
    pd = pytest.importorskip("pandas")
    frame = train(ml, config).metrics_dataframe(by="epoch")
    assert frame["value"].tolist() == [3.0, 1.0, 2.0, 1.5]
    assert frame["epoch"].tolist() == [1, 2, 3, pd.NA]
    assert str(frame["time"].dtype).endswith(", UTC]")
    wide = frame[frame["stage"] == "fit"].pivot_table(index=["fit", "epoch"], columns="metric", values="value")
    assert wide.loc[(1, 2), "loss"] == 1.0


def test_dataframe_without_pandas(exe: Execution, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pandas, the error names the extra; the rows need no pandas."""
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(MissingDependency, match=r"deriva-ml-core\[pandas\]"):
        exe.metrics_dataframe()
    assert exe.metric_rows() == []


def write_lines(path: Path, values: list[float], by: str = "step") -> Path:
    """Write one line for each value."""
    with path.open("w") as file:
        for step, value in enumerate(values, start=1):
            file.write(json.dumps({"stage": "fit", "fit": 1, "by": by, "step": step, "values": {"loss": value}}) + "\n")
    return path


def test_decimation_keeps_extremes_and_ends(tmp_path: Path) -> None:
    """Of 20,000 values, at most 100 are returned: the first, the last, and each peak and valley."""
    values = [math.sin(step / 1000) for step in range(20_000)]
    values[7777], values[12_345], values[15_000] = 50.0, -50.0, math.nan
    rows = read_metric_rows(write_lines(tmp_path / "metrics.jsonl", values), max_points=100)
    steps = [row["step"] for row in rows]
    assert 50 <= len(rows) <= 100
    assert steps == sorted(steps)
    assert (steps[0], steps[-1]) == (1, 20_000)
    assert {7778, 12_346} <= set(steps)


@pytest.mark.parametrize("max_points", [4, 5, 10, 11, 1000])
def test_no_value_is_left_out_if_all_fit(tmp_path: Path, max_points: int) -> None:
    """Up to `max_points` values all stay, and one more than these never gives more than `max_points`."""
    path = tmp_path / "metrics.jsonl"
    values = [float(-1 if step % 3 else step) for step in range(max_points)]
    assert [row["value"] for row in read_metric_rows(write_lines(path, values), max_points=max_points)] == values
    rows = read_metric_rows(write_lines(path, [*values, 0.5]), max_points=max_points)
    assert (rows[0]["value"], rows[-1]["value"]) == (values[0], 0.5)
    assert len(rows) <= max_points


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    """Infinity counts as largest and smallest value, and a curve of NaN keeps its ends."""
    path = write_lines(tmp_path / "metrics.jsonl", [math.nan] * 5000)
    rows = read_metric_rows(path, max_points=10)
    assert [rows[0]["step"], rows[-1]["step"]] == [1, 5000]
    values = [0.0] * 5000
    values[100], values[4000] = math.inf, -math.inf
    rows = read_metric_rows(write_lines(path, values), max_points=10)
    assert {101, 4001} <= {row["step"] for row in rows}


def test_memory_is_bounded(tmp_path: Path) -> None:
    """Decimating 20,000 values needs memory for the points that are kept, not for all, which take 6 MB."""
    path = write_lines(tmp_path / "metrics.jsonl", [float(step % 977) for step in range(20_000)])
    tracemalloc.start()
    rows = read_metric_rows(path, max_points=100)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(rows) <= 100
    assert peak < 2**20


@pytest.mark.parametrize(("arguments", "message"), [
    ({"max_points": 3}, "max_points must be at least 4, and is 3"),
    ({"by": "hour"}, "by='hour'"),
    ({"stage": "train"}, "stage='train'"),
])  # fmt: skip
def test_wrong_arguments(exe: Execution, arguments: dict[str, Any], message: str) -> None:
    """An argument without a meaning is an error that names the possible values."""
    with pytest.raises(ConfigurationError, match=message):
        exe.metric_rows(**arguments)


def test_store_that_is_gone(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """Without the file, `metrics` has the values of the catalog; the rows raise."""
    exe = train(ml, config)
    shutil.rmtree(exe.working_dir)
    recorded = ml.lookup_execution(exe.execution_rid)
    shutil.rmtree(ml.connection.folder / "objects")
    value = recorded.metrics["loss"]
    assert (value.best, value.best_at, value.last) == (1, 2, 2)
    with pytest.raises(ChecksumMismatch, match="is lost"):
        recorded.metric_rows()


def test_file_of_another_version(ml: DerivaML, exe: Execution) -> None:
    """Lines that are torn, or have other types, are left out; a curve of strings has no rows."""
    lines = [
        '{"fit": 1, "epoch": 1, "values": {"a": 1, "b": "x"}}',
        "[]",
        '{"values": {"a": 2}',
        '{"values": {"a": 3}}',
    ]
    (exe.working_dir / "metrics.jsonl").write_text("\n".join(lines))
    assert points(exe) == [("fit", 1, "epoch", 1, None, "a", 1.0), ("fit", 1, "epoch", None, None, "a", 3.0)]
