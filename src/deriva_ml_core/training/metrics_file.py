"""The metrics file of an execution, ``metrics.jsonl``: one line for each epoch or logged step."""

from __future__ import annotations

import json
import math
import os
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, SupportsFloat

from deriva_ml_core._files.json_lines import open_for_append, parse_object, repair_last_line
from deriva_ml_core._text import escape_surrogates
from deriva_ml_core.metric_modes import metric_mode

__all__ = [
    "MetricCurve",
    "read_curves",
    "METRICS_FILE",
    "MetricSeries",
    "MetricValues",
    "MetricsFile",
    "MetricsLine",
    "collect_series",
    "extract_floats",
    "iter_metrics",
    "iter_values",
    "read_metrics",
]


METRICS_FILE = "metrics.jsonl"
"""Name of the file. Each line is a JSON object with stage, fit, by (``epoch`` or ``step``), epoch, step, time and
values. A line of an epoch also has seconds and, if known, samples_per_second, learning_rates and peak_memory in bytes.
Values may be ``NaN`` and ``Infinity``, which are not JSON, but Python's json module and pandas read them."""

MAX_PENDING_LINES = 100_000
"""Maximum number of lines held in memory while the disk is full; beyond it, the oldest are lost."""

TAIL_BYTES = 2**16
"""Bytes at the end of the file that are searched for the number of the last fit."""

_ENCODER = json.JSONEncoder(ensure_ascii=False)  # json.dumps would create one for each line


def extract_floats(metrics: Mapping[str, SupportsFloat]) -> tuple[dict[str, float], list[str]]:
    """Convert metric values to floats; a value may also be a tensor or an array of one element.

    A name of another type is converted to text.

    Returns:
        The floats by name, and the names of the values that are not single numbers.
    """
    values: dict[str, float] = {}
    others = []
    for name, value in metrics.items():
        text = _name_text(name)
        try:
            values[text] = float(value)
        except Exception:  # noqa: BLE001 - several elements, a number too large, or a class of the user that raises
            others.append(text)
    return values, others


def _name_text(name: object) -> str:
    try:
        return escape_surrogates(str(name))
    except Exception:  # noqa: BLE001 - the name may be of any class
        return f"<{type(name).__name__}>"


class MetricsFile:
    """Metrics file of one execution; all its fits and stages append to it.

    Args:
        path: The file; its folder must exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pending: list[bytes] = []
        self._descriptor: int | None = None
        self._pid = 0

    def last_fit(self) -> int:
        """Return the number of the last fit in the file; 0 if there is none."""
        try:
            with self.path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
                return max(map(_parse_fit_number, file.read().splitlines()), default=0)
        except FileNotFoundError:
            return 0

    def append(
        self,
        *,
        stage: str,
        fit: int,
        by: str,
        epoch: int | None,
        step: int | None,
        values: Mapping[str, float],
        extra: Mapping[str, object] | None = None,
    ) -> None:
        """Append a line with one ``write(2)``, so that killing the process later loses nothing.

        Raises:
            OSError: The line could not be written yet; the next call writes it.
        """
        line = {
            "stage": stage,
            "fit": fit,
            "by": by,
            "epoch": epoch,
            "step": step,
            "time": datetime.now(UTC).isoformat(timespec="microseconds"),
            **(extra or {}),
            "values": values,
        }
        self._pending.append((_ENCODER.encode(line) + "\n").encode())
        del self._pending[:-MAX_PENDING_LINES]
        self.flush()

    def flush(self) -> None:
        """Write the lines that could not be written before.

        Raises:
            OSError: They still cannot be written.
        """
        while self._pending:
            written = os.write(self._open(), self._pending[0])
            if written < len(self._pending[0]):
                # the rest follows once there is space; no other process writes to this file
                self._pending[0] = self._pending[0][written:]
                continue
            self._pending.pop(0)

    def close(self) -> None:
        """Close the file; the next append opens it again."""
        if self._descriptor is not None and self._pid == os.getpid():
            os.close(self._descriptor)
        self._descriptor = None

    def _open(self) -> int:
        if self._descriptor is None or self._pid != os.getpid():
            self._descriptor, self._pid = open_for_append(self.path), os.getpid()
            repair_last_line(self._descriptor)  # once is enough, since only this process appends
        return self._descriptor


def _parse_fit_number(line: bytes) -> int:
    return _get_int(parse_object(line) or {}, "fit") or 0


MAX_INTEGER = 2**53
"""Integers of this size or more are ignored: they are not epochs, steps or bytes."""

_BY_PATTERN = re.compile(rb'"by"\s*:\s*"(\w+)"')


@dataclass(frozen=True, slots=True)
class MetricsLine:
    """One line of ``metrics.jsonl``.

    Args:
        stage: ``fit``, ``validate``, ``test`` or ``predict``.
        fit: The number of the fit in its execution, from 1.
        by: ``epoch`` or ``step``: the unit that the line describes.
        epoch: Number of the epoch, from 1; None if unknown.
        step: Optimizer steps so far; None if unknown.
        time: Time of writing, ISO 8601 in UTC; empty if unknown.
        seconds: Duration of the epoch in seconds.
        samples_per_second: Throughput of the epoch.
        learning_rates: Learning rates by optimizer.
        peak_memory: Peak memory in bytes.
        values: Metric values by name, which may be NaN or infinite.
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


