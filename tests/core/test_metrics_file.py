"""The metrics file: what a killed process left does not damage later lines."""

from __future__ import annotations

from pathlib import Path

from deriva_ml_core.training.metrics_file import MetricsFile, read_metrics


def append(file: MetricsFile, epoch: int, loss: float) -> None:
    file.append(stage="train", fit=1, by="epoch", epoch=epoch, step=None, values={"loss": loss})


def test_torn_line_is_ended_by_the_next_process(tmp_path: Path) -> None:
    """A killed process left half a line; the next process loses only that one."""
    path = tmp_path / "metrics.jsonl"
    first, second = MetricsFile(path), MetricsFile(path)
    append(first, 1, 0.75)
    append(first, 2, 0.5)
    first.close()
    path.write_bytes(path.read_bytes()[:-20])
    append(second, 3, 0.25)
    append(second, 4, 0.125)
    second.close()
    assert [(line.epoch, line.values) for line in read_metrics(path)] == [
        (1, {"loss": 0.75}),
        (3, {"loss": 0.25}),
        (4, {"loss": 0.125}),
    ]
