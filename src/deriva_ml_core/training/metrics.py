"""The metrics that an execution keeps: one line of ``metrics.jsonl`` an epoch, by fit."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, SupportsFloat

from deriva_ml_core.definitions import MLAsset
from deriva_ml_core.errors import UnknownTerm
from deriva_ml_core.models import Progress

if TYPE_CHECKING:
    from deriva_ml_core.execution import Execution

__all__ = ["METRICS_FILE", "FitMetrics", "as_floats"]

METRICS_FILE = "metrics.jsonl"
"""The file's name. Each line is an object with stage, fit, epoch, step, time, seconds and values: JSON, but for ``NaN``
and ``Infinity``, which Python's own reader and pandas take."""


def as_floats(metrics: Mapping[str, SupportsFloat]) -> tuple[dict[str, float], list[str]]:
    """Take numbers, whatever holds them: a float, or a tensor or an array of one element.

    Returns:
        The values by name, and the names of those that are no number.
    """
    values: dict[str, float] = {}
    others = []
    for name, value in metrics.items():
        try:
            values[name] = float(value)
        except (TypeError, ValueError, RuntimeError):  # several elements; torch and numpy raise differently
            others.append(name)
    return values, others


@dataclass(frozen=True)
class FitMetrics:
    """Where one fit writes its metrics: into the file that it shares with the other fits of its execution.

    Args:
        file: The file.
        fit: The number of the fit in its execution, from 1.
    """

    file: Path
    fit: int

    @classmethod
    def begin(cls, execution: Execution) -> FitMetrics:
        """Register the execution's metrics file, and take the next number."""
        file = _register(execution)
        return cls(file, _last_fit(file) + 1)

    def append(self, progress: Progress, seconds: float) -> None:
        """Add one epoch by one ``write(2)``, so that a process killed later loses no line.

        Args:
            progress: The epoch and its values.
            seconds: How long the epoch took.

        Raises:
            OSError: The line could not be written whole.
        """
        line = {
            "stage": progress.stage,
            "fit": self.fit,
            "epoch": progress.epoch,
            "step": progress.step,
            "time": datetime.now(UTC).isoformat(timespec="microseconds"),
            "seconds": round(seconds, 6),
            "values": dict(progress.metrics),
        }
        _write(self.file, (json.dumps(line, ensure_ascii=False) + "\n").encode())


def _register(execution: Execution) -> Path:
    table = MLAsset.execution_metadata.value
    try:
        return execution.asset_file_path(table, METRICS_FILE, asset_types=["Metrics_File"])
    except UnknownTerm:  # a catalog with a vocabulary of its own
        return execution.asset_file_path(table, METRICS_FILE)


def _last_fit(file: Path) -> int:
    lines = file.read_bytes().splitlines() if file.exists() else []
    return max(map(_fit_of, lines), default=0)


def _fit_of(line: bytes) -> int:
    try:
        return int(json.loads(line)["fit"])
    except (ValueError, KeyError, TypeError):  # torn
        return 0


def _write(file: Path, line: bytes) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        if os.write(descriptor, line) < len(line):
            os.write(descriptor, b"\n")  # end the torn line, so that the next one stands alone
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
    finally:
        os.close(descriptor)