class MetricValues(NamedTuple):
    """The values of one line of ``metrics.jsonl``, with the fields of `MetricsLine` that place them."""

    stage: str
    fit: int
    by: str
    epoch: int | None
    step: int | None
    time: str
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class MetricSeries:
    """Values of one metric in one fit, 16 bytes each.

    Args:
        positions: Epoch or step of each value.
        values: The values.
    """

    positions: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))


def read_metrics(file: Path) -> list[MetricsLine]:
    """Read a metrics file, which may still be written to.

    Args:
        file: The file; its last line may be torn. Fields that a newer version has added are ignored.

    Returns:
        The lines in order, without those that are not a JSON object.

    Raises:
        OSError: The file cannot be read.
    """
    return list(iter_metrics(file))


def iter_metrics(file: Path, by: str | None = None) -> Iterator[MetricsLine]:
    """Iterate over the lines of a metrics file, so that millions of steps need little memory.

    Args:
        file: The file, as for `read_metrics`.
        by: ``epoch`` or ``step`` for these lines only, which skips the others cheaply; None for all.

    Raises:
        OSError: The file cannot be read.
    """
    for line in _iter_lines(file, by):
        parsed = _parse_line(line)
        if parsed is not None and by in (None, parsed.by):
            yield parsed


def iter_values(file: Path, by: str | None = None) -> Iterator[MetricValues]:
    """Iterate over the values of a metrics file, which takes half the time of `iter_metrics`.

    Args:
        file: The file, as for `read_metrics`.
        by: ``epoch`` or ``step`` for these lines only; None for all.

    Raises:
        OSError: The file cannot be read.
    """
    for line in _iter_lines(file, by):
        if (record := parse_object(line)) is None:
            continue
        unit = _get_str(record, "by", "epoch")
        if by in (None, unit):
            yield MetricValues(
                _get_str(record, "stage", "fit"),
                _get_int(record, "fit") or 1,
                unit,
                _get_int(record, "epoch"),
                _get_int(record, "step"),
                _get_str(record, "time", ""),
                _get_floats(record.get("values")),
            )


def _iter_lines(file: Path, by: str | None) -> Iterator[bytes]:
    """Yield the lines of a file, without most of those of another unit."""
    with file.open("rb") as lines:
        for line in lines:
            match = _BY_PATTERN.search(line) if by is not None else None
            if match is None or match[1].decode() == by:
                yield line


def collect_series(
    lines: Iterable[MetricsLine], by: str = "epoch", stage: str = "fit"
) -> dict[str, dict[int, MetricSeries]]:
    """Return the values of each metric, in the order of the lines.

    Args:
        lines: Lines from `read_metrics` or `iter_metrics`.
        by: ``epoch`` or ``step``: the position of the values; lines without it are left out.
        stage: ``fit``, ``validate``, ``test`` or ``predict``.

    Returns:
        The series by metric and fit, in order of first appearance.
    """
    metrics: dict[str, dict[int, MetricSeries]] = {}
    for line in lines:
        position = line.epoch if by == "epoch" else line.step
        if line.stage == stage and position is not None:
            for name, value in line.values.items():
                series = metrics.setdefault(name, {}).setdefault(line.fit, MetricSeries())
                series.positions.append(position)
                series.values.append(value)
    return metrics


