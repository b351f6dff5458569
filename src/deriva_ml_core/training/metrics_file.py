"""The metrics that an execution keeps: lines of ``metrics.jsonl``, by fit, epoch and step."""

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
from typing import SupportsFloat

from deriva_ml_core._files.json_lines import open_for_append, parse_object, repair_last_line
from deriva_ml_core.metric_modes import larger_is_better

__all__ = [
    "MetricCurve",
    "read_curves",
    "METRICS_FILE",
    "MetricSeries",
    "MetricsFile",
    "MetricsLine",
    "collect_series",
    "extract_floats",
    "iter_metrics",
    "read_metrics",
]


METRICS_FILE = "metrics.jsonl"
"""The file's name. Each line is a JSON object, but for ``NaN`` and ``Infinity``, which Python's own reader and pandas
take: stage, fit, by (``epoch`` or ``step``), epoch, step, time and values; one of an epoch also seconds, and where they
are known samples_per_second, learning_rates and peak_memory in bytes."""

MAX_PENDING_LINES = 100_000
"""Lines that are held back while the disk is full; beyond, the oldest are lost."""

TAIL_BYTES = 2**16
"""Bytes at the file's end in which the number of the last fit is looked for."""

_ENCODER = json.JSONEncoder(ensure_ascii=False)  # which json.dumps would make for each line


def extract_floats(metrics: Mapping[str, SupportsFloat]) -> tuple[dict[str, float], list[str]]:
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


class MetricsFile:
    """The metrics file of one execution, to which all its fits and stages add.

    Args:
        path: The file; its folder must be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pending: list[bytes] = []
        self._descriptor: int | None = None
        self._pid = 0

    def last_fit(self) -> int:
        """The number of the last fit that wrote here; 0 where none did."""
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
        """Add a line by one ``write(2)``, so that a process killed later loses none; what a full disk refuses waits.

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
        """Write what a full disk refused before.

        Raises:
            OSError: It still does.
        """
        while self._pending:
            written = os.write(self._open(), self._pending[0])
            if written < len(self._pending[0]):
                # the rest follows when there is room: nobody else writes to this file
                self._pending[0] = self._pending[0][written:]
                continue
            self._pending.pop(0)

    def close(self) -> None:
        """Let go of the file; the next line opens it again."""
        if self._descriptor is not None and self._pid == os.getpid():
            os.close(self._descriptor)
        self._descriptor = None

    def _open(self) -> int:
        if self._descriptor is None or self._pid != os.getpid():
            self._descriptor, self._pid = open_for_append(self.path), os.getpid()
            # once is enough, as only this process appends here
            repair_last_line(self._descriptor)
        return self._descriptor


def _parse_fit_number(line: bytes) -> int:
    return _get_int(parse_object(line) or {}, "fit") or 0


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


@dataclass(frozen=True, slots=True)
class MetricCurve:
    """One metric in one fit, or in a stage beside it.

    Args:
        name: The metric.
        stage: ``fit``, ``validate``, ``test`` or ``predict``.
        fit: The number of the fit in its execution.
        by: ``epoch`` or ``step``: what is counted.
        first: Its first value.
        last: Its last value.
        best: Its best value, by what the training or its name says of better; None where no value is a finite number.
        best_at: The epoch or step of that.
        values: All of them in their order.
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
        """Its value for programs, without the many values."""
        found = asdict(self)
        return {**{name: found[name] for name in found if name != "values"}, "count": len(self.values)}


def read_curves(file: Path | None, larger_better: Mapping[str, bool] = MappingProxyType({})) -> list[MetricCurve]:
    """Read the curves of a metrics file: those by epoch, else those by step; then the values of test and the like.

    Args:
        file: The file; None where there is none.
        larger_better: Whether larger values of a metric are better, where the training said so.
    """
    if file is None:
        return []
    lines = list(iter_metrics(file, "epoch"))
    fits = list(_iter_fit_curves(collect_series(lines), "epoch", larger_better))
    fits = fits or list(_iter_fit_curves(collect_series(iter_metrics(file, "step"), by="step"), "step", larger_better))
    return fits + list(_iter_stage_curves(lines, larger_better))


def _iter_fit_curves(
    tracks: dict[str, dict[int, MetricSeries]], by: str, larger_better: Mapping[str, bool]
) -> Iterator[MetricCurve]:
    for name, fits in tracks.items():
        for fit, track in fits.items():
            yield _build_curve(name, "fit", fit, by, track.positions, track.values, larger_better)


def _iter_stage_curves(lines: Sequence[MetricsLine], larger_better: Mapping[str, bool]) -> Iterator[MetricCurve]:
    found: dict[tuple[str, int, str], list[float]] = {}
    for line in lines:
        if line.stage != "fit":
            for name, value in line.values.items():
                found.setdefault((line.stage, line.fit, name), []).append(value)
    for (stage, fit, name), values in found.items():
        yield _build_curve(name, stage, fit, "epoch", None, values, larger_better)


def _build_curve(
    name: str,
    stage: str,
    fit: int,
    by: str,
    positions: Sequence[int] | None,
    values: Sequence[float],
    larger_better: Mapping[str, bool],
) -> MetricCurve:
    choose = max if larger_better.get(name, larger_is_better(name)) else min
    numbers = [place for place, value in enumerate(values) if math.isfinite(value)]
    best = choose(numbers, key=lambda place: values[place]) if numbers else None
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
    if (found := parse_object(text)) is None:
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
