"""What a metrics file says, read back: its lines, and each metric's values in their order."""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["MetricsLine", "MetricSeries", "iter_metrics", "read_metrics", "collect_series"]

MAX_INTEGER = 2**53
"""Whole numbers from here on are no epochs, steps or bytes."""

_BY_PATTERN = re.compile(rb'"by"\s*:\s*"(\w+)"')


@dataclass(frozen=True, slots=True)
class MetricsLine:
    """One line of ``metrics.jsonl``.

    Args:
        stage: ``fit``, ``validate``, ``test`` or ``predict``.
        fit: The number of the fit in its execution, from 1.
        by: ``epoch`` or ``step``: what the line is about.
        epoch: The epoch's number, from 1; None where nobody counted.
        step: Optimizer steps until then; None where nobody counted.
        time: When it was written, ISO 8601 in UTC; empty where that is not known.
        seconds: How long the epoch took.
        samples_per_second: How fast it went.
        learning_rates: Those of the optimizers, by name.
        peak_memory: In bytes.
        values: The metrics by name; NaN and the infinities among them.
    """

    stage: str = "fit"
    fit: int = 1
    by: str = "epoch"
    epoch: int | None = None
    step: int | None = None
    time: str = ""
    seconds: float | None = None
    samples_per_second: float | None = None
    learning_rates: Mapping[str, float] = field(default_factory=dict)
    peak_memory: int | None = None
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MetricSeries:
    """One metric's values in one fit, 16 bytes each.

    Args:
        positions: The epochs, or the steps, at which they were taken.
        values: The values.
    """

    positions: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))


def read_metrics(file: Path) -> list[MetricsLine]:
    """Read a metrics file, also one that is just being written.

    Args:
        file: The file; its last line may be torn. Fields that a newer version added are passed over.

    Returns:
        Its lines in their order, without those that are no JSON object.

    Raises:
        OSError: The file cannot be read.
    """
    return list(iter_metrics(file))


def iter_metrics(file: Path, by: str | None = None) -> Iterator[MetricsLine]:
    """Read a metrics file line by line, so that one of many million steps needs no memory.

    Args:
        file: The file, as for `read_metrics`.
        by: ``epoch`` or ``step`` for those lines alone, by which the others cost little; None for all.

    Raises:
        OSError: The file cannot be read.
    """
    with file.open("rb") as lines:
        for line in lines:
            about = _BY_PATTERN.search(line) if by is not None else None
            if about is not None and about[1].decode() != by:
                continue
            read = _parse_line(line)
            if read is not None and by in (None, read.by):
                yield read


def collect_series(
    lines: Iterable[MetricsLine], by: str = "epoch", stage: str = "fit"
) -> dict[str, dict[int, MetricSeries]]:
    """The values of each metric, in the order of the lines.

    Args:
        lines: What `read_metrics` or `iter_metrics` gave.
        by: ``epoch`` or ``step``: where in the training the values are placed; lines that do not tell are left out.
        stage: ``fit``, ``validate``, ``test`` or ``predict``.

    Returns:
        The values by metric and by fit, in the order in which they first appear.
    """
    found: dict[str, dict[int, MetricSeries]] = {}
    for line in lines:
        place = line.epoch if by == "epoch" else line.step
        if line.stage == stage and place is not None:
            for name, value in line.values.items():
                track = found.setdefault(name, {}).setdefault(line.fit, MetricSeries())
                track.positions.append(place)
                track.values.append(value)
    return found


def _parse_line(text: bytes) -> MetricsLine | None:
    try:
        found = json.loads(text)
    except ValueError:  # torn, or in no encoding
        return None
    if not isinstance(found, dict):
        return None
    return MetricsLine(
        stage=_get_str(found, "stage", "fit"),
        fit=_get_int(found, "fit") or 1,
        by=_get_str(found, "by", "epoch"),
        epoch=_get_int(found, "epoch"),
        step=_get_int(found, "step"),
        time=_get_str(found, "time", ""),
        seconds=_get_floats(found).get("seconds"),
        samples_per_second=_get_floats(found).get("samples_per_second"),
        learning_rates=_get_floats(found.get("learning_rates")),
        peak_memory=_get_int(found, "peak_memory"),
        values=_get_floats(found.get("values")),
    )


def _get_str(record: Mapping[str, object], name: str, default: str) -> str:
    value = record.get(name)
    return value if isinstance(value, str) else default


def _get_int(record: Mapping[str, object], name: str) -> int | None:
    value = record.get(name)
    return value if isinstance(value, int) and abs(value) < MAX_INTEGER else None


def _get_floats(record: object) -> dict[str, float]:
    if not isinstance(record, dict):
        return {}
    return {
        name: float(value)
        for name, value in record.items()
        if isinstance(value, float) or (isinstance(value, int) and abs(value) < MAX_INTEGER)
    }