@dataclass(frozen=True, slots=True)
class MetricCurve:
    """Values of one metric in one fit or stage, with their first, last and best.

    Args:
        name: Name of the metric.
        stage: ``fit``, ``validate``, ``test`` or ``predict``.
        fit: Number of the fit in its execution.
        by: ``epoch`` or ``step``: the unit of the positions.
        first: First value.
        last: Last value.
        best: Best value, by the direction that the training set or the name implies; None without a finite value.
        best_at: Epoch or step of the best value; None if unknown.
        values: All values in order.
    """

    name: str
    stage: str
    fit: int
    by: str
    first: float
    last: float
    best: float | None
    best_at: int | None
    values: Sequence[float]

    def to_dict(self) -> dict[str, object]:
        """Return the fields as a dict, with the number of values in place of the values."""
        fields = asdict(self)
        return {**{name: fields[name] for name in fields if name != "values"}, "count": len(self.values)}


def read_curves(
    file: Path | None, larger_better: Mapping[str, bool | None] = MappingProxyType({})
) -> list[MetricCurve]:
    """Read the curves of a metrics file: by epoch, or by step if there are none; then those of other stages.

    Args:
        file: The file; None returns no curves.
        larger_better: Whether larger values are better, for the metrics whose direction the training set.
    """
    if file is None:
        return []
    lines = list(iter_metrics(file, "epoch"))
    fits = list(_iter_fit_curves(collect_series(lines), "epoch", larger_better))
    fits = fits or list(_iter_fit_curves(collect_series(iter_metrics(file, "step"), by="step"), "step", larger_better))
    return fits + list(_iter_stage_curves(lines, larger_better))


def _iter_fit_curves(
    metrics: dict[str, dict[int, MetricSeries]], by: str, larger_better: Mapping[str, bool | None]
) -> Iterator[MetricCurve]:
    for name, fits in metrics.items():
        for fit, series in fits.items():
            yield _build_curve(name, "fit", fit, by, series.positions, series.values, larger_better)


def _iter_stage_curves(lines: Sequence[MetricsLine], larger_better: Mapping[str, bool | None]) -> Iterator[MetricCurve]:
    by_stage: dict[tuple[str, int, str], list[float]] = {}
    for line in lines:
        if line.stage != "fit":
            for name, value in line.values.items():
                by_stage.setdefault((line.stage, line.fit, name), []).append(value)
    for (stage, fit, name), values in by_stage.items():
        yield _build_curve(name, stage, fit, "epoch", None, values, larger_better)


def _build_curve(
    name: str,
    stage: str,
    fit: int,
    by: str,
    positions: Sequence[int] | None,
    values: Sequence[float],
    larger_better: Mapping[str, bool | None],
) -> MetricCurve:
    mode = metric_mode(name)
    larger = larger_better.get(name, None if mode is None else mode == "max")
    finite = [index for index, value in enumerate(values) if math.isfinite(value)]
    best = (max if larger else min)(finite, key=lambda index: values[index]) if finite and larger is not None else None
    return MetricCurve(
        name=name,
        stage=stage,
        fit=fit,
        by=by,
        first=values[0],
        last=values[-1],
        best=None if best is None else values[best],
        best_at=None if best is None or positions is None else positions[best],
        values=values,
    )


def _parse_line(text: bytes) -> MetricsLine | None:
    if (record := parse_object(text)) is None:
        return None
    return MetricsLine(
        stage=_get_str(record, "stage", "fit"),
        fit=_get_int(record, "fit") or 1,
        by=_get_str(record, "by", "epoch"),
        epoch=_get_int(record, "epoch"),
        step=_get_int(record, "step"),
        time=_get_str(record, "time", ""),
        seconds=_get_float(record, "seconds"),
        samples_per_second=_get_float(record, "samples_per_second"),
        learning_rates=_get_floats(record.get("learning_rates")),
        peak_memory=_get_int(record, "peak_memory"),
        values=_get_floats(record.get("values")),
    )


def _get_str(record: Mapping[str, object], name: str, default: str) -> str:
    value = record.get(name)
    return value if isinstance(value, str) else default


def _get_int(record: Mapping[str, object], name: str) -> int | None:
    value = record.get(name)
    return value if isinstance(value, int) and abs(value) < MAX_INTEGER else None


def _get_float(record: Mapping[str, object], name: str) -> float | None:
    """Return a number of a line; the others are not looked at, since files have millions of lines."""
    value = record.get(name)
    is_number = isinstance(value, float) or (isinstance(value, int) and abs(value) < MAX_INTEGER)
    return float(value) if is_number else None  # type: ignore[arg-type]


def _get_floats(record: object) -> dict[str, float]:
    if not isinstance(record, dict):
        return {}
    return {
        name: float(value)
        for name, value in record.items()
        if isinstance(value, float) or (isinstance(value, int) and abs(value) < MAX_INTEGER)
    }
