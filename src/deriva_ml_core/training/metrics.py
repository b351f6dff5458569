"""The metrics that an execution keeps: one line of ``metrics.jsonl`` an epoch, by fit."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, SupportsFloat

from deriva_ml_core.definitions import MLAsset
from deriva_ml_core.errors import UnknownTerm
from deriva_ml_core.models import Progress

if TYPE_CHECKING:
    from deriva_ml_core.execution import Execution

__all__ = ["METRICS_FILE", "append_metrics", "as_floats", "last_fit", "register_metrics"]

METRICS_FILE = "metrics.jsonl"
"""The file's name; a line is a JSON object, but for ``NaN`` and ``Infinity``, which Python and pandas read."""


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


def register_metrics(execution: Execution) -> Path:
    """The path of the execution's metrics file, registered among its metadata; the same for all its fits."""
    table = MLAsset.execution_metadata.value
    try:
        return execution.asset_file_path(table, METRICS_FILE, asset_types=["Metrics_File"])
    except UnknownTerm:  # a catalog with a vocabulary of its own
        return execution.asset_file_path(table, METRICS_FILE)


def append_metrics(file: Path, fit: int, progress: Progress, seconds: float) -> None:
    """Add one epoch by one ``write(2)``, so that a process killed later loses no line.

    Args:
        file: The metrics file; it is made where there is none.
        fit: The number of the fit in its execution, from 1.
        progress: The epoch and its values.
        seconds: How long the epoch took.

    Raises:
        OSError: The line could not be written whole.
    """
    line = {
        "stage": progress.stage,
        "fit": fit,
        "epoch": progress.epoch,
        "step": progress.step,
        "time": datetime.now(UTC).isoformat(timespec="microseconds"),
        "seconds": round(seconds, 6),
        "values": dict(progress.metrics),
    }
    text = (json.dumps(line, ensure_ascii=False) + "\n").encode()
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        if os.write(descriptor, text) < len(text):
            os.write(descriptor, b"\n")  # end the torn line, so that the next one stands alone
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
    finally:
        os.close(descriptor)


def last_fit(file: Path) -> int:
    """The number of the last fit that a metrics file tells of, 0 where there is none."""
    if not file.exists():
        return 0
    return max((_fit(line) for line in file.read_bytes().splitlines()), default=0)


def _fit(line: bytes) -> int:
    try:
        return int(json.loads(line)["fit"])
    except (ValueError, KeyError, TypeError):  # torn
        return 0
